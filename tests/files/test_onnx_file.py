"""ONNX files: every dtype both ways of storing it, lazily; external data; broken files; new values in an old graph."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layoutx.errors import FileError, LayoutxError, UsageError
from layoutx.files import onnx_write
from layoutx.files.onnx_file import structure, tensors_in
from layoutx.files.open import open_store
from layoutx.files.save import save
from layoutx.model.onnx_model import onnx_records

onnx = pytest.importorskip("onnx", reason="ONNX files need the onnx package")
TensorProto, helper, numpy_helper = onnx.TensorProto, onnx.helper, onnx.numpy_helper
rng = np.random.default_rng(7)


def same_bits(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Dtype, shape and every byte."""
    return (found.dtype, found.shape, found.tobytes()) == (wanted.dtype, wanted.shape, wanted.tobytes())


DTYPES = [
    *("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32"),
    *("UINT64", "BOOL", "COMPLEX64", "COMPLEX128", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"),
    *("INT4", "UINT4"),
]


def dense(path: Path, **arrays: np.ndarray) -> Path:
    """A model of one Gemm after a Relu, W (11, 7) and b (7), and more initializers."""
    weights = {"W": rng.normal(size=(11, 7)).astype("f4"), "b": rng.normal(size=7).astype("f4"), **arrays}
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Gemm", ["r", "W", "b"], ["y"], "fc")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 11])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 7])],
        [numpy_helper.from_array(a, name) for name, a in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def outside(path: Path, **said: Any) -> Path:
    """The model of `dense` with all tensors in `w.data` beside it; `said` overrides what W's entry says."""
    model = onnx.load(dense(path))
    onnx.save(model, path, save_as_external_data=True, location="w.data", size_threshold=0)
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        entry.value = str(said.get(entry.key, entry.value))
    path.write_bytes(model.SerializeToString())
    return path


def everything(path: Path) -> None:
    """Open a file, read all of it, and its layers."""
    store = open_store(path)
    for tensor in store.tensors.values():
        assert tensor.read().shape == tensor.shape
    onnx_records(store)


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("shape", [(5, 101), (3,), (), (0, 3)])
def test_every_dtype(tmp_path: Path, name: str, raw: bool, shape: tuple[int, ...]) -> None:
    """Few numbers stay in the message, many are read from the file in place; packed types are unpacked."""
    code = getattr(TensorProto, name)
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(code))
    want = rng.integers(0, 2 if name == "BOOL" else 7, shape).astype("f8").astype(dtype)
    proto = numpy_helper.from_array(want, "w") if raw else helper.make_tensor("w", code, shape, want.reshape(-1))
    assert proto.data_type == code
    model = helper.make_model(helper.make_graph([], "g", [], [], [proto]))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    tensor = open_store(tmp_path / "m.onnx").tensors["w"]
    got = tensor.read()
    assert (tensor.dtype, tensor.shape, got.dtype) == (dtype, shape, dtype)
    assert same_bits(got, want)
    save(tmp_path / "n.onnx", {"w": want}, {}, open_store(tmp_path / "m.onnx"))
    back = numpy_helper.to_array(onnx.load(tmp_path / "n.onnx").graph.initializer[0])
    assert same_bits(np.asarray(back).astype(dtype), want)


def test_large_numbers_stay_in_the_file(tmp_path: Path) -> None:
    big = np.arange(50_000, dtype="f4")
    path = dense(tmp_path / "m.onnx", big=big)
    assert structure(path).ByteSize() < 1000
    store = open_store(path)
    assert same_bits(store.tensors["big"].read(), big)
    with path.open("rb+") as file:
        file.truncate(1000)
    with pytest.raises(FileError):
        store.tensors["big"].read()


def test_constants_and_bodies_have_names(tmp_path: Path) -> None:
    body = helper.make_graph(
        [helper.make_node("MatMul", ["x", "inner"], ["z"])],
        "body",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(rng.normal(size=(3, 2)).astype("f4"), "inner")],
    )
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array([True]))),
        helper.make_node("If", ["c"], ["y"], "choose", then_branch=body, else_branch=body),
    ]
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, 3])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    path = tmp_path / "m.onnx"
    path.write_bytes(helper.make_model(helper.make_graph(nodes, "g", [info], [out])).SerializeToString())
    store = open_store(path)
    assert list(store.tensors) == ["c", "choose/else_branch/inner", "choose/then_branch/inner"]
    found = [(r.name, r.form, *(t.name for t in r.tensors.values())) for r in onnx_records(store).layers]
    assert found == [
        (f"choose/{branch}/matmul_0", "onnx.MatMul", f"choose/{branch}/inner")
        for branch in ("else_branch", "then_branch")
    ]


def test_it_is_known_by_its_bytes(tmp_path: Path) -> None:
    path = dense(tmp_path / "m.bin")
    assert open_store(path).format == "onnx"
    assert open_store(path).version == "opset 17"


@pytest.mark.parametrize("part", [0.01, 0.2, 0.5, 0.9, 0.999])
def test_truncated(tmp_path: Path, part: float) -> None:
    data = dense(tmp_path / "m.onnx").read_bytes()
    (tmp_path / "m.onnx").write_bytes(data[: max(1, int(len(data) * part))])
    with pytest.raises(FileError):
        everything(tmp_path / "m.onnx")


@pytest.mark.parametrize("data", [b"hello, this is text", b"\x08\x07", bytes(range(200)), b"\xff" * 500, b"\x3a\x7f"])
def test_not_protobuf(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(FileError):
        open_store(tmp_path / "m.onnx")


def test_sparse_initializers_are_refused_by_name(tmp_path: Path) -> None:
    model = onnx.load(dense(tmp_path / "m.onnx"))
    sparse = model.graph.sparse_initializer.add(dims=[11])
    sparse.values.CopyFrom(numpy_helper.from_array(np.ones(2, "f4"), "holes"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array([1, 3])))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(FileError, match="holes"):
        open_store(tmp_path / "m.onnx")


def test_a_shape_that_its_numbers_do_not_fill(tmp_path: Path) -> None:
    model = onnx.load(dense(tmp_path / "m.onnx"))
    model.graph.initializer[0].dims[0] = 12
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(FileError, match="cut short"):
        open_store(tmp_path / "m.onnx")


def test_external_data(tmp_path: Path) -> None:
    path = outside(tmp_path / "m.onnx")
    store = open_store(path)
    for proto in onnx.load(path).graph.initializer:
        assert same_bits(store.tensors[proto.name].read(), numpy_helper.to_array(proto))


def test_external_data_missing(tmp_path: Path) -> None:
    path = outside(tmp_path / "m.onnx")
    (tmp_path / "w.data").unlink()
    with pytest.raises(LayoutxError, match=r"cannot be read|missing") as caught:
        open_store(path)
    assert "W" in str(caught.value)
    assert "w.data" in str(caught.value)


def test_external_data_short(tmp_path: Path) -> None:
    path = outside(tmp_path / "m.onnx")
    with (tmp_path / "w.data").open("rb+") as file:
        file.truncate(100)
    with pytest.raises(LayoutxError) as caught:
        open_store(path)
    assert "cut short" in str(caught.value)


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "sub/../../secret", "", "link"])
def test_external_data_stays_in_the_folder(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret").write_bytes(bytes(1000))
    (tmp_path / "in").mkdir()
    os.symlink(tmp_path / "secret", tmp_path / "in" / "link")
    path = outside(tmp_path / "in" / "m.onnx", location=location, offset=0)
    with pytest.raises(FileError, match="outside the model's folder"):
        open_store(path)


@pytest.mark.parametrize("said", [{"offset": -4}, {"offset": 10**9}, {"length": 10**9}, {"length": 4}, {"offset": "x"}])
def test_external_data_of_forged_places(tmp_path: Path, said: dict[str, Any]) -> None:
    with pytest.raises(FileError):
        open_store(outside(tmp_path / "m.onnx", **said))


def test_fuzz(tmp_path: Path) -> None:
    """200 damaged copies: an error of layoutx, or a file that still makes sense."""
    data = dense(tmp_path / "m.onnx", big=rng.normal(size=(13, 17)).astype("f4")).read_bytes()
    chance = random.Random(20261121)
    refused = 0
    for _ in range(200):
        bad = bytearray(data)
        for _ in range(chance.choice((1, 1, 2, 5))):
            at = chance.randrange(len(bad)) if chance.random() < 0.5 else chance.randrange(min(200, len(bad)))
            how = chance.random()
            if how < 0.6:
                bad[at] = chance.randrange(256)
            elif how < 0.8:
                del bad[at : at + chance.randrange(1, 9)]
            else:
                bad[at:at] = chance.randbytes(chance.randrange(1, 9))
        (tmp_path / "bad.onnx").write_bytes(bytes(bad))
        try:
            everything(tmp_path / "bad.onnx")
        except LayoutxError:
            refused += 1
    assert 20 < refused < 200


def test_new_values_in_the_old_graph(tmp_path: Path) -> None:
    template = dense(tmp_path / "t.onnx")
    store = open_store(template)
    new = {name: rng.normal(size=t.shape).astype(t.dtype) for name, t in store.tensors.items()}
    out = tmp_path / "out.onnx"
    save(out, new, {"layoutx": "{}"}, store)
    again = open_store(out)
    assert all(same_bits(again.tensors[name].read(), array) for name, array in new.items())
    assert again.metadata == {"layoutx": "{}"}
    old, made = onnx.load(template), onnx.load(out)
    onnx.checker.check_model(made)
    assert made.graph.node == old.graph.node
    assert (made.graph.input, made.graph.output) == (old.graph.input, old.graph.output)
    for model in (old, made):
        for _, proto in tensors_in(model.graph):
            proto.ClearField("raw_data")
        del model.metadata_props[:]
    assert made == old


def test_external_templates_become_one_file(tmp_path: Path) -> None:
    store = open_store(outside(tmp_path / "t.onnx"))
    new = {name: t.read() * 2 for name, t in store.tensors.items()}
    save(tmp_path / "out.onnx", new, {}, store)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.onnx", "t.onnx", "w.data"]
    assert same_bits(numpy_helper.to_array(onnx.load(tmp_path / "out.onnx").graph.initializer[0]), new["W"])


def test_what_is_too_large_for_protobuf_goes_beside_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_write, "INLINE_LIMIT", 1000)
    store = open_store(dense(tmp_path / "t.onnx", big=rng.normal(size=(31, 37)).astype("f4")))
    new = {name: t.read() * 3 for name, t in store.tensors.items()}
    save(tmp_path / "out.onnx", new, {}, store)
    (data,) = tmp_path.glob("out.onnx.*.data")
    assert data.stat().st_size == 31 * 37 * 4
    onnx.checker.check_model(str(tmp_path / "out.onnx"))
    loaded = {p.name: numpy_helper.to_array(p) for p in onnx.load(tmp_path / "out.onnx").graph.initializer}
    assert all(same_bits(loaded[name], array) for name, array in new.items())


@pytest.mark.parametrize("limit", [1000, 1 << 30])
def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(onnx_write, "INLINE_LIMIT", limit)
    store = open_store(dense(tmp_path / "t.onnx", big=rng.normal(size=(31, 37)).astype("f4")))
    new = {name: t.read() for name, t in store.tensors.items()}
    (tmp_path / "out.onnx").write_bytes(b"old")
    raw = onnx_write._raw
    monkeypatch.setattr(onnx_write, "_raw", lambda proto, array: raw(proto, array)[::-1])
    with pytest.raises(LayoutxError, match="did not give back"):
        save(tmp_path / "out.onnx", new, {}, store)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.onnx", "t.onnx"]
    assert (tmp_path / "out.onnx").read_bytes() == b"old"


def test_arrays_that_do_not_fit_the_template(tmp_path: Path) -> None:
    store = open_store(dense(tmp_path / "t.onnx"))
    new = {name: t.read() for name, t in store.tensors.items()}
    wrong = {"W": new["W"].T, "b": new["b"].astype("f8"), "c": new["b"]}
    with pytest.raises(LayoutxError) as caught:
        save(tmp_path / "out.onnx", wrong, {}, store)
    assert all(f"'{name}'" in str(caught.value) for name in "Wbc")
    with pytest.raises(UsageError, match="no values for 'b'"):
        save(tmp_path / "out.onnx", {"W": new["W"]}, {}, store)
    assert not (tmp_path / "out.onnx").exists()


def test_an_onnx_file_needs_a_template(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs an ONNX model"):
        save(tmp_path / "out.onnx", {"w": np.ones(3, "f4")}, {})


def test_without_the_onnx_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = dense(tmp_path / "m.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UsageError) as caught:
        open_store(path)
    assert 'pip install "layoutx[onnx]"' in str(caught.value)
