"""What the comparison of two models found: one check a layer, the gaps between them, the outputs, and what was left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, field
from typing import Any

from layoutx.empty import NOTHING
from layoutx.frozen import frozen
from layoutx.plan.plan import Array
from layoutx.spec.bound import BoundForm
from layoutx.verify.compare.limits import FAIL, INACCURATE, UNREACHED
from layoutx.verify.compare.pairs import Check, Gap
from layoutx.verify.diagnose.crossed import Owner
from layoutx.verify.diagnose.suspect import Suspect
from layoutx.verify.recording import Recording


@frozen
class Validation:
    """Two models compared; `print(validation)` shows it, `to_dict()` is the same as JSON.

    Attributes:
        source, target: what each model is: name, framework, version, dtype.
        checks: one for each call of each paired layer, in the source's order; each direction of a recurrent layer.
        gaps: faults between layers, the first that is met on each path; behind: makes the places after it.
        end_to_end: the outputs of the two models; () where the target does not run.
        layers: layers of the source with weights; compared: how many of them were.
        lost: layers of the source without a counterpart -> why. unused: tensors of the target that no layer has -> why.
        order: layer or `before -> after` names in the source's order of calls, for `first`.
        notes: how the inputs were turned, what could not be run.
        fed: what the source and the target were given, each in its own axis order.
        bounds: (layer, place, source, target) of every pair. evidence: what an explanation of each fault needs.
        runs: both runs, where one was only recorded.
        owners: source layer -> its numbers and the place of its counterpart, of every pair.
        called: places of the target in the order of its own calls.
        unsaid: source layers whose form was told by names and shapes: what settings they have is not known.
    """

    source: Mapping[str, str]
    target: Mapping[str, str]
    checks: tuple[Check, ...]
    gaps: tuple[Gap, ...] = ()
    behind: Callable[[], Iterator[Gap]] = field(default=lambda: iter(()), compare=False, repr=False, kw_only=True)
    end_to_end: tuple[Check, ...] = ()
    layers: int = 0
    compared: int = 0
    lost: Mapping[str, str] = NOTHING
    unused: Mapping[str, str] = NOTHING
    notes: tuple[str, ...] = ()
    seconds: float | None = field(default=None, compare=False)
    fed: tuple[tuple[Array, ...], ...] = field(default=(), compare=False, repr=False)
    bounds: tuple[tuple[str, str, BoundForm, BoundForm], ...] = field(default=(), compare=False, repr=False)
    evidence: Mapping[str, Callable[[], Suspect]] = field(default_factory=dict, compare=False, repr=False)
    runs: tuple[Recording, Recording] | None = field(default=None, compare=False, repr=False)
    owners: Mapping[str, Owner] = field(default_factory=dict, compare=False, repr=False)
    called: tuple[str, ...] = field(default=(), compare=False, repr=False)
    unsaid: frozenset[str] = field(default=frozenset(), compare=False, repr=False)

    @property
    def ok(self) -> bool:
        """Whether every layer that was compared, all that lies between them, and the outputs are the same."""
        faults = [*(c for c in (*self.checks, *self.end_to_end) if not c.ok), *self.gaps]
        return bool(self.end_to_end) and not faults  # without the outputs nothing covers what lies between the layers

    @property
    def first(self) -> Check | Gap | None:
        """The first that differs, in the source's order: a layer, what lies between two, or the outputs."""
        for check in self.checks:
            gap = next((g for g in self.gaps if g.after == _whole(check) and g.call == check.call), None)
            if gap is not None:
                return gap
            if check.verdict in (INACCURATE, FAIL, UNREACHED):
                return check
        last = next((gap for gap in self.gaps if not gap.after), None)
        return last or next((check for check in self.end_to_end if not check.ok), None)

    @property
    def between(self) -> Gap | None:
        """The first fault that lies between layers."""
        return self.gaps[0] if self.gaps else None

    def suspects(self) -> list[Suspect]:
        """Every layer that differs, with all that an explanation may change; its weights are read now."""
        return [made() for made in dict.fromkeys(self.evidence.values())]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the arrays, as JSON."""
        first = self.first
        return {
            "ok": self.ok,
            "source": dict(self.source),
            "target": dict(self.target),
            "first": None if first is None else first.layer if isinstance(first, Check) else first.place,
            "layers": {"compared": self.compared, "of": self.layers},
            "checks": [_check_dict(check) for check in self.checks],
            "between": [_gap_dict(gap) for gap in self.gaps],
            "end_to_end": [_check_dict(check) for check in self.end_to_end],
            "lost": dict(self.lost),
            "unused": dict(self.unused),
            "notes": list(self.notes),
            "seconds": self.seconds,
        }

    def text(self, width: int = 99, color: bool = False) -> str:
        """The comparison for a terminal, at most `width` columns."""
        from layoutx.show.validation_text import as_text

        return as_text(self, width, color)

    def __str__(self) -> str:
        return self.text()


def _whole(check: Check) -> str:
    """A check's layer without the direction."""
    name, _, way = check.layer.rpartition(".")
    return name if way in ("forward", "backward") and name else check.layer


def _check_dict(check: Check) -> dict[str, Any]:
    found = asdict(check)
    for key in ("largest", "relative"):
        found[key] = _number(found[key])
    return found


def _number(value: float | None) -> float | str | None:
    """JSON has no infinity."""
    return str(value) if value is not None and (value != value or value in (float("inf"), float("-inf"))) else value


def _gap_dict(gap: Gap) -> dict[str, Any]:
    return {
        "before": list(gap.before),
        "after": gap.after,
        "call": gap.call,
        "places": list(gap.places),
        "verdict": gap.verdict,
        "largest": _number(gap.found.largest),
        "relative": _number(gap.found.relative),
        "where": gap.where,
        "hint": gap.hint,
        "source": list(gap.passed),
        "target": list(gap.there),
    }
