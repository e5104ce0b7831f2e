"""What each command does: call one function of layoutx and print what it gives."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from layoutx.cli import engine
from layoutx.errors import UsageError

WIDEST = 99
NARROWEST = 60


def inspect(args: Namespace) -> int:
    """`layoutx inspect FILE`."""
    from layoutx.inspect import inspect as look

    view = look(
        args.file,
        forms=args.form,
        specs=args.specs,
        input_shape=args.input_shape,
        from_=args.from_,
        values=_config(args.set),
    )
    shown = view.stats() if args.stats else view
    _print(args, shown.to_dict() if args.json else shown.text(*_terminal()))
    return 0


def convert(args: Namespace) -> int:
    """`layoutx convert SOURCE -o OUT --to FRAMEWORK`."""
    from layoutx.convert import convert as run

    if args.output is None and not args.dry_run:
        raise UsageError("there is no output", do="name it with -o OUT, or use --dry-run to write nothing")
    from layoutx.cli.report import check as check_page
    from layoutx.cli.report import written

    check_page(args)
    with engine.executor(args) as executor:
        report = run(
            args.source,
            args.output,
            to=args.to,
            like=args.like,
            config=args.config,
            allow=args.allow,
            skip=args.skip,
            only=args.only,
            forms=args.form,
            pairs=args.pair,
            map=args.map,
            ignore_keys=args.ignore_key,
            keep_order=args.keep_order,
            input_shape=args.input_shape,
            specs=args.specs,
            live=not args.no_live,
            from_=args.from_,
            materialise=args.materialise,
            values=_config(args.set),
            verify=args.verify,
            jobs=args.jobs,
            dtype=args.dtype,
            max_shard_size=args.max_shard_size,
            resume=args.resume,
            executor=executor,
            checksum="sha256" if args.sha256 else "",
            dry_run=args.dry_run,
        )
    written(args, report, args.source)
    if not args.quiet:
        _print(args, report.to_dict() if args.json else report.text(*_terminal()))
    return 0


def plan(args: Namespace) -> int:
    """`layoutx plan SOURCE_FORM TARGET_FORM`."""
    from layoutx.api import plan as make

    found = make(
        args.source,
        args.target,
        sizes={axis: _size(axis, value) for axis, value in args.size.items()},
        config=_config(args.config),
        target_config=_config(args.target_config),
        specs=args.specs,
    )
    if args.json:
        from layoutx.api import plan_dict

        _print(args, {**plan_dict(found), **({"code": found.code()} if args.code else {})})
    else:
        _print(args, f"{found}\n\n{found.code().rstrip()}" if args.code else str(found))
    return 0


def specs(args: Namespace) -> int:
    """`layoutx specs`."""
    from layoutx.show.specs import kinds_dict, kinds_text
    from layoutx.spec.registry import registry

    known = registry(tuple(args.specs))
    _print(args, kinds_dict(known) if args.json else kinds_text(known, *_terminal()))
    return 0


def show_kind(args: Namespace) -> int:
    """`layoutx specs show KIND`, or one form."""
    from layoutx.show.specs import form_text, kind_dict, kind_of, kind_text
    from layoutx.spec.registry import registry

    kind = kind_of(registry(tuple(args.specs)), args.kind)
    if args.json:
        _print(args, kind_dict(kind))
    elif args.kind in kind.forms:
        _print(args, form_text(kind, kind.forms[args.kind], *_terminal()))
    else:
        _print(args, kind_text(kind, *_terminal()))
    return 0


def check(args: Namespace) -> int:
    """`layoutx specs check [DIR ...]`: 1 where a spec has a problem."""
    from layoutx.show.specs import checked_text
    from layoutx.spec.check import check_registry
    from layoutx.spec.registry import registry

    known = registry((*args.specs, *args.folders))
    problems = check_registry(known)
    found = {"kinds": len(known.kinds), "forms": len(known.forms), "problems": [str(p) for p in problems]}
    _print(args, found if args.json else checked_text(known, list(problems)))
    return 1 if problems else 0


def _print(args: Namespace, result: Mapping[str, Any] | str) -> None:
    from layoutx.show.errors import json_text
    from layoutx.show.progress import closed
    from layoutx.show.tables import screened

    closed()
    print(screened(result) if isinstance(result, str) else json_text(result))


def _terminal() -> tuple[int, bool]:
    """The width to print in and whether colours help; NO_COLOR and pipes have none."""
    import os
    import shutil

    width = min(max(shutil.get_terminal_size((WIDEST, 24)).columns, NARROWEST), WIDEST)
    dumb = os.environ.get("TERM", "") == "dumb" or bool(os.environ.get("NO_COLOR"))
    return width, sys.stdout.isatty() and not dumb


def _size(axis: str, value: str) -> int:
    if not value.isascii() or not value.isdigit():
        raise UsageError(f"--size {axis}={value} is no whole number of at least 0", do=f"write --size {axis}=7")
    return int(value)


def _config(pairs: Mapping[str, str]) -> dict[str, Any]:
    """Values as they would stand in a config: true, 3, 0.5, null and [1, 2] are no texts."""
    return {key: _value(value) for key, value in pairs.items()}


def _value(text: str) -> Any:
    import json

    words: dict[str, Any] = {"True": True, "False": False, "None": None}
    if text in words:
        return words[text]
    try:
        return json.loads(text)
    except ValueError:
        return text
