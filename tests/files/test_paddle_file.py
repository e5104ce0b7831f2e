"""paddle and other pickles of arrays: read without running anything; what is no mapping of arrays is refused."""

from __future__ import annotations

import collections
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from layoutx.errors import FileError, LayoutxError
from layoutx.files.notes import tied_names
from layoutx.files.open import open_store
from layoutx.files.save import save

RNG = np.random.default_rng(3)
KERNEL = RNG.standard_normal((5, 7)).astype(np.float32)
NAMES = "StructuredToParameterName@@"


def written(path: Path, tree: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(tree, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_state_dict_with_names_of_one_parameter(tmp_path: Path, protocol: int) -> None:
    tree = {"0.weight_ih_l0": KERNEL, "0.0.cell.weight_ih": KERNEL, "half": np.arange(3, dtype=np.uint16)}
    tree[NAMES] = {"0.weight_ih_l0": "lstm.w_0", "0.0.cell.weight_ih": "lstm.w_0", "half": "h"}
    store = open_store(written(tmp_path / "x", tree, protocol))
    assert (store.format, list(store.tensors)) == ("paddle", ["0.weight_ih_l0", "0.0.cell.weight_ih", "half"])
    assert tied_names(store.metadata) == {"0.weight_ih_l0": "0.0.cell.weight_ih"}
    assert np.array_equal(store.tensors["0.0.cell.weight_ih"].read(), KERNEL)
    assert store.tensors["half"].dtype == ml_dtypes.bfloat16  # paddle keeps the bits of bfloat16 as uint16


def test_a_haiku_tree_with_fortran_order_and_big_endian(tmp_path: Path) -> None:
    tree = {"mlp/~/linear_0": {"w": np.asfortranarray(KERNEL), "b": np.arange(7.0).astype(">f8")}, "n": 3}
    store = open_store(written(tmp_path / "x.pkl", collections.OrderedDict(tree)))
    assert store.format == "pickle"
    assert store.metadata == {"pickle:skipped": "n (int)"}
    assert np.array_equal(store.tensors["mlp/~/linear_0/w"].read(), KERNEL)
    assert np.array_equal(store.tensors["mlp/~/linear_0/b"].read(), np.arange(7.0))


def test_arrays_of_jax(tmp_path: Path) -> None:
    jax = pytest.importorskip("jax")
    store = open_store(written(tmp_path / "x.pkl", {"linear": {"w": jax.numpy.asarray(KERNEL)}}))
    assert np.array_equal(store.tensors["linear/w"].read(), KERNEL)


def test_parameters_cut_in_slices(tmp_path: Path) -> None:
    cut = {"w@@.0": KERNEL.reshape(-1)[:20], "w@@.1": KERNEL.reshape(-1)[20:], NAMES: {}}
    cut["UnpackBigParamInfor@@"] = {"w": {"OriginShape": (5, 7), "slices": ["w@@.0", "w@@.1"]}}
    store = open_store(written(tmp_path / "x.pdparams", cut))
    assert list(store.tensors) == ["w"]
    assert np.array_equal(store.tensors["w"].read(), KERNEL)


class Runs:
    """A pickle that would run code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


class Dirty:
    """A pickle that sets attributes of what it names."""

    def __reduce__(self) -> Any:
        return collections.OrderedDict, (), {"a": 1}


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_nothing_in_a_file_runs(tmp_path: Path, protocol: int) -> None:
    path = written(tmp_path / "x.pdparams", {"w": KERNEL, "evil": Runs(tmp_path / "made")}, protocol)
    with pytest.raises(FileError, match="holds more than names and arrays") as caught:
        open_store(path)
    assert "mkdir" in str(caught.value)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "tree",
    [
        [KERNEL],
        {"w": np.array([{}], object)},
        {"n": 3},
        {"w": Dirty()},
        {"w": {1, 2}},
        {("a",): KERNEL},
        {"w": slice(3)},
    ],
)
def test_what_is_no_mapping_of_arrays_is_refused(tmp_path: Path, tree: Any) -> None:
    with pytest.raises(FileError):
        open_store(written(tmp_path / "x.pdparams", tree))


def test_fuzz_gives_file_errors_only(tmp_path: Path) -> None:
    path, rng, failed = tmp_path / "x.pdparams", random.Random(0), 0
    raws = [pickle.dumps({"w": KERNEL, "b": {"c": np.arange(3)}, NAMES: {"w": "a"}}, protocol=p) for p in (2, 4)]
    for _ in range(1200):
        raw = rng.choice(raws)
        damaged = bytearray(raw[: rng.randrange(1, len(raw))] if rng.random() < 0.3 else raw)
        for _ in range(rng.choice([1, 1, 3, 10])):
            damaged[rng.randrange(1, min(len(damaged), rng.choice([60, 10**9])) + 1) - 1] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            for tensor in open_store(path).tensors.values():
                found = tensor.read()
                assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
        except FileError:
            failed += 1
        except LayoutxError as error:
            pytest.fail(f"{type(error).__name__}: {error}")
    assert failed > 400


def test_what_layoutx_writes_is_read_back(tmp_path: Path) -> None:
    arrays = {"0.weight": KERNEL, "half": np.arange(3).astype(ml_dtypes.bfloat16)}
    save(tmp_path / "x.pdparams", arrays, {"layoutx": "{}"})
    store = open_store(tmp_path / "x.pdparams")
    assert store.metadata == {"layoutx": "{}"}
    assert list(store.tensors) == list(arrays)


WITH_PADDLE = """
import sys, numpy as np
try:
    import paddle
except ImportError:
    sys.exit(77)
folder = sys.argv[1]
found = paddle.load(folder + "/ours.pdparams")
assert found["w"].dtype == paddle.float32 and found["half"].dtype == paddle.bfloat16, found
layer = paddle.nn.Sequential(paddle.nn.Linear(5, 7), paddle.nn.LSTM(7, 3))
missing, unexpected = layer.set_state_dict({**layer.state_dict(), "layoutx@@": "{}"})
paddle.save(layer.state_dict(), folder + "/theirs.pdparams")
np.savez(folder + "/plain.npz", **{name: value.numpy() for name, value in layer.state_dict().items()})
"""


def test_paddle_itself(tmp_path: Path) -> None:
    """In a process of its own: paddle 3.3.1 crashes where TensorFlow was imported first."""
    save(tmp_path / "ours.pdparams", {"w": KERNEL, "half": np.ones(3, ml_dtypes.bfloat16)}, {"layoutx": "{}"})
    done = subprocess.run(
        [sys.executable, "-c", WITH_PADDLE, str(tmp_path)], capture_output=True, text=True, check=False
    )
    if done.returncode == 77:
        pytest.skip("paddle is not installed")
    assert done.returncode == 0, done.stderr[-2000:]
    store, plain = open_store(tmp_path / "theirs.pdparams"), np.load(tmp_path / "plain.npz")
    assert set(store.tensors) == set(plain.files)
    assert all(np.array_equal(tensor.read(), plain[name]) for name, tensor in store.tensors.items())
    assert tied_names(store.metadata)["1.weight_ih_l0"] == "1.0.cell.weight_ih"
