"""Layers whose numbers stand under each other's names: the same numbers, and not the same file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import layoutx as lx

torch = pytest.importorskip("torch")


def saved(path: Path, names: dict[str, str]) -> Path:
    """Three layers of one shape, each with the numbers that another name has in the first file."""
    made = np.random.default_rng(3)
    numbers = {name: (made.normal(size=(4, 4)), made.normal(size=4)) for name in ("mean", "spread", "gate")}
    state = {}
    for name, origin in names.items():
        state[f"{name}.weight"], state[f"{name}.bias"] = (torch.tensor(a) for a in numbers[origin])
    torch.save(state, path)
    return path


SAME = {"mean": "mean", "spread": "spread", "gate": "gate"}


def test_exchanged_layers_are_told_by_their_names(tmp_path: Path) -> None:
    first = saved(tmp_path / "a.pt", SAME)
    other = saved(tmp_path / "b.pt", {"mean": "spread", "spread": "mean", "gate": "gate"})
    found = lx.relate(first, other, from_="torch", to="torch")
    assert found.crossed == (("mean", "spread"),)
    assert not found.ok
    assert "the numbers of mean → spread → mean exchanged" in " ".join(str(found).split())
    assert found.to_dict()["crossed"] == [["mean", "spread"]]
    assert lx.relate(first, saved(tmp_path / "c.pt", SAME), from_="torch", to="torch").ok


def test_three_in_a_circle(tmp_path: Path) -> None:
    first = saved(tmp_path / "a.pt", SAME)
    other = saved(tmp_path / "b.pt", {"mean": "gate", "spread": "mean", "gate": "spread"})
    assert lx.relate(first, other, from_="torch", to="torch").crossed == (("mean", "spread", "gate"),)


def test_names_that_one_file_alone_has_say_nothing(tmp_path: Path) -> None:
    first = saved(tmp_path / "a.pt", SAME)
    other = saved(tmp_path / "b.pt", {"spread": "mean", "gate": "spread", "last": "gate"})  # counted on by one
    found = lx.relate(first, other, from_="torch", to="torch")
    assert found.crossed == ()
    assert found.ok
