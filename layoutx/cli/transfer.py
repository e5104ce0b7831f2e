"""`layoutx transfer SRC [SRC ...] TARGET -o OUT`: copy chosen layers into a model that keeps the rest of its own."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from layoutx.errors import UsageError

ABOUT = "copy chosen layers of one model or several into another, which keeps the rest"
EXAMPLE = (
    "layoutx transfer digits.keras new.safetensors -o start.safetensors --skip output\n"
    "  layoutx transfer 'encoder.*=a.h5' 'head.*=b.safetensors' whole.safetensors -o joined.safetensors"
)


def add(several: Any) -> None:
    """Its parser."""
    from layoutx.cli.options import Pairs, _command, _common, keep_order, pairs_option, said_values

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
    found.add_argument("--only", action="append", default=[], metavar="GLOB", help="copy only these layers")
    found.add_argument("--skip", action="append", default=[], metavar="GLOB", help="these keep the target's numbers")
    pairs_option(found, "TARGET")
    found.add_argument("--map", metavar="FILE", help="the pairing, as `layoutx match` wrote it")
    found.add_argument("--form", action=Pairs, default={}, metavar="LAYER=FORM", help="the form of a layer of SRC")
    found.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="WHAT",
        help="accept what is not reversible (rounds, conditional)",
    )
    keep_order(found)
    found.add_argument("--from", dest="from_", default="", metavar="FRAMEWORK", help="whose names SRC holds")
    found.add_argument("--to", default="", metavar="FRAMEWORK", help="whose names TARGET holds")
    said_values(found)
    found.add_argument("--no-live", action="store_true", help="prove with NumPy even where the framework is installed")
    _common(found)


def run(args: Namespace) -> int:
    """Transfer and save; nothing is written where anything is wrong."""
    from layoutx.cli.commands import _config, _print, _terminal
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
        only=args.only,
        skip=args.skip,
        pairs=args.pair,
        map=args.map,
        forms=args.form,
        values=_config(args.set),
        allow=args.allow,
        keep_order=args.keep_order,
        specs=args.specs,
        live=not args.no_live,
        from_=args.from_,
        to=args.to,
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
