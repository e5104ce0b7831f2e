"""Axis sizes of the arrays of one forward call, by name; what disagrees is shown with all its axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from layoutx.errors import LayoutxError, SizeError, UsageError, raise_all

Array = np.ndarray[Any, np.dtype[Any]]
Arrays = Mapping[str, Array]
Facts = Mapping[str, Any]


def sizes_of(kind: str, given: Mapping[str, tuple[Array | None, str]]) -> dict[str, int]:
    """The size of every axis, from the arrays that are there.

    `given` maps a name to (array or None, axes). An axis is a word; `a*b` is a product of axes that other
    arrays give; one word ending in `...` stands for any number of dims (`k...` binds `k0 k1 ...`, and
    `batch...`, `space...` bind nothing).

    Raises:
        SizeError: a rank is wrong or two arrays give an axis different sizes; all problems together.
    """
    sizes: dict[str, int] = {}
    giver: dict[str, str] = {}
    named: dict[str, list[str]] = {}
    problems: list[LayoutxError] = []
    for name, (array, axes) in given.items():
        if array is None:
            continue
        words = _expand(axes, array.ndim)
        if words is None:
            where = f"{name} ({axes}), but the shape is {array.shape}"
            problems.append(SizeError(f"{kind}: {name} has the wrong rank", where=where))
            continue
        named[name] = words
        for axis, size in zip(words, array.shape, strict=True):
            if "*" in axis or axis.startswith(("batch.", "space.")):
                continue
            if sizes.setdefault(axis, size) != size:
                problems.append(_clash(kind, axis, (name, size), (giver[axis], sizes[axis]), given, named))
            giver.setdefault(axis, name)
    problems.extend(_products(kind, sizes, given, named))
    raise_all(problems, f"{kind}: the arrays do not fit together")
    return sizes


def need(kind: str, arrays: Arrays, *names: str) -> list[Array]:
    """The named arrays. Raises UsageError naming all that are missing."""
    missing = [name for name in names if name not in arrays]
    if missing:
        raise UsageError(
            f"{kind}: missing {', '.join(missing)}", where=f"given: {', '.join(arrays) or 'nothing'}",
            do="give an array for each; only biases and scales may be absent",
        )  # fmt: skip
    return [np.asarray(arrays[name]) for name in names]


def setting(kind: str, settings: Facts, name: str) -> Any:
    """A setting without which the kind is not defined. Raises UsageError when it is absent."""
    if name not in settings:
        raise UsageError(
            f"{kind}: the setting {name!r} is missing", where=f"given: {', '.join(settings) or 'nothing'}",
            why="frameworks have different defaults, so there is none here",
        )  # fmt: skip
    return settings[name]


def epsilon(kind: str, settings: Facts, dtype: np.dtype[Any]) -> float:
    """The setting `eps`; None means the machine epsilon of the dtype (torch 2.13 RMSNorm)."""
    eps = setting(kind, settings, "eps")
    return float(np.finfo(dtype).eps if eps is None else eps)


def one_each(kind: str, name: str, value: Any, rank: int) -> tuple[int, ...]:
    """A setting as one integer a spatial axis; a single integer is repeated. Raises UsageError."""
    if isinstance(value, int | np.integer):
        return (int(value),) * rank
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == rank:
        return tuple(int(v) for v in value)
    raise UsageError(f"{kind}: {name}={value!r} is not one integer for each of {rank} spatial axes")


def biased(y: Array, bias: Array | None) -> Array:
    """With the bias added, where there is one."""
    return y if bias is None else y + bias


def common_dtype(*arrays: Array | None) -> np.dtype[Any]:
    """The dtype to compute in: what the floating inputs promote to, never less precise than any of them."""
    return np.result_type(*(a.dtype for a in arrays if a is not None))


def _expand(axes: str, rank: int) -> list[str] | None:
    words = axes.split()
    spread = [i for i, word in enumerate(words) if word.endswith("...")]
    if not spread:
        return words if len(words) == rank else None
    (at,) = spread
    many = rank - len(words) + 1
    if many < 0:
        return None
    stem = words[at][:-3]
    dotted = stem in ("batch", "space")
    return [*words[:at], *(f"{stem}{'.' if dotted else ''}{i}" for i in range(many)), *words[at + 1 :]]


def _products(
    kind: str, sizes: Mapping[str, int], given: Mapping[str, tuple[Array | None, str]], named: Mapping[str, list[str]]
) -> list[LayoutxError]:
    problems: list[LayoutxError] = []
    for name, words in named.items():
        array = given[name][0]
        assert array is not None
        for axis, size in zip(words, array.shape, strict=True):
            parts = axis.split("*")
            if len(parts) > 1 and all(p in sizes for p in parts) and prod(sizes[p] for p in parts) != size:
                product = prod(sizes[p] for p in parts)
                problems.append(_clash(kind, axis, (name, size), ("the weights", product), given, named))
    return problems


def _clash(
    kind: str,
    axis: str,
    here: tuple[str, int],
    there: tuple[str, int],
    given: Mapping[str, tuple[Array | None, str]],
    named: Mapping[str, list[str]],
) -> SizeError:
    lines = [_line(name, named[name], given[name][0]) for name in (here[0], there[0]) if name in named]
    what = f"{kind}: {axis} is {here[1]} in {here[0]} and {there[1]} in {there[0]}"
    return SizeError(what, where=lines or (), do="give arrays in the axis order shown")


def _line(name: str, words: Sequence[str], array: Array | None) -> str:
    assert array is not None
    return f"{name} ({', '.join(f'{word}={size}' for word, size in zip(words, array.shape, strict=True))})"
