"""The registry kept between processes: reading the spec files anew costs 0.2 s, reading what came of them 0.05 s.

What `__pycache__` is to modules: a file in the user's own cache folder, named after everything that it depends on,
and never needed. `LAYOUTX_CACHE` names another folder; empty, nothing is kept.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from layoutx.frozen import frozen
from layoutx.spec.memo import uncollected
from layoutx.version import VERSION

if TYPE_CHECKING:
    from layoutx.spec.registry import Registry
    from layoutx.spec.schema import Form, Framework, Kind

ENVIRONMENT = "LAYOUTX_CACHE"
MOST_KEPT = 8
_DIGEST = 16  # of xxh3: it shows damage; that nobody else wrote the file is said by its owner


def kept(folders: Iterable[Path]) -> Path | None:
    """Where the registry of these folders is kept; None where nothing is to be kept, or a folder is not there.

    The name is a digest of every spec file's path, size and time, of the code that reads them, and of the versions.
    """
    home = cache_folder()
    if home is None:
        return None
    folders = [folder.resolve() for folder in folders]
    if not all(folder.is_dir() for folder in folders):
        return None  # who loads them says so
    package = Path(__file__).resolve().parent
    code = [*package.glob("*.py"), *(package.parent / "lang").glob("*.py")]
    digest = xxhash.xxh3_128(f"{VERSION} {sys.version}".encode())
    try:
        for path in (*sorted(code), *(p for folder in folders for p in sorted(folder.glob("*.yaml")))):
            about = path.stat()
            digest.update(f"{path}\0{about.st_size}\0{about.st_mtime_ns}\n".encode())
    except OSError:
        return None
    return home / f"registry-{digest.hexdigest()}.pickle"


def cache_folder() -> Path | None:
    """`LAYOUTX_CACHE`, or `layoutx` in the user's cache folder; None where it is switched off."""
    named = os.environ.get(ENVIRONMENT)
    if named is not None:
        return Path(named) if named else None
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    if base:
        return Path(base) / "layoutx"
    home = os.path.expanduser("~")
    return Path(home) / ".cache" / "layoutx" if os.path.isabs(home) else None


@frozen
class _Kinds(Mapping[str, "Kind"]):
    """Kinds by name, each read when it is first asked for: a model of five kinds does not wait for thirty."""

    stored: Mapping[str, bytes]
    read: dict[str, Kind] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Kind:
        if name not in self.read:
            self.read[name] = _loaded(self.stored[name])
        return self.read[name]

    def __contains__(self, name: object) -> bool:
        return name in self.stored

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)


@frozen
class _Forms(Mapping[str, "Form"]):
    """Forms by name, each with its kind."""

    kinds: Mapping[str, Kind]
    kind_of: Mapping[str, str]
    read: dict[str, Form] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Form:
        found = self.read.get(name)
        if found is None:
            found = self.read[name] = self.kinds[self.kind_of[name]].forms[name]
        return found

    def __contains__(self, name: object) -> bool:
        return name in self.kind_of

    def __iter__(self) -> Iterator[str]:
        return iter(self.kind_of)

    def __len__(self) -> int:
        return len(self.kind_of)


@frozen
class Names:
    """What tensors are called, for those who need no more of the forms.

    Attributes:
        of_forms: form -> all names that its tensors may have, of the forms to which names may lead; in the registry's
            order.
        last: framework -> the last words of the names in its specs.
    """

    of_forms: Mapping[str, frozenset[str]]
    last: Mapping[str, frozenset[str]]


Kept = tuple[Mapping[str, "Kind"], Mapping[str, "Form"], Mapping[str, "Framework"], Names]


def names_of(registry: Registry) -> Names:
    """The names in a registry."""
    from layoutx.spec.variants import every_name

    forms = [(kind, form) for kind in registry.kinds.values() for form in kind.forms.values()]
    last: dict[str, set[str]] = {}
    for _, form in forms:
        words = {re.split(r"[./]", spec.name)[-1] for spec in form.tensors if spec.name}
        last.setdefault(form.framework, set()).update(words)
    return Names(
        {form.name: every_name(kind, form) for kind, form in forms if not form.by_class and not form.of},
        {framework: frozenset(words) for framework, words in last.items()},
    )


def taken(path: Path) -> Kept | None:
    """Kinds, forms, frameworks and the forms' tensor names kept there.

    None where nothing is, or another user could have written it, or put another file in its place.
    """
    try:
        with path.open("rb") as file:
            if not _own(os.fstat(file.fileno())) or not _own(path.parent.stat()):
                return None
            whole = file.read()
        if xxhash.xxh3_128_digest(whole[_DIGEST:]) != whole[:_DIGEST]:
            return None
        stored, kind_of, frameworks, names = _loaded(whole[_DIGEST:])
    except Exception:  # whatever is wrong with it, the spec files are there
        return None
    kinds = _Kinds(stored)
    return kinds, _Forms(kinds, kind_of), frameworks, names


@uncollected()
def _loaded(data: bytes) -> Any:
    import pickle

    return pickle.loads(data)


def _dumped(found: Any) -> bytes:
    """A pickle in which a dataclass is a call of its class: that reads three times as fast as fields that are set."""
    import io
    import pickle

    class Calls(pickle.Pickler):
        def reducer_override(self, value: Any) -> Any:
            if is_dataclass(value) and not isinstance(value, type):
                return type(value), tuple(getattr(value, field.name) for field in fields(value))
            return NotImplemented

    buffer = io.BytesIO()
    Calls(buffer, protocol=5).dump(found)
    return buffer.getvalue()


def keep(path: Path, registry: Registry) -> None:
    """Keep a registry; a full or read-only disk is no reason to complain."""
    import tempfile

    stored = {name: _dumped(kind) for name, kind in registry.kinds.items()}
    kind_of = {name: form.kind for name, form in registry.forms.items()}
    data = _dumped((stored, kind_of, dict(registry.frameworks), names_of(registry)))

    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _own(path.parent.stat()):
            return  # `taken` would not believe it
        handle, name = tempfile.mkstemp(dir=path.parent, prefix="registry-", suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(xxhash.xxh3_128_digest(data) + data)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
        for old in sorted(path.parent.glob("registry-*.pickle"), key=lambda p: p.stat().st_mtime)[:-MOST_KEPT]:
            old.unlink(missing_ok=True)
    except OSError:
        return


def _own(about: os.stat_result) -> bool:
    return not hasattr(os, "getuid") or (about.st_uid == os.getuid() and not about.st_mode & 0o022)
