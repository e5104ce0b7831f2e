"""A job into a model that has names of its own: every layer is paired with its place there first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase

from layoutx.errors import LayoutxError, MatchError, UsageError, raise_all
from layoutx.job.agreed import refine_there
from layoutx.job.jobs import Job, LayerJob, Options, bound_layers, chosen, job_of, layers_for
from layoutx.model.bindings import refine_of
from layoutx.model.keyed import Keyed
from layoutx.model.match import Pair, pair
from layoutx.model.order import in_order
from layoutx.model.places import Layer
from layoutx.model.record import LayerRecord, ModelRecord
from layoutx.plan.fit import fit
from layoutx.plan.plan import Plan
from layoutx.spec.bind import bind
from layoutx.spec.bound import BoundForm
from layoutx.spec.registry import Registry

Found = list[tuple[LayerRecord, BoundForm]]


def plan_pair(source: Keyed | ModelRecord, target: Keyed | ModelRecord, registry: Registry, options: Options) -> Job:
    """A job between any two models, of which one at least has a config.

    Raises:
        UsageError: both are known by names only.
        LayoutxError: what cannot be done, all of it together.
    """
    if isinstance(source, ModelRecord):
        if isinstance(target, Keyed):
            return plan_into_keyed(source, target, registry, options)
        if "onnx" in (source.framework, target.framework):
            return plan_onnx(source, target, registry, options)
        return plan_between(source, target, registry, options)
    if isinstance(target, ModelRecord):
        return plan_from_keyed(source, target, registry, options)
    raise UsageError(
        "both models are known by names only",
        why="two torch models need no change of layout",
        do="use target.load_state_dict(source.state_dict())",
    )


def plan_into_keyed(model: ModelRecord, keyed: Keyed, registry: Registry, options: Options) -> Job:
    """A job from a model with a config into a state dict or live module: the target's own names and order."""
    pairs, found, skipped = _pairs(model, keyed.distinct(), registry, options)
    problems: list[LayoutxError] = []
    layers = []
    for (record, bound), match in zip(found, pairs, strict=True):
        shapes = {name: keyed.tensors[full].shape for name, full in match.candidate.names.items()}
        try:
            refine = refine_there(record, match.candidate.names, keyed, registry, options)
            plan = _fit_pair(bound, match, shapes, refine)
        except LayoutxError as error:
            problems.append(error.at(record.place))
            continue
        last = refine_of(record, registry, "keras")
        targets = {name: keyed.tensors[full].name for name, full in match.candidate.names.items()}
        layers.append(LayerJob(record, plan, record.tensors, targets, _where(match), refine, last))
    raise_all(problems, f"{len(problems)} layers cannot be converted to {keyed.framework}")
    job = job_of(model, keyed.framework, layers, skipped)
    written = set(job.order)
    order = tuple(tensor.name for tensor in keyed.tensors.values() if tensor.name in written)
    tied = {keyed.tensors[name].name: keyed.tensors[first].name for name, first in keyed.tied.items()}
    return replace(job, order=order, tied=tied)


def _fit_pair(bound: BoundForm, match: Pair, shapes: Mapping[str, tuple[int, ...]], refine: Mapping[str, str]) -> Plan:
    candidate = match.candidate
    known = {k: v for k, v in candidate.config.items() if k in candidate.form.config}
    return fit(bound, candidate.form, known, shapes=shapes, refine=refine, instance=candidate.instance)


def _where(match: Pair) -> str:
    return f"{match.candidate.prefix or 'top level'} ({match.reason})"


def _pairs(
    model: ModelRecord, keyed: Keyed, registry: Registry, options: Options
) -> tuple[list[Pair], Found, dict[str, str]]:
    found, problems, skipped = layers_for(model, keyed.framework, registry, options, keyed.tensors)
    raise_all(problems, f"{len(problems)} layers cannot be converted to {keyed.framework}")
    layers = [Layer(r, b, refine_of(r, registry, keyed.framework, options.keeps(r.name))) for r, b in found]
    spare = [name for name in keyed.tensors if any(fnmatchcase(name, p) for p in options.skip)]
    pairs = pair(layers, keyed, registry, options.pairs, whole=not skipped, ordered=in_order(model), spare=spare)
    return pairs, found, skipped


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
    problems: list[LayoutxError] = []
    layers = []
    for (record, bound), match in zip(found, pairs, strict=True):
        try:
            there = refine_there(record, match.candidate.names, keyed, registry, options)
            source = _keyed_bound(match, keyed, bound, there)
            refine = refine_of(record, registry, bound.form.framework)
            shapes = {t.name: t.shape for t in bound.tensors}
            plan = fit(source, bound.form, bound.config, shapes=shapes, refine=refine, instance=record.instance)
        except LayoutxError as error:
            problems.append(error.at(record.place))
            continue
        sources = {name: keyed.tensors[full] for name, full in match.candidate.names.items()}
        targets = {name: tensor.name for name, tensor in record.tensors.items()}
        layers.append(LayerJob(record, plan, sources, targets, _where(match), refine, refine))
    raise_all(problems, f"{len(problems)} layers cannot be converted to {model.framework}")
    return replace(job_of(model, model.framework, layers, skipped), source=keyed.framework, leftover={})


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
    from layoutx.model.onnx_model import keyed_view

    if source.framework == "onnx":
        job = plan_from_keyed(keyed_view(source), target, registry, options)
        return replace(job, leftover=dict(source.leftover))
    job = plan_into_keyed(source, keyed_view(target), registry, options)
    return replace(job, order=tuple(dict.fromkeys(job.order)), tied={})


def plan_between(source: ModelRecord, target: ModelRecord, registry: Registry, options: Options) -> Job:
    """A job between two models that both have configs (two Keras files): by name, else by order within a kind."""
    records, skipped = chosen(source, options)
    found, problems = bound_layers(records, registry, options)
    goals, more = bound_layers([r for r in target.layers if r.tensors], registry, options)
    raise_all([*problems, *more], "layers without a usable form")
    layers: list[LayerJob] = []
    aligned = _aligned(found, goals)
    left = [record.name for record, _ in goals if all(record is not goal for goal, _ in aligned)]
    if left and not skipped:
        raise MatchError(
            f"{len(left)} layers of the target have no layer in the source",
            where=", ".join(left[:8]),
            do="give the model that has them, or say what is left out with --skip",
        )
    for (record, bound), (goal, there) in zip(found, aligned, strict=True):
        try:
            refine = refine_of(goal, registry, there.form.framework)
            shapes = {t.name: t.shape for t in there.tensors}
            plan = fit(bound, there.form, there.config, shapes=shapes, refine=refine, instance=goal.instance)
        except LayoutxError as error:
            problems.append(error.at(record.place))
            continue
        targets = {name: tensor.name for name, tensor in goal.tensors.items()}
        layers.append(LayerJob(record, plan, record.tensors, targets, goal.name, refine, refine))
    raise_all(problems, f"{len(problems)} layers cannot be converted")
    return job_of(source, target.framework, layers, skipped)


def _aligned(found: Found, goals: Found) -> Found:
    by_name = {record.name: (record, bound) for record, bound in goals}
    if all(record.name in by_name and by_name[record.name][1].kind == bound.kind for record, bound in found):
        return [by_name[record.name] for record, _ in found]
    kinds = [bound.kind.name for _, bound in found]
    if kinds != [bound.kind.name for _, bound in goals]:
        raise MatchError(
            "the two models do not have the same layers",
            where=[f"source: {', '.join(kinds)}", f"target: {', '.join(b.kind.name for _, b in goals)}"],
            do="leave layers of the source out with --skip; the others are then found by their names",
        )
    return goals
