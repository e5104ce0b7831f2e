"""Text metadata for formats that have no place for it: one JSON object of strings."""

from __future__ import annotations

import json
from collections.abc import Mapping

KEY = "layoutx"
MEMBER = "layoutx.json"
SKIPPED, TIED = "checkpoint:skipped", "checkpoint:tied"  # what readers leave in the metadata for those who name layers


def skipped_of(metadata: Mapping[str, str]) -> dict[str, str]:
    """What a checkpoint holds beside weights: name -> the reason why it is left out."""
    return from_text(metadata.get(SKIPPED, "{}"))


def tied_names(metadata: Mapping[str, str]) -> dict[str, str]:
    """Name -> the name to use of the same tensor, as a checkpoint says that keeps tensors by their storage."""
    lines = (line.split("\t") for line in metadata.get(TIED, "").splitlines())
    return {line[0]: line[1] for line in lines if len(line) == 2}


def to_text(metadata: Mapping[str, str]) -> str:
    """The metadata as one line of ASCII JSON."""
    return json.dumps(dict(metadata))


def from_text(text: str | bytes) -> dict[str, str]:
    """The metadata of a text; empty where the text is somebody else's."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, str)}
