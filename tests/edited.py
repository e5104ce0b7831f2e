"""A real Keras file with something in it changed: its config, its arrays, or its end cut off."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py

DIGITS = Path(__file__).resolve().parent.parent / "examples" / "digits.keras"


def edited(
    path: Path,
    config: Callable[[dict[str, Any]], None] = lambda config: None,
    weights: Callable[[Any], None] = lambda file: None,
) -> Path:
    """The digits model with its config and its HDF5 file changed in place, written to `path`."""
    with zipfile.ZipFile(DIGITS) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    parsed = json.loads(members["config.json"])
    config(parsed)
    members["config.json"] = json.dumps(parsed).encode()
    data = io.BytesIO(members["model.weights.h5"])
    with h5py.File(data, "r+") as file:
        weights(file)
    members["model.weights.h5"] = data.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def layer(config: dict[str, Any], name: str) -> dict[str, Any]:
    """One layer's entry of a Sequential config."""
    found: dict[str, Any] = next(x for x in config["config"]["layers"] if x["config"]["name"] == name)
    return found


def renamed(path: Path, old: str, group: str, new: str) -> Path:
    """The digits model with one layer under another name."""

    def config(found: dict[str, Any]) -> None:
        layer(found, old)["config"]["name"] = new

    def weights(file: Any) -> None:
        file[f"layers/{group}/vars"].attrs["name"] = new

    return edited(path, config, weights)
