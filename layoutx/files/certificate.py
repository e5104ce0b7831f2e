"""What a converted file says about itself: from what it was made, how exactly, and what was measured."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layoutx.errors import ConversionError, UsageError
from layoutx.files.remote import is_file, opened, size_of
from layoutx.files.store import Store

KEY = "layoutx"
RECORDING = "layoutx.recording"  # the same of a recording, which holds no weights
CHUNK = 1 << 22
SMALL = 64 << 20  # bytes of a source that is always read for its SHA-256


def certificate_of(store: Store) -> dict[str, Any] | None:
    """The certificate in a file's metadata, if it has one that can be read."""
    text = store.metadata.get(KEY)
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def to_metadata(certificate: Mapping[str, Any]) -> dict[str, str]:
    """The certificate as a file's text metadata; the same conversion gives the same text."""
    return {KEY: json.dumps(certificate, sort_keys=True, separators=(",", ":"), allow_nan=False)}


def refuse_twice(store: Store, to: str) -> None:
    """Refuse to convert a file that layoutx already made for this framework.

    Raises:
        ConversionError: with what the certificate says.
    """
    found = certificate_of(store)
    if found is not None and found.get("target") == to:
        made = (
            f"from {found.get('source', {}).get('file', 'another file')} ({found.get('source', {}).get('framework')})"
        )
        raise ConversionError(
            f"{store.path.name} already holds {to} weights, made by layoutx {made}",
            why="converting it again would permute its numbers a second time",
            do="convert the original file instead; `layoutx inspect` shows what this one is",
        )


def digest_of(path: Path, checksum: str) -> dict[str, str]:
    """The SHA-256 of a source file: reading 2 GB for it takes longer than converting them, so only on request.

    Raises:
        UsageError: another checksum.
    """
    if checksum not in ("", "sha256"):
        raise UsageError(f"there is no checksum {checksum!r}", do="sha256")
    wanted = is_file(path) and (bool(checksum) or size_of(path) <= SMALL)
    return {"sha256": sha256(path)} if wanted else {}


def sha256(path: Path) -> str:
    """The SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with opened(path) as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
    return digest.hexdigest()
