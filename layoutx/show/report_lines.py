"""One line of a report for each layer and each tensor: where the numbers went, how exactly, and what else to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from layoutx.empty import NOTHING
from layoutx.frozen import frozen
from layoutx.job.jobs import LayerJob
from layoutx.job.run import Moved
from layoutx.lang.parse import parse_dims
from layoutx.lang.show import show, show_dims
from layoutx.model.assumed import assumed_text, told_by
from layoutx.model.bare import SAID
from layoutx.model.constructor import constructor
from layoutx.model.functions import functions
from layoutx.model.other_axis import other_axis
from layoutx.model.record import Refinement
from layoutx.model.settings import carry
from layoutx.plan.naming import dim_names
from layoutx.plan.plan import Plan
from layoutx.plan.run import Result
from layoutx.plan.steps import Add, Copy, Drop, Fill
from layoutx.plan.words import order_change
from layoutx.spec.bound import BoundForm, BoundTensor
from layoutx.verify.outcome import Proof

UNPROVED = Proof("not computed")


@frozen
class TensorLine:
    """One target tensor: where its numbers come from and how exactly.

    Attributes:
        name, key: the form's name and the name in the output.
        sources: source tensor -> its dimensions by name, `input output`.
        dims: the target's dimensions by name.
        order: enumerated axes whose order changes, `gate i f c o → i o f c`; "" where none does.
        exactness: in the light of the values.
        fill: the value of a tensor that the source does not have; None for all others.
        added: the sources that are added up, those among them that are taken off in `minus`; others lie end to end.
    """

    name: str
    key: str
    sources: Mapping[str, str]
    dims: str
    order: str
    exactness: str
    fill: float | None = None
    added: tuple[str, ...] = ()
    minus: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """`kernel kh kw in out → out in kh kw`."""
        if self.fill is not None:
            return f"{self.name} = {self.fill:g}"
        here = ""
        for name, dims in self.sources.items():
            sign = "- " if name in self.minus else "+ " if here else ""
            here = f"{here} {sign}{name} {dims}".strip()
        moved = list(self.sources.values()) != [self.dims]
        change = f" → {self.dims}" if moved and self.dims else ""
        return f"{here}{change}" + (f", {self.order}" if self.order else "")


@frozen
class LayerLine:
    """One converted layer.

    Attributes:
        source, target: forms ("keras.Dense"); source_class: the class as the file says it.
        digest: of the kind's spec.
        reason: how its place in the target was found; "" where the target takes the source's names.
        settings: what the target layer must be told, a line each; settled: whether the source tells its own.
        notes: what else there is to know, a sentence each.
        witness: "source"/"target" -> "witnessed keras 3.15.1" or "declared".
        plan: the moves, for pictures of them.
    """

    name: str
    source_class: str
    source: str
    target: str
    digest: str
    tensors: tuple[TensorLine, ...]
    exactness: str
    proof: Proof
    reason: str = ""
    settings: tuple[str, ...] = ()
    settled: bool = True
    notes: tuple[str, ...] = ()
    witness: Mapping[str, str] = NOTHING
    plan: Plan | None = field(default=None, compare=False, repr=False)


def layer_line(layer: LayerJob, moved: Moved, settled: bool = True) -> LayerLine:
    """The line of one layer that was carried out.

    Args:
        settled: the source tells the layer's settings; where it holds names and numbers only, there are none to carry.
    """
    plan, name = layer.plan, layer.record.name
    result = moved.results.get(name) or Result({})
    return LayerLine(
        name=name,
        source_class=_class(layer),
        source=plan.source.form.name,
        target=plan.target.form.name,
        digest=plan.source.kind.digest,
        tensors=tuple(_tensor(plan, t, layer.targets.get(t.name, t.name), result) for t in plan.target.tensors),
        exactness=str(result.exactness(plan)),
        proof=moved.proofs.get(name, UNPROVED),
        reason=layer.reason,
        settings=tuple(_settings(layer)) if settled else (),
        settled=settled,
        notes=(*_notes(layer, result, moved.proofs.get(name, UNPROVED)), *_assumed(layer, settled)),
        witness={"source": witness_of(plan.source.form.name), "target": witness_of(plan.target.form.name)},
        plan=plan,
    )


def _settings(layer: LayerJob) -> list[str]:
    """What the target must be told; how to build a module that torch does not have, where that is yet to be done."""
    plan = layer.plan
    lines = [*other_axis(layer.record.config, plan.source, plan.target), *functions(plan.target, layer.known)]
    lines += carry(plan.source, plan.target)
    if not plan.target.form.by_class or layer.reason:
        return lines
    rest = [line for line in lines if line.partition("=")[0] not in plan.target.form.config]
    return [f"build it as {constructor(plan.source, plan.target)}", *rest]


def _class(layer: LayerJob) -> str:
    """The source's class: as its file says it, or its form's where the record describes the target."""
    form = layer.plan.source.form
    return layer.record.class_name if layer.record.form == form.name else form.class_name


def witness_of(form: str) -> str:
    """Whether outputs of the real framework stand behind a form: "witnessed keras 3.15.1", "declared"."""
    from layoutx.verify.witnesses import witnessed

    return witnessed(form)


def _tensor(plan: Plan, tensor: BoundTensor, key: str, result: Result) -> TensorLine:
    steps = [s for s in plan.steps if getattr(s, "target", None) == tensor.name]
    names = [s.source for s in steps if isinstance(s, Copy)]
    names += [term.source for s in steps if isinstance(s, Add) for term in s.terms]
    names = list(dict.fromkeys(names))
    fills = [s.value for s in steps if isinstance(s, Fill)]
    terms = [term for s in steps if isinstance(s, Add) and len(s.terms) > 1 for term in s.terms]
    return TensorLine(
        name=tensor.name,
        key=key,
        sources={name: " ".join(dim_names(plan.source, plan.source.tensor(name))) for name in names},
        dims=" ".join(dim_names(plan.target, tensor)),
        order=" ".join(order_change(plan, tensor, names).split()),
        exactness=str(result.exactness(plan, tensor.name)),
        fill=fills[0] if fills and not names else None,
        added=tuple(dict.fromkeys(term.source for term in terms)),
        minus=tuple(dict.fromkeys(term.source for term in terms if term.negate)),
    )


def _notes(layer: LayerJob, result: Result, proof: Proof) -> list[str]:
    plan = layer.plan
    notes = [layer.record.note] if layer.record.note else []
    notes += [refined for axis, r in layer.record.refine.items() if (refined := _refined(axis, r, layer))]
    for name, values in _fills(plan).items():
        notes.append(f"{name} does not exist in {plan.source.form.name}: set to {values}")
    notes += [f"{s.source} is left out: {s.reason}" for s in plan.steps if isinstance(s, Drop)]
    notes += result.guards
    notes += [f"{name} is a sum of stored numbers: rounded by at most {e:.2g}" for name, e in result.rounded.items()]
    notes += dict.fromkeys(result.derived.values())
    notes += [f"{name} was narrowed from {a} to {b}" for name, (a, b) in result.narrowed.items()]
    notes += [f"{name}: {text}" for name, text in result.lost.items()]
    return notes + ([proof.note] if proof.note else [])


def _assumed(layer: LayerJob, settled: bool) -> list[str]:
    """Every option of the source's layer that nobody told, by name and with the value that was taken."""
    record, source = layer.record, layer.plan.source
    if settled and not record.note.startswith(SAID):
        return []
    own = told_by(record.config) if record.form == source.form.name else set()
    text = assumed_text(source, {*own, *layer.told}, record.note)
    return [text] if text else []


def _fills(plan: Plan) -> dict[str, str]:
    """What is set without a source: whole tensors by their names, pieces by their roles -> the value."""
    found: dict[str, str] = {}
    for step in plan.steps:
        if isinstance(step, Fill):
            own = [s for s in plan.steps if getattr(s, "target", None) == step.target]
            whole = all(isinstance(s, Fill) for s in own)
            atoms = step.atoms if len(step.atoms) < 5 else dict.fromkeys(atom.partition(".")[0] for atom in step.atoms)
            found[step.target if whole else f"{', '.join(atoms)} of {step.target}"] = f"{step.value:g}"
    return found


def _refined(axis: str, found: Refinement, layer: LayerJob) -> str:
    """Where an axis comes from, and whether its rows change places."""
    here = _order_in(layer.plan.source, found)
    there = _order_in(layer.plan.target, found)
    if not here or not there or found.last == found.first:
        return ""
    subject = "its inputs come" if axis in ("input", "channel", "in") else f"its {axis} comes"
    if here == there:
        return f"{subject} from {found.why}: {_bare(here)}, order kept"
    return f"{subject} from {found.why}: rows {_bare(here)} reordered to {_bare(there)}"


def _order_in(bound: BoundForm, found: Refinement) -> str:
    """Which of the two orders of an axis stands in a form's layouts; "" where neither does."""
    texts = [show(t.layout) for t in bound.tensors]
    for order in (found.last, found.first):
        canonical = show_dims(parse_dims(order))
        if any(canonical in text for text in texts):
            return canonical
    return ""


def _bare(dims: str) -> str:
    whole = dims.startswith("(") and dims.endswith(")") and dims.count("(") == 1
    return dims[1:-1] if whole else dims
