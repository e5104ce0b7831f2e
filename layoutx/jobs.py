"""What a conversion will do, layer by layer, decided from names and shapes alone: no weight is read here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from layoutx.empty import NOTHING
from layoutx.errors import ConversionError, LayoutxError, MatchError, UsageError, raise_all
from layoutx.files.store import Tensor
from layoutx.model.bindings import bind_record, refine_of
from layoutx.model.followed import unfollowed
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


@dataclass(frozen=True, slots=True)
class Options:
    """What the user decides about a conversion."""

    allow: frozenset[str] = frozenset()
    skip: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    forms: Mapping[str, str] = NOTHING
    pairs: Mapping[str, str] = NOTHING
    ignore_keys: frozenset[str] = frozenset()
    keep_order: bool = False


@dataclass(frozen=True, slots=True)
class LayerJob:
    """One layer of the conversion.

    Attributes:
        record: the layer as the model with a config describes it.
        plan: from the source form to the target form.
        sources: source form tensor name -> the stored tensor.
        targets: target form tensor name -> its name in the output.
        reason: how the pairing came about; "" where the target takes the source's names.
        refine: axis -> its dims on the target's side; last: in the order of the NumPy reference.
    """

    record: LayerRecord
    plan: Plan
    sources: Mapping[str, Tensor]
    targets: Mapping[str, str]
    reason: str = ""
    refine: Mapping[str, str] = NOTHING
    last: Mapping[str, str] = NOTHING


@dataclass(frozen=True)
class Job:
    """A whole conversion, before any weight is read.

    Attributes:
        source, target: framework names.
        layers: in model order.
        weightless: records without tensors, for the report.
        skipped: layer -> why it was left out.
        leftover: source tensor -> why no layer owns it.
        order: output names in the order in which they are written.
        kept: output names that are not written from the source, with the tensor that stays (a tied name).
    """

    source: str
    target: str
    layers: tuple[LayerJob, ...]
    weightless: tuple[LayerRecord, ...] = ()
    skipped: Mapping[str, str] = NOTHING
    leftover: Mapping[str, str] = NOTHING
    order: tuple[str, ...] = ()
    tied: Mapping[str, str] = field(default_factory=dict)


def chosen(model: ModelRecord, options: Options) -> tuple[list[LayerRecord], dict[str, str]]:
    """The layers with tensors that are to be converted, and why the others are not.

    Raises:
        UsageError: a pattern that matches no layer.
    """
    names = [r.name for r in model.layers]
    for pattern in (*options.skip, *options.only):
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UsageError(f"no layer is called {pattern!r}", why=f"the layers are {', '.join(names[:20])}")
    kept, skipped = [], {}
    for record in model.layers:
        if not record.tensors:
            continue
        if any(fnmatchcase(record.name, p) for p in options.skip):
            skipped[record.name] = "left out by --skip"
        elif options.only and not any(fnmatchcase(record.name, p) for p in options.only):
            skipped[record.name] = "not in --only"
        else:
            kept.append(record)
    return kept, skipped


def _unformed(record: LayerRecord) -> ConversionError:
    tensors = ", ".join(f"{n} {t.shape}" for n, t in record.tensors.items())
    what = f"layer {record.name}: layoutx has no form for the class {record.class_name or 'unknown'}"
    return ConversionError(
        what,
        where=f"tensors: {tensors}",
        why=record.note,
        do=f"name its form (--form {record.name}=FORM), leave it out (--skip {record.name}), or add a spec "
        "(docs/writing-a-spec.md)",
    )


def bound_layers(
    records: Sequence[LayerRecord], registry: Registry, options: Options
) -> tuple[list[tuple[LayerRecord, BoundForm]], list[LayoutxError]]:
    """Every layer bound to its form; the problems of all of them."""
    found, problems = [], list[LayoutxError]()
    for record in records:
        if not record.form:
            problems.append(_unformed(record))
            continue
        try:
            found.append((record, bind_record(record, registry, ignore=options.ignore_keys)))
        except LayoutxError as error:
            problems.append(error)
    return found, problems


def plan_named(model: ModelRecord, to: str, registry: Registry, options: Options) -> Job:
    """A job whose output takes the source's layer names: `<layer>.<tensor>`.

    Raises:
        LayoutxError: layers without a form, or that the target cannot hold; all of them together.
    """
    records, skipped = chosen(model, options)
    found, problems = bound_layers(records, registry, options)
    if not options.keep_order:
        problems += unfollowed(model, found, registry, to)
    layers = []
    for record, bound in found:
        try:
            layers.append(_named(record, bound, to, registry, options))
        except LayoutxError as error:
            problems.append(error.at(f"layer {record.name} ({record.class_name})"))
    raise_all(problems, f"{len(problems)} layers cannot be converted to {to}")
    _distinct(layers)
    return _job(model, to, layers, skipped)


def _named(record: LayerRecord, bound: BoundForm, to: str, registry: Registry, options: Options) -> LayerJob:
    """The first of the target's forms, in the spec's order, that can hold the layer."""
    forms = registry.forms_of(bound.kind.name, to)
    if not forms:
        raise ConversionError(
            f"{to} has no form for the kind {bound.kind.name}",
            why=f"specs/{bound.kind.name}.yaml describes none",
            do="leave the layer out with --skip, or add the form (docs/writing-a-spec.md)",
        )
    refine = refine_of(record, registry, to, options.keep_order)
    failures: list[LayoutxError] = []
    rank = record.config.get("rank")
    for form in sorted(forms, key=lambda f: None not in (f.rank, rank) and f.rank != max(int(rank or 1), 1)):
        try:
            plan = fit(bound, form, refine=refine)
        except LayoutxError as error:
            failures.append(error)
            continue
        path = record.name.replace("/", ".")
        targets = {t.name: f"{path}.{t.name}" for t in plan.target.tensors}
        last = refine_of(record, registry, "keras")
        return LayerJob(record, plan, record.tensors, targets, "", refine, last)
    raise failures[0]


def _distinct(layers: Sequence[LayerJob]) -> None:
    owner: dict[str, str] = {}
    problems: list[LayoutxError] = []
    for layer in layers:
        for name in layer.targets.values():
            if name in owner:
                problems.append(ConversionError(f"{name} would be written by {owner[name]} and {layer.record.name}"))
            owner[name] = layer.record.name
    raise_all(problems, "output names clash")


def _job(model: ModelRecord, to: str, layers: Sequence[LayerJob], skipped: Mapping[str, str]) -> Job:
    order = tuple(name for layer in layers for name in layer.targets.values())
    weightless = tuple(r for r in model.layers if not r.tensors)
    return Job(model.framework, to, tuple(layers), weightless, skipped, dict(model.leftover), order)


def plan_into_keyed(model: ModelRecord, keyed: Keyed, registry: Registry, options: Options) -> Job:
    """A job from a model with a config into a state dict or live module: the target's own names and order."""
    pairs, found, skipped = _pairs(model, keyed, registry, options, whole=True)
    problems: list[LayoutxError] = []
    layers = []
    for (record, bound), match in zip(found, pairs, strict=True):
        shapes = {name: keyed.tensors[full].shape for name, full in match.candidate.names.items()}
        refine = refine_of(record, registry, keyed.framework, options.keep_order)
        try:
            plan = _fit_pair(bound, match, shapes, refine)
        except LayoutxError as error:
            problems.append(error.at(f"layer {record.name} ({record.class_name})"))
            continue
        last = refine_of(record, registry, "keras")
        layers.append(LayerJob(record, plan, record.tensors, match.candidate.names, _where(match), refine, last))
    raise_all(problems, f"{len(problems)} layers cannot be converted to {keyed.framework}")
    job = _job(model, keyed.framework, layers, skipped)
    written = set(job.order)
    return replace(job, order=tuple(n for n in keyed.tensors if n in written), tied=dict(keyed.tied))


def _fit_pair(bound: BoundForm, match: Pair, shapes: Mapping[str, tuple[int, ...]], refine: Mapping[str, str]) -> Plan:
    candidate = match.candidate
    known = {k: v for k, v in candidate.config.items() if k in candidate.form.config}
    return fit(bound, candidate.form, known, shapes=shapes, refine=refine, instance=candidate.instance)


def _where(match: Pair) -> str:
    return f"{match.candidate.prefix or 'top level'} ({match.reason})"


Found = list[tuple[LayerRecord, BoundForm]]


def _pairs(
    model: ModelRecord, keyed: Keyed, registry: Registry, options: Options, whole: bool
) -> tuple[list[Pair], Found, dict[str, str]]:
    records, skipped = chosen(model, options)
    found, problems = bound_layers(records, registry, options)
    if not options.keep_order:
        problems += unfollowed(model, found, registry, keyed.framework)
    raise_all(problems, f"{len(problems)} layers cannot be converted to {keyed.framework}")
    layers = [Layer(r, b, refine_of(r, registry, keyed.framework, options.keep_order)) for r, b in found]
    pairs = pair(layers, keyed, registry, options.pairs, whole=whole and not skipped, ordered=in_order(model))
    return pairs, found, skipped


def plan_from_keyed(keyed: Keyed, model: ModelRecord, registry: Registry, options: Options) -> Job:
    """A job from a state dict or live module into a model with a config (a Keras file): the template's names.

    Every tensor of the template must be written, except those of layers left out by the user.
    """
    pairs, found, skipped = _pairs(model, keyed, registry, options, whole=True)
    problems: list[LayoutxError] = []
    layers = []
    for (record, bound), match in zip(found, pairs, strict=True):
        try:
            source = _keyed_bound(match, keyed, bound, refine_of(record, registry, keyed.framework, options.keep_order))
            refine = refine_of(record, registry, bound.form.framework)
            shapes = {t.name: t.shape for t in bound.tensors}
            plan = fit(source, bound.form, bound.config, shapes=shapes, refine=refine, instance=record.instance)
        except LayoutxError as error:
            problems.append(error.at(f"layer {record.name} ({record.class_name})"))
            continue
        sources = {name: keyed.tensors[full] for name, full in match.candidate.names.items()}
        targets = {name: tensor.name for name, tensor in record.tensors.items()}
        layers.append(LayerJob(record, plan, sources, targets, _where(match), refine, refine))
    raise_all(problems, f"{len(problems)} layers cannot be converted to {model.framework}")
    return replace(_job(model, model.framework, layers, skipped), source=keyed.framework, leftover={})


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


def plan_between(source: ModelRecord, target: ModelRecord, registry: Registry, options: Options) -> Job:
    """A job between two models that both have configs (two Keras files): by name, else by order within a kind."""
    records, skipped = chosen(source, options)
    found, problems = bound_layers(records, registry, options)
    goals, more = bound_layers([r for r in target.layers if r.tensors], registry, options)
    raise_all([*problems, *more], "layers without a usable form")
    layers: list[LayerJob] = []
    for (record, bound), (goal, there) in zip(found, _aligned(found, goals), strict=True):
        try:
            refine = refine_of(goal, registry, there.form.framework)
            shapes = {t.name: t.shape for t in there.tensors}
            plan = fit(bound, there.form, there.config, shapes=shapes, refine=refine, instance=goal.instance)
        except LayoutxError as error:
            problems.append(error.at(f"layer {record.name} ({record.class_name})"))
            continue
        targets = {name: tensor.name for name, tensor in goal.tensors.items()}
        layers.append(LayerJob(record, plan, record.tensors, targets, goal.name, refine, refine))
    raise_all(problems, f"{len(problems)} layers cannot be converted")
    return _job(source, target.framework, layers, skipped)


def _aligned(found: Found, goals: Found) -> Found:
    by_name = {record.name: (record, bound) for record, bound in goals}
    if all(record.name in by_name and by_name[record.name][1].kind == bound.kind for record, bound in found):
        return [by_name[record.name] for record, _ in found]
    kinds = [bound.kind.name for _, bound in found]
    if kinds != [bound.kind.name for _, bound in goals]:
        raise MatchError(
            "the two models do not have the same layers",
            where=[f"source: {', '.join(kinds)}", f"target: {', '.join(b.kind.name for _, b in goals)}"],
            do="leave layers out with --skip",
        )
    return goals


