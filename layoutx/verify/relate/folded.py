"""A batch norm folded into the layer before it: each output times a number of its own, and the bias moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from layoutx.frozen import frozen
from layoutx.plan.blocks import memory
from layoutx.plan.plan import Array
from layoutx.spec.bound import BoundForm
from layoutx.verify.relate.numbers import slot
from layoutx.verify.relate.relation import CLOSE, INITIAL, OTHER, VALUES, TensorRelation

ROOM = 2e-5
NARROW = {"float16": 2.0**-10, "bfloat16": 2.0**-7}  # a unit in the last place of what was rounded so
LARGEST_EPS = 0.1
USUAL = (1e-3, 1e-5, 1e-6, 1e-4, 1e-2, 1e-12)


@frozen
class Norm:
    """A batch norm: its name and its numbers, (channel,) each; eps where its config says it.

    there: it is the target's, and the source has it folded in.
    """

    name: str
    gamma: Array
    beta: Array
    mean: Array
    variance: Array
    eps: float | None = None
    there: bool = False


def folded(
    relations: Sequence[TensorRelation],
    target: BoundForm,
    stored: Mapping[str, Array],
    expected: Mapping[str, Array],
    norms: Sequence[Norm] = (),
) -> list[TensorRelation]:
    """Relations of tensors that are the source's, each output scaled: with the norm that explains the scale."""
    found = list(relations)
    norm: tuple[Norm, float] | None = None
    for at, relation in enumerate(found):
        if relation.status not in (OTHER, CLOSE) or len(target.tensor(relation.name).blocks) != 1:
            continue
        scale = _scaled(relation.name, target, stored, expected)
        if scale is None:
            continue
        axis, factors, residual = scale
        room = _room(relation.name, stored, expected)
        norm = norm or _explaining(factors, norms, room)
        words = f"each {axis} is multiplied by a number of its own ({factors.min():.4g} to {factors.max():.4g})"
        if norm is not None:
            by = "divided by" if norm[0].there else "times"
            words = f"{_said(norm[0])}: each {axis} {by} gamma / root(variance + {norm[1]:.3g})"
        words += f", in {_narrow(relation.name, stored, expected)}" if room > ROOM else ""
        holds = relation.reads
        found[at] = replace(relation, status=VALUES, holds=holds, words=(words,), residual=residual, wrong=0)
    return [_bias(r, stored, expected, *norm) for r in found] if norm is not None else found


def _said(norm: Norm) -> str:
    """What is to be known of a norm; `layoutx.relate` looks for these words."""
    return f"batch norm {norm.name} is folded in{'to it in the first file, not here' if norm.there else ''}"


def _narrow(name: str, stored: Mapping[str, Array], expected: Mapping[str, Array]) -> str:
    """The dtype below float32 that either side keeps a tensor in; "" for none."""
    names = {array[name].dtype.name for array in (stored, expected) if name in array}
    return max((dtype for dtype in names if dtype in NARROW), key=lambda dtype: NARROW[dtype], default="")


def _room(name: str, stored: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    """How far scaled numbers may be off, relative to the largest."""
    return NARROW.get(_narrow(name, stored, expected), ROOM)


def _arrays(
    name: str, target: BoundForm, stored: Mapping[str, Array], expected: Mapping[str, Array]
) -> tuple[list[str], Array, Array]:
    """The axes of a tensor's one block, what the source has there and what is stored; one dimension an axis."""
    tensor = target.tensor(name)
    block = tensor.blocks[0]
    here, there = (
        slot(block, memory(tensor, array), target.sizes).astype(np.float64) for array in (expected[name], stored[name])
    )
    return list(block.strides), here, there


def _scaled(
    name: str, target: BoundForm, stored: Mapping[str, Array], expected: Mapping[str, Array]
) -> tuple[str, Array, float] | None:
    """The axis along which each slice is a multiple of the source's: its factors, the largest difference left."""
    if expected[name].shape != stored[name].shape:
        return None
    axes, here, there = _arrays(name, target, stored, expected)
    limit = _room(name, stored, expected)
    if not np.isfinite(here).all() or not np.isfinite(there).all():
        return None
    together = [[axes.index("group"), axes.index(axis)] for axis in axes if "group" in axes and axis != "group"]
    for at in [*([i] for i in range(len(axes))), *together]:
        n = int(np.prod([here.shape[i] for i in at]))
        if n < 2 or here.size // n < 2:
            continue
        a, b = (np.moveaxis(x, at, range(len(at))).reshape(n, -1) for x in (here, there))
        power = (a * a).sum(1)
        if (power == 0).any():
            continue
        first = (a[:4] * b[:4]).sum(1) / power[:4]
        if np.abs(b[:4] - first[:, None] * a[:4]).max() > limit * np.abs(b[:4]).max():
            continue
        factors = (a * b).sum(1) / power
        residual = float(np.abs(b - factors[:, None] * a).max())
        if residual <= limit * float(np.abs(b).max()) and np.ptp(factors) > limit * np.abs(factors).max():
            return axes[at[-1]], factors, residual
    return None


def _explaining(scales: Array, norms: Sequence[Norm], room: float) -> tuple[Norm, float] | None:
    """The norm, and its eps, whose gamma / root(variance + eps) the factors are, or one over it."""
    near = max(1e-4, room)
    for norm in norms:
        if len(norm.gamma) != len(scales) or not scales.all():
            continue
        factors = 1.0 / scales if norm.there else scales
        gamma, variance = norm.gamma.astype(np.float64), norm.variance.astype(np.float64)
        fitted = float(np.median((gamma / factors) ** 2 - variance))
        tried = [e for e in (norm.eps, *USUAL, fitted) if e is not None and 0 <= e < LARGEST_EPS]
        for eps in tried:
            if np.allclose(gamma / np.sqrt(variance + eps), factors, rtol=near, atol=1e-7):
                if room > ROOM:  # too coarse to tell which is nearest
                    return norm, eps
                return norm, min(tried, key=lambda e: float(np.abs(gamma / np.sqrt(variance + e) - factors).max()))
    return None


def _bias(
    relation: TensorRelation, stored: Mapping[str, Array], expected: Mapping[str, Array], own: Norm, eps: float
) -> TensorRelation:
    done = any("folded" in word for word in relation.words)
    if done or relation.status not in (OTHER, CLOSE, INITIAL, VALUES):
        return relation
    there = stored[relation.name].astype(np.float64).reshape(-1)
    here = expected[relation.name].astype(np.float64).reshape(-1)
    if there.shape != own.gamma.shape or here.shape != there.shape:
        return relation
    factor = own.gamma.astype(np.float64) / np.sqrt(own.variance.astype(np.float64) + eps)
    if own.there:
        made, scale = (np.nan_to_num(here) - own.beta) / factor + own.mean, float(np.abs(here / factor).max())
    else:
        made, scale = (np.nan_to_num(here) - own.mean) * factor + own.beta, float(np.abs(own.mean * factor).max())
    residual = float(np.abs(made - there).max())
    room = max(10 * ROOM, 2 * _room(relation.name, stored, expected))
    if residual > room * max(float(np.abs(there).max()), scale):
        return relation
    how = (
        "(bias - beta) x root(variance + eps) / gamma + mean"
        if own.there
        else ("(bias - mean) x gamma / root(variance + eps) + beta")
    )
    words = f"{_said(own)}: {how}"
    return replace(relation, status=VALUES, holds=relation.reads, words=(words,), residual=residual, wrong=0)
