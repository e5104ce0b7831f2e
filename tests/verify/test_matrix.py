"""Every kind, every ordered pair of forms, every witness: refused with a known reason, or the way back gives the same
bits and the target's own framework computes what the source's did, as well as docs/matrix says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from layoutx.plan.plan import Array
from layoutx.verify import live
from layoutx.verify.layer import run_live
from layoutx.verify.witness import bind_case, read
from scripts import matrix, matrix_runs
from scripts.matrix_runs import FRAMEWORKS, MAIN, conversions, converted, files, rounded_up, specs
from tests.verify.refusals import refusal

# what the first line of a refusal may be: a fact, a size or a number of the mathematics, never "does not fit"
MATHEMATICS = re.compile(
    r"cannot hold this|has no place for|has nothing for|is \d+, not \d+|is \d+ in .* and \d+ in|has one \w+ for|"
    r"described for|nothing determines the size of [hw]"  # slopes by position, of data whose height nobody knows
)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("path", files(), ids=lambda path: path.stem)
def test_all_pairs(path: Path, framework: str) -> None:
    if not live.available(framework):
        pytest.skip(f"{framework} is not installed")
    wrong = []
    for case, form, config, found in conversions(read(path), framework):
        problem = found.wrong
        if framework in MAIN and case.framework in MAIN and not problem:
            why = refusal(bind_case(case, specs())[0][0], form.name, config)
            problem = "" if bool(why) == bool(found.refused) else f"refused: {found.refused!r}, expected: {why!r}"
        elif found.refused and not MATHEMATICS.search(found.refused):
            problem = f"is refused without a reason: {found.refused}"
        elif not found.refused and not problem:
            told = matrix.measured().get(f"{case.form} -> {form.name}", {}).get(found.dtype, 0.0)
            if rounded_up(found.error, found.dtype) > told * 10:
                problem = f"differs by {found.error:.1e}; docs/matrix says {told:.0e}: scripts/matrix.py --measure"
        if problem:
            wrong.append(f"{case.name} -> {framework}: {form.name}: {problem}")
    assert wrong == [], f"{len(wrong)} conversions"


def test_the_matrix_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal that nobody expects, one that does not come, and a number that is not moved are all told."""
    pytest.importorskip("torch")
    cases = {case.name: case for path in files() if path.stem in ("gru.keras", "lstm.keras") for case in read(path)}
    lstm, gru = specs().form("torch.LSTM"), specs().form("torch.GRU")
    before = cases["keras: keras.GRU (2, 5, 7) units=3 reset_after=false version=3"]
    plain = cases["keras: keras.LSTM (2, 5, 7) units=3 version=3"]
    assert converted(before, gru, {}).refused.startswith("torch.GRU cannot hold this keras.GRU: reset is before")
    fine = converted(plain, lstm, {})
    assert (fine.refused, fine.wrong) == ("", "")
    assert fine.error < 1e-12
    real = run_live
    monkeypatch.setattr(matrix_runs, "run_live", lambda bound, tensors, *rest: real(bound, spoilt(tensors), *rest))
    assert converted(plain, lstm, {}).wrong.startswith("computes another ")


def spoilt(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """The first tensor with its last number changed by a thousandth."""
    found = {name: array.copy() for name, array in tensors.items()}
    next(iter(found.values())).reshape(-1)[-1] += 1e-3
    return found


def test_every_pair_of_witnessed_forms_is_run_or_has_a_reason() -> None:
    text = (matrix.FOLDER / "README.md").read_text(encoding="utf-8")
    assert "witnessed pairs that are not refused were run" in text
    assert "unexplained" not in text


def test_a_pair_without_a_run_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"bilinear": matrix.planned("bilinear")}
    (line,) = matrix.left(found)
    assert line == "6 of 6 witnessed pairs that are not refused were run."
    monkeypatch.setattr(matrix, "error_of", lambda pair: "" if pair.source == "torch.Bilinear" else "1e-15 float64")
    assert matrix.left(found)[0].startswith("4 of 6 ")
    assert matrix.left(found)[-1].startswith("- unexplained: torch.Bilinear -> ")
    monkeypatch.setattr(matrix, "NOT_RUN", {"torch.* -> *": "a reason"})
    assert matrix.left(found)[-1].startswith("- a reason: torch.Bilinear -> ")
