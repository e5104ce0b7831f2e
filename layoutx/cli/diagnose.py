"""`layoutx diagnose A B`: which known mistake explains why two models differ."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from layoutx.cli.validate import keywords, two_models

ABOUT = "explain why two models differ: try the known mistakes"
EXAMPLE = "layoutx diagnose model.h5 mypkg.models:Tagger --inputs batch.npz"


def add(several: Any) -> None:
    """Its parser."""
    from layoutx.cli.options import _command

    two_models(_command(several, "diagnose", ABOUT, EXAMPLE, run), "the model that differs")


def run(args: Namespace) -> int:
    """Explain; 0 where there is nothing to explain."""
    from layoutx.cli.commands import _print, _terminal
    from layoutx.cli.report import check, written
    from layoutx.diagnose import diagnose

    check(args)
    found = diagnose(args.source, args.target, args.inputs, **keywords(args))
    written(args, found, args.source)
    _print(args, found.to_dict() if args.json else found.text(*_terminal()))
    return 0 if found.ok else 1
