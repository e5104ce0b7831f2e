"""How much a file may ask for before it is refused: each limit with its reason, and the variable that raises it."""

from __future__ import annotations

import os
from pathlib import Path

from layoutx.errors import FileError, UsageError
from layoutx.frozen import frozen

PREFIX = "LAYOUTX_LIMIT_"


@frozen
class Limit:
    """One limit.

    Attributes:
        most: what is taken unless the environment says otherwise.
        unit: what is counted.
        why: the reason, for the documentation.
    """

    most: int
    unit: str
    why: str


LIMITS = {
    "HEADER": Limit(100 << 20, "bytes", "names, shapes and configs of a file are read whole into memory"),
    "TENSORS": Limit(500_000, "tensors", "each takes about a kilobyte of memory before anything is read"),
    "ITEMS": Limit(
        5_000_000, "values", "each name, number and list of a header takes a hundred bytes once it is parsed"
    ),
    "FIELDS": Limit(300_000, "fields", "nodes, names and short values are gone through one by one"),
    "MEMBERS": Limit(100_000, "members", "zipfile keeps a kilobyte of each before anything is read"),
    "YAML": Limit(4 << 20, "bytes", "people write mapping and spec files; a reader takes a second a megabyte"),
    "VALUES": Limit(60_000, "values", "each value of a YAML file takes a kilobyte while it is read"),
    "NAME": Limit(1024, "characters", "names are printed, compared and written into other files"),
    "RANK": Limit(32, "axes", "no layer has more, and NumPy stops at 64"),
    "DEPTH": Limit(64, "levels", "nesting is followed by recursion"),
    "MEMORY": Limit(150 << 20, "bytes", "HDF5 is read in a process of its own, which may not grow by more"),
    "COMPUTING": Limit(200, "milliseconds", "without a part of an answer of that process; a forged file may loop"),
    "EXPANSION": Limit(200, "times", "compressed weights shrink to a half, what shrinks more is a bomb; above 256 MiB"),
}
EXPANDED = 256 << 20  # bytes: what unpacks to less may shrink as it likes, a layer of zeros does


def limit(name: str) -> int:
    """A limit's value: the environment's, else the usual one.

    Raises:
        UsageError: the environment's value is no whole number.
    """
    said = os.environ.get(PREFIX + name)
    if said is None:
        return LIMITS[name].most
    if not said.isdecimal():
        raise UsageError(f"{PREFIX}{name}={said!r} is no number of {LIMITS[name].unit}")
    return int(said)


def within(name: str, count: int, path: Path, what: str, *where: str) -> None:
    """Refuse a file that asks for more than a limit.

    Args:
        count: what it asks for, in the limit's unit. what: the thing that asks, for the error: "the header".
        where: places inside the file.

    Raises:
        FileError: with the limit, and how it is raised.
    """
    most = limit(name)
    if count > most:
        raise FileError(
            f"{path.name}: {what} has {count} {LIMITS[name].unit}, more than {most}",
            where=[str(path), *where],
            why=LIMITS[name].why,
            do=f"if you trust the file, set {PREFIX}{name}={count}",
        )


def within_expansion(packed: int, unpacked: int, path: Path, what: str, *where: str) -> None:
    """Refuse what would unpack to very much more than it is.

    Args:
        packed, unpacked: bytes in the file, and what they claim to become.

    Raises:
        FileError: it is a bomb.
    """
    if unpacked > EXPANDED:
        within("EXPANSION", -(-unpacked // max(packed, 1)), path, f"{what} grows when it is unpacked and", *where)
