"""Flat names as a tree of mappings: "/" in a name goes one level down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layoutx.errors import UsageError
from layoutx.files.dtypes import Array


def nested(arrays: Mapping[str, Array]) -> dict[str, Any]:
    """`params/Dense_0/kernel` as {"params": {"Dense_0": {"kernel": array}}}, in the order given.

    Raises:
        UsageError: a name that is also the folder of another one.
    """
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *folders, last = name.split("/")
        inner = tree
        for folder in folders:
            inner = inner.setdefault(folder, {})
            if not isinstance(inner, dict):
                raise UsageError(f"'{name}' lies inside another tensor", do="choose a flat format: .safetensors, .npz")
        if last in inner:
            raise UsageError(
                f"'{name}' stands twice, or is a folder too", do="choose a flat format: .safetensors, .npz"
            )
        inner[last] = array
    return tree
