"""HTML as nested calls: text is escaped where it enters, so that a layer called `<script>` stays a name."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from html import escape
from typing import Any


class Html(str):
    """Text that is markup already; every other text is escaped."""

    __slots__ = ()


Child = Any  # a text, markup, None, or any number of these, nested
EMPTY = ("br", "img", "input", "meta", "link", "hr", "wbr")
_HIDDEN = re.compile(
    "[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
MOST = 4000


def tag(name: str, /, *children: Child, **attributes: object) -> Html:
    """`<name attributes>children</name>`.

    Args:
        children: texts, markup, or any number of these; None is nothing.
        attributes: `class_` for class, `data_name` for data-name; True stands alone, None and False are left out.
    """
    said = "".join(
        _attribute(key, value) for key, value in attributes.items() if value is not None and value is not False
    )
    if name in EMPTY:
        return Html(f"<{name}{said}>")
    return Html(f"<{name}{said}>{''.join(_child(child) for child in children)}</{name}>")


def joined(parts: Iterable[str], between: str = "") -> Html:
    """Parts one after the other."""
    return Html(_child(between).join(_child(part) for part in parts))


def plain(text: object) -> str:
    """A text without control and bidirectional characters, cut where it is very long; not yet escaped."""
    shown = _HIDDEN.sub("\N{REPLACEMENT CHARACTER}", unicodedata.normalize("NFC", str(text)))
    shown = shown.encode("utf-8", "replace").decode()
    return shown if len(shown) <= MOST else shown[:MOST] + "…"


def _child(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return str(child)
    return escape(plain(child)) if isinstance(child, str) else "".join(map(_child, child))


def _attribute(key: str, value: object) -> str:
    name = key.rstrip("_").replace("_", "-")
    text = value if isinstance(value, Html) else plain(value)
    return f" {name}" if value is True else f' {name}="{escape(text)}"'
