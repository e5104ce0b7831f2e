"""Two models of which one has its batch norms folded into the convolutions before them: the two joined as one layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache, partial

import numpy as np

from layoutx.errors import LayoutxError
from layoutx.files.store import Tensor
from layoutx.job.jobs import Options
from layoutx.job.joined import Joined, Joint, Side
from layoutx.job.joint import Model, joint, records_of
from layoutx.job.onnx_norms import Folded, foldable, instead, norms_of, with_wires
from layoutx.model.bindings import bind_record
from layoutx.model.record import LayerRecord, ModelRecord
from layoutx.plan.blocks import memory
from layoutx.plan.plan import Array
from layoutx.spec.bound import Atom, BoundForm
from layoutx.spec.registry import Registry
from layoutx.verify.compare.weights import aligned
from layoutx.verify.relate.numbers import Numbers, numbers_of, slot
from layoutx.verify.roles import BIAS_KEYS

NEARER = 0.5  # of the distance without the norm: numbers folded with another eps are still far nearer than that
SAME = 1e-4  # of a bias: the norm's mean and variance are in it
ROUNDED, FITS = 1e-6, 0.1  # what float32 rounds away; how much nearer another eps has to bring the numbers
EPS = (1e-5, 1e-3, 1e-6, 1e-4, 1e-2, 1e-8, 1e-12, 0.0)  # those of torch, Keras, and of well-known models
MEANS = ("running_mean", "moving_mean")
KERNEL, BIAS = "kernel", "bias"


def joint_folded(source: Model, target: Model, registry: Registry, options: Options) -> Joint:
    """`joint`, and where one model has batch norms that the other has folded, these joined with the convolutions.

    Which are folded is told by the numbers: the other model's kernels are those of convolution and norm together. A
    norm that is missing for another reason stays without a counterpart, and that reason is told.

    Raises:
        UsageError: options that name no layer.
    """
    try:
        norms = [_many(model, registry, options) for model in (source, target)]
        at = 0 if norms[0] > norms[1] else 1
        side = (source, target)[at]
        model = with_wires(side, records_of(side, registry, options)) if norms[0] != norms[1] else None
        pairs = foldable(model, registry, options) if model is not None else []
        pairs = [pair for pair in pairs if pair.norm.name not in (*options.pairs, *options.pairs.values())]
    except LayoutxError:  # what is wrong with a model is told where it is joined
        return joint(source, target, registry, options)
    if not pairs or model is None:
        return joint(source, target, registry, options)
    both = [source, target]

    def joined(chosen: Sequence[Folded]) -> Joint:
        made = [folded_model(model, chosen, registry) if k == at and chosen else both[k] for k in (0, 1)]
        return _told(joint(made[0], made[1], registry, options), chosen, at)

    found = joined(pairs)
    why = _unlike(found, pairs, at, registry)
    if why:
        found = joined([pair for pair in pairs if pair.norm.name not in why])
    lost = {name: why[name] if name in why and not at else text for name, text in found.lost.items()}
    kept = [pair for pair in pairs if pair.norm.name in found.folded]
    return replace(found, lost=lost, other_eps=_other_eps(found, kept, at, registry))


def _many(model: Model, registry: Registry, options: Options) -> int:
    """How many batch norms a model has; where names tell it, nothing else is looked at: most models fold none."""
    if isinstance(model, ModelRecord):
        return norms_of(model, registry, options)
    formed = {path: module.form for path, module in model.modules.items() if module.form}
    norms = [path for path, form in formed.items() if registry.kind_of(form).name == "batch_norm"]
    if not formed:
        norms = [path for path, _, slot in (name.rpartition(".") for name in model.tensors) if slot in MEANS]
    if not norms and not formed:
        return norms_of(records_of(model, registry, options), registry, options)
    return sum(not any(fnmatchcase(path, pattern) for pattern in options.skip) for path in norms)


def _told(found: Joint, chosen: Sequence[Folded], at: int) -> Joint:
    """The joint with every folded layer as two parts of its model."""
    parts = {pair.conv.name: (pair.conv.name, pair.norm.name) for pair in chosen}

    def marked(pair: Joined) -> Joined:
        side = pair.target if at else pair.source
        own = replace(side, parts=parts.get(side.name, ()))
        return replace(pair, target=own) if at else replace(pair, source=own)

    pairs = tuple(marked(pair) for pair in found.pairs)
    have = {(pair.target if at else pair.source).name for pair in pairs}
    folded = {pair.norm.name: pair.conv.name for pair in chosen if pair.conv.name in have}
    return replace(found, pairs=pairs, folded=folded)


def _unlike(found: Joint, pairs: Sequence[Folded], at: int, registry: Registry) -> dict[str, str]:
    """Norm -> why it is not folded: its convolution's counterpart does not hold the numbers of both together.

    These have to be nearer than those of the convolution alone.
    """
    joined = {(pair.target if at else pair.source).name: pair for pair in found.pairs}
    wrong = {}
    for pair in pairs:
        one = joined.get(pair.conv.name)
        if one is None:
            wrong[pair.norm.name] = f"{pair.conv.name}, which it may be folded into, has no counterpart either"
            continue
        own, other = (one.target, one.source) if at else (one.source, one.target)
        there = numbers_of(other.bound, {name: tensor.read() for name, tensor in other.tensors.items()})
        alone = _distance(bind_record(pair.conv, registry), pair.conv.tensors, there)
        together = _distance(own.bound, own.tensors, there)
        if together <= NEARER * alone or together == 0.0 or _same_bias(own, there):
            continue
        rest = "is the convolution alone" if alone == 0.0 else "if it is folded in, then with other numbers"
        wrong[pair.norm.name] = f"the target has no batch norm here; {other.name}: {rest}"
    return wrong


def _same_bias(own: Side, there: Mapping[Atom, Numbers]) -> bool:
    """Whether the bias is that of both together: no convolution has it of itself, and its kernel may lie otherwise."""
    here = numbers_of(own.bound, {name: tensor.read() for name, tensor in own.tensors.items()})
    pairs = [dict(atoms) for atoms in ({a: n for a, n in side.items() if a[0] == BIAS} for side in (here, there))]
    found = list(aligned(*pairs)) if all(pairs) else []
    return bool(found) and all(
        np.abs(right).any() and np.linalg.norm(left - right) <= SAME * np.linalg.norm(right) for left, right in found
    )


def _other_eps(found: Joint, pairs: Sequence[Folded], at: int, registry: Registry) -> dict[str, str]:
    """Norm -> that it was folded with another eps than its own, where one of the usual ones fits far better."""
    joined = {(pair.target if at else pair.source).name: pair for pair in found.pairs}
    said = {}
    for pair in pairs:
        one = joined[pair.conv.name]
        own, other = (one.target, one.source) if at else (one.source, one.target)
        there = numbers_of(other.bound, {name: tensor.read() for name, tensor in other.tensors.items()})
        far = _distance(own.bound, own.tensors, there)
        if far <= ROUNDED:
            continue
        near = {eps: _distance(own.bound, folded_layer(pair, registry, eps).tensors, there) for eps in EPS}
        best = min(near, key=near.__getitem__)
        if near[best] < FITS * far:
            held = float(bind_record(pair.norm, registry).settings["eps"])
            said[pair.norm.name] = f"{pair.norm.name} is folded with eps={best:g}, its own is {held:g}"
    return said


def _distance(bound: BoundForm, tensors: Mapping[str, Tensor], there: Mapping[Atom, Numbers]) -> float:
    """How far a layer's numbers are from another's, relative; a bias that one of them lacks is zero."""
    here = numbers_of(bound, {name: tensor.read() for name, tensor in tensors.items()})
    total = 0.0
    for left, right in aligned(here, there):
        total += float(np.linalg.norm(left - right) / max(float(np.linalg.norm(right)), 1e-30))
    return total


def folded_model(model: ModelRecord, pairs: Sequence[Folded], registry: Registry) -> ModelRecord:
    """The model with one convolution, in its own form, for each pair; computed when its weights are read."""
    return instead(model, pairs, {pair.conv.name: folded_layer(pair, registry) for pair in pairs})


def folded_layer(pair: Folded, registry: Registry, other: float | None = None) -> LayerRecord:
    """kernel' = kernel gamma / sqrt(variance + eps), bias' = (bias - mean) gamma / sqrt(variance + eps) + beta.

    Args:
        other: an eps in place of the norm's own.
    """
    conv, norm = pair.conv, pair.norm
    bound, normed = bind_record(conv, registry), bind_record(norm, registry)
    slots = {block.role: tensor.name for tensor in bound.tensors for block in tensor.blocks}
    kernel = conv.tensors[slots[KERNEL]]
    name = slots.get(BIAS) or _bias_slot(conv, registry)

    @cache
    def computed() -> tuple[Array, Array]:
        told = numbers_of(normed, {slot_: tensor.read() for slot_, tensor in norm.tensors.items()})
        parts = {role: numbers.array.astype(np.float64).reshape(-1) for (role, _), numbers in told.items()}
        eps = float(normed.settings["eps"]) if other is None else other
        factor = parts.get("gamma", np.ones(1)) / np.sqrt(parts["variance"] + eps)
        bias = conv.tensors[name].read().astype(np.float64).reshape(-1) if name in conv.tensors else 0.0
        moved = (bias - parts["mean"]) * factor + parts.get("beta", 0.0)
        return _scaled(bound, slots[KERNEL], kernel.read(), factor).astype(kernel.dtype), moved.astype(kernel.dtype)

    def part(at: int) -> Array:
        return computed()[at]

    said = f"{norm.name} is folded into it"
    size = next(tensor.shape for tensor in norm.tensors.values() if tensor.shape)
    here = conv.tensors.get(name)
    first = next(tensor for tensor in norm.tensors.values() if tensor.shape)
    tensors = {
        **conv.tensors,
        slots[KERNEL]: replace(kernel, read=partial(part, 0), derived=said, mapped=False),
        name: Tensor((here or first).name, kernel.dtype, here.shape if here else size, partial(part, 1), said),
    }
    form = registry.form(conv.form)
    config = {**conv.config, **{key: True for key in BIAS_KEYS if key in form.config}}
    return replace(conv, tensors=tensors, config=config)


def _bias_slot(conv: LayerRecord, registry: Registry) -> str:
    """What the form of a convolution without a bias would call one."""
    names = [tensor.name for tensor in registry.form(conv.form).tensors]
    return next((name for name in names if name not in conv.tensors), BIAS)


def _scaled(bound: BoundForm, name: str, kernel: Array, factor: Array) -> Array:
    """A stored kernel, each output times its factor; factor: (group out,)."""
    tensor = bound.tensor(name)
    flat = memory(tensor, kernel).astype(np.float64).copy()
    for block in tensor.blocks:
        axes = list(block.strides)
        wide = [bound.sizes[axis] if axis in ("group", "out") else 1 for axis in axes]
        order = [axis for axis in axes if axis in ("group", "out")]
        shaped = factor.reshape([bound.sizes[axis] for axis in ("group", "out") if axis in order])
        view = slot(block, flat, bound.sizes)
        view *= (shaped if order == sorted(order) else shaped.T).reshape(wide)
    return flat.reshape(kernel.shape)
