"""Numbers of layers that no run shows: not loaded, rolled, transposed, of another layer; rounding is no fault."""

from __future__ import annotations

import numpy as np
import pytest

from layoutx.verify.compare.apart import apart
from layoutx.verify.compare.pairs import Check, Gap
from layoutx.verify.diagnose.between import Found
from layoutx.verify.diagnose.tables import _told, explained

TABLE = np.random.default_rng(3).normal(size=(1, 7, 5))
SQUARE = np.random.default_rng(4).normal(size=(1, 7, 7))
CHECK = Check("pos", "pos.table", "not compared")


@pytest.mark.parametrize(
    ("held", "goal", "mode", "said"),
    [
        (np.zeros_like(TABLE), TABLE, "F13", "not loaded"),
        (TABLE[:, ::-1], TABLE, "F38", "rows reversed"),
        (np.roll(TABLE, 1, 1), TABLE, "F38", "rows moved on by 1"),
        (TABLE[..., ::-1], TABLE, "F38", "columns reversed"),
        (SQUARE.swapaxes(1, 2), SQUARE, "F2", "transposed"),
        (TABLE[0].T.reshape(1, 7, 5), TABLE, "F2", "transposed"),
        (np.random.default_rng(9).normal(size=TABLE.shape), TABLE, "F13", "other numbers"),
        (1.5 * TABLE, TABLE, "", "none of these"),
        (TABLE * (np.arange(7) != 3)[:, None], TABLE, "F13", "is 0 everywhere in 1 of 7 rows (3)"),
        (TABLE[0][[2, 3, 4, 5, 6, 6, 6]], TABLE[0], "F37", "rows 2 too early"),
        (TABLE[0][[0, 0, 0, 1, 2, 3, 4]], TABLE[0], "F37", "rows 2 too late"),
        (TABLE[0, [0, 2, 1, 3, 4, 5, 6]], TABLE[0], "F38", "in 2 of 7 rows (1, 2)"),
        (-TABLE, TABLE, "", "none of these"),
    ],
)
def test_a_table_with_wrong_numbers(held: np.ndarray, goal: np.ndarray, mode: str, said: str) -> None:
    found = _told(CHECK, "table", held, goal)
    assert found is not None
    assert found.mode == mode
    assert said in found.what
    assert found.known is bool(mode)


def test_a_rounded_table_is_right() -> None:
    assert _told(CHECK, "table", TABLE.astype(np.float32), TABLE) is None
    assert _told(CHECK, "table", TABLE.astype(np.float16), TABLE) is None


def test_only_a_gap_that_nothing_explains_is_told_by_a_table() -> None:
    table = _told(CHECK, "table", np.zeros_like(TABLE), TABLE)
    assert table is not None
    gap = Gap(("conv",), "norm", ("c", "n"), apart(TABLE, 2 * TABLE), "FAIL", "", TABLE, 2 * TABLE)
    unknown, known = Found(gap, "none of these"), Found(gap, "a factor", "F34", after=0.0)
    order = ["conv", "pos", "norm", "late"]
    assert explained([unknown], [table], order) == (table,)
    assert explained([known], [table], order) == (known,)
    assert explained([unknown], [table], ["pos", "conv", "norm"]) == (unknown,)
