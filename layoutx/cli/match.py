"""`layoutx match SRC DST`: propose which layer is which, and write it as a file to edit."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from layoutx.cli.joining import holding, joining, keywords

ABOUT = "propose which layer of one model is which of another"
EXAMPLE = "layoutx match digits.keras mypkg.models:Digits -o map.yaml"


def add(several: Any) -> None:
    """Its parser."""
    from layoutx.cli.options import _command

    found = _command(several, "match", ABOUT, EXAMPLE, run)
    found.add_argument("source", metavar="SRC", help="a file of any kind, or package.module:callable")
    found.add_argument("target", metavar="DST", help="the same; what has to be written later")
    found.add_argument(
        "-o",
        "--output",
        metavar="MAP",
        help="the mapping file; one that is there keeps its lines and gets what it lacks",
    )
    joining(found, "SRC", "DST", "match")
    holding(found, "SRC", "DST")


def run(args: Namespace) -> int:
    """Match; 1 where a layer of either side is left without a counterpart."""
    from pathlib import Path

    from layoutx.cli.commands import _print, _terminal
    from layoutx.match import match

    there = args.output if args.output and Path(args.output).exists() else None
    found = match(args.source, args.target, **{**keywords(args), "map": args.map or there})
    if args.output:
        found.save(args.output)
    _print(args, found.to_dict() if args.json else "\n".join([found.text(*_terminal()), *_to_fill(args.output)]))
    return 0 if found.complete else 1


def _to_fill(path: str | None) -> list[str]:
    """Which lines of the mapping file are the user's to fill in."""
    from layoutx.model.mapfile import read_map

    left = {name: line for name, (line, _) in read_map(path).open.items()} if path else {}
    if not left:
        return []
    lines = ", ".join(f"{path}:{line} ({name})" for name, line in left.items())
    return [f"fill in {lines}:", "  take the # away and leave one of the places; port and convert refuse it until then"]
