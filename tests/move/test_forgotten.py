"""Pages of a source are given back as soon as its tensors were used: a large file never lies in memory as a whole."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import layoutx as lx
from layoutx.files.blob import flat_of, forget, holding
from layoutx.files.guarded import PAGE
from layoutx.files.open import open_store
from layoutx.move import pool

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/smaps tells what is mapped")
MANY, ROWS, COLUMNS = 5, 1031, 1033  # 4 MB each


def resident(path: Path) -> int:
    """Bytes of a file that are mapped and present."""
    found, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head, *rest = line.split()
        if "-" in head:
            ours = rest[-1:] == [str(path)]
        elif ours and head == "Rss:":
            found += int(rest[0]) << 10
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "m.safetensors"
    drawn = np.random.default_rng(3).standard_normal((MANY, ROWS, COLUMNS), dtype=np.float32)
    save_file({f"l{k}.weight": drawn[k] for k in range(MANY)}, path)
    return path


def test_what_was_forgotten_is_read_again(source: Path) -> None:
    wanted = load_file(source)
    with holding():
        for tensor in open_store(source).tensors.values():
            flat = flat_of(tensor)
            assert flat.tobytes() == wanted[tensor.name].tobytes()
            before = resident(source)
            forget(tensor)
            assert resident(source) <= before - tensor.nbytes + 2 * PAGE
            assert flat.tobytes() == wanted[tensor.name].tobytes()


def test_less_than_a_page_stays(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a": np.arange(5.0), "b": np.arange(7.0)}, path)
    with holding():
        for tensor in open_store(path).tensors.values():
            flat = flat_of(tensor).sum()
            before = resident(path)
            forget(tensor)
            assert resident(path) == before
            assert flat_of(tensor).sum() == flat


@pytest.mark.parametrize("verify", ["none", "bytes"])
def test_a_conversion_maps_one_tensor_at_a_time(
    verify: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = pool._made

    def made(*given: Any) -> Any:
        found = real(*given)
        seen.append(resident(source))
        return found

    monkeypatch.setattr(pool, "_made", made)
    out = tmp_path / "out.safetensors"
    lx.convert(source, out, to="flax", forms={"*": "torch.Linear"}, verify=verify, jobs=1, live=False)
    assert len(seen) >= MANY
    assert 0 < max(seen) < 2.2 * ROWS * COLUMNS * 4
    turned = {name: array.T.tobytes() for name, array in load_file(source).items()}
    assert sorted(array.tobytes() for array in load_file(out).values()) == sorted(turned.values())
