"""The best assignment of rows to columns, and by how much each of its pairs is better than every other way."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import count

import numpy as np

from layoutx.files.dtypes import Array

PLACED = 1000.0  # what placing a row is worth, whatever the evidence says
MOST_BRANCHES = 64


def assigned(score: Array, overlaps: Sequence[tuple[int, int]] = ()) -> tuple[list[int], list[float]]:
    """The assignment with the most rows placed and, of these, the highest sum of scores.

    Args:
        score: (row, column); -inf where a row has no such place.
        overlaps: columns that cannot both be taken.

    Returns:
        Of each row its column, -1 for none; and the margin: how much is lost where the row does not get it.
    """
    rows, columns = score.shape
    cost = np.full((rows, columns + rows), np.inf)
    cost[:, :columns] = -(score + PLACED)
    cost[np.arange(rows), columns + np.arange(rows)] = 0.0  # each row may stay without a place
    tie = count()
    found, total = _solved(cost)
    waiting = [(total, next(tie), found, cost)]
    for _ in range(MOST_BRANCHES):
        total, _, found, cost = heapq.heappop(waiting)
        taken = set(found[0].tolist())
        clash = next(((a, b) for a, b in overlaps if a in taken and b in taken), None)
        if clash is None:
            break
        for column in clash:
            less = cost.copy()
            less[:, column] = np.inf
            again, total = _solved(less)
            heapq.heappush(waiting, (total, next(tie), again, less))
    return [int(c) if c < columns else -1 for c in found[0]], _margins(cost, *found)


Duals = tuple[Array, Array, Array]  # matched columns, prices of rows and of columns


def _solved(cost: Array) -> tuple[Duals, float]:
    """Column of each row at the least sum, with the prices, and that sum."""
    found = _duals(cost)
    return found, float(cost[np.arange(len(cost)), found[0]].sum())


def _duals(cost: Array) -> Duals:
    """Matched columns, and prices under which no pair costs less than nothing and each matched pair nothing.

    The Hungarian method, rows added one by one along shortest paths.
    """
    rows, columns = cost.shape
    row_price, price = np.zeros(rows), np.zeros(columns)
    owner = np.full(columns, -1)
    for start in range(rows):
        least, came = np.full(columns, np.inf), np.full(columns, -1)
        seen = np.zeros(columns, bool)
        row, column, far = start, -1, 0.0
        while True:
            reduced = cost[row] - row_price[row] - price + far
            better = ~seen & (reduced < least)
            least[better], came[better] = reduced[better], column
            free = np.where(seen, np.inf, least)
            column = int(free.argmin())
            far = float(free[column])
            if owner[column] < 0:
                break
            seen[column] = True
            row = int(owner[column])
        row_price[start] += far
        row_price[owner[seen]] += far - least[seen]
        price[seen] -= far - least[seen]
        while column >= 0:
            before = int(came[column])
            owner[column] = owner[before] if before >= 0 else start
            column = before
    matched = np.empty(rows, int)
    matched[owner[owner >= 0]] = np.flatnonzero(owner >= 0)
    return matched, row_price, price


def _margins(cost: Array, matched: Array, row_price: Array, price: Array) -> list[float]:
    """What the best assignment costs more that gives each row anything else: a shortest cycle, or path to a free place.

    From row i to row k: i takes what k has. All rows at once (Floyd and Warshall).
    """
    rows = len(cost)
    reduced = np.maximum(cost - row_price[:, None] - price[None, :], 0.0)
    step = reduced[:, matched]
    np.fill_diagonal(step, np.inf)
    free = np.ones(cost.shape[1], bool)
    free[matched] = False
    leave = np.where(free, reduced, np.inf).min(axis=1, initial=np.inf)
    far = step.copy()
    np.fill_diagonal(far, 0.0)
    for k in range(rows):
        far = np.minimum(far, far[:, k : k + 1] + far[k : k + 1])
    around = (step + far.T).min(axis=1, initial=np.inf)
    away = (far + leave[None, :]).min(axis=1, initial=np.inf)
    return [float(x) for x in np.minimum(around, away)]


def exchanged(score: Array, matched: Sequence[int]) -> list[tuple[int, int]]:
    """The nearest other way for each row: the row that it exchanges columns with, -1 for none, and the column it gets.

    Where a free column is nearer than any other row's, that is the way; (-1, -1) where the row has no other column.

    Args:
        score: (row, column); -inf where a row has no such place.
        matched: of each row its column, -1 for none.
    """
    rows, columns = score.shape
    if rows == columns == 1:  # most groups of a model whose layers have their places
        return [(-1, -1)]
    own = np.array(matched, int)
    placed = own >= 0
    held = np.where(placed, score[np.arange(rows), own], 0.0)
    there = np.where(placed[None, :], score[:, own], -np.inf)  # what each row has in another one's column
    loss = held[:, None] + held[None, :] - there - there.T
    np.fill_diagonal(loss, np.inf)
    free = np.setdiff1d(np.arange(columns), own)
    found: list[tuple[int, int]] = []
    for row in range(rows):
        other = int(loss[row].argmin()) if placed[row] else -1
        away = int(free[(-score[row, free]).argmin()]) if len(free) else -1
        near = loss[row, other] if other >= 0 else np.inf
        if away >= 0 and held[row] - score[row, away] < near:
            found.append((-1, away))
        else:
            found.append((other, matched[other]) if near < np.inf else (-1, -1))
    return found
