"""safetensors laid out: a header of fixed length, with room for metadata that is not known yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from layoutx.errors import FileError
from layoutx.files.blob import writing
from layoutx.files.laid.entry import Entry
from layoutx.files.laid.place import Laid
from layoutx.files.room import reserve
from layoutx.files.safetensors import entries_text, header_text, placed


def lay_safetensors(temporary: Path, final: Path, entries: Sequence[Entry], room: int) -> Laid:
    """A safetensors file in the order of the entries; the same entries, room and metadata give the same bytes.

    The header is padded with spaces, as the format allows (huggingface/safetensors README.md, "Format").

    Raises:
        UsageError: a dtype or a name that the format has no word for, or a header over its limit.
        FileError: the disk has no room; from `finish`, metadata of more than `room` bytes.
    """
    places = placed(entries)
    own = entries_text(entries, places)  # it does not change when the numbers are known
    length = len(header_text(own, {}, room + len('"__metadata__":,')))
    start = 8 + length
    end = start + max((end for _, end in places.values()), default=0)
    with writing(final):
        reserve(temporary, end)

    def finish(metadata: Mapping[str, str], jobs: int) -> None:
        text = header_text(own, metadata)
        if len(text) > length:
            raise FileError(
                f"the metadata does not fit into {final.name}",
                where=str(final),
                why=f"the header has room for {length} bytes and would need {len(text)}",
                do="lay the file out with more room",
            )
        with writing(final), temporary.open("rb+") as out:
            out.writelines((length.to_bytes(8, "little"), text, b" " * (length - len(text))))

    return Laid(temporary, {name: start + begin for name, (begin, _) in places.items()}, end, finish)
