"""Both models run on the same inputs and every pair of layers looked at: the whole comparison, before it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from layoutx.frozen import frozen
from layoutx.plan.plan import Array
from layoutx.progress import steps
from layoutx.verify.ahead import AS_THEY_ARE, Ahead
from layoutx.verify.compare import flow
from layoutx.verify.compare.behind import behind
from layoutx.verify.compare.calls import count
from layoutx.verify.compare.context import in_context
from layoutx.verify.compare.cut import cut_outside
from layoutx.verify.compare.first import up_to_first
from layoutx.verify.compare.flattened import seen, turned, untold
from layoutx.verify.compare.gap_told import told
from layoutx.verify.compare.held import is_bare
from layoutx.verify.compare.layers import Looked, look, noted
from layoutx.verify.compare.limits import OK
from layoutx.verify.compare.links import Runs
from layoutx.verify.compare.pairs import Couple, Gap
from layoutx.verify.compare.rounded import precision_note, softened
from layoutx.verify.compare.run import outputs as outputs_of
from layoutx.verify.compare.run import run
from layoutx.verify.compare.scaled import used_outside
from layoutx.verify.compare.stacks import title
from layoutx.verify.running.opened import Runner

SHOWN = ("torch", "keras")  # frameworks whose runs show every layer that is called
UNCALLED = "the target has this layer, and its own run does not call it"


@frozen
class Both:
    """What was found out about two models.

    Attributes:
        runs: both runs. looked: one for each call of each pair, pair by pair.
        gaps: faults between layers. outputs: of the whole models. notes: what was done to the inputs.
        behind: makes the places after the gaps that may hold more, one by one.
    """

    runs: Runs
    looked: tuple[Looked, ...]
    gaps: tuple[Gap, ...]
    outputs: tuple[flow.Side, ...]
    notes: tuple[str, ...] = ()
    behind: Callable[[], Iterator[Gap]] = lambda: iter(())


def both(
    first: Runner,
    second: Runner,
    couples: Sequence[Couple],
    inputs: Any,
    *,
    channels: tuple[bool, bool],
    wires: Mapping[str, Sequence[str]],
    problems: Mapping[str, str],
    tolerance: float,
    first_only: bool = False,
    far: float = 1.0,
    given: Callable[[Sequence[Array], bool], Ahead] = lambda arrays, swapped: AS_THEY_ARE,
) -> Both:
    """Compare two models.

    Args:
        couples: the paired layers, in the source's order.
        inputs: in the source's axis order, or None.
        channels: whether each framework keeps its channels first.
        wires: layer or layer without weights of the source -> those that feed it; {} where nothing is known.
        problems: source layer -> why its weights cannot be converted, in one line.
        first_only: on few samples in the models' own precision, up to the first difference, and no further.
        far: how many times as large made inputs are as they are else.
        given: what the other model is given of these inputs, where it is something else; True: the target is first.

    Raises:
        UsageError: there are no inputs, or the source does not run on them.
    """
    before = flow.wiring(wires, [title(couple.source) for couple in couples])
    runs, notes = run(first, second, couples, inputs, channels, before, tolerance, first_only, far, given)
    couples = cut_outside(couples, runs)
    outputs = softened(outputs_of(runs), couples)
    notes += [note for note in (precision_note(couples),) if note]
    same = bool(outputs) and all(side.verdict == OK for side in outputs)

    def one_pair(couple: Couple) -> list[Looked]:
        own = _looked(couple, runs, problems.get(title(couple.source), ""), same)
        return own if same else [in_context(couple, one, runs) for one in own]

    several = steps(couples, lambda one: f"comparing {title(one.source)}")
    looked = up_to_first(couples, runs, one_pair) if first_only else [(c, one) for c in several for one in one_pair(c)]
    links = sorted((x.link for _, x in looked if x.link is not None), key=lambda link: link.at)
    bad = {title(couple.source) for couple, one in looked if any(not check.ok for check in one.checks)}
    finals = _finals(wires, couples)
    found = flow.gaps(links, outputs, finals, bad)
    return Both(
        runs,
        tuple(one for _, one in looked),
        tuple(told(gap, links, runs, couples) for gap in found),
        outputs,
        tuple(notes),
        lambda: (told(gap, links, runs, couples) for gap in behind(links, outputs, finals, found)),
    )


def _looked(couple: Couple, runs: Runs, problem: str, same: bool) -> list[Looked]:
    """One pair; its axes may lie in the source's order just as well where the models' outputs agree, and where nobody
    tells in which they do: it is then right if that makes it so, and what is wrong lies between the layers."""
    shown = seen(couple, runs)
    found = look(shown, runs, problem)
    if same:
        found = [used_outside(couple, one) for one in found]
    if shown is not couple:
        orders = [", ".join(f"{axis} {dims}" for axis, dims in c.target.refine.items()) for c in (shown, couple)]
        note = f"in its own run the target flattens a map into it as {orders[0]}, where its habit is {orders[1]}"
        found = [replace(one, checks=tuple(noted(check, note) for check in one.checks)) for one in found]
    run = runs.target if runs.target is not None and runs.target.framework in SHOWN else None
    if not same and not is_bare(couple) and run is not None and not count(couple.target, run):
        found = [replace(one, checks=tuple(noted(check, UNCALLED) for check in one.checks)) for one in found]
    wrong = any(not check.ok for one in found for check in one.checks)
    other = turned(couple) if wrong and (same or untold(couple)) else None
    again = look(other, runs, problem) if other is not None else []
    return again if again and all(check.ok for one in again for check in one.checks) else found


def _finals(wires: Mapping[str, Sequence[str]], couples: Sequence[Couple]) -> tuple[str, ...] | None:
    """Layers whose outputs no other layer reads; None where no wiring is known."""
    if not wires:
        return None
    paired = [title(couple.source) for couple in couples]
    read = {name for names in flow.wiring(wires, paired).values() for name in names}
    return tuple(name for name in paired if name not in read)
