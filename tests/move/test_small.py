"""Small tensors: made in batches they are what the plain executor makes, and a byte that changed is found again."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from layoutx.errors import LayoutxError, VerificationError
from layoutx.files.hashes import hash_of
from layoutx.files.laid.entry import Entry
from layoutx.files.safetensors import entries_text, header_text, placed
from layoutx.files.store import tensor_of
from layoutx.move import pool
from layoutx.move.again import check_again
from layoutx.move.cast import converted
from layoutx.move.moves import Move, Recipes, moves_of
from layoutx.move.place import Place
from layoutx.plan.plan import Plan
from layoutx.plan.run import run
from tests.move.test_pieces import numbers, plans


def made(plan: Plan, dtype: object, number: int = 0) -> tuple[list[Move], dict[str, np.ndarray]]:
    arrays = {name: array.astype(dtype) for name, array in numbers(plan, np.float32).items()}
    sources = {name: tensor_of(name, array) for name, array in arrays.items()}
    names = {t.name: f"{number}.{t.name}" for t in plan.target.tensors}
    expected = run(plan, arrays, plain=True).tensors
    return moves_of(plan, sources, names), {names[name]: array for name, array in expected.items()}


def in_a_row(moves: list[Move], path: Path) -> list[Place]:
    """Places side by side in a file that is there."""
    at, places = 0, []
    for move in moves:
        places.append(Place(move, move.recipe.cut, path, at))
        at += move.nbytes
    path.write_bytes(bytes(at))
    return places


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_batch_of_every_kind_is_what_the_plain_executor_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: object, jobs: int
) -> None:
    monkeypatch.setattr(pool, "BATCH", 1 << 12)
    monkeypatch.setattr(pool, "ALONE", 0)
    moves, expected = [], {}
    for number, plan in enumerate(plan for kind in ("lstm", "batch_norm", "conv", "dense") for plan in plans(kind)):
        own, arrays = made(plan, dtype, number)
        moves += own
        expected |= arrays
    places = in_a_row(moves, tmp_path / "x")
    seen = pool.carry_out(places, jobs, looked=True)
    data = (tmp_path / "x").read_bytes()
    for place, one in zip(places, seen, strict=True):
        array = expected[place.move.name]
        assert data[place.offset : place.offset + place.move.nbytes] == array.tobytes(), place.move.name
        assert one.hash == hash_of(np.ascontiguousarray(array).reshape(array.shape))
    assert sum(len(one.sources or ()) for one in seen) == len({id(t) for move in moves for t in move.tensors})
    check_again(places, seen, jobs, tmp_path / "x")
    assert [one.hash for one in pool.carry_out([Place(m, m.recipe.cut, None, 0) for m in moves], 1)] == [
        one.hash for one in seen
    ]


def test_a_changed_byte_among_many_small_tensors_is_found(tmp_path: Path) -> None:
    plan = next(iter(plans("dense")))
    moves = [move for number in range(50) for move in made(plan, np.float32, number)[0]]
    places = in_a_row(moves, tmp_path / "x")
    seen = pool.carry_out(places, 1)
    data = bytearray((tmp_path / "x").read_bytes())
    data[places[33].offset + 1] ^= 1
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(VerificationError, match=f"did not keep '{places[33].move.name}'"):
        check_again(places, seen, 1, tmp_path / "x")


def test_a_batch_with_a_sum_that_overflows_is_not_written(tmp_path: Path) -> None:
    plan = next(p for p in plans("lstm") if any(type(step).__name__ == "Add" for step in p.steps))
    arrays = {name: np.full_like(array, 3e38) for name, array in numbers(plan, np.float32).items()}
    sources = {name: tensor_of(name, array) for name, array in arrays.items()}
    places = in_a_row(moves_of(plan, sources, {t.name: t.name for t in plan.target.tensors}), tmp_path / "x")
    with pytest.raises(LayoutxError, match="too large"):
        pool.carry_out(places, 1)
    assert not any((tmp_path / "x").read_bytes())


def test_layers_of_one_signature_share_a_recipe() -> None:
    plan = next(iter(plans("dense")))
    recipes = Recipes()

    def recipe(dtype: object) -> object:
        sources = {name: tensor_of(name, array.astype(dtype)) for name, array in numbers(plan, np.float32).items()}
        return moves_of(plan, sources, {t.name: t.name for t in plan.target.tensors}, recipes)[0].recipe

    assert recipe(np.float32) is recipe(np.float32)
    assert recipe(np.float64) is not recipe(np.float32)
    assert recipe(np.float64).dtype == np.float64


def test_a_recipe_in_another_dtype_is_made_once_and_rounds() -> None:
    plan = next(iter(plans("dense")))
    moves, expected = made(plan, np.float32)
    recipes, half = Recipes(), np.dtype(np.float16)
    first, second = recipes.cast(moves[0], half), recipes.cast(moves[0], half)
    assert first.recipe is second.recipe
    assert first.nbytes * 2 == moves[0].nbytes
    (seen,) = pool.carry_out([Place(first, first.recipe.cut, None, 0)], 1)
    wanted, lost = converted(expected[first.name], half)
    assert seen.hash == hash_of(wanted)
    assert seen.lost == lost


def test_a_header_is_what_json_would_write() -> None:
    shapes = [(), (0,), (2, 3), (1, 1, 5)]
    names = ['a"b\\c', "ä\u2028", "line\nbreak", "plain.weight"]
    entries = [Entry(n, np.dtype(d), s) for n, s, d in zip(names, shapes, ("f4", "i8", "f2", "?"), strict=True)]
    places = placed(entries)
    codes = dict(zip(names, ("F32", "I64", "F16", "BOOL"), strict=True))
    about = {"layoutx": 'text "quoted"'}
    wanted = {"__metadata__": about} | {
        e.name: {"dtype": codes[e.name], "shape": list(e.shape), "data_offsets": list(places[e.name])} for e in entries
    }
    text = json.dumps(wanted, separators=(",", ":"), ensure_ascii=False).encode()
    assert header_text(entries_text(entries, places), about).rstrip() == text
    assert header_text(entries_text([], {}), about).rstrip() == b'{"__metadata__":{"layoutx":"text \\"quoted\\""}}'
    assert header_text(b"", {}).rstrip() == b"{}"
