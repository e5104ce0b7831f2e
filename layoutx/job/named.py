"""A job whose output takes the source's layer names: `<layer>.<tensor>`, in the first form that holds each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from layoutx.empty import NOTHING
from layoutx.errors import ConversionError, LayoutxError, raise_all
from layoutx.frozen import frozen
from layoutx.job.jobs import Job, LayerJob, Options, job_of, layers_for
from layoutx.model.bindings import refine_of
from layoutx.model.record import LayerRecord, ModelRecord
from layoutx.model.spelling import spelled
from layoutx.plan.fit import fit
from layoutx.plan.offer import doing, module_for, offer
from layoutx.plan.plan import Plan
from layoutx.plan.steps import Step
from layoutx.spec.bound import BoundForm, BoundTensor
from layoutx.spec.memo import Memo, key_of
from layoutx.spec.registry import Registry
from layoutx.spec.schema import Form


def plan_named(model: ModelRecord, to: str, registry: Registry, options: Options) -> Job:
    """A job whose output takes the source's layer names: `<layer>.<tensor>`.

    Raises:
        LayoutxError: layers without a form, or that the target cannot hold; all of them together.
    """
    found, problems, skipped = layers_for(model, to, registry, options)
    layers = []
    for record, bound in found:
        try:
            layers.append(_named(record, bound, to, registry, options))
        except LayoutxError as error:
            problems.append(error.at(record.place))
    raise_all(problems, f"{len(problems)} layers cannot be converted to {to}")
    _distinct(layers)
    return job_of(model, to, layers, skipped)


def _named(record: LayerRecord, bound: BoundForm, to: str, registry: Registry, options: Options) -> LayerJob:
    refine = refine_of(record, registry, to, options.keeps(record.name))
    modules, rank = "modules" in options.allow, record.config.get("rank")
    alike = None if bound.key is None or record.instance else key_of(bound.key, to, refine, modules, rank)
    make = partial(_way, record, bound, to, registry, modules, refine)
    way = _ways.get((bound.kind, bound.form), alike, make)
    name = record.name if way.path is None else way.path
    targets = {tensor: spelled(to, name, tensor, state) for tensor, state in way.states}
    plan = Plan(bound, way.target, way.steps)
    return LayerJob(record, plan, record.tensors, targets, "", refine, refine_of(record, registry, "keras"))


@frozen
class _Way:
    """How layers of one make are stored in the target.

    Attributes:
        states: the target's tensors, and whether each is a state.
        path: of the target, where it is not the layer's name.
    """

    target: BoundForm
    steps: tuple[Step, ...]
    states: tuple[tuple[str, bool], ...]
    path: str | None = None


_ways: Memo[_Way] = Memo()


def _way(
    record: LayerRecord, bound: BoundForm, to: str, registry: Registry, modules: bool, refine: Mapping[str, str]
) -> _Way:
    plan, path = _planned(record, bound, to, registry, modules, refine)
    states = tuple((tensor.name, is_state(plan.target, tensor)) for tensor in plan.target.tensors)
    return _Way(plan.target, plan.steps, states, path)


def _planned(
    record: LayerRecord, bound: BoundForm, to: str, registry: Registry, modules: bool, refine: Mapping[str, str]
) -> tuple[Plan, str | None]:
    """The first of the target's forms, in the spec's order, that can hold the layer; else, if allowed, a module."""
    forms = registry.forms_of(bound.kind.name, to)
    own = module_for(bound, to, refine)
    if own is not None and modules:
        return own, None
    if own is not None and not forms:
        raise ConversionError(f"{to} has no {bound.kind.name} layer", do=_consent(own))
    if not forms:
        parts = " ".join(f"--form '*.{path}={form}'" for path, form in bound.form.modules.items())
        others = "leave the layer out with --skip, or add the form (docs/writing-a-spec.md)"
        raise ConversionError(
            f"{to} has no form for the kind {bound.kind.name}",
            why=f"specs/{bound.kind.name}.yaml describes none",
            do=f"convert its parts ({parts}), {others}" if parts else others,
        )
    failures: list[LayoutxError] = []
    rank = record.config.get("rank")
    for form in sorted(forms, key=lambda f: None not in (f.rank, rank) and f.rank != max(int(rank or 1), 1)):
        path, instance = _place(record, form)
        try:
            return fit(bound, form, refine=refine, instance=instance), path
        except LayoutxError as error:
            failures.append(error)
    raise failures[0] if own is None else doing(failures[0], _consent(own))


def _consent(own: Plan) -> str:
    return f"convert it for {offer(own)}, which has this function: --allow modules (allow={{'modules'}} in Python)"


def _place(record: LayerRecord, form: Form) -> tuple[str | None, Mapping[str, Any]]:
    """The target's path: layers of one stacked module (`lstm/layer_1` of an ONNX file) lie under the module's own."""
    stem, _, last = record.name.rpartition("/")
    stacked = form.each and record.instance and last == f"{form.each}_{record.instance.get(form.each)}"
    return (stem, record.instance) if stacked else (None, NOTHING)


def is_state(bound: BoundForm, tensor: BoundTensor) -> bool:
    """Whether all that a tensor holds moves without a gradient, as running statistics do."""
    return bool(tensor.blocks) and all(bound.kind.roles[block.role].state for block in tensor.blocks)


def _distinct(layers: Sequence[LayerJob]) -> None:
    owner: dict[str, str] = {}
    problems: list[LayoutxError] = []
    names = [name for layer in layers for name in layer.targets.values()]
    for layer in layers if len(set(names)) < len(names) else ():
        for name in layer.targets.values():
            if name in owner:
                problems.append(ConversionError(f"{name} would be written by {owner[name]} and {layer.record.name}"))
            owner[name] = layer.record.name
    raise_all(problems, "output names clash")
