"""Where the windows of a convolution or pooling lie: TensorFlow's borders, torch's, and one for the other (F7)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from layoutx.plan.plan import Array
from layoutx.verify.diagnose.suspect import Edit, Suspect

KINDS = ("conv", "separable_conv", "conv_transpose")
Pairs = tuple[tuple[int, int], ...]


def same(length: int, reach: int, stride: int) -> tuple[int, int]:
    """TensorFlow's `same` for one axis: what is odd goes to the end."""
    total = max(0, (-(-length // stride) - 1) * stride + reach - length)
    return total // 2, total - total // 2


def windows(x: Array, size: Sequence[int], stride: Sequence[int]) -> Array:
    """Views of a map (batch, ..., channel): (batch, ..., channel, *size)."""
    axes = tuple(range(1, x.ndim - 1))
    found = np.lib.stride_tricks.sliding_window_view(x, tuple(size), axes)
    return found[(slice(None), *(slice(None, None, s) for s in stride))]


def borders(suspect: Suspect) -> Iterator[Edit]:
    """Another border, stride or dilation of the target's convolution, and another crop of a transposed one (F7)."""
    bound = suspect.target
    if bound.kind.name not in KINDS or "x" not in suspect.inputs or "y" not in suspect.expected:
        return
    now = {**bound.settings, **suspect.settings}
    tried = {_meaning(suspect, now)}
    for settings, words in _ways(suspect, now):
        meaning = _meaning(suspect, {**now, **settings})
        if meaning not in tried:
            tried.add(meaning)
            yield _edit(suspect, settings, _said(now), words)


def _meaning(suspect: Suspect, settings: Mapping[str, Any]) -> str:
    """Settings as numbers: `same` is a pair of borders for each axis once the lengths are known."""
    space = suspect.inputs["x"].shape[1:-1]
    stride, dilation = (_each(settings.get(key), len(space)) for key in ("strides", "dilation"))
    padding = settings.get("padding")
    if suspect.target.kind.name != "conv_transpose" and padding in ("same", "valid", None, 0):
        ends = [same(n, r, s) for n, r, s in zip(space, _reach(suspect, dilation), stride, strict=True)]
        padding = ends if padding == "same" else [(0, 0)] * len(space)
    elif isinstance(padding, int):
        padding = [(padding, padding)] * len(space)
    elif isinstance(padding, (list, tuple)):
        padding = [(p, p) if isinstance(p, int) else tuple(p) for p in padding]
    return repr((stride, dilation, padding, settings.get("output_padding")))


def _said(settings: Mapping[str, Any]) -> str:
    return f"padding {settings.get('padding')}, strides {settings.get('strides')}, dilation {settings.get('dilation')}"


def _ways(suspect: Suspect, now: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    theirs = suspect.source.settings
    own = {key: theirs[key] for key in ("strides", "dilation", "output_padding") if theirs.get(key) is not None}
    space = suspect.inputs["x"].shape[1:-1]
    rank = len(space)
    for steps, more in ((dict[str, Any](), ""), (own, ", at the source's strides and dilation")):
        stride, dilation = (_each({**now, **steps}.get(key), rank) for key in ("strides", "dilation"))
        reach = _reach(suspect, dilation)
        if suspect.target.kind.name != "conv_transpose":
            ends: Pairs = tuple(same(n, r, s) for n, r, s in zip(space, reach, stride, strict=True))
            yield {**steps, "padding": ends}, f"`same` as TensorFlow pads, {_pairs(ends)}{more}"
            front: Pairs = tuple((b, a) for a, b in ends)
            yield {**steps, "padding": front}, f"`same` with the odd element in front, {_pairs(front)}{more}"
            yield {**steps, "padding": tuple((r // 2, r // 2) for r in reach)}, f"as much at both ends{more}"
            yield {**steps, "padding": tuple((r - 1, 0) for r in reach)}, f"all of it in front (causal){more}"
        else:
            yield {**steps, "padding": "same"}, f"cropped as Keras does with `same`{more}"
        yield {**steps, "padding": "valid"}, f"none{more}"
        if theirs.get("padding") is not None:
            yield {**steps, "padding": theirs["padding"]}, f"the source's, {theirs['padding']}{more}"
    for name in ("dilation", "strides"):
        value = _each(now.get(name), rank)
        if len(set(value)) > 1:
            yield {name: tuple(reversed(value))}, f"{name} of the axes exchanged"


def _pairs(ends: Pairs) -> str:
    return " ".join(f"({a}, {b})" for a, b in ends)


def _reach(suspect: Suspect, dilation: Sequence[int]) -> list[int]:
    return [(k - 1) * d + 1 for k, d in zip(_kernel(suspect), dilation, strict=True)]


def _kernel(suspect: Suspect) -> list[int]:
    names = suspect.target.kind.spread.get(suspect.inputs["x"].ndim - 2, ())
    return [suspect.target.sizes[name] for name in names]


def _each(value: Any, rank: int) -> tuple[int, ...]:
    if value is None:
        return (1,) * rank
    return (int(value),) * rank if isinstance(value, int) else tuple(int(v) for v in value)


def _edit(suspect: Suspect, settings: dict[str, Any], now: str, words: str) -> Edit:
    def apply(s: Suspect) -> Suspect:
        return replace(s, settings={**s.settings, **settings})

    what = f"{suspect.target.form.name} computes with {now}; the source's border is {words}"
    return Edit("F7", "border", what, apply, _option(suspect), _code(suspect, settings), words)


def _option(suspect: Suspect) -> str:
    """The module of layoutx.torch that pads as Keras does."""
    if suspect.target.form.framework != "torch":
        return ""
    rank = suspect.inputs["x"].ndim - 2
    name = "ConvTranspose" if suspect.target.kind.name == "conv_transpose" else "Conv"
    return f"layoutx.torch.{name}{rank}dSame pads as Keras does"


def _code(suspect: Suspect, settings: dict[str, Any]) -> str:
    padding = settings.get("padding")
    if suspect.target.form.framework == "torch" and isinstance(padding, tuple):
        ends = ", ".join(f"{a}, {b}" for a, b in reversed(padding))
        return f"x = F.pad(x, ({ends}))   # before {suspect.place}, whose own padding is then 0"
    return f"{suspect.place}: " + ", ".join(f"{key}={value}" for key, value in settings.items())
