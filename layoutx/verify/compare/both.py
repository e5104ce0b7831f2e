"""Both models run on the same inputs and every pair of layers looked at: the whole comparison, before it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from layoutx.errors import LayoutxError
from layoutx.frozen import frozen
from layoutx.plan.plan import Array
from layoutx.progress import steps
from layoutx.verify.ahead import Ahead
from layoutx.verify.compare import flow
from layoutx.verify.compare.alone import modules_of
from layoutx.verify.compare.behind import behind, called, handed
from layoutx.verify.compare.calls import between, call_of
from layoutx.verify.compare.context import in_context, lacking
from layoutx.verify.compare.cut import cut_outside
from layoutx.verify.compare.first import up_to_first
from layoutx.verify.compare.flattened import seen, turned
from layoutx.verify.compare.hints import hint, scaled
from layoutx.verify.compare.layers import Looked, look, noted
from layoutx.verify.compare.limits import OK
from layoutx.verify.compare.links import Runs
from layoutx.verify.compare.outputs import applied, own_activation
from layoutx.verify.compare.pairs import Couple, Gap, Half
from layoutx.verify.compare.rounded import precision_note, softened
from layoutx.verify.compare.run import outputs as outputs_of
from layoutx.verify.compare.run import run
from layoutx.verify.compare.scaled import used_outside
from layoutx.verify.compare.stacks import named_in, stacks_of, title
from layoutx.verify.recording import Recording
from layoutx.verify.running.opened import Runner

LEAVE_OUT = "leave {name} out (--skip {name}), and the {other} is given what {name} makes of the inputs"


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
    given: Callable[[Sequence[Array], bool], Ahead | None] = lambda arrays, swapped: None,
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
        tuple(_told(gap, links, runs, couples) for gap in found),
        outputs,
        tuple(notes),
        lambda: (_told(gap, links, runs, couples) for gap in behind(links, outputs, finals, found)),
    )


def _looked(couple: Couple, runs: Runs, problem: str, same: bool) -> list[Looked]:
    """One pair; where the models' outputs agree, its output may be flattened in the source's order just as well."""
    shown = seen(couple, runs)
    found = look(shown, runs, problem)
    if same:
        found = [used_outside(couple, one) for one in found]
    if shown is not couple:
        orders = [", ".join(f"{axis} {dims}" for axis, dims in c.target.refine.items()) for c in (shown, couple)]
        note = f"in its own run the target flattens a map into it as {orders[0]}, where its habit is {orders[1]}"
        found = [replace(one, checks=tuple(noted(check, note) for check in one.checks)) for one in found]
    wrong = any(not check.ok for one in found for check in one.checks)
    if not (wrong and same and couple.target.refine and dict(couple.target.refine) != dict(couple.last)):
        return found
    other = turned(couple)
    again = look(other, runs, problem) if other is not None else []
    return again if again and all(check.ok for one in again for check in one.checks) else found


def _finals(wires: Mapping[str, Sequence[str]], couples: Sequence[Couple]) -> tuple[str, ...] | None:
    """Layers whose outputs no other layer reads; None where no wiring is known."""
    if not wires:
        return None
    paired = [title(couple.source) for couple in couples]
    read = {name for names in flow.wiring(wires, paired).values() for name in names}
    return tuple(name for name in paired if name not in read)


def _told(gap: Gap, links: Sequence[flow.Link], runs: Runs, couples: Sequence[Couple]) -> Gap:
    """The gap with the layers without a counterpart that were called inside it, on both sides."""
    assert runs.target is not None
    ends = [next((x for x in reversed(links) if x.layer == name), None) for name in gap.before]
    start = [x for x in ends if x is not None]
    after = next((x for x in links if x.layer == gap.after), None)
    sources = {name for couple in couples for name in modules_of(couple.source)}
    targets = {name for couple in couples for name in modules_of(couple.target)}
    here = between(runs.source, min((x.at for x in start), default=-1), after.at if after else -1, sources)
    there = between(runs.target, min((x.there for x in start), default=-1), after.there if after else -1, targets)
    last = next((couple for couple in couples if gap.before == (title(couple.source),)), None)
    act = applied(last) if last is not None and own_activation(last.source.bound.settings) else ""
    raw = _raw_output(last, runs) if act else None
    said = gap.hint or (lacking(last, runs) if last is not None else "")
    said = said or hint(gap.expected, gap.given, raw, act, ", ".join(gap.before))
    if not gap.before and scaled(gap.expected, gap.given):
        for run, passed, other in ((runs.source, here, "target"), (runs.target, there, "source")):
            keeps = [name for name in (text.partition(" (")[0] for text in passed) if _keeps_shape(run, name)]
            if keeps and run.framework == "keras":
                said += f"; {LEAVE_OUT.format(name=keeps[-1], other=other)}"
    here = (f"{act} of {', '.join(gap.before)}", *here) if act else here
    calls = called(start, after, runs.source, runs.target)
    found = replace(gap, passed=here, there=there, hint=said, act=act, earlier=handed(gap, links), calls=calls)
    if last is None:
        return found
    own = _gave(last, last.source, runs.source), _gave(last, last.target, runs.target)
    return replace(found, gave=own[0], there_gave=own[1], cropped=last.cropped)


def _keeps_shape(recording: Recording, name: str) -> bool:
    call = recording.of(name, 0)
    return call is not None and bool(call.inputs and call.outputs) and call.inputs[0].shape == call.outputs[0].shape


def _gave(couple: Couple, side: Half, recording: Recording) -> Mapping[str, Array]:
    """All that a layer gave, by name; {} where its axes are not those that its form says."""
    call = call_of(side, recording, 0)
    try:
        return named_in(side, call, couple.last, stacks_of([side])).outputs if call is not None else {}
    except LayoutxError:
        return {}


def _raw_output(couple: Couple | None, runs: Runs) -> Array | None:
    """What the target's layer gave in its own run, its activation left out."""
    call = call_of(couple.target, runs.target, 0) if couple is not None and runs.target is not None else None
    return call.outputs[0] if call is not None and call.outputs else None
