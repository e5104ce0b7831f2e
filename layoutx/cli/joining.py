"""The arguments of all that join two models: match, validate, diagnose, relate, diff, transfer, report of two."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

KINDS = ".keras, .h5, .onnx, .safetensors, .pt, .npz, .msgpack, ..., or package.module:callable"
SAME = ("map", "skip", "only", "specs", "keep_order", "from_", "to", "config", "input_shape")


def joining(found: ArgumentParser, first: str, second: str, verb: str, skipped: str = "leave these layers out") -> None:
    """Add what the user may say of layers and of their counterparts.

    Args:
        first, second: what the help calls the two models; verb: what is done with layers; skipped: what `--skip` does.
    """
    from layoutx.cli.options import Pairs, _common, ignore_key, keep_order, pairs_option, said_values

    found.add_argument("--map", metavar="FILE", help="the pairing, as `layoutx match` wrote it: its pairs stand")
    pairs_option(found, second)
    found.add_argument("--form", action=Pairs, default={}, metavar="LAYER=FORM", help=f"the form of a layer of {first}")
    said_values(found)
    found.add_argument("--skip", action="append", default=[], metavar="GLOB", help=skipped)
    found.add_argument("--only", action="append", default=[], metavar="GLOB", help=f"{verb} only these layers")
    ignore_key(found)
    keep_order(found, f"rows of these layers stay in the order of {first} (channels last), or of all layers")
    _common(found)


def holding(found: ArgumentParser, first: str, second: str) -> None:
    """Add what the user may say of files that are not run: whose names they hold, and what a Keras file leaves open."""
    from layoutx.cli.options import config, input_shape

    found.add_argument("--from", dest="from_", default="", metavar="FRAMEWORK", help=f"whose names {first} holds")
    found.add_argument("--to", default="", metavar="FRAMEWORK", help=f"whose names {second} holds")
    config(found, f"{first} or {second}")
    input_shape(found)


def two_files(found: ArgumentParser, names: tuple[str, str], abouts: tuple[str, str], verb: str) -> None:
    """All of `diff` and `relate`, which join two files and run neither. abouts: what the two are."""
    found.add_argument("source", metavar=names[0], help=f"{abouts[0]}: {KINDS}")
    found.add_argument("target", metavar=names[1], help=abouts[1])
    joining(found, *names, verb)
    holding(found, *names)


def keywords(args: Namespace, same: tuple[str, ...] = SAME) -> dict[str, Any]:
    """What these arguments are in Python; same: those that have the same name there."""
    from layoutx.cli.commands import _config

    said = {name: getattr(args, name) for name in same if hasattr(args, name)}
    return {**said, "forms": args.form, "pairs": args.pair, "ignore_keys": args.ignore_key, "values": _config(args.set)}
