"""Orbax checkpoints written: the tree of names as flax users save and restore it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from layoutx.files.dtypes import Array
from layoutx.files.nested import nested
from layoutx.files.notes import MEMBER, to_text
from layoutx.files.orbax_dir import need_orbax


def write_orbax(folder: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """Write a tree that StandardCheckpointer and PyTreeCheckpointer restore; "/" in a name goes one level down.

    NumPy arrays are handed over, not jax's: those would lose 64 bits, and name a device that the reader may lack.
    Metadata is a file of its own in the folder, `layoutx.json`, which orbax passes over.
    Source: flax 0.12.8 flax/training/checkpoints.py, orbax-checkpoint 0.12.8 StandardCheckpointer.

    Raises:
        UsageError: orbax is missing; a name that is also the folder of another one.
    """
    ocp = need_orbax()
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder.resolve(), nested(arrays))
        checkpointer.wait_until_finished()
    (folder / MEMBER).write_text(to_text(metadata), encoding="utf-8")
