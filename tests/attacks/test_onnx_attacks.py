"""Hostile ONNX models: where their numbers lie, what their graphs would compute, how deep they go."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="ONNX files need the onnx package")
helper, FLOAT = onnx.helper, onnx.TensorProto.FLOAT
BIG = np.arange(128, dtype="f4")  # raw data of more than 256 bytes is left in the file


def block(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))


def model(path: Path, graph: bytes, before: bytes = b"\x08\x09") -> Path:
    """A model file (ir_version 9) of a graph's bytes."""
    path.write_bytes(before + block(7, graph) + block(8, b"\x10\x11"))
    return path


def saved(path: Path, *tensors: Any, nodes: tuple[Any, ...] = (), **more: Any) -> Path:
    """A model file of initializers and nodes, x in and y out."""
    nodes = nodes or (helper.make_node("MatMul", ["x", "w"], ["y"]),)
    infos = [helper.make_tensor_value_info(name, FLOAT, None) for name in ("x", "y")]
    graph = helper.make_graph(list(nodes), "g", infos[:1], infos[1:], list(tensors), **more)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(made.SerializeToString())
    return path


def tensor(dims: tuple[int, ...] = (128,), kind: int = FLOAT, **said: Any) -> Any:
    return onnx.TensorProto(name="w", data_type=kind, dims=dims, **said)


def outside(location: str, dims: tuple[int, ...] = (128,), **said: object) -> Any:
    """A tensor whose numbers lie in another file."""
    made = tensor(dims, data_location=onnx.TensorProto.EXTERNAL)
    for key, value in {"location": location, **said}.items():
        made.external_data.add(key=key, value=str(value))
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for the model, and a file beside the folder that is nobody's business."""
    (tmp_path / "secret.bin").write_bytes(BIG.tobytes())
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "own.bin").write_bytes(BIG.tobytes())
    return tmp_path / "model"


LOCATIONS = [
    "../secret.bin",
    "./../secret.bin",
    "sub/../../secret.bin",
    "..",
    "",
    "own.bin\0",
    "/dev/zero",
    "file:own",
    "~",
]


@pytest.mark.parametrize("location", LOCATIONS)
def test_external_data_that_climbs_out_of_the_folder(refused: Any, folder: Path, location: str) -> None:
    """CVE-2022-25882, CVE-2024-5187: the location of external data leads to any file of the machine."""
    refused(saved(folder / "a.onnx", outside(location)), "external data")


def test_external_data_by_an_absolute_path(refused: Any, folder: Path) -> None:
    """CVE-2022-25882, with the file's whole path."""
    refused(saved(folder / "a.onnx", outside(str(folder.parent / "secret.bin"))), "outside the model's folder")


def test_external_data_in_the_own_folder_by_an_absolute_path(refused: Any, folder: Path) -> None:
    refused(saved(folder / "a.onnx", outside(str(folder / "own.bin"))), "outside the model's folder")


def test_external_data_through_a_link(refused: Any, folder: Path) -> None:
    """CVE-2024-27318: a name without dots that is a symbolic link out of the folder."""
    (folder / "data.bin").symlink_to(folder.parent / "secret.bin")
    refused(saved(folder / "a.onnx", outside("data.bin")), "outside the model's folder")


def test_external_data_through_a_linked_folder(refused: Any, folder: Path) -> None:
    """CVE-2024-27318, one folder further."""
    (folder / "data").symlink_to(folder.parent)
    refused(saved(folder / "a.onnx", outside("data/secret.bin")), "outside the model's folder")


def test_external_data_through_links_in_a_circle(refused: Any, folder: Path) -> None:
    (folder / "one").symlink_to("two")
    (folder / "two").symlink_to("one")
    refused(saved(folder / "a.onnx", outside("one")), "external data")


def test_external_data_that_is_a_hard_link(refused: Any, folder: Path) -> None:
    """A second name of a file elsewhere: no link that could be followed, and still not the model's own."""
    os.link(folder.parent / "secret.bin", folder / "data.bin")
    refused(saved(folder / "a.onnx", outside("data.bin")), "hard link")


def test_a_linked_model_beside_its_linked_data(refused: Any, folder: Path) -> None:
    """The Hugging Face cache keeps all files of a model in one folder, and links to them: that must go on working."""
    saved(folder / "hash1", outside("own.bin"))
    snapshot = folder.parent / "snapshot"
    snapshot.mkdir()
    (snapshot / "a.onnx").symlink_to("../model/hash1")
    (snapshot / "own.bin").symlink_to("../model/own.bin")
    refused(snapshot / "a.onnx", fine=True)


@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "missing"])
def test_external_data_that_is_no_file(refused: Any, folder: Path, kind: str) -> None:
    """Opening a pipe that nobody writes to would wait for ever."""
    data = folder / "data.bin"
    if kind == "fifo":
        os.mkfifo(data)
    elif kind == "folder":
        data.mkdir()
    elif kind == "device":
        data.symlink_to("/dev/zero")
    refused(saved(folder / "a.onnx", outside("data.bin")), "external data")


PLACES: list[dict[str, object]] = [
    {"offset": -512},
    {"offset": -512, "length": 512},
    {"length": -512},
    {"offset": 1, "length": 512},
    {"offset": 512},
    {"offset": 1 << 64},
    {"offset": "9" * 5000},
    {"length": 1 << 62},
    {"offset": "0x0"},
    {"offset": "1e2"},
    {"offset": "nan"},
    {"length": 511},
]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: " ".join(f"{k}={str(v)[:20]}" for k, v in place.items()))
def test_external_data_at_forged_places(refused: Any, folder: Path, place: dict[str, object]) -> None:
    refused(saved(folder / "a.onnx", outside("own.bin", **place)), "w")


@pytest.mark.parametrize("place", ["-512 512", "0 -1", "0 99999999", "x y", "1", ""])
def test_a_forged_mark_of_layoutx_itself(refused: Any, folder: Path, place: str) -> None:
    """The reader marks numbers that lie in the model file; a model that comes with such a mark gains nothing."""
    refused(saved(folder / "a.onnx", outside("own.bin", layoutx_offset=place)))


@pytest.mark.parametrize("small", [False, True])
def test_numbers_here_and_in_another_file(refused: Any, folder: Path, small: bool) -> None:
    made = outside("own.bin", (2,) if small else (128,))
    made.raw_data = BIG[: 2 if small else 128].tobytes()
    refused(saved(folder / "a.onnx", made), "twice")


def test_numbers_in_two_fields(refused: Any, folder: Path) -> None:
    """Readers differ in which of raw_data and float_data they believe."""
    refused(saved(folder / "a.onnx", tensor(raw_data=BIG.tobytes(), float_data=[1.0] * 128)), "twice")


def test_few_numbers_in_two_fields(refused: Any, folder: Path) -> None:
    refused(saved(folder / "a.onnx", tensor((2,), raw_data=bytes(8), float_data=[1.0] * 2)), "twice")


SHAPES = [(-128,), (-1, -128), (1 << 62, 4), (1 << 32, 1 << 32), (1 << 40,), (0, 1 << 62, 1 << 62), (127,), (129,)]


@pytest.mark.parametrize("dims", SHAPES, ids=str)
@pytest.mark.parametrize("field", ["raw", "typed", "outside", "nothing"])
def test_forged_dimensions(refused: Any, folder: Path, dims: tuple[int, ...], field: str) -> None:
    made = outside("own.bin", dims) if field == "outside" else tensor(dims)
    if field == "raw":
        made.raw_data = BIG.tobytes()
    elif field == "typed":
        made.float_data.extend(BIG)
    refused(saved(folder / "a.onnx", made), "w")


def test_more_axes_than_the_limit(refused: Any, folder: Path) -> None:
    refused(saved(folder / "a.onnx", tensor((1,) * 40, float_data=[1.0])), "LAYOUTX_LIMIT_RANK=40")


def test_a_million_axes(refused: Any, folder: Path) -> None:
    made = block(1, b"\x01" * 1_000_000) + b"\x10\x01" + block(8, b"w")
    refused(model(folder / "a.onnx", block(5, made)), "axes")


@pytest.mark.parametrize("kind", [0, 8, 99, -1, 1 << 30])
def test_a_type_of_numbers_that_is_none(refused: Any, folder: Path, kind: int) -> None:
    """Texts (8) are no weights, and left out."""
    refused(saved(folder / "a.onnx", tensor(kind=kind, raw_data=BIG.tobytes())), fine=kind == 8)


def test_complex_numbers_that_are_cut_in_half(refused: Any, folder: Path) -> None:
    refused(saved(folder / "a.onnx", tensor((2,), onnx.TensorProto.COMPLEX64, float_data=[1.0] * 3)))


def test_strings_where_numbers_should_be(refused: Any, folder: Path) -> None:
    refused(saved(folder / "a.onnx", tensor((1,), string_data=[b"1"])))


def test_a_sparse_initializer(refused: Any, folder: Path) -> None:
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("w", FLOAT, [1], [1.0]), helper.make_tensor("i", onnx.TensorProto.INT64, [1], [7]), [10**12]
    )
    refused(saved(folder / "a.onnx", sparse_initializer=[sparse]), "sparse")


def test_a_sparse_initializer_in_a_body(refused: Any, folder: Path) -> None:
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("w", FLOAT, [1], [1.0]), helper.make_tensor("i", onnx.TensorProto.INT64, [1], [7]), [10**12]
    )
    body = helper.make_graph([], "b", [], [], sparse_initializer=[sparse])
    refused(saved(folder / "a.onnx", nodes=(helper.make_node("If", ["c"], ["y"], then_branch=body),)), "sparse")


def test_two_tensors_of_one_name(refused: Any, folder: Path) -> None:
    one = tensor((2,), float_data=[1.0, 2.0])
    refused(saved(folder / "a.onnx", one, one), "several tensors")


@pytest.mark.parametrize("depth", [100, 1_000, 20_000])
def test_bodies_in_bodies(refused: Any, folder: Path, depth: int) -> None:
    """An If in an If in an If: recursion in C, in Python, or in both."""
    graph = block(5, b"\x08\x01\x10\x01" + block(8, b"w") + block(9, bytes(4)))
    for _ in range(depth):
        graph = block(1, block(4, b"If") + block(5, block(1, b"then_branch") + block(6, graph)))
    refused(model(folder / "a.onnx", graph))


@pytest.mark.parametrize("number", [1, 5, 11, 12, 14])
def test_a_million_empty_messages(refused: Any, folder: Path, number: int) -> None:
    """Nodes, tensors, inputs, outputs, annotations: two bytes each in the file, a hundred or more when parsed."""
    refused(model(folder / "a.onnx", block(number, b"") * 1_000_001), "LAYOUTX_LIMIT_FIELDS")


def test_ten_million_numbers_in_the_model(refused: Any, folder: Path) -> None:
    refused(model(folder / "a.onnx", block(2, b"g"), b"\x08\x09" * 10_000_000), "fields")


def test_ten_million_numbers_in_a_file_of_another_name(refused: Any, folder: Path) -> None:
    refused(model(folder / "a.bin", block(2, b"g"), b"\x08\x09" * 10_000_000), "none of the formats")


def test_a_name_of_200_megabytes(refused: Any, folder: Path) -> None:
    path = folder / "a.onnx"
    size = 200 << 20
    head = block(2, b"p") + b"\x3a" + varint(size + 6) + b"\x12" + varint(size)
    path.write_bytes(head)
    with path.open("r+b") as file:
        file.truncate(len(head) + size)
    refused(path, "a.onnx")


BYTES = {
    "a length behind the end": b"\x08\x09\x3a\x7f",
    "a length of 2^63": b"\x08\x09\x3a" + varint(1 << 63),
    "a number of eleven bytes": b"\x08" + b"\x80" * 10 + b"\x01",
    "a number without an end": b"\x08\x09\x3a" + b"\xff" * 9,
    "field number zero": b"\x08\x09\x02\x01\x00",
    "an unknown wire type": b"\x08\x09\x3f\x01",
    "a group that begins": b"\x08\x09\x3b\x12\x00\x3c",
    "a graph that is a number": b"\x08\x09\x38\x07",
    "a graph that is four bytes": b"\x08\x09\x3d\x00\x00\x00\x00",
    "an initializer that is a number": b"\x08\x09" + block(7, b"\x28\x01" + block(2, b"g")),
    "dimensions of a wrong wire type": b"\x08\x09" + block(7, block(5, b"\x0d\x00\x00\x00\x00" + block(8, b"w"))),
    "raw data that is a number": b"\x08\x09" + block(7, block(5, b"\x08\x02\x10\x01\x48\x01" + block(8, b"w"))),
    "packed floats of seven bytes": b"\x08\x09"
    + block(7, block(5, b"\x08\x02\x10\x01" + block(4, bytes(7)) + block(8, b"w"))),
    "a name that is no text": b"\x08\x09"
    + block(7, block(5, b"\x08\x01\x10\x01" + block(8, b"\xff\xfe") + block(9, bytes(4)))),
}


@pytest.mark.parametrize("attack", BYTES)
def test_damaged_protobuf(refused: Any, folder: Path, attack: str) -> None:
    path = folder / "a.onnx"
    path.write_bytes(BYTES[attack])
    harmless = ("a graph that", "an initializer that", "dimensions of", "raw data that")
    found = attack.startswith(harmless)
    if found:  # protobuf passes over a field of a wrong wire type, and so do others: nothing is there to be read
        run = "from layoutx.files.open import open_store\nimport sys\nfrom layoutx.errors import LayoutxError\n"
        run += "try: [t.read() for t in open_store(sys.argv[1]).tensors.values()]\nexcept LayoutxError: pass"
        subprocess.run([sys.executable, "-c", run, str(path)], check=True, timeout=300)
    else:
        refused(path)


def computing(path: Path, *nodes: Any, **arrays: Any) -> Path:
    """A model whose weight `w` the graph computes from small constants, and that `x @ w` reads."""
    given = [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
    return saved(path, *given, nodes=(*nodes, helper.make_node("MatMul", ["x", "w"], ["y"], "layer")))


node = helper.make_node
SIDE = np.array([1 << 20, 1 << 20])
FOLDS = {
    "ConstantOfShape": ([node("ConstantOfShape", ["n"], ["w"])], {"n": SIDE}),
    "Expand": ([node("Expand", ["a", "n"], ["w"])], {"a": np.ones((1, 1), "f4"), "n": SIDE}),
    "Tile": ([node("Tile", ["a", "n"], ["w"])], {"a": np.ones((1, 1), "f4"), "n": SIDE}),
    "Pad": ([node("Pad", ["a", "n"], ["w"])], {"a": np.ones((1, 1), "f4"), "n": np.array([0, 0, 1 << 20, 1 << 20])}),
    "Resize": (
        [node("Resize", ["a", "", "", "n"], ["w"], mode="nearest")],
        {"a": np.ones((1, 1), "f4"), "n": SIDE},
    ),
    "an outer product": (
        [node("MatMul", ["a", "b"], ["w"])],
        {"a": np.ones((50_000, 1), "f4"), "b": np.ones((1, 50_000), "f4")},
    ),
    "broadcasting": (
        [node("Add", ["a", "b"], ["w"])],
        {"a": np.ones((50_000, 1), "f4"), "b": np.ones((1, 50_000), "f4")},
    ),
    "a shape that is computed": (
        [node("Mul", ["n", "n"], ["m"]), node("ConstantOfShape", ["m"], ["w"])],
        {"n": np.array([1 << 10, 1 << 10])},
    ),
    "a shape that inference cannot follow": (
        [
            node("NonZero", ["a"], ["m"]),
            node("ReduceSum", ["m"], ["s"], keepdims=0),
            node("Range", ["zero", "s", "one"], ["r"]),
            node("Unsqueeze", ["r", "first"], ["w"]),
        ],
        {
            "a": np.ones(100_000, "f4"),
            "zero": np.array(0),
            "one": np.array(1),
            "first": np.array([0]),
        },
    ),
    "forty doublings": (
        [node("Concat", [f"v{i}"] * 2, [f"v{i + 1}"], axis=0) for i in range(40)] + [node("Identity", ["v40"], ["w"])],
        {"v0": np.ones((4, 4), "f4")},
    ),
    "a loop of 2^62 rounds": (
        [
            node(
                "Loop",
                ["n", "", "a"],
                ["w"],
                body=helper.make_graph(
                    [node("Identity", ["c"], ["d"]), node("Identity", ["v"], ["u"])],
                    "b",
                    [
                        helper.make_tensor_value_info(*about)
                        for about in (("i", 7, []), ("c", 9, []), ("v", FLOAT, [2, 2]))
                    ],
                    [helper.make_tensor_value_info("d", 9, []), helper.make_tensor_value_info("u", FLOAT, [2, 2])],
                ),
            )
        ],
        {"n": np.array(1 << 62), "a": np.ones((2, 2), "f4")},
    ),
}


@pytest.mark.parametrize("attack", FOLDS)
def test_a_weight_that_the_graph_would_blow_up(victim: Any, folder: Path, attack: str) -> None:
    """Weights that a graph computes are read by computing them: never very much more than the file holds."""
    nodes, arrays = FOLDS[attack]
    path = computing(folder / "a.onnx", *nodes, **arrays)
    found = victim.asked("model", str(path))
    assert found["kind"] in ("fine", "ModelError", "FileError"), found
    assert found["seconds"] <= 1, found
    assert found["bytes"] <= 200 << 20, found


def test_a_weight_that_is_blown_up_is_refused_when_it_is_read(refused: Any, folder: Path) -> None:
    nodes, arrays = FOLDS["Expand"]
    refused(computing(folder / "a.onnx", *nodes, **arrays), "LAYOUTX_LIMIT_EXPANSION", deed="model")


def test_functions_that_double_forty_times(refused: Any, folder: Path) -> None:
    """A thousand million nodes in a file of three kilobytes, once its functions are written out."""
    path = saved(folder / "a.onnx", nodes=(node("f0", ["x"], ["y"], domain="d"),))
    made = onnx.load_model(path)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("d", 1)]
    for i in range(40):
        inner = f"f{i + 1}" if i < 39 else "Relu"
        nodes = [node(inner, ["a"], ["b"], domain="d" * (i < 39)), node(inner, ["b"], ["c"], domain="d" * (i < 39))]
        made.functions.append(helper.make_function("d", f"f{i}", ["a"], ["c"], nodes, opsets))
    made.opset_import.append(opsets[1])
    path.write_bytes(made.SerializeToString())
    refused(path, "written out", "LAYOUTX_LIMIT_FIELDS")


@pytest.mark.parametrize("length", [1, 2, 70])
def test_functions_that_call_themselves(refused: Any, folder: Path, length: int) -> None:
    """In a circle of one, of two, and of more than recursion goes."""
    path = saved(folder / "a.onnx", nodes=(node("f0", ["x"], ["y"], domain="d"),))
    made = onnx.load_model(path)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("d", 1)]
    for i in range(length):
        inner = [node(f"f{(i + 1) % length}", ["a"], ["c"], domain="d")]
        made.functions.append(helper.make_function("d", f"f{i}", ["a"], ["c"], inner, opsets))
    path.write_bytes(made.SerializeToString())
    refused(path, "calls itself" if length < 64 else "LAYOUTX_LIMIT_DEPTH")


def test_nodes_in_a_circle(victim: Any, folder: Path) -> None:
    nodes = [node("Add", ["a", "w"], ["b"]), node("Relu", ["b"], ["w"])]
    path = computing(folder / "a.onnx", *nodes, a=np.ones((2, 2), "f4"))
    found = victim.asked("model", str(path))
    assert found["kind"] in ("fine", "ModelError", "FileError"), found
    assert found["seconds"] < 1, found


def test_opening_runs_nothing(folder: Path) -> None:
    """onnxruntime, which would run a stranger's graph, is not even imported; nor is ONNX's own evaluator."""
    path = saved(folder / "a.onnx", tensor(raw_data=BIG.tobytes()))
    run = "import sys; from layoutx.files.open import open_store\n"
    run += "[tensor.read() for tensor in open_store(sys.argv[1]).tensors.values()]\n"
    run += "assert not {'onnxruntime', 'onnx.reference', 'torch', 'tensorflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", run, str(path)], check=True, timeout=300)
