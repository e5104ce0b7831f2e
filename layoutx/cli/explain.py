"""`layoutx explain MODEL [LAYER]`: what the arrays of a layer are, why they lie so, and how they compute."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from layoutx.errors import UsageError

ABOUT = "explain a layer's arrays: what each number is, why it lies there, where its inputs come from"
EXAMPLE = "layoutx explain model.h5 lstm_1 --part w_input.f"


def add(several: Any) -> None:
    """Its parser."""
    from layoutx.cli.options import Pairs, _command, _common, _forms, _from

    found = _command(several, "explain", ABOUT, EXAMPLE, run)
    found.add_argument("model", metavar="MODEL_OR_FORM", help="a file, package.module:callable, or a form: keras.Dense")
    found.add_argument("layer", nargs="?", default="", metavar="LAYER", help="one layer; without it the whole model")
    found.add_argument("--part", default="", metavar="PART", help="w_input.f, bias.f, w_query[head=2], kernel[out=5]")
    found.add_argument("--axis", default="", metavar="AXIS", help="follow an axis back to what made it: input")
    found.add_argument("--to", default="", metavar="FRAMEWORK", help="beside which framework or form: torch, onnx.Gemm")
    found.add_argument("--element", default="", metavar="0,3,2", help="one output element by hand, term by term")
    found.add_argument("--inputs", default="", metavar="X.npy", help="the layer's input for --element (.npy, .npz)")
    found.add_argument("--size", action=Pairs, default={}, metavar="AXIS=N", help="of a form: the length of an axis")
    found.add_argument("--shape", action=Pairs, default={}, metavar="TENSOR=2000,32", help="of a form: a stored shape")
    found.add_argument("--config", action=Pairs, default={}, metavar="KEY=VALUE", help="of a form: its config")
    found.add_argument("--markdown", action="store_true", help="print Markdown")
    found.add_argument("--svg", metavar="FILE", help="write the picture as well")
    _from(found)
    _forms(found)
    _common(found)


def run(args: Namespace) -> int:
    """Explain."""
    from pathlib import Path

    from layoutx.cli.commands import _config, _print, _size, _terminal
    from layoutx.cli.options import _shape
    from layoutx.explain import explain, read_inputs
    from layoutx.files.atomic import replacing

    if args.svg and not args.svg.endswith(".svg"):
        raise UsageError(f"{args.svg} is no name of a picture", do="end it with .svg")
    found = explain(
        args.model,
        args.layer,
        part=args.part,
        axis=args.axis,
        to=args.to,
        element=_shape(args.element) if args.element else None,
        x=read_inputs(args.inputs) if args.inputs else None,
        sizes={axis: _size(axis, value) for axis, value in args.size.items()},
        shapes={name: _shape(text) for name, text in args.shape.items()},
        config=_config(args.config),
        forms=args.form,
        specs=args.specs,
        input_shape=args.input_shape,
        from_=args.from_,
        values=_config(args.set),
    )
    if args.svg:
        if found.picture is None:
            raise UsageError("there is no picture of this", why="one layer with weights has one", do="leave --svg out")
        with replacing(Path(args.svg)) as path:
            path.write_text(found.svg(), encoding="utf-8")
    if args.json:
        _print(args, found.to_dict())
    else:
        _print(args, found.markdown().rstrip() if args.markdown else found.text(*_terminal()))
    return 0
