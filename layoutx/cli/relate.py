"""`layoutx relate A B`: how the tensors of two weight files of one model are related; nothing is run."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from layoutx.cli.joining import keywords, two_files

ABOUT = "find from the numbers alone how one weight file was made from another"
EXAMPLE = "layoutx relate model.h5 ported.safetensors"


def add(several: Any) -> None:
    """Its parser."""
    from layoutx.cli.options import _command

    abouts = ("the weights that are right", "the weights that someone made from them")
    two_files(_command(several, "relate", ABOUT, EXAMPLE, run), ("A", "B"), abouts, "relate")


def run(args: Namespace) -> int:
    """Relate; 1 where a tensor is not as the registry says."""
    from layoutx.cli.commands import _print, _terminal
    from layoutx.relate import relate

    found = relate(args.source, args.target, **keywords(args))
    _print(args, found.to_dict() if args.json else found.text(*_terminal()))
    return 0 if found.ok else 1
