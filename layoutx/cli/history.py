"""`layoutx history FILE`: what `lx.History` recorded of a training, as a table or as pictures."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

ABOUT = "show how the weights moved while a model was trained (a file of lx.History)"
EXAMPLE = "layoutx history run.lxh --plot run.png"


def add(several: Any) -> None:
    """Its parser."""
    from layoutx.cli.options import _command, _common

    found = _command(several, "history", ABOUT, EXAMPLE, run)
    found.add_argument("file", metavar="FILE", help="what lx.History wrote, whole or cut off by a crash")
    found.add_argument("--only", action="append", default=[], metavar="GLOB", help="show only these layers")
    found.add_argument("--plot", metavar="OUT.png", help="draw norms, update ratios and units (needs matplotlib)")
    _common(found)


def run(args: Namespace) -> int:
    """Print the table; with --plot write the picture too."""
    from layoutx.cli.commands import _print, _terminal
    from layoutx.history.reader import read

    found = read(args.file, only=args.only)
    if args.plot:
        found.plot(args.plot)
    _print(args, found.to_dict() if args.json else found.text(*_terminal()))
    return 0
