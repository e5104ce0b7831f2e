"""`layoutx diagnose A B`: which known mistake explains why two models differ."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import Any

ABOUT = "explain why two models differ: try the known mistakes"
EXAMPLE = "layoutx diagnose model.h5 mypkg.models:Tagger --inputs batch.npz"


def add(several: Any) -> None:
    """Its parser."""
    from layoutx.cli.options import Pairs, _command, _common

    found = _command(several, "diagnose", ABOUT, EXAMPLE, run)
    model = ".keras, .h5, .onnx, .pt2, a recording, or package.module:callable"
    found.add_argument("source", metavar="A", help=f"the model that is right: {model}")
    found.add_argument("target", metavar="B", help="the model that differs")
    found.add_argument(
        "--inputs",
        metavar="FILE",
        help=".npy, .npz or .safetensors, in A's axis order; else random ones, if a model says",
    )
    found.add_argument("--map", metavar="FILE", help="the pairing, as `layoutx match` wrote it")
    found.add_argument("--pair", action=Pairs, default={}, metavar="LAYER=MODULE", help="a layer's place in B")
    found.add_argument("--form", action=Pairs, default={}, metavar="LAYER=FORM", help="the form of a layer of A")
    found.add_argument("--skip", action="append", default=[], metavar="GLOB", help="leave these layers out")
    found.add_argument("--only", action="append", default=[], metavar="GLOB", help="look at these layers only")
    found.add_argument("--tolerance", type=float, metavar="X", help="relative difference that counts as the same")
    _common(found)


def run(args: Namespace) -> int:
    """Explain; 0 where there is nothing to explain."""
    from layoutx.cli.commands import _print, _terminal
    from layoutx.diagnose import diagnose

    found = diagnose(
        args.source,
        args.target,
        args.inputs,
        map=args.map,
        forms=args.form,
        pairs=args.pair,
        skip=args.skip,
        only=args.only,
        specs=args.specs,
        tolerance=args.tolerance,
        progress=_progress if sys.stderr.isatty() and not args.json else None,
    )
    _print(args, found.to_dict() if args.json else found.text(*_terminal()))
    return 0 if found.ok else 1


def _progress(tried: int, many: int, what: str) -> None:
    end = "\n" if many and tried >= many else ""
    print(f"\r{tried} of {many} tried: {what[:60]:60}", end=end, file=sys.stderr, flush=True)
