"""A `.keras` zip laid out: its HDF5 member lies plainly, and its checksum comes when the numbers are there."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from layoutx.files.blob import writing
from layoutx.files.keras_write import copy_members
from layoutx.files.laid.crc import crc32
from layoutx.files.laid.entry import Entry
from layoutx.files.laid.hdf5 import SLACK, Structure, structure
from layoutx.files.laid.place import Laid
from layoutx.files.room import reserve
from layoutx.files.store import Store

ALIGNED = 64  # where the weights begin in the zip: elsewhere, a mapped tensor would not even lie on its own width
ALIGNMENT = 0xD935  # the extra field that says so (Android apksig, ApkSigner.java): alignment, then zeros


def lay_keras(temporary: Path, final: Path, entries: Sequence[Entry], room: int, template: Store) -> Laid:
    """A `.keras` file in the structure of the template, with the template's config.

    Raises:
        UsageError: the template does not fit the ending of `final`, or the entries do not fit the template.
        FileError: the disk has no room, or the template cannot be read any more.
    """
    made = structure(template, final, entries)
    most = made.file.size + room + SLACK
    wide = most * 1.05 > zipfile.ZIP64_LIMIT  # as zipfile decides before it knows a member's size
    with writing(final):
        others, inner = _begin(temporary, template, wide)
        base = inner.header_offset + len(inner.FileHeader(zip64=wide))
        end = base + most + SLACK  # the directory too
        reserve(temporary, end)

    def finish(metadata: Mapping[str, str], jobs: int) -> None:
        with writing(final):
            _finish(temporary, made, (others, inner, wide), metadata, jobs)

    return Laid(temporary, {name: base + offset for name, offset in made.offsets.items()}, end, finish)


def _begin(path: Path, template: Store, wide: bool) -> tuple[list[zipfile.ZipInfo], zipfile.ZipInfo]:
    """Write all members but the weights; the answer: those, and the weights' own entry, which comes after them."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        inner = copy_members(template.path, archive)
        inner.header_offset, inner.CRC = archive.start_dir, 0
        inner.extra = struct.pack("<HHH", ALIGNMENT, 2, ALIGNED)
        gap = -(inner.header_offset + len(inner.FileHeader(zip64=wide))) % ALIGNED
        inner.extra = struct.pack("<HHH", ALIGNMENT, 2 + gap, ALIGNED) + bytes(gap)
        return list(archive.filelist), inner


def _finish(
    path: Path,
    made: Structure,
    members: tuple[list[zipfile.ZipInfo], zipfile.ZipInfo, bool],
    metadata: Mapping[str, str],
    jobs: int,
) -> None:
    others, inner, wide = members
    base = inner.header_offset + len(inner.FileHeader(zip64=wide))
    with path.open("rb+") as out:
        inner.file_size = inner.compress_size = made.write(out, base, metadata)
        out.flush()
        inner.CRC = crc32(path, base, inner.file_size, jobs)
        out.seek(inner.header_offset)
        out.write(inner.FileHeader(zip64=wide))
        with zipfile.ZipFile(out, "w") as archive:  # writes the directory of members that are there already
            archive.filelist.extend([*others, inner])
            archive.start_dir = base + inner.file_size
        out.truncate()
