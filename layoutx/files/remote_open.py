"""A remote weights file opened: safetensors where it lies, by ranges; every other format from a local copy."""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from layoutx.errors import FileError, UsageError
from layoutx.files.blob import DO_AGAIN, reading
from layoutx.files.index import some
from layoutx.files.leftovers import scratch
from layoutx.files.remote import CHUNK, insist, opened, size_of, system_of, url_of
from layoutx.files.store import Store
from layoutx.progress import tell


def open_remote(path: Path) -> Store:
    """The tensors of a remote file; `open_store` calls this.

    safetensors, also in shards, is not copied: its headers are read, and later the ranges that are needed. All other
    formats are downloaded to a temporary file, which goes when the process ends.

    Raises:
        UsageError: there is no such file, or its file system cannot be reached.
        FileError: it cannot be read; as `open_store`.
    """
    from layoutx.files.open import open_store

    head = _head(path)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 40:
        from layoutx.files.safetensors import read_safetensors

        return read_safetensors(path)
    if head.lstrip()[:1] != b"{":
        return open_store(downloaded([path])[0])
    from layoutx.files.index import parse_object, shard_files, text_of
    from layoutx.files.safetensors import read_safetensors
    from layoutx.files.sharded import read_index

    with reading(path, "an index of shards"):
        index = parse_object(text_of(path), path, "the file")
        shards = shard_files(path, index)
        if {shard.suffix for shard in shards} == {".safetensors"}:
            return read_index(path, index, read_safetensors)
    return open_store(downloaded([path, *shards])[0])


def downloaded(paths: Sequence[Path]) -> list[Path]:
    """Local copies of remote files, under their own names in a temporary folder (TMPDIR says where).

    Raises:
        FileError: they cannot be read, or there is no room for them.
    """
    held = ExitStack()
    folder = held.enter_context(scratch())  # as long as the process lives: what is opened reads from it
    atexit.register(held.close)
    sizes = [size_of(path) for path in paths]
    done, many = 0, sum(sizes)
    for path, size in zip(paths, sizes, strict=True):
        with reading(path, "a remote file"), opened(path) as source, (folder / path.name).open("wb") as copy:
            while piece := source.read(CHUNK):
                copy.write(piece)
                done += len(piece)
                tell(done >> 20, many >> 20, f"MiB of {path.name} downloaded")
        if (folder / path.name).stat().st_size != size:
            raise FileError(f"{path.name} is truncated", where=str(url_of(path)), do=DO_AGAIN)
    return [folder / path.name for path in paths]


def _head(path: Path) -> bytes:
    url = url_of(path)
    fs, name = system_of(path)

    def read() -> bytes:
        with fs.open(name, "rb", block_size=CHUNK, cache_type="none") as file:
            return bytes(file.read(64))

    try:
        head = insist(read)
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path.name}", where=str(url), do="check the path") from error
    except IsADirectoryError as error:
        raise _a_folder(path, fs, name) from error
    except Exception as error:  # no bucket, no credentials, no network: every file system has its own
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        raise FileError(
            f"cannot read {path.name}", where=str(url), why=said, do="check the address and the credentials"
        ) from error
    if not head and fs.isdir(name):  # S3 gives no bytes of a folder, and no error
        raise _a_folder(path, fs, name)
    if not head:
        raise FileError(f"{path.name} is empty", where=str(url), do=DO_AGAIN)
    return head


def _a_folder(path: Path, fs: Any, name: str) -> UsageError:
    try:
        held = sorted(str(one).rstrip("/").rpartition("/")[2] for one in fs.ls(name, detail=False))
    except Exception:  # what may be read need not be listed
        held = []
    do = f"name a file in it: {some(held)}" if held else "name a file in it, or copy the folder here first"
    return UsageError(f"{path.name} is a folder", where=str(url_of(path)), do=do)
