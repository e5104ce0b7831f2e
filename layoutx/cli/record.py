"""`layoutx record`: one run of a model, with all its layers' inputs and outputs, into a safetensors file."""

from __future__ import annotations

from argparse import Namespace
from typing import Any


def add(several: Any) -> None:
    """Its parser."""
    from layoutx.cli.options import _command, _common

    about = "run a model and keep every layer's inputs and outputs, to compare them elsewhere"
    found = _command(several, "record", about, "layoutx record digits.keras -o acts.safetensors", run)
    found.add_argument("model", metavar="MODEL", help=".keras, .h5, .onnx, .pt2, folder, or package.module:callable")
    found.add_argument("-o", "--output", required=True, metavar="OUT", help="the safetensors file to write")
    found.add_argument("--inputs", metavar="FILE", help=".npy, .npz or .safetensors; else random ones, if MODEL says")
    found.add_argument("--own-dtype", action="store_true", help="compute in the model's own dtype, not in float64")
    _common(found)


def run(args: Namespace) -> int:
    """Run and write."""
    from layoutx.cli.commands import _print, _terminal
    from layoutx.record import record
    from layoutx.show.recording_text import recording_dict, recording_text

    found = record(args.model, args.inputs, path=args.output, double=not args.own_dtype)
    about = recording_dict(found, args.output)
    _print(args, about if args.json else recording_text(found, args.output, *_terminal()))
    return 0
