"""Layer scale: Keras' own layer, or one of the user's, against bare factors of torch, flax and ONNX, and back."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from keras_models import precision
from torch import Tensor, nn

import layoutx
from layoutx.errors import LayoutxError, VerificationError
from layoutx.files.open import open_store
from layoutx.model.onnx_model import onnx_records

WIDTHS, DEPTHS, SIDE = (5, 7), (2, 3), 8
SHAPES = {"map": (-1, 1, 1), "batch": (1, -1, 1, 1), "vector": (-1,), "inner": (-1,)}


class Inner(nn.Module):
    """Factors in a module of their own, as DINO's blocks have them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lambda1 = nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.lambda1.reshape(1, -1, 1, 1)


class Block(nn.Module):
    """A depthwise convolution, two linear layers on the channels, and the factors; `style` says how they are kept."""

    def __init__(self, width: int, style: str) -> None:
        super().__init__()
        self.style = style
        self.conv = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        if style == "inner":
            self.ls1 = Inner(width)
        else:
            name = "gamma" if style == "vector" else "layer_scale"
            setattr(self, name, nn.Parameter(torch.randn(width).reshape(SHAPES[style])))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width, height, width of the map)."""
        y = self.norm(self.conv(x).permute(0, 2, 3, 1))
        y = self.down(nn.functional.gelu(self.up(y))).permute(0, 3, 1, 2)
        if self.style == "inner":
            return x + self.ls1(y)
        return x + (y.mul(self.gamma.reshape(1, -1, 1, 1)) if self.style == "vector" else self.layer_scale * y)


class Net(nn.Module):
    """Two stages of such blocks."""

    def __init__(self, style: str, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Conv2d(3, WIDTHS[0], 2, 2)
        self.first = nn.Sequential(*(Block(WIDTHS[0], style) for _ in range(DEPTHS[0])))
        self.between = nn.Conv2d(WIDTHS[0], WIDTHS[1], 2, 2)
        self.second = nn.Sequential(*(Block(WIDTHS[1], style) for _ in range(DEPTHS[1])))
        self.head = nn.Linear(WIDTHS[1], 4)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, 8, 8) -> (batch, 4)."""
        return self.head(self.second(self.between(self.first(self.stem(x)))).mean((2, 3)))

    def factors(self) -> list[np.ndarray[Any, Any]]:
        """Of all blocks, in their order."""
        named = {n: p for n, p in self.named_parameters() if n.endswith(("layer_scale", "gamma", "lambda1"))}
        return [p.detach().numpy().reshape(-1) for p in named.values()]


def own_layer(keras: Any, ones: int) -> Any:
    """A class of the user's whose factors have dimensions of length one before them."""

    class Branch(keras.layers.Layer):  # type: ignore[misc]
        def build(self, shape: Any) -> None:
            self.layer_scale = self.add_weight(shape=(1,) * ones + (shape[-1],), name="layer_scale")

        def call(self, x: Any) -> Any:
            return x * self.layer_scale

    return Branch


def keras_net(seed: int, ones: int = 0) -> Any:
    """The same network; with `ones` the factors are a layer of the user's own."""
    import keras
    from keras.src.applications.convnext import LayerScale

    k = keras.layers

    def block(x: Any, name: str, width: int) -> Any:
        y = k.DepthwiseConv2D(3, padding="same", name=f"{name}_conv")(x)
        y = k.LayerNormalization(epsilon=1e-6, name=f"{name}_norm")(y)
        y = k.Activation("gelu")(k.Dense(2 * width, name=f"{name}_up")(y))
        y = k.Dense(width, name=f"{name}_down")(y)
        scale = LayerScale(1e-6, width, name=f"{name}_scale") if not ones else own_layer(keras, ones)(name=f"{name}_s")
        return k.add([x, scale(y)])

    with precision(keras, "float32"):
        x = keras.Input((SIDE, SIDE, 3))
        y = k.Conv2D(WIDTHS[0], 2, 2, name="stem")(x)
        for i in range(DEPTHS[0]):
            y = block(y, f"first_{i}", WIDTHS[0])
        y = k.Conv2D(WIDTHS[1], 2, 2, name="between")(y)
        for i in range(DEPTHS[1]):
            y = block(y, f"second_{i}", WIDTHS[1])
        model = keras.Model(x, k.Dense(4, name="head")(k.GlobalAveragePooling2D()(y)))
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=w.shape) for w in model.weights])
    return model


def factors(model: Any) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(w).reshape(-1) for n in model.layers if n.name.endswith(("_scale", "_s")) for w in n.weights]


def batch() -> np.ndarray[Any, Any]:
    return np.random.default_rng(5).normal(size=(2, SIDE, SIDE, 3)).astype("float32")


def turned() -> np.ndarray[Any, Any]:
    """The same with the channels in front."""
    return np.moveaxis(batch(), -1, 1).copy()


@pytest.mark.parametrize(("style", "ones"), [(style, 0) for style in SHAPES] + [("map", 1), ("vector", 3)])
def test_keras_and_torch_there_and_back(style: str, ones: int) -> None:
    model, module = keras_net(1, ones), Net(style).eval()
    assert layoutx.match(module, model).complete
    assert layoutx.port(model, module, batch()).end_to_end.agrees is True
    np.testing.assert_equal(module.factors(), factors(model))
    assert layoutx.validate(model, module, batch()).ok
    other = keras_net(2, ones)
    assert not layoutx.validate(module, other, turned()).ok
    assert layoutx.port(module, other, turned()).end_to_end.agrees is True
    for a, b in zip(other.weights, model.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_names_alone_do_not_prove_that_they_are_multiplied() -> None:
    class Adds(Net):
        def __init__(self) -> None:
            super().__init__("map")
            for block in (*self.first, *self.second):
                block.forward = lambda x, block=block: x + block.layer_scale + 0 * Block.forward(block, x)  # type: ignore[method-assign]

    with pytest.raises(VerificationError):
        layoutx.port(keras_net(1), Adds().eval(), batch())


def test_other_factors_are_told_by_the_layer() -> None:
    """A run does not show a bare parameter: its numbers are compared with those that it should have."""
    model, module = keras_net(1), Net("map").eval()
    layoutx.port(model, module, batch())
    with torch.no_grad():
        module.second[1].layer_scale.copy_(module.second[1].layer_scale.flip(0))
    found = layoutx.diagnose(layoutx.validate(model, module, batch()))
    assert "second_1_scale differs" in str(found)


@pytest.mark.parametrize("kind", ["k.keras", "k.h5", "k.weights.h5"])
def test_files(kind: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model, module = keras_net(1), Net("map")
    save_file(module.state_dict(), tmp_path / "like.safetensors")
    (model.save_weights if "weights" in kind else model.save)(tmp_path / kind)
    model.save(tmp_path / "whole.keras")
    config = {"config": tmp_path / "whole.keras"} if "weights" in kind else {}
    out = tmp_path / "t.safetensors"
    layoutx.convert(tmp_path / kind, out, to="torch", like=tmp_path / "like.safetensors", **config)
    module.load_state_dict(load_file(out))
    np.testing.assert_equal(module.factors(), factors(model))
    if "weights" in kind:
        return
    other = keras_net(2)
    other.save(tmp_path / f"like.{kind}")
    layoutx.convert(out, tmp_path / f"back.{kind}", to="keras", like=tmp_path / f"like.{kind}")
    other.load_weights(tmp_path / f"back.{kind}")
    for a, b in zip(other.weights, model.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_without_a_target_each_has_the_path_of_its_layer(tmp_path: Path) -> None:
    model = keras_net(1)
    model.save(tmp_path / "k.keras")
    layoutx.convert(tmp_path / "k.keras", tmp_path / "t.safetensors", to="torch")
    found = open_store(tmp_path / "t.safetensors").tensors["first_1_scale"].read()
    np.testing.assert_array_equal(found, factors(model)[1])


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("style", ["map", "vector"])
def test_onnx_there_and_back(style: str, dynamo: bool, tmp_path: Path) -> None:
    module, path = Net(style).eval(), tmp_path / "m.onnx"
    x = torch.from_numpy(turned())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (x,), path, dynamo=dynamo, opset_version=18, input_names=["x"], verbose=False)
    scales = [r for r in onnx_records(open_store(path)).layers if r.form == "onnx.Mul"]
    assert len(scales) == sum(DEPTHS)
    assert scales[0].name == ("first.0.layer_scale" if style == "map" else "first.0")  # reshaped: folded, unnamed
    model = keras_net(3)
    layoutx.port(path, model, compare=False)
    assert layoutx.validate(path, model, turned()).ok
    np.testing.assert_equal(factors(model), module.factors())
    new = keras_net(4)
    layoutx.convert(new, tmp_path / "new.onnx", to="onnx", like=path)
    assert layoutx.validate(new, tmp_path / "new.onnx", batch()).ok
    assert not layoutx.validate(new, path, batch()).ok


def test_flax_parameters(tmp_path: Path) -> None:
    from flax.serialization import to_bytes

    rng = np.random.default_rng(2)
    tree = {"params": {"block": {"gamma": rng.normal(size=5), "up": {"kernel": rng.normal(size=(5, 3))}}}}

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.layer_scale = nn.Linear(5, 3, bias=False), nn.Parameter(torch.zeros(5, 1, 1))

    module = Two().double()
    (tmp_path / "f.msgpack").write_bytes(to_bytes(tree))
    layoutx.port(tmp_path / "f.msgpack", module, compare=False)
    np.testing.assert_array_equal(module.layer_scale.detach().numpy()[:, 0, 0], tree["params"]["block"]["gamma"])


def of_state(**tensors: tuple[int, ...]) -> dict[str, str]:
    """Layer -> form, of a state dict with these shapes; "__" stands for the dot of a path."""
    from layoutx.model.load import live_source
    from layoutx.spec.registry import registry

    class Holds(nn.Module):
        pass

    root = Holds()
    for name, shape in {**tensors, "head__weight": (3, 5), "block__fc__weight": (3, 5)}.items():
        *path, last = name.split("__")
        at = root
        for part in path:
            at = at._modules.setdefault(part, nn.Linear(5, 3, bias=False) if last == "weight" else Holds())  # type: ignore[assignment]
        at.register_parameter(last, nn.Parameter(torch.zeros(shape)))
    return {layer.name: layer.form for layer in live_source(root, registry(), {}).layers}


@pytest.mark.parametrize("shape", [(5,), (5, 1, 1), (1, 5, 1, 1), (1, 1, 5), (1, 5), (1, 5, 1)])
@pytest.mark.parametrize("name", ["gamma", "gamma_1", "gamma2", "lambda_1", "layer_scale_parameter", "ls1__gamma"])
def test_what_is_called_so_is_one(name: str, shape: tuple[int, ...]) -> None:
    path = f"block.{name.replace('__', '.')}"
    assert of_state(**{f"block__{name}": shape})[path] == "torch.LayerScale"


@pytest.mark.parametrize(
    "others",
    [
        {"block__gamma": (5,), "block__beta": (5,)},  # a norm of the user's own
        {"block__norm__gamma": (5,)},
        {"block__ln_1__gamma": (5,)},
        {"block__gamma": (5, 2, 2)},
        {"block__gamma": (5, 7)},
        {"block__gamma": ()},
        {"block__g": (5,)},
        {"block__q_bias": (5,)},
    ],
    ids=lambda own: " ".join(f"{name}{shape}".replace(" ", "") for name, shape in own.items()),
)
def test_what_is_not_called_so_or_no_factor_is_none(others: dict[str, tuple[int, ...]]) -> None:
    assert "torch.LayerScale" not in of_state(**others).values()


def test_a_width_that_differs_is_refused_by_name() -> None:
    module = Net("map").eval()
    module.second[1].layer_scale = nn.Parameter(torch.ones(WIDTHS[1] + 2, 1, 1))
    with pytest.raises(LayoutxError, match=r"second_[012]_scale"):
        layoutx.port(keras_net(1), module, compare=False)
