"""What models do between layers, as functions of NumPy arrays: activations, pooling, borders, sizes, orders, joins.

Maps are `(batch, ..., channel)`, sequences `(batch, time, features)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import permutations, product
from math import prod

import numpy as np

from layoutx.plan.plan import Array
from layoutx.verify.diagnose.operation import Op
from layoutx.verify.diagnose.resizes import edged, sizes
from layoutx.verify.diagnose.said_in_torch import axes_in_words, permuted, said_in_torch
from layoutx.verify.diagnose.windows import same, windows
from layoutx.verify.forward.activations import activation, softmax

MOST_ORDERS = 24
MOVED = 3  # pixels that a wrong border moves a map by


def ops(x: Array, goal: tuple[int, ...]) -> Iterator[Op]:
    """Operations that may turn an array into one of this shape; cheap tests of shapes come first."""
    yield Op("nothing", "nothing", lambda a: a)
    if x.shape == goal:
        yield from activations(1 if x.ndim > 3 else -1)
        yield from over_others(x)
        yield from turns(x)
        yield from moves(x)
    if x.shape[:-1] == goal[:-1] and x.shape[-1] == 2 * goal[-1]:
        yield from merges()
    if x.ndim >= 3:
        yield from pools(x, goal)
        yield from sizes(x, goal)
        yield from steps(x, goal)
        yield from flattened(x, goal)


def activations(dim: int = -1) -> Iterator[Op]:
    """Every function of the reference; dim: where the target keeps the channels."""
    from layoutx.verify.diagnose.settings import ACTIVATIONS

    for name in (*ACTIVATIONS, "softmax", "log_sigmoid"):
        if name != "linear":
            mode = {"gelu": "F20", "leaky": "F31"}.get(name.partition("_")[0], "F19")
            yield Op(name, "activation", activation(name), mode, said_in_torch(name, dim))


def over_others(x: Array) -> Iterator[Op]:
    """A softmax over another axis than the last: of the samples where there is no other."""
    names = {0: "samples", **{at: "steps" if x.ndim == 3 else f"axis {at}" for at in range(1, x.ndim - 1)}}
    for at, what in names.items():
        there = at + 1 if at and x.ndim > 3 else at  # torch keeps the channels of maps first
        code = f"x = F.softmax(x, {there})"
        yield Op(f"softmax over the {what}", "activation", partial(softmax, axis=at), "F19", code)


def merges() -> Iterator[Op]:
    """Two directions made one (Keras' merge_mode)."""
    for name, merge in (("added", np.sum), ("averaged", np.mean), ("multiplied", np.prod)):
        code = f"a, b = x.chunk(2, -1)   # and then {name}"
        yield Op(f"its two halves {name}", "merge", partial(_merged, merge), "F18", code)


def _merged(merge: Callable[..., Array], x: Array) -> Array:
    return np.asarray(merge(x.reshape(*x.shape[:-1], 2, -1), axis=-2))


def turns(x: Array) -> Iterator[Op]:
    """The same numbers in another order, at the same shape."""
    yield Op("the channels reversed (RGB as BGR)", "channels", lambda a: a[..., ::-1], "F34", f"x = x.flip({1 if x.ndim != 3 else -1})")  # fmt: skip # noqa: E501
    if x.ndim == 3:
        yield Op("time reversed", "time", lambda a: a[:, ::-1], "F18", "x = x.flip(1)")
        if x.shape[-1] % 2 == 0:
            yield Op("its halves exchanged", "halves", lambda a: np.roll(a, a.shape[-1] // 2, -1), "F18", "x = x.roll(x.shape[-1] // 2, -1)")  # fmt: skip # noqa: E501
            yield Op("its second half reversed in time", "time", _second_half, "F18", "h = x.shape[-1] // 2; x = torch.cat([x[..., :h], x[..., h:].flip(1)], -1)")  # fmt: skip # noqa: E501
    if x.ndim >= 3 and x.shape[0] == x.shape[1]:
        yield Op("batch and time exchanged", "axes", lambda a: np.swapaxes(a, 0, 1), "F36", "x = x.transpose(0, 1)")
    for at in range(1, x.ndim - 1):
        flipped = f"axis {at} reversed"
        yield Op(flipped, "turn", partial(np.flip, axis=at), "F17", f"x = x.flip({at + 1})")
    for order in list(permutations(range(1, x.ndim)))[:MOST_ORDERS]:
        if order != tuple(range(1, x.ndim)) and tuple(x.shape[i] for i in order) == x.shape[1:]:
            yield Op(f"its axes in the order {axes_in_words(order)}", "axes", partial(_ordered, order), "F1", f"x = x.permute({permuted(order)})")  # fmt: skip # noqa: E501


def moves(x: Array) -> Iterator[Op]:
    """A map moved by a few pixels, zeros where it was: its border stood at the other end."""
    if not 1 <= (rank := x.ndim - 2) <= 2:
        return
    for by in product(range(-MOVED, MOVED + 1), repeat=rank):
        if any(by):
            ends = ", ".join(f"{n}, {-n}" for n in reversed(by))
            name = f"moved by {' '.join(map(str, by))}, zeros coming in"
            yield Op(name, "move", partial(_shifted, by=by), "F7", f"x = F.pad(x, ({ends}))")


def _shifted(x: Array, by: Sequence[int]) -> Array:
    found = np.zeros_like(x)
    into = [slice(max(0, n), min(size, size + n)) for n, size in zip(by, x.shape[1:-1], strict=True)]
    out_of = [slice(max(0, -n), min(size, size - n)) for n, size in zip(by, x.shape[1:-1], strict=True)]
    found[(slice(None), *into)] = x[(slice(None), *out_of)]
    return found


def pools(x: Array, goal: tuple[int, ...]) -> Iterator[Op]:
    """Pooling over windows, or over everything."""
    rank = x.ndim - 2
    if len(goal) == x.ndim and goal[-1] == x.shape[-1]:
        for size, stride in product((2, 3, 4, 5), (1, 2, 3, 4)):
            for border in ("valid", "same", "symmetric", "ceil"):
                pads = _pads(border, x.shape[1:-1], size, stride)
                lengths = [(n + a + b - size) // stride + 1 for n, (a, b) in zip(x.shape[1:-1], pads, strict=True)]
                if tuple(lengths) == goal[1:-1] and stride <= size and (border == "valid" or any(map(any, pads))):
                    yield from _pooled(size, stride, border, pads, rank)
    middle = tuple(range(1, x.ndim - 1))
    if goal in ((x.shape[0], x.shape[-1]), (x.shape[0], *(1 for _ in middle), x.shape[-1])):
        keep = len(goal) == x.ndim
        axes = "1" if rank == 1 else str(tuple(range(2, x.ndim)))  # of a sequence torch keeps time before features
        yield Op("global average pooling", "pooling", lambda a: a.mean(middle, keepdims=keep), "F27", f"x = x.mean({axes})")  # fmt: skip # noqa: E501
        yield Op("global max pooling", "pooling", lambda a: a.max(middle, keepdims=keep), "F27", f"x = x.amax({axes})")
        yield Op("global sum", "pooling", lambda a: a.sum(middle, keepdims=keep), "F27", f"x = x.sum({axes})")


def _pooled(size: int, stride: int, border: str, pads: Sequence[tuple[int, int]], rank: int) -> Iterator[Op]:
    where = "" if border == "valid" else f", borders {border} {' '.join(map(str, pads))}"
    mode = {"valid": "F27", "ceil": "F27"}.get(border, "F7")
    shape, step = (size,) * rank, (stride,) * rank
    words = f"pooling of {size} by stride {stride}{where}"
    code = f"F.max_pool{rank}d(x, {size}, {stride})"
    if border == "same":
        edges = ", ".join(f"{a}, {b}" for a, b in reversed(pads))
        code = f"F.max_pool{rank}d(F.pad(x, ({edges}), value=-torch.inf), {size}, {stride})"

    def most(a: Array) -> Array:
        return np.asarray(windows(edged(a, pads, -np.inf), shape, step).max(tuple(range(-rank, 0))))

    def mean(a: Array) -> Array:
        with_edges = windows(edged(a, pads, 0.0), shape, step).sum(tuple(range(-rank, 0)))
        inside = windows(edged(np.ones_like(a), pads, 0.0), shape, step).sum(tuple(range(-rank, 0)))
        return np.asarray(with_edges / inside)

    def counted(a: Array) -> Array:
        return np.asarray(windows(edged(a, pads, 0.0), shape, step).mean(tuple(range(-rank, 0))))

    average = code.replace("max", "avg").replace(", value=-torch.inf", "")
    yield Op(f"max {words}", "pooling", most, mode, f"x = {code}")
    yield Op(f"average {words}", "pooling", mean, mode, f"x = {average}")
    if any(map(any, pads)):
        yield Op(f"average {words}, the border counted", "pooling", counted, "F27", f"x = {average}   # count_include_pad")  # fmt: skip # noqa: E501


def _pads(border: str, space: Sequence[int], size: int, stride: int) -> list[tuple[int, int]]:
    if border == "same":
        return [same(n, size, stride) for n in space]
    if border == "symmetric":
        return [(size // 2, size // 2)] * len(space)
    if border == "ceil":
        return [(0, (-(n - size)) % stride) for n in space]
    return [(0, 0)] * len(space)


def steps(x: Array, goal: tuple[int, ...]) -> Iterator[Op]:
    """One step of a sequence, or one number for all of them."""
    if x.ndim != 3 or goal != (x.shape[0], x.shape[2]):
        return
    half = x.shape[2] // 2
    yield Op("the last step", "step", lambda a: a[:, -1], "F18", "x = x[:, -1]")
    yield Op("the first step", "step", lambda a: a[:, 0], "F18", "x = x[:, 0]")
    if x.shape[2] % 2 == 0:
        code = "x = torch.cat([x[:, -1, :n], x[:, 0, n:]], -1)   # n = hidden_size"
        yield Op("the last step of each direction (its own last)", "step", lambda a: np.concatenate([a[:, -1, :half], a[:, 0, half:]], -1), "F18", code)  # fmt: skip # noqa: E501
    yield Op("the last step of the batch (time first)", "step", lambda a: a[-1] if a.shape[0] == a.shape[1] else a[:, -1], "F36")  # fmt: skip # noqa: E501


def flattened(x: Array, goal: tuple[int, ...]) -> Iterator[Op]:
    """All axes but the batch in one, in any order."""
    if len(goal) != 2 or goal != (x.shape[0], prod(x.shape[1:])):
        return
    for order in permutations(range(1, x.ndim)):
        words = " ".join(("", "tc", "hwc", "dhwc")[min(x.ndim - 2, 3)][i - 1] for i in order)
        yield Op(f"flattened in the order {words}", "flatten", partial(_flat, order), "F1", f"x = x.permute(...).flatten(1)   # {words}")  # fmt: skip # noqa: E501


def joins(arrays: Sequence[Array]) -> Iterator[tuple[str, Array]]:
    """What several layers hand on together: sums, products, or side by side in any order."""
    if len(arrays) < 2:
        yield from (("", array) for array in arrays)
        return
    if all(a.shape == arrays[0].shape for a in arrays):
        yield "added", np.asarray(sum(arrays[1:], arrays[0]))
        yield "multiplied", np.asarray(np.prod(np.stack(arrays), 0))
        yield "averaged", np.asarray(np.mean(np.stack(arrays), 0))
        yield "their maximum", np.asarray(np.max(np.stack(arrays), 0))
        if len(arrays) == 2:
            yield "subtracted", arrays[0] - arrays[1]
            yield "subtracted, the other way", arrays[1] - arrays[0]
    if all(a.shape[:-1] == arrays[0].shape[:-1] for a in arrays) and len(arrays) <= 4:
        for order in permutations(range(len(arrays))):
            words = "side by side" if list(order) == sorted(order) else f"side by side in the order {order}"
            yield words, np.concatenate([arrays[i] for i in order], -1)
    for number, array in enumerate(arrays):
        yield f"only that of layer {number}", array


def _ordered(order: Sequence[int], x: Array) -> Array:
    return x.transpose(0, *order)


def _flat(order: Sequence[int], x: Array) -> Array:
    return x.transpose(0, *order).reshape(x.shape[0], -1)


def _second_half(x: Array) -> Array:
    half = x.shape[-1] // 2
    return np.concatenate([x[..., :half], x[:, ::-1, half:]], -1)
