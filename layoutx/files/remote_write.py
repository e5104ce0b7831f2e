"""Outputs on a remote file system: made in a local file, uploaded, read again, and only then put in their place."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from layoutx.errors import FileError, UsageError
from layoutx.files.leftovers import DAY, scratch
from layoutx.files.remote import TRIES, fetch, insist, system_of, url_of


@contextmanager
def uploaded(final: Path, again: bool = True) -> Iterator[Path]:
    """Where to write what becomes `final`: its own place, or a temporary file that is uploaded when the block ends.

    Args:
        again: read every byte of an upload again and compare.

    Raises:
        FileError: the upload failed, several times; an old file is as it was, and nothing of the new one is left.
    """
    if url_of(final) is None:
        yield final
        return
    with scratch() as folder:
        local = folder / final.name
        yield local
        upload(local, final, again)


def upload(local: Path, final: Path, again: bool) -> None:
    """Copy a local file to a remote place, with a check; tried several times.

    Raises:
        FileError: as `uploaded`.
    """
    fs, name = system_of(final)
    # A store has no rename: what replaces an old file is checked beside it first, and copied inside the store.
    _sweep(fs, name)
    old = bool(fs.exists(name))
    there = f"{name}.{os.urandom(4).hex()}.tmp" if old else name

    def once() -> None:
        try:
            fs.put_file(str(local), there)
            _check(local, final.with_name(there.rsplit("/", 1)[-1]), again)
            if old:
                fs.cp_file(there, name)
                fs.rm_file(there)
        except BaseException:
            with suppress(Exception):
                fs.rm_file(there)
            raise

    _insist(once, final)


def _sweep(fs: Any, name: str) -> None:
    """Remove what runs that were killed more than a day ago left of an object: a store has no locks to ask."""
    mine = re.compile(re.escape(name.rsplit("/", 1)[-1]) + r"\.[0-9a-f]{8}\.tmp")
    dead = datetime.now(UTC) - timedelta(seconds=DAY)
    with suppress(Exception):  # no such folder yet, or a store that does not say how old things are
        for found in fs.ls(name.rsplit("/", 1)[0], detail=False, refresh=True):
            if mine.fullmatch(found.rsplit("/", 1)[-1]) and fs.modified(found) < dead:
                fs.rm_file(found)
    with suppress(Exception):  # only s3fs lists uploads in parts; their parts are paid for, and nobody sees them
        bucket, _, key = name.partition("/")
        for one in fs.list_multipart_uploads(bucket):
            if one["Initiated"] < dead and (one["Key"] == key or mine.fullmatch(one["Key"].rsplit("/", 1)[-1])):
                fs.call_s3("abort_multipart_upload", Bucket=bucket, Key=one["Key"], UploadId=one["UploadId"])


def _check(local: Path, there: Path, again: bool) -> None:
    """Compare an upload with its file.

    Raises:
        OSError: they differ.
    """
    fs, name = system_of(there)
    size = local.stat().st_size
    found = int(fs.info(name)["size"])
    if found != size:
        raise OSError(f"{found} of {size} bytes arrived")
    if not again:
        return
    with local.open("rb") as file:

        def compare(at: int, data: bytes) -> None:
            file.seek(at)
            if file.read(len(data)) != data:
                raise OSError(f"the bytes from {at} on are not those that were sent")

        fetch(there, [(0, size)], compare)


def check_remote(path: Path) -> None:
    """Refuse a remote place that cannot be written as far as that shows before any work is done.

    Raises:
        UsageError: no such bucket, no credentials, a file system without writing, an output that is a folder.
    """
    fs, name = system_of(path)
    url = str(url_of(path))
    if path.name.endswith((".orbax", ".dcp")):
        raise UsageError(f"the output {path.name} is a folder", where=url, do="write it here, and copy it there")
    root = name.lstrip("/").split("/")[0]
    try:
        missing = name.count("/") and not name.startswith("/") and not fs.exists(root)
    except Exception as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        raise UsageError(f"{url} cannot be reached from here", why=said, do="check the credentials") from error
    if missing:
        raise UsageError(f"there is no {root} for {path.name}", where=url, do="make the bucket first")


def make_folder(folder: Path) -> None:
    """Make a folder, if it is not there; stores have none.

    Raises:
        OSError: it cannot be made.
    """
    if url_of(folder) is None:
        folder.mkdir(exist_ok=True)


def drop_folder(folder: Path) -> None:
    """Remove a folder and all that is in it, as far as it lets itself be removed."""
    if url_of(folder) is None:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)
        return
    fs, name = system_of(folder)
    with suppress(Exception):
        if fs.exists(name):
            fs.rm(name, recursive=True)


def put_in_place(old: Path, new: Path) -> None:
    """Give a finished file its last name.

    Raises:
        OSError: it cannot be renamed.
        FileError: a store did not copy it, several times.
    """
    if url_of(new) is None:
        os.replace(old, new)
        return
    fs, source = system_of(old)
    _, target = system_of(new)
    _insist(lambda: (fs.cp_file(source, target), fs.rm_file(source)), new)


def write_text(path: Path, text: str) -> None:
    """Write a small remote file.

    Raises:
        FileError: it cannot be written.
    """
    fs, name = system_of(path)
    _insist(lambda: fs.pipe_file(name, text.encode()), path)


def remove(path: Path) -> None:
    """Remove a file, if there is one."""
    if url_of(path) is None:
        path.unlink(missing_ok=True)
        return
    fs, name = system_of(path)
    _insist(lambda: fs.rm_file(name) if fs.exists(name) else None, path)


def _insist(call: Callable[[], object], path: Path) -> None:
    try:
        insist(call)
    except Exception as error:
        raise _unwritten(path, error) from error


def _unwritten(path: Path, error: Exception) -> FileError:
    said = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
    return FileError(
        f"cannot write {path.name}",
        where=str(url_of(path)),
        why=f"{said} ({TRIES} tries)",
        do="check that the place can be written",
    )
