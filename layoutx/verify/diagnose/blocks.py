"""Square blocks of a packed tensor that are transposed one by one: the queries alone, one gate (F2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

import numpy as np

from layoutx.plan.plan import Array
from layoutx.spec.bound import BoundTensor
from layoutx.verify.diagnose.fixes import ported, rewritten
from layoutx.verify.diagnose.suspect import Edit, Suspect
from layoutx.words import listed

MOST = 4  # blocks of one tensor; more are packed otherwise


def blocks(suspect: Suspect) -> Iterator[Edit]:
    """Every choice of blocks of a matrix that holds several square ones, but for all of them."""
    for tensor in suspect.target.tensors:
        if len(tensor.shape) != 2 or min(tensor.shape) < 2:
            continue
        side = min(tensor.shape)
        many, rest = divmod(max(tensor.shape), side)
        if rest == 0 and 2 <= many <= MOST:
            for size in range(1, many):
                yield from (_edit(suspect, tensor, many, chosen) for chosen in combinations(range(many), size))


def _edit(suspect: Suspect, tensor: BoundTensor, many: int, chosen: tuple[int, ...]) -> Edit:
    side, axis = min(tensor.shape), int(tensor.shape[1] > tensor.shape[0])

    def apply(s: Suspect) -> Suspect:
        parts = np.split(s.stored[tensor.name], many, axis)
        turned: list[Array] = [part.T if at in chosen else part for at, part in enumerate(parts)]
        return replace(s, stored={**s.stored, tensor.name: np.concatenate(turned, axis)})

    cuts = [f"{at * side}:{(at + 1) * side}" for at in range(many)]
    cuts = [f"{{w}}[:, {cut}]" if axis else f"{{w}}[{cut}]" for cut in cuts]
    steps = ", ".join(f"{cut}.T" if at in chosen else cut for at, cut in enumerate(cuts))
    names = listed([_name(suspect, tensor, axis, side, at) for at in chosen])
    verb = "is" if len(chosen) == 1 else "are"
    what = f"{names} in {tensor.name} {verb} transposed, the rest of it is not"
    code = rewritten(suspect, tensor.name, f"np.concatenate([{steps}], {axis})")
    return Edit("F2", f"blocks of {tensor.name}", what, apply, ported(suspect), code, f"{names} transposed")


def _name(suspect: Suspect, tensor: BoundTensor, axis: int, side: int, at: int) -> str:
    """What begins in a block, "w_q"; its rows where nothing or several roles do."""
    long = tensor.shape[1]
    found = [
        ".".join((role, *(label for _, label in labels)))
        for (role, labels), place in suspect.target.places.items()
        if place.tensor == tensor.name and divmod(place.block.offset, long)[axis] // side == at
    ]
    where = f"{'columns' if axis else 'rows'} {at * side} to {(at + 1) * side - 1}"
    return found[0] if len(found) == 1 else where
