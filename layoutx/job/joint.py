"""Any two models joined: layers bound on both sides, paired and planned; what cannot be planned is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from layoutx.errors import LayoutxError, UsageError
from layoutx.files.store import Tensor
from layoutx.frozen import frozen
from layoutx.job.agreed import refine_of_goal, refine_there, tells
from layoutx.job.jobs import LEFT_OUT, Options, bound_layers, chosen, covers
from layoutx.job.joined import Joined, Joint, Side, spare_of
from layoutx.job.mapped import with_pairs
from layoutx.model.bindings import refine_of
from layoutx.model.constants import all_constant, untrained
from layoutx.model.experts import experts_apart
from layoutx.model.followed import unfollowed
from layoutx.model.in_parts import settled
from layoutx.model.keyed import Keyed, keyed_view
from layoutx.model.load import with_forms
from layoutx.model.loose import matrixed, numbered
from layoutx.model.match import Matching, Pair, matched
from layoutx.model.matching.evidence import place_name
from layoutx.model.matching.made import orders_of
from layoutx.model.matching.wiring import Wires, keyed_wires, wires_of
from layoutx.model.order import in_order
from layoutx.model.record import UNTRAINED, LayerRecord, ModelRecord
from layoutx.model.state import state_records
from layoutx.model.storing import Layer
from layoutx.model.tree_config import told
from layoutx.plan.fit import fit
from layoutx.plan.plan import Plan, plan
from layoutx.progress import steps, tell
from layoutx.spec.bind import bind
from layoutx.spec.bound import BoundForm
from layoutx.spec.registry import Registry

Model = Keyed | ModelRecord
ATTENTION = "attention"


def joint(source: Model, target: Model, registry: Registry, options: Options) -> Joint:
    """Every layer of the source with its counterpart in the target, or with the reason why it has none.

    Raises:
        UsageError: options that name no layer.
    """
    options = with_pairs(options, source, target)
    if options.materialise:
        source, target = (settled(m, True, options.skip) if isinstance(m, Keyed) else m for m in (source, target))
    if isinstance(source, Keyed) and isinstance(target, ModelRecord):
        return _flipped(source, target, registry, options, wires_of(target))
    if isinstance(source, Keyed) and isinstance(target, Keyed) and len(source.tied) == len(target.tied):
        source = source.distinct()  # layers that share their weights do so on both sides: each has one place
    if isinstance(source, Keyed) and isinstance(target, Keyed) and tells_more(target, source, registry):
        other = records_of(target, registry, replace(options, forms={}))
        return _flipped(source, other, registry, options, keyed_wires(target))
    model = records_of(source, registry, options)
    if isinstance(source, Keyed) and isinstance(target, Keyed) and _unformed(model):
        other = records_of(target, registry, replace(options, forms={}))
        if _unformed(other) < _unformed(model):  # a live module knows its classes where a tree has names alone
            return _flipped(source, other, registry, options, keyed_wires(target))
    back = _Sides(numbered(model), target, registry, options)
    wires = keyed_wires(source) if isinstance(source, Keyed) else wires_of(model)
    return _joint(back, wires)


def records_of(source: Model, registry: Registry, options: Options) -> ModelRecord:
    """A model as records; of one known by names the forms come from names, shapes and the live module."""
    if isinstance(source, ModelRecord):
        return source
    found = told(state_records(source, registry, options.values, options.forms), source, registry)
    return with_forms(found, registry, options.forms, values=options.values)


def tells_more(one: Keyed, other: Keyed, registry: Registry) -> bool:
    """Whether a model tells what the other leaves open: how a map is flattened, or which projections are one layer."""
    return (knows_maps(one) and not knows_maps(other)) or _packed(one, registry) > _packed(other, registry)


def _packed(model: Keyed, registry: Registry) -> int:
    """How many attentions say how many heads they have; projections apart do not say what they are."""
    named = [m.form for m in model.modules.values() if "num_heads" in m.config]
    return sum(form in registry.forms and registry.forms[form].kind == ATTENTION for form in named)


def knows_maps(model: Keyed) -> bool:
    """Whether a model's own program tells how it flattens a map."""
    return model.axes is not None and any(record.refine for record in model.axes().values())


def _unformed(model: ModelRecord) -> int:
    """How many layers nobody can tell the class of."""
    return sum(bool(record.tensors) and not record.form for record in model.layers)


def oriented(pairs: Mapping[str, str], layers: Mapping[str, object] | set[str]) -> dict[str, str]:
    """The user's pairs with the given layers first, whichever way round each was written."""
    return {b if a not in layers and b in layers else a: a if a not in layers and b in layers else b
            for a, b in pairs.items()}  # fmt: skip


@frozen
class _Sides:
    """One matching: layers with configs into the places of a model seen as names."""

    model: ModelRecord
    target: Model
    registry: Registry
    options: Options

    @property
    def keyed(self) -> Keyed:
        return keyed_view(self.target) if isinstance(self.target, ModelRecord) else self.target.distinct()

    def named(self, path: str) -> str:
        """A place as its own model calls it: a record's name, or the module path itself."""
        if isinstance(self.target, ModelRecord):
            return next((r.name for r in self.target.layers if r.name.replace("/", ".") == path), path)
        return path

    def refined(self, record: LayerRecord, place: Pair, keyed: Keyed) -> dict[str, str]:
        """Axis -> its dims at a place: as the other model's own config says, or as its framework has the habit.

        Raises:
            ConversionError: the two sides do not flatten alike, or nobody can tell.
        """
        if isinstance(self.target, ModelRecord) and self.target.framework != "onnx":
            path = place.candidate.prefix
            goal = next((r for r in self.target.layers if r.name.replace("/", ".") == path), record)
            return refine_of_goal(record, goal, self.registry, self.target.framework)
        return refine_there(record, place.candidate, keyed, self.registry, self.options)


def _joint(sides: _Sides, wires: Wires | None, keyed: Keyed | None = None) -> Joint:
    registry, options = sides.registry, sides.options
    keyed = sides.keyed if keyed is None else keyed
    model = loosened(sides.model, keyed, registry, options)
    records, skipped = chosen(model, options, keyed.tensors)
    layers: list[Layer] = []
    lost: dict[str, str] = {}
    for record in records:
        found, problems = bound_layers([record], registry, options)
        lost |= dict.fromkeys([record.name] if problems else [], "".join(error.line for error in problems[:1]))
        layers += [
            Layer(r, bound, refine_of(r, registry, keyed.framework, options.keeps(r.name))) for r, bound in found
        ]
    doubts = _doubts(sides, layers, keyed.framework)
    fixed = oriented(options.pairs, {record.name for record in model.layers})
    missing = [name for name in fixed if name not in {layer.record.name for layer in layers}]
    if missing:
        known = ", ".join(layer.record.name for layer in layers[:20])
        raise UsageError(f"--pair names no layer: {', '.join(missing)}", why=f"the layers are {known}")
    tell(0, 0, f"pairing {len(layers)} layers")
    match = matched(
        layers,
        keyed,
        registry,
        fixed,
        ordered=in_order(model),
        orders=orders_of(model),
        wires=wires,
        values=options.values,
    )
    by_name = {layer.record.name: layer for layer in layers}
    pairs: list[Joined] = []
    for one in steps(match.pairs, lambda pair: f"joining {pair.record.name}"):
        try:
            pairs.append(_joined(sides, by_name[one.record.name], one, keyed, doubts.get(one.record.name)))
        except LayoutxError as error:
            lost[one.record.name] = error.line
    free = {name for name in match.lost if name not in fixed and all_constant(by_name[name].record.tensors)}
    lost |= {name: error.line for name, error in match.lost.items() if name not in free}
    open_ = {name: tuple(dict.fromkeys(sides.named(place_name(c)) for c in own)) for name, own in match.open.items()}
    unused = _unused(pairs, match, keyed)
    spare = {name for name in unused if covers(options.skip, name)}
    skipped |= dict.fromkeys(sorted(spare), LEFT_OUT)
    consts = spare_of(sides.target) if isinstance(sides.target, ModelRecord) else dict(sides.target.beside)
    rest = [t for full, t in keyed.tensors.items() if t.name in unused and not {full, t.name} & spare]
    consts |= untrained({tensor.name: tensor for tensor in rest})
    unused = {name: why for name, why in unused.items() if name not in spare and name not in consts}
    made = untrained({t.name: t for name in free for t in by_name[name].record.tensors.values()})
    return Joint(tuple(pairs), open_, lost, unused, skipped, {**model.leftover, **made}, spare=consts)


def loosened(model: ModelRecord, keyed: Keyed, registry: Registry, options: Options) -> ModelRecord:
    """The model with what no form is known for as layers and matrices of which the other model has the like."""
    return matrixed(experts_apart(model, keyed, registry), keyed, registry, options.keeps)


def _unused(pairs: list[Joined], match: Matching, keyed: Keyed) -> dict[str, str]:
    """Target tensors that no pair takes, with what is known of each."""
    taken = {tensor.name for one in pairs for tensor in one.target.tensors.values()}
    wanted = {full: name for name, own in match.open.items() for c in own for full in c.names.values()}
    found = {}
    for full, tensor in keyed.tensors.items():
        if tensor.name not in taken:
            found[tensor.name] = f"{wanted[full]} may be its layer" if full in wanted else "no layer of the source fits"
    return {**found, **keyed.leftover}


def _doubts(sides: _Sides, layers: list[Layer], framework: str) -> dict[str, LayoutxError]:
    """Layers whose input rows may be a flattened map in an order that nobody can tell."""
    own = [(layer.record, layer.bound) for layer in layers if not sides.options.keeps(layer.record.name)]
    rest = [(layer.record, layer.bound) for layer in layers if sides.options.keeps(layer.record.name)]
    if not unfollowed(sides.model, own, sides.registry, framework, rest, told=True):
        return {}
    found: dict[str, LayoutxError] = {}
    for one in own:
        others = [other for other in (*own, *rest) if other is not one]
        for error in unfollowed(sides.model, [one], sides.registry, framework, others, told=True):
            found[one[0].name] = error
    return found


def _joined(sides: _Sides, layer: Layer, match: Pair, keyed: Keyed, doubt: LayoutxError | None) -> Joined:
    candidate, record, registry = match.candidate, layer.record, sides.registry
    tensors: Mapping[str, Tensor] = {name: keyed.tensors[full] for name, full in candidate.names.items()}
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    problem = doubt
    try:
        there = sides.refined(record, match, keyed)
    except LayoutxError as error:
        there, problem = dict(layer.refine), error.at(record.place)
    given = {k: v for k, v in candidate.config.items() if k in candidate.form.config}
    planned: Plan | None = None
    try:
        planned = fit(layer.bound, candidate.form, given, shapes=shapes, refine=there, instance=candidate.instance)
        bound = planned.target
    except LayoutxError as error:
        problem = problem or error.at(record.place)
        bound = _bound(layer, match, given, shapes, there)
    here = Side(record.name, layer.bound, record.tensors, refine_of(record, registry, layer.bound.form.framework))
    side = Side(sides.named(candidate.prefix), bound, tensors, there, told=tells(record, candidate, keyed))
    last = refine_of(record, registry, "keras")
    planned = planned if problem is None else None
    sure, instance = match.confidence, dict(candidate.instance)
    return Joined(here, side, record, planned, problem, match.reason, sure, last, instance, match.alike)


def _bound(
    layer: Layer, match: Pair, given: Mapping[str, object], shapes: Mapping[str, tuple[int, ...]],
    refine: Mapping[str, str],
) -> BoundForm:  # fmt: skip
    """The counterpart's form, bound to its own shapes, where no plan leads into it."""
    candidate = match.candidate
    kind, sizes = layer.bound.kind, dict(layer.bound.sizes)
    return bind(kind, candidate.form, given, shapes=shapes, sizes=sizes, refine=refine, instance=candidate.instance)


def _flipped(source: Keyed, target: ModelRecord, registry: Registry, options: Options, wires: Wires | None) -> Joint:
    """Layers of the side with the config are looked for in the other one; the answer is turned round."""
    sides = _Sides(numbered(target), source, registry, options)
    back = _joint(sides, wires)
    if source.tied and (back.open or back.lost):  # two layers that share their weights, or one that is called twice
        again = _joint(sides, wires, source)
        back = again if len(again.open) + len(again.lost) < len(back.open) + len(back.lost) else back
    pairs = tuple(_turned(pair) for pair in back.pairs)
    wanted: dict[str, list[str]] = {}
    for name, places in back.open.items():
        for place in places:
            wanted.setdefault(place, []).append(name)
    tensors = {record.name: record.tensors.values() for record in target.layers}
    unused = {t.name: why for name, why in back.lost.items() for t in tensors[name]}
    unused |= {
        t.name: f"{', '.join(own[:3])} may be its layer" for name, own in back.open.items() for t in tensors[name]
    }
    names = {t.name: full for full, t in source.tensors.items()}
    may = {place.partition("/")[0] for place in wanted}
    lost = {
        names[tensor].rpartition(".")[0] or names[tensor]: "no layer of the target fits"
        for tensor in back.unused
        if tensor in names and not any(names[tensor].startswith(f"{path}." if path else "") for path in may)
    }
    tied = {t: f"the same tensor as {first}" for t, first in source.tied.items()}
    leftover = {**source.leftover, **back.spare, **tied}
    open_ = {place: tuple(own) for place, own in wanted.items()}
    consts = spare_of(target) | {name: why for name, why in back.leftover.items() if why.endswith(UNTRAINED)}
    unused |= {name: why for name, why in target.leftover.items() if name not in consts}
    return Joint(pairs, open_, lost, unused, back.skipped, leftover, spare=consts)


def _turned(joined: Joined) -> Joined:
    """The same pair the other way round, planned anew: a way back may need what the way there did not."""
    here, there = joined.target, joined.source
    planned, problem = None, joined.problem
    if joined.plan is not None or not isinstance(problem, LayoutxError):
        try:
            planned = plan(here.bound, there.bound)
        except LayoutxError as error:
            problem = error.at(joined.record.place)
    own = joined.record.instance
    return replace(joined, source=here, target=there, plan=planned, problem=problem, instance=own)
