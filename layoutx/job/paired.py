"""A job into a model that has names of its own: every layer is paired with its place there first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from layoutx.errors import LayoutxError, Problems, UsageError, raise_all
from layoutx.job.absorbed import absorbed
from layoutx.job.agreed import agreed, refine_of_goal
from layoutx.job.jobs import Job, LayerJob, Options, covers, job_of, layers_for
from layoutx.job.joined import Joined
from layoutx.job.joint import joint, loosened, oriented, records_of, tells_more
from layoutx.job.mapped import check_open, with_pairs
from layoutx.job.onnx_norms import with_norms_folded
from layoutx.job.onnx_unfolded import allowed, with_norms_made
from layoutx.job.onnx_ways import check_unrolled, owned
from layoutx.job.unwritten import names_left, tensors_left
from layoutx.model.bindings import refine_of
from layoutx.model.constants import untrained
from layoutx.model.fused import unfused
from layoutx.model.keyed import Keyed, keyed_view
from layoutx.model.load import with_forms
from layoutx.model.loose import numbered
from layoutx.model.match import Pair, pair
from layoutx.model.matching.made import orders_of
from layoutx.model.matching.wiring import wires_of
from layoutx.model.order import in_order
from layoutx.model.record import LayerRecord, ModelRecord
from layoutx.model.said import OF_PATHS, values_said
from layoutx.model.stacked import check_stacked, parts_of
from layoutx.model.storing import Layer
from layoutx.plan.fit import fit
from layoutx.plan.plan import Plan
from layoutx.spec.bind import bind
from layoutx.spec.bound import BoundForm
from layoutx.spec.registry import Registry

Found = list[tuple[LayerRecord, BoundForm]]


def plan_pair(source: Keyed | ModelRecord, target: Keyed | ModelRecord, registry: Registry, options: Options) -> Job:
    """A job between any two models.

    Raises:
        UsageError: a mapping file that names what is not there.
        LayoutxError: what cannot be done, all of it together.
    """
    try:
        return _planned(source, target, registry, options)
    except LayoutxError as error:  # one of them may have in one what the other has apart
        here, there = unfused(source, target), unfused(target, source)
        if here is source and there is target:
            raise
        try:
            return _planned(here, there, registry, options)
        except LayoutxError as other:
            raise (other if _many(other) < _many(error) else error) from None


def _many(error: LayoutxError) -> int:
    return len(error.problems) if isinstance(error, Problems) else 1


def _planned(source: Keyed | ModelRecord, target: Keyed | ModelRecord, registry: Registry, options: Options) -> Job:
    options = with_pairs(options, source, target)
    check_open(options)
    check_stacked(options.values, source, target)
    if "onnx" in (source.framework, target.framework):
        check_unrolled(source, target, registry)
        source = with_norms_made(with_norms_folded(source, target, registry, options), target, registry, options)
    job = owned(allowed(_plan_pair(source, target, registry, options)), target)
    return replace(absorbed(job, source, target, options), stacked={**parts_of(target), **job.stacked})


def _plan_pair(source: Keyed | ModelRecord, target: Keyed | ModelRecord, registry: Registry, options: Options) -> Job:
    if isinstance(source, Keyed) and isinstance(target, Keyed) and tells_more(target, source, registry):
        target = records_of(target, registry, replace(options, forms={}))
    if isinstance(source, ModelRecord):
        source = _told_by(source, keyed_view(source), target, registry, options)
        if isinstance(target, Keyed):
            return plan_into_keyed(loosened(source, target, registry, options), target, registry, options)
        if "onnx" in (source.framework, target.framework):
            return plan_onnx(source, target, registry, options)
        return plan_between(source, target, registry, options)
    if isinstance(target, ModelRecord):
        return plan_from_keyed(source, loosened(target, source, registry, options), registry, options)
    if source.tied and len(source.tied) == len(target.tied):  # the target's are written once too
        source = source.distinct()
    model = _told_by(records_of(source, registry, options), source, target, registry, options)
    return plan_into_keyed(loosened(model, target, registry, options), target, registry, options)


def _told_by(
    model: ModelRecord, source: Keyed, target: Keyed | ModelRecord, registry: Registry, options: Options
) -> ModelRecord:
    """The source's records; a form that names and shapes leave open is that of the counterpart: a live module knows it.

    A square kernel fits Conv2d and ConvTranspose2d alike; a tree of flax or a file of Keras weights names no classes.

    Args:
        source: the same model as names.
    """
    unformed = [r for r in model.layers if r.tensors and not r.form and not r.class_name]  # no class of one's own
    bare = {_path(r): r.name for r in unformed if not covers(options.skip, r.name)}
    if not bare or model.framework == "onnx":
        return numbered(model)
    pairs = {_dotted(one, model): _dotted(other, model) for one, other in options.pairs.items()}
    found = joint(source, target, registry, replace(options, pairs=pairs)).pairs
    forms = {bare[path]: pair.source.bound.form.name for pair in found if (path := _place(pair)) in bare}
    model = with_forms(model, registry, forms, values=options.values)
    told = {r.name for r in model.layers if r.form and r.name in forms}
    layers = tuple(replace(r, note="form from its counterpart") if r.name in told else r for r in model.layers)
    return numbered(replace(model, layers=layers))


def _path(record: LayerRecord) -> str:
    return record.name.replace("/", ".")


def _place(pair: Joined) -> str:
    return pair.source.name.replace("/", ".")


def _dotted(name: str, model: ModelRecord) -> str:
    """A name of the model's as its view as names has it; any other as it is."""
    return name.replace("/", ".") if any(record.name == name for record in model.layers) else name


def plan_into_keyed(model: ModelRecord, keyed: Keyed, registry: Registry, options: Options) -> Job:
    """A job from a model with a config into a state dict or live module: the target's own names and order."""
    pairs, found, skipped = _pairs(model, keyed.distinct(), registry, options)
    problems: list[LayoutxError] = []
    layers = []
    for (record, bound), match in zip(found, pairs, strict=True):
        shapes = {name: keyed.tensors[full].shape for name, full in match.candidate.names.items()}
        try:
            one = agreed(record, bound, match.candidate, keyed, registry, options)
            record, refine = one.record, one.there
            plan = _fit_pair(one.bound, match, shapes, refine)
        except LayoutxError as error:
            problems.append(error.at(record.place))
            continue
        last = refine_of(record, registry, "keras")
        targets = {name: keyed.tensors[full].name for name, full in match.candidate.names.items()}
        module, reason = keyed.modules.get(match.candidate.prefix), _where(match)
        known = frozenset(module.config if module else ())
        job = LayerJob(record, plan, record.tensors, targets, reason, refine, last, known=known, alike=match.alike)
        layers.append(replace(job, supposed=one.supposed))
    raise_all(problems, f"{len(problems)} layers cannot be converted to {keyed.framework}")
    whole = job_of(model, keyed.framework, layers, skipped)
    written = set(whole.order)
    order = tuple(tensor.name for tensor in keyed.tensors.values() if tensor.name in written)
    tied = {keyed.tensors[name].name: keyed.tensors[first].name for name, first in keyed.tied.items()}
    return replace(whole, order=order, tied=tied, unwritten=names_left(pairs, keyed))


def _fit_pair(bound: BoundForm, match: Pair, shapes: Mapping[str, tuple[int, ...]], refine: Mapping[str, str]) -> Plan:
    candidate = match.candidate
    known = {k: v for k, v in candidate.config.items() if k in candidate.form.config}
    return fit(bound, candidate.form, known, shapes=shapes, refine=refine, instance=candidate.instance)


def _where(match: Pair) -> str:
    return f"{match.candidate.prefix or 'top level'} ({match.reason})"


def _pairs(
    model: ModelRecord, keyed: Keyed, registry: Registry, options: Options
) -> tuple[list[Pair], Found, dict[str, str]]:
    found, problems, skipped = layers_for(model, keyed.framework, registry, options, keyed.tensors, told=True)
    raise_all(problems, f"{len(problems)} layers of the {model.framework} model cannot be converted")
    layers = [Layer(r, b, refine_of(r, registry, keyed.framework, options.keeps(r.name))) for r, b in found]
    spare = [name for name in keyed.tensors if covers(options.skip, name)]
    pairs = pair(
        layers,
        keyed,
        registry,
        oriented(options.pairs, {record.name for record in model.layers}),
        whole=not skipped,
        ordered=in_order(model),
        orders=orders_of(model),
        wires=wires_of(model),
        spare=spare,
        values=options.values,
    )
    placed = {match.record.name for match in pairs}
    free = {r.name: next(iter(untrained(r.tensors).values())) for r, _ in found if r.name not in placed}
    return pairs, [(record, bound) for record, bound in found if record.name in placed], {**skipped, **free}


def _heard(values: Mapping[str, Any], pairs: Sequence[Pair]) -> None:
    """Refuse a value of --set that neither side of any pair reads."""
    for said in values:
        key = said.rpartition(".")[2]
        if key in OF_PATHS:
            continue
        for match in pairs:
            places = (match.record.name, match.candidate.prefix)
            read = {**match.candidate.form.config, **match.record.config}
            if key in read and any(key in values_said({said: None}, name) for name in places):
                break
        else:
            raise UsageError(
                f"--set names no config key that a layer of these models reads: {said}",
                do="write LAYER.KEY=VALUE; `layoutx specs show FORM` lists the keys of a form",
            )


def plan_from_keyed(keyed: Keyed, model: ModelRecord, registry: Registry, options: Options) -> Job:
    """A job from a state dict or live module into a model with a config (a Keras file): the template's names.

    Every tensor of the template must be written, except those of layers left out by the user.
    """
    try:  # a tied tensor is one layer that is called twice, or else two layers of the same weights
        pairs, found, skipped = _pairs(model, keyed.distinct(), registry, options)
    except LayoutxError:
        if not keyed.tied:
            raise
        pairs, found, skipped = _pairs(model, keyed, registry, options)
    _heard(options.values, pairs)
    problems: list[LayoutxError] = []
    layers = []
    for (record, bound), match in zip(found, pairs, strict=True):
        try:
            one = agreed(record, bound, match.candidate, keyed, registry, options)
            record, bound = one.record, one.bound
            source = _keyed_bound(match, keyed, bound, one.there)
            refine = refine_of(record, registry, bound.form.framework)
            shapes = {t.name: t.shape for t in bound.tensors}
            plan = fit(source, bound.form, bound.config, shapes=shapes, refine=refine, instance=record.instance)
        except LayoutxError as error:
            problems.append(error.at(record.place))
            continue
        sources = {name: keyed.tensors[full] for name, full in match.candidate.names.items()}
        targets = {name: tensor.name for name, tensor in record.tensors.items()}
        said = {**values_said(options.values, record.name), **values_said(options.values, match.candidate.prefix)}
        known, own = frozenset(bound.config), frozenset(said)
        reason = _where(match)
        moved = LayerJob(record, plan, sources, targets, reason, refine, refine, own, known, alike=match.alike)
        layers.append(replace(moved, supposed=one.supposed))
    raise_all(problems, f"{len(problems)} layers cannot be converted to {model.framework}")
    rest = keyed.tensors.keys() - {full for match in pairs for full in match.candidate.names.values()}
    leftover = {**keyed.beside, **untrained({keyed.tensors[name].name: keyed.tensors[name] for name in rest})}
    job = replace(job_of(model, model.framework, layers, skipped), stacked=parts_of(model))
    return replace(job, source=keyed.framework, leftover=leftover, unwritten=tensors_left(model, job))


def _keyed_bound(match: Pair, keyed: Keyed, bound: BoundForm, refine: Mapping[str, str]) -> BoundForm:
    candidate = match.candidate
    shapes = {name: keyed.tensors[full].shape for name, full in candidate.names.items()}
    return bind(
        bound.kind,
        candidate.form,
        candidate.config,
        shapes=shapes,
        sizes=bound.sizes,
        refine=refine,
        instance=candidate.instance,
    )


def plan_onnx(source: ModelRecord, target: ModelRecord, registry: Registry, options: Options) -> Job:
    """A job between an ONNX model and a model with a config: the ONNX layers are known by names, forms and configs."""
    if source.framework == "onnx":
        job = plan_from_keyed(keyed_view(source), target, registry, options)
        return replace(job, leftover=dict(source.leftover))
    job = plan_into_keyed(source, keyed_view(target), registry, options)
    return replace(job, order=tuple(dict.fromkeys(job.order)), tied={})


def plan_between(source: ModelRecord, target: ModelRecord, registry: Registry, options: Options) -> Job:
    """A job between two models that both have configs (two Keras files), each axis as its own model flattens it."""
    keyed = keyed_view(target)
    pairs, found, skipped = _pairs(source, keyed, registry, options)
    goals = {record.name.replace("/", "."): record for record in target.layers}
    alike = registry.framework(source.framework).channels == registry.framework(target.framework).channels
    problems: list[LayoutxError] = []
    layers: list[LayerJob] = []
    for (record, bound), match in zip(found, pairs, strict=True):
        goal = goals[match.candidate.prefix]
        shapes = {name: keyed.tensors[full].shape for name, full in match.candidate.names.items()}
        try:
            refine = refine_of_goal(record, goal, registry, match.candidate.form.framework)
            if alike:  # an axis that only the target follows keeps its order: both flatten by one habit
                refine = {axis: dims for axis, dims in refine.items() if axis in record.refine}
            plan = _fit_pair(bound, match, shapes, refine)
        except LayoutxError as error:
            problems.append(error.at(record.place))
            continue
        targets = {name: keyed.tensors[full].name for name, full in match.candidate.names.items()}
        known = frozenset(goal.config)
        layers.append(
            LayerJob(record, plan, record.tensors, targets, goal.name, refine, refine, known=known, alike=match.alike)
        )
    raise_all(problems, f"{len(problems)} layers cannot be converted")
    job = job_of(source, target.framework, layers, skipped)
    return replace(job, unwritten=tensors_left(target, job))
