"""The frame of a page: its style and its few lines of script stand in it, and it fetches nothing."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from layoutx.errors import UsageError
from layoutx.frozen import frozen
from layoutx.page.html import Html, joined, tag
from layoutx.show.svg import STYLE
from layoutx.version import VERSION


@frozen
class Section:
    """A part of the page with a heading; `key` is what links call it."""

    key: str
    title: str
    body: Html


def check_page(path: Path) -> None:
    """Refuse a place where no page can go, or where something else than a page may stand.

    Raises:
        UsageError: it does not end in .html.
    """
    from layoutx.files.atomic import check_place

    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(
            f"{path.name or path} is no name of a page",
            where=str(path),
            why="a page is one HTML file, and would take the place of what is there",
            do="end it with .html",
        )
    check_place(path)


def document(title: str, answer: Sequence[Html], sections: Sequence[Section], tree: Html | None = None) -> str:
    """The whole page as text.

    Args:
        title: of the page and the window. answer: the first lines, what a reader came for.
        sections: in reading order. tree: the folding model tree of the side column.
    """
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width,initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", Html(_asset("page.css") + STYLE)),
    )
    links = [tag("a", section.title, href=f"#{section.key}") for section in sections]
    search = tag(
        "label",
        "Search layers and tensors ",
        tag("input", type="search", id="search", placeholder="press /", autocomplete="off"),
    )
    side = tag("aside", tag("nav", links), search, tag("p", id="found", class_="dim", role="status"), tree)
    parts = [tag("section", tag("h2", s.title), s.body, id=s.key) for s in sections]
    foot = tag("footer", f"made by layoutx {VERSION}; this file is all there is: it loads nothing")
    main = tag("main", tag("header", tag("h1", title), tag("div", answer, class_="answer")), parts, foot)
    body = tag("body", side, main, tag("script", Html(_asset("page.js"))))
    return "<!doctype html>\n" + joined([tag("html", head, body, lang="en")])


def _asset(name: str) -> str:
    return files("layoutx.page").joinpath(name).read_text(encoding="utf-8")
