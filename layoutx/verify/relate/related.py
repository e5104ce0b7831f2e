"""One layer in two files: for each tensor of the second, the exact relation to the numbers of the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from layoutx.plan.plan import Array, Plan
from layoutx.spec.bound import BoundForm, BoundTensor
from layoutx.verify.relate.change import roundings
from layoutx.verify.relate.cover import Cover, cover
from layoutx.verify.relate.expected import expectation, flat_of
from layoutx.verify.relate.folded import Norm, folded
from layoutx.verify.relate.near import nearness
from layoutx.verify.relate.numbers import numbers_of, slot, sums_of
from layoutx.verify.relate.relation import CLOSE, INITIAL, LAYOUT, OTHER, ROUNDED, SAME, VALUES, TensorRelation
from layoutx.verify.relate.search import search
from layoutx.verify.relate.splits import split
from layoutx.verify.relate.telling import label_orders
from layoutx.verify.relate.ties import agreement, alike, ordered, relabelled
from layoutx.verify.relate.told import Layer, reads_of, told
from layoutx.verify.relate.twice import hints
from layoutx.verify.relate.written import piece_of, written

SAMPLE = 4096


def related(
    source: BoundForm,
    weights: Mapping[str, Array],
    target: BoundForm,
    stored: Mapping[str, Array],
    *,
    plan: Plan | None = None,
    norms: Sequence[Norm] = (),
) -> list[TensorRelation]:
    """The relation of each stored tensor to the source's weights.

    Args:
        source, target: the layer bound on both sides.
        weights, stored: form tensor name -> array; tensors that are missing are left out.
        plan: from source to target, where it is known already.
        norms: batch norms of the source that may have been folded into this layer.

    Returns:
        One relation for each tensor of the target that is stored, in the form's order.
    """
    numbers = numbers_of(source, weights)
    expected = expectation(source, weights, target, numbers, plan)
    single = {axis for axis, labels in target.labels.items() if len(labels) == 1}
    silent = tuple(axis for axis in single if len(source.labels.get(axis, ("",))) == 1)
    layer = Layer(target, stored, numbers, list(sums_of(source, numbers)), expected, silent)
    own = [t for t in target.tensors if t.name in stored]
    found = {t.name: _as_read(t, layer) for t in own}
    covers = {t.name: _covered(t, layer) for t in own if found[t.name] is None}
    for t in own:
        if t.name in covers and covers[t.name].plain:
            uncut = _uncut(t, layer) if t.cut is not None else None
            found[t.name] = uncut or told(t, covers[t.name], layer)
    for t in sorted(own, key=lambda t: -layer.stored[t.name].size):  # large ones say the order for small ones
        if found[t.name] is None:
            agreed = agreement([r for r in found.values() if r is not None])
            found[t.name] = _explained(t, covers[t.name], layer, agreed)
    relations = [r for r in found.values() if r is not None]
    relations = folded(relations, target, stored, expected, norms)
    relations = hints(relations, source, weights, target, stored, plan)
    return split(relations, source, target, numbers, numbers_of(target, stored))


def _as_read(tensor: BoundTensor, layer: Layer) -> TensorRelation | None:
    """Stored as the registry says, or rounded from that; None otherwise."""
    wanted, there = layer.expected[tensor.name], layer.stored[tensor.name]
    reads = reads_of(tensor, layer)
    plain = TensorRelation(
        tensor.name,
        SAME,
        reads.text,
        reads.text,
        labels=label_orders(reads.dims) if _tells(there) else {},
        sizes=reads.sizes,
    )
    if tensor.blocks and all(layer.target.kind.roles[block.role].drop for block in tensor.blocks):
        return plain  # a count of batches: nothing that the layer computes with
    if wanted.shape != there.shape:
        return None
    if _equal(wanted, there):
        return plain
    with np.errstate(over="ignore"):
        rounded = wanted.astype(there.dtype)
    if _equal(rounded, there) and there.dtype.kind not in "iub":
        lost = int(np.count_nonzero(np.isfinite(wanted) & ~np.isfinite(there)))
        if lost:
            words = (f"{lost} numbers were too large for {there.dtype} and are infinite now",)
            return replace(plain, status=VALUES, words=words, residual=float("inf"), wrong=lost)
        return replace(plain, status=ROUNDED, words=(f"rounded to {there.dtype}",))
    if there.dtype.kind not in "iub" and _equal(there.astype(wanted.dtype), wanted):
        words = (f"it has more digits: the source holds these numbers rounded to {wanted.dtype}",)
        return replace(plain, status=ROUNDED, words=words)
    for change in roundings(wanted.dtype, there):
        if _equal(change(wanted, there.dtype), there):
            return replace(plain, status=ROUNDED, words=(change.text,))
    return None


def _tells(stored: Array) -> bool:
    """Whether the numbers are not all equal, so that their order can be seen."""
    return bool(stored.size) and bool((stored != stored.reshape(-1)[0]).any())


def _equal(left: Array, right: Array) -> bool:
    some = slice(None, None, max(1, left.size // SAMPLE))
    for a, b in ((left.reshape(-1)[some], right.reshape(-1)[some]), (left, right)):
        if not ((a == b) | ((a != a) & (b != b))).all():
            return False
    return True


def _covered(tensor: BoundTensor, layer: Layer) -> Cover:
    flat = flat_of(layer.target, tensor.name, layer.stored[tensor.name])
    wanted = flat_of(layer.target, tensor.name, layer.expected[tensor.name])
    sizes = layer.target.sizes
    blocks = [b for b in tensor.blocks if all(axis in sizes for axis in b.strides)]
    return cover(replace(tensor, blocks=tuple(blocks)), flat, layer.numbers, layer.sums, sizes, wanted)


def _wrong(found: Cover) -> int:
    return sum(piece.wrong for piece in found.pieces)


def _explained(
    tensor: BoundTensor, found: Cover, layer: Layer, agreed: Mapping[str, tuple[str, ...]]
) -> TensorRelation:
    """A tensor that values alone do not explain exactly: another order, changed numbers, nearly the same, or none."""
    tie = _uncut(tensor, layer) if tensor.cut is not None else ordered(tensor, found, layer, agreed)
    if tie is not None:
        return tie
    if found.whole and not _wrong(found):
        return told(tensor, found, layer)
    return _agreeing(tensor, layer, agreed) or alike(tensor, found, layer) or _approached(tensor, found, layer)


def _uncut(tensor: BoundTensor, layer: Layer) -> TensorRelation | None:
    """A tensor that is read in blocks (CuDNN's memory), stored as if it were not; None where it is not that."""
    flat = layer.stored[tensor.name].reshape(-1)
    found = Cover(flat, np.zeros(flat.size, bool))
    found.take(search([*layer.numbers.values(), *layer.sums], flat), [])
    holds = written([piece_of(p) for p in found.pieces], tensor.shape, layer.silent) if found.plain else None
    if holds is None:
        return None
    reads = reads_of(tensor, layer).text
    words = (f"it lies as {holds.text}, not cut into blocks as {layer.target.form.name} reads it",)
    return TensorRelation(tensor.name, LAYOUT, holds.text, reads, words, sizes=holds.sizes, found=tuple(found.pieces))


def _agreeing(tensor: BoundTensor, layer: Layer, agreed: Mapping[str, tuple[str, ...]]) -> TensorRelation | None:
    """A tensor of equal and changed numbers, tried in the label order that the layer's other tensors have."""
    other = relabelled(tensor, agreed)
    if other is None:
        return None
    blocks, wanted = other, flat_of(layer.target, tensor.name, layer.expected[tensor.name]).copy()
    own = {(b.role, b.labels): b for b in tensor.blocks}
    for block in blocks:
        first = own[(block.role, block.labels)]
        flat = flat_of(layer.target, tensor.name, layer.expected[tensor.name])
        slot(block, wanted, layer.target.sizes)[...] = slot(first, flat, layer.target.sizes)
    flat = flat_of(layer.target, tensor.name, layer.stored[tensor.name])
    found = cover(replace(tensor, blocks=blocks), flat, layer.numbers, layer.sums, layer.target.sizes, wanted)
    return told(tensor, found, layer) if found.whole and not _wrong(found) else None


def _approached(tensor: BoundTensor, found: Cover, layer: Layer) -> TensorRelation:
    """A tensor that no relation makes: partly explained, nearly equal, never written, or something else."""
    if found.whole:
        return told(tensor, found, layer)
    reads = reads_of(tensor, layer)
    near = nearness(flat_of(layer.target, tensor.name, layer.expected[tensor.name]), found.flat)
    status = {"close": CLOSE, "initial": INITIAL}.get(near.word, OTHER)
    words = list(near.words)
    share = int(found.taken.sum())
    if share and status == OTHER:
        names = ", ".join(p.numbers.text for p in found.pieces[:4])
        words.append(f"{share:,} of {found.flat.size:,} numbers are found: {names}")
    holds = reads.text if status == CLOSE else ""
    wrong = near.apart if near.apart >= 0 else found.flat.size - share
    return TensorRelation(
        tensor.name, status, holds, reads.text, tuple(words), near.residual, wrong,
        found=tuple(found.pieces),
    )  # fmt: skip
