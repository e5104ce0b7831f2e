"""Batch norms that an ONNX source has folded and the target has not: made anew, as norms that only scale and shift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from layoutx.errors import ConversionError, LayoutxError
from layoutx.files.store import Tensor
from layoutx.frozen import frozen
from layoutx.job.jobs import Job, Options
from layoutx.job.joined import Joint
from layoutx.job.joint import joint
from layoutx.job.onnx_norms import UNFOLDED, WHY, Folded, Missing, Model, instead, missing_norms, told
from layoutx.model.bindings import bind_record
from layoutx.model.record import LayerRecord, ModelRecord, Way
from layoutx.plan.plan import Array
from layoutx.spec.bind import bind
from layoutx.spec.bound import BoundForm
from layoutx.spec.registry import Registry
from layoutx.words import first

BIAS, REST, NORM = ("bias", ()), "onnx.Normalization", "onnx.BatchNormalization"
KINDS = frozenset(("conv", "separable_conv", "conv_transpose", "dense"))
SAID = "what is left of a folded norm: mean 0, variance 1 - eps, so that it scales and shifts alone"


@frozen
class Left:
    """What an ONNX model has left of its folded norms.

    Attributes:
        model: the ONNX model.
        biases: layer that may hold a norm in kernel and bias -> its bias.
        after: layer -> the Mul and the Add that alone read it, where the norm is in these.
        loose: Mul and Add behind anything else: the whole of a norm.
    """

    model: ModelRecord
    biases: Mapping[str, str]
    after: Mapping[str, LayerRecord]
    loose: Mapping[str, LayerRecord]


def with_norms_made(source: Model, target: Model, registry: Registry, options: Options) -> Model:
    """The source as it is, or an ONNX source with the batch norms that the target has, where that was asked for.

    A norm with mean 0 and variance 1 - eps scales by gamma and shifts by beta: gamma is 1, or the factor that the graph
    has left, and beta the bias of the layer before it, or the summand.

    Raises:
        ConversionError: the target has batch norms that the ONNX model has not, and nobody asked to make them; or which
            of its layers hold them cannot be told.
        UsageError: options that name no layer.
    """
    if not isinstance(source, ModelRecord) or source.framework != "onnx" or target.framework == "onnx":
        return source
    missing = missing_norms(target, source, registry, options, KINDS - _kept(source, registry), alone=True)
    if missing is None:
        return source
    try:
        left = _left(source, registry)
    except LayoutxError:  # what is wrong with a layer is told when it is planned
        return source
    if len(left.biases) + len(left.after) < len(missing.pairs) or not (missing.pairs or left.loose):
        return source
    if not options.materialise or not missing.wired or missing.count != len(missing.pairs) + len(left.loose):
        raise _problem(missing, left)
    return _with(left, _made(left, missing, registry, options))


def allowed(job: Job) -> Job:
    """The job, with consent to leave out the ones and zeros that were made here for norms without gamma or beta."""
    layers = [
        replace(layer, allowed=layer.allowed | {"conditional"})
        if any(tensor.derived == SAID for tensor in layer.sources.values())
        else layer
        for layer in job.layers
    ]
    return replace(job, layers=tuple(layers))


def _kept(model: ModelRecord, registry: Registry) -> set[str]:
    """The kinds of layers that still have their norms: an exporter folds by operator."""
    kinds = {r.name: registry.kind_of(r.form).name for r in model.layers if r.form}
    kept = {kinds.get(r.alone, "") for r in model.layers if kinds.get(r.name) == "batch_norm"}
    return kept | ({"separable_conv"} if "conv" in kept else set())  # its two nodes


def _left(model: ModelRecord, registry: Registry) -> Left:
    layers = {r.name: r for r in model.layers if r.form and registry.kind_of(r.form).name in KINDS}
    rest = [record for record in model.layers if record.form == REST and record.config.get("invert")]
    after = {record.alone: record for record in rest if record.alone in layers}
    loose = {record.name: record for record in rest if record.alone not in layers}
    biases = {name: slot for name, r in layers.items() if name not in after and (slot := _bias(r, registry))}
    return Left(model, biases, after, loose)


def _bias(layer: LayerRecord, registry: Registry) -> str:
    """The layer's tensor that is its bias, as it is added; "" where there is none."""
    bound = bind_record(layer, registry)
    return bound.places[BIAS].tensor if BIAS in bound.places and BIAS not in bound.maps else ""


def _made(left: Left, missing: Missing, registry: Registry, options: Options) -> dict[str, LayerRecord]:
    """Layer that has lost its norm, or the rest of one -> the norm; the two models are paired without them."""
    layers = {record.name: record for record in left.model.layers}
    bare = instead(left.model, [Folded(layers[name], rest) for name, rest in left.after.items()], {})
    plain = tuple(_plain(r, registry) if r.name in left.loose else _without(r, left) for r in bare.layers)
    other = instead(missing.model, missing.pairs, {})
    names = {record.name for record in other.layers}
    own = {a: b for a, b in options.pairs.items() if a in names or b in names}
    both = joint(other, replace(bare, layers=plain), registry, replace(options, pairs=own, map=None))
    owner = {tensor.name: layers[record.name] for record in plain for tensor in record.tensors.values()}
    holds = {*left.biases, *left.after, *left.loose}
    there: dict[str, LayerRecord] = {}
    for pair in both.pairs:  # of a layer that is several nodes here the last one holds the norm
        last = list(pair.target.tensors.values())[-1]
        for layer in (layers.get(pair.target.name), owner[last.name]):
            if layer is not None and layer.name in holds:
                there[pair.source.name] = layer
    norms = {pair.conv.name: pair.norm for pair in missing.pairs}
    norms |= {r.name: r for r in missing.model.layers if (rest := there.get(r.name)) and rest.name in left.loose}
    if unknown := [name for name in norms if name not in there]:
        raise _unknown(unknown, norms, both)
    made = {}
    for name, norm in norms.items():
        if norm.refine:
            why = "its channels are a flattened map, and in which order the graph has them cannot be told"
            raise ConversionError(f"{norm.name} cannot be made of what is left of it", why=why, do=UNFOLDED)
        rest = left.after.get(there[name].name, there[name])
        made[rest.name] = _norm(rest, bind_record(norm, registry), left.biases.get(rest.name, ""))
    return made


def _plain(rest: LayerRecord, registry: Registry) -> LayerRecord:
    """A norm by the sizes of what is left of it, to be paired."""
    size = max(tensor.size for tensor in rest.tensors.values())
    form = registry.form(NORM)
    norm = bind(registry.kind_of(NORM), form, {}, shapes={tensor.name: (size,) for tensor in form.tensors})
    return _norm(rest, norm, "")


def _norm(rest: LayerRecord, norm: BoundForm, bias: str) -> LayerRecord:
    """The norm of what is left of it: a factor and a summand, or the bias of a layer; by channel.

    Without a place for gamma the variance holds the factor, without one for beta the mean holds the summand.
    """
    name, eps = f"{rest.name}/norm" if bias else rest.name, float(norm.settings["eps"])
    size, dtype = norm.sizes["channel"], next(iter(rest.tensors.values())).dtype
    factor, shift = rest.tensors.get("mul.B"), rest.tensors.get(bias or "add.B")

    def read(slot: str) -> Array:
        scale = np.ones(size) if factor is None else factor.read().reshape(size).astype(np.float64)
        more = np.zeros(size) if shift is None else shift.read().reshape(size).astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):  # a factor of 0 is refused by what is written
            held = {"scale": scale, "B": more, "input_mean": np.zeros(size), "input_var": np.full(size, 1 - eps)}
            if ("beta", ()) not in norm.places:
                held |= {"B": np.zeros(size), "input_mean": -more / scale}
            if ("gamma", ()) not in norm.places:
                held |= {"scale": np.sign(scale), "input_var": scale**-2.0 - eps}
        return held[slot].astype(dtype)

    stored = {"scale": factor, "B": shift}
    tensors = {}
    for slot in ("scale", "B", "input_mean", "input_var"):
        held = stored.get(slot)
        full = held.name if held is not None else f"{name}.{slot}"
        tensors[slot] = Tensor(full, dtype, (size,), partial(read, slot), SAID)
    return LayerRecord(name, "BatchNormalization", NORM, {"epsilon": eps}, tensors, note=SAID)


def _without(layer: LayerRecord, left: Left) -> LayerRecord:
    """The layer without the bias that may be a norm's."""
    slot = left.biases.get(layer.name)
    return replace(layer, tensors={name: tensor for name, tensor in layer.tensors.items() if name != slot})


def _with(left: Left, made: Mapping[str, LayerRecord]) -> ModelRecord:
    """The model with each of these norms in the place of what is left of it, or behind the layer that has held it."""
    layers: list[LayerRecord] = []
    moved = {name: norm.name for name, norm in made.items()}
    for record in left.model.layers:
        norm = made.get(record.name)
        ways = tuple(replace(way, maker=moved.get(way.maker, way.maker)) for way in record.ways)
        inputs = tuple(moved.get(name, name) for name in record.inputs)
        here = replace(record, ways=ways, inputs=inputs, alone=moved.get(record.alone, record.alone))
        if norm is None:
            layers.append(here)
        elif norm.name == record.name:
            layers.append(replace(norm, ways=ways, inputs=inputs, alone=here.alone))
        else:
            before = record.name
            layers += [_without(here, left), replace(norm, ways=(Way(before),), inputs=(before,), alone=before)]
    return replace(left.model, layers=tuple(layers))


def _unknown(layers: Sequence[str], norms: Mapping[str, LayerRecord], both: Joint) -> ConversionError:
    where = []
    for name in layers:
        may = " or ".join(both.open.get(name, ()))
        why = f"it may be {may}" if may else both.lost.get(name, "its counterpart has neither a bias nor a norm")
        where.append(f"{name}, before {norms[name].name}: {why}")
    return ConversionError(
        f"which layers of the ONNX model hold {len(layers)} batch norms of the target cannot be told",
        where=first(where),
        why=WHY,
        do="say which is which with --pair LAYER=NODE (pairs= in Python)",
    )


def _problem(missing: Missing, left: Left) -> ConversionError:
    what, where = told(missing, "target")
    if missing.count != len(missing.pairs) + len(left.loose) or not missing.wired:
        why = f"{WHY}; which of the layers hold one cannot be told"
        return ConversionError(what, where=where, why=why, do=UNFOLDED)
    why = f"{WHY}; a bias made so cannot be taken apart again"
    do = (
        f"{UNFOLDED}; or make norms that only scale and shift by what is left (mean 0, variance 1 - eps), the same "
        "function until they are trained on: --materialise (materialise=True)"
    )
    return ConversionError(what, where=where, why=why, do=do)
