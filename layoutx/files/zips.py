"""Zip archives: one way in, past which every member lies alone where the directory says, as large as it says.

The format says most things twice (the directory at the end, a header before each member) and allows bytes that belong
to nothing. Readers that believe different ones see different files; here both have to agree, and the archive has to
begin at byte 0 and end with the file. Source: PKWARE APPNOTE 6.3.10, sections 4.3 and 4.5.3.
"""

from __future__ import annotations

import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from struct import Struct, unpack_from

from layoutx.errors import FileError
from layoutx.files.blob import DO_AGAIN, member
from layoutx.files.limits import within, within_expansion
from layoutx.frozen import frozen

END, END64, LOCATOR = Struct("<4s4H2LH"), Struct("<4sQ2H2L4Q"), Struct("<4sLQL")
ENTRY, LOCAL = Struct("<4s6H3L5H2L"), Struct("<4s5H3L2H")
ENCRYPTED, DESCRIPTOR, UTF8 = 0x1 | 0x40 | 0x2000, 0x8, 0x800  # bits of a member's flags
WIDE = 0xFFFFFFFF  # a number that stands in the zip64 field
CHECKED = 16 << 20  # bytes: the checksums of stored members are compared in files up to here, larger ones are mapped
READ_WHOLE = 1 << 20  # bytes: a text that unpacks to more may not shrink as it likes
_OUTSIDE = re.compile(r"(^|/)\.\.(/|$)|^/|\\|\0|^[A-Za-z]:/")


@frozen
class _Entry:
    """A line of the directory: `raw` and `name` are the same text; offsets and sizes in bytes."""

    raw: bytes
    name: str
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int
    mode: int


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """An archive whose directory can be believed; inside of `reading`.

    Raises:
        FileError: it is truncated, ambiguous, encrypted, packed in a way that is not read, or a bomb.
    """
    about = path.stat()
    _vet(path, about.st_ino, about.st_size, about.st_mtime_ns)
    with zipfile.ZipFile(path) as archive:
        yield archive


def content(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    """A member that is read whole: a config, a pickle.

    Raises:
        FileError: it is larger than HEADER, or not what the directory says.
    """
    info = archive.getinfo(name)
    within("HEADER", info.file_size, path, f"the member {name}", f"member {name}")
    if info.compress_type == zipfile.ZIP_STORED:
        return archive.read(info)
    if info.file_size > READ_WHOLE:
        times = -(-info.file_size // max(info.compress_size, 1))
        within("EXPANSION", times, path, f"the member {name} grows when it is unpacked and", f"member {name}")
    blob = member(info, path)
    return bytes(blob.packed or b"")


def outside(name: str) -> bool:
    """Whether a member's name is a path that leaves the folder it would be unpacked into, on any system."""
    return bool(_OUTSIDE.search(name))


@lru_cache(maxsize=16)  # the readers open an archive twice: to see what it is, and to read it
def _vet(path: Path, _inode: int, size: int, _changed: int) -> None:
    with path.open("rb") as file:
        begin, directory, count = _directory(path, file.fileno(), size)
        entries = _entries(path, directory, count)
        _check_names(path, entries)
        packed = [entry for entry in entries if entry.method != zipfile.ZIP_STORED]
        for entry in packed:
            within_expansion(entry.packed, entry.size, path, f"the member {entry.name[:80]}")
        within_expansion(sum(e.packed for e in packed), sum(e.size for e in packed), path, "the archive")
        _check_places(path, file.fileno(), entries, begin, size <= CHECKED)


def _bad(path: Path, why: str, name: str = "") -> FileError:
    where = [str(path), *([f"member {name[:200]!r}"] if name else [])]
    return FileError(f"{path.name} is a damaged or forged zip file", where=where, why=why, do=DO_AGAIN)


def _directory(path: Path, handle: int, size: int) -> tuple[int, bytes, int]:
    """Where the directory begins, its bytes, and how many members it says it has."""
    low = max(0, size - END.size - 0xFFFF)
    tail = os.pread(handle, size - low, low)
    found = [at.start() for at in re.finditer(b"PK\5\6", tail) if at.start() + END.size <= len(tail)]
    ends = [at for at in found if at + END.size + int.from_bytes(tail[at + 20 : at + 22], "little") == len(tail)]
    if not found:
        why = "it begins as a zip file and its directory at the end is missing"
        raise FileError(f"{path.name} is truncated", where=str(path), why=why, do=DO_AGAIN)
    if len(ends) != 1:
        raise _bad(path, "it has several ends" if ends else "bytes follow its end, or its comment is cut off")
    at = low + ends[0]
    _, disk, first_disk, here, count, length, begin, _ = END.unpack_from(tail, ends[0])
    stated, end = (here, count, length, begin), at
    locator = os.pread(handle, LOCATOR.size, at - LOCATOR.size) if at >= LOCATOR.size + END64.size else b""
    if locator[:4] == b"PK\6\7":
        end, (here, count, length, begin) = _wide_end(path, handle, at, locator)
        narrow = (0xFFFF, 0xFFFF, WIDE, WIDE)
        if any(
            old not in (new, most) for old, new, most in zip(stated, (here, count, length, begin), narrow, strict=True)
        ):
            raise _bad(path, "its two ends (zip, zip64) say different things")
    if disk or first_disk or here != count:
        raise _bad(path, "it is one of several parts")
    if begin + length != end:
        raise _bad(path, f"its directory is said to lie at bytes {begin} to {begin + length} and ends at {end}")
    within("MEMBERS", max(count, 0), path, "the archive")
    within("HEADER", length, path, "the directory of the archive")
    return begin, os.pread(handle, length, begin), count


def _wide_end(path: Path, handle: int, at: int, locator: bytes) -> tuple[int, tuple[int, int, int, int]]:
    """Where the zip64 end begins, and its members here and in all, length and begin of the directory."""
    _, disk, start, disks = LOCATOR.unpack(locator)
    record = os.pread(handle, END64.size, start) if start <= at - LOCATOR.size - END64.size else b""
    if record[:4] != b"PK\6\6" or disk or disks > 1:
        raise _bad(path, "its zip64 end is not where it is said to be")
    _, length, _, _, disk, first_disk, here, count, span, begin = END64.unpack(record)
    if start + 12 + length != at - LOCATOR.size or disk or first_disk:
        raise _bad(path, "its zip64 end is not as long as it says")
    return start, (here, count, span, begin)


def _entries(path: Path, directory: bytes, count: int) -> list[_Entry]:
    entries: list[_Entry] = []
    at = 0
    while at < len(directory):
        if len(entries) == count or at + ENTRY.size > len(directory) or directory[at : at + 4] != b"PK\1\2":
            raise _bad(path, f"its directory has other entries than the {count} it says")
        line = ENTRY.unpack_from(directory, at)
        flags, method, crc, packed, size = line[3], line[4], *line[7:10]
        names, extras, comments, disk = line[10:14]
        raw = directory[at + ENTRY.size : at + ENTRY.size + names]
        extra = directory[at + ENTRY.size + names : at + ENTRY.size + names + extras]
        at += ENTRY.size + names + extras + comments
        name = raw.decode("utf-8" if flags & UTF8 else "cp437")
        size, packed, offset = _widened(path, name, (size, packed, line[16]), extra)
        if at > len(directory) or disk:
            raise _bad(path, "an entry of its directory reaches past it, or lies in another part", name)
        entries.append(_Entry(raw, name, flags, method, crc, packed, size, offset, line[15] >> 16))
    if len(entries) != count:
        raise _bad(path, f"its directory has {len(entries)} entries and says {count}")
    return entries


def _widened(path: Path, name: str, numbers: Sequence[int], extra: bytes) -> list[int]:
    """Numbers of a header, those that are too large for it taken from its zip64 field, in their order."""
    if WIDE not in numbers:
        return list(numbers)
    at = 0
    while at + 4 <= len(extra):
        tag, length = unpack_from("<HH", extra, at)
        if tag == 1 and at + 4 + length <= len(extra):
            field = extra[at + 4 : at + 4 + length]
            wide = iter(unpack_from(f"<{length // 8}Q", field))
            found = [next(wide, WIDE) if n == WIDE else n for n in numbers]
            if WIDE not in found:
                return found
        at += 4 + length
    raise _bad(path, "its zip64 field is missing or too short", name)


def _check_names(path: Path, entries: Sequence[_Entry]) -> None:
    seen: dict[str, str] = {}
    for entry in entries:
        name = entry.name
        within("NAME", len(name), path, "the name of a member", f"member {name[:80]!r}")
        if outside(name):
            raise _bad(path, "its name is a path out of the archive, or no path", name)
        # names of arrays are texts of a model; all others are looked up, by torch without regard to case
        key = name if name.endswith(".npy") else name.casefold()
        if key in seen:
            raise _bad(path, f"two members have the name {seen[key][:200]!r}, by case at most different", name)
        seen[key] = name
        if entry.flags & ENCRYPTED:
            raise FileError(f"{path.name} is encrypted", where=f"{path}, member {name[:200]}", do="decrypt it first")
        if entry.method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            why = f"it is packed by method {entry.method}; stored (0) and deflated (8) are read"
            raise FileError(
                f"{path.name} cannot be unpacked", where=f"{path}, member {name[:200]}", why=why, do=DO_AGAIN
            )
        if stat.S_ISLNK(entry.mode):
            raise _bad(path, "it is a link to another file", name)
        if entry.method == zipfile.ZIP_STORED and entry.packed != entry.size:
            raise _bad(path, f"it is stored as it is, in {entry.packed} bytes for {entry.size}", name)


def _check_places(path: Path, handle: int, entries: Sequence[_Entry], begin: int, sums: bool) -> None:
    """Each member's own header says what the directory says, and no two share a byte."""
    ordered = sorted(entries, key=lambda entry: entry.offset)
    if ordered and ordered[0].offset:
        raise _bad(path, f"its first member begins at byte {ordered[0].offset}: something else stands before it")
    for entry, following in zip(ordered, [*(e.offset for e in ordered[1:]), begin], strict=True):
        head = os.pread(handle, LOCAL.size + len(entry.raw) + 128, entry.offset)
        if len(head) < LOCAL.size or head[:4] != b"PK\3\4":
            raise _bad(path, "its zip directory points outside the file, or to no member", entry.name)
        _, _, flags, method, _, _, crc, packed, size, names, extras = LOCAL.unpack_from(head)
        extra = head[LOCAL.size + names :][:extras]
        if head[LOCAL.size : LOCAL.size + names] != entry.raw or method != entry.method:
            raise _bad(path, "the header before it has another name or another method", entry.name)
        size, packed = _widened(path, entry.name, (size, packed), extra)
        later = flags & DESCRIPTOR and not (packed or size)  # they follow the data
        if (flags ^ entry.flags) & (ENCRYPTED | DESCRIPTOR) or (
            not later and (crc, packed, size) != (entry.crc, entry.packed, entry.size)
        ):
            raise _bad(path, "the header before it says another size, checksum or encryption", entry.name)
        start = entry.offset + LOCAL.size + names + extras
        if start + entry.packed > following:
            raise _bad(path, "it reaches into the next member, or into the directory", entry.name)
        stored = entry.method == zipfile.ZIP_STORED
        if sums and stored and zlib.crc32(os.pread(handle, entry.size, start)) != entry.crc:
            raise _bad(path, "its bytes do not have the checksum that the archive says", entry.name)
