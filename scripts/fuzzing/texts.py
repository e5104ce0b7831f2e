"""Mutations of text and of trees (JSON, YAML), and layouts made up from the grammar."""

from __future__ import annotations

import json
import random
import re
from typing import Any

WEIRD = (
    *(
        "",
        " ",
        "\0",
        "\x1b[31m",
        "\u202e",
        "..",
        "/",
        "a" * 2000,
        "1" * 400,
        "-1",
        "1e999",
        "nan",
        "~",
        "null",
        "é\u0301",
    ),
    *(
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        "|",
        ":",
        ",",
        "#",
        "&a",
        "*a",
        "!!python/object:os.system",
        "<<",
        "? ",
        "- ",
        "\t",
    ),
    *("gate[i f c o]", "(gate hidden)", "{w: a | b: c}", "...spatial", "kernel: input output", "0", "1", "2", "true"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**400, 0.5, -0.0, 1e308, float("inf"), float("nan")),
    *(
        "",
        "x",
        "a" * 2000,
        "\0",
        "\ud800",
        "F32",
        "float32",
        "../../x",
        [],
        {},
        [[]],
        [0],
        [-1],
        [2**40] * 4,
        {"": None},
    ),
    *([1] * 70, ["a", None], {"a": {"a": {}}}, [1, [2, [3, [4]]]]),
)
AXES = ("input", "output", "hidden", "gate", "hidden_prev", "kh", "kw", "in", "out", "head")
ROLES = ("kernel", "bias", "w_input", "w_recurrent", "gamma")
_TOKEN = re.compile(r"\w+|[^\w\s]|\s+")


def edited(rng: random.Random, text: str, other: str = "") -> str:
    """One to three edits of tokens or lines."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        lines = rng.random() < 0.4 and "\n" in text
        parts = text.splitlines(keepends=True) if lines else _TOKEN.findall(text)
        theirs = (other.splitlines(keepends=True) if lines else _TOKEN.findall(other)) or [" "]
        if not parts:
            return rng.choice(WEIRD)
        at = rng.randrange(len(parts))
        match rng.randrange(7):
            case 0:
                del parts[at]
            case 1:
                parts.insert(at, rng.choice(parts))
            case 2:
                parts[at] = rng.choice(theirs)
            case 3:
                parts[at] = rng.choice(WEIRD) + ("\n" if lines else "")
            case 4:
                parts.insert(at, rng.choice(WEIRD))
            case 5:
                parts[at] = parts[at] * rng.choice((2, 3, 60))
            case _:
                there = rng.randrange(len(parts))
                parts[at], parts[there] = parts[there], parts[at]
        text = "".join(parts)
    return text


def tree(rng: random.Random, value: Any) -> Any:
    """A tree of dicts and lists with one to three of its nodes made something else."""
    new = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 2, 3))):
        spots = list(_spots(new))
        if not spots:
            return rng.choice(VALUES)
        holder, key = rng.choice(spots)
        match rng.randrange(5):
            case 0 | 1:
                holder[key] = rng.choice(VALUES)
            case 2:
                del holder[key]
            case 3:
                donor, theirs = rng.choice(spots)
                if theirs in donor if isinstance(donor, dict) else theirs < len(donor):
                    holder[key] = json.loads(json.dumps(donor[theirs]))
            case _:
                _moved(rng, holder, key)
    return new


def _moved(rng: random.Random, holder: Any, key: Any) -> None:
    """A key gets another name, an element stands there often, a number is a little off."""
    if isinstance(holder[key], int):
        holder[key] = holder[key] + rng.choice((-1, 1, 8, -holder[key], 2**32))
    elif isinstance(holder, dict):
        holder[rng.choice((*holder, "x", "", "a/b", "shape", "dtype"))] = holder.pop(key)
    else:
        holder[key:key] = [holder[key]] * rng.choice((1, 2, 50))


def _spots(value: Any) -> Any:
    """Every (container, key) of a tree."""
    if isinstance(value, dict):
        keys: Any = list(value)
    elif isinstance(value, list):
        keys = range(len(value))
    else:
        return
    for key in keys:
        yield value, key
        yield from _spots(value[key])


def layout(rng: random.Random) -> str:
    """A text of the layout language, or nearly."""
    head = rng.choice(ROLES)
    if rng.random() < 0.3:
        head += "." + rng.choice("ifco")
    dims = " ".join(_dim(rng, 3) for _ in range(rng.randrange(5)))
    return dims if rng.random() < 0.2 else f"{head}: {dims}"


def _dim(rng: random.Random, depth: int) -> str:
    if depth == 0 or rng.random() < 0.5:
        axis = rng.choice(AXES)
        return rng.choice(
            (axis, axis, axis, f"{axis}[{' '.join(rng.sample('ifcozr', 3))}]", f"-{axis}", "1", "...spatial")
        )
    inner = [_dim(rng, depth - 1) for _ in range(rng.randrange(1, 4))]
    if rng.random() < 0.6:
        return "(" + " ".join(inner) + ")"
    named = (f"{rng.choice(ROLES)}: {one}" if rng.random() < 0.8 else one for one in inner)
    return "{" + " | ".join(named) + "}"
