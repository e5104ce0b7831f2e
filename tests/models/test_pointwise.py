"""A convolution of one position in the place of a Dense, and the other way: what heads and squeezes are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graph_torch import scrambled
from torch import nn

from layoutx.convert import convert
from layoutx.errors import LayoutxError, VerificationError
from layoutx.port import port
from layoutx.validate import validate

BOTH = (False, True)


def squeezed(dense: bool, head: bool) -> Any:
    """A net with squeeze and excitation and a head, each of Dense layers or of convolutions of one position."""
    import keras

    layers = keras.layers
    first = keras.Input((12, 10, 3))
    x = layers.ReLU()(layers.BatchNormalization(name="bn")(layers.Conv2D(7, 3, name="stem")(first)))
    s = layers.GlobalAveragePooling2D(keepdims=not dense)(x)
    for name, units, activation in (("down", 5, "relu"), ("up", 7, "sigmoid")):
        made = layers.Dense(units, activation=activation, name=name) if dense else None
        s = (made or layers.Conv2D(units, 1, activation=activation, name=name))(s)
    x = layers.Multiply()([x, layers.Reshape((1, 1, 7))(s)])
    x = layers.GlobalAveragePooling2D(keepdims=not head)(x)
    x = layers.Dense(11, name="head")(x) if head else layers.Flatten()(layers.Conv2D(11, 1, name="head")(x))
    return scrambled(keras.Model(first, x), 20261122)


class Squeezed(nn.Module):
    """The same in torch, its names other ones."""

    def __init__(self, dense: bool, head: bool) -> None:
        super().__init__()
        self.dense, self.flat = dense, head
        self.stem, self.bn = nn.Conv2d(3, 7, 3), nn.BatchNorm2d(7, eps=1e-3)
        self.fc1 = nn.Linear(7, 5) if dense else nn.Conv2d(7, 5, 1)
        self.fc2 = nn.Linear(5, 7) if dense else nn.Conv2d(5, 7, 1)
        self.out = nn.Linear(7, 11) if head else nn.Conv2d(7, 11, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn(self.stem(x)))
        s = torch.sigmoid(self.fc2(torch.relu(self.fc1(x.mean((2, 3), keepdim=not self.dense)))))
        s = s[:, :, None, None] if self.dense else s
        return self.out((x * s).mean((2, 3), keepdim=not self.flat)).flatten(1)


@pytest.mark.parametrize("dense", BOTH)
@pytest.mark.parametrize("head", BOTH)
def test_each_in_the_others_place_and_back(dense: bool, head: bool) -> None:
    """Keras' Dense into torch's convolution and its convolution into Linear; back, the same bits."""
    model, module = squeezed(dense, head), Squeezed(not dense, not head).eval()
    before = [np.array(w) for w in model.get_weights()]
    report = port(model, module)
    assert report.end_to_end.agrees is True
    assert len(report.layers) == 5
    assert all("reference" not in line.proof.method for line in report.layers)
    assert validate(model, module).ok
    assert validate(module, model).ok
    scrambled(model, 3)
    assert port(module, model).end_to_end.agrees is True
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_files(tmp_path: Path) -> None:
    """A .keras file into the names of a state dict, and that into the .keras file: the same numbers."""
    import keras
    from safetensors.torch import load_file, save_file

    model, module = squeezed(True, False), Squeezed(False, True).eval()
    source, like, out, back = (str(tmp_path / n) for n in ("m.keras", "like.safetensors", "o.safetensors", "b.keras"))
    model.save(source)
    save_file(module.state_dict(), like)
    convert(source, out, to="torch", like=like)
    module.load_state_dict(load_file(out))
    x = np.random.default_rng(5).normal(size=(2, 12, 10, 3)).astype("float32")
    with torch.no_grad():
        found = module(torch.from_numpy(np.moveaxis(x, -1, 1).copy())).numpy()
    np.testing.assert_allclose(found, np.asarray(model(x)), rtol=1e-4, atol=1e-5)
    convert(out, back, to="keras", like=source)
    for old, new in zip(model.get_weights(), keras.models.load_model(back).get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def maps(*layers: Any) -> Any:
    """Layers in a row over maps of (6, 4) and 3 channels."""
    import keras

    return scrambled(keras.Sequential([keras.Input((6, 4, 3)), *layers]), 20261122)


class Last(nn.Module):
    """Two Linear layers over the channels of maps that have them first."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 7), nn.Linear(7, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.relu(self.a(x.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)


def test_over_maps() -> None:
    """Where the layer meets every position of a map (mixers, ConvNeXt): both ways, layer by layer."""
    from keras import layers

    dense = maps(layers.Dense(7, activation="relu", name="a"), layers.Dense(5, name="b"))
    conv = maps(layers.Conv2D(7, 1, activation="relu", name="a"), layers.Conv2D(5, 1, name="b"))
    for model, module in (
        (dense, nn.Sequential(nn.Conv2d(3, 7, 1), nn.ReLU(), nn.Conv2d(7, 5, 1)).eval()),
        (conv, Last().eval()),
    ):
        assert port(model, module).end_to_end.agrees is True
        assert validate(model, module).ok
        assert validate(module, model).ok


def test_only_what_is_pointwise() -> None:
    """A window, groups, steps or padding make another function: refused, and no number is written."""
    from keras import layers

    for layer in (layers.Conv2D(7, 3, padding="same", name="a"), layers.Conv2D(6, 1, groups=3, name="a")):
        module = nn.Sequential(nn.Linear(3, layer.filters))
        before = module[0].weight.detach().clone()
        with pytest.raises(LayoutxError, match="no place"):
            port(maps(layer), module, compare=False)
        assert torch.equal(module[0].weight, before)
    for channels, option in ((4, {"groups": 2}), (3, {"stride": 2}), (3, {"padding": 1})):
        import keras

        model = scrambled(keras.Sequential([keras.Input((6, 4, channels)), layers.Dense(8, name="a")]), 1)
        module = nn.Sequential(nn.Conv2d(channels * (2 if channels == 4 else 1), 8, 1, **option))
        with pytest.raises(LayoutxError, match="described for"):
            port(model, module, compare=False)


def test_steps_of_the_source_are_noticed() -> None:
    """A convolution that leaves positions out is no Linear over all of them: the comparison says so."""
    from keras import layers

    module = nn.Sequential(nn.Linear(3, 7)).eval()

    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = module[0]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    with pytest.raises(VerificationError):
        port(maps(layers.Conv2D(7, 1, strides=2, name="a")), First())


def test_its_own_kind_first() -> None:
    """Where a layer of the same kind has the sizes, the other kind is no candidate."""
    from keras import layers

    model = maps(layers.Conv2D(3, 1, name="conv"), layers.GlobalAveragePooling2D(), layers.Dense(3, name="dense"))

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.z, self.a = nn.Linear(3, 3), nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.z(self.a(x).mean((2, 3)))

    report = port(model, Both().eval())
    assert report.end_to_end.agrees is True
    assert {line.name: line.target for line in report.layers} == {"conv": "torch.Conv2d", "dense": "torch.Linear"}


def test_jax_and_onnx(tmp_path: Path) -> None:
    """Flax' Dense, nnx' Linear and a Gemm in the place of a convolution."""
    import onnx
    import onnxruntime
    from flax import nnx
    from keras import layers

    model = maps(layers.Conv2D(7, 1, name="a"), layers.Conv2D(5, 1, name="b"))

    class Own(nnx.Module):
        def __init__(self) -> None:
            self.a, self.b = nnx.Linear(3, 7, rngs=nnx.Rngs(0)), nnx.Linear(7, 5, rngs=nnx.Rngs(1))

        def __call__(self, x: Any) -> Any:
            return self.b(self.a(x))

    assert port(model, Own()).end_to_end.agrees is True
    source, like, out = (str(tmp_path / n) for n in ("m.keras", "like.onnx", "o.onnx"))
    model.save(source)
    net = nn.Sequential(nn.Linear(3, 7), nn.Linear(7, 5)).eval()
    torch.onnx.export(net, (torch.zeros(2, 3),), like, dynamo=False)
    convert(source, out, to="onnx", like=like)
    onnx.checker.check_model(out)
    rows = np.random.default_rng(2).normal(size=(2, 3)).astype("float32")
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: rows})
    whole = np.broadcast_to(rows[:, None, None], (2, 6, 4, 3))
    np.testing.assert_allclose(found, np.asarray(model(whole))[:, 0, 0], rtol=1e-5, atol=1e-6)
