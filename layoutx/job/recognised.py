"""A conversion recognised: the output held it already, or it is the way back to what its source was made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from layoutx.errors import LayoutxError
from layoutx.files.certificate import KEY, certificate_of
from layoutx.files.certified import Certified, certified
from layoutx.files.open import open_store
from layoutx.files.remote import is_file, url_of
from layoutx.files.store import Store
from layoutx.frozen import frozen


@frozen
class WayBack:
    """What of the original came back.

    Attributes:
        file, framework: of the original, as the source's certificate says. same: how many of its `many` tensors are
            its own again, bit for bit; many = 0: nothing to compare with, `why`. differ: the others' names.
        named: they were compared name by name, so that each stands where it stood.
    """

    file: str
    framework: str
    same: int = 0
    many: int = 0
    differ: tuple[str, ...] = ()
    why: str = ""
    named: bool = False


def held(output: Path) -> str:
    """The certificate of what stands where an output will be, "" where there is none."""
    if url_of(output) is not None:
        return ""
    index = output.with_name(output.name + ".index.json")
    try:
        there = output if is_file(output) or output.is_dir() else index if index.is_file() else None
        return "" if there is None else open_store(there).metadata.get(KEY, "")
    except (LayoutxError, OSError):  # whatever it is, it will be replaced
        return ""


def way_back(source: Store, to: str, hashes: Mapping[str, str], kind: str) -> WayBack | None:
    """What a conversion gave of the original; None where the source was not made from a file of this framework.

    Args:
        hashes: of the output's tensors, by name; none where nothing was written.
    """
    certificate = certificate_of(source) or {}
    about = certificate.get("source")
    if not isinstance(about, dict) or about.get("framework") != to or "transfer" in certificate:
        return None
    file = about.get("file")
    back = WayBack(file if isinstance(file, str) else "", to)
    try:
        found = certified(certificate, source.path.name)
    except LayoutxError:
        found = None
    if found is None or not found.sources.many:
        return WayBack(back.file, to, why="there are no hashes of the original to compare with")
    if found.sources.kind != kind:
        return WayBack(
            back.file, to, why=f"its hashes of the original are {found.sources.kind}, the new ones {kind}: not compared"
        )
    return _compared(back, found, hashes) if hashes else WayBack(back.file, to, why="nothing was written to compare")


def _compared(back: WayBack, found: Certified, hashes: Mapping[str, str]) -> WayBack:
    """By names where they are the same ones, else by what the tensors hold."""
    named = found.sources.named
    alike = bool(named) and set(named) <= set(hashes)
    if alike:
        differ = tuple(name for name, one in named.items() if hashes[name] != one)
    else:
        left = Counter(hashes.values())
        left.subtract([*named.values(), *found.sources.packed])
        differ = tuple(name for name, one in named.items() if left[one] < 0)
        if found.sources.packed:
            differ = tuple("" for count in left.values() for _ in range(-count))
    many = found.sources.many
    return WayBack(back.file, back.framework, many - len(differ), many, tuple(filter(None, differ)), named=alike)
