"""One torch.nn module, or one of layoutx.torch, with given weights, run once (torch 2.13)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from layoutx.empty import NOTHING
from layoutx.errors import UsageError
from layoutx.verify.live.arrays import Array, Arrays, cast_all, inputs, options, refused
from layoutx.verify.live.torch_own_live import OWNERS, PACKED, attended, built

STACKS = ("RNN", "LSTM", "GRU")
OWN = "layoutx."  # how the modules of layoutx.torch are called here
RECURRENT = (*STACKS, *(f"{OWN}{name}" for name in (*STACKS, "ConvLSTM1d", "ConvLSTM2d", "ConvLSTM3d")))
CELLS = ("RNNCell", "LSTMCell", "GRUCell")


def run(form: str, config: Mapping[str, Any], tensors: Arrays, x: Arrays, dtype: str = "float64") -> dict[str, Array]:
    """What the real module gives in evaluation mode. `config` holds the keywords of its constructor.

    RNN, LSTM, GRU, ConvLSTM and MultiheadAttention are built with `batch_first=True` unless the config says otherwise;
    their h, c are (layers*directions, batch, hidden). A cell is run over x (batch, time, input), its h, c are
    (1, batch, hidden). Three composites that are no classes of torch:
    `torch.SeparableConv{1,2,3}d` (depthwise.weight, pointwise.weight, either `.bias`; config stride, padding, dilation,
    padding_mode, other keys ignored), `torch.Normalization` (buffers mean, variance; channels last; config invert) and
    `torch.AttentionProjections` ({q,k,v,out}_proj.weight, `.bias`; config
    num_heads, num_kv_heads). Three that are classes of the user's own are those of `torch_own_live`.

    Raises:
        UsageError: no such module, or a missing input.
        BindError: the module does not take the config or the tensors.
    """
    import torch

    name = form.removeprefix("torch.")
    state = {key: torch.from_numpy(array) for key, array in cast_all(tensors, dtype).items()}
    data = {key: torch.from_numpy(array) for key, array in cast_all(x, dtype).items()}
    with torch.no_grad():
        try:
            module = _build(name, config, state, data).to(getattr(torch, dtype)).eval()
            module.load_state_dict(state, strict=True)
        except (TypeError, ValueError, RuntimeError, KeyError) as error:
            raise refused(form, tensors, error) from error
        result = _call(name, module, config, data)
    return {key: value.numpy() for key, value in result.items()}


def describe(
    form: str, config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]] = NOTHING
) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the real module's state dict, in its order; not for composites. Raises UsageError."""
    module = _plain(form.removeprefix("torch."), config)
    return [(name, tuple(value.shape)) for name, value in module.state_dict().items()]


def _build(name: str, config: Mapping[str, Any], state: Mapping[str, Any], data: Mapping[str, Any]) -> Any:
    if name.startswith("SeparableConv"):
        return _separable(int(name[-2]), config, state, data["x"].shape[1])
    if name == "AttentionProjections":
        return _projections(state)
    if name == "Normalization":
        return _statistics(state)
    if name in OWNERS:
        return built(name, config, state)
    return _plain(name, config)


def _plain(name: str, config: Mapping[str, Any]) -> Any:
    home = import_module("layoutx.torch" if name.startswith(OWN) else "torch.nn")
    short = name.removeprefix(OWN)
    if not hasattr(home, short):
        raise UsageError(f"{home.__name__} has no {short}")
    first = {"batch_first": True} if name in (*RECURRENT, "MultiheadAttention") else {}
    return getattr(home, short)(**{**first, **options(config, *(["offset"] if name == "Embedding" else []))})


def _separable(rank: int, config: Mapping[str, Any], state: Mapping[str, Any], channels: int) -> Any:
    from torch import nn

    conv = getattr(nn, f"Conv{rank}d")
    middle, _, *size = state["depthwise.weight"].shape
    steps = {key: config[key] for key in ("stride", "padding", "dilation", "padding_mode") if key in config}
    bias = ["depthwise.bias" in state, "pointwise.bias" in state]
    depthwise = conv(channels, middle, tuple(size), groups=channels, bias=bias[0], **steps)
    pointwise = conv(middle, len(state["pointwise.weight"]), 1, bias=bias[1])
    return nn.ModuleDict({"depthwise": depthwise, "pointwise": pointwise})


def _projections(state: Mapping[str, Any]) -> Any:
    from torch import nn

    def linear(name: str) -> Any:
        out, into = state[f"{name}.weight"].shape
        return nn.Linear(into, out, bias=f"{name}.bias" in state)

    return nn.ModuleDict({name: linear(name) for name in ("q_proj", "k_proj", "v_proj", "out_proj")})


def _statistics(state: Mapping[str, Any]) -> Any:
    import torch

    module = torch.nn.Module()
    for name in ("mean", "variance"):
        module.register_buffer(name, torch.empty_like(state[name]))
    return module


def _normalized(module: Any, config: Mapping[str, Any], x: Any) -> Any:
    root = module.variance.sqrt().clamp(min=1e-7)
    return x * root + module.mean if config.get("invert") else (x - module.mean) / root


def _call(name: str, module: Any, config: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    if name == "MultiheadAttention":
        return {"y": module(*inputs(name, data, "query", "key", "value"), need_weights=False)[0]}
    if name == "AttentionProjections":
        return {"y": _attend(module, config, *inputs(name, data, "query", "key", "value"))}
    if name == PACKED:
        return {"y": attended(module, config, *inputs(name, data, "query", "key", "value"))}
    if name == "Bilinear":
        return {"y": module(*inputs(name, data, "x1", "x2"))}
    (x,) = inputs(name, data, "x")
    if name == "Normalization":
        return {"y": _normalized(module, config, x)}
    if name == "Embedding" and config.get("offset"):  # which row is the first is the model's code, not the module's
        return {"y": module(x + config["offset"])}
    if name == "EmbeddingBag" and x.ndim == 1:  # a bag for each index, that rows can be compared one by one
        return {"y": module(x[:, None])}
    if name.startswith("SeparableConv"):
        return {"y": module["pointwise"](module["depthwise"](x))}
    if name in CELLS:
        return _over_time(module, x)
    if name not in RECURRENT:
        return {"y": module(x)}
    y, states = module(x)
    return {"y": y, **_named(states)}


def _attend(module: Any, config: Mapping[str, Any], query: Any, key: Any, value: Any) -> Any:
    from torch.nn.functional import scaled_dot_product_attention

    heads = config["num_heads"]
    kv = config.get("num_kv_heads") or heads

    def split(name: str, data: Any, many: int) -> Any:
        return module[name](data).unflatten(-1, (many, -1)).transpose(1, 2)

    q, k, v = split("q_proj", query, heads), split("k_proj", key, kv), split("v_proj", value, kv)
    mixed = scaled_dot_product_attention(q, k, v, enable_gqa=kv != heads)
    return module["out_proj"](mixed.transpose(1, 2).flatten(2))


def _over_time(cell: Any, x: Any) -> dict[str, Any]:
    import torch

    outputs: list[Any] = []
    states: Any = None
    for t in range(x.shape[1]):
        states = cell(x[:, t], states)
        outputs.append(states[0] if isinstance(states, Sequence) else states)
    last = tuple(s[None] for s in states) if isinstance(states, Sequence) else states[None]
    return {"y": torch.stack(outputs, 1), **_named(last)}


def _named(states: Any) -> dict[str, Any]:
    return dict(zip(("h", "c"), states if isinstance(states, Sequence) else (states,), strict=False))
