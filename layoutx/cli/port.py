"""`layoutx port SRC DST -o OUT`: load the weights into a live model that is built for it, verify, save them."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

ABOUT = "load weights into a model that package.module:callable builds, verify and save"
EXAMPLE = "layoutx port digits.keras mypkg.models:Digits -o digits.safetensors"


def add(several: Any) -> None:
    """Its parser."""
    from layoutx.cli.options import Pairs, _command, _common, config, consent, pairs_option, said, said_values
    from layoutx.cli.report import option as page_option

    found = _command(several, "port", ABOUT, EXAMPLE, run)
    found.add_argument("source", metavar="SRC", help="a file of any kind, or package.module:callable")
    found.add_argument("target", metavar="DST", help="package.module:callable that builds a torch or Keras model")
    found.add_argument(
        "-o", "--output", metavar="OUT", help=".safetensors or .pt (torch); .keras or .weights.h5 (Keras)"
    )
    found.add_argument("--map", metavar="FILE", help="the pairing, as `layoutx match` wrote it")
    found.add_argument(
        "--inputs", metavar="FILE", help=".npy, .npz or .safetensors to run both models on, in SRC's axis order"
    )
    pairs_option(found, "DST")
    found.add_argument("--form", action=Pairs, default={}, metavar="LAYER=FORM", help="the form of a layer of SRC")
    found.add_argument("--skip", action="append", default=[], metavar="GLOB", help="leave these layers out")
    found.add_argument("--only", action="append", default=[], metavar="GLOB", help="port only these layers")
    consent(found)
    found.add_argument("--from", dest="from_", default="", metavar="FRAMEWORK", help="whose names SRC holds")
    config(found, "SRC")
    said_values(found)
    said(found)
    found.add_argument("--no-compare", action="store_true", help="do not run the two models")
    found.add_argument(
        "--verify",
        default="auto",
        choices=("auto", "layers", "bytes", "none"),
        help="compute every layer on both sides, compare bytes only, or nothing (auto: layers, but for large models)",
    )
    page_option(found)
    _common(found)


def run(args: Namespace) -> int:
    """Port and save; nothing is written where anything is wrong."""
    from layoutx.cli.commands import _config, _print, _terminal
    from layoutx.cli.report import check, written
    from layoutx.port import port
    from layoutx.ported import built, check_output, saved

    source, target = built(args.source, False), built(args.target, True)
    check_output(args.output, target, source)
    check(args)
    report = port(
        source,
        target,
        args.inputs,
        map=args.map,
        pairs=args.pair,
        forms=args.form,
        skip=args.skip,
        only=args.only,
        allow=args.allow,
        ignore_keys=args.ignore_key,
        keep_order=args.keep_order,
        materialise=args.materialise,
        live=not args.no_live,
        specs=args.specs,
        from_=args.from_,
        compare=not args.no_compare,
        verify=args.verify,
        values=_config(args.set),
        config=args.config,
    )
    report = saved(target, args.output, report)
    written(args, report, source)
    _print(args, report.to_dict() if args.json else report.text(*_terminal()))
    return 0
