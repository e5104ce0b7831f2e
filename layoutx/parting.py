"""Where two models part whose outputs are not the same, or part on larger inputs alone; or that it is rounding."""

from __future__ import annotations

from typing import Any

from layoutx.errors import VerificationError
from layoutx.job.jobs import Options
from layoutx.show.validation_text import certain, reason, time_first
from layoutx.spec.registry import Registry
from layoutx.validate import compared_models, on_larger
from layoutx.validation import Validation
from layoutx.verify.made import LARGER

DIFFERS = "`layoutx diagnose` tries the known mistakes; compare=False (--no-compare) ports without a run"
NEAR = 1e-3  # of the largest output: what may be rounding, and is worth a run in float64


def parting(
    source: Any, target: Any, inputs: Any, options: Options, known: Registry, near: bool
) -> tuple[str, Validation | None]:
    """Where two models part; where they cannot be compared so, what it has to be. And, if in float64 they do not
    part, the comparison that shows it.

    In the models' own precision first, which takes as long as running them once; where all is the same so, or the
    outputs are `near` each other and nothing is known to differ, in float64.
    """
    first = ""
    for first_only in (True, False):
        try:
            found = compared_models(source, target, inputs, options, known, first_only=first_only)
        except Exception:  # whatever comes of it, the outputs differ, and that is what has to be said
            continue
        if found.ok and time_first(found):
            return "", found
        why = reason(found)
        if why and not (near and first_only and not certain(found)):
            return why, None
        if found.ok and {found.source.get("dtype"), found.target.get("dtype")} == {"float64"}:
            return "", found
        first = why
    between = "each layer was proved on its own: what differs lies between them (padding, activation, axes, eps)"
    return first or between, None


def same_on_larger(source: Any, target: Any, options: Options, known: Registry) -> None:
    """Refuse models that plainly part on larger inputs alone.

    Raises:
        VerificationError: they do.
    """
    if (found := on_larger(source, target, options, known)) is not None:
        worst = max(check.largest or 0.0 for check in found.end_to_end)
        where = f"largest difference {worst:.3g} (float64): an activation that one of them alone cuts off, or a clip"
        raise VerificationError(f"the two models {LARGER}", where=where, why=reason(found), do=DIFFERS)
