"""`layoutx validate A B`: run both models and compare them layer by layer; `diagnose` takes the same arguments."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from layoutx.cli.joining import joining
from layoutx.cli.joining import keywords as joined

ABOUT = "run two models on the same inputs and compare every layer"
EXAMPLE = "layoutx validate model.h5 mypkg.models:Tagger --inputs batch.npz"


def add(several: Any) -> None:
    """Its parser."""
    from layoutx.cli.options import _command

    two_models(_command(several, "validate", ABOUT, EXAMPLE, run), "the model that should do the same")


def two_models(found: ArgumentParser, target: str) -> None:
    """The arguments of a command that runs two models and compares them."""
    from layoutx.cli.report import option

    model = ".keras, .h5, .onnx, .pt2, a recording, or package.module:callable"
    found.add_argument("source", metavar="A", help=f"the model that is right: {model}")
    found.add_argument("target", metavar="B", help=target)
    found.add_argument(
        "--inputs",
        metavar="FILE",
        help=".npy, .npz or .safetensors, in A's axis order; else random ones, if a model says",
    )
    found.add_argument("--weights", metavar="FILE", help="of A, where A is a recording: its layers are then looked at")
    found.add_argument("--tolerance", type=float, metavar="X", help="relative difference that counts as the same")
    option(found)
    joining(found, "A", "B", "compare")


def keywords(args: Namespace) -> dict[str, Any]:
    """What these arguments are in Python."""
    return {"tolerance": args.tolerance, "weights": args.weights, **joined(args)}


def run(args: Namespace) -> int:
    """Compare; 1 where something differs."""
    from layoutx.cli.commands import _print, _terminal
    from layoutx.cli.report import check, written
    from layoutx.validate import validate

    check(args)
    found = validate(args.source, args.target, args.inputs, **keywords(args))
    written(args, found, args.source)
    _print(args, found.to_dict() if args.json else found.text(*_terminal()))
    return 0 if found.ok else 1
