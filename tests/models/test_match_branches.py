"""Branches that differ in wiring alone: operands of a concatenation, poolings; what is symmetric stays open."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from keras_models import precision
from torch import nn
from torch.nn import functional as F

from layoutx.errors import LayoutxError
from layoutx.match import Match, match, place_of
from layoutx.model.matching.wiring import agreement, wires_between
from layoutx.model.record import Way
from layoutx.model.ways import kind_of, passed, through
from layoutx.port import port

# Keras' layer -> the torch module's name for it: words that have nothing in common
NAMES = {
    "stem": "root",
    **{f"{block}_{branch}": f"{there}.{name}"
       for block, there in (("low", "yew"), ("high", "oak"))
       for branch, name in (("plain", "dove"), ("narrow", "crow"), ("wide", "wren"), ("pooled", "swan"))},
    "top": "crown",
}  # fmt: skip


def branched(keras: Any) -> Any:
    """Two blocks of four branches each, of which several have kernels of one shape."""
    layers = keras.layers

    def conv(name: str, x: Any, size: int = 1) -> Any:
        return layers.Conv2D(6, size, padding="same", activation="relu", name=name)(x)

    def block(name: str, x: Any) -> Any:
        pooled = layers.AveragePooling2D(2, strides=1, padding="valid")(layers.ZeroPadding2D(((0, 1), (0, 1)))(x))
        narrow = conv(f"{name}_narrow", x)
        branches = [conv(f"{name}_plain", x), conv(f"{name}_wide", narrow), conv(f"{name}_pooled", pooled)]
        return layers.Concatenate()([branches[0], layers.Concatenate()(branches[1:])])

    with precision(keras, "float32"):
        x = given = keras.Input((8, 8, 6))
        x = block("high", block("low", conv("stem", x)))
        x = layers.GlobalAveragePooling2D()(x)
        return keras.Model(given, layers.Dense(5, name="top")(x))


class Branches(nn.Module):
    """The same block of branches; its modules are defined in another order than that of their calls."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name in ("swan", "wren", "crow", "dove"):
            self.add_module(name, nn.Conv2d(6 if name == "wren" else channels, 6, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dove, crow = F.relu(self.dove(x)), F.relu(self.crow(x))
        swan = F.relu(self.swan(F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 2, 1)))
        return torch.cat([dove, F.relu(self.wren(crow)), swan], 1)


class Tree(nn.Module):
    """The counterpart; `asks`: for a size, so that it cannot be traced, or for a number, which no run without has."""

    ran_on: ClassVar[list[str]] = []

    def __init__(self, asks: str = "") -> None:
        super().__init__()
        self.asks = asks
        self.crown = nn.Linear(18, 5)
        self.oak, self.yew, self.root = Branches(18), Branches(6), nn.Conv2d(6, 6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.asks and isinstance(x.shape[-1], int):
            self.ran_on.append(x.device.type)
        if (self.asks == "size" and x.shape[-1] % 2) or (self.asks == "number" and bool(x.isnan().any())):
            return x
        x = self.oak(self.yew(F.relu(self.root(x))))
        return self.crown(x.mean((2, 3)))


def places(found: Match) -> dict[str, str]:
    return {pair.source.name: place_of(pair) for pair in found.joint.pairs}


@pytest.mark.parametrize("asks", ["", "size", "number"])
def test_branches_are_told_apart_by_where_they_are_joined_and_what_is_pooled(asks: str) -> None:
    """Traced by torch.fx, seen in a run without numbers, and in one with numbers."""
    import keras

    model, module = branched(keras), Tree(asks).eval()
    Tree.ran_on.clear()
    found = match(model, module)
    assert places(found) == NAMES
    assert Tree.ran_on == {"": [], "size": ["meta"], "number": ["meta", "cpu"]}[asks]
    assert {pair.reason for pair in found.joint.pairs} <= {"wired alike", "the only place that fits"}
    report = port(model, module)
    assert report.end_to_end is not None
    assert report.end_to_end.agrees is True


def onnx_file(path: Path) -> Any:
    torch.onnx.export(Tree().eval(), (torch.randn(2, 6, 8, 8),), path / "m.onnx", dynamo=False, input_names=["x"])
    return path / "m.onnx"


def program_file(path: Path) -> Any:
    torch.export.save(torch.export.export(Tree().eval(), (torch.randn(2, 6, 8, 8),)), path / "m.pt2")
    return path / "m.pt2"


def flax_model(path: Path) -> Any:
    from flax import nnx
    from jax import numpy as jnp

    class Block(nnx.Module):
        def __init__(self, channels: int, rngs: Any) -> None:
            for name in ("swan", "wren", "crow", "dove"):
                setattr(self, name, nnx.Conv(6 if name == "wren" else channels, 6, (1, 1), rngs=rngs))

        def __call__(self, x: Any) -> Any:
            pooled = nnx.avg_pool(jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0))), (2, 2), (1, 1))
            wren = nnx.relu(self.wren(nnx.relu(self.crow(x))))
            return jnp.concatenate([nnx.relu(self.dove(x)), wren, nnx.relu(self.swan(pooled))], -1)

    class Whole(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.crown = nnx.Linear(18, 5, rngs=rngs)
            self.oak, self.yew, self.root = Block(18, rngs), Block(6, rngs), nnx.Conv(6, 6, (1, 1), rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.crown(self.oak(self.yew(nnx.relu(self.root(x)))).mean((1, 2)))

    return Whole(nnx.Rngs(0))


@pytest.mark.parametrize("made", [onnx_file, program_file, flax_model])
def test_every_source_of_wiring_tells_branches_apart(made: Any, tmp_path: Path) -> None:
    import keras

    given, model = made(tmp_path), branched(keras)
    assert places(match(model, given)) == NAMES
    assert places(match(given, model)) == {there: here for here, there in NAMES.items()}


def test_a_tflite_graph_tells_branches_apart(tmp_path: Path) -> None:
    import keras
    import tensorflow as tf

    path = tmp_path / "m.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(branched(keras)).convert())
    found = places(match(path, Tree().eval()))
    assert {name.removesuffix("_1"): there for name, there in found.items()} == NAMES


def merged(keras: Any, merge: str) -> Any:
    """Two convolutions of one shape that read the same, and what becomes of both."""
    layers = keras.layers
    given = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="stem")(given)
    both = [layers.Conv2D(6, 1, name=name)(x) for name in ("low", "high")]
    x = getattr(layers, merge)()(both)
    return keras.Model(given, layers.Dense(5, name="top")(layers.GlobalMaxPooling2D()(x)))


class Pair(nn.Module):
    """The counterpart, in an order of definition that says nothing; in `joined` the module defined last comes first."""

    def __init__(self, joined: bool) -> None:
        super().__init__()
        self.joined = joined
        self.crown = nn.Linear(12 if joined else 6, 5)
        self.dove, self.crow, self.root = nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 1), nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.root(x)
        dove, crow = self.dove(x), self.crow(x)
        x = torch.cat([crow, dove], dim=1) if self.joined else crow + dove
        return self.crown(x.amax((2, 3)))


def test_operands_of_a_concatenation_have_an_order_and_those_of_a_sum_have_none() -> None:
    import keras

    model, module = merged(keras, "Concatenate"), Pair(True).eval()
    assert places(match(model, module)) == {"stem": "root", "low": "crow", "high": "dove", "top": "crown"}
    report = port(model, module)
    assert report.end_to_end is not None
    assert report.end_to_end.agrees is True
    model, module = merged(keras, "Add"), Pair(False).eval()
    found = match(model, module)
    assert places(found) == {"stem": "root", "top": "crown"}
    assert {name: set(own) for name, own in found.joint.open.items()} == {
        name: {"dove", "crow"} for name in ("low", "high")
    }
    with pytest.raises(LayoutxError, match="fits several places"):
        port(model, module)


def test_ways_through_operations_without_weights() -> None:
    a, b, c = ((Way(name),) for name in "abc")
    joined = passed("joined", [a, passed("joined", [b, (), c])])
    assert joined == (Way("a", (), 0, 4), Way("b", (), 1, 4), Way("c", (), 3, 4))
    assert passed("avg", [passed("max", [joined[:1]])]) == (Way("a", ("avg", "max"), 0, 4),)
    assert passed("", [joined, joined]) == joined  # a sum of two that are joined alike
    assert passed("", [joined, a]) == (Way("a"), Way("b"), Way("c"))
    assert through(joined[:1], Way("x", ("max",))) == (Way("a", ("max",), 0, 4),)
    assert through(joined[:1], Way("x", (), 1, 2)) == (Way("a", (), 1, 2),)


def test_kinds_have_the_names_of_all_frameworks() -> None:
    joined = ["cat", "concat", "Concatenate", "CONCATENATION", "concatv2", "stack", "hstack"]
    most = ["MaxPool", "maxpool2d", "maxpool2dwithindices", "MaxPooling1D", "MAX_POOL_2D", "reduce_window_max"]
    mean = ["AveragePool", "avgpool3d", "AveragePooling2D", "AVERAGE_POOL_2D", "reduce_window_sum"]
    assert [{kind_of(name) for name in names} for names in (joined, most, mean)] == [{"joined"}, {"max"}, {"avg"}]
    pooled = ["GlobalAveragePooling2D", "GlobalAveragePool", "adaptiveavgpool2d", "mean"]  # a mean is written as each
    assert {kind_of(name) for name in [*pooled, "add", "Conv2D", "category", "stacked"]} == {""}


def test_neighbours_that_come_in_the_same_way_count_more() -> None:
    def wired(way: Way) -> Any:
        found = wires_between({"a": (Way(""),), "b": (way,)})
        assert found is not None
        return found.before["b"], found.after["b"]

    plain, pooled = wired(Way("a")), wired(Way("a", ("avg",)))
    assert agreement(plain, plain, {"a": ("a",)}) == (2, 0, False)  # a plain way says nothing
    assert agreement(pooled, pooled, {"a": ("a",)}) == (2, 0, True)
    assert agreement(pooled, plain, {"a": ("a",)}) == (2, 0, False)
    assert agreement(pooled, pooled, {"a": ("x",)}) == (1, 1, False)
