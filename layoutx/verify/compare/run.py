"""Both models run on the same inputs, under the arrangement of axes and the lengths that they take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from layoutx.errors import LayoutxError, UsageError
from layoutx.lang.tree import Axis
from layoutx.plan.plan import Array
from layoutx.progress import tell
from layoutx.verify.ahead import Ahead
from layoutx.verify.compare import flow
from layoutx.verify.compare.again import renumbered
from layoutx.verify.compare.fed import fed_alike
from layoutx.verify.compare.inputs import arranged, as_given, by_name, fewer, for_other, inputs_for
from layoutx.verify.compare.limits import OK, ROUNDED_WEIGHTS
from layoutx.verify.compare.links import Runs
from layoutx.verify.compare.masked import counting, masks_of
from layoutx.verify.compare.pairs import Couple, in_float32
from layoutx.verify.compare.rounded import computed_in
from layoutx.verify.compare.stacks import stacks_of
from layoutx.verify.compare.states import RECURRENT
from layoutx.verify.outputs import in_both
from layoutx.verify.running.opened import Runner


def run(
    first: Runner,
    second: Runner,
    couples: Sequence[Couple],
    inputs: Any,
    channels: tuple[bool, bool],
    before: Mapping[str, tuple[str, ...]],
    tolerance: float,
    first_only: bool,
    far: float,
    instead: Callable[[Sequence[Array], bool], Ahead],
) -> tuple[Runs, list[str]]:
    """Both runs, under the arrangement of the inputs' axes in which the models agree best; notes.

    Made inputs are made once more, long, where a model does not run on them: its windows leave nothing of short ones.

    Raises:
        UsageError: there are no inputs, or the source does not run on them.
    """
    short, swapped = inputs_for(first, second, inputs, far)

    def tried(given: Any) -> tuple[Runs, list[str]]:
        given = fewer(given) if first_only else given
        return _run(first, second, couples, given, swapped, inputs, channels, before, tolerance, first_only, instead)

    if inputs is not None:
        return tried(short)
    long, _ = inputs_for(first, second, None, far, long=True)
    shapes = [[tuple(array.shape) for array in made] for made in (short, long)]
    found: tuple[Runs, list[str]] | None = None
    failed: LayoutxError | None = None
    for made in (short, long) if shapes[0] != shapes[1] else (short,):
        try:
            runs, notes = tried(made)
        except LayoutxError as error:
            failed = failed or error
            continue
        if runs.target is not None:
            more = [f"inputs: of {words(shapes[1])}, since the models do not run on {words(shapes[0])}"]
            return runs, (more if made is long else []) + notes
        found = found or (runs, notes)
    if found is not None:
        return found
    assert failed is not None
    raise failed.at(f"random inputs of {words(shapes[0])}, made up for it")


def _run(
    first: Runner,
    second: Runner,
    couples: Sequence[Couple],
    given: Any,
    swapped: bool,
    inputs: Any,
    channels: tuple[bool, bool],
    before: Mapping[str, tuple[str, ...]],
    tolerance: float,
    first_only: bool,
    instead: Callable[[Sequence[Array], bool], Ahead],
) -> tuple[Runs, list[str]]:
    """Both on these inputs, those of the second if `swapped`; `inputs`: what the user gave, None for nothing."""
    one, other = (second, first) if swapped else (first, second)
    tell(0, 0, f"running the {'target' if swapped else 'source'} ({one.framework})")
    base = one.record(given, not first_only)
    stacks = (stacks_of([couple.source for couple in couples]), stacks_of([couple.target for couple in couples]))
    alone = Runs(base, None, second.layer, before, tolerance, _loose(couples), *stacks)
    other_inputs = instead(base.inputs, swapped)

    def ran(names: Sequence[str], arrays: Sequence[Array]) -> Runs | str:
        """Both runs, the other one on these inputs; why it does not run on them."""
        tell(0, 0, f"running the {'source' if swapped else 'target'} ({other.framework})")
        try:
            found = other.record(as_given(other_inputs.turned(arrays), names), not first_only)
        except LayoutxError as error:
            return error.why or error.what
        source, target = (found, base) if swapped else (base, found)
        masks = masks_of(source, base, one.model)
        return replace(alone, source=source, target=renumbered(couples, source, target), masks=masks)

    places, less = for_other(one, other, base.inputs)
    plain, habits = [other_inputs.run(base.inputs)[i] for i in places], channels[::-1] if swapped else channels
    refused = ""
    for names in dict.fromkeys((by_name(one, other, inputs), ())):
        ways = arranged(plain, *habits, _time_first(couples), mixed=inputs is None)
        best, why = _best(((ran(names, arrays), note) for arrays, note in ways), couples)
        if best is not None:
            runs, note = best
            notes = [f"inputs: {note}" if note else "", f"inputs: {less}" if less else "", other_inputs.words]
            return runs, [text for text in (*notes, *_about(runs)) if text]
        refused = refused or why
    if swapped:
        raise UsageError("the source does not run on inputs of the target's shapes", why=refused, do="give the inputs")
    return alone, [f"the target does not run on these inputs: {refused}"]


def words(shapes: Sequence[tuple[int, ...]]) -> str:
    """`3×7×4, 3×11` of a model with two inputs."""
    return ", ".join("×".join(map(str, shape)) for shape in shapes)


def _loose(couples: Sequence[Couple]) -> float:
    """The limit of what layers hand on where their weights were rounded; 0: the usual one."""
    rounded = any(couple.rounds or in_float32(couple) or computed_in(couple) for couple in couples)
    return ROUNDED_WEIGHTS if rounded else 0.0


def _best(tries: Iterable[tuple[Runs | str, str]], couples: Sequence[Couple]) -> tuple[tuple[Runs, str] | None, str]:
    """The first runs whose outputs agree, else those in which most layers are given the same; the first refusal.

    A score costs as much as a run: where one arrangement alone is taken, nobody asks for it.
    """
    best: tuple[Runs, str] | None = None
    score, refused = 0.0, ""
    for runs, note in tries:
        if isinstance(runs, str):
            refused = refused or runs
        elif _agree(runs):
            return (runs, note), refused
        elif best is None:
            best = runs, note
        else:
            score, more = score or _score(couples, best[0]), _score(couples, runs)
            best, score = ((runs, note), more) if more > score else (best, score)
    return best, refused


def _about(runs: Runs) -> list[str]:
    """What each runner says of its own run."""
    sides = (("source", runs.source), ("target", runs.target))
    return [f"the {name}: {run.note}" for name, run in sides if run is not None and run.note]


def outputs(runs: Runs) -> tuple[flow.Side, ...]:
    """The outputs of the whole models, side by side; () where the target did not run.

    Of models that give more and fewer those that both have, where shapes tell which these are.
    """
    if runs.target is None:
        return ()
    given = runs.source.outputs, runs.target.outputs
    both = in_both(*given) if len(given[0]) != len(given[1]) else None
    sides = flow.ends(*(both or given), runs.dtypes, runs.flow)
    return tuple(counting(side, runs.masks, runs.dtypes, runs.flow) for side in sides)


def _agree(runs: Runs) -> bool:
    found = outputs(runs)
    return bool(found) and all(side.verdict == OK for side in found)


def _score(couples: Sequence[Couple], runs: Runs) -> float:
    """The share of layers that are given the same in both runs."""
    good = [bool(fed_alike(couple, runs)) for couple in couples]
    return sum(good) / len(good) if good else 0.0


def _time_first(couples: Sequence[Couple]) -> bool:
    """Whether one model has a recurrent layer that reads time first, and the other does not."""
    return any(_reads_time_first(c.source.bound) != _reads_time_first(c.target.bound) for c in couples)


def _reads_time_first(bound: Any) -> bool:
    dims = bound.data.get("x", ())
    return bound.kind.name in RECURRENT and bool(dims) and isinstance(dims[0], Axis) and dims[0].name == "time"
