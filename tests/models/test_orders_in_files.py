"""From file to file, where no run of both models can notice: rows lie in the order that the wiring of both shows."""

from __future__ import annotations

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import LayoutxError

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
L, nn = keras.layers, torch.nn


class Net(nn.Module):
    """A module with these parts, and a function of them and of the inputs."""

    def __init__(self, run, **parts):
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs):
        return self.run(self, *inputs)


def trained(inputs, outputs):
    """A Keras model with numbers of its own in every weight."""
    model, random = keras.Model(inputs, outputs), np.random.default_rng(7)
    model.set_weights([random.normal(0, 0.4, w.shape) for w in model.get_weights()])
    return model


def program(module, inputs, folder, ending):
    """The file of the untrained module: its program, its graph, or names and shapes alone."""
    path = folder / f"twin{ending}"
    if ending == ".pt2":
        torch.export.save(torch.export.export(module, tuple(inputs)), path)
    elif ending == ".onnx":
        torch.onnx.export(module, tuple(inputs), path, dynamo=False)
    else:
        torch.save(module.state_dict(), path)
    return path


def outputs_of(module, inputs, path):
    """What the twin gives with the weights of a converted file."""
    if path.suffix == ".onnx":
        runtime = pytest.importorskip("onnxruntime")
        session = runtime.InferenceSession(path)
        names = [one.name for one in session.get_inputs()]
        return session.run(None, dict(zip(names, (x.numpy() for x in inputs), strict=True)))[0]
    from safetensors.torch import load_file

    module.load_state_dict(load_file(path))
    return module.eval()(*inputs).detach().numpy()


def converted(model, module, x, folder, ending):
    """The largest difference of the two models after a conversion into the twin's own file."""
    module.eval()
    inputs = [torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1) if x.ndim > 3 else x))]
    model.save(folder / "model.keras")
    like = program(module, inputs, folder, ending)
    to, out = ("onnx", folder / "out.onnx") if ending == ".onnx" else ("torch", folder / "out.safetensors")
    lx.convert(folder / "model.keras", out, to=to, like=like, live=False)
    return float(np.abs(outputs_of(module, inputs, out) - model(x).numpy()).max())


def given(*shape):
    return np.random.default_rng(11).normal(size=(3, *shape)).astype("float32")


def picture(middle, shape=(7, 5, 3)):
    """A convolution, a flattened map, and a Dense."""
    inputs = keras.Input(shape)
    maps = L.Conv2D(2, 3, name="conv")(inputs)
    return trained(inputs, L.Dense(11, name="fc")(L.Flatten()(middle(maps))))


def looked_at(flat):
    return Net(lambda s, x: s.fc(flat(s.conv(x))), conv=nn.Conv2d(3, 2, 3), fc=nn.Linear(30, 11))


ORDERS = {
    "columns first": lambda x: x.permute(0, 1, 3, 2).flatten(1),
    "columns, rows, channels": lambda x: x.permute(0, 3, 2, 1).flatten(1),
    "rows, channels, columns": lambda x: x.permute(0, 2, 1, 3).flatten(1),
    "channels last": lambda x: x.permute(0, 2, 3, 1).flatten(1),
}


@pytest.mark.parametrize("ending", [".pt2", ".onnx"])
@pytest.mark.parametrize("order", ORDERS)
def test_a_map_is_flattened_as_the_target_flattens_it(order, ending, tmp_path):
    model = picture(lambda x: x)
    assert converted(model, looked_at(ORDERS[order]), given(7, 5, 3), tmp_path, ending) < 1e-5


@pytest.mark.parametrize("ending", [".pt2", ".onnx"])
@pytest.mark.parametrize("dims", [(2, 1, 3), (3, 1, 2), (1, 3, 2)])
def test_a_map_that_keras_turns_before_it_flattens_it(dims, ending, tmp_path):
    model = picture(L.Permute(dims))
    assert converted(model, looked_at(lambda x: x.flatten(1)), given(7, 5, 3), tmp_path, ending) < 1e-5


def test_a_square_map_is_told_by_the_axes_of_its_convolution(tmp_path):
    inputs = keras.Input((5, 5, 3))
    model = trained(inputs, L.Dense(11, name="fc")(L.Flatten()(L.Conv2D(2, 3, name="conv")(inputs))))
    twin = Net(
        lambda s, x: s.fc(s.conv(x).permute(0, 1, 3, 2).flatten(1)), conv=nn.Conv2d(3, 2, 3), fc=nn.Linear(18, 11)
    )
    assert converted(model, twin, given(5, 5, 3), tmp_path, ".pt2") < 1e-5


@pytest.mark.parametrize("ending", [".pt2", ".onnx"])
def test_steps_and_features_in_the_other_order(ending, tmp_path):
    inputs = keras.Input((7, 3))
    steps = L.Dense(5, name="each")(inputs)
    both = L.Concatenate()([L.Flatten()(L.Permute((2, 1))(steps)), L.GlobalAveragePooling1D()(steps)])
    model = trained(inputs, L.Dense(11, name="fc")(both))

    def run(s, x):
        x = s.each(x)
        return s.fc(torch.cat([x.flatten(1), x.mean(1)], 1))

    twin = Net(run, each=nn.Linear(3, 5), fc=nn.Linear(40, 11))
    assert converted(model, twin, given(7, 3), tmp_path, ending) < 1e-5


def test_axes_of_one_length_that_nothing_tells_apart_are_refused(tmp_path):
    inputs = keras.Input((5, 5, 3))
    model = trained(inputs, L.Dense(11, name="fc")(L.Flatten()(inputs)))
    twin = Net(lambda s, x: s.fc(x.permute(0, 2, 1, 3).flatten(1)), fc=nn.Linear(75, 11))
    with pytest.raises(LayoutxError, match="the order of the input axis is not known"):
        converted(model, twin, given(5, 5, 3), tmp_path, ".pt2")


def test_one_vector_twice_beside_itself(tmp_path):
    inputs = keras.Input((7, 5, 3))
    flat = L.Flatten()(L.Conv2D(2, 3, name="conv")(inputs))
    model = trained(inputs, L.Dense(11, name="fc")(L.Concatenate()([flat, flat])))
    twin = Net(
        lambda s, x: (lambda y: s.fc(torch.cat([y, y], 1)))(s.conv(x).permute(0, 1, 3, 2).flatten(1)),
        conv=nn.Conv2d(3, 2, 3),
        fc=nn.Linear(60, 11),
    )
    assert converted(model, twin, given(7, 5, 3), tmp_path, ".pt2") < 1e-5


def test_the_other_way_round(tmp_path):
    model = picture(L.Permute((2, 1, 3)))
    model.save(tmp_path / "like.keras")
    twin = looked_at(lambda x: x.permute(0, 2, 1, 3).flatten(1)).eval()
    x = given(7, 5, 3)
    native = torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))
    source = program(twin, [native], tmp_path, ".pt2")
    lx.convert(source, tmp_path / "out.keras", to="keras", like=tmp_path / "like.keras", live=False)
    got = keras.models.load_model(tmp_path / "out.keras")(x).numpy()
    np.testing.assert_allclose(got, twin(native).detach().numpy(), atol=1e-5)
