"""Which known mistake explains why two models differ: a search for every layer and every gap that differs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any, overload

from layoutx.diagnosis import WholeDiagnosis
from layoutx.errors import LayoutxError, UsageError
from layoutx.plan.plan import Array
from layoutx.validate import validate
from layoutx.validation import Validation
from layoutx.verify.diagnose.between import between, by_chance, missing
from layoutx.verify.diagnose.crossed import crossed, other_order
from layoutx.verify.diagnose.families import LAYER
from layoutx.verify.diagnose.remarks import Remark, of_mode, of_order, of_rest, of_settings
from layoutx.verify.diagnose.search import BUDGET, search
from layoutx.verify.diagnose.suspect import Diagnosis, Suspect
from layoutx.verify.diagnose.trial import Progress
from layoutx.verify.running.inputs_file import inputs_of
from layoutx.verify.running.opened import Runner, opened

TOTAL = 60.0  # seconds for all layers together, unless the caller says otherwise
LEAST = 1.0  # seconds that each layer has in any case


@overload
def diagnose(a: Suspect, *, budget: float = ..., progress: Progress | None = ...) -> Diagnosis: ...


@overload
def diagnose(
    a: Any,
    b: Any = ...,
    inputs: Any = ...,
    *,
    map: str | PathLike[str] | None = ...,
    forms: Mapping[str, str] | None = ...,
    pairs: Mapping[str, str] | None = ...,
    skip: Sequence[str] = ...,
    only: Sequence[str] = ...,
    specs: Sequence[str | PathLike[str]] = ...,
    tolerance: float | None = ...,
    budget: float = ...,
    progress: Progress | None = ...,
) -> WholeDiagnosis: ...


def diagnose(
    a: Any,
    b: Any = None,
    inputs: Any = None,
    *,
    map: str | PathLike[str] | None = None,
    forms: Mapping[str, str] | None = None,
    pairs: Mapping[str, str] | None = None,
    skip: Sequence[str] = (),
    only: Sequence[str] = (),
    specs: Sequence[str | PathLike[str]] = (),
    tolerance: float | None = None,
    budget: float = BUDGET,
    progress: Progress | None = None,
) -> WholeDiagnosis | Diagnosis:
    """Explain why `b` differs from `a`, which is taken to be right.

    Args:
        a, b: two models, as for `validate`; or `a` alone: a `Validation`, or one of its `suspects()`.
        inputs, map, forms, pairs, skip, only, specs, tolerance: as for `validate`.
        budget: seconds for one layer.
        progress: called with (tried, of how many, what is tried) by a search that takes longer than a second.

    Returns:
        An explanation for every layer and gap that differs, or none where no known mistake explains it.

    Raises:
        UsageError: one model alone. LayoutxError: as `validate`.
    """
    if isinstance(a, Suspect):
        return search(a, budget=budget, progress=progress)
    started = time.perf_counter()
    if isinstance(a, Validation):
        return _whole(a, (), budget, progress, started)
    if b is None:
        raise UsageError("one model cannot be diagnosed", do="give the model that is right and the one that is not")
    first, second, inputs = opened(a), opened(b), inputs_of(inputs)
    sides = tuple(
        given if isinstance(given, (str, PathLike)) and not _callable(given) else runner.model
        for given, runner in ((a, first), (b, second))
    )

    def compared(more: Mapping[str, str]) -> Validation:
        both = {**(pairs or {}), **more}
        return validate(
            *(*sides, inputs), map=map, forms=forms, pairs=both, skip=skip, only=only, specs=specs, tolerance=tolerance
        )

    found = _whole(compared({}), (first, second), budget, progress, started)
    return _other_order(found, compared, second, started) or found


def _whole(
    found: Validation, runners: Sequence[Runner], budget: float, progress: Progress | None, started: float
) -> WholeDiagnosis:
    """Every fault of a comparison searched."""
    layers = _searched(found.suspects(), budget, progress)
    remarks = [*_modes(runners, found.fed), *of_order(found.notes), *of_rest(found.lost, found.unused, found.ok)]
    remarks += of_settings([(layer, source, target) for layer, _, source, target in found.bounds])
    gaps = tuple(missing(between(gap), found.lost) for gap in found.gaps)
    if any(remark.mode == "F10" and remark.random for remark in remarks):
        gaps = tuple(by_chance(gap) for gap in gaps)
    return WholeDiagnosis(found, layers, gaps, tuple(remarks), time.perf_counter() - started)


def _other_order(
    found: WholeDiagnosis, compared: Callable[[Mapping[str, str]], Validation], target: Runner, started: float
) -> WholeDiagnosis | None:
    """F38: numbers paired two layers, and the target calls them the other way round: compared by the order of calls."""
    if found.ok or all(gap.known for gap in found.gaps):
        return None
    pairs = other_order(found.validation.bounds, list(target.layers()))
    if not pairs:
        return None
    try:
        again = compared(pairs)
    except LayoutxError:
        return None
    suspects = again.suspects()
    told = crossed(suspects)
    if again.gaps or len(told) < len(suspects):
        return None
    return WholeDiagnosis(again, tuple(told.values()), (), found.remarks, time.perf_counter() - started)


def _callable(model: Any) -> bool:
    """Whether a text names a callable, whose model has been made already and is not made twice."""
    from pathlib import Path

    return isinstance(model, str) and ":" in model and not Path(model).exists()


def _searched(suspects: Sequence[Suspect], budget: float, progress: Progress | None) -> tuple[Diagnosis, ...]:
    """Every layer's search; many layers share the time, since one mistake is often made in all of them."""
    each = budget if len(suspects) * budget <= TOTAL else max(LEAST, TOTAL / len(suspects))
    told = crossed(suspects)
    return tuple(
        told[number] if number in told else search(suspect, LAYER, budget=each, progress=progress)
        for number, suspect in enumerate(suspects)
    )


def _modes(runners: Sequence[Runner], fed: Sequence[Sequence[Array]]) -> Iterator[Remark]:
    """F10: a model that is not at inference as it was given, seen by running it as it is."""
    for runner, inputs, name in zip(runners, fed, ("source", "target"), strict=False):
        try:
            runs = runner.repeat(list(inputs))
        except (LayoutxError, ValueError, TypeError, RuntimeError):  # it takes its inputs in another way
            continue
        training = getattr(runner.model, "training", None)
        if runs is not None and (remark := of_mode(runs, name, training if training is False else None)) is not None:
            yield remark
