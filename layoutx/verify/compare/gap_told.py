"""A fault between two layers, told with what was called there on both sides and what may explain it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from layoutx.errors import LayoutxError
from layoutx.plan.plan import Array
from layoutx.verify.compare import flow
from layoutx.verify.compare.alone import modules_of
from layoutx.verify.compare.behind import called, handed
from layoutx.verify.compare.calls import between, call_of
from layoutx.verify.compare.context import lacking
from layoutx.verify.compare.hints import hint, scaled
from layoutx.verify.compare.links import Runs
from layoutx.verify.compare.outputs import applied, own_activation
from layoutx.verify.compare.pairs import Couple, Gap, Half
from layoutx.verify.compare.stacks import named_in, stacks_of, title
from layoutx.verify.recording import Recording

LEAVE_OUT = "leave {name} out (--skip {name}), and the {other} is given what {name} makes of the inputs"


def told(gap: Gap, links: Sequence[flow.Link], runs: Runs, couples: Sequence[Couple]) -> Gap:
    """The gap with the layers without a counterpart that were called inside it, on both sides."""
    assert runs.target is not None
    start = [link for name in gap.before if (link := _last(links, name)) is not None]
    end = next((link for link in links if link.layer == gap.after), None)
    here, there = _inside(start, end, runs.source, runs.target, couples)
    last = next((couple for couple in couples if gap.before == (title(couple.source),)), None)
    only = applied(last) if last is not None else ""
    act = only if last is not None and own_activation(last.source.bound.settings) else ""
    said = (
        _hint(gap, last, act, runs),
        _left_out(gap, runs.source, here, "target"),
        _left_out(gap, runs.target, there, "source"),
    )
    found = replace(
        gap,
        passed=(f"{act} of {', '.join(gap.before)}", *here) if act else here,
        there=there,
        hint="; ".join(text for text in said if text),
        act=act,
        there_act="" if act else only,
        earlier=handed(gap, links),
        calls=called(start, end, runs.source, runs.target),
    )
    if last is None:
        return found
    own = _gave(last, last.source, runs.source), _gave(last, last.target, runs.target)
    return replace(found, gave=own[0], there_gave=own[1], cropped=last.cropped)


def _last(links: Sequence[flow.Link], name: str) -> flow.Link | None:
    """The last call of a layer."""
    return next((link for link in reversed(links) if link.layer == name), None)


def _inside(
    start: Sequence[flow.Link], end: flow.Link | None, source: Recording, target: Recording, couples: Sequence[Couple]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The layers without a counterpart that were called after all of `start` and before `end`, on both sides."""
    sources = {name for couple in couples for name in modules_of(couple.source)}
    targets = {name for couple in couples for name in modules_of(couple.target)}
    here = between(source, min((link.at for link in start), default=-1), end.at if end else -1, sources)
    there = between(target, min((link.there for link in start), default=-1), end.there if end else -1, targets)
    return here, there


def _hint(gap: Gap, last: Couple | None, act: str, runs: Runs) -> str:
    """What may explain it: what is known of the gap itself, or its layer's context, or the numbers."""
    if said := gap.hint or (lacking(last, runs) if last is not None else ""):
        return said
    return hint(gap.expected, gap.given, _raw_output(last, runs) if act else None, act, ", ".join(gap.before))


def _left_out(gap: Gap, run: Recording, passed: Sequence[str], other: str) -> str:
    """The layer that scales a Keras model's inputs, to be left out; "" where there is none."""
    if gap.before or run.framework != "keras" or not scaled(gap.expected, gap.given):
        return ""
    keeps = [name for name in (text.partition(" (")[0] for text in passed) if _keeps_shape(run, name)]
    return LEAVE_OUT.format(name=keeps[-1], other=other) if keeps else ""


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
