"""Thousands of problems and of layers: one is shown for all that are alike, and none is lost where programs read."""

from __future__ import annotations

import json

from layoutx.errors import MOST_SHOWN, ConversionError, Problems, UsageError
from layoutx.show.errors import error_json, error_text


def _many(count: int) -> Problems:
    return Problems(
        [
            ConversionError("there is no form", where=f"layer blocks.{n}.fc\x1b[{n}", do=f"--form {n}")
            for n in range(count)
        ],
        f"{count} layers",
    )


def test_a_few_problems_are_all_shown() -> None:
    error = _many(MOST_SHOWN)
    assert str(error).count("there is no form") == MOST_SHOWN == error_text(error).count("there is no form")
    assert "more like it" not in str(error)


def test_many_that_differ_in_numbers_only_are_shown_as_one() -> None:
    error = Problems([*_many(90_000).problems, UsageError("and this")])
    text = error_text(error)
    assert len(text.split("\n")) < 12
    assert "blocks.0.fc" in text
    assert "89,999 more like it, the last: layer blocks.89999.fc\\x1b[89999" in text
    assert "\x1b" not in text
    assert "UsageError: and this" in text
    assert "89,999 more like it" in str(error)


def test_many_kinds_of_problems_are_cut() -> None:
    error = Problems([ConversionError("no " + "x" * n) for n in range(3 * MOST_SHOWN)])
    assert str(error).count("ConversionError") == MOST_SHOWN
    assert f"{2 * MOST_SHOWN} more problems, of {2 * MOST_SHOWN} other kinds" in str(error)


def test_json_holds_them_all() -> None:
    found = json.loads(error_json(_many(3 * MOST_SHOWN)))
    assert len(found["error"]["problems"]) == 3 * MOST_SHOWN
