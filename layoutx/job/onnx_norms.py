"""Batch norms that an ONNX exporter folded into the layers before them: told once, or folded here too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache, partial

import numpy as np

from layoutx.errors import ConversionError, LayoutxError
from layoutx.files.store import Tensor
from layoutx.frozen import frozen
from layoutx.job.alone import wiring_of
from layoutx.job.jobs import Options
from layoutx.job.joint import records_of
from layoutx.model.bindings import bind_record, refine_of
from layoutx.model.keyed import Keyed
from layoutx.model.record import LayerRecord, ModelRecord
from layoutx.model.ways import linked
from layoutx.plan.fit import fit
from layoutx.plan.plan import Array
from layoutx.plan.run import run
from layoutx.spec.registry import Registry
from layoutx.words import first

Model = Keyed | ModelRecord
UNFOLDED = (
    "export it with its batch norms: torch.onnx.export(..., optimize=False), or by the exporter before it, "
    "torch.onnx.export(..., dynamo=False, training=TrainingMode.PRESERVE, do_constant_folding=False); "
    "or take the weights from the model's own file, not from the export"
)
WHY = "exporters multiply a batch norm into the kernel and bias of the convolution before it (torch does in eval mode)"
# kind -> the ONNX layer that a norm is folded into, its kernel and its bias
INTO = {
    "conv": ("onnx.Conv", "W", "B"),
    "conv_transpose": ("onnx.ConvTranspose", "W", "B"),
    "dense": ("onnx.Gemm", "B", "C"),
}
EXPORTERS = ({"conv"}, {*INTO})  # what torch's older exporter folds into, and what the new one does


@frozen
class Folded:
    """A convolution, or a dense layer, and the batch norm that alone reads it."""

    conv: LayerRecord
    norm: LayerRecord


@frozen
class Missing:
    """Batch norms of a model that the ONNX model beside it has not.

    Attributes:
        model: the model, with its wiring where it has one.
        pairs: what may have been folded.
        count: how many norms are missing.
        wired: the model says who reads whom.
    """

    model: ModelRecord
    pairs: tuple[Folded, ...]
    count: int
    wired: bool


def with_norms_folded(source: Model, target: Model, registry: Registry, options: Options) -> Model:
    """The source as it is, or with its batch norms folded as the ONNX target has them, where that was asked for.

    Raises:
        ConversionError: the source has batch norms that the ONNX model has not, and nobody asked to fold them.
    """
    if not isinstance(target, ModelRecord) or target.framework != "onnx" or source.framework == "onnx":
        return source
    tried = [missing_norms(source, target, registry, options, kinds) for kinds in EXPORTERS]
    missing = next((one for one in tried if one and one.count == len(one.pairs)), tried[0] or tried[-1])
    if missing is None or not _biased(missing.pairs, target, registry):
        return source
    if options.materialise and missing.count == len(missing.pairs) and missing.wired:
        return _folded(missing.model, missing.pairs, registry)
    raise _problem(missing)


def missing_norms(
    model: Model,
    onnx: ModelRecord,
    registry: Registry,
    options: Options,
    kinds: Collection[str] = ("conv",),
    alone: bool = False,
) -> Missing | None:
    """The batch norms that only the first model has; None where there are none, or none that may have been folded.

    Args:
        alone: norms that no layer stands before count too.
    """
    try:
        found = records_of(model, registry, options)
        count = norms_of(found, registry, options) - norms_of(onnx, registry, options)
        records = with_wires(model, found) if count > 0 else found  # a live module is run for its wiring
        pairs = foldable(records, registry, options, kinds) if count > 0 else []
    except LayoutxError:  # what is wrong with a model is told when it is planned
        return None
    wired = any(record.inputs for record in records.layers)
    return Missing(records, tuple(pairs), count, wired) if pairs or (alone and count > 0) else None


def _kind(record: LayerRecord, registry: Registry) -> str:
    """The kind of a layer; of one of a bare state dict what its tensors look like."""
    if record.form:
        return registry.kind_of(record.form).name
    if "running_mean" in record.tensors:
        return "batch_norm"
    return "conv" if any(len(tensor.shape) > 2 for tensor in record.tensors.values()) else ""


def norms_of(model: ModelRecord, registry: Registry, options: Options) -> int:
    kept = [r for r in model.layers if not any(fnmatchcase(r.name, pattern) for pattern in options.skip)]
    return sum(_kind(record, registry) == "batch_norm" for record in kept)


def with_wires(model: Model, found: ModelRecord) -> ModelRecord:
    """A model's records with `inputs` and `alone`, of a live module as its wiring says."""
    wires = model.wires() if isinstance(model, Keyed) and model.wires is not None else {}
    if not linked(wires):
        return found
    names = {record.name for record in found.layers}
    wiring = wiring_of(model)
    alone = wiring.alone if wiring is not None else {}
    layers = []
    for record in found.layers:
        ways = tuple(way for way in wires.get(record.name, ()) if way.maker in names or not way.maker)
        inputs = tuple(dict.fromkeys(way.maker for way in ways if way.maker))
        layers.append(replace(record, inputs=inputs, ways=ways, alone=alone.get(record.name, "")))
    return replace(found, layers=tuple(layers))


def foldable(
    model: ModelRecord, registry: Registry, options: Options, kinds: Collection[str] = ("conv",)
) -> list[Folded]:
    """Layers of these kinds without an activation, each read by one batch norm and by nothing else."""
    records = {record.name: record for record in model.layers}
    readers: dict[str, list[str]] = {}
    previous = ""
    wired = any(record.inputs for record in model.layers)
    alone = any(record.alone for record in model.layers)
    for record in model.layers:
        for name in record.inputs if wired else filter(None, [previous]):
            readers.setdefault(name, []).append(record.name)
        previous = record.name
    found = []
    for name, after in readers.items():
        conv, norm = records.get(name), records[after[0]]
        if conv is None or len(after) > 1 or _kind(conv, registry) not in kinds:
            continue
        activation = bind_record(conv, registry).settings.get("activation", "linear") if conv.form else "linear"
        if (
            activation == "linear"
            and _kind(norm, registry) == "batch_norm"
            and (norm.alone == name or not alone)
            and _of_channels(conv, norm)
            and all(not way.pooled and way.of == 1 for way in norm.ways if way.maker == name)
            and not any(fnmatchcase(norm.name, pattern) for pattern in options.skip)
        ):
            found.append(Folded(conv, norm))
    return found


def _of_channels(conv: LayerRecord, norm: LayerRecord) -> bool:
    """Whether the norm is over the convolution's channels; Keras' may be over any axis of its output."""
    rank = max(len(tensor.shape) for tensor in conv.tensors.values())
    axis = norm.config.get("axis", -1)
    axis = axis[0] if isinstance(axis, (list, tuple)) and len(axis) == 1 else axis
    return axis in ((1, 1 - rank) if conv.config.get("data_format") == "channels_first" else (-1, rank - 1))


def _biased(pairs: Sequence[Folded], onnx: ModelRecord, registry: Registry) -> bool:
    """Whether the ONNX model has as many layers of each kind with a bias as there are such pairs."""
    wanted = Counter(_kind(pair.conv, registry) for pair in pairs)
    held = Counter(_kind(r, registry) for r in onnx.layers if {"B", "C", "bias"} & {*list(r.tensors)[1:]})
    return all(held[kind] >= count for kind, count in wanted.items())


def _problem(missing: Missing) -> ConversionError:
    what, where = told(missing, "source")
    if missing.count != len(missing.pairs) or not missing.wired:
        why = f"{WHY}; which of them were folded here cannot be told"
        do = f"{UNFOLDED}; or fuse them in the source too (torch.nn.utils.fusion.fuse_conv_bn_eval)"
        return ConversionError(what, where=where, why=why, do=do)
    do = f"{UNFOLDED}; or fold them here too, rounded once and not reversible: --materialise (materialise=True)"
    return ConversionError(what, where=where, why=WHY, do=do)


def told(missing: Missing, side: str) -> tuple[str, list[str]]:
    """What is missing of the model on a side, and where."""
    where = first([f"{pair.conv.name} and {pair.norm.name}" for pair in missing.pairs])
    return f"{missing.count} batch norms of the {side} are not in the ONNX model", where


def _folded(model: ModelRecord, pairs: Sequence[Folded], registry: Registry) -> ModelRecord:
    """The model with one convolution for each pair, in ONNX's layout."""
    made = {pair.conv.name: _one(pair, registry) for pair in pairs}
    told = {t.name: f"folded into {pair.conv.name}" for pair in pairs for t in pair.norm.tensors.values()}
    told |= {
        t.name: f"folded with {pair.norm.name}"
        for pair in pairs
        for slot, t in pair.conv.tensors.items()
        if t.name not in {own.name for own in made[pair.conv.name].tensors.values()} and slot
    }
    return replace(instead(model, pairs, made), leftover={**model.leftover, **told})


def instead(model: ModelRecord, pairs: Sequence[Folded], made: Mapping[str, LayerRecord]) -> ModelRecord:
    """The model with `made` (convolution -> the one that holds its norm too) for the two layers of each pair."""
    gone = {pair.norm.name: pair.conv.name for pair in pairs}
    layers = []
    for record in model.layers:
        if record.name not in gone:
            found = made.get(record.name, record)
            ways = tuple(replace(way, maker=gone.get(way.maker, way.maker)) for way in record.ways)
            inputs = tuple(gone.get(name, name) for name in record.inputs)
            layers.append(replace(found, inputs=inputs, ways=ways))
    return replace(model, layers=tuple(layers))


def _one(pair: Folded, registry: Registry) -> LayerRecord:
    """kernel' = kernel gamma / sqrt(variance + eps), bias' = (bias - mean) gamma / sqrt(variance + eps) + beta."""
    conv, norm = pair.conv, pair.norm
    form, weight, bias = INTO[_kind(conv, registry)]
    there = fit(bind_record(conv, registry), registry.form(form), refine=refine_of(conv, registry, "onnx"))
    normed = fit(bind_record(norm, registry), registry.form("onnx.BatchNormalization"))
    kernel = next(iter(conv.tensors.values()))
    eps = float(normed.source.settings["eps"])
    shape = there.target.tensor(weight).shape

    @cache
    def computed() -> Mapping[str, Array]:
        moved = run(there, {name: t.read() for name, t in conv.tensors.items()}).tensors
        told = run(normed, {name: t.read() for name, t in norm.tensors.items()}).tensors
        scale, shift, mean, variance = (told[n].astype(np.float64) for n in ("scale", "B", "input_mean", "input_var"))
        factor = scale / np.sqrt(variance + eps)
        own = moved[bias].astype(np.float64) if bias in moved else 0.0
        wide = _by_output(moved[weight].astype(np.float64), factor, form)
        return {weight: wide.astype(kernel.dtype), bias: ((own - mean) * factor + shift).astype(kernel.dtype)}

    def part(slot: str) -> Array:
        return computed()[slot]

    said = f"{norm.name} is folded into it, in float64 and rounded once"
    first = next(iter(norm.tensors.values()))
    tensors = {
        weight: Tensor(kernel.name, kernel.dtype, shape, partial(part, weight), said),
        bias: Tensor(first.name, kernel.dtype, first.shape, partial(part, bias), said),
    }
    keys = {k: v for k, v in there.target.config.items() if v is not None}
    refine = {axis: replace(one, own="") for axis, one in conv.refine.items()}  # as ONNX flattens maps
    name = form.removeprefix("onnx.")
    return replace(conv, class_name=name, form=form, config=keys, tensors=tensors, refine=refine)


def _by_output(kernel: Array, factor: Array, form: str) -> Array:
    """The kernel with the numbers of each output multiplied: (out, in, ...), (in, out), (group in, out, ...)."""
    if form == "onnx.Gemm":
        return kernel * factor
    if form == "onnx.Conv":
        return kernel * factor.reshape(-1, *[1] * (kernel.ndim - 1))
    wide = kernel.reshape(factor.size // kernel.shape[1], -1, *kernel.shape[1:])
    return (wide * factor.reshape(len(wide), 1, -1, *[1] * (kernel.ndim - 2))).reshape(kernel.shape)
