"""A dtype that was asked for, in every kind of file: the bytes of the streamed one, its account of what was lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import layoutx as lx
from layoutx.errors import ConversionError, UsageError
from layoutx.files.open import open_store

NEEDS = {".pt": "torch", ".dcp": "torch", ".orbax": "orbax.checkpoint"}


def source(path: Path, largest: float = 3.0) -> Path:
    """Attention in flax' parts, whose projections become one tensor, and a count."""
    rng = np.random.default_rng(11)
    shapes = {"kernel": (10, 2, 5), "bias": (2, 5)}
    state = {f"a/{n}/{slot}": rng.standard_normal(s) for n in ("query", "key", "value") for slot, s in shapes.items()}
    state |= {"a/out/kernel": rng.standard_normal((2, 5, 10)), "a/out/bias": np.linspace(1e-9, largest, 10)}
    save_file({name: array.astype("f4") for name, array in state.items()}, path)
    return path


def held(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    found = {name.replace("/", "."): tensor.read() for name, tensor in open_store(path).tensors.items()}
    return {name: (str(array.dtype), array.shape, array.tobytes()) for name, array in found.items()}


@pytest.mark.parametrize("ending", [".npz", ".pt", ".dcp", ".orbax", ".msgpack", ".pdparams"])
@pytest.mark.parametrize("dtype", ["bf16", "f16", "f64"])
def test_every_kind_of_file_holds_what_the_streamed_one_holds(tmp_path: Path, ending: str, dtype: str) -> None:
    pytest.importorskip(NEEDS.get(ending, "numpy"))
    path, how = source(tmp_path / "m.safetensors"), {"to": "torch", "from_": "flax", "dtype": dtype, "live": False}
    streamed = lx.convert(path, tmp_path / "s.safetensors", **how)
    whole = lx.convert(path, tmp_path / f"w{ending}", **how)
    assert held(tmp_path / f"w{ending}") == held(tmp_path / "s.safetensors")
    assert (whole.exactness, whole.round_trip) == (streamed.exactness, streamed.round_trip)
    assert [line.notes for line in whole.layers] == [line.notes for line in streamed.layers]
    assert lx.verify_file(tmp_path / f"w{ending}", path).ok


def test_numbers_that_a_dtype_cannot_hold(tmp_path: Path) -> None:
    path = source(tmp_path / "m.safetensors", 1e6)
    how = {"to": "torch", "from_": "flax", "dtype": "f16", "live": False}
    with pytest.raises(ConversionError, match=r"finite numbers would become infinite(.|\n)*a.out_proj.bias"):
        lx.convert(path, tmp_path / "w.npz", **how)
    assert not (tmp_path / "w.npz").exists()
    report = lx.convert(path, tmp_path / "w.npz", allow={"range"}, **how)
    assert "became infinite" in str(report)
    assert np.isinf(open_store(tmp_path / "w.npz").tensors["a.out_proj.bias"].read()).any()


def test_a_graph_keeps_its_dtypes(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info
    weight = onnx.numpy_helper.from_array(np.ones((5, 3), "f4"), "w")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [value("x", 1, [2, 5])], [value("y", 1, [2, 3])], [weight])
    (tmp_path / "g.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    save_file({"fc.weight": np.ones((3, 5), "f4")}, tmp_path / "m.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match="keeps the dtypes of the graph"):
        lx.convert(tmp_path / "m.safetensors", tmp_path / "o.onnx", to="onnx", like=tmp_path / "g.onnx", dtype="f16")
