"""Hashes that anyone can compute again, that change with every byte, and that come out alike in any order."""

from __future__ import annotations

import hashlib
import itertools
import random

import ml_dtypes
import numpy as np
import pytest
import xxhash

from layoutx.files.certified import EXTRA, MISSING, NAMED, OK, certified, hashed
from layoutx.files.hashes import KINDS, LEAF, SHA256, XXH3, Leaves, hash_of, leaves_of

DATA = np.frombuffer(np.random.default_rng(3).bytes(3 * LEAF + 4_567), np.uint8)


def by_the_docstring(array: np.ndarray, digest) -> str:
    """The hash from the words of the module alone."""
    data, found = array.tobytes(), b""
    while data:
        found += digest(data[: 128 * 1024])
        data = data[128 * 1024 :]
    return digest(f"{array.dtype.name} {','.join(str(n) for n in array.shape)}\n".encode() + found).hex()


@pytest.mark.parametrize("size", [0, 1, LEAF, LEAF + 1, DATA.size])
def test_the_hash_of_a_tensor_is_what_the_docstring_says(size):
    array = DATA[:size]
    assert hash_of(array) == by_the_docstring(array, lambda data: xxhash.xxh3_128(data).digest())
    assert hash_of(array, SHA256) == by_the_docstring(array, lambda data: hashlib.sha256(data).digest())


def test_dtype_and_shape_count_and_the_name_of_a_dtype_is_the_usual_one():
    numbers = np.arange(12, dtype=np.float32)
    brain = numbers.astype(ml_dtypes.bfloat16)
    for array in (numbers, numbers.reshape(3, 4), brain, np.float32(7.0).reshape(()), numbers.astype("f8")):
        assert hash_of(array) == by_the_docstring(array, lambda data: xxhash.xxh3_128(data).digest())
    several = [numbers, numbers.reshape(3, 4), numbers.reshape(4, 3), numbers.view(np.int32), brain]
    assert len({hash_of(array) for array in several}) == len(several)


def test_every_byte_and_the_order_of_leaves_count():
    first = hash_of(DATA)
    for at in (0, LEAF - 1, LEAF, DATA.size - 1):
        other = DATA.copy()
        other[at] ^= 1
        assert hash_of(other) != first
    assert hash_of(np.concatenate([DATA[LEAF : 2 * LEAF], DATA[:LEAF], DATA[2 * LEAF :]])) != first


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [LEAF, LEAF // 2 + 1, LEAF + 7, 3 * LEAF, 10 * LEAF, 65_537])
def test_pieces_of_any_size_in_any_order_give_the_same(kind, step):
    cuts = [*range(0, DATA.size, step), DATA.size]
    pieces = list(itertools.pairwise(cuts))
    random.Random(step).shuffle(pieces)
    leaves = Leaves(DATA.size, kind)
    last = [leaves.feed(begin, DATA[begin:end]) for begin, end in pieces]
    assert last == [False] * (len(pieces) - 1) + [True]
    assert leaves.taken() == leaves_of(DATA, kind)
    assert leaves.digests == b""


def test_a_hash_with_a_hole_in_it_is_none():
    leaves = Leaves(DATA.size)
    leaves.feed(0, DATA[: LEAF + 5])
    with pytest.raises(ValueError, match="before all bytes"):
        leaves.taken()


def test_many_tensors_are_packed_and_found_again():
    """Of more than anybody reads: 100,000 names and hashes would be 8 MB more in the header of the file."""
    many = {f"layer.{n}.weight": f"{n:032x}" for n in range(NAMED + 3)}
    own = hashed(XXH3, many, {"a": "0" * 32})
    assert set(own["hashes"]["tensors"]) == {"many", "names", "packed"}
    side = certified(own, "f").tensors
    assert side.many == len(many)
    assert set(side.compared(dict(reversed(many.items()))).values()) == {OK}
    changed = {**many, "layer.5.weight": "f" * 32}
    assert [name for name, one in side.compared(changed).items() if one != OK] == ["layer.5.weight"]
    gone = {name: one for name, one in many.items() if name != "layer.7.weight"} | {"new": "e" * 32}
    states = side.compared(gone)
    assert states["new"] == EXTRA
    assert [one for one in states.values() if one != OK] == [EXTRA, MISSING]


def test_up_to_that_number_every_hash_has_its_name():
    few = {f"layer.{n}": f"{n:032x}" for n in range(NAMED)}
    assert hashed(XXH3, few)["hashes"]["tensors"] == few
