"""Layers whose rows lie in an order that nobody was told: what is said of them, and what would tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from layoutx.show.tables import clean
from layoutx.words import listed

MOST = 3  # layers that are named
TELL = (
    "What tells it is the model itself, with its code: a live module, a .pt2 or ONNX file, or a run of both models "
    "(`layoutx validate`, `layoutx port`); rows that must stay as they are: --keep-order LAYER."
)


def supposed_of(certificate: Mapping[str, Any]) -> tuple[str, ...]:
    """The layers that a certificate names."""
    found = certificate.get("supposed")
    return tuple(name for name in found if isinstance(name, str)) if isinstance(found, list) else ()


def usual_text(names: Sequence[str]) -> str:
    """What the first line says of them; "" where there are none."""
    return f", if maps are flattened in the usual order before {clean(listed(names, MOST))}" if names else ""


def supposed_text(names: Sequence[str], file: str = "") -> Iterator[str]:
    """What a person has to know of them; `file`: whose names they are, where that does not show."""
    if names:
        inside = f" in {clean(file)}" if file else ""
        rows = f"In which order one of the models has the rows of {clean(listed(names, MOST))}{inside} is not known"
        yield f"{rows}, and the usual one is supposed. {TELL}"
