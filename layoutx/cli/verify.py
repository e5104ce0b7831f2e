"""`layoutx verify FILE [--source SRC]`: compare a written file with the hashes in its certificate, and its source."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

ABOUT = "check a converted file again: every tensor against its hash, and against the source"
EXAMPLE = "layoutx verify digits.safetensors --source digits.keras"


def add(several: Any) -> None:
    """Its parser."""
    from layoutx.cli.options import _command, _common

    found = _command(several, "verify", ABOUT, EXAMPLE, run)
    found.add_argument("file", metavar="FILE", help="what layoutx wrote: a file, an index of shards, a folder")
    found.add_argument(
        "--source", metavar="SRC", help="what it was made from: compared too, and converted again without writing"
    )
    found.add_argument("--to", default="", metavar="FRAMEWORK", help="whose names FILE holds, if it does not say")
    found.add_argument("--config", metavar="CONFIG", help="the model's config, if the conversion was given one")
    found.add_argument("--jobs", type=int, metavar="N", help="threads; one for each core, up to 8, if not given")
    _common(found)


def run(args: Namespace) -> int:
    """Check; 1 where anything differs."""
    from layoutx.cli.commands import _print, _terminal
    from layoutx.verified import verify_file

    found = verify_file(args.file, args.source, to=args.to, config=args.config, specs=args.specs, jobs=args.jobs)
    _print(args, found.to_dict() if args.json else found.text(*_terminal()))
    return 0 if found.ok else 1
