"""Another count of heads, tried over the divisors; layers that hold one another's numbers; two lost tensors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import planted_layers as layers
import pytest
from planted import broken, rewritten, unknown

from layoutx.files.store import Tensor
from layoutx.verify.diagnose.crossed import Owner, crossed
from layoutx.verify.diagnose.evaluate import outputs
from layoutx.verify.diagnose.heads import heads
from layoutx.verify.diagnose.search import search
from layoutx.verify.diagnose.suspect import Suspect


@pytest.mark.parametrize("known", [True, False])
def test_a_wrong_count_of_heads_is_one_of_the_divisors(known: bool) -> None:
    right = layers.made("attention", 2, 6)
    wrong = next(e for e in heads(right) if e.short == "num_heads 3").apply(right)
    suspect = replace(right, found=outputs(wrong))  # the config says 2 heads, the module computes with 3
    found = search(suspect if known else unknown(suspect))
    first = found.explanations[0]
    assert [edit.mode for edit in first.edits] == ["F23"]
    assert first.edits[0].short == "num_heads 2"
    assert "into 3 heads, not into 2" in first.edits[0].what
    assert first.edits[0].code.endswith("num_heads=2)")
    assert first.tried == 6, "1, 2, 3, 4, 6 and 12"
    assert first.rivals == ()
    assert first.after < 1e-12
    assert found.note == ""


def test_only_attention_has_heads() -> None:
    assert list(heads(layers.made("dense", 8, 8))) == []


def stored(suspect: Suspect) -> dict[str, Tensor]:
    """The source's tensors as a file has them."""
    return {n: Tensor(n, a.shape, str(a.dtype), lambda a=a: a) for n, a in suspect.weights.items()}


def three() -> tuple[list[Suspect], dict[str, Owner]]:
    """Three square layers, each moved rightly."""
    made = [replace(layers.MAKERS["dense"](8, 8, seed=n), name=f"f{n}", place=f"m.f{n}") for n in range(3)]
    return made, {one.name: Owner(one.place, one.source, stored(one)) for one in made}


def held_by(suspects: list[Suspect], places: dict[int, int], only: str = "") -> list[Suspect]:
    """Each of these with another one's numbers."""
    found = []
    for number, other in places.items():
        taken = {n: a for n, a in suspects[other].stored.items() if only in ("", n)}
        found.append(broken(suspects[number], lambda s, t=taken: replace(s, stored={**s.stored, **t})))
    return found


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ({0: 2, 2: 0}, "f0 and f2 hold one another's numbers"),
        ({0: 1, 1: 2, 2: 0}, "f0 those of f1, f1 those of f2, f2 those of f0"),
        ({1: 0, 2: 1}, "m.f1 holds the numbers of f0"),
        ({1: 0}, "m.f1 holds the numbers of f0"),
    ],
)
def test_layers_with_another_one_s_numbers(places: dict[int, int], said: str) -> None:
    made, owners = three()
    found = crossed(held_by(made, places), owners)
    assert len(found) == len(places)
    first = found[0].explanations[0]
    assert said in first.edits[0].what
    assert first.certain
    assert first.after < 1e-12
    assert "--pair" in first.edits[0].option


def test_the_fix_gives_each_place_what_another_one_holds() -> None:
    made, owners = three()
    code = crossed(held_by(made, {0: 1, 1: 2, 2: 0}), owners)[0].explanations[0].edits[0].code
    assert '"m.f0": "m.f2"' in code, "the numbers of f0 are at the place that holds them"
    assert '"m.f1": "m.f0"' in code


def test_kernels_alone_in_one_another_s_place() -> None:
    made, owners = three()
    found = crossed(held_by(made, {0: 2, 2: 0}, only="weight"), owners)
    assert len(found) == 2
    assert "its weight holds the weight of f2" in found[0].explanations[0].edits[0].what


def test_numbers_of_nobody_are_no_pairing() -> None:
    made, owners = three()
    noisy = broken(made[0], rewritten(weight=lambda w: w + 0.1))
    turned = broken(made[1], rewritten(weight=np.transpose))
    assert crossed([noisy, turned], owners) == {}
    half = held_by(made, {0: 2}, only="weight")[0]
    odd = broken(half, rewritten(bias=lambda b: b * 2))
    assert crossed([odd], owners) == {}


def lost(name: str, **values: float) -> Suspect:
    """A layer with tensors at their initial values."""
    changes = {key: (lambda w, v=value: np.full_like(w, v)) for key, value in values.items()}
    return unknown(broken(layers.made(name, 11), rewritten(**changes)))


@pytest.mark.parametrize(
    "suspect",
    [
        lost("batch_norm", weight=1.0, bias=0.0),
        lost("batch_norm", running_mean=0.0, running_var=1.0),
        lost("batch_norm", weight=1.0, bias=0.0, running_mean=0.0, running_var=1.0),
        lost("layer_norm", weight=1.0, bias=0.0),
    ],
    ids=["scale and shift", "statistics", "everything", "layer norm"],
)
def test_two_lost_tensors_of_a_norm_are_told_without_the_source_s(suspect: Suspect) -> None:
    found = search(suspect)
    first = found.explanations[0]
    assert {edit.mode for edit in first.edits} <= {"F13", "F14"}
    assert first.after < 1e-9
    assert first.before > 1e-3


def test_a_dense_layer_of_which_nothing_was_loaded() -> None:
    right = layers.MAKERS["dense"](3, 11, batch=40)
    rng = np.random.default_rng(7)
    nothing = unknown(broken(right, rewritten(weight=lambda w: rng.normal(size=w.shape), bias=np.zeros_like)))
    first = search(nothing).explanations[0]
    assert [edit.mode for edit in first.edits] == ["F13"]
    assert "weight and bias hold other numbers" in first.edits[0].what
    assert first.after < 1e-9
    noisy = unknown(broken(right, rewritten(weight=lambda w: w + 0.2 * rng.normal(size=w.shape), bias=np.zeros_like)))
    assert not any("not loaded" in e.what for one in search(noisy, budget=1.5).explanations for e in one.edits)
