"""Tensors that hold several layers, one behind the other or side by side: taken apart and put together again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from weakref import ReferenceType, ref

import numpy as np

from layoutx.files.blob import array_at, blob_of, stored
from layoutx.files.dtypes import Array
from layoutx.files.store import Part, Tensor

Read = Callable[[], Array]


def layers_of(whole: Tensor, axis: int) -> list[Tensor]:
    """A stored tensor as one tensor for each index of an axis, `kernel[3]`, `kernel[:, 3]`; read as it is needed."""
    shape = whole.shape[:axis] + whole.shape[axis + 1 :]
    read = _held(whole.read)
    before = ":, " * axis
    found = []
    for index in range(whole.shape[axis]):
        name, part = f"{whole.name}[{before}{index}]", Part(whole, axis, index)
        own = _mapped(whole, name, shape, index) if axis == 0 else None
        if own is None:
            own = Tensor(name, whole.dtype, shape, partial(_one, read, axis, index))
        found.append(Tensor(name, own.dtype, shape, own.read, whole.derived, own.mapped, part, whole.intact))
    return found


def rows_of(whole: Tensor, axis: int, runs: Sequence[tuple[int, int, int]]) -> list[Tensor]:
    """A stored tensor as one tensor for each run of an axis; read as it is needed.

    Args:
        runs: of each (groups, start, stop): from start to stop in each of the equal groups of the axis.
    """
    read = _held(whole.read)
    found = []
    for groups, start, stop in runs:
        part = Part(whole, axis, start, stop, groups)
        shape = (*whole.shape[:axis], groups * (stop - start), *whole.shape[axis + 1 :])
        each = f" of each {whole.shape[axis] // groups}" if groups > 1 else ""
        name = f"{whole.name}[{':, ' * axis}{start}:{stop}{each}]"
        rows = partial(_run, read, part, shape)
        found.append(Tensor(name, whole.dtype, shape, rows, whole.derived, part=part, intact=whole.intact))
    return found


def _run(read: Read, part: Part, shape: tuple[int, ...]) -> Array:
    return np.ascontiguousarray(part.of(read())).reshape(shape)


def _mapped(whole: Tensor, name: str, shape: tuple[int, ...], index: int) -> Tensor | None:
    """Layers that lie one after the other in a map are tensors of the file like any other."""
    blob = blob_of(whole) if whole.mapped else None
    if blob is None or getattr(whole.read, "func", None) is not array_at:
        return None
    offset = whole.read.args[1]  # type: ignore[attr-defined]
    nbytes = whole.nbytes // whole.shape[0]
    return stored(name, blob, offset + index * nbytes, whole.dtype, shape)


def _held(read: Read) -> Read:
    """The same, without reading again what somebody still looks at."""
    last: list[ReferenceType[Array]] = []

    def once() -> Array:
        found = last[0]() if last else None
        if found is None:
            found = read()
            last[:] = [ref(found)]
        return found

    return once


def _one(read: Read, axis: int, index: int) -> Array:
    return np.ascontiguousarray(read().take(index, axis)) if axis else np.ascontiguousarray(read()[index])


def whole_of(tensors: Iterable[Tensor]) -> list[Tensor]:
    """The stored tensors that these are, or are layers of, each once."""
    found = {id(t.part.whole if t.part else t): t.part.whole if t.part else t for t in tensors}
    return list(found.values())


def together(arrays: Mapping[str, Array], parts: Mapping[str, Part]) -> dict[str, Array]:
    """Arrays with those of one stored tensor's layers as that tensor, in the place of its first layer.

    Args:
        parts: name -> the layer of a stored tensor that it is. Layers that have no array keep their stored numbers.
    """
    found: dict[str, Array] = {}
    for name, array in arrays.items():
        part = parts.get(name)
        if part is None:
            found[name] = array
            continue
        whole = found.get(part.whole.name)
        if whole is None:
            own = [arrays[n] for n, other in parts.items() if other.whole.name == part.whole.name and n in arrays]
            all_ = sum(one.size for one in own) == part.whole.size
            dtype = np.result_type(*(one.dtype for one in own), *([] if all_ else [part.whole.dtype]))
            whole = np.empty(part.whole.shape, dtype) if all_ else np.array(part.whole.read(), dtype)
            found[part.whole.name] = whole
        place = part.of(whole)
        place[...] = array.reshape(place.shape)
    return found
