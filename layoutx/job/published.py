"""Finished shards put in their places: what is to be done is written down first, and a killed run's is finished."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from layoutx.errors import FileError, LayoutxError
from layoutx.files.atomic import check_place, replacing, sync_folder
from layoutx.files.blob import writing
from layoutx.files.certificate import KEY
from layoutx.files.laid.shards import ENDING, index_name, index_text, is_part
from layoutx.files.leftovers import LOCK, held, let_go, work_folder
from layoutx.files.open import open_store
from layoutx.files.remedy import remedy
from layoutx.files.remote import bytes_of, is_file, url_of
from layoutx.files.remote_write import drop_folder, put_in_place, remove, write_text
from layoutx.frozen import frozen
from layoutx.job.observed import Told
from layoutx.job.stream import entries_of
from layoutx.move.moves import Move

RECORD = "publish.json"  # in the work folder: from its first byte on, the new output is whole and is put in place


@frozen
class Shards:
    """Finished shards that are not in their places yet.

    Attributes:
        folder: where they are, in the work folder. parts: file name -> what is in it.
        there: how many an earlier, stopped run had finished.
    """

    final: Path
    folder: Path
    parts: Mapping[str, Sequence[Move]]
    told: Mapping[str, Told]
    there: int = 0

    def publish(self, metadata: Mapping[str, str]) -> tuple[Path, ...]:
        """Put the shards in place, then the index. Killed at any moment, there is an index of the old shards, one of
        the new ones, or none; and then the next run to this output finishes it.

        Raises:
            FileError: a file cannot be written or renamed; all is kept, and the next run finishes it.
        """
        index = index_name(self.final.name)
        names = list(self.parts)
        old = [*_replaced(self.final), *([self.final.name] if _is_ours(self.final) else [])]
        try:
            if len(names) > 1:
                entries = {name: entries_of(moves) for name, moves in self.parts.items()}
                write_whole(self.folder / index, index_text(entries, metadata))
                names.append(index)
            _record(self.final, self.folder.name, names, [name for name in old if name not in names])
        except FileError as error:
            raise kept(error) from error
        try:
            finish_stopped(self.final)
        except KeyboardInterrupt:  # a few renames more, and it is whole
            finish_stopped(self.final)
            raise
        return tuple(self.final.with_name(name) for name in names)

    def drop(self) -> None:
        """Throw them away: what was seen is refused."""
        drop_folder(work_folder(self.final))


@contextmanager
def at_work(final: Path) -> Iterator[None]:
    """Be the only run that makes shards of this output; what a killed one was putting in place is finished first.

    Raises:
        FileError: another run makes them now, or the work folder cannot be made. On a remote store nobody can say.
        UsageError: as `check_place`.
    """
    if url_of(final) is not None:
        finish_stopped(final)
        yield
        return
    check_place(final.parent / f"x{ENDING}")
    folder = work_folder(final)
    with writing(folder):
        handle = held(folder)
    if handle is None:
        raise FileError(
            f"another run makes {final.name} now",
            where=str(folder),
            why="two runs would mix their shards",
            do="wait until it has ended, or choose another output",
        )
    try:
        finish_stopped(final)
        yield
    finally:
        if folder.is_dir() and all(one.name == LOCK for one in folder.iterdir()):
            drop_folder(folder)
        let_go(handle)


def clear(final: Path) -> None:
    """Remove the shards of an output that has become one file, and what killed runs left of some.

    What another run is making now is left alone.

    Raises:
        FileError: as `Shards.publish`.
    """
    if not final.name.endswith(ENDING) or url_of(final) is not None:
        return
    folder, old = work_folder(final), _replaced(final)
    if not old and not folder.is_dir():
        return
    with writing(folder):
        handle = held(folder)
    if handle is not None:
        try:
            finish_stopped(final)
            _record(final, "", (), old)
            finish_stopped(final)
            drop_folder(folder)
        finally:
            let_go(handle)


def _record(final: Path, source: str, files: Sequence[str], stale: Sequence[str]) -> None:
    """Write down what is put in place, and what goes then: from here on it is done, whatever happens."""
    record = {"from": source, "files": list(files), "stale": list(stale)}
    write_whole(work_folder(final) / RECORD, json.dumps(record))


def finish_stopped(final: Path) -> None:
    """Put in place what is recorded; done again it changes nothing.

    Raises:
        FileError: a file cannot be renamed.
    """
    folder, beside = work_folder(final), final.parent
    try:
        record = json.loads(bytes_of(folder / RECORD))
    except FileNotFoundError:
        return
    except ValueError:
        record = None
    except OSError as error:
        raise FileError(f"cannot read {RECORD}", where=str(folder), why=str(error), do=remedy(error)) from error
    source, index = _checked(record, final), index_name(final.name)
    try:
        if set(_named(beside / index)) & set(record["files"]):  # it would name new shards and old ones
            remove(beside / index)
            sync_folder(beside)
        for name in record["files"]:
            if is_file(source / name):
                put_in_place(source / name, beside / name)
        for name in record["stale"]:
            remove(beside / name)
    except OSError as error:
        raise FileError(
            f"{final.name} is made, and not in its place yet",
            where=str(beside),
            why=str(error),
            do="see that the folder can be written, and run the same command again: it goes on from here",
        ) from error
    sync_folder(beside)
    emptied(folder)


def _checked(record: Any, final: Path) -> Path:
    """Where the shards of a record are; a stranger's folder may hold one that names files which are none of ours.

    Raises:
        FileError: it names another folder, or files that are no parts of this output.
    """
    folder = work_folder(final)
    known = record if isinstance(record, dict) else {}
    source, names = known.get("from"), [known.get("files"), known.get("stale")]
    parts = all(
        isinstance(some, list) and all(isinstance(n, str) and is_part(n, final.name) for n in some) for some in names
    )
    plain = isinstance(source, str) and source != ".." and Path(source).name == source
    if not parts or not plain or (url_of(folder) is None and (folder / str(source)).is_symlink()):
        raise FileError(
            f"{RECORD} is not one that layoutx wrote",
            where=str(folder),
            why="it names files that are no parts of this output",
            do="remove the folder, if you do not know what it is",
        )
    return folder / str(source)


def kept(error: FileError) -> FileError:
    """The same error, that says how the finished shards are used."""
    do = "; ".join(filter(None, [error.do, "finished shards are kept: go on with --resume"]))
    return type(error)(error.what, where=error.where, why=error.why, do=do)


def emptied(work: Path) -> None:
    """Remove all of a work folder but its lock.

    Raises:
        FileError: something in it cannot be removed.
    """
    if url_of(work) is not None:
        drop_folder(work)
        return
    with writing(work):
        for one in sorted(work.iterdir(), key=lambda one: one.name == RECORD):  # what is recorded goes last
            if one.name != LOCK:
                drop_folder(one) if one.is_dir() else one.unlink()


def write_whole(path: Path, text: str) -> None:
    """A small file, whole or not at all.

    Raises:
        LayoutxError: it cannot be written.
    """
    if url_of(path) is not None:
        write_text(path, text)
        return
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file, also a remote one; {} where there is none."""
    try:
        found = json.loads(bytes_of(path))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _named(index: Path) -> tuple[str, ...]:
    """The shards that an index names."""
    places = json_object(index).get("weight_map")
    return tuple(dict.fromkeys(map(str, places.values()))) if isinstance(places, dict) else ()


def _replaced(final: Path) -> tuple[str, ...]:
    """The index of an old output in shards, and the shards that it names, where layoutx wrote it."""
    index = final.with_name(index_name(final.name))
    about = json_object(index).get("metadata")
    ours = isinstance(about, dict) and KEY in about
    return (index.name, *(name for name in _named(index) if is_part(name, final.name))) if ours else ()


def _is_ours(final: Path) -> bool:
    """Whether an old output is one file that layoutx wrote."""
    try:
        return is_file(final) and KEY in open_store(final).metadata
    except LayoutxError:
        return False
