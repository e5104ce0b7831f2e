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


def drawn(vector, twin, parts):
    """A Dense or several make a vector, a Reshape a map of it, and a convolution reads that."""
    inputs = keras.Input((7,))
    maps = L.Conv2D(5, 2, name="conv")(L.Reshape((2, 3, 4))(vector(inputs)))
    model = trained(inputs, L.GlobalAveragePooling2D()(maps))
    sees = Net(lambda s, x: s.conv(twin(s, x).reshape(-1, 4, 2, 3)).mean((2, 3)), conv=nn.Conv2d(4, 5, 2), **parts)
    return model, sees


def dense(name, **kwargs):
    return L.Dense(24, name=name, **kwargs)


def gated(x):
    return dense("a")(x) * dense("b", activation="sigmoid")(x)


def residual(x):
    first = dense("a", activation="relu")(x)
    return L.Average()([first, dense("b")(first), dense("c")(x)])


def normed(x):
    first = L.BatchNormalization(name="norm", epsilon=1e-5, center=False, scale=False)(dense("a")(x))
    return L.Add()([dense("b")(first), first])


def two(before=7, **more):
    return {"a": nn.Linear(7, 24), "b": nn.Linear(before, 24), **more}


SUMS = {
    "gate": (gated, lambda s, x: s.a(x) * s.b(x).sigmoid(), two),
    "residual": (
        residual,
        lambda s, x: (lambda y: (y + s.b(y) + s.c(x)) / 3)(s.a(x).relu()),
        lambda: two(24, c=nn.Linear(7, 24)),
    ),
    "norm": (
        normed,
        lambda s, x: (lambda y: s.b(y) + y)(s.norm(s.a(x))),
        lambda: two(24, norm=nn.BatchNorm1d(24, affine=False)),
    ),
}


@pytest.mark.parametrize("ending", [".pt", ".pt2"])
@pytest.mark.parametrize("kind", SUMS)
def test_vectors_that_are_added_before_they_become_a_map_are_all_turned(kind, ending, tmp_path):
    vector, twin, parts = SUMS[kind]
    model, sees = drawn(vector, twin, parts())
    for layer in model.layers:  # no negative variance
        if layer.name == "norm":
            layer.set_weights([np.abs(w) + 0.5 for w in layer.get_weights()])
    assert converted(model, sees, given(7), tmp_path, ending) < 1e-5


def beside(x):
    return L.Concatenate()([L.Dense(12, name="a")(x), L.Dense(12, name="b")(x)])


def of_steps(x):
    return L.LSTM(24, name="a")(L.Reshape((7, 1))(x))


def looked_up(x):
    return L.Multiply()([dense("a")(x), L.LSTM(24, name="b")(L.Reshape((7, 1))(x))])


@pytest.mark.parametrize("vector", [beside, of_steps, looked_up])
def test_what_cannot_be_turned_before_it_becomes_a_map_is_refused(vector, tmp_path):
    """The units of an LSTM, and the ends of two vectors: the map of a channels-first model is made of others."""
    model, _ = drawn(vector, None, {})
    model.save(tmp_path / "model.keras")
    with pytest.raises(LayoutxError, match="is not known"):
        lx.convert(tmp_path / "model.keras", tmp_path / "out.safetensors", to="torch", live=False)


def test_a_map_that_code_makes_of_a_vector_is_refused(tmp_path):
    inputs = keras.Input((7,))
    maps = L.Lambda(lambda x: keras.ops.reshape(x, (-1, 2, 3, 4)), output_shape=(2, 3, 4))(dense("a")(inputs))
    trained(inputs, L.GlobalAveragePooling2D()(L.Conv2D(5, 2, name="conv")(maps))).save(tmp_path / "model.keras")
    with pytest.raises(LayoutxError, match="the order of the 4 in rows of conv is not known"):
        lx.convert(tmp_path / "model.keras", tmp_path / "out.safetensors", to="torch", live=False)
    lx.convert(tmp_path / "model.keras", tmp_path / "kept.safetensors", to="torch", live=False, keep_order=["conv"])


def test_steps_that_become_maps_are_refused(tmp_path):
    inputs = keras.Input((5, 7))
    maps = L.TimeDistributed(L.Conv2D(6, 2), name="conv")(L.Reshape((5, 2, 3, 4))(dense("a")(inputs)))
    trained(inputs, L.GlobalAveragePooling3D()(maps)).save(tmp_path / "model.keras")
    with pytest.raises(LayoutxError, match="makes a map across other axes"):
        lx.convert(tmp_path / "model.keras", tmp_path / "out.safetensors", to="torch", live=False)


def test_a_plane_of_an_embedding_beside_a_picture_has_one_order(tmp_path):
    """One channel: nothing could stand elsewhere."""
    inputs, label = keras.Input((4, 5, 3)), keras.Input((1,), dtype="int32")
    plane = L.Reshape((4, 5, 1))(L.Embedding(5, 20, name="table")(label))
    maps = L.Conv2D(5, 2, name="conv")(L.Concatenate()([inputs, plane]))
    trained([inputs, label], L.Dense(11, name="fc")(L.Flatten()(maps))).save(tmp_path / "model.keras")
    report = lx.convert(tmp_path / "model.keras", tmp_path / "out.safetensors", to="torch", live=False)
    assert "rows h w c reordered to c h w" in " ".join(str(report).split())


def test_an_einsum_on_a_map_hides_its_order_as_a_dense_does(tmp_path):
    inputs = keras.Input((4, 5, 3))
    maps = L.EinsumDense("bhwc,cd->bhwd", output_shape=(3, 4, 7), bias_axes="d")(L.Conv2D(6, 2)(inputs))
    trained(inputs, L.Dense(11, name="fc")(L.Flatten()(maps))).save(tmp_path / "model.keras")
    with pytest.raises(LayoutxError, match="the order of the 84 input rows of fc is not known"):
        lx.convert(tmp_path / "model.keras", tmp_path / "out.safetensors", to="torch", live=False)


def test_a_map_without_a_convolution_is_one_too(tmp_path):
    """Units become a map, which an operation that is not known gives on: its rows are in no known order."""
    inputs = keras.Input((7,))
    maps = keras.ops.sort(L.Reshape((2, 3, 4))(dense("a")(inputs)), 1)
    trained(inputs, L.Dense(11, name="fc")(L.Flatten()(maps))).save(tmp_path / "model.keras")
    with pytest.raises(LayoutxError, match="the order of the 24 input rows of fc is not known"):
        lx.convert(tmp_path / "model.keras", tmp_path / "out.safetensors", to="torch", live=False)


def test_a_dense_that_is_added_to_a_flattened_map_beside_features_is_refused(tmp_path):
    inputs = keras.Input((4, 5, 3))
    maps = L.Conv2D(2, 2, name="conv")(inputs)
    flat = L.Concatenate()([L.GlobalAveragePooling2D()(inputs), L.Flatten()(maps)])
    trained(inputs, L.Dense(11, name="fc")(L.Add()([flat, L.Dense(27, name="more")(flat)]))).save(
        tmp_path / "model.keras"
    )
    with pytest.raises(LayoutxError, match="the order of the 27 input rows of fc is not known"):
        lx.convert(tmp_path / "model.keras", tmp_path / "out.safetensors", to="torch", live=False)
