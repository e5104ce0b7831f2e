"""All kinds and forms at hand: layoutx's own spec folder, the user's, and those of installed packages."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import field, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from layoutx.empty import NOTHING
from layoutx.errors import LayoutxError, SpecError, UsageError, raise_all
from layoutx.frozen import frozen
from layoutx.spec.bind import bind
from layoutx.spec.bound import BoundForm
from layoutx.spec.kept import Names, keep, kept, names_of, taken
from layoutx.spec.memo import Memo, key_of
from layoutx.spec.schema import Form, Framework, Kind
from layoutx.words import near

ENTRY_POINTS = "layoutx.specs"
MAIN = ("keras", "torch", "onnx")  # the frameworks that are named first
ENVIRONMENT = "LAYOUTX_SPECS"


@frozen
class Registry:
    """Kinds by name, forms by name, and what is known of each framework."""

    kinds: Mapping[str, Kind]
    forms: Mapping[str, Form]
    frameworks: Mapping[str, Framework] = NOTHING
    names: Names | None = field(default=None, compare=False, repr=False)

    def tensor_names(self) -> Mapping[str, frozenset[str]]:
        """Form -> all names that its tensors may have, of the forms to which names may lead, kind by kind."""
        return self._names().of_forms

    def last_names(self) -> Mapping[str, frozenset[str]]:
        """Framework -> the last words of its tensors' names, `weight` of `out_proj.weight`."""
        return self._names().last

    def _names(self) -> Names:
        return self.names if self.names is not None else _named.get((self,), b"", lambda: names_of(self))

    def form(self, name: str) -> Form:
        """The form of that name.

        Raises:
            UsageError: no such form, with the nearest names.
        """
        if name in self.forms:
            return self.forms[name]
        raise UsageError(
            f"no form is called {name!r}",
            why=near(name, self.forms),
            do="`layoutx specs` lists all forms; docs/writing-a-spec.md shows how to add one",
        )

    def kind_of(self, form: str) -> Kind:
        """The kind that a form belongs to."""
        return self.kinds[self.form(form).kind]

    def forms_of(self, kind: str, framework: str, by_class: bool = False) -> tuple[Form, ...]:
        """The forms of a kind in one framework, in the spec's order: the first is the usual one.

        by_class: also those to which only their class, or the user's word, leads.
        """
        forms = self.kinds[kind].forms
        return _forms.get((forms,), key_of(framework, by_class), lambda: _forms_of(forms, framework, by_class))

    def read_another_way(self, kind: str, framework: str) -> tuple[Form, ...]:
        """The forms of a kind that are classes of another one: what a layer without a place may have become."""
        return tuple(f for f in self.kinds[kind].forms.values() if f.of and f.framework == framework)

    def framework(self, name: str) -> Framework:
        """What holds for all forms of a framework."""
        return self.frameworks.get(name, Framework(name))

    def bind(self, form: str, config: Mapping[str, Any] = NOTHING, **given: Any) -> BoundForm:
        """Bind a form by name; see `layoutx.spec.bind.bind`."""
        found = self.form(form)
        return bind(self.kinds[found.kind], found, config, **given)


_forms: Memo[tuple[Form, ...]] = Memo()
_named: Memo[Names] = Memo()


def _forms_of(forms: Mapping[str, Form], framework: str, by_class: bool) -> tuple[Form, ...]:
    own = (f for f in forms.values() if f.framework == framework and not f.of)
    return tuple(f for f in own if by_class or not f.by_class)


def builtin_folder() -> Path:
    """The spec folder that belongs to layoutx: inside the wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "specs", package.parent / "specs"):
        if (folder / "dense.yaml").is_file():
            return folder
    raise SpecError("the spec files of layoutx are missing", where=str(package / "specs"), do="install layoutx again")


def spec_folders(extra: Sequence[str | os.PathLike[str]] = ()) -> tuple[Path, ...]:
    """layoutx's folder, those of installed packages, of the environment, and the given ones, in this order.

    A folder that is named twice stands where it was named first.

    Raises:
        UsageError: one folder in the place of a list of them.
    """
    if isinstance(extra, (str, os.PathLike)):
        raise UsageError("specs is a list of folders, not one", do=f"write specs=[{str(extra)!r}]")
    named = [Path(p) for p in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if p]
    folders = (builtin_folder(), *_installed(), *named, *(Path(p) for p in extra))
    first: dict[Path, Path] = {}
    for folder in folders:
        first.setdefault(folder.resolve(), folder)
    return tuple(first.values())


@cache
def _installed() -> tuple[Path, ...]:
    if not _announced():
        return ()
    from importlib.metadata import entry_points
    from importlib.util import find_spec

    folders = []
    for entry in entry_points(group=ENTRY_POINTS):
        module = find_spec(entry.module)
        for place in module.submodule_search_locations or () if module else ():
            folders.append(Path(place) / (entry.attr or "."))
    return tuple(folders)


def _announced() -> bool:
    """Whether any installed package names spec folders; importlib.metadata takes ten times as long to find out."""
    for place in sys.path:
        if os.path.isfile(place):
            return True  # a zip file, which only importlib.metadata looks into
        with suppress(OSError):
            for name in os.listdir(place or "."):
                inside = {".dist-info": "", ".egg-info": "", ".egg": "EGG-INFO"}.get(os.path.splitext(name)[1])
                if inside is not None and _told(os.path.join(place, name, inside, "entry_points.txt")):
                    return True
    return False


def _told(path: str) -> bool:
    with suppress(OSError), open(path, "rb") as file:
        return ENTRY_POINTS.encode() in file.read()
    return False


def load_registry(folders: Iterable[Path]) -> Registry:
    """Load every `*.yaml` of the folders into one registry.

    Raises:
        SpecError: a file that is not valid, two files for one kind, two forms of one name; all shown together.
    """
    problems: list[LayoutxError] = []
    kinds: dict[str, Kind] = {}
    frameworks: dict[str, Framework] = {}
    additions: list[Kind] = []
    for spec in _loaded(folders, problems):
        if isinstance(spec, Framework):
            frameworks[spec.name] = _joined(frameworks.get(spec.name), spec)
        elif not spec.roles:
            additions.append(spec)
        elif spec.name in kinds:
            what, both = f"two spec files describe the kind {spec.name!r}", (kinds[spec.name].file, spec.file)
            do = "rename one kind; to add a form to a kind, leave `roles` out of your file"
            problems.append(SpecError(what, where=both, do=do))
        else:
            kinds[spec.name] = spec
    for spec in additions:
        if spec.name not in kinds:
            problems.append(SpecError(f"the kind {spec.name!r} has no roles", where=spec.file, do="add `roles:`"))
        else:
            kinds[spec.name] = _extended(kinds[spec.name], spec, problems)
    forms: dict[str, Form] = {}
    for kind in kinds.values():
        for name, form in kind.forms.items():
            if name in forms:
                problems.append(
                    SpecError(f"the form {name} stands in two kinds: {forms[name].kind}, {kind.name}", where=kind.file)
                )
            forms[name] = form
    raise_all(problems, "the spec files have problems")
    return Registry(kinds, forms, frameworks)


def _loaded(folders: Iterable[Path], problems: list[LayoutxError]) -> Iterator[Kind | Framework]:
    """What each file holds, folder by folder; those that are not valid are among the problems."""
    from layoutx.spec.load import load_spec

    for folder in folders:
        if not folder.is_dir():
            raise UsageError(
                f"{folder} is not a folder of spec files", do="give the folder that holds the *.yaml files"
            )
        for path in sorted(folder.glob("*.yaml")):
            try:
                spec = load_spec(path)
            except LayoutxError as error:
                problems.append(error)
            else:
                yield spec


def _joined(first: Framework | None, second: Framework) -> Framework:
    if first is None:
        return second
    classes, refuse = {**first.classes, **second.classes}, {**first.refuse, **second.refuse}
    return replace(first, ignore=first.ignore | second.ignore, classes=classes, refuse=refuse)


def _extended(kind: Kind, extra: Kind, problems: list[LayoutxError]) -> Kind:
    for name in extra.forms:
        if name in kind.forms:
            problems.append(SpecError(f"the form {name} is described twice", where=(kind.file, extra.file)))
    own = {
        "about": extra.about,
        "axes": extra.labels or extra.same,
        "spread": extra.spread,
        "gauge": extra.gauge,
        "facts": extra.facts,
        "settings": extra.settings,
    }
    for key in (key for key, value in own.items() if value):
        problems.append(
            SpecError(
                f"`{key}` belongs to the kind {kind.name!r}, which {Path(kind.file).name} describes",
                where=extra.file,
                why="a file without `roles` adds forms to a kind, and nothing else",
                do=f"leave `{key}` out, or describe a kind of your own with `roles`",
            )
        )
    return replace(kind, forms={**kind.forms, **extra.forms})


@lru_cache(8)
def _cached(folders: tuple[Path, ...], _states: tuple[object, ...]) -> Registry:
    place = kept(folders)
    before = taken(place) if place else None
    if before is not None:
        return Registry(*before)
    found = load_registry(folders)
    if place:
        keep(place, found)
    return found


def registry(extra: Sequence[str | os.PathLike[str]] = ()) -> Registry:
    """The registry of this process for the given extra folders; loaded again where a file of theirs is another now."""
    first, *more = spec_folders(extra)
    return _cached((first, *more), tuple(map(_state, more)))


def _state(folder: Path) -> tuple[object, ...]:
    """What a folder's specs follow from: where it lies, and the name, size and time of every file."""
    found: list[object] = [folder.resolve()]
    for path in sorted(folder.glob("*.yaml")):
        with suppress(OSError):  # who reads it says so
            about = path.stat()
            found.append((path.name, about.st_size, about.st_mtime_ns))
    return tuple(found)
