"""Names of tensors: those that could deceive who reads them, or that a format would take for something else."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from unicodedata import category

from layoutx.errors import FileError, LayoutxError, UsageError
from layoutx.files.limits import LIMITS, PREFIX, limit
from layoutx.files.store import Store

# Cc: control characters, with ESC, NUL, tab and newline; Cf: marks of direction, characters without width;
# Cs: halves of characters that no text in UTF-8 holds; Zl, Zp: line and paragraph separators
DECEPTIVE = ("Cc", "Cf", "Cs", "Zl", "Zp")
MOST_SHOWN = 4
WIDEST = 60
WHY = "control characters, marks of direction and characters without width make a name read as another one"


def named_well(store: Store) -> Store:
    """The store, if none of its names could deceive a reader: tensors, groups, keys of the metadata.

    Raises:
        FileError: names with characters that steer a terminal or have no shape of their own, or longer than the
            limit NAME; how many, and the first of them.
    """
    kinds: tuple[tuple[str, Collection[str]], ...] = (
        ("tensors", store.tensors), ("groups", store.groups), ("keys of the metadata", store.metadata),
    )  # fmt: skip
    for what, names in kinds:
        if found := _complaint(names):
            why, do, bad = found
            where = [str(store.path), *_first(bad)]
            raise FileError(
                f"{store.path.name} has {len(bad):,} {what} with a name that is refused", where=where, why=why, do=do
            )
    return store


def well_named(names: Collection[object], final: Path) -> list[LayoutxError]:
    """The complaints about names that an output is to hold: empty ones, and those that no reader of layoutx takes."""
    problems: list[LayoutxError] = []
    texts = [name for name in names if isinstance(name, str) and name]
    if len(texts) < len(names):
        problems.append(UsageError("a tensor has no name", why="names are texts of at least one character"))
    elif found := _complaint(texts):
        why, do, bad = found
        what = f"{final.name} would hold {len(bad):,} tensors with a name that is refused"
        problems.append(UsageError(what, where=_first(bad), why=why, do=do))
    return problems


def deceptive(text: str) -> bool:
    """Whether a text holds a character that steers a terminal, turns its direction or has no width."""
    return not text.isprintable() and any(category(char) in DECEPTIVE for char in text)


def refusal(text: str) -> str:
    """Why a name is refused; "" where it is not."""
    return refusal_of((text,))


def refusal_of(names: Collection[str]) -> str:
    """Why one of the names is refused; "" where none is."""
    found = _complaint(names)
    return found[0] if found else ""


def as_paths(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Names that would be paths out of the file or folder that holds them, each with the reason."""
    for name in names:
        if ".." in name.split("/"):
            yield name, "it would climb out of its folder"
        elif name.startswith("/"):
            yield name, "it would be an absolute path"


def _complaint(names: Collection[str]) -> tuple[str, str, list[str]] | None:
    """(Why, what to do, the names) where some are refused."""
    most = limit("NAME")
    if max(map(len, names), default=0) > most:
        bad = [name for name in names if len(name) > most]
        longest = max(map(len, bad))
        unit, why = LIMITS["NAME"].unit, LIMITS["NAME"].why
        return f"longer than {most} {unit}: {why}", f"if you trust the file, set {PREFIX}NAME={longest}", bad
    if not "".join(names).isprintable() and (bad := [name for name in names if deceptive(name)]):
        return WHY, "rename them where the file was made", bad
    return None


def _first(names: Collection[str]) -> list[str]:
    """The first of them."""
    first = [shown(name) for _, name in zip(range(MOST_SHOWN), names, strict=False)]
    return [*first, f"... and {len(names) - MOST_SHOWN:,} more"] if len(names) > MOST_SHOWN else first


def shown(name: str) -> str:
    """A name with every character that is not plain ASCII spelled out; of a long one, the part that deceives."""
    if len(name) <= WIDEST:
        return ascii(name)
    first = next((at for at, char in enumerate(name) if category(char) in DECEPTIVE), 0)
    begin = max(0, min(first - WIDEST // 2, len(name) - WIDEST))
    return f"{'...' * bool(begin)}{name[begin : begin + WIDEST]!a}... of {len(name):,} characters"
