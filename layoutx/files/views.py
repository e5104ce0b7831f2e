"""A tensor as torch stores it: sizes and strides over a storage, checked against it before anything is read."""

from __future__ import annotations

from math import prod
from pathlib import Path

from layoutx.errors import FileError
from layoutx.files.blob import DO_AGAIN
from layoutx.files.limits import within, within_expansion
from layoutx.frozen import frozen

FEW = 8  # axes: what has no more is not held against the limit, which asks the environment


@frozen
class View:
    """Sizes, strides and offset in elements of `itemsize` bytes."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    itemsize: int

    @property
    def extent(self) -> int:
        """Elements from its first to its last one in the storage; 0 where it has none."""
        if not prod(self.sizes):
            return 0
        return 1 + sum((n - 1) * step for n, step in zip(self.sizes, self.strides, strict=True))


def check_view(view: View, storage: int, path: Path, what: str) -> None:
    """Refuse a view that reaches outside of its storage, or of a few numbers that would make a giant.

    Args:
        storage: bytes. what: the tensor, for the error.

    Raises:
        FileError: no view, or more than RANK axes, or one that EXPANSION forbids.
    """
    sizes, strides, offset, itemsize = view.sizes, view.strides, view.offset, view.itemsize
    if len(sizes) > FEW:
        within("RANK", len(sizes), path, f"'{what}'", f"tensor {what}")
    wrong = len(sizes) != len(strides) or min((*sizes, *strides, offset)) < 0
    if wrong or (offset + view.extent) * itemsize > storage:
        spelled = f"sizes {sizes}, strides {strides}, offset {offset}"
        why = f"{spelled} of {itemsize} bytes each, in a storage of {storage} bytes"
        where = f"{path}, tensor {what}"
        raise FileError(f"{path.name}: '{what}' lies outside of its storage", where=where, why=why, do=DO_AGAIN)
    within_expansion(storage, prod(sizes) * itemsize, path, f"'{what}'", f"tensor {what}")
