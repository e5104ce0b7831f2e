"""Every Keras form against the real layers of Keras 3 and tf_keras: names in order, shapes, defaults, config keys."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

import pytest

from layoutx.errors import BindError
from layoutx.spec.registry import registry

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

Case = tuple[str, dict[str, Any], tuple[int | None, ...]]
SPACE = (13, 17, 19)

CASES: list[Case] = [
    ("Dense", {"units": 5}, (None, 7)),
    ("Dense", {"units": 5, "use_bias": False, "activation": "relu"}, (None, 3, 7)),
    ("BatchNormalization", {}, (None, 4, 7)),
    ("BatchNormalization", {"scale": False, "momentum": 0.9}, (None, 7)),
    ("BatchNormalization", {"center": False, "axis": 1}, (None, 7, 4)),
    ("LayerNormalization", {}, (None, 4, 7)),
    ("LayerNormalization", {"scale": False}, (None, 7)),
    ("LayerNormalization", {"center": False}, (None, 7)),
    ("GroupNormalization", {"groups": 3}, (None, 4, 15)),
    ("GroupNormalization", {"groups": -1}, (None, 4, 5)),
    ("GroupNormalization", {"groups": 3, "scale": False, "center": False}, (None, 4, 15)),
    ("Embedding", {"input_dim": 11, "output_dim": 5}, (None, 3)),
    ("PReLU", {}, (None, 7)),
    ("PReLU", {}, (None, 5, 3, 7)),
    ("PReLU", {"shared_axes": [1, 2]}, (None, 5, 3, 7)),
    *[(f"Conv{n}D", {"filters": 6, "kernel_size": (3, 5, 2)[:n]}, (None, *SPACE[:n], 7)) for n in (1, 2, 3)],
    ("Conv2D", {"filters": 6, "kernel_size": (3, 5), "groups": 2, "use_bias": False}, (None, 13, 17, 14)),
    ("Conv2D", {"filters": 6, "kernel_size": 3, "data_format": "channels_first", "padding": "same"}, (None, 7, 13, 17)),
    *[(f"Conv{n}DTranspose", {"filters": 5, "kernel_size": (3, 5, 2)[:n]}, (None, *SPACE[:n], 7)) for n in (1, 2, 3)],
    ("Conv2DTranspose", {"filters": 5, "kernel_size": (3, 5), "use_bias": False, "strides": 2}, (None, 13, 17, 7)),
    *[
        (f"DepthwiseConv{n}D", {"kernel_size": (3, 5)[:n], "depth_multiplier": 2}, (None, *SPACE[:n], 7))
        for n in (1, 2)
    ],
    ("DepthwiseConv2D", {"kernel_size": (3, 5), "use_bias": False}, (None, 13, 17, 7)),
    *[
        (f"SeparableConv{n}D", {"filters": 11, "kernel_size": (3, 5)[:n], "depth_multiplier": 2}, (None, *SPACE[:n], 7))
        for n in (1, 2)
    ],
    ("SeparableConv2D", {"filters": 11, "kernel_size": (3, 5), "use_bias": False}, (None, 13, 17, 7)),
    *[(rnn, {"units": 5}, (None, 3, 7)) for rnn in ("SimpleRNN", "LSTM", "GRU")],
    *[
        (rnn, {"units": 5, "use_bias": False, "activation": "relu"}, (None, 3, 7))
        for rnn in ("SimpleRNN", "LSTM", "GRU")
    ],
    ("GRU", {"units": 5, "reset_after": False}, (None, 3, 7)),
    *[(f"Bidirectional.{rnn}", {"units": 5}, (None, 3, 7)) for rnn in ("SimpleRNN", "LSTM", "GRU")],
    ("Bidirectional.GRU", {"units": 5, "reset_after": False, "use_bias": False}, (None, 3, 7)),
    ("Bidirectional.GRU", {"units": 5, "reset_after": False}, (None, 3, 7)),
]
ONLY_3: list[Case] = [
    ("RMSNormalization", {}, (None, 4, 7)),
    ("MultiHeadAttention", {"num_heads": 2, "key_dim": 3, "value_dim": 5}, (None, 4, 7)),
    ("MultiHeadAttention", {"num_heads": 2, "key_dim": 3, "use_bias": False, "output_shape": 11}, (None, 4, 7)),
    ("GroupQueryAttention", {"head_dim": 3, "num_query_heads": 10, "num_key_value_heads": 2}, (None, 4, 7)),
    (
        "GroupQueryAttention",
        {"head_dim": 3, "num_query_heads": 4, "num_key_value_heads": 2, "use_bias": False},
        (None, 4, 7),
    ),
]
WIDE = {"query_shape": (None, 4, 7), "value_shape": (None, 4, 11), "key_shape": (None, 4, 13)}


def _layers(version: int) -> Any:
    return pytest.importorskip("keras" if version == 3 else "tf_keras").layers


def _make(layers: Any, name: str, config: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The layer, and its config as a reader hands it to the form."""
    if not name.startswith("Bidirectional."):
        layer = getattr(layers, name)(**config)
        return layer, layer.get_config()
    inner = getattr(layers, name.split(".")[1])(**config)
    layer = layers.Bidirectional(inner)
    return layer, {**inner.get_config(), "merge_mode": layer.get_config()["merge_mode"]}


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """As after JSON: sequences are lists."""
    return {k: list(v) if isinstance(v, (list, tuple)) else v for k, v in config.items()}


def _stored(layer: Any) -> list[tuple[str, tuple[int, ...]]]:
    """(name, shape) in `layer.weights` order, named as forms do: the path's last word, with what tells two apart."""
    found = []
    for weight in layer.weights:
        path = getattr(weight, "path", weight.name).split(":")[0].split("/")
        part = next((p for p in path if p.split("_")[0] in ("forward", "backward")), "")
        side = f"{part.split('_')[0]}_layer/" if part else ""
        head = f"{path[-2]}/" if path[-2:-1] and path[-2] in ("query", "key", "value", "attention_output") else ""
        found.append((f"{side}{head}{path[-1]}", tuple(int(n) for n in weight.shape)))
    return found


def _check(version: int, name: str, config: dict[str, Any], build: Callable[[Any], None]) -> None:
    reg = registry()
    layer, full = _make(_layers(version), name, config)
    build(layer)
    stored = _stored(layer)
    full = {**_plain(full), "version": version}
    bound = reg.bind(f"keras.{name}", full, shapes=dict(stored))
    assert [(t.name, t.shape) for t in bound.tensors] == stored
    form = reg.form(f"keras.{name}")
    unknown = set(full) - set(form.config) - form.ignore - reg.framework("keras").ignore
    assert not unknown, f"config keys that the form neither reads nor ignores: {sorted(unknown)}"


@pytest.mark.parametrize("version", [3, 2])
@pytest.mark.parametrize(("name", "config", "shape"), CASES, ids=lambda v: str(v) if isinstance(v, str) else None)
def test_tensors_are_those_of_the_real_layer(version: int, name: str, config: dict[str, Any], shape: Any) -> None:
    _check(version, name, config, lambda layer: layer.build(shape))


@pytest.mark.parametrize(("name", "config", "shape"), ONLY_3, ids=lambda v: str(v) if isinstance(v, str) else None)
def test_tensors_of_layers_that_only_keras_3_builds_from_shapes(name: str, config: dict[str, Any], shape: Any) -> None:
    wide = "Attention" in name
    _check(3, name, config, lambda layer: layer.build(**WIDE) if wide else layer.build(shape))


def test_attention_of_tf_keras() -> None:
    np = pytest.importorskip("numpy")

    def call(layer: Any) -> None:
        layer(np.ones((1, 4, 7), "float32"), np.ones((1, 4, 11), "float32"), np.ones((1, 4, 13), "float32"))

    _check(2, "MultiHeadAttention", {"num_heads": 2, "key_dim": 3, "value_dim": 5}, call)


def test_einsum_dense_takes_its_dims_from_the_equation() -> None:
    layer = _layers(3).EinsumDense("abc,cde->abde", output_shape=(None, 3, 5), bias_axes="de")
    layer.build((None, 7, 11))
    stored, reg = _stored(layer), registry()
    assert stored == [("kernel", (11, 3, 5)), ("bias", (3, 5))]
    config = {**layer.get_config(), "kernel_dims": "c d e", "bias_dims": "d e", "version": 3}
    bound = reg.bind("keras.EinsumDense", config, shapes=dict(stored), refine={"input": "c", "output": "d e"})
    assert [(t.name, t.shape) for t in bound.tensors] == stored
    known = set(reg.form("keras.EinsumDense").config) | reg.framework("keras").ignore
    assert set(layer.get_config()) <= known
    shapes, refine = {"kernel": (11, 3, 5), "bias": (5,)}, {"input": "c", "output": "d e"}
    with pytest.raises(BindError, match="the axis d of bias is not stored"):  # one bias for all d is no dense bias
        reg.bind("keras.EinsumDense", {**config, "bias_dims": "e"}, shapes=shapes, refine=refine)


# the constructor says None and get_config() writes what that means, or (reset_after) old configs lack the key
RESOLVED = {"activation", "data_format", "reset_after"}


@pytest.mark.parametrize("name", sorted({c[0] for c in CASES + ONLY_3 if "." not in c[0]}))
def test_defaults_are_those_of_the_constructor(name: str) -> None:
    """`null` in a spec stands for an argument without default."""
    form = registry().form(f"keras.{name}")
    signature = inspect.signature(getattr(_layers(3), name).__init__).parameters
    for key, default in form.config.items():
        real = signature[key].default if key in signature else inspect.Parameter.empty
        if real is inspect.Parameter.empty or key in RESOLVED:
            assert default is None or key in RESOLVED or key not in signature, f"{name}.{key}"
        else:
            same = set(real) == {default} if isinstance(real, tuple) else real == default
            assert same, f"{name}.{key}: the spec says {default!r}, keras {real!r}"


@pytest.mark.parametrize(
    ("version", "spelled", "meant"),
    [
        (3, "hard_sigmoid", "hard_sigmoid_1/6"),
        (2, "hard_sigmoid", "hard_sigmoid_0.2"),
        (3, "swish", "silu"),
        (2, "sigmoid", "sigmoid"),
    ],
)
def test_activations_are_named_for_what_they_compute(version: int, spelled: str, meant: str) -> None:
    reg = registry()
    config = {"recurrent_activation": spelled, "activation": spelled, "version": version}
    bound = reg.bind("keras.LSTM", config, sizes={"hidden": 5, "input": 7})
    assert bound.facts == {"activation": meant, "gate_activation": meant}
    assert reg.bind("keras.Dense", config, sizes={"output": 5, "input": 7}).settings["activation"] == meant
