"""Errors on the command line: the text of the error with its class in front, or the same as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import wrap
from typing import Any

from layoutx.errors import LayoutSyntaxError, LayoutxError, Problems, shortened
from layoutx.show.tables import WIDTH, clean

LONGEST = 2000


def error_text(error: LayoutxError) -> str:
    """`ConversionError: what`, then where, why and what to do, each on a line of its own.

    Names from a model stand in the text: what could steer the terminal is spelled out.
    """
    if isinstance(error, Problems):
        problems = shortened(error.problems, error_text, lambda text: clean(text, LONGEST))
        return "\n".join([f"{clean(error.what, LONGEST)}:", *problems])
    verbatim = isinstance(error, LayoutSyntaxError)  # a caret stands under its text
    where = [line for entry in error.where for line in (entry.split("\n") if verbatim else [entry])]
    lines = [f"{type(error).__name__}: {error.what}", *where, error.why, error.do]
    lines = [clean(line, LONGEST) for line in lines if line]
    if not verbatim:
        lines = [part for line in lines for part in _wrapped(line)]
    return "\n  ".join(lines)


def _wrapped(line: str) -> list[str]:
    """A line of at most WIDTH columns under the two of its indent; what goes on is indented further, words stay."""
    if len(line) <= WIDTH - 2:
        return [line]
    return wrap(line, WIDTH - 2, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def error_json(error: LayoutxError) -> str:
    """`{"error": {"type", "what", "where", "why", "do"}}`; several problems stand under `problems`."""
    return json_text({"error": _fields(error)})


def json_text(found: Mapping[str, Any]) -> str:
    """JSON for a terminal: ASCII alone, and none of it a control character (json leaves DEL as it is)."""
    import json

    return json.dumps(found, indent=2, default=str).replace("\x7f", "\\u007f")


def _fields(error: LayoutxError) -> dict[str, Any]:
    found: dict[str, Any] = {"type": type(error).__name__, "what": error.what}
    if isinstance(error, Problems):
        return {**found, "problems": [_fields(problem) for problem in error.problems]}
    return {**found, "where": list(error.where), "why": error.why, "do": error.do}
