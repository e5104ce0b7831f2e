"""`layoutx diagnose A B`: which known mistake explains why two models differ."""

from __future__ import annotations

import sys
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
    from layoutx.diagnose import diagnose

    progress = _progress if sys.stderr.isatty() and not args.json else None
    found = diagnose(args.source, args.target, args.inputs, progress=progress, **keywords(args))
    _print(args, found.to_dict() if args.json else found.text(*_terminal()))
    return 0 if found.ok else 1


def _progress(tried: int, many: int, what: str) -> None:
    end = "\n" if many and tried >= many else ""
    print(f"\r{tried} of {many} tried: {what[:60]:60}", end=end, file=sys.stderr, flush=True)
