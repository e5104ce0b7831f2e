"""Activations between layouts: the same language says in which order a framework takes and gives its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from layoutx.empty import NOTHING
from layoutx.errors import SizeError
from layoutx.lang.parse import parse_dims
from layoutx.lang.place import place, shape_of
from layoutx.lang.show import show_dims
from layoutx.lang.sizes import Equation, solve
from layoutx.lang.tree import Axis, Dim, Layout, Option, Product, Spread, Sum, walk
from layoutx.plan.plan import Array
from layoutx.plan.views import view
from layoutx.spec.bound import BoundForm
from layoutx.spec.expand import count_spread, expand

SPATIAL = ("s0", "s1", "s2", "s3")


def rearrange(
    array: Array,
    here: Sequence[Dim],
    there: Sequence[Dim],
    sizes: Mapping[str, int],
    *,
    labels: Mapping[str, Sequence[str]] = NOTHING,
    refine_here: Mapping[str, str] = NOTHING,
    refine_there: Mapping[str, str] = NOTHING,
) -> Array:
    """Move an activation from one axis order to another, axes agreeing by name.

    Args:
        array: in the order `here`.
        here, there: dims such as `batch (group in) ...` and `batch ... (group in)`.
        sizes: lengths of the layer's own axes; batch, time and spatial lengths come from the array.
        labels: enumerated axes (direction) -> the labels at hand.
        refine_here, refine_there: dims of refined axes on each side.

    Raises:
        SizeError: the array does not have the dims' shape, or the two orders name different axes.
    """
    rank = count_spread(here, array.ndim)
    spatial = SPATIAL[: rank or 0]
    source = _open(here, spatial, labels, refine_here)
    target = _open(there, spatial, labels, refine_there)
    if len(source.dims) != array.ndim:
        raise SizeError(f"data of shape {array.shape} does not have the axes {source.text}")
    claims = [
        Equation(dim, size, f"data {array.shape} dimension {i}")
        for i, (dim, size) in enumerate(zip(source.dims, array.shape, strict=True))
    ]
    solved = {**sizes, **solve(claims, {**sizes})}
    for dim in target.dims:  # axes of length one that only the other side names
        solved |= {a.name: 1 for a in walk((dim,)) if isinstance(a, Axis) and a.name not in solved}
    flat = np.ascontiguousarray(array).reshape(-1)
    result = np.empty(shape_of(target, solved), array.dtype)
    blocks = {block.labels: block for block in place(source, solved)}
    for block in place(target, solved):
        found = blocks.get(block.labels)
        if found is None or any(solved[axis] != 1 for axis in set(found.strides) ^ set(block.strides)):
            raise SizeError(f"the data axes {source.text} and {target.text} do not name the same things")
        axes = list(block.strides)
        to = view(result.reshape(-1), block.offset, [(solved[a], block.strides[a]) for a in axes])
        to[...] = view(flat, found.offset, [(solved[a], found.strides.get(a, 0)) for a in axes])
    return result


_NORM = {"x": "batch ... channel", "y": "batch ... channel"}
_CONV = {"x": "batch ... (group in)", "y": "batch ... (group out)"}
_RECURRENT = {
    "x": "batch time input",
    "y": "batch time (direction hidden)",
    "h": "direction batch hidden",
    "c": "direction batch hidden",
}
# a projection gives the hidden state a size of its own, which is that of hidden_prev
_LSTM = {**_RECURRENT, "y": "batch time (direction hidden_prev)", "h": "direction batch hidden_prev"}
_FEATURES = {"x": "batch features", "y": "batch features"}
_ATTENTION = {
    "query": "batch tq embed_q",
    "key": "batch tk embed_k",
    "value": "batch tk embed_v",
    "y": "batch tq out",
}
_SCORED = {"query": "batch tq dim", "key": "batch tk dim", "value": "batch tk value", "y": "batch tq value"}
CANONICAL: Mapping[str, Mapping[str, str]] = {
    "dense": {"x": "batch input", "y": "batch output"},
    "conv": _CONV,
    "conv_transpose": _CONV,
    "separable_conv": {"x": "batch ... channel", "y": "batch ... out"},
    "embedding": {"x": "batch", "y": "batch dim"},
    "batch_norm": _NORM,
    "layer_norm": _FEATURES,
    "rms_norm": _FEATURES,
    "group_norm": {"x": "batch ... (group channel)", "y": "batch ... (group channel)"},
    "prelu": _NORM,
    "layer_scale": _NORM,
    "matrices": {"x": "batch outer stack row", "y": "batch outer stack column"},
    "simple_rnn": _RECURRENT,
    "lstm": _LSTM,
    "gru": _RECURRENT,
    "mgu": _RECURRENT,
    "attention": _ATTENTION,
    "rotary_attention": {"x": "batch time embed", "y": "batch time out"},
    "partial_rotary_attention": {"x": "batch time embed", "y": "batch time out"},
    "gated_mlp": {"x": "batch input", "y": "batch output"},
    "highway": {"x": "batch input", "y": "batch output"},
    "maxout_dense": {"x": "batch input", "y": "batch output"},
    "srelu": _NORM,
    "parametric_softplus": _NORM,
    "conv_lstm": {
        "x": "batch time ... input",
        "y": "batch time ... hidden",
        "h": "batch ... hidden",
        "c": "batch ... hidden",
    },
    "bilinear": {"x1": "batch in1", "x2": "batch in2", "y": "batch out"},
    "locally_connected_1d": {"x": "batch ... in", "y": "batch ... out"},
    "locally_connected_2d": {"x": "batch ... in", "y": "batch ... out"},
    "normalization": _NORM,
    "additive_attention": _SCORED,
    "attention_scale": _SCORED,
}


def canonical_data(kind: str) -> dict[str, tuple[Dim, ...]]:
    """The order in which the NumPy reference takes and gives a kind's data: batch first, channels last."""
    return {name: parse_dims(text) for name, text in CANONICAL.get(kind, {}).items()}


def data_order(bound: BoundForm) -> dict[str, tuple[Dim, ...]]:
    """Axis orders of inputs and outputs; a form of one step (a cell) is run over time, in canonical order."""
    return dict(bound.data) if "y" in bound.data else canonical_data(bound.kind.name)


def orders(bound: BoundForm) -> tuple[dict[str, tuple[Dim, ...]], dict[str, tuple[Dim, ...]]]:
    """The canonical orders, and the form's own; with positions where a class of another kind has them."""
    order, native = canonical_data(bound.kind.name), data_order(bound)
    if not bound.form.of:
        return order, native
    return {n: _with_positions(dims) if _spread(native.get(n, ())) else dims for n, dims in order.items()}, native


def taken(bound: BoundForm, name: str, array: Array, lead: Sequence[int] = ()) -> Array:
    """Canonical data with as many positions as the layer's class takes, where another class has more or fewer.

    A torch.Conv2d in the place of a Dense takes (batch, 1, 1, input) for (batch, input), an onnx.Gemm in the place of a
    convolution the rows of all positions. `lead`: the axes that are one with the batch, where the rows stood in a map.
    """
    dims, rank, width = data_order(bound).get(name, ()), bound.form.rank, array.shape[-1]
    if not _spread(dims):
        return array.reshape(prod(array.shape[:-1]), width) if array.ndim > len(dims) == 2 else array
    if rank is None or array.ndim != 2 or len(dims) != 3:
        return array
    places = tuple(lead) if prod(lead) == len(array) and len(lead) > 1 else array.shape[:1]
    extra = max(len(places) - 1 - rank, 0)
    first, rest = prod(places[: extra + 1]), places[extra + 1 :]
    return array.reshape(first, *rest, *(1,) * (rank - len(rest)), width)


def shaped(found: Mapping[str, Array], lead: Sequence[int]) -> dict[str, Array]:
    """Canonical outputs with the positions of the data that they were made of, where their class has more or fewer."""
    many = prod(lead)
    return {n: a.reshape(*lead, a.shape[-1]) if prod(a.shape[:-1]) == many else a for n, a in found.items()}


def _spread(dims: Sequence[Dim]) -> bool:
    return any(isinstance(dim, Spread) for dim in dims)


def _with_positions(dims: tuple[Dim, ...]) -> tuple[Dim, ...]:
    return dims if _spread(dims) else (dims[0], Spread(), *dims[1:])


def data_sizes(bound: BoundForm) -> dict[str, int]:
    """Sizes of the data's axes; one slope of a PReLU may serve all channels, so the data says how many there are."""
    return {} if bound.kind.name == "prelu" else dict(bound.sizes)


def _open(
    dims: Sequence[Dim], spatial: Sequence[str], labels: Mapping[str, Sequence[str]], refine: Mapping[str, str]
) -> Layout:
    def sums(dim: Dim) -> Dim:
        if isinstance(dim, Axis) and dim.name in labels:
            return Sum(dim.name, tuple(Option(label) for label in labels[dim.name]))
        if isinstance(dim, Product):
            return Product(tuple(sums(d) for d in dim.dims))
        return dim

    refined = {axis: parse_dims(text) for axis, text in refine.items()}
    full = expand([sums(d) for d in dims], spatial, {}, {}, refined)
    return Layout(None, full, show_dims(full))
