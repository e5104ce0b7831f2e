"""`layoutx diff BEFORE AFTER`: which weights moved between two models, how far, and which rows and units did not."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

ABOUT = "show which weights moved between two checkpoints, and which rows and units did not"
EXAMPLE = "layoutx diff epoch0.h5 epoch1.h5"


def add(several: Any) -> None:
    """Its parser."""
    from layoutx.cli.options import Pairs, _command, _common, said_values

    found = _command(several, "diff", ABOUT, EXAMPLE, run)
    kinds = ".keras, .h5, .onnx, .safetensors, .pt, .npz, .msgpack, ..., or package.module:callable"
    found.add_argument("before", metavar="BEFORE", help=f"the first model: {kinds}")
    found.add_argument("after", metavar="AFTER", help="the second one, of the same framework or of another")
    found.add_argument("--map", metavar="FILE", help="the pairing, as `layoutx match` wrote it")
    found.add_argument("--pair", action=Pairs, default={}, metavar="LAYER=MODULE", help="a layer's place in AFTER")
    found.add_argument("--form", action=Pairs, default={}, metavar="LAYER=FORM", help="the form of a layer")
    said_values(found)
    found.add_argument("--skip", action="append", default=[], metavar="GLOB", help="leave these layers out")
    found.add_argument("--only", action="append", default=[], metavar="GLOB", help="compare only these layers")
    keep = "rows of these layers stay in the order of BEFORE (channels last)"
    found.add_argument("--keep-order", nargs="?", const="*", action="append", default=[], metavar="GLOB", help=keep)
    found.add_argument("--from", dest="from_", default="", metavar="FRAMEWORK", help="whose names BEFORE holds")
    found.add_argument("--to", default="", metavar="FRAMEWORK", help="whose names AFTER holds")
    _common(found)


def run(args: Namespace) -> int:
    """Compare; differences are the answer (0), 1 only where layers could not be paired."""
    from layoutx.cli.commands import _config, _print, _terminal
    from layoutx.diff import diff

    found = diff(
        args.before,
        args.after,
        map=args.map,
        forms=args.form,
        pairs=args.pair,
        skip=args.skip,
        only=args.only,
        keep_order=args.keep_order,
        specs=args.specs,
        from_=args.from_,
        to=args.to,
        values=_config(args.set),
    )
    _print(args, found.to_dict() if args.json else found.text(*_terminal()))
    return 0 if found.paired else 1
