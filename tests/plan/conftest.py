"""Limits of a strided copy, for the tests of both its ways."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from layoutx.plan import strided, tiles, turns


@pytest.fixture
def small_boxes() -> Iterator[None]:
    """Limits so small that arrays of some hundred elements are copied like large ones, with boxes at the edges."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"ROWS": 7, "COLUMNS": 24, "BOX": 480, "FEW": 2, "SHORT": 4, "WAYS": 0, "NEAR": 0}.items():
            patch.setattr(tiles, name, value)
        for name, value in {"BOX": 480, "LONG": 7, "ENOUGH": 5, "LEAST": 2, "CALL": 0, "WIDE": 0, "FEW": 0}.items():
            patch.setattr(turns, name, value)
        patch.setattr(strided, "SMALL", 0)
        patch.setattr(strided, "SHARED", 1000)
        _forget()
        yield
    _forget()


def _forget() -> None:
    """What was worked out under other limits."""
    tiles.way.cache_clear()
    turns.turn.cache_clear()
