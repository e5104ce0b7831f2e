"""Limits of a strided copy, for the tests of all its ways."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from layoutx.plan import contest, strided, tiles, turns


@pytest.fixture
def small_boxes() -> Iterator[None]:
    """Limits so small that arrays of some hundred elements are copied like large ones, with boxes at the edges."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"FLAT": (7, 64), "TALL": (11, 24), "FEW": 2, "SHORT": 4, "WAYS": 0, "NEAR": 0}.items():
            patch.setattr(tiles, name, value)
        for name, value in {"BOX": 480, "LONG": 7, "ENOUGH": 5, "LEAST": 2, "CALL": 0, "WIDE": 0, "FEW": 0}.items():
            patch.setattr(turns, name, value)
        for name, value in {"SMALL": 0, "SHARED": 1000, "SLAB": 4000, "RUN": 28, "LEAST": 0}.items():
            patch.setattr(strided, name, value)
        _forget()
        yield
    _forget()


def _forget() -> None:
    """What was worked out under other limits."""
    tiles.way.cache_clear()
    turns.turn.cache_clear()
    contest.contest.cache_clear()
