"""Tensors of many equal numbers: the order of dims and labels that makes all of them, and what else would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from layoutx.lang.place import Block
from layoutx.plan.plan import Array
from layoutx.spec.bound import BoundTensor
from layoutx.verify.relate.cover import LARGEST_SORTED, Cover
from layoutx.verify.relate.expected import flat_of
from layoutx.verify.relate.near import nearness
from layoutx.verify.relate.orders import MOST_FITS, Order, orders, pieces_of
from layoutx.verify.relate.relation import CLOSE, LAYOUT, TensorRelation
from layoutx.verify.relate.telling import differences, label_orders
from layoutx.verify.relate.told import Layer, reads_of
from layoutx.verify.relate.written import written

LIKE = 0.9
ENOUGH = 200  # numbers below which a correlation says little about an order


def agreement(relations: Sequence[TensorRelation]) -> dict[str, tuple[str, ...]]:
    """Enumerated axis -> the one order that all tensors so far agree on."""
    found: dict[str, set[tuple[str, ...]]] = {}
    for relation in relations:
        for axis, order in relation.labels.items():
            found.setdefault(axis, set()).add(order)
    return {axis: next(iter(own)) for axis, own in found.items() if len(own) == 1}


def relabelled(tensor: BoundTensor, agreed: Mapping[str, tuple[str, ...]]) -> tuple[Block, ...] | None:
    """The blocks of a tensor with their labels in the agreed orders; None where that changes nothing."""
    blocks = tensor.blocks
    for axis, order in agreed.items():
        own = list(dict.fromkeys(dict(b.labels)[axis] for b in sorted(blocks, key=_at) if axis in dict(b.labels)))
        if len(own) < 2 or sorted(own) != sorted(order):
            continue
        new = dict(zip(own, order, strict=True))
        blocks = tuple(
            replace(b, labels=tuple((a, new[label] if a == axis else label) for a, label in b.labels)) for b in blocks
        )
    return blocks if blocks != tensor.blocks else None


def _at(block: Block) -> int:
    return block.offset


def ordered(
    tensor: BoundTensor, found: Cover, layer: Layer, agreed: Mapping[str, tuple[str, ...]]
) -> TensorRelation | None:
    """An order that makes all of the tensor from what is read there, or from what its sisters hold; else None."""
    sisters = [t for t in layer.target.tensors if t.shape == tensor.shape and t.name != tensor.name and t.cut is None]
    for origin in (tensor, *sisters):
        exact = [order for order in _fits(tensor, origin, found, layer, True) if order.exact]
        if not exact:
            continue
        suits = [o for o in exact if all(agreed.get(axis, own) == own for axis, own in o.labels.items())]
        relation = _arranged(tensor, origin, layer, (suits or exact)[0])
        rivals = len(suits or exact) - 1
        if not rivals:
            return relation
        many = f"{rivals + 1}{' or more' if len(exact) >= MOST_FITS else ''} orders fit: equal numbers hide which"
        return replace(
            relation, rivals=rivals, words=(*relation.words, many), labels={} if not suits else relation.labels
        )
    return None


def _fits(tensor: BoundTensor, origin: BoundTensor, found: Cover, layer: Layer, exactly: bool) -> list[Order]:
    wanted = flat_of(layer.target, origin.name, layer.expected[origin.name])
    if tensor.cut is not None or wanted.shape != found.flat.shape or not wanted.any():
        return []
    wanted = wanted.astype(found.flat.dtype)
    if exactly and not _permuted(wanted, found.flat):
        return []
    return orders(origin.layout.dims, layer.target.sizes, wanted, found.flat)


def _permuted(left: Array, right: Array) -> bool:
    """Whether two arrays can be the same numbers in another order; of large ones only the extremes are compared."""
    if left.size > LARGEST_SORTED:
        return bool(left.min() == right.min() and left.max() == right.max())
    return np.array_equal(np.sort(left), np.sort(right))


def _arranged(tensor: BoundTensor, origin: BoundTensor, layer: Layer, order: Order) -> TensorRelation:
    sizes, reads = layer.target.sizes, reads_of(tensor, layer)
    role = reads_of(origin, layer).head.partition(".")[0]
    fixed = {k: v for k, v in (origin.blocks[0].labels if origin.blocks else ()) if k not in order.labels}
    pieces = [replace(p, labels={**fixed, **p.labels}) for p in pieces_of(order, sizes, role)]
    holds = written(pieces, tensor.shape, layer.silent)
    words = differences(holds, reads, layer.target.form.name) if holds else []
    return TensorRelation(
        tensor.name, LAYOUT, holds.text if holds else "", reads.text, tuple(words),
        labels=label_orders(holds.dims) if holds else {}, sizes=holds.sizes if holds else {},
    )  # fmt: skip


def alike(tensor: BoundTensor, found: Cover, layer: Layer) -> TensorRelation | None:
    """Nearly the same numbers in another order: trained further after the conversion, say."""
    fits = _fits(tensor, tensor, found, layer, False) if found.flat.size >= ENOUGH and not found.whole else []
    if not fits or fits[0].like < LIKE:
        return None
    plain = nearness(flat_of(layer.target, tensor.name, layer.expected[tensor.name]), found.flat).correlation
    if fits[0].like <= plain + 0.02:
        return None
    relation = _arranged(tensor, tensor, layer, fits[0])
    near = f"nearly the same numbers in that order (correlation {fits[0].like:.4g})"
    words = (*relation.words, near)
    return replace(relation, status=CLOSE, words=words, residual=float("nan"), wrong=found.flat.size)
