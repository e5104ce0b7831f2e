"""What a converted file says about itself: from what it was made, how exactly, and what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layoutx.errors import ConversionError, UsageError
from layoutx.files.blob import files_of, reading
from layoutx.files.hashes import SHA256
from layoutx.files.remote import is_file, opened, size_of, url_of
from layoutx.files.store import Store

KEY = "layoutx"
RECORDING = "layoutx.recording"  # the same of a recording, which holds no weights
CHUNK = 1 << 20
SMALL = 64 << 20  # bytes of a source that is always read for its SHA-256
LABEL = "format"  # of safetensors files: what transformers 4 refuses a file without, if that has any metadata at all
LABELS = {"pt": "torch", "mlx": "mlx", "flax": "flax"}


def certificate_of(store: Store) -> dict[str, Any] | None:
    """The certificate in a file's metadata, if it has one that can be read."""
    text = store.metadata.get(KEY)
    if text is None:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def to_metadata(certificate: Mapping[str, Any]) -> dict[str, str]:
    """The certificate as a file's text metadata; the same conversion gives the same text."""
    text = json.dumps(certificate, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return {**label_of(_made_for(certificate)), KEY: text}


def label_of(framework: str) -> dict[str, str]:
    """The text metadata by which others know whose names a file holds; none where there is no word for it."""
    words = {owner: label for label, owner in LABELS.items()}
    return {LABEL: words[framework]} if framework in words else {}


def labelled(store: Store) -> str:
    """The framework whose names a file holds, as its label says; "" where it has none."""
    return LABELS.get(store.metadata.get(LABEL, ""), "") if store.format == "safetensors" else ""


def made_for(store: Store) -> str:
    """The framework whose names a file holds, as its certificate says; "" where it has none, or says nothing."""
    return _made_for(certificate_of(store) or {})


def _made_for(found: Mapping[str, Any]) -> str:
    transfer = found.get("transfer")
    said = transfer.get("framework") if isinstance(transfer, dict) else found.get("target")
    return said if isinstance(said, str) else ""


def check_said(store: Store, said: str) -> None:
    """Refuse a framework that is said of a file whose certificate says another.

    Raises:
        ConversionError: with what the certificate says.
    """
    made = made_for(store)
    if made and said and said != made:
        raise ConversionError(
            f"{store.path.name} holds {made} weights, made by layoutx from {_made_from(store)}, not {said}",
            why=f"read as {said}, its numbers would be permuted a second time",
            do="leave --from out: the file says itself what it holds",
        )


def _made_from(store: Store) -> str:
    source = (certificate_of(store) or {}).get("source")
    source = source if isinstance(source, dict) else {}
    return f"{source.get('file', 'another file')} ({source.get('framework')})"


def refuse_twice(store: Store, to: str) -> None:
    """Refuse to convert a file that layoutx already made for this framework, where it would become the same file.

    Raises:
        ConversionError: with what the certificate says.
    """
    if made_for(store) == to:
        raise ConversionError(
            f"{store.path.name} already holds {to} weights, made by layoutx from {_made_from(store)}",
            why="it would become the same file again",
            do="ask for another dtype (--dtype), shards (--max-shard-size) or kind of file (-o); "
            "`layoutx inspect` shows what this one is",
        )


def digest_of(store: Store, checksum: str) -> dict[str, Any]:
    """The SHA-256 of a source's file, and of one in shards that of each beside its size.

    Reading 2 GB for it takes longer than converting them, so only on request.
    """
    path = store.path
    found: dict[str, Any] = {}
    if is_file(path) and (bool(checksum) or size_of(path) <= SMALL):
        found["sha256"] = sha256(path)
    shards = {one: one.stat().st_size for one, _ in files_of(store) if one != path and url_of(one) is None}
    if shards and url_of(path) is None:
        hashed = bool(checksum) or sum(shards.values()) <= SMALL
        found["files"] = {
            one.name: {"bytes": size, **({"sha256": sha256(one)} if hashed else {})} for one, size in shards.items()
        }
    return found


def check_checksum(said: str) -> None:
    """Refuse a word that is no checksum.

    Raises:
        UsageError: with the one that there is.
    """
    if said not in ("", SHA256):
        raise UsageError(f"there is no checksum {said!r}", do=SHA256)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, read in pieces."""
    import hashlib

    digest = hashlib.sha256()
    with reading(path, "bytes"), opened(path) as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
    return digest.hexdigest()
