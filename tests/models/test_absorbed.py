"""A bias before a batch norm, into a layer without one: refused in one error, or taken off the norm's mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.cli import main
from layoutx.errors import ConversionError, LayoutxError

torch = pytest.importorskip("torch")
keras = pytest.importorskip("keras")
nn, layers = torch.nn, keras.layers
RNG = np.random.default_rng(20261122)


def _numbers(name: str, shape: Any) -> np.ndarray:
    """What training leaves: statistics that are neither zero nor one."""
    found = RNG.normal(size=shape) * 0.4
    return (np.abs(found) + 0.5 if "var" in name else found).astype("float32")


def from_keras(shape: tuple[int, ...], *parts: Any) -> Any:
    """A model of these layers in a row, trained-looking."""
    x = given = keras.Input(shape)
    for part in parts:
        x = part(x)
    return filled(keras.Model(given, x))


def filled(model: Any) -> Any:
    """A Keras model with other numbers."""
    for variable in model.variables:
        variable.assign(_numbers(variable.path, variable.shape))
    return model


def from_torch(*parts: Any) -> Any:
    """A module of these in a row, trained-looking."""
    return drawn(nn.Sequential(*parts))


def drawn(module: Any) -> Any:
    """A torch module with other numbers."""
    state = {n: torch.tensor(_numbers(n, t.shape)) for n, t in module.state_dict().items() if t.is_floating_point()}
    module.load_state_dict(state, strict=False)
    return module.eval()


def norm(channels: int, rank: int = 2) -> Any:
    """torch's norm with Keras' eps."""
    return (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[rank](channels, eps=1e-3)


def small() -> Any:
    """Two convolutions with biases, each before its norm."""
    relu, conv = layers.ReLU, layers.Conv2D
    return from_keras((13, 7, 3), conv(11, 3, name="c1"), layers.BatchNormalization(name="b1"), relu(),
                      conv(5, 3, name="c2"), layers.BatchNormalization(name="b2"), relu())  # fmt: skip


def unbiased() -> Any:
    """Its counterpart, in which neither has a bias."""
    return from_torch(nn.Conv2d(3, 11, 3, bias=False), norm(11), nn.ReLU(),
                      nn.Conv2d(11, 5, 3, bias=False), norm(5), nn.ReLU())  # fmt: skip


PAIRS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "dense": lambda: (
        from_keras((5,), layers.Dense(7), layers.BatchNormalization(), layers.ReLU(), layers.Dense(3)),
        from_torch(nn.Linear(5, 7, bias=False), norm(7, 0), nn.ReLU(), nn.Linear(7, 3)),
    ),
    "one axis": lambda: (
        from_keras((13, 3), layers.Conv1D(11, 3), layers.BatchNormalization()),
        from_torch(nn.Conv1d(3, 11, 3, bias=False), norm(11, 1)),
    ),
    "groups": lambda: (
        from_keras((5, 7, 6), layers.Conv2D(15, 3, groups=3), layers.BatchNormalization(axis=3)),
        from_torch(nn.Conv2d(6, 15, 3, groups=3, bias=False), norm(15)),
    ),
    "depthwise": lambda: (
        from_keras((5, 7, 3), layers.DepthwiseConv2D(3, depth_multiplier=2), layers.BatchNormalization()),
        from_torch(nn.Conv2d(3, 6, 3, groups=3, bias=False), norm(6)),
    ),
    "separable": lambda: (
        from_keras((5, 7, 3), layers.SeparableConv2D(11, 3), layers.BatchNormalization()),
        from_torch(nn.Conv2d(3, 3, 3, groups=3, bias=False), nn.Conv2d(3, 11, 1, bias=False), norm(11)),
    ),
    "transposed": lambda: (
        from_keras((5, 7, 3), layers.Conv2DTranspose(11, 3), layers.BatchNormalization()),
        from_torch(nn.ConvTranspose2d(3, 11, 3, bias=False), norm(11)),
    ),
    "from torch": lambda: (
        from_torch(nn.Conv2d(3, 11, 3), norm(11), nn.ReLU(), nn.Conv2d(11, 5, 3), norm(5)),
        from_keras((13, 7, 3), layers.Conv2D(11, 3, use_bias=False), layers.BatchNormalization(), layers.ReLU(),
                   layers.Conv2D(5, 3, use_bias=False), layers.BatchNormalization()),
    ),
    "from torch, dense": lambda: (
        from_torch(nn.Linear(5, 7), norm(7, 0)),
        from_keras((5,), layers.Dense(7, use_bias=False), layers.BatchNormalization()),
    ),
    "from Keras to Keras": lambda: (
        from_keras((5, 7, 3), layers.Conv2D(11, 3), layers.BatchNormalization()),
        from_keras((5, 7, 3), layers.Conv2D(11, 3, use_bias=False), layers.BatchNormalization()),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_the_bias_goes_into_the_mean(name):
    source, target = PAIRS[name]()
    report = lx.port(source, target, materialise=True)
    assert report.exactness == "rounds"
    assert report.end_to_end.agrees
    assert report.end_to_end.largest <= 1e-5 * report.end_to_end.scale
    x = RNG.normal(size=(3, *_given(source))).astype("float32")
    found = lx.validate(source, target, x)
    assert found.ok, str(found)
    assert found.compared == found.layers
    assert found.notes[0].startswith("in one model a batch norm's mean holds the bias of the layer before it")


def _given(model: Any) -> tuple[int, ...]:
    """What one sample of a model's input is like; torch's maps are 13 x 7."""
    if not isinstance(model, nn.Module):
        return tuple(model.input_shape[1:])
    weight = model[0].weight
    return (weight.shape[1],) if weight.ndim == 2 else (weight.shape[1], 13, 7)


def test_validate_of_a_bias_that_no_mean_has():
    """It stays a fault of its layer, beside one that the mean of its norm does hold."""
    source, target = small(), unbiased()
    lx.port(source, target, materialise=True)
    with torch.no_grad():
        target[1].running_mean.copy_(torch.tensor(source.get_layer("b1").moving_mean.numpy()))
    found = lx.validate(source, target)
    assert [check.layer for check in found.checks if not check.ok] == ["c1"]
    assert "(c2 in b2)" in found.notes[0]
    said = " ".join(str(lx.diagnose(source, target)).split())
    assert "the source's was lost" in said
    assert "0 = torch.nn.Conv2d(..., bias=True)" in said
    assert "if a batch norm alone follows it, --materialise" in said


def test_validate_of_a_mean_that_holds_something_else():
    source, target = small(), unbiased()
    lx.port(source, target, materialise=True)
    with torch.no_grad():
        target[1].running_mean[3] += 1e-3
    found = lx.validate(source, target)
    assert [check.layer for check in found.checks if not check.ok] == ["c1", "b1"]


def test_the_mean_is_rounded_once():
    source, target = small(), unbiased()
    report = lx.port(source, target, materialise=True)
    for conv, normed, to in (("c1", "b1", 1), ("c2", "b2", 4)):
        mean, bias = source.get_layer(normed).moving_mean.numpy(), source.get_layer(conv).bias.numpy()
        exact = (mean.astype("float64") - bias.astype("float64")).astype("float32")
        assert target[to].running_mean.numpy().tobytes() == exact.tobytes()
    text = " ".join(str(report).split())
    assert "moving_mean channel - c1.bias channel" in text
    assert "the bias of the layer before it is taken off its mean" in text
    told = {layer["name"]: layer for layer in report.certificate()["layers"]}
    assert told["b1"]["tensors"]["1.running_mean"] == "rounds"
    assert "- c1.bias" in told["b1"]["sums"]["1.running_mean"]
    assert told["c1"]["exactness"] == "moves"
    assert report.tensors_used == report.tensors_total == 12


def test_nobody_asked_and_one_error_says_all():
    source, target = small(), unbiased()
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    with pytest.raises(ConversionError, match="2 layers have a bias that the torch model has no place for") as caught:
        lx.port(source, target, allow=["rounds", "conditional"])
    assert caught.value.where == ("layer c1 (Conv2D): b1 follows", "layer c2 (Conv2D): b2 follows")
    assert "--materialise" in caught.value.do
    assert all(torch.equal(before[name], tensor) for name, tensor in target.state_dict().items())


def test_a_bias_of_zeros_is_no_sum():
    source, target = small(), unbiased()
    for name in ("c1", "c2"):
        bias = source.get_layer(name).bias
        bias.assign(np.zeros(bias.shape))
    with pytest.raises(LayoutxError, match="bias is 0 everywhere and is left out"):
        lx.port(source, target)
    assert lx.port(source, target, allow=["conditional"]).round_trip == "bit-exact"
    report = lx.port(source, target, materialise=True)
    assert report.exactness == "fills"
    assert np.array_equal(target[1].running_mean.numpy(), source.get_layer("b1").moving_mean.numpy())


def test_a_source_without_bias_fills_zeros():
    source = from_keras((5, 7, 3), layers.Conv2D(11, 3, use_bias=False), layers.BatchNormalization())
    target = from_torch(nn.Conv2d(3, 11, 3), norm(11))
    assert lx.port(source, target).end_to_end.agrees
    assert not target[0].bias.detach().any()


class Twice(nn.Module):
    """The norm is not all that reads the convolution."""

    def __init__(self, how: str, bias: bool = False) -> None:
        super().__init__()
        self.conv, self.norm, self.how = nn.Conv2d(3, 11, 3, bias=bias), norm(11), how

    def forward(self, x: Any) -> Any:
        y = self.conv(x)
        return (self.norm(y), y) if self.how == "output" else self.norm(y) + y


def twice(how: str, bias: bool = True) -> Any:
    """The same in Keras; `how`: a layer, an operation or the model's output reads it too."""
    given = keras.Input((5, 7, 3))
    y = layers.Conv2D(11, 3, use_bias=bias)(given)
    z = layers.BatchNormalization()(y)
    return filled(keras.Model(given, {"layer": lambda: layers.Add()([z, y]), "operation": lambda: z + y,
                                      "output": lambda: [z, y]}[how]()))  # fmt: skip


AGAINST: dict[str, Callable[[], tuple[Any, Any]]] = {
    "an activation lies between": lambda: (
        from_keras((5, 7, 3), layers.Conv2D(11, 3), layers.ReLU(), layers.BatchNormalization()),
        from_torch(nn.Conv2d(3, 11, 3, bias=False), nn.ReLU(), norm(11)),
    ),
    "an activation in the layer": lambda: (
        from_keras((5, 7, 3), layers.Conv2D(11, 3, activation="relu"), layers.BatchNormalization()),
        from_torch(nn.Conv2d(3, 11, 3, bias=False), nn.ReLU(), norm(11)),
    ),
    "padding lies between": lambda: (
        from_keras((5, 7, 3), layers.Conv2D(11, 3), layers.ZeroPadding2D(1), layers.BatchNormalization()),
        from_torch(nn.Conv2d(3, 11, 3, bias=False), nn.ZeroPad2d(1), norm(11)),
    ),
    "a layer reads it too": lambda: (twice("layer"), drawn(Twice("sum"))),
    "an operation reads it too": lambda: (twice("operation"), drawn(Twice("sum"))),
    "it is given too": lambda: (twice("output"), drawn(Twice("output"))),
    "no norm": lambda: (
        from_keras((5, 7, 3), layers.Conv2D(11, 3)), from_torch(nn.Conv2d(3, 11, 3, bias=False))
    ),
    "the norm reads something else": lambda: (
        from_keras((5, 7, 3), layers.BatchNormalization(), layers.Conv2D(11, 3)),
        from_torch(norm(3), nn.Conv2d(3, 11, 3, bias=False)),
    ),
    "torch: an activation lies between": lambda: (
        from_torch(nn.Conv2d(3, 11, 3), nn.ReLU(), norm(11)),
        from_keras((5, 7, 3), layers.Conv2D(11, 3, use_bias=False), layers.ReLU(), layers.BatchNormalization()),
    ),
    "torch: a sum reads it too": lambda: (drawn(Twice("sum", True)), twice("layer", False)),
    "torch: it is given too": lambda: (drawn(Twice("output", True)), twice("output", False)),
}  # fmt: skip


@pytest.mark.parametrize("name", AGAINST)
def test_where_the_norm_cannot_take_it(name):
    source, target = AGAINST[name]()
    with pytest.raises(ConversionError, match="has no place for bias"):
        lx.port(source, target, materialise=True)


def test_a_norm_over_another_axis(tmp_path):
    """As many rows as channels: sizes do not tell that the numbers are of other things."""
    source = from_keras((13, 7, 3), layers.Conv2D(11, 3), layers.BatchNormalization(axis=1))
    source.save(tmp_path / "a.keras")
    with pytest.raises(ConversionError, match="has no place for bias"):
        lx.convert(tmp_path / "a.keras", None, to="torch", like=from_torch(nn.Conv2d(3, 11, 3, bias=False), norm(11)),
                   materialise=True)  # fmt: skip


def _same(model: Any, module: Any) -> None:
    x = RNG.normal(size=(2, 13, 7, 3)).astype("float32")
    expected = model(x).numpy()
    found = module(torch.tensor(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("names", ["a module", "a file"])
def test_files(tmp_path, names):
    from safetensors.torch import load_file, save_file

    source, target = small(), unbiased()
    source.save(tmp_path / "a.keras")
    save_file(target.state_dict(), tmp_path / "like.safetensors")
    like = target if names == "a module" else tmp_path / "like.safetensors"
    made = tmp_path / "o.safetensors"
    lx.convert(tmp_path / "a.keras", made, to="torch", like=like, materialise=True)
    target.load_state_dict(load_file(made))
    _same(source, target)
    assert lx.verify_file(made, tmp_path / "a.keras").ok


def test_the_target_tells_the_wiring_of_names_and_numbers(tmp_path):
    from safetensors.torch import save_file

    source = from_torch(nn.Conv2d(3, 11, 3), norm(11), nn.ReLU(), nn.Conv2d(11, 5, 3), norm(5), nn.ReLU())
    save_file(source.state_dict(), tmp_path / "a.safetensors")
    like = from_keras((13, 7, 3), layers.Conv2D(11, 3, use_bias=False), layers.BatchNormalization(), layers.ReLU(),
                      layers.Conv2D(5, 3, use_bias=False), layers.BatchNormalization(), layers.ReLU())  # fmt: skip
    like.save(tmp_path / "like.keras")
    made = tmp_path / "o.keras"
    lx.convert(tmp_path / "a.safetensors", made, to="keras", like=tmp_path / "like.keras", materialise=True)
    _same(keras.saving.load_model(made), source)
    small().save_weights(tmp_path / "b.weights.h5")
    report = lx.convert(tmp_path / "b.weights.h5", None, to="torch", like=unbiased(), materialise=True)
    assert report.exactness == "rounds"


def test_the_command_line(tmp_path, capsys):
    from safetensors.torch import save_file

    small().save(tmp_path / "a.keras")
    save_file(unbiased().state_dict(), tmp_path / "like.safetensors")
    call = ["convert", str(tmp_path / "a.keras"), "-o", str(tmp_path / "o.safetensors"), "--to", "torch"]
    call += ["--like", str(tmp_path / "like.safetensors")]
    assert main(call) != 0
    assert "2 layers have a bias" in capsys.readouterr().err
    assert not (tmp_path / "o.safetensors").exists()
    assert main([*call, "--materialise"]) == 0


def test_a_job_is_kept():
    """The second port of the same structure is not planned again, and reads its own numbers."""
    target = unbiased()
    lx.port(small(), target, materialise=True)
    again = small()
    assert lx.port(again, target, materialise=True).end_to_end.agrees


def test_a_live_onnx_graph(tmp_path):
    """torch's exporter, told to keep the norms, keeps the bias too."""
    pytest.importorskip("onnx")
    source = from_torch(nn.Conv2d(3, 11, 3), norm(11), nn.ReLU(), nn.Conv2d(11, 5, 3), norm(5), nn.ReLU())
    path = tmp_path / "a.onnx"
    torch.onnx.export(source, (torch.zeros(2, 3, 13, 7),), path, dynamo=False,
                      training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False)  # fmt: skip
    target = unbiased()
    with pytest.raises(ConversionError, match="2 layers have a bias that the torch model has no place for"):
        lx.port(path, target)
    lx.port(path, target, materialise=True)
    x = torch.tensor(RNG.normal(size=(2, 3, 13, 7)).astype("float32"))
    np.testing.assert_allclose(target(x).detach().numpy(), source(x).detach().numpy(), atol=1e-5)


def test_flax():
    nnx = pytest.importorskip("flax.nnx")
    jax = pytest.importorskip("jax")

    class Net(nnx.Module):  # type: ignore[misc]
        def __init__(self, between: bool) -> None:
            rngs = nnx.Rngs(0)
            self.conv = nnx.Conv(3, 11, (3, 3), padding="VALID", rngs=rngs)
            self.norm = nnx.BatchNorm(11, epsilon=1e-3, rngs=rngs)
            self.between = between

        def __call__(self, x: Any) -> Any:
            y = self.conv(x)
            return self.norm(jax.nn.relu(y) if self.between else y)

    x = RNG.normal(size=(2, 13, 7, 3)).astype("float32")
    for between in (False, True):
        source = Net(between)
        for name, one in (("bias", source.conv.bias), ("mean", source.norm.mean), ("var", source.norm.var)):
            one[...] = jax.numpy.asarray(_numbers(name, one[...].shape))
        source.eval()
        parts = [nn.Conv2d(3, 11, 3, bias=False), *([nn.ReLU()] if between else []), norm(11)]
        target = from_torch(*parts)
        if between:
            with pytest.raises(ConversionError, match="has no place for bias"):
                lx.port(source, target, x, materialise=True)
            continue
        assert lx.port(source, target, x, materialise=True).end_to_end.agrees
