"""What the order of two models tells: pairs that are in every alignment which keeps both orders and places the most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

SAME = 1e-9


def forced(rows: Sequence[Mapping[int, float]]) -> tuple[dict[int, int], bool]:
    """Rows whose position is the same in all of the best alignments.

    Args:
        rows: in the one model's order, position in the other model -> what the pair is worth, 1 and a little more.

    Returns:
        Row -> position; and whether the best alignment places every row that has a position at all.
    """
    positions = sorted({p for row in rows for p in row})
    at = {p: i for i, p in enumerate(positions)}
    ahead = np.zeros((len(rows) + 1, len(positions) + 1))  # best of the rows before, on the positions before
    for i, row in enumerate(rows):
        best = ahead[i].copy()
        for p, worth in row.items():
            best[at[p] + 1] = max(best[at[p] + 1], ahead[i, at[p]] + worth)
        ahead[i + 1] = np.maximum.accumulate(best)
    behind = np.zeros_like(ahead)  # best of the rows from here on, on the positions from here on
    for i in range(len(rows) - 1, -1, -1):
        best = behind[i + 1].copy()
        for p, worth in rows[i].items():
            best[at[p]] = max(best[at[p]], behind[i + 1, at[p] + 1] + worth)
        behind[i] = np.maximum.accumulate(best[::-1])[::-1]
    top = float(ahead[-1, -1])
    found: dict[int, int] = {}
    for i, row in enumerate(rows):
        left_out = float((ahead[i] + behind[i + 1]).max()) >= top - SAME
        good = [p for p, worth in row.items() if ahead[i, at[p]] + worth + behind[i + 1, at[p] + 1] >= top - SAME]
        if len(good) == 1 and not left_out:
            found[i] = good[0]
    placeable = sum(1 for row in rows if row)
    return found, int(top + SAME) >= placeable


def aligned(
    rows: Mapping[str, Mapping[int, float]], orders: Sequence[Sequence[str]]
) -> tuple[dict[str, int], set[str]]:
    """The position of each layer in the first order, and the layers that have it in all orders which are kept whole."""
    found = []
    for order in orders:
        pairs, whole = forced([rows[name] for name in order])
        found.append(({order[row]: position for row, position in pairs.items()}, whole))
    kept = [positions for positions, whole in found if whole]
    first = (kept or [positions for positions, _ in found])[0]
    return first, {name for name, at in first.items() if kept and all(own.get(name) == at for own in kept)}
