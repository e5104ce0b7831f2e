"""Every target element is written once, every source element accounted for: checked on index sets, not by running."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import gcd, prod

import numpy as np

from layoutx.errors import ConversionError, LayoutxError, raise_all
from layoutx.plan.steps import Add, Copy, Drop, Fill, Guard, Step
from layoutx.spec.bound import BoundForm

Box = tuple[int, tuple[tuple[int, int], ...]]  # offset, (size, stride)...


def prove(steps: Sequence[Step], source: BoundForm, target: BoundForm) -> None:
    """Check a plan's coverage.

    Raises:
        ConversionError: a target element written twice or never, a source element left out.
    """
    written: dict[str, list[Box]] = {t.name: [] for t in target.tensors}
    read: dict[str, list[Box]] = {t.name: [] for t in source.tensors}
    for step in steps:
        for name, box in _writes(step):
            written[name].append(box)
        for name, box in _reads(step):
            read[name].append(box)
    problems: list[LayoutxError] = []
    for tensor in target.tensors:
        total = prod(tensor.shape)
        if not tiles(total, written[tensor.name]):
            problems.append(_gap(f"{target.form.name} {tensor.name} {tensor.shape} is not written exactly once"))
    for tensor in source.tensors:
        total = prod(tensor.shape)
        if not tiles(total, list(dict.fromkeys(read[tensor.name]))):
            problems.append(_gap(f"{source.form.name} {tensor.name} {tensor.shape} is not wholly accounted for"))
    raise_all(problems, "the plan does not cover its tensors")


def _gap(what: str) -> LayoutxError:
    return ConversionError(
        what,
        why="the layouts of the two forms do not fit together",
        do="this is a fault of a spec: `layoutx specs check`",
    )


def _writes(step: Step) -> Iterator[tuple[str, Box]]:
    if isinstance(step, (Copy, Fill, Add)):
        yield step.target, _box(step.target_offset, [(x.size, x.target) for x in step.loops])


def _reads(step: Step) -> Iterator[tuple[str, Box]]:
    if isinstance(step, (Copy, Guard, Drop)):
        yield step.source, _box(step.source_offset, [(x.size, x.source) for x in step.loops])
    elif isinstance(step, Add):
        for term in step.terms:
            yield term.source, _box(term.offset, [(x.size, s) for x, s in zip(step.loops, term.strides, strict=True)])


def _box(offset: int, loops: Iterable[tuple[int, int]]) -> Box:
    """Loops made positive, sorted outermost first, contiguous neighbours merged."""
    kept = []
    for size, stride in loops:
        if stride < 0:
            offset += (size - 1) * stride
            stride = -stride
        if size != 1:
            kept.append((size, stride))
    merged: list[tuple[int, int]] = []
    for size, stride in sorted(kept, key=lambda x: -x[1]):
        if merged and merged[-1][1] == stride * size:
            size *= merged.pop()[0]
        merged.append((size, stride))
    return offset, tuple(merged)


def tiles(total: int, boxes: Sequence[Box]) -> bool:
    """Whether boxes cover range(total) exactly, without overlap.

    Common factors are divided out first, so that large tensors cost no more than small ones.
    """
    if any(size == 0 for _, loops in boxes for size, _ in loops):
        boxes = [b for b in boxes if all(size for size, _ in b[1])]
    if sum(_count(b) for b in boxes) != total:
        return False
    if total == 0:
        return True
    boxes = list(boxes)
    while len(boxes) > 1 or boxes[0][1]:
        smaller = _without_inner(total, boxes) or _without_outer(total, boxes)
        if smaller is None:
            return _tiles_slowly(total, boxes)
        total, boxes = smaller
    return total == 1 and boxes[0][0] == 0


def _count(box: Box) -> int:
    return prod(size for size, _ in box[1])


def _without_inner(total: int, boxes: Sequence[Box]) -> tuple[int, list[Box]] | None:
    """Divide out a run length that every box has at its innermost loop."""
    run = total
    for offset, loops in boxes:
        if not loops or loops[-1][1] != 1:
            return None
        run = gcd(run, offset, loops[-1][0], *(stride for _, stride in loops[:-1]))
    if run <= 1:
        return None
    smaller = []
    for offset, loops in boxes:
        inner = (loops[-1][0] // run, 1)
        outer = [(size, stride // run) for size, stride in loops[:-1]]
        smaller.append(_box(offset // run, [*outer, inner]))
    return total // run, smaller


def _without_outer(total: int, boxes: Sequence[Box]) -> tuple[int, list[Box]] | None:
    """Divide out an outermost loop over the whole tensor that every box shares."""
    if any(not loops for _, loops in boxes):
        return None
    times, stride = boxes[0][1][0]
    if any(loops[0] != (times, stride) for _, loops in boxes):
        return None
    if times <= 1 or times * stride != total:
        return None
    smaller = []
    for offset, loops in boxes:
        reach = offset + sum((size - 1) * step for size, step in loops[1:])
        if reach >= stride:
            return None
        smaller.append((offset, loops[1:]))
    return stride, smaller


def _tiles_slowly(total: int, boxes: Sequence[Box]) -> bool:
    """Mark every run; the plain definition."""
    hits = np.zeros(total, dtype=np.uint8)
    for offset, loops in boxes:
        index = np.array([offset], dtype=np.int64)
        for size, stride in loops:
            index = (index[:, None] + np.arange(size, dtype=np.int64) * stride).reshape(-1)
        if index.min() < 0 or index.max() >= total:
            return False
        np.add.at(hits, index, 1)
    return bool((hits == 1).all())
