"""The table of docs/security.md that says which dtypes each format keeps bit for bit: every cell is tried."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "files")]

from bit_cases import CLASSES, arrays_of, outcome  # noqa: E402

COLUMNS = {
    ".safetensors": "safetensors", ".npz": ".npz", ".pt": ".pt", ".dcp": ".dcp", ".msgpack": ".msgpack",
    ".pdparams": ".pdparams", ".weights.h5": ".keras, .h5", ".onnx": ".onnx", ".orbax": ".orbax",
}  # fmt: skip


def rows() -> list[list[str]]:
    """The head, then a row for each class of dtypes: `bit-exact`, `refused`, `-` where the format has no such word.

    A cell that is not the same for all dtypes of its class names those that are refused.
    """
    found = [["", *COLUMNS.values()]]
    with tempfile.TemporaryDirectory() as folder:
        for about, names in CLASSES.items():
            found.append([about, *(_cell(ending, names, Path(folder)) for ending in COLUMNS)])
        shapes = {key: array for key, array in arrays_of("float32").items() if not array.size}
        found.append(["no elements: (0,), (0, 3), (3, 0)", *(_tried(e, shapes, Path(folder)) for e in COLUMNS)])
        odd = {"m/odd": arrays_of("uint8")["m/flat"].view(bool)}
        found.append(["bool bytes that are neither 0 nor 1", *(_tried(e, odd, Path(folder)) for e in COLUMNS)])
    return found


def _cell(ending: str, names: tuple[str, ...], folder: Path) -> str:
    said = {}
    for name in names:
        arrays = arrays_of(name)
        if ending == ".orbax":
            arrays = {key: array for key, array in arrays.items() if array.size}
        said[name] = _tried(ending, arrays, folder)
    refused = [name for name, cell in said.items() if cell != "bit-exact"]
    if 0 < len(refused) < len(names):
        return f"bit-exact; refused: {', '.join(refused)}"
    return said[names[0]]


def _tried(ending: str, arrays: dict[str, object], folder: Path) -> str:
    with tempfile.TemporaryDirectory(dir=folder) as inner:
        try:
            return outcome(ending, Path(inner), arrays)
        except ValueError:  # onnx has no element type for it, so there is no model to write into
            return "-"


def text() -> str:
    """The table as Markdown."""
    head, *body = rows()
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(text())
