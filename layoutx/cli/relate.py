"""`layoutx relate A B`: how the tensors of two weight files of one model are related; nothing is run."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

ABOUT = "find from the numbers alone how one weight file was made from another"
EXAMPLE = "layoutx relate model.h5 ported.safetensors"


def add(several: Any) -> None:
    """Its parser."""
    from layoutx.cli.options import Pairs, _command, _common, said_values

    found = _command(several, "relate", ABOUT, EXAMPLE, run)
    kinds = ".keras, .h5, .onnx, .safetensors, .pt, .npz, .msgpack, ..., or package.module:callable"
    found.add_argument("source", metavar="A", help=f"the weights that are right: {kinds}")
    found.add_argument("target", metavar="B", help="the weights that someone made from them")
    found.add_argument("--map", metavar="FILE", help="the pairing, as `layoutx match` wrote it")
    found.add_argument("--pair", action=Pairs, default={}, metavar="LAYER=MODULE", help="a layer's place in B")
    found.add_argument("--form", action=Pairs, default={}, metavar="LAYER=FORM", help="the form of a layer")
    said_values(found)
    found.add_argument("--skip", action="append", default=[], metavar="GLOB", help="leave these layers out")
    found.add_argument("--only", action="append", default=[], metavar="GLOB", help="relate only these layers")
    keep = "rows of these layers stay in A's order (channels last)"
    found.add_argument("--keep-order", nargs="?", const="*", action="append", default=[], metavar="GLOB", help=keep)
    found.add_argument("--from", dest="from_", default="", metavar="FRAMEWORK", help="whose names A holds")
    found.add_argument("--to", default="", metavar="FRAMEWORK", help="whose names B holds")
    _common(found)


def run(args: Namespace) -> int:
    """Relate; 1 where a tensor is not as the registry says."""
    from layoutx.cli.commands import _config, _print, _terminal
    from layoutx.relate import relate

    found = relate(
        args.source,
        args.target,
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
    return 0 if found.ok else 1
