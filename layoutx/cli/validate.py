"""`layoutx validate A B`: run both models and compare them layer by layer."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

ABOUT = "run two models on the same inputs and compare every layer"
EXAMPLE = "layoutx validate model.h5 mypkg.models:Tagger --inputs batch.npz"


def add(several: Any) -> None:
    """Its parser."""
    from layoutx.cli.options import Pairs, _command, _common

    found = _command(several, "validate", ABOUT, EXAMPLE, run)
    model = ".keras, .h5, .onnx, .pt2, a recording, or package.module:callable"
    found.add_argument("source", metavar="A", help=f"the model that is right: {model}")
    found.add_argument("target", metavar="B", help="the model that should do the same")
    found.add_argument(
        "--inputs",
        metavar="FILE",
        help=".npy, .npz or .safetensors, in A's axis order; else random ones, if a model says",
    )
    found.add_argument("--map", metavar="FILE", help="the pairing, as `layoutx match` wrote it")
    found.add_argument("--pair", action=Pairs, default={}, metavar="LAYER=MODULE", help="a layer's place in B")
    found.add_argument("--form", action=Pairs, default={}, metavar="LAYER=FORM", help="the form of a layer of A")
    found.add_argument("--skip", action="append", default=[], metavar="GLOB", help="leave these layers out")
    found.add_argument("--only", action="append", default=[], metavar="GLOB", help="compare only these layers")
    found.add_argument("--tolerance", type=float, metavar="X", help="relative difference that counts as the same")
    _common(found)


def run(args: Namespace) -> int:
    """Compare; 1 where something differs."""
    from layoutx.cli.commands import _print, _terminal
    from layoutx.validate import validate

    found = validate(
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
    )
    _print(args, found.to_dict() if args.json else found.text(*_terminal()))
    return 0 if found.ok else 1
