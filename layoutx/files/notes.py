"""Text metadata for formats that have no place for it: one JSON object of strings."""

from __future__ import annotations

import json
from collections.abc import Mapping

KEY = "layoutx"
MEMBER = "layoutx.json"


def to_text(metadata: Mapping[str, str]) -> str:
    """The metadata as one line of ASCII JSON."""
    return json.dumps(dict(metadata))


def from_text(text: str | bytes) -> dict[str, str]:
    """The metadata of a text; empty where the text is somebody else's."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, str)}
