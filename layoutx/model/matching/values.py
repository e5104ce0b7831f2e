"""Whether two layers hold the same numbers in any order: fingerprints of each role over bit patterns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np

from layoutx.errors import LayoutxError
from layoutx.files.dtypes import Array
from layoutx.files.store import Tensor
from layoutx.spec.bound import BoundForm

CHUNK = 1 << 16  # elements at a time: the mixing stays in the cache


@dataclass
class Numbers:
    """Fingerprints of the tensors of two models, each read once for each question.

    Two numbers are the same where their bits are, in the narrower float type of both; 0 and -0 are one, and zeros
    do not count: a filled bias says nothing.
    """

    ends: dict[int, tuple[float, float]] = field(default_factory=dict)
    sums: dict[tuple[int, str, str], int] = field(default_factory=dict)
    kept: list[object] = field(default_factory=list)  # ids stay theirs

    def agreement(
        self, left: BoundForm, here: Mapping[str, Tensor], right: BoundForm, there: Mapping[str, Tensor]
    ) -> tuple[float, tuple[str, ...]]:
        """The share of the left layer's numbers that lie in roles with the same numbers right, and these roles."""
        total, same = 0, list[tuple[str, int]]()
        try:
            for role in dict.fromkeys(role for role, _ in left.places):
                mine, yours = _pieces(left, here, role), _pieces(right, there, role)
                size = sum(n for _, _, n in mine)
                if size < 2 or size != sum(n for _, _, n in yours) or not self._told(mine):
                    continue
                total += size
                if self._alike(mine, yours, role):
                    same.append((role, size))
        except LayoutxError:  # no numbers at all: a tensor on the meta device
            return 0.0, ()
        return (sum(n for _, n in same) / total if total else 0.0), tuple(role for role, _ in same)

    def _told(self, pieces: list[Piece]) -> bool:
        """Whether the numbers are not all one: fresh zeros and ones are no evidence."""
        if any(tensor.dtype.kind not in "fiub" and tensor.dtype.name != "bfloat16" for tensor, _, _ in pieces):
            return False
        ends = [self._ends(tensor) for tensor, _, _ in pieces]
        return min(low for low, _ in ends) < max(high for _, high in ends)

    def _alike(self, mine: list[Piece], yours: list[Piece], role: str) -> bool:
        dtype = min((t.dtype for t, _, _ in (*mine, *yours)), key=lambda d: d.itemsize)
        if len({t.dtype.kind in "iub" for t, _, _ in (*mine, *yours)}) > 1:
            return False
        whole = all(part is None for _, part, _ in (*mine, *yours))
        if whole and len(mine) == len(yours) == 1:  # the largest and the smallest number cost no mixing
            with np.errstate(over="ignore"):  # a narrower file may hold infinities
                ends = [np.array(self._ends(pieces[0][0])).astype(dtype) for pieces in (mine, yours)]
            if ends[0].tobytes() != ends[1].tobytes():
                return False
        return self._sum(mine, role, dtype) == self._sum(yours, role, dtype)

    def _ends(self, tensor: Tensor) -> tuple[float, float]:
        if id(tensor) not in self.ends:
            self.kept.append(tensor)
            array = tensor.read()
            self.ends[id(tensor)] = (float(array.min()) + 0.0, float(array.max()) + 0.0) if array.size else (0.0, 0.0)
        return self.ends[id(tensor)]

    def _sum(self, pieces: list[Piece], role: str, dtype: np.dtype[np.generic]) -> int:
        total = 0
        for tensor, part, _ in pieces:
            key = (id(tensor), role if part is not None else "", dtype.name)
            if key not in self.sums:
                self.kept.append(tensor)
                array = tensor.read()
                self.sums[key] = fingerprint(array if part is None else _taken(array, part), dtype)
            total += self.sums[key]
        return total % (1 << 64)


Cut = tuple[tuple[int, tuple[int, ...], tuple[int, ...]], ...]  # offset, lengths and steps of each block
Piece = tuple[Tensor, Cut | None, int]  # tensor; how to cut it, None for all of it; how many numbers


def _pieces(bound: BoundForm, tensors: Mapping[str, Tensor], role: str) -> list[Piece]:
    """The stored tensors in which a role's numbers lie; those with other roles in them are cut."""
    found: list[Piece] = []
    for tensor in bound.tensors:
        own = [block for block in tensor.blocks if block.role == role]
        if not own or tensor.cut or tensor.name not in tensors:
            continue
        stored = tensors[tensor.name]
        if len(own) == len(tensor.blocks):
            found.append((stored, None, stored.size))
        else:
            shapes = [[bound.sizes.get(axis, 1) for axis in block.strides] for block in own]
            cut = tuple(
                (b.offset, tuple(shape), tuple(b.strides.values())) for b, shape in zip(own, shapes, strict=True)
            )
            found.append((stored, cut, sum(prod(shape) for shape in shapes)))
    return found


def _taken(array: Array, cut: Cut) -> Array:
    """The elements of one role of a tensor that holds several, block after block."""
    flat = np.ascontiguousarray(array).reshape(-1)
    width = flat.itemsize
    parts = [
        np.lib.stride_tricks.as_strided(flat[offset:], shape, [s * width for s in strides]).reshape(-1)
        for offset, shape, strides in cut
    ]
    return np.concatenate(parts)


def fingerprint(array: Array, dtype: np.dtype[np.generic]) -> int:
    """The sum of all mixed bit patterns: the same for every order, nothing for zeros (the mixer maps 0 to 0).

    The mixers are the finalizers of MurmurHash3 (A. Appleby), of 32 and 64 bits.
    """
    flat = array.reshape(-1)
    wide = dtype.itemsize > 4 or dtype.kind in "iub"
    total = 0
    for start in range(0, flat.size, CHUNK):
        with np.errstate(over="ignore"):
            part = flat[start : start + CHUNK].astype(dtype)
        if dtype.kind in "iub":
            bits = part.astype(np.int64).view(np.uint64)
        elif wide:
            bits = (part + 0.0).view(np.uint64)  # -0 becomes 0
        else:
            bits = (part.astype(np.float32) + np.float32(0)).view(np.uint32)
        total += int(_mixed(bits, wide).sum(dtype=np.uint64))
    return total % (1 << 64)


def _mixed(bits: Array, wide: bool) -> Array:
    shifts = (33, 33, 33) if wide else (16, 13, 16)
    factors = (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53) if wide else (0x85EBCA6B, 0xC2B2AE35)
    of = bits.dtype.type
    for shift, factor in zip(shifts, (*factors, 1), strict=True):
        bits ^= bits >> of(shift)
        bits *= of(factor)
    return bits
