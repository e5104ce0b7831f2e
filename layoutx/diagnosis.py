"""Why two models differ: an explanation for every layer and every gap that differs, and what was tried in vain."""

from __future__ import annotations

from typing import Any

from layoutx.frozen import frozen
from layoutx.mended import Mended
from layoutx.validation import Validation
from layoutx.verify.diagnose.between import Found
from layoutx.verify.diagnose.remarks import Remark
from layoutx.verify.diagnose.suspect import Diagnosis


@frozen
class WholeDiagnosis:
    """What explains the difference of two models; `print(diagnosis)` shows it, `to_dict()` is the same as JSON.

    Attributes:
        validation: the comparison that it explains.
        layers: one for each layer that differs in its own right, in the source's order.
        gaps: one for each fault between layers, and for each tensor of wrong numbers that no run shows.
        remarks: what a run at inference does not show.
        tried: the comparison with the repairs of the layers' numbers written into the target; None: not tried.
        seconds: spent on explanations.
    """

    validation: Validation
    layers: tuple[Diagnosis, ...] = ()
    gaps: tuple[Found, ...] = ()
    remarks: tuple[Remark, ...] = ()
    tried: Mended | None = None
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether there is nothing to explain."""
        return self.validation.ok and not any(remark.wrong for remark in self.remarks)

    @property
    def explained(self) -> bool:
        """Whether everything that differs has an explanation."""
        found = [*(bool(d.explanations) for d in self.layers), *(gap.known for gap in self.gaps)]
        if self.tried is not None and not self.tried.holds and not self.tried.gaps:
            return False  # what was to repair it does not
        return all(found) and (bool(found) or self.ok)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the arrays, as JSON."""
        return {
            "ok": self.ok,
            "explained": self.explained,
            "layers": [_layer(found) for found in self.layers],
            "between": [_gap(found) for found in self.gaps],
            "tried": None if self.tried is None else _tried(self.tried),
            "remarks": [
                {"mode": r.mode, "what": r.what, "do": r.do, "wrong": r.wrong, "training": r.training}
                for r in self.remarks
            ],
            "validation": self.validation.to_dict(),
            "seconds": self.seconds,
        }

    def text(self, width: int = 99, color: bool = False) -> str:
        """The diagnosis for a terminal, at most `width` columns."""
        from layoutx.show.diagnosis_text import as_text

        return as_text(self, width, color)

    def __str__(self) -> str:
        return self.text()


def _layer(found: Diagnosis) -> dict[str, Any]:
    return {
        "layer": found.suspect.name,
        "place": found.suspect.place,
        "form": found.suspect.target.form.name,
        "tried": found.tried,
        "families": dict(found.families),
        "next_best": _number(found.next_best),
        "note": found.note,
        "explanations": [
            {
                "edits": [
                    {"mode": e.mode, "family": e.family, "what": e.what, "option": e.option, "code": e.code}
                    for e in one.edits
                ],
                "before": _number(one.before),
                "after": _number(one.after),
                "certain": one.certain,
                "rivals": list(one.rivals),
                "tried": one.tried,
            }
            for one in found.explanations
        ],
    }


def _gap(found: Found) -> dict[str, Any]:
    return {
        "before": list(found.gap.before),
        "after": found.gap.after,
        "layer": found.layer,
        "mode": found.mode,
        "what": found.what,
        "code": found.code,
        "option": found.option,
        "difference": {"before": _number(found.before), "after": _number(found.after)},
        "rivals": list(found.rivals),
        "tried": found.tried,
        "families": list(found.families),
    }


def _tried(found: Mended) -> dict[str, Any]:
    left = found.after.end_to_end
    return {
        "layers": list(found.layers),
        "ok": found.ok,
        "holds": found.holds,
        "largest": _number(max((check.largest or 0.0 for check in left), default=float("nan"))),
    }


def _number(value: float) -> float | None:
    """JSON has neither NaN nor infinity."""
    return value if value == value and abs(value) != float("inf") else None
