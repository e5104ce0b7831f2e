"""What the user said of a conversion, for its certificate: with it, and the source, the same can be done again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from layoutx.errors import FileError
from layoutx.job.jobs import Options, options_of

LISTS = ("allow", "skip", "only", "ignore_keys", "keep_order")
TABLES = ("forms", "pairs", "values")


def said_of(
    options: Options, *, like: Any, config: Any, from_: str, input_shape: Sequence[int] | None, dtype: str | None
) -> dict[str, Any]:
    """All that is not as it is when nothing is said; the same call gives the same text."""
    found: dict[str, Any] = {name: list(getattr(options, name)) for name in LISTS}
    found |= {"allow": sorted(options.allow), "ignore_keys": sorted(options.ignore_keys)}
    found |= {name: {str(k): _plain(v) for k, v in getattr(options, name).items()} for name in TABLES}
    found |= {"materialise": options.materialise, "from": from_, "dtype": dtype or ""}
    found |= {"input_shape": [int(n) for n in input_shape or ()], "like": _name(like), "config": _name(config)}
    return {name: one for name, one in found.items() if one}


def said_again(said: object, file: str) -> tuple[Options, dict[str, Any]]:
    """The options of a certificate, a stranger's text, and the rest that it says.

    Raises:
        FileError: it is malformed.
    """
    said = {} if said is None else said
    if not isinstance(said, dict):
        raise _malformed(file, "options")
    lists = {name: said.get(name, []) for name in LISTS}
    tables = {name: said.get(name, {}) for name in TABLES}
    for name, one in lists.items():
        if not isinstance(one, list) or not all(isinstance(text, str) for text in one):
            raise _malformed(file, name)
    for name, one in tables.items():
        if not isinstance(one, dict) or not (name == "values" or all(isinstance(text, str) for text in one.values())):
            raise _malformed(file, name)
    shape = said.get("input_shape", [])
    if not isinstance(shape, list) or not all(isinstance(n, int) and n > 0 for n in shape):
        raise _malformed(file, "input_shape")
    texts = {name: said.get(name, "") for name in ("from", "dtype", "like", "config")}
    for name, one in texts.items():
        if not isinstance(one, str):
            raise _malformed(file, name)
    options = options_of(**lists, **tables, materialise=said.get("materialise") is True)
    return options, {**texts, "input_shape": tuple(shape) or None}


def _malformed(file: str, name: str) -> FileError:
    return FileError(
        f"the certificate of {file} is malformed",
        where=f"options: {name}",
        do="convert the source again and compare the two files with `layoutx diff`",
    )


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return str(value)


def _name(given: Any) -> str:
    """How a model that was given is called."""
    if given is None:
        return ""
    if isinstance(given, Mapping):
        return "a mapping"
    return Path(given).name if isinstance(given, (str, Path)) else type(given).__name__
