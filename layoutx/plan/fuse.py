"""The fewest strided copies: loops that continue each other merge, and equal copies at even steps become one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from layoutx.plan.steps import Add, Copy, Drop, Fill, Guard, Loop, Loops, Step

Key = tuple[object, ...]


def fuse(steps: Iterable[Step]) -> tuple[Step, ...]:
    """The same moves in fewer steps; order of tensors is kept.

    Adds are left as they are: they are small and rare.
    """
    fused: list[Step] = []
    runs: dict[Key, list[Step]] = {}
    for step in steps:
        if isinstance(step, Add):
            fused.append(step)
            continue
        runs.setdefault(_group(step), []).append(_with_loops(step, merge_loops(step.loops)))
    for group in runs.values():
        fused += _runs(group)
    return tuple(fused)


def merge_loops(loops: Loops) -> Loops:
    """Loops outermost first in target order (source order for a step without target), neighbours merged."""
    kept = sorted((x for x in loops if x.size != 1), key=lambda x: (-abs(x.target), -abs(x.source)))
    merged: list[Loop] = []
    for loop in kept:
        if merged and merged[-1].target == loop.target * loop.size and merged[-1].source == loop.source * loop.size:
            outer = merged.pop()
            loop = Loop(f"{outer.axis}×{loop.axis}", outer.size * loop.size, loop.target, loop.source)
        merged.append(loop)
    return tuple(merged)


def _group(step: Step) -> Key:
    """Steps of one group differ in offsets only, up to their loops."""
    match step:
        case Copy():
            return ("copy", step.target, step.source, step.negate)
        case Fill():
            return ("fill", step.target, step.value)
        case Guard():
            return ("guard", step.source, step.value)
        case Drop():
            return ("drop", step.source, step.reason)
        case _:
            raise TypeError(step)


def _offsets(step: Step) -> tuple[int, int]:
    return (getattr(step, "target_offset", 0), getattr(step, "source_offset", 0))


def _with_loops(step: Step, loops: Loops) -> Step:
    return replace(step, loops=loops)


def _runs(steps: Sequence[Step]) -> list[Step]:
    """Join runs at even steps again and again until nothing joins any more."""
    current = sorted(steps, key=_offsets)
    while True:
        joined = _once(current, _signature)
        if len(joined) == len(current):
            return joined
        current = joined


def _signature(step: Step) -> Loops:
    """What two steps must share to lie in one run: their loops, whatever the axes are called."""
    return tuple(replace(x, axis="") for x in getattr(step, "loops", ()))


def _once(steps: Sequence[Step], signature: Callable[[Step], Loops]) -> list[Step]:
    found: list[Step] = []
    at = 0
    while at < len(steps):
        end = _run_end(steps, at, signature)
        found.append(_join(steps[at:end]) if end - at > 1 else steps[at])
        at = end
    return found


def _run_end(steps: Sequence[Step], at: int, signature: Callable[[Step], Loops]) -> int:
    end = at + 1
    step: tuple[int, int] | None = None
    while end < len(steps) and signature(steps[end]) == signature(steps[at]):
        before, here = _offsets(steps[end - 1]), _offsets(steps[end])
        delta = (here[0] - before[0], here[1] - before[1])
        if step is not None and delta != step:
            break
        step = delta
        end += 1
    return end


def _join(steps: Sequence[Step]) -> Step:
    first, second = steps[0], steps[1]
    (t0, s0), (t1, s1) = _offsets(first), _offsets(second)
    atoms = tuple(name for step in steps for name in step.atoms)
    loop = Loop("+".join(dict.fromkeys(atoms)), len(steps), t1 - t0, s1 - s0)
    loops = merge_loops((loop, *first.loops))
    return replace(first, loops=loops, atoms=atoms)
