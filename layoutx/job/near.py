"""A file made where its numbers are near: what it needs of remote sources is brought here, what it becomes is sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from layoutx.files.blob import blob_of, stored, writing
from layoutx.files.leftovers import scratch
from layoutx.files.remote import fetch, url_of
from layoutx.files.remote_write import uploaded
from layoutx.files.store import Tensor
from layoutx.files.written import write_all
from layoutx.job.moves import Moves
from layoutx.job.observed import Told
from layoutx.job.stream import Output, stream
from layoutx.move.moves import Move

GAP = 1 << 20  # bytes between two tensors that are read with them: another request would take longer


def deliver_file(moves: Moves, output: Output) -> dict[str, Told]:
    """`stream`, from and to wherever sources and output are.

    Raises:
        LayoutxError: as `stream`; what cannot be fetched, and what cannot be sent.
    """
    with brought((*moves.tensors, *moves.again)) as near, uploaded(output.final, output.again) as final:
        many = len(moves.tensors)
        return stream(replace(moves, tensors=near[:many], again=near[many:]), replace(output, final=final))


@contextmanager
def brought(moves: Sequence[Move]) -> Iterator[tuple[Move, ...]]:
    """The same moves of local sources: the ranges that they read of remote files, in files with holes elsewhere.

    Raises:
        FileError: a remote file cannot be read, or there is no room for it.
    """
    wanted: dict[Path, list[tuple[int, int]]] = {}
    for tensor in {id(tensor): tensor for move in moves for tensor in move.tensors}.values():
        blob = blob_of(tensor)
        if blob is not None and url_of(blob.path) is not None:
            begin = blob.offset + _at(tensor)
            wanted.setdefault(blob.path, []).append((begin, begin + tensor.nbytes))
    if not wanted:
        yield tuple(moves)
        return
    with scratch() as folder:
        here = {far: folder / f"{number}-{far.name}" for number, far in enumerate(wanted)}
        for far, ranges in wanted.items():
            with writing(here[far]), here[far].open("wb") as file:
                handle = file.fileno()
                file.truncate(max(end for _, end in ranges))
                fetch(far, together(ranges), lambda at, data, handle=handle: write_all(handle, data, at))  # type: ignore[misc]
        yield tuple(replace(m, tensors=tuple(moved(t, here) for t in m.tensors)) for m in moves)


def together(ranges: Sequence[tuple[int, int]], gap: int = GAP) -> list[tuple[int, int]]:
    """Ranges in their order, those that nearly touch as one."""
    found: list[tuple[int, int]] = []
    for begin, end in sorted(ranges):
        if found and begin - found[-1][1] <= gap:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((begin, end))
    return found


def moved(tensor: Tensor, files: Mapping[Path, Path]) -> Tensor:
    """The same tensor, read from another file that holds the same bytes at the same place."""
    blob = blob_of(tensor)
    if blob is None or blob.path not in files:
        return tensor
    read: Any = tensor.read
    there = replace(blob, path=files[blob.path], state="")
    if url_of(blob.path) is not None:  # read by `array_at`, as all of a remote file: now it may be mapped
        plain = stored(tensor.name, there, *read.args[1:])
        return replace(tensor, read=plain.read, mapped=plain.mapped)
    return replace(tensor, read=partial(read.func, there, *read.args[1:]))


def _at(tensor: Tensor) -> int:
    """Where a tensor begins in its blob: `blob.array_at` takes it after the blob."""
    read: Any = tensor.read
    return int(read.args[1])
