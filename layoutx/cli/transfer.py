"""`layoutx transfer SRC [SRC ...] TARGET -o OUT`: copy chosen layers into a model that keeps the rest of its own."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from layoutx.cli.joining import holding, joining, keywords
from layoutx.errors import UsageError

ABOUT = "copy chosen layers of one model or several into another, which keeps the rest"
EXAMPLE = (
    "layoutx transfer digits.keras new.safetensors -o start.safetensors --skip output\n"
    "  layoutx transfer 'encoder.*=a.h5' 'head.*=b.safetensors' whole.safetensors -o joined.safetensors"
)


def add(several: Any) -> None:
    """Its parser."""
    from layoutx.cli.options import _command, consent

    found = _command(several, "transfer", ABOUT, EXAMPLE, run)
    found.add_argument(
        "source",
        metavar="SRC",
        nargs="+",
        help="a file of any kind, or package.module:callable; PATTERN=SRC: for these layers of the target only",
    )
    found.add_argument(
        "target", metavar="TARGET", help="the file to start from (it stays as it is), or package.module:callable"
    )
    found.add_argument("-o", "--output", metavar="OUT", help="the file to write, of the target's format")
    joining(found, "SRC", "TARGET", "copy", "these keep the target's numbers")
    holding(found, "SRC", "TARGET")
    consent(found)
    found.add_argument("--materialise", action="store_true", help="compute what SRC stores in parts (weight_norm)")
    found.add_argument("--no-live", action="store_true", help="prove with NumPy even where the framework is installed")


def run(args: Namespace) -> int:
    """Transfer and save; nothing is written where anything is wrong."""
    from layoutx.cli.commands import _print, _terminal
    from layoutx.ported import built, check_output, saved
    from layoutx.transfer import transfer

    file = Path(args.target).exists()
    target = args.target if file else built(args.target, True)
    if not file:
        check_output(args.output, target, *(text.rpartition("=")[2] for text in args.source))
    found = transfer(
        _sources(args.source),
        target,
        args.output if file else None,
        allow=args.allow,
        materialise=args.materialise,
        live=not args.no_live,
        **keywords(args),
    )
    if not file:
        found = saved(target, args.output, found)
    _print(args, found.to_dict() if args.json else found.text(*_terminal()))
    return 0


def _sources(given: list[str]) -> Any:
    """One source, a list of them, or patterns of the target's layers with a source each.

    Raises:
        UsageError: patterns before some sources and not before others, or one twice.
    """
    split = [("", "", text) if Path(text).exists() or "=" not in text else text.partition("=") for text in given]
    places = [pattern for pattern, _, _ in split]
    if not any(places):
        return given if len(given) > 1 else given[0]
    if not all(places) or len(set(places)) < len(places):
        raise UsageError(
            "every source needs a pattern of its own, or none has one",
            where=given,
            do="write 'encoder.*=a.h5' 'head.*=b.safetensors'",
        )
    return {pattern: text for pattern, _, text in split}
