"""What both readers of HDF5 files agree on: the attributes that are read, and the order of names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

# what is read: root attributes of the legacy format, and of every group
MARKS = ("layer_names", "layer_names0", "nb_layers", "model_config")
OF_ROOT = ("layer_names", "nb_layers", "model_config", "keras_version", "backend", "layoutx", "weight_names")
OF_LEGACY, OF_OTHERS = ("weight_names", "nb_params"), ("name",)
SPLIT = ("layer_names", "weight_names")  # by Keras, into `layer_names0`, ..., where they are more than 64512 bytes
MODEL = "model_weights"


def noted(wanted: Sequence[str], has: Callable[[str], bool], note: Callable[[str], Any]) -> dict[str, Any]:
    """The wanted attributes that an object has: a text, a list of texts, or a whole number.

    Args:
        has: whether there is an attribute of a name; note: what it says.
    """
    notes = {}
    for name in wanted:
        if has(name):
            notes[name] = note(name)
        elif name in SPLIT and has(f"{name}0"):
            texts: list[str] = []
            part = 0
            while has(f"{name}{part}"):
                found = note(f"{name}{part}")
                texts += found if isinstance(found, list) else [found] if isinstance(found, str) and found else []
                part += 1
            notes[name] = texts
    return notes


@lru_cache(4096)  # `vars`, `0` and `1` stand in every group
def natural(path: str) -> tuple[tuple[tuple[str, int], ...], ...]:
    """A sort key in which `vars/2` comes before `vars/10`, and `dense` before `dense_1`."""
    return tuple(
        tuple((text, int(digits or -1)) for text, digits in re.findall(r"(\D+|^)(\d*)", part))
        for part in path.split("/")
    )


def text_of(value: Any) -> str:
    """An attribute's text, whether it was stored as bytes or str; "" for an empty attribute."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else ""
