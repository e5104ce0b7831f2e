"""Text to tree. Every error shows the text with a caret under the character that is wrong."""

from __future__ import annotations

import re

from layoutx.errors import LayoutSyntaxError
from layoutx.frozen import frozen
from layoutx.lang.tree import Axis, Dim, Head, Layout, Option, Product, Spread, Sum, Unit, walk

_TOKEN = re.compile(r"\s*(?:(?P<dots>\.\.\.)|(?P<name>[A-Za-z_]\w*)|(?P<number>\d+)|(?P<mark>[-.:()\[\]{}|]))")
_CLOSING = {"(": ")", "[": "]", "{": "}"}
MOST_NESTED = 50


@frozen
class _Token:
    kind: str
    text: str
    start: int
    end: int


def parse(text: str) -> Layout:
    """Read a layout.

    >>> parse("kernel: input output").head.role
    'kernel'

    Raises:
        LayoutSyntaxError: with the text and a caret under the offending character.
    """
    reader = _Reader(text)
    head = reader.head()
    dims = reader.dims(until="")
    layout = Layout(head, dims, text)
    if head is None and not any(isinstance(d, Sum) and d.axis is None for d in walk(dims)):
        raise _error(
            text, 0, "a layout starts with its role", "write `role: dims`, or braces `{role | role}` among the dims"
        )
    return layout


def parse_dims(text: str) -> tuple[Dim, ...]:
    """Read dims without a head, as the axes of a role or the order of a layer's data.

    Raises:
        LayoutSyntaxError: with the text and a caret under the offending character.
    """
    return _Reader(text).dims(until="")


def _error(text: str, at: int, what: str, do: str = "") -> LayoutSyntaxError:
    return LayoutSyntaxError(what, where=(text, " " * at + "^"), do=do)


def _tokens(text: str) -> list[_Token]:
    tokens, at = [], 0
    end = len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            bad = at + len(text[at:]) - len(text[at:].lstrip())
            raise _error(
                text, bad, f"{text[bad]!r} means nothing in a layout", "see the layout language in docs/design.md"
            )
        kind = str(match.lastgroup)
        tokens.append(_Token(kind, match[kind], match.start(kind), match.end(kind)))
        at = match.end()
    return tokens


class _Reader:
    """A cursor over the tokens of one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = _tokens(text)
        self.at = 0
        self.nested = -1  # the dims of the whole text are 0 brackets deep

    def peek(self, ahead: int = 0) -> str:
        index = self.at + ahead
        return self.tokens[index].text if index < len(self.tokens) else ""

    def kind(self, ahead: int = 0) -> str:
        index = self.at + ahead
        return self.tokens[index].kind if index < len(self.tokens) else ""

    def here(self) -> int:
        return self.tokens[self.at].start if self.at < len(self.tokens) else len(self.text.rstrip())

    def found(self) -> str:
        return repr(self.peek()) if self.peek() else "the end"

    def next(self) -> _Token:
        token = self.tokens[self.at]
        self.at += 1
        return token

    def name(self, what: str) -> _Token:
        if self.kind() != "name":
            raise _error(self.text, self.here(), f"expected {what}, found {self.found()}")
        return self.next()

    def head(self) -> Head | None:
        """The head, if the text has one: a name (after an optional minus) that leads to a colon."""
        start = self.at
        negated = self.peek() == "-"
        look = 1 if negated else 0
        if self.kind(look) != "name":
            return None
        look += 1
        while self.peek(look) == "." and self.kind(look + 1) == "name":
            look += 2
        if self.peek(look) != ":":
            return None
        if negated:
            self.next()
        role = self.next()
        labels = []
        while self.peek() == ".":
            self.next()
            labels.append(self.next().text)
        end = self.next()
        return Head(role.text, tuple(labels), negated, (self.tokens[start].start, end.end))

    def dims(self, until: str) -> tuple[Dim, ...]:
        """Dims up to one of the marks in `until` (not consumed), or to the end of the text."""
        found: list[Dim] = []
        self.nested += 1
        if self.nested > MOST_NESTED:
            raise _error(self.text, self.here(), f"brackets are nested more than {MOST_NESTED} deep")
        while self.at < len(self.tokens) and self.peek() not in (until or "\0"):
            found.append(self.dim())
        self.nested -= 1
        return tuple(found)

    def dim(self) -> Dim:
        start = self.here()
        minus = self.peek() == "-"
        if minus:
            self.next()
        if self.kind() == "dots":
            return Spread(minus, (start, self.next().end))
        if self.kind() == "name":
            return self.axis(start, minus)
        if minus:
            raise _error(
                self.text,
                self.here(),
                "a minus stands before an axis or `...`",
                "only those can be stored back to front",
            )
        if self.kind() == "number":
            return self.unit(start)
        if self.peek() == "(":
            self.next()
            dims = self.dims(until=")")
            return Product(dims, (start, self.close("(", start)))
        if self.peek() == "{":
            return self.sum(start, None)
        raise _error(self.text, start, f"expected an axis, `1`, `...` or a bracket, found {self.found()}")

    def unit(self, start: int) -> Unit:
        token = self.next()
        if token.text != "1":
            raise _error(
                self.text,
                start,
                "the only number in a layout is 1",
                "name the axis; sizes come from shapes and configs",
            )
        if self.kind() == "dots" and self.here() == token.end:  # `1 ...` is a one, then the spatial axes
            return Unit(True, (start, self.next().end))
        return Unit(False, (start, token.end))

    def axis(self, start: int, minus: bool) -> Dim:
        token = self.next()
        if self.peek() not in ("[", "{") or self.here() != token.end:  # `kv {w_q | w_k}` is an axis and a sum
            return Axis(token.text, minus, (start, token.end))
        if minus:
            raise _error(
                self.text,
                start,
                "an enumerated axis is not reversed by a minus",
                "write its labels in the stored order",
            )
        if self.peek() == "{":
            return self.sum(start, token.text)
        opened = self.next().start
        options = []
        while self.peek() != "]":
            negated = self.minus()
            label = self.name("a label")
            options.append(Option(label.text, (), negated, (label.start, label.end)))
        if not options:
            raise _error(
                self.text, opened, "no labels between the brackets", f"write the stored order, {token.text}[...]"
            )
        node = Sum(token.text, tuple(options), (start, self.close("[", opened)))
        self.distinct(node)
        return node

    def sum(self, start: int, axis: str | None) -> Sum:
        opened = self.next().start
        options = []
        while True:
            negated = self.minus()
            label = self.name("a role" if axis is None else "a label")
            dims: tuple[Dim, ...] = ()
            if self.peek() == ":":
                self.next()
                dims = self.dims(until="|}")
            elif axis is not None:
                raise _error(
                    self.text,
                    self.here(),
                    f"expected ':' after the label {label.text!r}",
                    "a piece of an axis is `label: dims`",
                )
            options.append(Option(label.text, dims, negated, (label.start, label.end)))
            if self.peek() != "|":
                break
            self.next()
        node = Sum(axis, tuple(options), (start, self.close("{", opened)))
        self.distinct(node)
        return node

    def minus(self) -> bool:
        """Whether a minus stands here; it is consumed."""
        if self.peek() != "-":
            return False
        self.next()
        return True

    def distinct(self, node: Sum) -> None:
        seen: set[str] = set()
        for option in node.options:
            if option.label in seen:
                raise _error(self.text, option.span[0], f"{option.label!r} stands twice in one bracket")
            seen.add(option.label)

    def close(self, bracket: str, opened: int) -> int:
        if self.peek() != _CLOSING[bracket]:
            raise _error(
                self.text,
                opened,
                f"{bracket!r} is not closed" if not self.peek() else f"{bracket!r} is closed by {self.peek()!r}",
            )
        return self.next().end
