"""Operations of Keras 3 on whole tensors, batch axis and all: what a mean, a reshape or an einsum makes of the axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

from layoutx.model.axes import Axis, Cat, Dim, State, heir_of, size_of
from layoutx.model.entry import mapping_of
from layoutx.model.graph import Node
from layoutx.model.keras_patches import depth_to_space, patched
from layoutx.model.keras_reshape import flatten, permute, reshape

if TYPE_CHECKING:
    from layoutx.model.flow import Flow

WHOLE = {"class_name": "__slice__", "config": {}}  # `:` as Keras writes it
Rule = Callable[["Flow", Node, str, Sequence[State], Sequence[str]], list[State]]
OF_ONE = [
    "relu relu6 sigmoid hard_sigmoid hard_silu hard_tanh hard_shrink soft_shrink tanh_shrink sparse_plus squareplus",
    "silu swish gelu elu selu celu leaky_relu softplus softsign log_sigmoid tanh exp exp2 expm1 log log1p log2 log10",
    "sqrt rsqrt cbrt square abs absolute fabs negative neg reciprocal sign sin cos tan arctan sinh cosh erf erfc round",
    "rint floor ceil trunc cast saturate_cast identity copy stop_gradient convert_to_tensor clip clip_by_value",
    "nan_to_num",
]
OF_SEVERAL = [
    "add subtract sub multiply mul divide truediv true_divide divide_no_nan floor_divide power pow maximum minimum",
    "squared_difference logaddexp arctan2 hypot",
]
# operations of one tensor, or of several of the same make, by the end of their names
ELEMENTWISE = frozenset(name for names in OF_ONE + OF_SEVERAL for name in names.split())


def blocked(node: Node) -> list[State]:
    """What a layer gives of which nothing is known any more."""
    return [State(blocked=f'{node.class_name} "{node.name}"')]


def _reduced(flow: Flow, node: Node, name: str, states: Sequence[State], labels: Sequence[str]) -> list[State]:
    """keras.ops.mean(x, axis=(1, 2)): these axes go, or become of length one (keras 3.15.1 ops/numpy.py).

    So does the one axis of argmax, and the axes of length one of squeeze, where they are named.
    """
    if len(states) != 1 or states[0].blocked or states[0].lead:
        return [states[0]] if len(states) == 1 and states[0].blocked else blocked(node)
    state, raw = states[0], node.config.get("axis")
    rank = len(state.last) + 1
    axes = [raw] if isinstance(raw, int) else list(raw) if isinstance(raw, (list, tuple)) else []
    at = {a % rank for a in axes if isinstance(a, int) and -rank <= a < rank}
    if not at or 0 in at or len(at) != len(axes):
        return blocked(node)
    gone = [state.last[a - 1] for a in sorted(at)]
    if node.config.get("keepdims"):
        ones: dict[Dim, Dim] = {dim: (flow.axis("d", name, 1),) for dim in gone}
        last, first = (tuple(ones.get(d, d) for d in dims) for dims in (state.last, state.first))
        return [replace(state, last=last, first=first)]
    last, first = (tuple(d for d in dims if d not in gone) for dims in (state.last, state.first))
    spatial = state.spatial and len(last) > 1
    return (
        [replace(state, last=last, first=first, spatial=spatial)] if last and len(first) == len(last) else blocked(node)
    )


def reshaped(flow: Flow, node: Node, name: str, states: Sequence[State], labels: Sequence[str]) -> list[State]:
    """keras.ops.reshape(x, (-1, n)): as the layers Flatten and Reshape, where the batch stays as it is."""
    shape = node.config.get("newshape")
    if len(states) != 1 or not isinstance(shape, (list, tuple)) or len(shape) < 2 or not states[0].last:
        return [states[0]] if len(states) == 1 and states[0].blocked else blocked(node)
    batch, rest = shape[0], list(shape[1:])
    total = prod(size_of(dim) or 0 for dim in states[0].last)
    wanted = prod(size if isinstance(size, int) else 0 for size in rest)
    if batch is not None and (batch != -1 or not total or wanted != total):  # else the batch may be in it
        return blocked(node)
    if len(rest) == 1:
        return flatten(flow, node, name, states, labels)
    return reshape(flow, replace(node, config={"target_shape": rest}), name, states, labels)


def transposed(flow: Flow, node: Node, name: str, states: Sequence[State], labels: Sequence[str]) -> list[State]:
    """keras.ops.transpose(x, (0, 2, 1, 3)): as the layer Permute, where the batch stays the first."""
    axes = node.config.get("axes")
    if len(states) != 1 or not isinstance(axes, (list, tuple)) or not axes or axes[0] != 0:
        return _passed(node, states)
    return permute(flow, replace(node, config={"dims": list(axes[1:])}), name, states, labels)


def einsummed(flow: Flow, node: Node, name: str, states: Sequence[State], labels: Sequence[str]) -> list[State]:
    """keras.ops.einsum("aecd,abcd->acbe", x, y): each axis keeps its letter, the first is the batch."""
    reads, _, gives = str(node.config.get("subscripts", "")).replace(" ", "").partition("->")
    terms = reads.split(",")
    known = len(terms) == len(states) and all(map(_plain, states)) and {t[:1] for t in terms} == {gives[:1]}
    if not known or any(len(state.last) + 1 != len(term) for state, term in zip(states, terms, strict=True)):
        return _passed(node, states)
    dims = {
        x: dim for state, term in zip(states, terms, strict=True) for x, dim in zip(term[1:], state.last, strict=True)
    }
    if len(set(gives)) != len(gives) or not dims.keys() >= set(gives[1:]):
        return _passed(node, states)
    made = tuple(dims[x] for x in gives[1:])
    return [State(made, made)]


def widened(flow: Flow, node: Node, name: str, states: Sequence[State], labels: Sequence[str]) -> list[State]:
    """keras.ops.expand_dims(x, axis): one axis of length one more."""
    axis = node.config.get("axis")
    if len(states) != 1 or not _plain(states[0]) or not isinstance(axis, int):
        return _passed(node, states)
    dims = states[0].last
    at = axis % (len(dims) + 2)
    one: Dim = (flow.axis("d", name, 1),)
    made = (*dims[: at - 1], one, *dims[at - 1 :])
    return [State(made, made)] if at else blocked(node)


def padded(flow: Flow, node: Node, name: str, states: Sequence[State], labels: Sequence[str]) -> list[State]:
    """keras.ops.pad(x, pad_width): the axes that become longer are other ones."""
    widths = node.config.get("pad_width")
    if len(states) != 1 or states[0].blocked or states[0].lead or not isinstance(widths, (list, tuple)):
        return _passed(node, states)
    state = states[0]
    if len(widths) != len(state.last) + 1 or any(list(widths[0])):
        return _passed(node, states)
    longer: dict[Dim, Dim] = {
        dim: _other(flow, name, dim, by=sum(by)) for dim, by in zip(state.last, widths[1:], strict=True) if any(by)
    }
    last, first = (tuple(longer.get(d, d) for d in dims) for dims in (state.last, state.first))
    return [replace(state, last=last, first=first)]


def picked(flow: Flow, node: Node, name: str, states: Sequence[State], labels: Sequence[str]) -> list[State]:
    """x[:, -1, 2:5]: an axis of which one position is taken goes, one of which some are is another one.

    x[:, None]: an axis of length one more.
    """
    key = node.config.get("key")
    keys = list(key) if isinstance(key, (list, tuple)) else [key]
    if len(states) != 1 or states[0].blocked or states[0].lead or key is None:
        return _passed(node, states)
    state = states[0]
    at = next((i for i, one in enumerate(keys) if _class(one) == "__ellipsis__"), len(keys))
    said = sum(one is not None for one in keys) - (at < len(keys))
    keys[at : at + 1] = [WHOLE] * (len(state.last) + 1 - said)
    old = [one for one in keys if one is not None]
    known = all(type(one) is int or _class(one) == "__slice__" for one in old)
    if not known or len(old) != len(state.last) + 1 or keys[0] is None or not _whole(keys[0]):
        return blocked(node)
    gone = [dim for dim, one in zip(state.last, old[1:], strict=True) if type(one) is int]
    some = {d: one for d, one in zip(state.last, old[1:], strict=True) if type(one) is not int and not _whole(one)}
    wider = len(keys) > len(old)
    if any(len(dim) > 1 or isinstance(dim[0], Cat) for dim in some) or (wider and state.last != state.first):
        return blocked(node)  # a piece of a flattened map, or one more axis of a map
    cut: dict[Dim, Dim] = {dim: _other(flow, name, dim, one) for dim, one in some.items()}
    last, first = (tuple(cut.get(d, d) for d in dims if d not in gone) for dims in (state.last, state.first))
    if wider:
        rest = iter(last)
        last = first = tuple(
            (flow.axis("d", name, 1),) if one is None else next(rest) for one in keys[1:] if type(one) is not int
        )
    if not last or len(first) != len(last):
        return blocked(node)
    return [replace(state, last=last, first=first, spatial=state.spatial and len(last) > 1)]


def _other(flow: Flow, name: str, dim: Dim, key: Any = None, by: int = 0) -> Dim:
    """An axis with other positions than this one: some of them (`key`), `by` more, or the same ones moved."""
    size, config = size_of(dim), mapping_of(mapping_of(key).get("config"))
    ends = [config.get(end) for end in ("start", "stop", "step")]
    plain = size is not None and ends[2] != 0 and all(one is None or type(one) is int for one in ends)
    letter = dim[0].letter if len(dim) == 1 and isinstance(dim[0], Axis) else "d"
    return (heir_of(flow.axis(letter, name, len(range(size or 0)[slice(*ends)]) + by if plain else None), dim),)


def shifted(flow: Flow, node: Node, name: str, states: Sequence[State], labels: Sequence[str]) -> list[State]:
    """keras.ops.flip(x, axis), roll, cumsum: at each place of one axis stands what was at others."""
    axis = node.config.get("axis")
    if len(states) != 1 or not _told(states) or not isinstance(axis, int):
        return _passed(node, states[:1])
    return _along(node, states[0], axis, lambda old: _other(flow, name, old))


def gathered(flow: Flow, node: Node, name: str, states: Sequence[State], labels: Sequence[str]) -> list[State]:
    """keras.ops.take_along_axis(x, indices, axis): some of the positions along an axis, the others as they are."""
    axis = node.config.get("axis")
    if not _told(states) or not isinstance(axis, int) or not -len(states[0].last) - 1 <= axis <= len(states[0].last):
        return _passed(node, states[:1])
    return _along(node, states[0], axis, lambda old: (flow.axis("d", name, None),))


def _told(states: Sequence[State]) -> bool:
    """Whether the first value has axes that are known, all behind the batch."""
    return bool(states and states[0].last) and not states[0].blocked and not states[0].lead


def _along(node: Node, state: State, axis: int, renewed: Callable[[Dim], Dim]) -> list[State]:
    """The state with another axis in the place of one."""
    rank = len(state.last) + 1
    at = axis % rank
    if not -rank <= axis < rank or not at or len(state.last[at - 1]) > 1 or isinstance(state.last[at - 1][0], Cat):
        return blocked(node)  # of a flattened map
    old = state.last[at - 1]
    new = renewed(old)
    last, first = (tuple(new if d == old else d for d in dims) for dims in (state.last, state.first))
    return [replace(state, last=last, first=first)]


def _class(key: object) -> str:
    return str(key.get("class_name", "")) if isinstance(key, dict) else ""


def _whole(key: object) -> bool:
    """Whether an index is `:`."""
    config = key.get("config", {}) if isinstance(key, dict) else {}
    return _class(key) == "__slice__" and not any(config.get(end) for end in ("start", "stop", "step"))


def attended(flow: Flow, node: Node, name: str, states: Sequence[State], labels: Sequence[str]) -> list[State]:
    """keras.ops.dot_product_attention(query, key, value): the query's axes, the last one of the values."""
    if len(states) < 3 or not all(map(_plain, states[:3])) or any(len(state.last) != 3 for state in states[:3]):
        return _passed(node, states)
    made = (*states[0].last[:-1], states[2].last[-1])
    return [State(made, made)]


def _plain(state: State) -> bool:
    """Whether all axes are known, and every framework has them in one order."""
    return bool(state.last) and state.last == state.first and not (state.blocked or state.lead or state.doubt)


def _passed(node: Node, states: Sequence[State]) -> list[State]:
    """Lost here, or before."""
    return [next((state for state in states if state.blocked), *blocked(node))]


REDUCED: dict[str, Rule] = {
    **dict.fromkeys(("mean", "max", "min", "sum", "amax", "amin", "argmax", "argmin", "squeeze"), _reduced),
    **dict.fromkeys(("flip", "roll", "cumsum", "cumprod"), shifted),
    "get_item": picked,
    "take_along_axis": gathered,
    "extract_patches": patched,
    "depth_to_space": depth_to_space,
}
