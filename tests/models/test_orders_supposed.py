"""From file to file: an order that nothing shows is said in the first line, or refused where it turns."""

from __future__ import annotations

import numpy as np
import pytest
from test_orders_in_files import Net, converted, given, looked_at, outputs_of, picture, program, trained

import layoutx as lx
from layoutx.errors import LayoutxError

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
L, F, nn = keras.layers, torch.nn.functional, torch.nn
USUAL = "if maps are flattened in the usual order before fc"


def told(model, like, folder):
    model.save(folder / "model.keras")
    return lx.convert(folder / "model.keras", folder / "out.safetensors", to="torch", like=like, live=False)


def test_names_and_shapes_do_not_tell_how_the_target_flattens(tmp_path):
    twin = looked_at(lambda x: x.flatten(1))
    report = told(picture(lambda x: x), program(twin, [], tmp_path, ".pt"), tmp_path)
    assert report.supposed == ("fc",)
    assert USUAL in " ".join(str(report).split("\n\n")[0].split())
    assert report.to_dict()["supposed"] == ["fc"]
    later = lx.verify_file(tmp_path / "out.safetensors")
    assert later.supposed == ("fc",)
    assert later.to_dict()["supposed"] == ["fc"]
    assert "the rows of fc in model.keras is not known" in " ".join(str(later).split())


@pytest.mark.parametrize("ending", ["live", ".pt2"])
def test_an_ordinary_network_is_not_asked_about(ending, tmp_path):
    twin = looked_at(lambda x: x.flatten(1)).eval()
    like = twin if ending == "live" else program(twin, [torch.zeros(2, 3, 7, 5)], tmp_path, ending)
    assert not told(picture(lambda x: x), like, tmp_path).supposed


def test_the_input_that_a_live_module_was_tried_on_is_no_evidence(tmp_path):
    """It runs on channels first and last alike, so that the sizes of a flattened picture tell nothing."""
    inputs = keras.Input((4, 5, 3))
    model = trained(inputs, L.Dense(11, name="fc")(L.Flatten()(inputs)))
    twin = nn.Sequential()
    twin.add_module("flat", nn.Flatten())
    twin.add_module("fc", nn.Linear(60, 11))
    assert told(model, twin, tmp_path).supposed == ("fc",)
    assert not told(model, program(twin, [torch.zeros(2, 3, 4, 5)], tmp_path, ".pt2"), tmp_path).supposed


def test_axes_of_a_picture_that_was_tried_are_told_though_no_framework_orders_them_otherwise(tmp_path):
    inputs = keras.Input((4, 5, 3))
    columns = L.Dense(7, name="each")(L.Permute((1, 3, 2))(inputs))
    model = trained(inputs, L.Dense(11, name="fc")(L.Flatten()(columns)))
    twin = Net(
        lambda s, x: s.fc(s.each(x.permute(0, 1, 3, 2)).transpose(1, 2).flatten(1)),
        each=nn.Linear(5, 7),
        fc=nn.Linear(84, 11),
    ).eval()
    assert told(model, twin, tmp_path).supposed == ("fc",)


def test_a_live_module_that_turns_its_map_is_run_for_the_sizes(tmp_path):
    """Traced symbolically it shows which axis stands where, and not how long it is."""
    twin = looked_at(lambda x: x.permute(0, 3, 1, 2).flatten(1)).eval()
    model, x = picture(lambda x: x), given(7, 5, 3)
    report = told(model, twin, tmp_path)
    native = torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))
    got = outputs_of(twin, [native], tmp_path / "out.safetensors")
    np.testing.assert_allclose(got, model(x).numpy(), atol=1e-5)
    assert not report.supposed


def test_a_run_of_both_models_settles_what_was_supposed():
    inputs = keras.Input((4, 5, 3))
    model = trained(inputs, L.Dense(11, name="fc")(L.Flatten()(inputs)))
    assert not lx.port(model, nn.Sequential(nn.Flatten(), nn.Linear(60, 11))).supposed


@pytest.mark.parametrize("ending", [".pt2", ".onnx"])
def test_units_that_become_other_axes_there(ending, tmp_path):
    """The norm reads two channels on both sides, and the map is made the other way round."""
    inputs = keras.Input((7,))
    maps = L.BatchNormalization(axis=1, epsilon=1e-5, name="norm")(L.Reshape((2, 5))(L.Dense(10, name="units")(inputs)))
    model = trained(inputs, L.Dense(11, name="fc")(L.Flatten()(maps)))
    model.get_layer("norm").moving_variance.assign([0.5, 1.5])
    twin = Net(
        lambda s, x: s.fc(s.norm(s.units(x).view(-1, 5, 2).transpose(1, 2)).flatten(1)),
        units=nn.Linear(7, 10),
        norm=nn.BatchNorm1d(2),
        fc=nn.Linear(10, 11),
    )
    assert converted(model, twin, given(7), tmp_path, ending) < 1e-5


def test_axes_of_one_length_that_one_model_turns_are_refused(tmp_path):
    inputs = keras.Input((7,))
    model = trained(inputs, L.Dense(11, name="fc")(L.Flatten()(L.Reshape((3, 3))(L.Dense(9, name="units")(inputs)))))
    twin = Net(
        lambda s, x: s.fc(s.units(x).view(-1, 3, 3).transpose(1, 2).flatten(1)),
        units=nn.Linear(7, 9),
        fc=nn.Linear(9, 11),
    )
    with pytest.raises(LayoutxError, match="axes of one length could be each other"):
        converted(model, twin, given(7), tmp_path, ".pt2")


def test_what_was_lost_here_and_is_turned_there_is_told(tmp_path):
    inputs = keras.Input((7, 5))
    steps = L.Dense(3, name="each")(inputs)
    model = trained(inputs, L.Dense(11, name="fc")(L.Flatten()(keras.ops.sort(steps, axis=1))))
    twin = Net(
        lambda s, x: s.fc(s.each(x).transpose(1, 2).flatten(1)), each=nn.Linear(5, 3), fc=nn.Linear(21, 11)
    ).eval()
    assert told(model, program(twin, [torch.zeros(2, 7, 5)], tmp_path, ".pt2"), tmp_path).supposed == ("fc",)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 3, 1, 2)])
def test_a_graph_whose_pads_are_computed(order, tmp_path):
    """torch's older exporter computes the widths of a Pad by nodes: without them nothing behind it has a shape."""
    model = picture(lambda x: L.ZeroPadding2D(((1, 2), (1, 0)))(x))
    twin = Net(
        lambda s, x: s.fc(F.pad(s.conv(x), (1, 0, 1, 2)).permute(order).reshape(x.shape[0], -1)),
        conv=nn.Conv2d(3, 2, 3),
        fc=nn.Linear(64, 11),
    )
    assert converted(model, twin, given(7, 5, 3), tmp_path, ".onnx") < 1e-5


def moving(moved):
    """A model that moves what stands along an axis of its map, and a module that has its rows the other way."""
    ops = keras.ops
    here = {"flip": lambda x: ops.flip(x, 2), "roll": lambda x: ops.roll(x, 1, 2), "cut": lambda x: x[:, 1:, :]}[moved]
    there = {"flip": lambda x: x.flip(3), "roll": lambda x: x.roll(1, 3), "cut": lambda x: x[:, :, 1:]}[moved]
    twin = Net(
        lambda s, x: s.fc(there(s.conv(x)).permute(0, 1, 3, 2).flatten(1)),
        conv=nn.Conv2d(3, 2, 3),
        fc=nn.Linear(24 if moved == "cut" else 30, 11),
    )
    return picture(here), twin.eval()


@pytest.mark.parametrize("moved", ["flip", "roll", "cut"])
def test_a_live_module_moves_positions_as_a_program_does(moved, tmp_path):
    (model, twin), x = moving(moved), given(7, 5, 3)
    assert not told(model, twin, tmp_path).supposed
    native = torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))
    got = outputs_of(twin, [native], tmp_path / "out.safetensors")
    np.testing.assert_allclose(got, model(x).numpy(), atol=1e-5)


@pytest.mark.parametrize("ending", [".pt2", ".onnx"])
@pytest.mark.parametrize("moved", ["flip", "roll", "cut"])
def test_positions_that_move_along_an_axis_are_still_its_own(moved, ending, tmp_path):
    assert converted(*moving(moved), given(7, 5, 3), tmp_path, ending) < 1e-5


def test_a_map_that_is_enlarged_has_its_channels_first(tmp_path):
    inputs = keras.Input((7,))
    maps = L.UpSampling2D(2)(L.Reshape((2, 2, 2))(L.Dense(8, name="units")(inputs)))
    model = trained(inputs, L.Dense(11, name="fc")(L.Flatten()(maps)))
    twin = Net(
        lambda s, x: s.fc(F.interpolate(s.units(x).view(-1, 2, 2, 2), scale_factor=2).flatten(1)),
        units=nn.Linear(7, 8),
        fc=nn.Linear(32, 11),
    )
    assert converted(model, twin, given(7), tmp_path, ".pt2") < 1e-5


@pytest.mark.parametrize("ending", ["live", ".pt2", ".onnx"])
def test_a_network_that_is_called_on_two_pictures(ending, tmp_path):
    """Each call has poolings of its own, and one order."""
    one = L.Input((9, 7, 3))
    base = keras.Model(one, L.Dense(5, name="fc")(L.Flatten()(L.MaxPooling2D(2)(L.Conv2D(2, 2, name="conv")(one)))))
    a, b = keras.Input((9, 7, 3)), keras.Input((9, 7, 3))
    model = trained([a, b], L.Dense(11, name="end")(L.Subtract()([base(a), base(b)])))

    def run(s, a, b):
        a, b = (s.fc(F.max_pool2d(s.conv(x), 2).flatten(1)) for x in (a, b))
        return s.end(a - b)

    twin = Net(run, conv=nn.Conv2d(3, 2, 2), fc=nn.Linear(24, 5), end=nn.Linear(5, 11)).eval()
    like = twin if ending == "live" else program(twin, [torch.zeros(2, 3, 9, 7)] * 2, tmp_path, ending)
    model.save(tmp_path / "model.keras")
    to, out = ("onnx", "out.onnx") if ending == ".onnx" else ("torch", "out.safetensors")
    assert not lx.convert(tmp_path / "model.keras", tmp_path / out, to=to, like=like, live=False).supposed
