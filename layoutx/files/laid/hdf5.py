"""HDF5 without its numbers: the structure of a template held in memory, and where each tensor will lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from layoutx.files.blob import writing
from layoutx.files.dtypes import DType, is_extra
from layoutx.files.keras_write import check_like, check_shapes, copy_structure, link
from layoutx.files.laid.entry import Entry
from layoutx.files.laid.place import Laid
from layoutx.files.laid.sparse import Sparse
from layoutx.files.notes import KEY, to_text
from layoutx.files.room import reserve
from layoutx.files.store import Store
from layoutx.frozen import frozen

SLACK = 1 << 14  # what metadata needs in the file beside its text: heaps and headers, in blocks


@frozen
class Structure:
    """An HDF5 file but for the bytes of its tensors.

    Attributes:
        file: the HDF5 file, with nothing where tensors lie.
        offsets: entry name -> offset in the HDF5 file; 0 for a tensor without bytes.
        spans: (begin, end) of each tensor with bytes, in the order of the file.
    """

    file: Sparse
    offsets: Mapping[str, int]
    spans: tuple[tuple[int, int], ...]

    def write(self, out: BinaryIO, base: int, metadata: Mapping[str, str]) -> int:
        """Write all that is no tensor, with the metadata, to a file that holds the HDF5 file from `base` on.

        The answer is the size of the HDF5 file.
        """
        if metadata:
            with h5py.File(self.file, "r+") as file:
                file.attrs[KEY] = to_text(metadata)
        for begin, end in _between(self.spans, self.file.size):
            out.seek(base + begin)
            out.write(self.file.part(begin, end - begin))
        return self.file.size


def structure(template: Store, final: Path, entries: Sequence[Entry]) -> Structure:
    """The template's groups, attributes and names, with datasets for the entries; as `keras_write.write_like`.

    Raises:
        UsageError: the template does not fit the ending of `final`, or the entries do not fit the template.
        FileError: the template cannot be read any more.
    """
    check_like(template, final)
    check_shapes(template, {entry.name: entry.shape for entry in entries})
    by_name = {entry.name: entry for entry in entries}
    offsets: dict[str, int] = {}
    types: dict[DType, h5py.h5t.TypeID] = {}
    plain = _creation()
    file = Sparse()
    with writing(final), h5py.File(file, "w") as new:

        def make(group: h5py.h5g.GroupID, own: str, name: str) -> h5py.h5d.DatasetID:
            entry = by_name[name]
            if entry.dtype not in types:
                types[entry.dtype] = _type(entry.dtype)
            space = _space(entry.shape)
            path, coding = link(own)
            made = h5py.h5d.create(group, path, types[entry.dtype], space, plain, coding)
            offsets[name] = made.get_offset() or 0  # None for a dataset without bytes
            return made

        copy_structure(template, new, {entry.name: entry.dtype for entry in entries}, make)
    ends = ((offsets[entry.name], offsets[entry.name] + entry.nbytes) for entry in entries if entry.nbytes)
    return Structure(file, offsets, tuple(sorted(ends)))


def lay_hdf5(temporary: Path, final: Path, entries: Sequence[Entry], room: int, template: Store) -> Laid:
    """A `.weights.h5` or legacy `.h5` in the structure of the template.

    Raises:
        UsageError: as `structure`.
        FileError: the disk has no room.
    """
    made = structure(template, final, entries)
    end = made.file.size + room + SLACK
    with writing(final):
        reserve(temporary, end)

    def finish(metadata: Mapping[str, str], jobs: int) -> None:
        with writing(final), temporary.open("rb+") as out:
            out.truncate(made.write(out, 0, metadata))

    return Laid(temporary, made.offsets, end, finish)


def _between(spans: Sequence[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """What the spans leave of 0 to `size`."""
    at = 0
    for begin, end in spans:
        if begin > at:
            yield at, begin
        at = end
    if size > at:
        yield at, size


def _creation() -> h5py.h5p.PropDCID:
    """Datasets that lie in one piece, from the beginning, and are not filled."""
    found = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    found.set_layout(h5py.h5d.CONTIGUOUS)
    found.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    found.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    found.set_obj_track_times(False)  # the same output twice is the same bytes twice
    return found


def _space(shape: tuple[int, ...]) -> h5py.h5s.SpaceID:
    return h5py.h5s.create_simple(shape) if shape else h5py.h5s.create(h5py.h5s.SCALAR)


def _type(dtype: DType) -> h5py.h5t.TypeID:
    return h5py.h5t.py_create(np.dtype(f"V{dtype.itemsize}") if is_extra(dtype) else dtype, logical=True)
