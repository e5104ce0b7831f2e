"""Engine and oracle agree, element for element, on random kinds; and the coverage proof agrees with brute force."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Address, Stored, World, addresses, read, write
from random_kinds import Case, cases

from layoutx.errors import ConversionError, Problems
from layoutx.plan.plan import plan
from layoutx.plan.prove import tiles
from layoutx.plan.run import run
from layoutx.plan.steps import Exactness

REFUSALS = (ConversionError, Problems)  # one reason, or several together
ABSENT = {"zeros": 0.0, "ones": 1.0}


def twins(case: Case, address: Address) -> tuple[Address, ...]:
    """The addresses whose sum with this one is all that counts; () outside of a gauge."""
    if case.gauge is None or address[0] not in case.gauge[0]:
        return ()
    labels = dict(address[1])
    if any(labels[axis] not in some for axis, some in case.gauge[1].items()):
        return ()
    return tuple((role, *address[1:]) for role in case.gauge[0])


def refused(case: Case, here: set[Address], there: set[Address]) -> bool:
    """Whether no plan exists: something has no source and no absent value, or no place and no absent value."""
    without_source = [a for a in there - here if not any(t in here for t in twins(case, a))]
    without_place = [a for a in here - there if not any(t in there for t in twins(case, a))]
    return any(not case.roles[a[0]].absent for a in without_source) or any(
        not (case.roles[a[0]].absent or case.roles[a[0]].drop) for a in without_place
    )


def guarded(case: Case, here: set[Address], there: set[Address]) -> set[Address]:
    """Source addresses that may be left out only if they hold what absence means."""
    left = {a for a in here - there if not any(t in there for t in twins(case, a))}
    return {a for a in left if not case.roles[a[0]].drop}


def check_values(case: Case, given: dict[Address, float], found: dict[Address, float]) -> None:
    """Every target number is the source's, the absent value, or part of an unchanged sum."""
    for address, value in found.items():
        group = twins(case, address)
        if any(t in given for t in group):
            assert sum(found.get(t, 0.0) for t in group) == sum(given.get(t, 0.0) for t in group), address
            if all(t in found for t in group if t in given):
                assert value == given.get(address, 0.0), address
        elif address in given:
            assert value == given[address], address
        else:
            assert value == ABSENT[case.roles[address[0]].absent], address


def source_values(case: Case, here: set[Address], seed: int) -> dict[Address, float]:
    """A different whole number for each address, in an order that follows no layout."""
    ordered = sorted(here, key=lambda a: (a[0], sorted(a[1]), sorted(a[2])))
    numbers = np.random.default_rng(seed).permutation(len(ordered)) + 2.0
    return dict(zip(ordered, numbers, strict=True))


def stored(form) -> set[Address]:
    return {address for tensor in form.tensors for address, _ in addresses(tensor, form.world)[1]}


def agree(case: Case, seed: int) -> str:
    """Compare the engine with the oracle on one case; says which way the case went."""
    first, second = case.forms
    here, there = stored(first), stored(second)
    values = source_values(case, here, seed)
    must_be_absent = guarded(case, here, there)
    if seed % 3:
        values |= {a: ABSENT[case.roles[a[0]].absent] for a in must_be_absent if case.roles[a[0]].absent}
    source, target = case.bound(0, with_shapes=seed % 2 == 0), case.bound(1, with_shapes=seed % 2 == 1)
    if refused(case, here, there):
        with pytest.raises(REFUSALS):
            plan(source, target)
        return "refused"
    made = plan(source, target)
    arrays = {t.name: write(t, first.world, values) for t in first.tensors}
    if any(values[a] != ABSENT[case.roles[a[0]].absent] for a in must_be_absent):
        with pytest.raises(REFUSALS, match="has no place for"):
            run(made, arrays)
        return "guarded"
    result = run(made, arrays)
    assert set(result.tensors) == {t.name for t in second.tensors}
    found: dict[Address, float] = {}
    for tensor in second.tensors:
        found |= read(tensor, second.world, result.tensors[tensor.name])
    check_values(case, values, found)
    assert bool(result.guards) == (made.exactness is Exactness.CONDITIONAL) or made.exactness is Exactness.ROUNDS
    return str(made.exactness)


@settings(max_examples=1000, derandomize=True)
@given(cases(), st.integers(0, 99))
def test_engine_and_oracle_agree(case: Case, seed: int) -> None:
    agree(case, seed)


def test_random_kinds_are_not_all_alike() -> None:
    """Every way that a conversion can end is met, and every construct of the language is written."""
    import random

    from random_kinds import random_case

    made = [random_case(random.Random(seed), 2) for seed in range(300)]
    ends = Counter(agree(case, seed) for seed, case in enumerate(made))
    assert {"moves", "fills", "conditional", "rounds", "refused", "guarded"} <= set(ends)
    assert min(ends.values()) >= 5, ends
    texts = "\n".join(case.text for case in made)
    for construct in (
        "(",
        "{w",
        " -",
        "...",
        " 1",
        "p{",
        "p[",
        "{p}",
        ': "-w',
        "w0.x",
        "pin:",
        "equal:",
        "only:",
        "xx",
    ):
        assert construct in texts, construct


def test_the_oracle_notices_a_wrong_engine() -> None:
    """The test can fail: one swapped label, one axis not reversed, one wrong stride are each noticed."""
    sizes = {"a": 2, "b": 3}
    world = World(sizes)
    good = Stored("t", "w: (p[x y z] a) -b")
    values = {address: float(i) for i, (address, _) in enumerate(addresses(good, world)[1])}
    for wrong in ("w: (p[x z y] a) -b", "w: (p[x y z] a) b", "w: (a p[x y z]) -b", "-w: (p[x y z] a) -b"):
        array = write(Stored("t", wrong), world, values)
        assert read(good, world, array) != values, wrong
    assert read(good, world, write(good, world, values)) == values


def test_a_swapped_stride_in_the_engine_fails_the_oracle() -> None:
    import random

    from random_kinds import random_case

    noticed = 0
    for seed in range(40):
        case = random_case(random.Random(seed), 2)
        first, second = case.forms
        here, there = stored(first), stored(second)
        if refused(case, here, there) or guarded(case, here, there):
            continue
        values = source_values(case, here, seed)
        made = plan(case.bound(0), case.bound(1))
        broken = replace(made, steps=tuple(map(transposed, made.steps)))
        result = run(broken, {t.name: write(t, first.world, values) for t in first.tensors})
        found: dict[Address, float] = {}
        for tensor in second.tensors:
            found |= read(tensor, second.world, result.tensors[tensor.name])
        if broken != made:
            with pytest.raises(AssertionError):
                check_values(case, values, found)
            noticed += 1
    assert noticed >= 5


def transposed(step):
    """A copy whose last loop is read backwards."""
    loops = getattr(step, "loops", ())
    if not loops or not hasattr(step, "source_offset") or not hasattr(step, "target"):
        return step
    last = loops[-1]
    turned = replace(last, source=-last.source)
    return replace(step, loops=(*loops[:-1], turned), source_offset=step.source_offset + (last.size - 1) * last.source)


def brute(total: int, boxes) -> bool:
    """Coverage by the definition."""
    hits = Counter()
    for offset, loops in boxes:
        index = [offset]
        for size, stride in loops:
            index = [i + n * stride for i in index for n in range(size)]
        hits.update(index)
    return hits == Counter(range(total))


@st.composite
def tilings(draw):
    """Boxes that tile a range: cut from the blocks of a random layout; then perhaps spoiled."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    total = int(np.prod(sizes))
    strides = [int(np.prod(sizes[i + 1 :])) for i in range(len(sizes))]
    boxes = [(0, tuple(zip(sizes, strides, strict=True)))]
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(boxes) - 1))
        offset, loops = boxes[at]
        wide = [i for i, (size, _) in enumerate(loops) if size > 1]
        if not wide:
            continue
        axis = draw(st.sampled_from(wide))
        size, stride = loops[axis]
        cut = draw(st.integers(1, size - 1))
        lower = (*loops[:axis], (cut, stride), *loops[axis + 1 :])
        upper = (*loops[:axis], (size - cut, stride), *loops[axis + 1 :])
        boxes[at : at + 1] = [(offset, lower), (offset + cut * stride, upper)]
    spoil = draw(st.sampled_from(["no", "no", "shift", "drop", "twice", "stride", "swap"]))
    at = draw(st.integers(0, len(boxes) - 1))
    offset, loops = boxes[at]
    if spoil == "shift":
        boxes[at] = (offset + draw(st.sampled_from([-1, 1, 2])), loops)
    elif spoil == "drop":
        del boxes[at]
    elif spoil == "twice":
        boxes[at] = boxes[draw(st.integers(0, len(boxes) - 1))]
    elif spoil == "stride":
        boxes[at] = (offset, tuple((size, stride + 1) for size, stride in loops))
    elif spoil == "swap":
        boxes[at] = (offset, tuple(zip([s for s, _ in loops], [t for _, t in reversed(loops)], strict=True)))
    return total, draw(st.permutations(boxes))


def canonical(box):
    """A box as the prover makes it: outermost first, no loop of length one, neighbours merged."""
    from layoutx.plan.prove import _box

    return _box(*box)


@settings(max_examples=800, derandomize=True)
@given(tilings())
def test_coverage_agrees_with_brute_force(tiling) -> None:
    total, boxes = tiling
    assert tiles(total, [canonical(box) for box in boxes]) == brute(total, boxes)


@pytest.mark.parametrize(
    ("total", "boxes", "whole"),
    [
        (6, [(0, ((6, 1),))], True),
        (6, [(0, ((3, 2),)), (1, ((3, 2),))], True),
        (6, [(0, ((3, 2),)), (0, ((3, 2),))], False),  # an overlap and a gap of the same size
        (6, [(0, ((3, 1),)), (2, ((3, 1),))], False),
        (6, [(0, ((5, 1),))], False),
        (6, [(1, ((6, 1),))], False),
        (6, [(-1, ((6, 1),))], False),
        (0, [], True),
        (1, [], False),
        (1, [(0, ())], True),
        (1 << 40, [(0, ((1 << 40, 1),))], True),
        (1 << 40, [(0, ((1 << 20, 1 << 20), (1 << 19, 1))), (1 << 19, ((1 << 20, 1 << 20), (1 << 19, 1)))], True),
        (1 << 40, [(0, ((1 << 20, 1 << 20), (1 << 19, 1))), (1 << 18, ((1 << 20, 1 << 20), (1 << 19, 1)))], False),
    ],
)
def test_coverage_of_known_boxes(total: int, boxes, whole: bool) -> None:
    assert tiles(total, boxes) is whole
