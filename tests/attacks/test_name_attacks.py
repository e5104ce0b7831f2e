"""Names that deceive: control characters, marks of direction, no width, a megabyte; in every format and in configs."""

from __future__ import annotations

import json
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layoutx.errors import FileError, UsageError
from layoutx.files.names import named_well
from layoutx.files.open import open_store
from layoutx.files.save import save
from layoutx.files.store import Store, tensor_of

DECEPTIVE = {
    "a_zero_byte": "a\0b",
    "an_ansi_escape": "a\x1b[2J\x1b[31mb",
    "a_c1_escape": "a\x9b31mb",
    "a_newline": "kernel\nok: 3 tensors verified",
    "a_carriage_return": "bad\rgood",
    "a_tab": "a\tb",
    "a_delete_character": "a\x7fb",
    "a_right_to_left_override": "a\u202egpj.b",
    "a_right_to_left_mark": "a\u200fb",
    "an_arabic_letter_mark": "a\u061cb",
    "an_isolate": "a\u2066b\u2069",
    "a_line_separator": "a\u2028b",
    "a_paragraph_separator": "a\u2029b",
    "a_lone_surrogate": "a\ud800b",
    "a_zero_width_space": "ker\u200bnel",
    "a_zero_width_joiner": "ker\u200dnel",
    "a_byte_order_mark": "\ufeffkernel",
    "a_soft_hyphen": "ker\u00adnel",
    "a_tag_character": "kernel\U000e0041",
    "an_interlinear_mark": "a\ufff9b",
}
HARMLESS = (
    "/conv1/Constant_output_0",
    "a:0",
    "a.b",
    "..",
    "a/../b",
    "层/重量",
    "🙂",
    " a ",
    "naïve",
    "<script>",
    "[red]",
)


def _safetensors(path: Path, names: Any, metadata: dict[str, str] | None = None) -> Path:
    """A file of one byte a tensor, the header written as ASCII JSON, whatever the names."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    for k, name in enumerate(names):
        header[name] = {"dtype": "U8", "shape": [1], "data_offsets": [k, k + 1]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(len(names)))
    return path


def _spelled(name: str) -> str:
    return ascii(name)[1:-1][:20]


@pytest.mark.parametrize("attack", DECEPTIVE)
def test_a_tensor_name_with(refused: Any, tmp_path: Path, attack: str) -> None:
    name = DECEPTIVE[attack]
    said = refused(_safetensors(tmp_path / "x.safetensors", [name, "fine"]), "1 tensors", _spelled(name))
    assert all(c.isprintable() or c == "\n" for c in said)


@pytest.mark.parametrize("attack", ["an_ansi_escape", "a_right_to_left_override"])
def test_a_metadata_key_with(refused: Any, tmp_path: Path, attack: str) -> None:
    key = DECEPTIVE[attack]
    path = _safetensors(tmp_path / "x.safetensors", ["a"], {key: "v"})
    refused(path, "1 keys of the metadata", _spelled(key))


def test_names_of_one_megabyte(refused: Any, tmp_path: Path) -> None:
    path = _safetensors(tmp_path / "x.safetensors", ["a" * (1 << 20), "fine"])
    said = refused(path, "1 tensors", "1024 characters", "LAYOUTX_LIMIT_NAME=1048576")
    assert len(said) < 1000


def test_ten_thousand_deceptive_names_are_counted_and_the_first_shown(refused: Any, tmp_path: Path) -> None:
    path = _safetensors(tmp_path / "x.safetensors", [f"a\x1b{k}" for k in range(10_000)])
    said = refused(path, "10,000 tensors", "'a\\x1b0'", "... and 9,996 more")
    assert len(said.splitlines()) < 12


def test_a_member_of_an_npz_called_by_an_escape(refused: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **{"a\x1b[31m": np.ones(3)})
    refused(tmp_path / "x.npz", "a\\x1b[31m")


def test_a_key_of_a_msgpack_tree_called_by_an_escape(refused: Any, tmp_path: Path) -> None:
    serialization = pytest.importorskip("flax.serialization")
    (tmp_path / "x.msgpack").write_bytes(serialization.msgpack_serialize({"p": {"a\x1b[31m": np.ones(3)}}))
    refused(tmp_path / "x.msgpack", "p/a\\x1b[31m")


def test_a_key_of_a_torch_state_called_by_an_escape(refused: Any, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"a\x1b[31m": torch.ones(3)}, tmp_path / "x.pt")
    refused(tmp_path / "x.pt", "a\\x1b[31m")


def test_a_group_of_hdf5_called_by_an_escape(refused: Any, tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "x.weights.h5", "w") as file:
        file.create_dataset("layers/de\x1b[31mnse/vars/0", data=np.ones(3))
    refused(tmp_path / "x.weights.h5", "de\\x1b[31mnse")


def test_a_layer_without_weights_of_a_legacy_file_called_by_an_escape(refused: Any, tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["layer_names"] = [b"flat\x1b[31m"]
        file.create_group("flat\x1b[31m").attrs["weight_names"] = []
    refused(tmp_path / "x.h5", "1 groups", "flat\\x1b[31m")


def test_an_initializer_of_onnx_called_by_an_override_of_direction(refused: Any, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    held = [onnx.numpy_helper.from_array(np.ones(3, np.float32), "a\u202eb")]
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], held))
    (tmp_path / "x.onnx").write_bytes(model.SerializeToString())
    refused(tmp_path / "x.onnx", "a\\u202eb")


def test_a_node_of_onnx_called_by_an_escape(refused: Any, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    held = [onnx.numpy_helper.from_array(np.ones((3, 5), np.float32), "w")]
    nodes = [onnx.helper.make_node("MatMul", ["x", "w"], ["y"], name="fc\x1b[31m")]
    ends = [onnx.helper.make_tensor_value_info(n, 1, [None, size]) for n, size in (("x", 3), ("y", 5))]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], held))
    (tmp_path / "x.onnx").write_bytes(model.SerializeToString())
    refused(tmp_path / "x.onnx", "layer 0", "fc\\x1b[31m", deed="inspect")


def _keras(path: Path, class_name: str = "Dense", name: str = "dense", model: str = "m") -> Path:
    """A `.keras` file of two layers; the second one is called as told."""
    import h5py

    with h5py.File(path.with_suffix(".h5"), "w") as file:
        for layer in ("dense", "dense_1"):
            for k, array in enumerate((np.ones((3, 3)), np.ones(3))):
                file.create_dataset(f"layers/{layer}/vars/{k}", data=array)
    layers = [
        {"class_name": "Dense", "config": {"name": "first", "units": 3}, "module": "keras.layers"},
        {"class_name": class_name, "config": {"name": name, "units": 3}, "module": "keras.layers"},
    ]
    config = {"class_name": "Sequential", "module": "keras", "config": {"name": model, "layers": layers}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        archive.writestr("config.json", json.dumps(config))
        archive.write(path.with_suffix(".h5"), "model.weights.h5")
    return path


@pytest.mark.parametrize("attack", ["a_zero_byte", "an_ansi_escape", "a_right_to_left_override", "a_newline"])
@pytest.mark.parametrize("place", ["class_name", "name"])
def test_a_config_whose_layer_holds(refused: Any, tmp_path: Path, attack: str, place: str) -> None:
    path = _keras(tmp_path / "x.keras", **{place: DECEPTIVE[attack]})
    refused(path, "layer 1", _spelled(DECEPTIVE[attack]), deed="inspect")


def test_a_config_whose_layer_is_called_by_one_megabyte(refused: Any, tmp_path: Path) -> None:
    path = _keras(tmp_path / "x.keras", name="a" * (1 << 20))
    assert len(refused(path, "layer 1", "1024", deed="inspect")) < 1000


def test_a_config_whose_model_is_called_by_an_escape(refused: Any, tmp_path: Path) -> None:
    refused(_keras(tmp_path / "x.keras", model="m\x1b[31m"), "m\\x1b[31m", deed="inspect")


def test_a_config_whose_layer_is_called_by_markup_is_shown_as_it_is(refused: Any, tmp_path: Path) -> None:
    said = refused(_keras(tmp_path / "x.keras", name="<script>[red]"), deed="inspect", fine=True)
    assert "<script>[red]" in said


def test_names_of_other_languages_and_signs_are_no_attack(refused: Any, tmp_path: Path) -> None:
    assert refused(_safetensors(tmp_path / "x.safetensors", HARMLESS), fine=True) == f"{len(HARMLESS)} tensors"


def test_a_longer_name_is_taken_where_the_limit_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _safetensors(tmp_path / "x.safetensors", ["a" * 1025])
    with pytest.raises(FileError, match="longer than 1024 characters"):
        open_store(path)
    monkeypatch.setenv("LAYOUTX_LIMIT_NAME", "1025")
    assert len(open_store(path).tensors) == 1


@pytest.mark.parametrize("ending", [".safetensors", ".npz"])
def test_an_output_holds_no_deceptive_name(tmp_path: Path, ending: str) -> None:
    for name in DECEPTIVE.values():
        with pytest.raises(UsageError, match="1 tensors with a name that is refused"):
            save(tmp_path / f"x{ending}", {name: np.ones(3), "fine": np.ones(3)}, {})
    assert not list(tmp_path.iterdir())


def test_a_hundred_thousand_names_are_looked_at_in_no_time() -> None:
    one = tensor_of("x", np.ones(1))
    store = Store(Path("x"), "npz", {f"model.layers.{k}.mlp.experts.weight": one for k in range(100_000)})
    took = []
    for _ in range(3):
        began = time.thread_time()  # of this thread: other programs do not count
        assert named_well(store) is store
        took.append(time.thread_time() - began)
    assert min(took) < 0.1, "measured: 0.01 s"
