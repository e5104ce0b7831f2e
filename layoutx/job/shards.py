"""An output in shards: each made and checked by itself in a folder beside the output, all put in place, the index last.

What was finished before a stop is known by its checksums, and is not made again where the job is the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from layoutx.errors import FileError, LayoutxError, UsageError, WorkerError
from layoutx.files.blob import origin, writing
from layoutx.files.hashes import XXH3
from layoutx.files.laid.shards import index_name, partition, shard_names
from layoutx.files.leftovers import JOURNAL, work_folder
from layoutx.files.remote import is_file, state_of, url_of
from layoutx.files.remote_write import make_folder
from layoutx.frozen import frozen
from layoutx.job.moves import Moves
from layoutx.job.near import deliver_file
from layoutx.job.observed import Told
from layoutx.job.published import Shards, emptied, json_object, kept, write_whole
from layoutx.job.stream import Output, entries_of
from layoutx.move.again import same_again
from layoutx.move.cast import Lost
from layoutx.move.moves import Move
from layoutx.progress import tell
from layoutx.words import first


@frozen
class Part:
    """One shard to be made: fit to be given to another process, where its sources are mapped."""

    path: Path
    moves: tuple[Move, ...]
    metadata: Mapping[str, str]
    jobs: int = 1
    again: bool = True
    kind: str = XXH3


Run = Callable[[Sequence[Part]], Iterator[tuple[Part, dict[str, Told]]]]


def make(part: Part) -> dict[str, Told]:
    """Make one shard; done twice it gives the same bytes.

    Raises:
        LayoutxError: as `stream`.
    """
    output = Output(part.path, None, lambda told, again: part.metadata, room_of(part), part.again, part.jobs, part.kind)
    return deliver_file(Moves(part.moves, (), {}, {}), output)


def room_of(part: Part) -> int:
    """The bytes that a part's metadata needs."""
    return len(json.dumps(dict(part.metadata)))


def one_by_one(parts: Sequence[Part]) -> Iterator[tuple[Part, dict[str, Told]]]:
    """Make shards here, one after the other."""
    for part in parts:
        yield part, make(part)


def make_shards(
    moves: Moves,
    final: Path,
    most: int,
    metadata: Mapping[str, str],
    *,
    jobs: int,
    again: bool,
    resume: bool,
    run: Run = one_by_one,
    kind: str = XXH3,
    files: Collection[tuple[Path, str]] = (),
) -> Shards:
    """Make all shards in the work folder, inside `at_work`; `Shards.publish` puts them in place.

    Args:
        most: bytes of tensors in a shard. metadata: of each shard.
        resume: take what an earlier, stopped run of the same job finished.
        run: how parts are made: here, or by the workers of an executor.
        kind: of the hashes.
        files: the files of the sources, with their states.

    Raises:
        UsageError: they would take the place of their source.
        LayoutxError: as `make`; the work folder is empty then. Where a file cannot be read or written (FileError),
            workers died (WorkerError), or the run was interrupted, it keeps the finished shards, for `resume`.
    """
    _not_sources(moves, final, most)
    work = work_folder(final)
    digest = digest_of(moves.tensors, most, {**metadata, "hash": kind, "again": str(again)}, files)
    folder = work / _own(digest)
    by_name = {move.name: move for move in moves.tensors}
    entries = partition(entries_of(moves.tensors), most)
    names = shard_names(final.name, len(entries))
    parts = [
        Part(folder / name, tuple(by_name[entry.name] for entry in own), metadata, jobs, again, kind)
        for name, own in zip(names, entries, strict=True)
    ]
    journal = _opened(work, digest, resume)
    try:
        told = dict(_kept(parts, journal))
        there = len(told)
        todo = [part for part in parts if part.path.name not in told]
        for number, (part, found) in enumerate(run(todo)):
            tell(len(told), len(parts), f"shard {part.path.name} is done ({number + 1} now)")
            told[part.path.name] = found
            _note(work, journal, part.path.name, found)
    except WorkerError:
        raise
    except BaseException as error:
        if not journal["done"] or (isinstance(error, LayoutxError) and not isinstance(error, FileError)):
            emptied(work)
        elif isinstance(error, FileError):
            raise kept(error) from error
        raise
    flat = {name: one for part in parts for name, one in told[part.path.name].items()}
    return Shards(final, folder, dict(zip(names, (part.moves for part in parts), strict=True)), flat, there)


def _not_sources(moves: Moves, final: Path, most: int) -> None:
    """Refuse shards that would take the place of what they are made from.

    Raises:
        UsageError: a file of the source has the name of a shard, of the index, or is beside such an index.
    """
    names = shard_names(final.name, len(partition(entries_of(moves.tensors), most)))
    own = {os.path.realpath(final.with_name(name)) for name in (*names, index_name(final.name))}
    tensors = {id(t): t for move in (*moves.tensors, *moves.again) for t in move.tensors}
    files = {str(path) for path in map(origin, tensors.values()) if path is not None and url_of(path) is None}
    if taken := sorted(own & {os.path.realpath(path) for path in files}):
        raise UsageError(
            "the output is the source itself",
            where=first(taken),
            why="its shards have the names of the new ones",
            do="give another name with -o",
        )


def digest_of(
    moves: Iterable[Move], most: int, metadata: Mapping[str, str], files: Collection[tuple[Path, str]]
) -> str:
    """What makes a job the same one: every move, the state of the source's files, the size of shards.

    A job that reads what lies in no file that is known is never the same one.

    Args:
        files: those of the sources, with their states: of a `.pt`, for one, no tensor says where it lies.
    """
    import hashlib  # it loads OpenSSL, for outputs in shards alone

    digest = hashlib.sha256(repr((most, sorted(metadata.items()))).encode())
    known = {path: state or (state_of(path) if url_of(path) is not None else "") for path, state in files}
    unsaid, lost = not files or not all(known.values()), False
    for move in moves:
        sources = []
        for name, tensor in move.sources.items():
            path = origin(tensor)
            lost |= path is None and unsaid
            if path is not None and path not in known:
                known[path] = state_of(path)
            sources.append((name, tensor.name, str(tensor.dtype), tensor.shape))
        digest.update(repr((move.name, str(move.dtype), move.shape, move.steps, sources)).encode())
    digest.update(repr(sorted((str(path), about) for path, about in known.items())).encode())
    digest.update(os.urandom(16) if lost else b"")
    return digest.hexdigest()


def _opened(work: Path, digest: str, resume: bool) -> dict[str, Any]:
    """The journal of the work folder: that of an earlier run of the same job, or a new one with an empty folder.

    Raises:
        FileError: no folder can be made here.
    """
    old = _journal(work / JOURNAL) if resume else {}
    if old.get("job") == digest:
        return old
    emptied(work)
    with writing(work):
        make_folder(work / _own(digest))
    return {"job": digest, "done": {}}


def _own(digest: str) -> str:
    """The folder of a job's shards: a worker of an earlier job that is still alive writes into no other."""
    return digest[:16]


def _journal(path: Path) -> dict[str, Any]:
    found = json_object(path)
    return found if isinstance(found.get("done"), dict) else {}


def _kept(parts: Sequence[Part], journal: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Told]]]:
    """The parts that an earlier run finished and whose bytes are still those."""
    for part in parts:
        noted = journal["done"].get(part.path.name)
        if noted is None or not is_file(part.path):
            continue
        told = {name: _told(one) for name, one in noted.items()}
        if same_again(part.path, part.moves, {name: one.hash for name, one in told.items()}, part.kind):
            yield part.path.name, told


def _note(work: Path, journal: dict[str, Any], name: str, told: Mapping[str, Told]) -> None:
    journal["done"][name] = {tensor: _dict(one) for tensor, one in told.items()}
    write_whole(work / JOURNAL, json.dumps(journal))


def _dict(told: Told) -> dict[str, Any]:
    lost = None if told.lost is None else [getattr(told.lost, name) for name in told.lost.__dataclass_fields__]
    return {"hash": told.hash, "rounded": told.rounded, "lost": lost, "sources": dict(told.sources)}


def _told(noted: Mapping[str, Any]) -> Told:
    lost = Lost(*noted["lost"]) if noted["lost"] is not None else None
    return Told(noted["hash"], noted["rounded"], lost, tuple(noted["sources"].items()))
