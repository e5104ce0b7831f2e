"""A finding made smaller: what was changed goes back to what it was, pieces are left out, while it is still found."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from scripts.fuzzing.corpus import Case

Same = Callable[[Case], bool]


def smaller(case: Case, parent: Case, same: Same, patience: float) -> Case:
    """A case with the same verdict and less in it, for at most `patience` seconds."""
    ends = time.monotonic() + patience
    for name in case.files:
        before, now = parent.files.get(name, b""), case.files[name]
        if before == now or (len(case.files) == 1 and len(now) < 2):
            continue
        if (back := _with(case, name, before)) and same(back):
            case = back
            continue
        if len(before) == len(now):
            case = _restored(case, name, before, same, ends)
        else:
            case = _shortened(case, name, same, ends)
    return case


def _with(case: Case, name: str, content: bytes) -> Case:
    return replace(case, files={**case.files, name: content})


def _restored(case: Case, name: str, before: bytes, same: Same, ends: float) -> Case:
    """Each byte that differs put back, where the finding does not need it."""
    for at in [n for n, (a, b) in enumerate(zip(before, case.files[name], strict=True)) if a != b]:
        if time.monotonic() > ends:
            break
        now = case.files[name]
        if same(one := _with(case, name, now[:at] + before[at : at + 1] + now[at + 1 :])):
            case = one
    return case


def _shortened(case: Case, name: str, same: Same, ends: float) -> Case:
    """Pieces left out: halves, quarters, ... single bytes."""
    piece = max(len(case.files[name]) // 2, 1)
    while True:
        at = 0
        while at < len(case.files[name]) and time.monotonic() < ends:
            now = case.files[name]
            one = _with(case, name, now[:at] + now[at + piece :])
            if same(one):
                case = one
            else:
                at += piece
        if piece == 1 or time.monotonic() > ends:
            return case
        piece //= 2
