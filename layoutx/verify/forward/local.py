"""Locally connected layers: a convolution whose every output position has weights of its own."""

from __future__ import annotations

import numpy as np

from layoutx.errors import SizeError, UsageError
from layoutx.verify.forward.shapes import Array, Arrays, Facts, biased, common_dtype, need, one_each, sizes_of


def locally_connected_1d(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, Array]:
    """y[p] = sum over kernel positions k of x[p * stride + k] kernel[p, k] + bias[p].

    kernel (oh, kh, in, out), bias (oh, out) or absent; x (batch, h, in) -> y (batch, oh, out).
    Settings `strides` (default 1) and `padding` ("valid", or none given).
    """
    return _local("locally_connected_1d", 1, roles, x, settings)


def locally_connected_2d(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, Array]:
    """As `locally_connected_1d`: kernel (oh, ow, kh, kw, in, out), bias (oh, ow, out); x (batch, h, w, in)."""
    return _local("locally_connected_2d", 2, roles, x, settings)


def _local(kind: str, rank: int, roles: Arrays, x: Arrays, settings: Facts) -> dict[str, Array]:
    (kernel,), (data,) = need(kind, roles, "kernel"), need(kind, x, "x")
    bias = roles.get("bias")
    over = " ".join(["oh", "ow"][:rank])
    sizes_of(
        kind,
        {
            "kernel": (kernel, f"{over} {' '.join(['kh', 'kw'][:rank])} in out"),
            "bias": (bias, f"{over} out"),
            "x": (data, f"batch {' '.join(['h', 'w'][:rank])} in"),
        },
    )
    if settings.get("padding") not in (None, "valid"):
        raise UsageError(f"{kind}: padding={settings['padding']!r} is unknown", where="known: valid")
    given = settings.get("strides")
    strides = one_each(kind, "strides", 1 if given is None else given, rank)
    places, size = kernel.shape[:rank], kernel.shape[rank : 2 * rank]
    fits = [(n - k) // s + 1 for n, k, s in zip(data.shape[1:-1], size, strides, strict=True)]
    if tuple(fits) != tuple(places):
        raise SizeError(f"{kind}: x has {tuple(fits)} positions for the window and the kernel {tuple(places)}")
    y = np.empty((len(data), *places, kernel.shape[-1]), common_dtype(data, kernel))
    for at in np.ndindex(*places):
        spans = zip(at, strides, size, strict=True)
        window = data[(slice(None), *(slice(p * s, p * s + k) for p, s, k in spans))]
        y[(slice(None), *at)] = np.tensordot(window, kernel[at], rank + 1)
    return {"y": biased(y, bias)}
