"""Convolutions of any rank as sums over kernel positions: plain, transposed and separable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from layoutx.errors import SizeError, UsageError
from layoutx.verify.forward.shapes import Array, Arrays, Facts, biased, common_dtype, need, one_each, sizes_of

Pair = tuple[int, int]


def conv(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, Array]:
    """Cross-correlation: y[p] = sum over kernel positions k of x[p * stride + k * dilation - padding] kernel[k].

    kernel (group, out, in, ...), bias (group, out) or absent; x (batch, ..., group*in) -> y (batch, ..., group*out).
    A kernel without positions meets each of the data's.
    Settings `strides`, `dilation` (one integer an axis, default 1) and `padding`: "valid", "same" (the odd
    element at the end, TensorFlow), "causal" (all of it in front), (lo, hi) pairs; also one integer an axis for both
    ends, or ONNX pads, all lo and then all hi. None or left out: 1, 1 and no padding.
    """
    (kernel,), (data,) = need("conv", roles, "kernel"), need("conv", x, "x")
    bias = roles.get("bias")
    sizes = sizes_of(
        "conv",
        {
            "kernel": (kernel, "group out in k..."),
            "bias": (bias, "group out"),
            "x": (data, "batch space... group*in"),
        },
    )
    if kernel.ndim == 3:  # of one position, which says nothing of the data's rank: a Linear in its place
        kernel = kernel.reshape(*kernel.shape, *(1,) * (data.ndim - 2))
    _same_rank("conv", kernel.ndim - 3, data)
    y = correlate(data, kernel, settings)
    return {"y": biased(y, bias).reshape(*y.shape[:-2], sizes["group"] * sizes["out"])}


def separable_conv(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, Array]:
    """A depthwise convolution, then a product with the pointwise matrix at every position.

    depthwise (channel, mult, ...), pointwise (out, channel, mult), bias (out) or absent;
    x (batch, ..., channel) -> y (batch, ..., out). Settings as `conv`, for the depthwise part.
    """
    depthwise, pointwise = need("separable_conv", roles, "depthwise", "pointwise")
    (data,) = need("separable_conv", x, "x")
    bias = roles.get("bias")
    sizes_of(
        "separable_conv",
        {
            "depthwise": (depthwise, "channel mult k..."),
            "pointwise": (pointwise, "out channel mult"),
            "bias": (bias, "out"),
            "x": (data, "batch space... channel"),
        },
    )
    _same_rank("separable_conv", depthwise.ndim - 2, data)
    y = np.einsum("...cm,ocm->...o", correlate(data, depthwise[:, :, np.newaxis], settings), pointwise)
    return {"y": biased(y, bias)}


def conv_transpose(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, Array]:
    """The adjoint of `conv`: every x[p] adds x[p] kernel[k] at p * stride + k * dilation; then the ends are cropped.

    kernel (group, in, out, ...), bias (group, out) or absent; x (batch, ..., group*in) -> y (batch, ..., group*out).
    Settings `strides`, `dilation`, `padding` and `output_padding` (one integer an axis, None for none).
    With n positions and reach k = (size - 1) * dilation + 1, of the full length (n - 1) * stride + k
      - (lo, hi) pairs (torch, ONNX; or integers as in `conv`) crop lo and hi - output_padding;
      - "valid", "same" (Keras 3.15.1, backend_utils compute_conv_transpose_output_shape) set the length, and crop
        half of what is too much in front, the odd element at the end.
    """
    (kernel,), (data,) = need("conv_transpose", roles, "kernel"), need("conv_transpose", x, "x")
    bias = roles.get("bias")
    sizes = sizes_of(
        "conv_transpose",
        {
            "kernel": (kernel, "group in out k..."),
            "bias": (bias, "group out"),
            "x": (data, "batch space... group*in"),
        },
    )
    _same_rank("conv_transpose", kernel.ndim - 3, data)
    y = _scatter(data, kernel, settings)
    return {"y": biased(y, bias).reshape(*y.shape[:-2], sizes["group"] * sizes["out"])}


def correlate(data: Array, kernel: Array, settings: Facts) -> Array:
    """x (batch, ..., group*in), kernel (group, out, in, ...) -> (batch, ..., group, out)."""
    size, space = kernel.shape[3:], data.shape[1:-1]
    strides, dilation = _steps("conv", settings, len(size))
    reach = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
    pads = _conv_pads(_given(settings, "padding", 0), space, reach, strides)
    padded = np.pad(data, [(0, 0), *pads, (0, 0)])
    lengths = [(n - r) // s + 1 for n, r, s in zip(padded.shape[1:-1], reach, strides, strict=True)]
    if min(lengths, default=1) < 1:
        raise SizeError(f"conv: the padded x {padded.shape[1:-1]} is shorter than the kernel's reach {tuple(reach)}")
    grouped = padded.reshape(*padded.shape[:-1], kernel.shape[0], kernel.shape[2])
    y = np.zeros((data.shape[0], *lengths, *kernel.shape[:2]), common_dtype(data, kernel))
    for at, window in _windows(size, strides, dilation, lengths):
        y += np.einsum("b...gi,goi->b...go", grouped[window], kernel[at])
    return y


def _scatter(data: Array, kernel: Array, settings: Facts) -> Array:
    """x (batch, ..., group*in), kernel (group, in, out, ...) -> (batch, ..., group, out)."""
    size, space = kernel.shape[3:], data.shape[1:-1]
    strides, dilation = _steps("conv_transpose", settings, len(size))
    reach = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
    crops = _crops(settings, space, reach, strides)
    full = [max((n - 1) * s + r, lo + out) for n, s, r, (lo, out) in zip(space, strides, reach, crops, strict=True)]
    group, _, out = kernel.shape[:3]
    y = np.zeros((data.shape[0], *full, group, out), common_dtype(data, kernel))
    grouped = data.reshape(*data.shape[:-1], group, kernel.shape[1])
    for at, window in _windows(size, strides, dilation, space):
        y[window] += np.einsum("b...gi,gio->b...go", grouped, kernel[at])
    return y[(slice(None), *(slice(lo, lo + out) for lo, out in crops))]


def _windows(
    size: Sequence[int], strides: Sequence[int], dilation: Sequence[int], lengths: Sequence[int]
) -> Iterator[tuple[tuple[Any, ...], tuple[slice, ...]]]:
    """Index of every kernel position (group, ., ., ...), and the slice (batch, ...) of the longer array it meets."""
    for position in np.ndindex(*size):
        starts = [k * d for k, d in zip(position, dilation, strict=True)]
        spans = zip(starts, strides, lengths, strict=True)
        yield (..., *position), (slice(None), *(slice(a, a + s * (n - 1) + 1, s) for a, s, n in spans))


def _conv_pads(padding: Any, space: Sequence[int], reach: Sequence[int], strides: Sequence[int]) -> list[Pair]:
    if padding == "valid":
        return [(0, 0)] * len(space)
    if padding == "same":
        total = [max((-(-n // s) - 1) * s + r - n, 0) for n, r, s in zip(space, reach, strides, strict=True)]
        return [(t // 2, t - t // 2) for t in total]
    if padding == "causal":
        return [(r - 1, 0) for r in reach]
    return _pairs("conv", padding, len(space))


def _crops(settings: Facts, space: Sequence[int], reach: Sequence[int], strides: Sequence[int]) -> list[Pair]:
    """(elements cut in front, length that stays) of every spatial axis."""
    padding, extra = _given(settings, "padding", 0), settings.get("output_padding")
    extras = None if extra is None else one_each("conv_transpose", "output_padding", extra, len(space))
    full = [(n - 1) * s + r for n, r, s in zip(space, reach, strides, strict=True)]
    if padding not in ("valid", "same"):
        pairs = _pairs("conv_transpose", padding, len(space))
        more = extras or (0,) * len(space)
        return [(lo, length - lo - hi + e) for (lo, hi), length, e in zip(pairs, full, more, strict=True)]
    if extras is None:
        tail = [max(r - s, 0) if padding == "valid" else 0 for r, s in zip(reach, strides, strict=True)]
        lengths = [n * s + t for n, s, t in zip(space, strides, tail, strict=True)]
    else:
        cut = [2 * (r // 2) if padding == "same" else 0 for r in reach]
        lengths = [length - c + e for length, c, e in zip(full, cut, extras, strict=True)]
    return [
        (max(length - out, 0) // 2 if padding == "same" else 0, out) for length, out in zip(full, lengths, strict=True)
    ]


def _pairs(kind: str, padding: Any, rank: int) -> list[Pair]:
    """Padding as (lo, hi) pairs, from pairs, ONNX pads (all lo, then all hi) or what means both ends alike."""
    flat: list[Any] = list(padding) if isinstance(padding, Sequence) else [padding] * rank
    if len(flat) == rank and all(isinstance(p, int) for p in flat):
        return [(p, p) for p in flat]
    if len(flat) == 2 * rank and all(isinstance(p, int) for p in flat):
        return list(zip(flat[:rank], flat[rank:], strict=True))
    if len(flat) == rank and all(isinstance(p, Sequence) and len(p) == 2 and not isinstance(p, str) for p in flat):
        return [(int(lo), int(hi)) for lo, hi in flat]
    known = "valid, same, causal (not transposed)"
    raise UsageError(f"{kind}: padding={padding!r} is unknown", where=f"known: {known}, {rank} pairs (lo, hi)")


def _given(settings: Facts, name: str, default: int) -> Any:
    """A setting; None, as an attribute that a node leaves out, means the default."""
    value = settings.get(name)
    return default if value is None else value


def _steps(kind: str, settings: Facts, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    strides = one_each(kind, "strides", _given(settings, "strides", 1), rank)
    return strides, one_each(kind, "dilation", _given(settings, "dilation", 1), rank)


def _same_rank(kind: str, rank: int, data: Array) -> None:
    if data.ndim - 2 != rank:
        raise SizeError(
            f"{kind}: the kernel has {rank} spatial axes and x has {data.ndim - 2}",
            where=f"x (batch, ..., channels) of shape {data.shape}",
        )
