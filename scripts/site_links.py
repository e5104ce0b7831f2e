"""A hook of mkdocs: links that leave docs/ name the file in the repository instead, for the site has no such page."""

from __future__ import annotations

import re
from typing import Any

OUTSIDE = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+(?!kinds/|matrix/|questions/|guides/)[\w./-]+)\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page with such links as plain words."""
    depth = page.file.src_uri.count("/")

    def plain(match: re.Match[str]) -> str:
        text, target = match.groups()
        up = target.count("../")
        return match[0] if up <= depth else f"{text} (`{target.replace('../', '')}` in the repository)"

    return OUTSIDE.sub(plain, markdown)
