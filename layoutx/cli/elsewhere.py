"""What an error says of options, as the command has them: whose those are that it has not."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from functools import cache

from layoutx.errors import LayoutxError, Problems
from layoutx.plan.offer import doing

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
CALL = re.compile(r"\blayoutx ([a-z]+)")


def fitting(error: LayoutxError, command: str) -> LayoutxError:
    """The error; where it names options that `command` has not, it says which commands have them."""
    from layoutx.cli.options import COMMANDS

    if command not in COMMANDS:
        return error
    if isinstance(error, Problems):
        return Problems([fitting(problem, command) for problem in error.problems], error.what)
    texts = (error.what, *error.where, error.why, error.do)
    if not any("--" in text for text in texts):
        return error
    known = options()
    missing = [name for text in texts for name in _named(text, known) if name not in known[command]]
    whose = [(name, [other for other in COMMANDS if name in known[other]]) for name in dict.fromkeys(missing)]
    said = [f"{name} is an option of layoutx {', '.join(names)}" for name, names in whose if names]
    return doing(error, "; ".join(filter(None, (error.do, *said)))) if said else error


@cache
def options() -> dict[str, set[str]]:
    """Command -> its options, those of inner commands too."""
    from layoutx.cli.options import parser

    return {name: {*_options(inner)} for name, inner in _inner(parser()).items()}


def _inner(of: ArgumentParser) -> dict[str, ArgumentParser]:
    return {
        name: inner
        for action in of._actions
        if isinstance(action.choices, dict)
        for name, inner in action.choices.items()
    }


def _options(of: ArgumentParser) -> list[str]:
    return [*of._option_string_actions, *(name for inner in _inner(of).values() for name in _options(inner))]


def _named(text: str, known: dict[str, set[str]]) -> list[str]:
    """The options that a text names, without those of a command that it names before them."""
    found = []
    for match in OPTION.finditer(text):
        calls = [call[1] for call in CALL.finditer(text, 0, match.start())]
        if not any(match[0] in known.get(call, ()) for call in calls):
            found.append(match[0])
    return found
