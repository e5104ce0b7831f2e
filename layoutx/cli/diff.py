"""`layoutx diff BEFORE AFTER`: which weights moved between two models, how far, and which rows and units did not."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from layoutx.cli.joining import keywords, two_files

ABOUT = "show which weights moved between two checkpoints, and which rows and units did not"
EXAMPLE = "layoutx diff epoch0.h5 epoch1.h5"


def add(several: Any) -> None:
    """Its parser."""
    from layoutx.cli.options import _command

    abouts = ("the first model", "the second one, of the same framework or of another")
    two_files(_command(several, "diff", ABOUT, EXAMPLE, run), ("BEFORE", "AFTER"), abouts, "compare")


def run(args: Namespace) -> int:
    """Compare; differences are the answer (0), 1 only where layers could not be paired."""
    from layoutx.cli.commands import _print, _terminal
    from layoutx.diff import diff

    found = diff(args.source, args.target, **keywords(args))
    _print(args, found.to_dict() if args.json else found.text(*_terminal()))
    return 0 if found.paired else 1
