"""The errors of layoutx: each says what, where, why and what to do, in that order."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

MOST_SHOWN = 12  # problems that are shown one by one
MOST_KINDS = 40  # of more, so many that differ in more than the layer's name and in numbers
_NUMBER = re.compile(r"\d+")
_LAYER = re.compile(r"\blayer ([^\s:,]+)")


def visible(text: str, kept: str = "") -> str:
    """A text that cannot steer a terminal: control, format and lone surrogate characters are spelled out.

    Args:
        kept: characters that stay as they are, "\n" in a text of several lines.
    """
    if (text.translate(dict.fromkeys(map(ord, kept))) if kept else text).isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept else _spelled(c) for c in text)


def _spelled(char: str) -> str:
    import unicodedata

    if unicodedata.category(char) == "Zs":
        return " "
    code = ord(char)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


class LayoutxError(Exception):
    """A problem with its place, its reason and its remedy.

    Args:
        what: one sentence, without the final stop.
        where: lines that locate it (file, layer, tensor, shapes with axis names).
        why: the reason, one sentence.
        do: what the user can do about it, one sentence.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str | Sequence[str] = (), why: str = "", do: str = "") -> None:
        self.what = what
        self.where: tuple[str, ...] = (where,) if isinstance(where, str) else tuple(where)
        self.why = why
        self.do = do
        super().__init__(what)

    def __str__(self) -> str:
        lines = [self.what, *self.where, self.why, self.do]
        return "\n  ".join(visible(line, "\n") for line in lines if line)

    @property
    def line(self) -> str:
        """What, where and why, in one line."""
        return "; ".join(text for text in (self.what, *self.where, self.why) if text)

    def at(self, *where: str) -> LayoutxError:
        """The same error with outer places put before its own; the caller raises it."""
        return type(self)(self.what, where=(*where, *self.where), why=self.why, do=self.do)


class UsageError(LayoutxError):
    """The call itself was wrong: an unknown name, an impossible combination of options."""

    exit_code = 2


class LayoutSyntaxError(LayoutxError):
    """A layout text that cannot be read; `where` holds the text and a caret under the character."""


class SizeError(LayoutxError):
    """Axis sizes that contradict each other, or that nothing determines."""


class SpecError(LayoutxError):
    """A spec file that is not valid; `where` starts with file:line."""


class BindError(LayoutxError):
    """A layer whose config or tensors do not fit its form."""


class ConversionError(LayoutxError):
    """A layer whose numbers have no place in the target, or would not compute the same thing."""


class ConsentError(ConversionError):
    """A conversion that is possible but not bit-reversible, and was not allowed by the user."""


class ModelError(LayoutxError):
    """A model description (config, module) that cannot be followed."""


class MatchError(LayoutxError):
    """Source and target layers that could not be paired."""


class FileError(LayoutxError):
    """A file that cannot be read or written as what it claims to be."""


class VerificationError(LayoutxError):
    """A result that was computed but did not survive its check; nothing was kept."""


class WorkerError(LayoutxError):
    """Workers of an executor that died or cannot be reached; what they finished is kept, to go on from."""


class Problems(LayoutxError):
    """Several problems found in one pass, shown together; `problems` has each, of its own class.

    Problems that are all of one class are caught by it, as one alone is: several `ConsentError`s are a `ConsentError`.
    """

    def __new__(cls, problems: Sequence[LayoutxError], what: str = "") -> Problems:
        """An instance of the nearest class that all of them share as well."""
        own = [kind for kind in type(next(iter(problems), None)).__mro__ if issubclass(kind, LayoutxError)]
        several = (
            kind for kind in own if not issubclass(kind, Problems) and all(isinstance(p, kind) for p in problems)
        )
        shared = next(several, LayoutxError)
        return super().__new__(cls if shared is LayoutxError else _problems_of(shared))

    def __init__(self, problems: Sequence[LayoutxError], what: str = "") -> None:
        self.problems = tuple(problems)
        self.exit_code = max((p.exit_code for p in self.problems), default=1)
        super().__init__(what or f"{len(self.problems)} problems")

    def __reduce__(self) -> tuple[type[Problems], tuple[tuple[LayoutxError, ...], str]]:
        """Another process hears of all of them."""
        return Problems, (self.problems, self.what)

    def at(self, *where: str) -> Problems:
        """Each problem with the outer places put before its own."""
        return Problems([p.at(*where) for p in self.problems], self.what)

    def __str__(self) -> str:
        return "\n".join([f"{visible(self.what)}:", *shortened(self.problems, lambda p: f"{type(p).__name__}: {p}")])


def _problems_of(shared: type[LayoutxError]) -> type[Problems]:
    """Problems that are all of one class."""
    return type("Problems", (Problems, shared), {"__module__": __name__, "__doc__": Problems.__doc__})


def shortened(
    problems: Sequence[LayoutxError], text: Callable[[LayoutxError], str], safe: Callable[[str], str] = str
) -> Iterator[str]:
    """The texts of problems; of more than anybody reads, one for all that differ in the layer and in numbers only.

    Args:
        text: of one problem; safe: a text as it may be shown.
    """
    if len(problems) <= MOST_SHOWN:
        yield from map(text, problems)
        return
    alike: dict[str, list[LayoutxError]] = {}
    for problem in problems:
        alike.setdefault(_kind_of(problem), []).append(problem)
    for own in list(alike.values())[:MOST_KINDS]:
        yield text(own[0])
        if len(own) > 1:
            first, last = ((p.what, *p.where) for p in (own[0], own[-1]))
            other = next((b for a, b in zip(first, last, strict=False) if a != b), own[-1].what)
            yield f"  ... and {len(own) - 1:,} more like it, the last: {safe(other)}"
    rest = sum(map(len, list(alike.values())[MOST_KINDS:]))
    if rest:
        yield f"... and {rest:,} more problems, of {len(alike) - MOST_KINDS:,} other kinds"


def _kind_of(problem: LayoutxError) -> str:
    """The text of a problem without the layer that it is of, and without numbers."""
    text = f"{type(problem).__name__} {problem}"
    found = _LAYER.search(text)
    return _NUMBER.sub("#", text.replace(found[1], "#") if found else text)


def raise_all(problems: Sequence[LayoutxError], what: str = "") -> None:
    """Raise nothing, the one problem, or all of them together."""
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise Problems(problems, what)
