"""What a conversion says when it is done: every layer, every tensor, how exact, how proved, and what must travel besides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from layoutx.empty import NOTHING
from layoutx.jobs import Job, LayerJob
from layoutx.lang.parse import parse_dims
from layoutx.lang.show import show, show_dims
from layoutx.model.record import Refinement
from layoutx.model.settings import carry
from layoutx.naming import dim_names
from layoutx.plan.plan import Plan
from layoutx.plan.run import Result
from layoutx.plan.steps import Add, Copy, Drop, Exactness, Fill
from layoutx.plan.words import order_change
from layoutx.run import Moved
from layoutx.spec.bound import BoundForm, BoundTensor
from layoutx.spec.registry import Registry
from layoutx.verify.models import EndToEnd
from layoutx.verify.models import EndToEnd
from layoutx.verify.proof import Proof
from layoutx.version import VERSION

UNPROVED = Proof("not computed")


@dataclass(frozen=True, slots=True)
class TensorLine:
    """One target tensor: where its numbers come from and how exactly.

    Attributes:
        name, key: the form's name and the name in the output.
        sources: source tensor -> its dimensions by name, `input output`.
        dims: the target's dimensions by name.
        order: enumerated axes whose order changes, `gate i f c o → i o f c`; "" where none does.
        exactness: in the light of the values.
        fill: the value of a tensor that the source does not have; None for all others.
    """

    name: str
    key: str
    sources: Mapping[str, str]
    dims: str
    order: str
    exactness: str
    fill: float | None = None

    @property
    def text(self) -> str:
        """`kernel kh kw in out → out in kh kw`."""
        if self.fill is not None:
            return f"{self.name} = {self.fill:g}"
        here = " + ".join(f"{name} {dims}".strip() for name, dims in self.sources.items())
        moved = list(self.sources.values()) != [self.dims]
        change = f" → {self.dims}" if moved and self.dims else ""
        return f"{here}{change}" + (f", {self.order}" if self.order else "")


@dataclass(frozen=True, slots=True)
class LayerLine:
    """One converted layer.

    Attributes:
        source, target: forms ("keras.Dense"); source_class: the class as the file says it.
        digest: of the kind's spec.
        reason: how its place in the target was found; "" where the target takes the source's names.
        settings: what the target layer must be told, a line each.
        notes: what else there is to know, a sentence each.
        witness: "source"/"target" -> "witnessed keras 3.15.1" or "declared".
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
    notes: tuple[str, ...] = ()
    witness: Mapping[str, str] = NOTHING


@dataclass(frozen=True)
class Report:
    """The result of a conversion; `print(report)` shows it, `to_dict()` is the same as JSON.

    Attributes:
        source: file, format, framework, version, tensors, bytes of what was read.
        target: the framework; output: the file, "" where none was written.
        layers: in model order. weightless: layers without tensors, name -> class.
        skipped: layer -> why it was left out. leftover: source tensor -> why no layer owns it.
        tensors_used, tensors_total: of the source, without the leftover ones. keys_written, keys_total: of the target.
        exactness: of the whole. seconds: how long it took; None where nobody measured.
        end_to_end: how the two whole models compare; None where only files were at hand.
        end_to_end: how the outputs of two live models compare; None where files were converted.
    """

    source: Mapping[str, Any]
    target: str
    output: str
    layers: tuple[LayerLine, ...]
    weightless: Mapping[str, str] = NOTHING
    skipped: Mapping[str, str] = NOTHING
    leftover: Mapping[str, str] = NOTHING
    tied: Mapping[str, str] = NOTHING
    tensors_used: int = 0
    tensors_total: int = 0
    keys_written: int = 0
    keys_total: int = 0
    exactness: str = "moves"
    seconds: float | None = field(default=None, compare=False)
    end_to_end: EndToEnd | None = None
    end_to_end: EndToEnd | None = None

    @property
    def largest(self) -> float | None:
        """The largest difference of any layer's outputs; None where nothing was computed."""
        return max((x.proof.largest for x in self.layers if x.proof.largest is not None), default=None)

    @property
    def round_trip(self) -> str:
        """"bit-exact" where every layer's way back is; else which are not."""
        found = {x.name: x.proof.round_trip for x in self.layers if not x.proof.round_trip.startswith("bit-exact")}
        return "; ".join(f"{name}: {why}" for name, why in found.items()) or "bit-exact"

    def certificate(self, extra: Mapping[str, Any] = NOTHING) -> dict[str, Any]:
        """What the output says about itself; the same conversion gives the same certificate.

        Args:
            extra: more about the source: its sha256.
        """
        return {
            "layoutx": VERSION,
            "source": {**{k: self.source.get(k, "") for k in ("file", "framework", "version", "format")}, **extra},
            "target": self.target,
            "layers": [_certified(layer) for layer in self.layers],
            "skipped": dict(self.skipped),
            "overall": {"exactness": self.exactness, "round_trip": self.round_trip, "largest": self.largest},
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON."""
        from layoutx.report_text import as_dict

        return as_dict(self)

    def text(self, width: int = 99, color: bool = False) -> str:
        """The report for a terminal, at most `width` columns."""
        from layoutx.report_text import as_text

        return as_text(self, width, color)

    def __str__(self) -> str:
        return self.text()


def report_of(
    job: Job, moved: Moved, known: Registry, *, source: Mapping[str, Any], output: str, target: str
) -> Report:
    """The report of a job that was carried out.

    Args:
        known: the registry that the job was planned with.
        source: what is known of the source: file, format, framework, version, tensors, bytes.
        output: the file, "" where none is written.
        target: the framework.
    """
    layers = tuple(_layer(layer, moved, known) for layer in job.layers)
    used = {tensor.name for layer in job.layers for tensor in layer.sources.values()}
    written = {*moved.arrays, *(name for name, kept in job.tied.items() if kept in moved.arrays)}
    worst = max((r.exactness(x.plan) for x, r in _results(job, moved)), default=Exactness.MOVES)
    return Report(
        source=dict(source),
        target=target,
        output=output,
        layers=layers,
        weightless={r.name: r.class_name for r in job.weightless},
        skipped=dict(job.skipped),
        leftover=dict(job.leftover),
        tied=dict(job.tied),
        tensors_used=len(used),
        tensors_total=max(int(source.get("tensors", 0)) - len(job.leftover), len(used)),
        keys_written=len(written),
        keys_total=len({*job.order, *job.tied}),
        exactness=str(worst),
    )


def _results(job: Job, moved: Moved) -> list[tuple[LayerJob, Result]]:
    return [(x, moved.results[x.record.name]) for x in job.layers if x.record.name in moved.results]


def _layer(layer: LayerJob, moved: Moved, known: Registry) -> LayerLine:
    plan, name = layer.plan, layer.record.name
    result = moved.results.get(name) or Result({})
    return LayerLine(
        name=name,
        source_class=layer.record.class_name,
        source=plan.source.form.name,
        target=plan.target.form.name,
        digest=plan.source.kind.digest,
        tensors=tuple(_tensor(plan, t, layer.targets.get(t.name, t.name), result) for t in plan.target.tensors),
        exactness=str(result.exactness(plan)),
        proof=moved.proofs.get(name, UNPROVED),
        reason=layer.reason,
        settings=tuple(carry(plan.source, plan.target)),
        notes=tuple(_notes(layer, result, moved.proofs.get(name, UNPROVED))),
        witness={"source": witness_of(plan.source.form.name), "target": witness_of(plan.target.form.name)},
    )


def witness_of(form: str) -> str:
    """Whether outputs of the real framework stand behind a form: "witnessed keras 3.15.1", "declared"."""
    from importlib import import_module

    try:
        return str(import_module("layoutx.verify.witnesses").witnessed(form))
    except ModuleNotFoundError:
        return "declared"


def _tensor(plan: Plan, tensor: BoundTensor, key: str, result: Result) -> TensorLine:
    steps = [s for s in plan.steps if getattr(s, "target", None) == tensor.name]
    names = [s.source for s in steps if isinstance(s, Copy)]
    names += [term.source for s in steps if isinstance(s, Add) for term in s.terms]
    names = list(dict.fromkeys(names))
    fills = [s.value for s in steps if isinstance(s, Fill)]
    return TensorLine(
        name=tensor.name,
        key=key,
        sources={name: " ".join(dim_names(plan.source, plan.source.tensor(name))) for name in names},
        dims=" ".join(dim_names(plan.target, tensor)),
        order=" ".join(order_change(plan, tensor, names).split()),
        exactness=str(result.exactness(plan, tensor.name)),
        fill=fills[0] if fills and not names else None,
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
    notes += [f"{name} was narrowed from {a} to {b}" for name, (a, b) in result.narrowed.items()]
    return notes + ([proof.note] if proof.note else [])


def _fills(plan: Plan) -> dict[str, str]:
    """What is set without a source: whole tensors by their names, pieces by their roles -> the value."""
    found: dict[str, str] = {}
    for step in plan.steps:
        if isinstance(step, Fill):
            own = [s for s in plan.steps if getattr(s, "target", None) == step.target]
            whole = all(isinstance(s, Fill) for s in own)
            found[step.target if whole else f"{', '.join(step.atoms)} of {step.target}"] = f"{step.value:g}"
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


def _certified(layer: LayerLine) -> dict[str, Any]:
    proof = layer.proof
    forward = {"method": proof.method, "largest": proof.largest, "scale": proof.scale, "dtype": proof.dtype}
    return {
        "name": layer.name,
        "source": layer.source,
        "target": layer.target,
        "spec": layer.digest,
        "exactness": layer.exactness,
        "tensors": {t.key: t.exactness for t in layer.tensors},
        "round_trip": proof.round_trip,
        "forward": forward if proof.method else {"note": proof.note},
        "witness": dict(layer.witness),
        "settings": list(layer.settings),
    }
