"""What changes the size of a map between layers: borders, cropping, enlarging, depth to space.

Maps are `(batch, ..., channel)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from layoutx.plan.plan import Array
from layoutx.verify.compare.windows import borders, cropped
from layoutx.verify.diagnose.operation import Op


def edged(x: Array, pads: Sequence[tuple[int, int]], value: float) -> Array:
    """A map with a border of one value."""
    return np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=value)


def sizes(x: Array, goal: tuple[int, ...]) -> Iterator[Op]:
    """Maps of another size: borders, cropping, enlarging, depth to space."""
    if len(goal) != x.ndim:
        return
    space, there = x.shape[1:-1], goal[1:-1]
    if goal[-1] == x.shape[-1]:
        more = [b - a for a, b in zip(space, there, strict=True)]
        if all(0 <= n <= 8 for n in more) and any(more):
            for ends in borders(more):
                yield Op(f"a border of zeros {' '.join(map(str, ends))}", "border", partial(edged, pads=ends, value=0.0), "F7", f"x = F.pad(x, {tuple(n for e in reversed(ends) for n in e)})")  # fmt: skip # noqa: E501
        if all(-8 <= n <= 0 for n in more) and any(more):
            for ends in borders([-n for n in more]):
                code = f"x = x[..., {', '.join(f'{a}:{-b or None}' for a, b in ends)}]"
                yield Op(f"cropped by {' '.join(map(str, ends))}", "border", partial(cropped, by=ends), "F7", code)
        if all(b > a for a, b in zip(space, there, strict=True)):
            yield from _enlarged(space, there)
    blocks = {b // a for a, b in zip(space, there, strict=True)}
    if len(space) == 2 and len(blocks) == 1 and (block := blocks.pop()) > 1 and goal[-1] * block**2 == x.shape[-1]:
        for name, order in (("depth first (DCR, TensorFlow)", (0, 1, 2)), ("column first (CRD, torch)", (1, 2, 0))):
            yield Op(f"depth to space, {name}", "depth to space", partial(_to_space, block=block, order=order), "F29", "x = F.pixel_shuffle(x, r)   # CRD; permute the channels before it for DCR")  # fmt: skip # noqa: E501


def _to_space(x: Array, block: int, order: tuple[int, int, int]) -> Array:
    """`order`: where row, column and channel stand in the split channel axis."""
    batch, h, w, channels = x.shape
    lengths = {0: block, 1: block, 2: channels // block**2}
    spread = sorted(range(3), key=lambda i: order[i])
    split = x.reshape(batch, h, w, *(lengths[i] for i in spread))
    at = {what: 3 + place for place, what in enumerate(spread)}
    return split.transpose(0, 1, at[0], 2, at[1], at[2]).reshape(batch, h * block, w * block, lengths[2])


def _enlarged(space: Sequence[int], there: Sequence[int]) -> Iterator[Op]:
    rules: dict[str, tuple[str, Callable[[int, int], Array]]] = {
        "half-pixel centres": ("align_corners=False", lambda n, m: (np.arange(m) + 0.5) * n / m - 0.5),
        "aligned corners": ("align_corners=True", lambda n, m: np.arange(m) * (n - 1) / max(m - 1, 1)),
        "asymmetric": ("TF1 legacy", lambda n, m: np.arange(m) * n / m),
    }
    for rule, (said, at) in rules.items():
        points = [at(n, m) for n, m in zip(space, there, strict=True)]
        code = f"x = F.interpolate(x, size={tuple(there)}, mode='bilinear')   # {said}"
        yield Op(f"bilinear, {rule}", "resize", partial(_linear, points=points), "F28", code)
        nearest = [np.clip(np.floor(p + (0.5 if rule != "asymmetric" else 0.0)), 0, None).astype(int) for p in points]
        code = f"x = F.interpolate(x, size={tuple(there)}, mode='nearest')   # {said}"
        yield Op(f"nearest, {rule}", "resize", partial(_picked, points=nearest), "F28", code)


def _linear(x: Array, points: Sequence[Array]) -> Array:
    for axis, at in enumerate(points, 1):
        last = x.shape[axis] - 1
        low = np.clip(np.floor(at), 0, last).astype(int)
        high = np.minimum(low + 1, last)
        part = np.clip(at - low, 0.0, 1.0).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
        x = np.take(x, low, axis) * (1 - part) + np.take(x, high, axis) * part
    return x


def _picked(x: Array, points: Sequence[Any]) -> Array:
    for axis, at in enumerate(points, 1):
        x = np.take(x, np.minimum(at, x.shape[axis] - 1), axis)
    return x
