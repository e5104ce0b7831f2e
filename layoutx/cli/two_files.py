"""The arguments of commands that join two weight files and run neither: `diff` and `relate`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

KINDS = ".keras, .h5, .onnx, .safetensors, .pt, .npz, .msgpack, ..., or package.module:callable"


def two_files(found: ArgumentParser, names: tuple[str, str], abouts: tuple[str, str], verb: str) -> None:
    """Add them. names: what the help calls the two; abouts: what they are; verb: what is done with layers."""
    from layoutx.cli.options import Pairs, _common, pairs_option, said_values

    first, second = names
    found.add_argument("source", metavar=first, help=f"{abouts[0]}: {KINDS}")
    found.add_argument("target", metavar=second, help=abouts[1])
    found.add_argument("--map", metavar="FILE", help="the pairing, as `layoutx match` wrote it")
    pairs_option(found, second)
    found.add_argument("--form", action=Pairs, default={}, metavar="LAYER=FORM", help="the form of a layer")
    said_values(found)
    found.add_argument("--skip", action="append", default=[], metavar="GLOB", help="leave these layers out")
    found.add_argument("--only", action="append", default=[], metavar="GLOB", help=f"{verb} only these layers")
    keep = f"rows of these layers stay in the order of {first} (channels last)"
    found.add_argument("--keep-order", nargs="?", const="*", action="append", default=[], metavar="GLOB", help=keep)
    found.add_argument("--from", dest="from_", default="", metavar="FRAMEWORK", help=f"whose names {first} holds")
    found.add_argument("--to", default="", metavar="FRAMEWORK", help=f"whose names {second} holds")
    _common(found)


def keywords(args: Namespace) -> dict[str, Any]:
    """What these arguments are in Python."""
    from layoutx.cli.commands import _config

    same = ("map", "skip", "only", "keep_order", "specs", "from_", "to")
    said = {name: getattr(args, name) for name in same}
    return {**said, "forms": args.form, "pairs": args.pair, "values": _config(args.set)}
