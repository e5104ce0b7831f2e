"""`layoutx report`: an inspection, a comparison or a history as one HTML file; other commands take --report FILE."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from layoutx.errors import UsageError, visible

ABOUT = "write one HTML page: what a model is made of, a history, or how two models compare"
EXAMPLE = "layoutx report model.keras -o model.html"
OF_TWO = ("map", "skip", "only", "keep_order")


def add(several: Any) -> None:
    """Its parser."""
    from layoutx.cli.joining import joining
    from layoutx.cli.options import _command, _from, input_shape

    found = _command(several, "report", ABOUT, EXAMPLE, run)
    found.add_argument("model", metavar="MODEL", help="a model's file, package.module:callable, or a history")
    found.add_argument("other", metavar="OTHER", nargs="?", help="compare with this model, and say why they differ")
    found.add_argument("-o", "--output", required=True, metavar="PAGE.html", help="the page to write")
    found.add_argument("--inputs", metavar="FILE", help="what both models are run on: .npy, .npz or .safetensors")
    _from(found)
    input_shape(found)
    joining(found, "MODEL", "OTHER", "compare")


def option(found: ArgumentParser) -> None:
    """`--report` of a command that has a result."""
    found.add_argument("--report", metavar="PAGE.html", help="write the result as one HTML page too")


def check(args: Namespace) -> None:
    """Refuse, before anything is computed, a page that cannot be written."""
    from pathlib import Path

    if args.report:
        from layoutx.page.document import check_page

        check_page(Path(args.report))


def written(args: Namespace, result: Any, model: Any) -> None:
    """Write the page of a result where one was asked for."""
    if args.report:
        from layoutx.page.write import report

        report(result, args.report, model=model, specs=args.specs)


def run(args: Namespace) -> int:
    """Write the page; 1 where two models differ."""
    from layoutx.page.write import report

    result, model = _result(args)
    path = report(result, args.output, model=model, specs=args.specs)
    if args.json:
        from layoutx.cli.commands import _print

        _print(args, {"page": str(path), "bytes": path.stat().st_size})
    else:
        print(f"{visible(str(path))}  {path.stat().st_size / 1e6:.2f} MB")
    return 0 if getattr(result, "ok", True) else 1


def _result(args: Namespace) -> tuple[Any, Any]:
    """What the page shows, and the model whose tensors it shows beside it."""
    from layoutx.cli.commands import _config

    if args.other is not None:
        from layoutx.cli.joining import keywords
        from layoutx.diagnose import diagnose

        return diagnose(args.model, args.other, args.inputs, **keywords(args, (*OF_TWO, "specs"))), args.model
    for name in ("inputs", "pair", "ignore_key", *OF_TWO):
        if getattr(args, name):
            option = name.replace("_", "-")
            raise UsageError(f"--{option} is for two models", do="name the other model after the first")
    from layoutx.history.frames import is_history
    from layoutx.history.reader import read

    if is_history(args.model):
        return read(args.model), None
    from layoutx.inspect import inspect
    from layoutx.ported import built

    said = {"forms": args.form, "specs": args.specs, "input_shape": args.input_shape, "values": _config(args.set)}
    return inspect(built(args.model, must=False), from_=args.from_, **said), None
