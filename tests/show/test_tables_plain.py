"""Tables without colours are laid out by hand: letter by letter what rich prints."""

from __future__ import annotations

import random

import pytest

from layoutx.show import tables
from layoutx.show.tables import Line, Note, Row, grid, row

WORDS = [
    *("kernel", "w_input.f", "a/b/c.d", "→", "×", "blocks.0.sub0.lin0.weight", "x" * 37, "é", "日本", "", "(h w c)"),
    *(" lead", "trail ", "a  b", "--form A=B", "v\u200bz", "-", "a-b-c-d-e-f-g", "one_very_long_word_without_any_end"),
]


def _lines(chance: random.Random, columns: int) -> list[Line]:
    def text(most: int) -> str:
        return " ".join(chance.choices(WORDS, k=chance.randint(0, most)))

    found: list[Line] = []
    for _ in range(chance.randint(0, 7)):
        if chance.random() < 0.2:
            found.append(Note(text(18), chance.choice([0, 2, 6]), "dim"))
        else:
            found.append(row(*("\n".join(text(3) for _ in range(chance.choice([1, 1, 2]))) for _ in range(columns))))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_plain_tables_are_what_rich_prints(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance, plain = random.Random(seed), 0
    by_hand = tables._plain
    for _ in range(60):
        columns, width = chance.randint(1, 5), chance.choice([60, 80, 99, 30])
        lines, head = _lines(chance, columns), chance.choice([[""] * columns, ["layer", *["kernel"] * (columns - 1)]])
        monkeypatch.setattr(tables, "_plain", by_hand)
        found = grid(head, lines, width)
        rows = [line for line in lines if isinstance(line, Row)]
        plain += by_hand(tables._sizes([row(*head), *rows], columns, width - 2), lines, width) is not None
        monkeypatch.setattr(tables, "_plain", lambda *_: None)
        assert found == grid(head, lines, width)
    assert plain > 5
