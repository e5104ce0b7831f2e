"""A blob: a run of bytes inside a file, read in place through a memory map, with every failure a FileError."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from weakref import WeakValueDictionary

import numpy as np

from layoutx.errors import FileError, LayoutxError
from layoutx.files import spool
from layoutx.files.dtypes import Array, DType, native, settled
from layoutx.files.guarded import PAGE, Map, check_since, guarded
from layoutx.files.remedy import remedy
from layoutx.files.remote import fetched, size_of, url_of
from layoutx.files.steady import plain_file, same_file, same_files, state_in
from layoutx.files.store import Store, Tensor
from layoutx.frozen import frozen

if TYPE_CHECKING:
    import zipfile

DO_AGAIN = "copy or download the file again, or save it again"


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn whatever goes wrong while a file is read into a FileError; errors of layoutx pass."""
    try:
        yield
    except LayoutxError:
        raise
    except Exception as error:  # a damaged file makes h5py, zipfile, json and torch raise nearly every type there is
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        raise FileError(f"cannot read {path.name} as {what}", where=str(path), why=said, do=DO_AGAIN) from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failed write (a full disk, h5py's many errors) into a FileError; errors of layoutx pass."""
    try:
        yield
    except LayoutxError:
        raise
    except Exception as error:  # as in `reading`
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        raise FileError(f"cannot write {path.name}", where=str(path), why=said, do=remedy(error)) from error


@frozen
class Blob:
    """`size` bytes of `path` from `offset` on.

    Attributes:
        packed: the bytes, where the file has them compressed.
        state: the file's when it was opened (`steady`): another one is not read in its place; "": whatever is there.
    """

    path: Path
    offset: int
    size: int
    packed: bytes | memoryview | None = None
    state: str = ""


def whole(path: Path) -> Blob:
    """The blob that is the whole file."""
    if url_of(path) is not None:
        return Blob(path, 0, size_of(path))
    about = path.stat()
    return Blob(path, 0, about.st_size, state=state_in(about))


def member(info: zipfile.ZipInfo, path: Path) -> Blob:
    """A member of an archive that `zips.opened` let pass: in place where it is stored, else unpacked.

    Raises:
        FileError: it has become another file since, or the member is not what the directory says.
    """
    from zipfile import ZIP_STORED

    with path.open("rb") as file:
        file.seek(info.header_offset)
        head = file.read(30)
    # The local header's own lengths count: its extra field may differ from the one in the directory.
    start = info.header_offset + 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    if info.compress_type == ZIP_STORED:
        return replace(whole(path), offset=start, size=info.file_size)
    return Blob(path, 0, info.file_size, spool.unpacked(info, path, start))


def array_at(blob: Blob, offset: int, dtype: DType, shape: tuple[int, ...], order: Any = "C") -> Array:
    """The array stored at `offset` in a blob, native and C-contiguous: a read-only view where it can be.

    A view may be misaligned, since a zip puts its members anywhere; NumPy copes, other libraries may not.

    Raises:
        FileError: the array reaches past the blob or the file.
    """
    count = math.prod(shape)
    nbytes = count * dtype.itemsize
    if offset < 0 or offset + nbytes > blob.size:
        raise FileError(
            f"{blob.path.name} is truncated",
            where=str(blob.path),
            why=f"an array ends at byte {offset + nbytes} of {blob.size}",
            do=DO_AGAIN,
        )
    if not count:
        with reading(blob.path, "arrays"):  # NumPy refuses forged dimensions of empty arrays too
            return settled(np.empty(shape, dtype))
    if blob.packed is not None:
        raw = np.frombuffer(blob.packed, np.uint8, nbytes, offset)
    elif url_of(blob.path) is not None:
        raw = fetched(blob.path, blob.offset + offset, spool.space(nbytes, blob.path))
    else:
        with reading(blob.path, "the file it was a moment ago"):
            raw = np.frombuffer(mapped(blob.path, blob.state), np.uint8, nbytes, blob.offset + offset)
    return spool.settled(raw.view(dtype).reshape(shape, order=order), blob.path)


def stored(name: str, blob: Blob, offset: int, dtype: DType, shape: tuple[int, ...], order: Any = "C") -> Tensor:
    """The tensor stored at `offset` in a blob, with the byte order of `dtype` there; read by `array_at`."""
    plain = blob.packed is None and order == "C" and dtype == native(dtype) and url_of(blob.path) is None
    read = partial(array_at, blob, offset, dtype, shape, order)
    return Tensor(name, native(dtype), shape, read, mapped=plain)


def flat_of(tensor: Tensor) -> Array:
    """All numbers of a stored tensor in a row.

    Raises:
        FileError: as `array_at`.
    """
    if not tensor.mapped:
        return tensor.read().reshape(-1)
    blob, offset = tensor.read.args[:2]  # type: ignore[attr-defined]
    held, count = _held(blob.path, blob.state), tensor.size
    end = offset + count * tensor.dtype.itemsize
    if held is None or not count or offset < 0 or end > blob.size or blob.offset + end > len(held):
        return tensor.read().reshape(-1)  # which maps it, or says what is wrong
    return np.ndarray((count,), tensor.dtype, held, blob.offset + offset)


def forget(tensor: Tensor) -> None:
    """Take the pages of a mapped tensor out of this process; the system keeps them, and maps them again when asked.

    Ending a map of gigabytes takes a while, in which nothing else is done: better by the way, beside other threads.
    """
    blob, offset = tensor.read.args[:2]  # type: ignore[attr-defined]
    held, begin = _held(blob.path, blob.state), blob.offset + offset
    pages = slice(-(-begin // PAGE) * PAGE, (begin + tensor.nbytes) // PAGE * PAGE)
    if held is not None and pages.start < pages.stop <= len(held) and hasattr(mmap, "MADV_DONTNEED"):
        held.madvise(mmap.MADV_DONTNEED, pages.start, pages.stop - pages.start)


def origin(tensor: Tensor) -> Path | None:
    """The file that every process can read a tensor from; None for what is in memory, or was unpacked here."""
    blob = blob_of(tensor)
    return None if blob is None or blob.packed is not None else blob.path


def blob_of(tensor: Tensor) -> Blob | None:
    """The blob that a tensor is read from; None for what is in memory."""
    args = getattr(tensor.read, "args", ())
    return args[0] if args and isinstance(args[0], Blob) else None


def unchanged(began: int, *stores: Store | None) -> None:
    """Refuse what was read from files that are not now what they were when their stores were opened.

    Args:
        began: `guarded.broken()` before anything was read.

    Raises:
        SourceError: files that changed, became shorter, are gone, or could not be read; all of them together.
    """
    check_since(began)
    same_files(found for store in stores if store is not None for found in files_of(store))


def files_of(store: Store) -> dict[tuple[Path, str], None]:
    """The files of a store, each with its state when it was opened."""
    found = dict.fromkeys([(store.path, store.state), *store.shards])
    return found | {(blob.path, blob.state): None for t in store.tensors.values() if (blob := blob_of(t)) is not None}


def bytes_of(store: Store) -> int:
    """The bytes of all files that a store reads: an index and its shards; of what is in no plain file, its tensors'."""
    files = {path for path, _ in files_of(store) if url_of(path) is None and path.is_file()}
    if store.path not in files:
        return sum(tensor.nbytes for tensor in store.tensors.values())
    return sum(path.stat().st_size for path in files)


_MAPS: WeakValueDictionary[tuple[str, int, str], Map] = WeakValueDictionary()


_HELD: list[dict[tuple[Path, str], Map]] = []  # innermost last; of all threads


@contextmanager
def holding() -> Iterator[None]:
    """Keep every map that is made inside: ten thousand small tensors of a file then open it once."""
    own: dict[tuple[Path, str], Map] = {}
    _HELD.append(own)
    try:
        yield
    finally:
        _HELD[:] = [one for one in _HELD if one is not own]


def mapped(path: Path, state: str = "") -> Map:
    """The whole file as one read-only map, the same one as long as anybody holds it and the file is the same.

    Args:
        state: the file's when it was opened; "": whatever is there.

    Raises:
        SourceError: the file has another state now.
    """
    if (held := _held(path, state)) is not None:
        return held
    found = _mapped(path, state)
    if _HELD:
        _HELD[-1][path, state] = found
    return found


def _held(path: Path, state: str) -> Map | None:
    """The map that somebody holds."""
    for own in reversed(_HELD):
        if (held := own.get((path, state))) is not None and not held.broken:
            return held
    return None


@contextmanager
def viewed(path: Path) -> Iterator[Map]:
    """`mapped`, for a `with` in the place of one that would close a map."""
    yield mapped(path)


def _mapped(path: Path, state: str) -> Map:
    with _opened(path, state) as file:
        about = os.fstat(file.fileno())
        same_file(path, state, about)
        key = (str(path), about.st_ino, state_in(about))
        found = _MAPS.get(key)
        if found is None or found.broken:
            found = _MAPS[key] = guarded(file.fileno(), path)
        return found


def _opened(path: Path, state: str) -> BinaryIO:
    try:
        return plain_file(path)
    except FileNotFoundError:
        same_file(path, state, None)
        raise
