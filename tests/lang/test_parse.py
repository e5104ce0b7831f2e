"""Reading and printing layouts: the tree, the canonical text, and a caret under whatever is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layoutx.errors import LayoutSyntaxError
from layoutx.lang.parse import parse, parse_dims
from layoutx.lang.show import show, show_dims
from layoutx.lang.tree import Axis, Head, Layout, Option, Product, Spread, Sum, Unit, roles_of, walk


@pytest.mark.parametrize(
    ("text", "head", "dims"),
    [
        ("kernel: input output", Head("kernel"), (Axis("input"), Axis("output"))),
        ("count:", Head("count"), ()),
        ("-w.f.x: -a", Head("w", ("f", "x"), True), (Axis("a", True),)),
        ("w: (gate[i f] a)", Head("w"), (Product((Sum("gate", (Option("i"), Option("f"))), Axis("a"))),)),
        ("w: ... -...", Head("w"), (Spread(), Spread(True))),
        ("w: 1 1... 1 ...", Head("w"), (Unit(), Unit(True), Unit(), Spread())),
        ("({b | c} a)", None, (Product((Sum(None, (Option("b"), Option("c"))), Axis("a"))),)),
        (
            "w: n{a: (h w) | b: k}",
            Head("w"),
            (Sum("n", (Option("a", (Product((Axis("h"), Axis("w"))),)), Option("b", (Axis("k"),)))),),
        ),
        (
            "(kv {q: rep | k | v} head) e",
            None,
            (
                Product((Axis("kv"), Sum(None, (Option("q", (Axis("rep"),)), Option("k"), Option("v"))), Axis("head"))),
                Axis("e"),
            ),
        ),
    ],
)
def test_trees(text: str, head: Head | None, dims: tuple) -> None:
    assert parse(text) == Layout(head, dims)


def test_spans_point_into_the_text() -> None:
    text = "w: (gate[i f] hidden) input"
    layout = parse(text)
    assert [text[slice(*node.span)] for node in walk(layout.dims)] == [
        "(gate[i f] hidden)",
        "gate[i f]",
        "hidden",
        "input",
    ]
    assert layout.text == text


@pytest.mark.parametrize(
    ("text", "roles"),
    [("w: a", ("w",)), ("({b | c} a)", ("b", "c")), ("x[p q] {b: {c | d}}", ("b", "c", "d"))],
)
def test_roles(text: str, roles: tuple[str, ...]) -> None:
    assert roles_of(parse(text)) == roles


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("w_input :input ( gate[i f]hidden)", "w_input: input (gate[i f] hidden)"),
        ("  w:a  b ", "w: a b"),
        ("-w . f:a", "-w.f: a"),
        ("count :", "count:"),
        ("w: gate{i: | f:} a", "w: gate[i f] a"),
        ("{a|b:x}", "{a | b: x}"),
        ("w: n{a:h w|b:k}", "w: n{a: h w | b: k}"),
        ("w: n{a: | b:k}", "w: n{a: | b: k}"),
        ("w: 1 ... 1...", "w: 1 ... 1..."),
    ],
)
def test_canonical_text(text: str, shown: str) -> None:
    assert show(parse(text)) == shown
    assert parse(shown) == parse(text)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("k: (a b", ["'(' is not closed", "  k: (a b", "     ^"]),
        ("k: (a]", ["expected an axis, `1`, `...` or a bracket, found ']'", "  k: (a]", "       ^"]),
        ("k: g[i f", ["expected a label, found the end", "  k: g[i f", "          ^"]),
        ("k: g[i 2]", ["expected a label, found '2'", "  k: g[i 2]", "         ^"]),
        ("k: g[]", ["no labels between the brackets", "  k: g[]", "      ^", "  write the stored order, g[...]"]),
        (
            "k: 2 a",
            [
                "the only number in a layout is 1",
                "  k: 2 a",
                "     ^",
                "  name the axis; sizes come from shapes and configs",
            ],
        ),
        (
            "k: a @",
            ["'@' means nothing in a layout", "  k: a @", "       ^", "  see the layout language in docs/design.md"],
        ),
        (
            "a b",
            [
                "a layout starts with its role",
                "  a b",
                "  ^",
                "  write `role: dims`, or braces `{role | role}` among the dims",
            ],
        ),
        (
            "",
            ["a layout starts with its role", "  ^", "  write `role: dims`, or braces `{role | role}` among the dims"],
        ),
        (
            "k: -(a)",
            [
                "a minus stands before an axis or `...`",
                "  k: -(a)",
                "      ^",
                "  only those can be stored back to front",
            ],
        ),
        (
            "k: -g[i]",
            [
                "an enumerated axis is not reversed by a minus",
                "  k: -g[i]",
                "     ^",
                "  write its labels in the stored order",
            ],
        ),
        ("k: g[i i]", ["'i' stands twice in one bracket", "  k: g[i i]", "         ^"]),
        ("{a | a}", ["'a' stands twice in one bracket", "  {a | a}", "       ^"]),
        ("k: a)", ["expected an axis, `1`, `...` or a bracket, found ')'", "  k: a)", "      ^"]),
        (
            "k: n{a b}",
            ["expected ':' after the label 'a'", "  k: n{a b}", "         ^", "  a piece of an axis is `label: dims`"],
        ),
        ("k: g [a b]", ["expected an axis, `1`, `...` or a bracket, found '['", "  k: g [a b]", "       ^"]),
        ("{a b}", ["'{' is closed by 'b'", "  {a b}", "  ^"]),
        ("k: a: b", ["expected an axis, `1`, `...` or a bracket, found ':'", "  k: a: b", "      ^"]),
    ],
)
def test_errors_show_a_caret(text: str, lines: list[str]) -> None:
    with pytest.raises(LayoutSyntaxError) as caught:
        parse(text)
    assert str(caught.value).splitlines() == lines


NAMES = st.sampled_from(["a", "b", "hidden", "kh", "w_input", "x1"])
LABELS = st.lists(st.sampled_from(["i", "f", "g", "o"]), min_size=1, max_size=4, unique=True)
LEAVES = st.one_of(
    st.builds(Axis, NAMES, st.booleans()),
    st.builds(Unit, st.booleans()),
    st.builds(Spread, st.booleans()),
    st.builds(lambda axis, labels: Sum(axis, tuple(map(Option, labels))), NAMES, LABELS),
)


def nested(dims: st.SearchStrategy) -> st.SearchStrategy:
    several = st.lists(dims, max_size=3).map(tuple)
    option = st.lists(several, min_size=4, max_size=4)
    return st.one_of(
        st.builds(Product, several),
        st.builds(
            lambda axis, labels, dims: Sum(
                axis, tuple(Option(x, d, x in "fo") for x, d in zip(labels, dims, strict=False))
            ),
            st.one_of(st.none(), NAMES),
            LABELS,
            option,
        ),
    )


DIMS = st.lists(st.recursive(LEAVES, nested, max_leaves=8), max_size=4).map(tuple)


@settings(max_examples=300, derandomize=True)
@given(DIMS)
def test_printing_and_reading_are_inverse(dims: tuple) -> None:
    text = show_dims(dims)
    assert parse_dims(text) == dims
    assert show_dims(parse_dims(text)) == text
    layout = Layout(Head("w", ("f",), True), dims)
    assert parse(show(layout)) == layout


@settings(max_examples=300, derandomize=True)
@given(st.text("ab1.:-()[]{}| 2", max_size=16))
def test_any_text_is_read_or_refused_with_a_caret(text: str) -> None:
    try:
        layout = parse(text)
    except LayoutSyntaxError as error:
        shown, caret = error.where
        assert shown == text
        assert caret.strip() == "^"
        assert len(caret) <= len(text) + 1
    else:
        assert parse(show(layout)) == layout


@pytest.mark.parametrize("bracket", ["(", "{a: ", "n{a: "])
def test_brackets_are_not_nested_without_end(bracket: str) -> None:
    close = {"(": ")", "{a: ": "}", "n{a: ": "}"}[bracket]
    parse("w: " + bracket * 50 + close * 50)
    for text in (bracket * 51 + close * 51, bracket * 3000):
        with pytest.raises(LayoutSyntaxError, match="brackets are nested more than 50 deep") as caught:
            parse("w: " + text)
        assert caught.value.where[1] == " " * (3 + len((bracket * 51).rstrip()) + bracket.count(" ")) + "^"
