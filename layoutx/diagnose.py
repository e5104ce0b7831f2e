"""Which known mistake explains why two models differ: a search for every layer and every gap that differs."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any, overload

from layoutx.diagnosis import WholeDiagnosis
from layoutx.errors import LayoutxError, UsageError
from layoutx.mended import Mended, doubted, mended, numbered
from layoutx.plan.plan import Array
from layoutx.progress import Progress, steps, tell
from layoutx.show.progress import reported
from layoutx.spec.bound import BoundForm
from layoutx.spec.registry import registry
from layoutx.validate import validate
from layoutx.validation import Validation
from layoutx.verify.compare.both import UNCALLED
from layoutx.verify.compare.limits import OPEN
from layoutx.verify.diagnose.between import Found, behind, between, by_chance, missing, outward
from layoutx.verify.diagnose.counted import counted, exchanged
from layoutx.verify.diagnose.crossed import Owner, crossed, other_order
from layoutx.verify.diagnose.families import LAYER
from layoutx.verify.diagnose.masks import of_masks, unmasked
from layoutx.verify.diagnose.remarks import Remark, of_folded, of_mode, of_order, of_rest, of_settings
from layoutx.verify.diagnose.runs import from_runs
from layoutx.verify.diagnose.said_in_torch import said_in
from layoutx.verify.diagnose.search import BUDGET, search
from layoutx.verify.diagnose.sequence import time_first, turned_inputs, turned_layers
from layoutx.verify.diagnose.suspect import Diagnosis, Suspect
from layoutx.verify.diagnose.tables import explained, known, unseen
from layoutx.verify.diagnose.waypoints import first_wrong, stepwise
from layoutx.verify.recording import Recording
from layoutx.verify.running.inputs_file import inputs_of
from layoutx.verify.running.opened import Runner, opened
from layoutx.words import listed

TOTAL = 60.0  # seconds for all layers together, unless the caller says otherwise
LATER = 5.0  # seconds for faults between layers that stand behind others
LEAST = 1.0  # seconds that each layer has in any case


@overload
def diagnose(a: Suspect, *, budget: float = ..., progress: bool | Progress | None = ...) -> Diagnosis: ...


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
    ignore_keys: Collection[str] = ...,
    keep_order: bool | Sequence[str] = ...,
    specs: Sequence[str | PathLike[str]] = ...,
    tolerance: float | None = ...,
    values: Mapping[str, Any] | None = ...,
    weights: Any = ...,
    budget: float = ...,
    progress: bool | Progress | None = ...,
) -> WholeDiagnosis: ...


@reported
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
    ignore_keys: Collection[str] = (),
    keep_order: bool | Sequence[str] = False,
    specs: Sequence[str | PathLike[str]] = (),
    tolerance: float | None = None,
    values: Mapping[str, Any] | None = None,
    weights: Any = None,
    budget: float = BUDGET,
    progress: bool | Progress | None = None,
) -> WholeDiagnosis | Diagnosis:
    """Explain why `b` differs from `a`, which is taken to be right.

    Args:
        a, b: two models, as for `validate`; or `a` alone: a `Validation`, or one of its `suspects()`.
        inputs, map, forms, pairs, skip, only, ignore_keys, keep_order, specs, tolerance, values: as for `validate`.
        weights: of a recorded `a`, a file of them or the model: its layers are then searched as those of a live model.
        budget: seconds for one layer.
        progress: True tells it on a terminal; or a function of (done, of how many, what comes now or is tried).

    Returns:
        An explanation for every layer and gap that differs, or none where no known mistake explains it.

    Raises:
        UsageError: one model alone. LayoutxError: as `validate`.
    """
    if isinstance(a, Suspect):
        return search(a, budget=budget, progress=tell)
    started = time.perf_counter()
    if isinstance(a, Validation):
        return _whole(a, (), budget, started)
    if b is None:
        raise UsageError("one model cannot be diagnosed", do="give the model that is right and the one that is not")
    first, second, inputs = opened(a), opened(b), inputs_of(inputs)
    sides = tuple(
        given if isinstance(given, (str, PathLike)) and not _callable(given) else runner.model
        for given, runner in ((a, first), (b, second))
    )

    def compared(more: Mapping[str, str], target: Any = None) -> Validation:
        both = {**(pairs or {}), **more}
        return validate(
            sides[0], sides[1] if target is None else target, inputs, map=map, forms=forms, pairs=both, skip=skip,
            only=only, ignore_keys=ignore_keys, keep_order=keep_order, specs=specs, tolerance=tolerance, values=values,
            weights=weights,
        )  # fmt: skip

    found = compared({})
    crossing = _other_order(found, compared, second)
    more, found = ({}, found) if crossing is None else crossing
    told = _whole(found, (first, second), budget, started)
    told = _loaded(told, numbered(found, second.model, lambda target: compared(more, target)))
    return _tested(told, mended(found, told.layers, second.model, lambda target: compared(more, target)), started)


def _whole(found: Validation, runners: Sequence[Runner], budget: float, started: float) -> WholeDiagnosis:
    """Every fault of a comparison searched."""
    layers = _searched(found.suspects(), found.owners, budget)
    turned = turned_layers(found.bounds)
    order = list(of_order(found.notes if found.runs is None or found.ok else (), turned))
    remarks = [*_modes(runners, found.fed), *order]
    remarks += [*of_masks(found.checks), *of_folded(found.notes)]
    remarks += of_rest(found.lost, found.unused, found.ok)
    remarks += of_settings([(layer, source, target) for layer, _, source, target in found.bounds])
    targets = {layer: target for layer, _, _, target in found.bounds}
    gaps = _gaps(found, targets)
    if order:
        before, gaps = gaps, tuple(turned_inputs(gap, turned) for gap in gaps)
        remarks = [one for one in remarks if gaps == before or one not in order]
    if not all(gap.known for gap in gaps):
        untold = [check for check in found.checks if check.verdict == OPEN]
        gaps = explained(gaps, tuple(unseen(untold, found.owners)), [layer for layer, *_ in found.bounds])
    gaps += tuple(unseen([c for c in found.checks if not c.ok and c.layer not in found.evidence], found.owners))
    gaps = tuple(_uncalled(gap, found) for gap in gaps)
    gaps += _behind(found, gaps) if found.runs is None else _of_runs(found, runners)
    random = [remark.side for remark in remarks if remark.random]
    gaps = tuple(_said(by_chance(gap, random[0]) if random else gap, found.target) for gap in gaps)
    return WholeDiagnosis(found, layers, gaps, tuple(remarks), seconds=time.perf_counter() - started)


def _loaded(told: WholeDiagnosis, tried: Mended | None) -> WholeDiagnosis:
    """The diagnosis with bare parameters in place of the gaps that the source's numbers in them do away with."""
    gone = {gap.spot for gap in tried.gone} if tried is not None else set()
    if tried is None or not gone:
        return told
    kept = [one for one in told.gaps if one.gap.spot not in gone]
    lost = [replace(one, before=one.gap.found.largest) for one in told.gaps if one not in kept]
    left = max((check.largest or 0.0 for check in tried.after.end_to_end), default=0.0)
    checks = [check for check in told.validation.checks if check.layer in tried.layers]
    found = [known(one, lost[0].before, left) for one in unseen(checks, told.validation.owners)]
    return replace(told, gaps=(*kept, *found)) if found and lost else told


def _uncalled(gap: Found, found: Validation) -> Found:
    """The gap with the layer that the source has there, and that the target holds and never calls."""
    idle = [check for check in found.checks if UNCALLED in check.note and f"what {check.layer} gives" in gap.what]
    if not idle:
        return gap
    places = listed(list(dict.fromkeys(check.place for check in idle)))
    what = f"{gap.what}. The target has {places}, and never calls it"
    return replace(gap, what=what, mode="F14", code=f"x = {places}(x)   # {gap.code}")


def _said(gap: Found, target: Mapping[str, str]) -> Found:
    """The fix as the target's framework says it."""
    return replace(gap, code=said_in(target.get("framework", "torch"), gap.code))


def _tested(told: WholeDiagnosis, tried: Mended | None, started: float) -> WholeDiagnosis:
    """The diagnosis with what its repairs did in the target's own run; what only then shows between layers is told."""
    if tried is None:
        return told
    layers = tuple(one if tried.holds or one.suspect.name not in tried.layers else doubted(one) for one in told.layers)
    targets = {layer: target for layer, _, _, target in tried.after.bounds}
    gaps = (*told.gaps, *_gaps(replace(tried.after, gaps=tried.gaps), targets))
    return replace(told, tried=tried, layers=layers, gaps=gaps, seconds=time.perf_counter() - started)


def _gaps(found: Validation, targets: Mapping[str, BoundForm]) -> tuple[Found, ...]:
    """What lies between layers; where several join, step by step, and each such step once."""
    known = registry()
    first = [known.framework(side["framework"]).channels == "first" for side in (found.source, found.target)]
    told: list[Found] = []
    places = set[str]()
    for gap in found.gaps:
        gap = outward(gap, first[0])
        place = first_wrong(gap, (first[0], first[1]))
        if place in places:
            continue  # it spoils another path too
        step = stepwise(gap, (first[0], first[1])) if len(gap.before) > 1 else None
        one = step
        if one is None or not one.known:
            one = between(gap, LEAST) if step is not None else between(gap)
            one = time_first(unmasked(missing(one, found.lost)), targets.get(gap.after))
        if not one.known and (step := step or stepwise(gap, (first[0], first[1]))) is not None:
            one = replace(step, tried=one.tried + step.tried, families=one.families)
        one = counted(exchanged(one, found.fed[0] if found.fed else ()))
        places |= {place} if place and one.known else set()
        told.append(one)
    return tuple(told)


def _of_runs(found: Validation, runners: Sequence[Runner]) -> tuple[Found, ...]:
    """What two runs show without weights; a live target's layers are run on what the source's were given."""
    if found.runs is None or found.ok:
        return ()
    known = registry()
    first = [known.framework(run.framework).channels == "first" for run in found.runs]
    live = len(runners) > 1 and not isinstance(runners[1].model, Recording)
    return tuple(from_runs(*found.runs, found.checks, (first[0], first[1]), runners[1].layer if live else None))


def _behind(found: Validation, told: Sequence[Found]) -> tuple[Found, ...]:
    """Faults behind the first one on each path, each in its own right, for as long as there is time."""
    turned = {gap.gap.after for gap in told if gap.mode == "F36"}  # what such a layer gives is turned too
    first = registry().framework(found.source["framework"]).channels == "first"
    end = time.perf_counter() + LATER
    more = []
    for gap in found.behind():
        if time.perf_counter() > end:
            break
        if not turned & set(gap.before) and (fault := behind(outward(gap, first))) is not None:
            more.append(fault)
    return tuple(more)


def _other_order(
    found: Validation, compared: Callable[[Mapping[str, str]], Validation], target: Runner
) -> tuple[Mapping[str, str], Validation] | None:
    """F38: numbers paired two layers, and the target calls them the other way round: compared by the order of calls."""
    if found.ok:
        return None
    pairs = other_order(found.bounds, found.called or list(target.layers()))
    if not pairs:
        return None
    try:
        again = compared(pairs)
    except LayoutxError:
        return None
    suspects = again.suspects()
    told = crossed(suspects, again.owners)
    if not any(suspects[number].name in pairs for number in told):
        return None
    if again.gaps and len(again.gaps) >= len(found.gaps):
        return None  # the calls stand in another order for a reason of their own
    return (pairs, again) if len(told) == len(suspects) or len(again.gaps) < len(found.gaps) else None


def _callable(model: Any) -> bool:
    """Whether a text names a callable, whose model has been made already and is not made twice."""
    from pathlib import Path

    return isinstance(model, str) and ":" in model and not Path(model).exists()


def _searched(suspects: Sequence[Suspect], owners: Mapping[str, Owner], budget: float) -> tuple[Diagnosis, ...]:
    """Every layer's search; many layers share the time, since one mistake is often made in all of them."""
    each = budget if len(suspects) * budget <= TOTAL else max(LEAST, TOTAL / len(suspects))
    told = crossed(suspects, owners)
    several = steps(suspects, lambda one: f"trying the known mistakes on {one.name}")
    return tuple(
        told[number] if number in told else search(suspect, LAYER, budget=each, progress=tell)
        for number, suspect in enumerate(several)
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
