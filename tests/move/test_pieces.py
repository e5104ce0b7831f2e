"""Pieces: whatever the cut, put together they are what the plain executor makes, for every pair of forms."""

from __future__ import annotations

import os
from dataclasses import replace
from math import prod

import ml_dtypes
import numpy as np
import pytest

from layoutx.errors import LayoutxError
from layoutx.files.store import tensor_of
from layoutx.move.filled import Seen, filled
from layoutx.move.moves import Move, kept, moves_of
from layoutx.move.pieces import LEAST, PIECE, Cut, clipped, cut_of
from layoutx.move.pool import jobs_of
from layoutx.plan.plan import Plan
from layoutx.plan.run import run
from layoutx.plan.steps import Copy, Guard, Loop
from scripts import golden_plans

SPECS = golden_plans.specs()


def plans(kind: str) -> list[Plan]:
    found = []
    for source, target, rank in golden_plans.pairs(SPECS.kinds[kind]):
        try:
            found.append(golden_plans.planned(SPECS.kinds[kind], source, target, rank))
        except LayoutxError:
            continue
    return found


def numbers(plan: Plan, dtype) -> dict[str, np.ndarray]:
    """Different numbers everywhere, but what a guard wants; all positive, so that a root is one."""
    rng = np.random.default_rng(7)
    found = {t.name: np.asarray(rng.uniform(0.5, 2.0, t.shape)).astype(t.dtype or dtype) for t in plan.source.tensors}
    for step in plan.steps:
        if isinstance(step, Guard):
            found[step.source][...] = step.value
    return found


def put_together(move: Move, cut: Cut) -> np.ndarray:
    flat = {name: tensor.read().reshape(-1) for name, tensor in move.sources.items()}
    out = np.zeros(move.size, move.dtype)
    times = np.zeros(move.size, int)
    seen = Seen()
    for number in range(cut.many):
        piece = filled(move, cut, number, flat, seen).view(move.dtype)
        at = 0
        for first, size in cut.runs(number):
            out[first : first + size] = piece[at : at + size]
            times[first : first + size] += 1
            at += size
        assert at == len(piece)
    assert (times == 1).all()
    return out.reshape(move.shape)


def cuts(shape: tuple[int, ...]):
    """Along every axis in several widths, and flat ranges that end anywhere."""
    total = prod(shape)
    for axis, size in enumerate(shape):
        yield Cut(prod(shape[:axis]), size, prod(shape[axis + 1 :]), size // 2 + 1)
    yield Cut(1, total, 1, total // 5 + 1)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("kind", sorted(SPECS.kinds))
def test_pieces_are_what_the_plain_executor_makes(kind):
    """Every pair of forms that the golden plans show, cut along every axis and anywhere."""
    for plan in plans(kind):
        arrays = numbers(plan, np.float32)
        expected = run(plan, arrays, plain=True).tensors
        sources = {name: tensor_of(name, array) for name, array in arrays.items()}
        for move in moves_of(plan, sources, {t.name: t.name for t in plan.target.tensors}):
            few = list(cuts(move.shape)) if move.whole is None else []
            for cut in [move.recipe.cut, *few]:
                assert same(put_together(move, cut), expected[move.name]), (plan.source.form.name, move.name, cut)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64, np.uint8])
def test_any_width_is_cut_alike(dtype):
    """An LSTM's gates in another order, negated parts and all, as 2, 8 and 1 bytes."""
    for plan in plans("lstm" if np.dtype(dtype).kind != "u" else "embedding"):
        arrays = {name: array.astype(dtype) for name, array in numbers(plan, np.float32).items()}
        expected = run(plan, arrays, plain=True).tensors
        sources = {name: tensor_of(name, array) for name, array in arrays.items()}
        for move in moves_of(plan, sources, {t.name: t.name for t in plan.target.tensors}):
            for cut in cuts(move.shape) if move.whole is None else ():
                assert same(put_together(move, cut), expected[move.name])


def test_rows_of_a_kernel_that_lie_scattered_are_not_cut_across_its_window():
    """OIHW -> HWIO: a slab of the window would read every cache line for a few bytes; input channels lie together."""
    inputs, outputs = 512, 512
    loops = (
        Loop("h", 3, 3 * inputs * outputs, 3),
        Loop("w", 3, inputs * outputs, 1),
        Loop("in", inputs, outputs, 9),
        Loop("out", outputs, 1, 9 * inputs),
    )
    cut = cut_of((3, 3, inputs, outputs), 4, [Copy("t", "s", 0, 0, loops)])
    assert (cut.outer, cut.middle, cut.inner) == (9, inputs, outputs)
    assert cut.outer * cut.step * cut.inner * 4 <= PIECE
    assert len(clipped(Copy("t", "s", 0, 0, loops), cut, 0)) == 1


def test_a_matrix_is_cut_by_rows_and_a_vector_anywhere():
    matrix = (Loop("o", 8192, 8192, 1), Loop("i", 8192, 1, 8192))
    assert cut_of((8192, 8192), 4, [Copy("t", "s", 0, 0, matrix)]) == Cut(1, 8192, 8192, 256)
    vector = cut_of((10_000_019,), 4, [Copy("t", "s", 0, 0, (Loop("n", 10_000_019, 1, 1),))])
    assert vector.many == 5
    assert sum(n for k in range(vector.many) for _, n in vector.runs(k)) == 10_000_019
    assert cut_of((0, 5), 4, []).many == 0
    assert cut_of((), 4, []).many == 1


def test_pieces_of_many_threads_take_no_more_memory_than_those_of_a_few():
    matrix = tensor_of("w", np.zeros((8192, 1024), np.float32))
    recipe = kept("w", replace(matrix, shape=(8192, 8192))).recipe
    for jobs, most in ((1, PIECE), (3, PIECE), (8, PIECE * 3 // 8), (1000, LEAST)):
        cut = recipe.cut_for(jobs)
        assert most // 2 < cut.outer * cut.step * cut.inner * 4 <= most, jobs
    assert kept("w", tensor_of("w", np.zeros((5, 7), np.float32))).recipe.cut_for(1000).many == 1


@pytest.mark.parametrize(("cores", "jobs"), [(2, 2), (8, 8), (64, 8)])
def test_threads_are_one_for_each_core_up_to_as_many_as_help(monkeypatch, cores, jobs):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert jobs_of(None) == jobs
    assert jobs_of(100) == 100
