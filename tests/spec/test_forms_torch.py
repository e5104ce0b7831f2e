"""Every torch form against the real module's state_dict: names in order, shapes, dtypes, defaults."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from layoutx.errors import BindError
from layoutx.lang.tree import Axis, walk
from layoutx.spec.registry import registry

torch = pytest.importorskip("torch")

CASES: list[tuple[str, dict[str, Any]]] = [
    ("Linear", {"in_features": 7, "out_features": 5}),
    ("Linear", {"in_features": 7, "out_features": 5, "bias": False}),
    *[
        (f"Conv{n}d", {"in_channels": 6, "out_channels": 10, "kernel_size": (3, 5, 7)[:n], "groups": 2})
        for n in (1, 2, 3)
    ],
    ("Conv2d", {"in_channels": 7, "out_channels": 5, "kernel_size": 3, "bias": False, "padding": 1}),
    *[
        (f"ConvTranspose{n}d", {"in_channels": 6, "out_channels": 10, "kernel_size": (3, 5, 7)[:n], "groups": 2})
        for n in (1, 2, 3)
    ],
    ("ConvTranspose2d", {"in_channels": 7, "out_channels": 5, "kernel_size": 3, "bias": False, "stride": 2}),
    ("Embedding", {"num_embeddings": 11, "embedding_dim": 5, "padding_idx": 0}),
    *[(f"BatchNorm{n}d", {"num_features": 7}) for n in (1, 2, 3)],
    ("BatchNorm2d", {"num_features": 7, "affine": False}),
    ("BatchNorm2d", {"num_features": 7, "track_running_stats": False}),
    ("BatchNorm2d", {"num_features": 7, "momentum": None}),
    ("LayerNorm", {"normalized_shape": 7}),
    ("LayerNorm", {"normalized_shape": 7, "bias": False}),
    ("LayerNorm", {"normalized_shape": 7, "elementwise_affine": False}),
    ("RMSNorm", {"normalized_shape": 7}),
    ("RMSNorm", {"normalized_shape": 7, "elementwise_affine": False}),
    ("GroupNorm", {"num_groups": 3, "num_channels": 15}),
    ("GroupNorm", {"num_groups": 3, "num_channels": 15, "affine": False}),
    *[(f"InstanceNorm{n}d", {"num_features": 7, "affine": True}) for n in (1, 2, 3)],
    ("InstanceNorm2d", {"num_features": 7}),
    ("InstanceNorm2d", {"num_features": 7, "affine": True, "track_running_stats": True}),
    ("PReLU", {}),
    ("PReLU", {"num_parameters": 7}),
    *[
        (cell, {"input_size": 7, "hidden_size": 5, "bias": b})
        for cell in ("RNNCell", "LSTMCell", "GRUCell")
        for b in (True, False)
    ],
    ("MultiheadAttention", {"embed_dim": 10, "num_heads": 2}),
    ("MultiheadAttention", {"embed_dim": 10, "num_heads": 2, "bias": False}),
    ("MultiheadAttention", {"embed_dim": 10, "num_heads": 2, "kdim": 7, "vdim": 11}),
    ("MultiheadAttention", {"embed_dim": 10, "num_heads": 2, "kdim": 7, "vdim": 11, "bias": False}),
]


def _state(module: Any) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, tuple(t.shape)) for name, t in module.state_dict().items()]


@pytest.mark.parametrize(("name", "config"), CASES, ids=lambda v: str(v) if isinstance(v, str) else None)
def test_tensors_are_those_of_the_real_module(name: str, config: dict[str, Any]) -> None:
    module = getattr(torch.nn, name)(**config)
    config = dict(config)
    if name == "MultiheadAttention":
        config["_qkv_same_embed_dim"] = module._qkv_same_embed_dim
    bound = registry().bind(f"torch.{name}", config, shapes=dict(_state(module)))
    assert [(t.name, t.shape) for t in bound.tensors] == _state(module)
    for tensor in bound.tensors:
        assert tensor.dtype == ("int64" if module.state_dict()[tensor.name].dtype == torch.int64 else "")


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("both", [True, False])
def test_stacked_rnns_layer_by_layer(name: str, bias: bool, both: bool) -> None:
    config = {"input_size": 7, "hidden_size": 5, "num_layers": 3, "bias": bias, "bidirectional": both}
    state = _state(getattr(torch.nn, name)(**config))
    found = []
    for layer in range(3):
        own = {n: s for n, s in state if f"_l{layer}" in n}
        bound = registry().bind(f"torch.{name}", config, shapes=own, instance={"layer": layer})
        found += [(t.name, t.shape) for t in bound.tensors]
    assert found == state


def test_modules_of_composite_forms() -> None:
    conv = torch.nn.Conv2d
    parts = {"depthwise": conv(7, 14, (3, 5), groups=7, bias=False), "pointwise": conv(14, 11, 1)}
    state = [(f"{part}.{n}", s) for part, module in parts.items() for n, s in _state(module)]
    bound = registry().bind("torch.SeparableConv2d", {"in_channels": 7}, shapes=dict(state))
    assert [(t.name, t.shape) for t in bound.tensors] == state
    assert {k: bound.sizes[k] for k in ("channel", "mult", "out", "kh", "kw")} == {
        "channel": 7,
        "mult": 2,
        "out": 11,
        "kh": 3,
        "kw": 5,
    }

    linear = torch.nn.Linear
    parts = {"q_proj": linear(7, 30), "k_proj": linear(11, 15), "v_proj": linear(13, 10), "out_proj": linear(20, 17)}
    state = [(f"{part}.{n}", s) for part, module in parts.items() for n, s in _state(module)]
    config = {"num_heads": 10, "num_kv_heads": 5}
    bound = registry().bind("torch.AttentionProjections", config, shapes=dict(state))
    assert [(t.name, t.shape) for t in bound.tensors] == state
    assert {k: bound.sizes[k] for k in ("kv", "rep", "head", "value")} == {"kv": 5, "rep": 2, "head": 3, "value": 2}


@pytest.mark.parametrize("name", sorted({c[0] for c in CASES} | {"RNN", "LSTM", "GRU"}))
def test_defaults_are_those_of_the_constructor(name: str) -> None:
    form = registry().form(f"torch.{name}")
    module = getattr(torch.nn, name)
    signature = inspect.signature(
        torch.nn.RNNBase.__init__ if name in ("RNN", "LSTM", "GRU") else module.__init__
    ).parameters
    for key, default in form.config.items():
        if key in ("rank", "_qkv_same_embed_dim", "nonlinearity"):
            continue
        real = signature[key].default
        assert default == (None if real is inspect.Parameter.empty else real), f"{name}.{key}"


def test_momentum_is_told_as_the_share_that_is_kept() -> None:
    assert registry().bind("torch.BatchNorm2d", {}, sizes={"channel": 7}).settings["momentum"] == 0.9
    assert registry().bind("keras.BatchNormalization", {}, sizes={"channel": 7}).settings["momentum"] == 0.99


@pytest.mark.parametrize(
    ("form", "config", "words"),
    [
        ("torch.MultiheadAttention", {"add_bias_kv": True}, "add_bias_kv=False only, not True"),
        ("torch.Embedding", {"max_norm": 1.0}, "max_norm=None only, not 1.0"),
        ("torch.Conv2d", {"padding_mode": "reflect"}, "padding_mode='zeros' only"),
        ("keras.BatchNormalization", {"renorm": True}, "renorm=False only"),
        ("keras.LayerNormalization", {"rms_scaling": True}, "rms_scaling=False only"),
        ("keras.MultiHeadAttention", {"use_gate": True}, "use_gate=False only"),
        ("keras.MultiHeadAttention", {"attention_axes": [1, 2]}, r"attention_axes=None or \(1,\) only"),
        ("onnx.GroupNormalization", {"since_version": 18}, "since_version=21 only"),
    ],
)
def test_what_a_form_does_not_describe_is_refused(form: str, config: dict[str, Any], words: str) -> None:
    axes = registry().kind_of(form).roles.values()
    names = {node.name for role in axes for node in walk(role.axes) if isinstance(node, Axis)}
    sizes = dict.fromkeys([*names, "kh", "kw"], 3)
    with pytest.raises(BindError, match=words):
        registry().bind(form, config, sizes=sizes)
