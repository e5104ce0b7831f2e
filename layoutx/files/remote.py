"""Files that fsspec reaches (s3://, gs://, memory://, ...): a Path whose first part is the scheme, read in ranges.

`Path("s3://bucket/key")` is `s3:/bucket/key`, which no local file is called: so it goes wherever a Path goes, keeps its
name and its folder, and can be given to another process. Plain paths never import fsspec.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from os import PathLike
from pathlib import Path
from time import sleep
from typing import IO, Any, TypeVar

from layoutx.errors import FileError, UsageError
from layoutx.files.dtypes import Array
from layoutx.files.steady import state_in

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)  # one letter would be a drive of Windows
CHUNK = 8 << 20  # bytes of one request
AT_ONCE = 4  # requests of one reading that are under way together
HEAD = 1 << 20  # bytes of a first request: most headers are shorter
FILES = 16  # files that are asked together
TRIES = 4
PAUSE = 0.2  # seconds before the second try; twice as long before each further one
T = TypeVar("T")


def located(path: str | PathLike[str]) -> Path:
    """The Path of what a user wrote; `file://` is a plain path.

    Raises:
        UsageError: `file://` with a host.
    """
    text = os.fspath(path)
    found = SCHEME.fullmatch(text)
    if found is None or found[1].lower() != "file":
        return Path(text)
    host = re.match(r"file://([^/]+)", text, re.IGNORECASE)
    if host is not None and host[1] != "localhost":
        raise UsageError(f"{text} is on another machine", do="give a path of this one: file:///folder/name")
    return Path("/" + found[2].removeprefix("localhost/" if host else ""))


@lru_cache(1024)
def url_of(path: Path) -> str | None:
    """`s3:/bucket/key` -> `s3://bucket/key`; None for a plain path."""
    found = SCHEME.fullmatch(str(path))
    return None if found is None else f"{found[1]}://{found[2]}"


def system_of(path: Path) -> tuple[Any, str]:
    """fsspec's file system of a remote path, and what the file is called in it.

    Raises:
        UsageError: fsspec, or what it needs for this scheme, is not installed; a scheme that it does not know.
    """
    url = url_of(path)
    assert url is not None
    try:
        import fsspec

        fs, name = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise UsageError(
            f"{url} cannot be reached from here",
            why=str(error),
            do='pip install "layoutx[remote]", and what fsspec needs for the scheme: s3fs for s3://, gcsfs for gs://',
        ) from error
    return fs, name


def opened(path: Path) -> IO[bytes]:
    """A file for reading, plain or remote; a remote one is read in ranges.

    Raises:
        OSError: it cannot be read.
    """
    if url_of(path) is None:
        return path.open("rb")
    fs, name = system_of(path)
    file: IO[bytes] = fs.open(name, "rb", block_size=HEAD, cache_type="readahead")
    return file


def bytes_of(path: Path) -> bytes:
    """All of a small file, plain or remote; a remote one is asked for several times.

    Raises:
        OSError: it is missing, or cannot be read.
    """

    def read() -> bytes:
        with opened(path) as file:
            return file.read()

    return read() if url_of(path) is None else insist(read)


def size_of(path: Path) -> int:
    """The bytes of a file, plain or remote.

    Raises:
        OSError: there is none.
    """
    if url_of(path) is None:
        return path.stat().st_size
    fs, name = system_of(path)
    return int(insist(lambda: fs.info(name)["size"]))


def is_file(path: Path) -> bool:
    """Whether there is such a file, plain or remote."""
    if url_of(path) is None:
        return path.is_file()
    fs, name = system_of(path)
    try:
        return bool(insist(lambda: fs.info(name)["type"] == "file"))  # isfile says no where the store failed
    except FileNotFoundError:
        return False


def state_of(path: Path) -> str:
    """What changes when a file does: its size and time, or what its file system says of it."""
    if url_of(path) is None:
        return state_in(path.stat())
    fs, name = system_of(path)
    return str(fs.ukey(name))


def fetch(path: Path, ranges: Iterable[tuple[int, int]], put: Callable[[int, bytes], object]) -> None:
    """Read ranges (begin, end) of a remote file, a few requests of at most CHUNK bytes at a time.

    Args:
        put: called with the offset in the file and the bytes there.

    Raises:
        FileError: it cannot be read, or ends before a range does.
    """
    fs, name = system_of(path)
    wanted = [(at, min(at + CHUNK, end)) for begin, end in ranges for at in range(begin, end, CHUNK)]
    for first in range(0, len(wanted), AT_ONCE):
        some = wanted[first : first + AT_ONCE]
        begins, ends = [begin for begin, _ in some], [end for _, end in some]
        try:
            found = insist(lambda: fs.cat_ranges([name] * len(begins), begins, ends, on_error="raise"))  # noqa: B023
        except Exception as error:  # botocore, aiohttp and gcsfs have errors of their own
            raise _unread(path, f"{type(error).__name__}: {error}") from error
        for (begin, end), data in zip(some, found, strict=True):
            if len(data) != end - begin:
                raise _unread(path, f"bytes {begin} to {end} were asked for, and {len(data)} came")
            put(begin, data)


def fetched(path: Path, begin: int, into: Array) -> Array:
    """Fill flat bytes from a remote file, from `begin` on.

    Raises:
        FileError: as `fetch`.
    """
    view = into.data

    def put(at: int, data: bytes) -> None:
        view[at - begin : at - begin + len(data)] = data

    fetch(path, [(begin, begin + into.nbytes)], put)
    return into


def insist(call: Callable[[], T]) -> T:
    """What a call gives, tried several times: networks and stores fail now and then, and the same call is harmless.

    Raises:
        Exception: that of the last try; where a file is missing, at once.
    """
    for number in range(TRIES - 1):
        try:
            return call()
        except FileNotFoundError:
            raise
        except Exception:  # botocore, aiohttp and gcsfs have errors of their own
            sleep(PAUSE * 2**number)
    return call()


def several(function: Callable[[Path], T], paths: Sequence[Path]) -> list[T]:
    """A function of each file; of remote ones many at a time, since each answer takes its while."""
    if len(paths) < 2 or url_of(paths[0]) is None:
        return [function(path) for path in paths]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(FILES) as pool:
        return list(pool.map(function, paths))


def _unread(path: Path, why: str) -> FileError:
    return FileError(
        f"cannot read {path.name}",
        where=str(url_of(path)),
        why=" ".join(why.split())[:300],
        do="check that it can be reached, and try again",
    )
