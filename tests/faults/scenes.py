"""Outputs that are replaced while something goes wrong: an old one, the new one, and what may be seen between."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from layoutx.convert import convert

Files = dict[str, bytes]


def files(folder: Path) -> Files:
    """Path inside the folder -> bytes, of all files, hidden ones too."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def visible(found: Mapping[str, bytes]) -> Files:
    """Without what is hidden beside the output."""
    return {name: data for name, data in found.items() if not name.startswith(".")}


def source(path: Path, seed: int, layers: int = 2) -> Path:
    """A flax checkpoint of square Dense layers; another seed gives other numbers."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for number in range(layers):
        tensors[f"params.Dense_{number}.kernel"] = rng.normal(size=(11, 11))
        tensors[f"params.Dense_{number}.bias"] = rng.normal(size=11)
    save_file(tensors, path)
    return path


@dataclass
class Scene:
    """A folder with an old output that is to be replaced.

    Attributes:
        make: writes the new output into a folder. old, new: all files of the folder before and after.
        index: its name, where the output has shards. absent: for a moment there may be no output at all.
    """

    folder: Path
    make: Callable[..., None]
    old: Files
    new: Files
    index: str = ""
    absent: bool = False
    states: dict[str, int] = field(default_factory=dict)

    def reset(self) -> None:
        """Put the old output back."""
        for path in sorted(self.folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        for name, data in self.old.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(data)

    def state(self) -> str:
        """What a reader finds: "old", "new" or "none" (shards without an index); anything else is an error."""
        seen = visible(files(self.folder))
        if seen == self.old:
            found = "old"
        elif seen == self.new:
            found = "new"
        elif self.absent and not seen:
            found = "none"
        elif self.index:
            found = self._sharded(seen)
        else:
            raise AssertionError(f"neither old nor new: {sorted(seen)}")
        self.states[found] = self.states.get(found, 0) + 1
        return found

    def _sharded(self, seen: Files) -> str:
        """Shards beside an index do no harm: what counts is what the index names."""
        if self.index not in seen:
            return "none"
        named = {self.index, *json.loads(seen[self.index])["weight_map"].values()}
        part = {name: seen.get(name) for name in named}
        for found, whole in (("old", self.old), ("new", self.new)):
            if part == {name: whole.get(name) for name in named}:
                return found
        raise AssertionError("the index names a mixture")

    def finish(self) -> None:
        """The next run: then there is the new output, and nothing else."""
        self.make(self.folder)
        assert files(self.folder) == self.new, sorted(files(self.folder))


HOW: dict[str, dict[str, Any]] = {
    "safetensors": {"output": "m.safetensors"},
    "npz": {"output": "m.npz"},
    "shards": {"output": "m.safetensors", "max_shard_size": 1200},
    "other shards": {"output": "m.safetensors", "max_shard_size": 1200, "layers": 3},
    "shards for one file": {"output": "m.safetensors", "max_shard_size": 1200, "before": 10**6},
    "one file for shards": {"output": "m.safetensors", "max_shard_size": 10**6, "before": 1200},
}


def scene_of(tmp_path: Path, what: str, **more: Any) -> Scene:
    """An old output in a folder of its own, and what the new one will be; `more` goes to both conversions."""
    how = dict(HOW[what])
    output, layers = how.pop("output"), how.pop("layers", 2)
    first = {"max_shard_size": how.pop("before")} if "before" in how else {}
    a, b = source(tmp_path / "a.safetensors", 1), source(tmp_path / "b.safetensors", 2, layers)
    own = {"to": "torch", "from_": "flax", "live": False, "verify": "bytes", "jobs": 1, **how, **more}

    def make(folder: Path, **again: Any) -> None:
        convert(b, folder / output, **{**own, **again})

    def before(folder: Path) -> None:
        convert(a, folder / output, **{**own, **first})

    states = []
    for name, write in (("old", before), ("new", make)):
        folder = tmp_path / name
        folder.mkdir()
        write(folder)
        states.append(files(folder))
    folder = tmp_path / "out"
    folder.mkdir()
    found = Scene(folder, make, *states, index="m.safetensors.index.json" if "max_shard_size" in how else "")
    found.reset()
    assert found.old != found.new
    return found


def record(faults: str, tried: int, survived: int) -> None:
    """Leave a line for the table of docs/security.md where LAYOUTX_RECORDS names a folder."""
    folder = os.environ.get("LAYOUTX_RECORDS")
    if folder:
        with (Path(folder) / f"faults-{os.getpid()}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"faults": faults, "tried": tried, "survived": survived}) + "\n")
