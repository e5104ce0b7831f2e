"""Shapes on which a live model of jax may be traced: those of given inputs, else sizes that its weights may fit."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from layoutx.frozen import frozen

COMMON = (32, 28, 64, 224)  # sides of images, tried first
MOST, OBLONG = 40, 20  # the longest sides that are tried where none of the common ones fits
SECONDS = 3.0  # of the processor, for all of it
BATCH, LENGTH = 2, 5
KERNELS = ("kernel", "weight", "w")
HEADS = ("query", "key", "value", "out")  # kernels of attention have three axes too


@frozen
class StandIn:
    """An input that nothing is read of."""

    shape: tuple[int, ...]
    dtype: str


def variants(inputs: Any, shapes: Mapping[str, tuple[int, ...]], channels: str) -> Iterator[list[StandIn]]:
    """Inputs to trace a model on, one after the other until it takes them.

    Args:
        inputs: arrays in any framework's axis order (one, several, by name), or None.
        shapes: of the model's weights, by name; channels: "last" or "first", as its framework keeps them.
    """
    if inputs is None:
        maps = any(len(s) > 3 and _of_map(n, s) for n, s in shapes.items())
        return _guessed(shapes, channels) if maps else chain(_plain(shapes, channels), _guessed(shapes, channels))
    return _moved(_listed(inputs))


def _listed(inputs: Any) -> list[Any]:
    if isinstance(inputs, Mapping):
        inputs = list(inputs.values())
    return [np.asarray(x) for x in (inputs if isinstance(inputs, (list, tuple)) else [inputs])]


def _moved(arrays: Sequence[Any]) -> Iterator[list[StandIn]]:
    """As they are; maps with their channels at the other end."""
    for move in (None, (1, -1), (-1, 1)):
        shapes = []
        for array in arrays:
            shape = list(array.shape)
            if move is not None and len(shape) > 2:
                size = shape.pop(move[0])
                shape.insert(len(shape) if move[1] == -1 else 1, size)
            shapes.append(StandIn(tuple(shape), "int32" if array.dtype.kind in "iu" else "float32"))
        yield shapes


def _plain(shapes: Mapping[str, tuple[int, ...]], channels: str) -> Iterator[list[StandIn]]:
    """Tokens, vectors, sequences of vectors: of whatever length, who feeds whom is the same."""
    kernels = [s for n, s in shapes.items() if n.rpartition(".")[2] in KERNELS and len(s) > 1]
    widths = dict.fromkeys(s[-2] if channels == "last" else s[-1] for s in kernels)
    lengths = dict.fromkeys((LENGTH, *(size for n, s in shapes.items() if "pos" in n for size in s[:-1] if size > 1)))
    began = time.process_time()
    tokens = [StandIn((BATCH, length), "int32") for length in lengths]
    vectors = [StandIn((BATCH, *rest), "float32") for n in widths for rest in ((n,), *((k, n) for k in lengths))]
    for one in (*tokens, *vectors):
        if time.process_time() - began > SECONDS:
            return
        yield [one]


def _guessed(shapes: Mapping[str, tuple[int, ...]], channels: str) -> Iterator[list[StandIn]]:
    """Maps of the depth of a kernel, square ones first; nothing where no kernel is of maps: all axes are plain then.

    Any map that the weights fit tells how it is flattened: the positions stay together, whatever their sides.
    """
    kernels = {(len(s) - 2, s[-2] if channels == "last" else s[1]) for n, s in shapes.items() if _of_map(n, s)}
    began = time.process_time()
    for sides in _sides():
        for rank, depth in sorted(kernels):
            if time.process_time() - began > SECONDS:
                return
            if len(sides) in (1, rank):
                positions = sides if len(sides) == rank else sides * rank
                shape = (*positions, depth) if channels == "last" else (depth, *positions)
                yield [StandIn((BATCH, *shape), "float32")]


def _sides() -> Iterator[tuple[int, ...]]:
    """One side for all positions, then two that differ, small maps first."""
    yield from ((side,) for side in dict.fromkeys((*COMMON, *range(1, MOST + 1))))
    pairs = ((a, b) for a in range(2, OBLONG + 1) for b in range(2, OBLONG + 1) if a != b)
    yield from sorted(pairs, key=lambda pair: pair[0] * pair[1])


def _of_map(name: str, shape: Sequence[int]) -> bool:
    parts = name.split(".")
    return len(shape) > 2 and parts[-1] in KERNELS and not set(parts[-2:-1]) & set(HEADS)
