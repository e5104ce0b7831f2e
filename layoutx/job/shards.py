"""An output in shards: each made and checked by itself in a folder beside the output, all put in place, the index last.

What was finished before a stop is known by its checksums, and is not made again where the job is the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layoutx.errors import LayoutxError, UsageError, WorkerError
from layoutx.files.atomic import check_place, replacing
from layoutx.files.blob import origin
from layoutx.files.laid.shards import index_name, index_text, partition, shard_names
from layoutx.files.remote import is_file, opened, state_of, url_of
from layoutx.files.remote_write import drop_folder, make_folder, put_in_place, remove, write_text
from layoutx.job.moves import Moves
from layoutx.job.near import deliver_file
from layoutx.job.observed import Told
from layoutx.job.stream import Output, entries_of
from layoutx.move.again import same_again
from layoutx.move.cast import Lost
from layoutx.move.moves import Move
from layoutx.progress import tell

JOURNAL = "parts.json"


@dataclass(frozen=True, slots=True)
class Part:
    """One shard to be made: fit to be given to another process, where its sources are mapped."""

    path: Path
    moves: tuple[Move, ...]
    metadata: Mapping[str, str]
    jobs: int = 1
    again: bool = True


Run = Callable[[Sequence[Part]], Iterator[tuple[Part, dict[str, Told]]]]


def make(part: Part) -> dict[str, Told]:
    """Make one shard; done twice it gives the same bytes.

    Raises:
        LayoutxError: as `stream`.
    """
    output = Output(part.path, None, lambda told, again: part.metadata, room_of(part), part.again, part.jobs)
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
) -> Shards:
    """Make all shards in the work folder; `Shards.publish` puts them in place.

    Args:
        most: bytes of tensors in a shard. metadata: of each shard.
        resume: take what an earlier, stopped run of the same job finished.
        run: how parts are made: here, or by the workers of an executor.

    Raises:
        LayoutxError: as `make`; the work folder is gone then. On any other failure it stays, for `resume`, and
            where workers died (WorkerError).
    """
    folder = work_folder(final)
    by_name = {move.name: move for move in moves.tensors}
    entries = partition(entries_of(moves.tensors), most)
    names = shard_names(final.name, len(entries))
    parts = [
        Part(folder / name, tuple(by_name[entry.name] for entry in own), metadata, jobs, again)
        for name, own in zip(names, entries, strict=True)
    ]
    journal = _opened(folder, digest_of(moves.tensors, most, metadata), resume)
    try:
        told = dict(_kept(parts, journal))
        todo = [part for part in parts if part.path.name not in told]
        for number, (part, found) in enumerate(run(todo)):
            tell(len(told), len(parts), f"shard {part.path.name} is done ({number + 1} now)")
            told[part.path.name] = found
            _note(folder, journal, part.path.name, found)
    except WorkerError:
        raise
    except LayoutxError:
        drop_folder(folder)
        raise
    flat = {name: one for part in parts for name, one in told[part.path.name].items()}
    return Shards(final, folder, dict(zip(names, (part.moves for part in parts), strict=True)), flat)


@dataclass(frozen=True)
class Shards:
    """Finished shards that are not in their places yet."""

    final: Path
    folder: Path
    parts: Mapping[str, Sequence[Move]]
    told: Mapping[str, Told]

    def publish(self, metadata: Mapping[str, str]) -> tuple[Path, ...]:
        """Put the shards in place, then the index; an old index goes first, so that none ever names a mixture."""
        beside = self.final.parent
        index = beside / index_name(self.final.name)
        remove(index)
        for name in self.parts:
            put_in_place(self.folder / name, beside / name)
        written = tuple(beside / name for name in self.parts)
        if len(self.parts) > 1:
            entries = {name: entries_of(moves) for name, moves in self.parts.items()}
            _write(index, index_text(entries, metadata))
            written = (index, *written)
        drop_folder(self.folder)
        return written

    def drop(self) -> None:
        """Throw them away: what was seen is refused."""
        drop_folder(self.folder)


def work_folder(final: Path) -> Path:
    """The hidden folder beside the output in which shards are made."""
    return final.with_name(f".{final.name}.parts")


def digest_of(moves: Iterable[Move], most: int, metadata: Mapping[str, str]) -> str:
    """What makes a job the same one: every move, the state of the source's files, the size of shards.

    Raises:
        UsageError: tensors that lie in no file.
    """
    digest = hashlib.sha256(repr((most, sorted(metadata.items()))).encode())
    files: dict[Path, str] = {}
    for move in moves:
        sources = []
        for name, tensor in move.sources.items():
            path = origin(tensor)
            if path is not None and path not in files:
                files[path] = state_of(path)
            sources.append((name, tensor.name, str(tensor.dtype), tensor.shape))
        digest.update(repr((move.name, str(move.dtype), move.shape, move.steps, sources)).encode())
    digest.update(repr(sorted((str(path), about) for path, about in files.items())).encode())
    return digest.hexdigest()


def _opened(folder: Path, digest: str, resume: bool) -> dict[str, Any]:
    """The journal of the work folder: that of an earlier run of the same job, or a new one in an empty folder.

    Raises:
        UsageError: no folder can be made here.
    """
    check_place(folder.parent / "x.safetensors")
    old = _journal(folder / JOURNAL) if resume else {}
    if old.get("job") == digest:
        return old
    drop_folder(folder)
    try:
        make_folder(folder)
    except OSError as error:
        raise UsageError(
            f"the folder {folder.name} cannot be made", where=str(folder.parent), why=str(error)
        ) from error
    return {"job": digest, "done": {}}


def _journal(path: Path) -> dict[str, Any]:
    try:
        with opened(path) as file:
            found = json.loads(file.read())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("done"), dict) else {}


def _kept(parts: Sequence[Part], journal: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Told]]]:
    """The parts that an earlier run finished and whose bytes are still those."""
    for part in parts:
        noted = journal["done"].get(part.path.name)
        if noted is None or not is_file(part.path):
            continue
        told = {name: _told(one) for name, one in noted.items()}
        if same_again(part.path, part.moves, {name: one.sums for name, one in told.items()}):
            yield part.path.name, told


def _note(folder: Path, journal: dict[str, Any], name: str, told: Mapping[str, Told]) -> None:
    journal["done"][name] = {tensor: _dict(one) for tensor, one in told.items()}
    _write(folder / JOURNAL, json.dumps(journal))


def _write(path: Path, text: str) -> None:
    """A small file, whole or not at all."""
    if url_of(path) is not None:
        write_text(path, text)
        return
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _dict(told: Told) -> dict[str, Any]:
    lost = None if told.lost is None else [getattr(told.lost, name) for name in told.lost.__dataclass_fields__]
    return {"sums": [f"{one:016x}" for one in told.sums], "rounded": told.rounded, "lost": lost}


def _told(noted: Mapping[str, Any]) -> Told:
    lost = Lost(*noted["lost"]) if noted["lost"] is not None else None
    return Told(tuple(int(one, 16) for one in noted["sums"]), noted["rounded"], lost)
