"""Lay an output out by the ending of its name, before a number of it is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from layoutx.errors import UsageError, raise_all
from layoutx.files.holds import unheld
from layoutx.files.laid.entry import Entry
from layoutx.files.laid.place import Laid
from layoutx.files.names import well_named
from layoutx.files.store import Store

KERAS = (".keras", ".h5", ".hdf5")


def can_lay(final: Path, template: Store | None) -> bool:
    """Whether `lay` knows such a file; what is wrong with its place or its template, `save.can_write` says."""
    return final.name.endswith(".safetensors") or (template is not None and final.name.endswith(KERAS))


def lay(temporary: Path, final: Path, entries: Sequence[Entry], room: int, template: Store | None = None) -> Laid:
    """Take the room of `final` in `temporary` and say where each tensor goes; `.keras`, `.h5` as the template's are.

    Args:
        temporary: what is written; made where it is missing, see `atomic.replacing`.
        final: what it becomes; decides the format, and is named in errors.
        entries: the tensors, in the file's order where the format has one.
        room: the most bytes that the metadata may need as JSON.
        template: a Keras file of the same model.

    Raises:
        UsageError: an ending that cannot be laid out, a name that stands twice, a dtype that the format lacks,
            entries that do not fit the template.
        FileError: the disk has no room, or the template cannot be read any more.
    """
    if twice := [name for name, count in Counter(entry.name for entry in entries).items() if count > 1]:
        raise UsageError(f"'{twice[0]}' would stand twice in {final.name}", where=str(final))
    unfit = unheld(final, ((entry.name, entry.dtype, entry.shape) for entry in entries))
    raise_all([*well_named([entry.name for entry in entries], final), *unfit])
    if final.name.endswith(".safetensors"):
        from layoutx.files.laid.safetensors import lay_safetensors

        return lay_safetensors(temporary, final, entries, room)
    if template is None or not can_lay(final, template):
        raise UsageError(f"{final.name} cannot be laid out before its numbers are known", where=str(final))
    if final.suffix == ".keras":
        from layoutx.files.laid.keras import lay_keras

        return lay_keras(temporary, final, entries, room, template)
    from layoutx.files.laid.hdf5 import lay_hdf5

    return lay_hdf5(temporary, final, entries, room, template)
