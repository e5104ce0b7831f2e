"""Files that layoutx would give to their own framework, to run the model in them: what a framework would execute."""

from __future__ import annotations

import io
import json
import os
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layoutx.errors import LayoutxError
from layoutx.verify.running import opened
from layoutx.verify.running.harmless import _is_expression, check_exported, check_keras, check_saved_model

VICTIM = "layoutx_attack_module"


def lambda_config() -> dict[str, Any]:
    """A Lambda layer whose function is marshalled code."""
    code = {"class_name": "__lambda__", "config": {"code": "4wAAAAA=", "defaults": None, "closure": None}}
    return {"class_name": "Lambda", "config": {"name": "evil", "function": code, "function_type": "lambda"}}


def of(module: str, name: str, **more: Any) -> dict[str, Any]:
    return {"module": module, "class_name": name, "config": {"name": "evil"}, "registered_name": None, **more}


CONFIGS: dict[str, dict[str, Any]] = {
    "lambda": lambda_config(),
    "lambda_of_keras_2": {
        "class_name": "Lambda",
        "config": {"function": ["4wAAAA==", None], "function_type": "lambda"},
    },
    "system": of("os", "system"),
    "eval": of("builtins_", "eval"),
    "sentinel": of(VICTIM, "Layer"),
    "registered_name": of("os", "Layer", registered_name="os>system"),
    "function": {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"},
    "get_file": {
        "module": "keras.utils",
        "class_name": "function",
        "config": "get_file",
        "registered_name": "get_file",
    },
    "unsafe_mode": {"module": "keras.config", "class_name": "function", "config": "enable_unsafe_deserialization"},
    "own_loader": of("keras.src.saving.saving_lib", "load_model"),
    "own_loader_at_the_top": of("keras", "load_model"),
    "climbs": of("keras.layers/../os", "system"),
    "torch": of("keras.layers", "TorchModuleWrapper"),
    "torch_of_a_package": {"class_name": "keras>TorchModuleWrapper", "config": {}},
    "saved_model": of("keras.layers", "TFSMLayer"),
    "jax": of("keras.layers", "JaxLayer"),
    "reads_a_file": {"class_name": "StringLookup", "config": {"name": "evil", "vocabulary": "/etc/passwd"}},
    "fetches_a_file": {"class_name": "TextVectorization", "config": {"vocabulary": "gs://bucket/list.txt"}},
    "tf_writes": {"class_name": "TFOpLambda", "config": {"name": "evil", "function": "io.write_file"}},
    "tf_calls_python": {"class_name": "TFOpLambda", "config": {"name": "evil", "function": "numpy_function"}},
    "tf_library": {"class_name": "TFOpLambda", "config": {"name": "evil", "function": "load_op_library"}},
}


def whole(layer: dict[str, Any]) -> dict[str, Any]:
    """A Sequential with the layer in it."""
    return {"module": "keras", "class_name": "Sequential", "config": {"name": "s", "layers": [layer]}}


@pytest.mark.parametrize("attack", CONFIGS)
def test_a_keras_config_that_is_more_than_layers(tmp_path: Path, attack: str) -> None:
    """CVE-2025-1550, CVE-2025-9905, CVE-2025-8747, CVE-2025-12058, CVE-2025-49655."""
    with pytest.raises(LayoutxError) as caught:
        check_keras(tmp_path / "x.keras", whole(CONFIGS[attack]), lambda name: None)
    assert "x.keras is not run" in str(caught.value)


def test_a_class_that_the_user_registered_is_not_refused(tmp_path: Path) -> None:
    own = of("my_models.layers", "Own", registered_name="mine>Own")
    check_keras(tmp_path / "x.keras", whole(own), {"mine>Own": object}.get)


def keras_file(folder: Path, layer: dict[str, Any]) -> Path:
    """A .keras file with weights of an innocent layer."""
    import h5py

    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        file.create_dataset("layers/dense/vars/0", data=np.arange(35.0).reshape(5, 7))
    path = folder / "x.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.5.0"}))
        archive.writestr("config.json", json.dumps(whole(layer)))
        archive.writestr("model.weights.h5", weights.getvalue())
    return path


def legacy_file(folder: Path, layer: dict[str, Any]) -> Path:
    """An .h5 file as Keras 2 wrote it."""
    import h5py

    path = folder / "x.h5"
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(whole(layer))
        file.attrs["keras_version"] = "2.15.0"
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = np.array([b"dense"])
        group.create_group("dense").attrs["weight_names"] = np.array([b"dense/kernel:0"])
        group["dense"].create_dataset("dense/kernel:0", data=np.arange(35.0).reshape(5, 7))
    return path


@pytest.fixture
def sentinel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that leaves a file when it is imported, on the path of this process."""
    left = tmp_path / "imported"
    (tmp_path / f"{VICTIM}.py").write_text(f"open({str(left)!r}, 'w').close()\nclass Layer: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return left


@pytest.mark.parametrize("made", [keras_file, legacy_file], ids=["keras", "h5"])
@pytest.mark.parametrize("attack", ["sentinel", "lambda", "lambda_of_keras_2", "system", "function", "get_file"])
def test_a_hostile_config_is_text_to_every_reader(
    tmp_path: Path, sentinel: Path, made: Callable[[Path, dict[str, Any]], Path], attack: str
) -> None:
    """Opening, inspecting, converting like it, and running: nothing is imported, nothing runs."""
    from layoutx.files.open import open_store
    from layoutx.inspect import inspect

    path = made(tmp_path, CONFIGS[attack])
    before = set(sys.modules)
    store = open_store(path)
    assert store.config is not None
    with suppress(LayoutxError):
        inspect(path).text()
    assert VICTIM not in sys.modules
    assert not {"keras", "tf_keras", "tensorflow"} & (set(sys.modules) - before)
    assert not sentinel.exists()


@pytest.mark.parametrize("made", [keras_file, legacy_file], ids=["keras", "h5"])
@pytest.mark.parametrize("attack", ["sentinel", "lambda"])
def test_a_hostile_keras_file_is_not_run(
    tmp_path: Path, sentinel: Path, made: Callable[[Path, dict[str, Any]], Path], attack: str
) -> None:
    with pytest.raises(LayoutxError, match="is not run"):
        opened(made(tmp_path, CONFIGS[attack]))
    assert not sentinel.exists()
    assert VICTIM not in sys.modules


class Evil:
    """A pickle that makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def program(path: Path) -> Path:
    """A harmless exported program."""
    torch = pytest.importorskip("torch")

    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.ReLU()).double().eval()
    batch = torch.export.Dim("batch")
    x = torch.ones(2, 5, dtype=torch.float64)
    torch.export.save(torch.export.export(model, (x,), dynamic_shapes=({0: batch},)), path)
    return path


def rewritten(path: Path, change: Callable[[str, bytes], bytes], **more: bytes) -> Path:
    """The archive with other members."""
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    root = next(iter(members)).partition("/")[0]
    with zipfile.ZipFile(path, "w") as new:
        for name, data in members.items():
            new.writestr(name, change(name, data))
        for name, data in more.items():
            new.writestr(f"{root}/{name}", data)
    return path


def test_exported_programs_that_are_more_than_a_graph(tmp_path: Path) -> None:
    """torch.export.load unpickles inputs and constants, evaluates sizes as Python code, and loads libraries."""
    import pickle

    good = program(tmp_path / "good.pt2")
    check_exported(good)
    evil = pickle.dumps(Evil(tmp_path / "made"), 2)
    code = f"__import__('os').mkdir({str(tmp_path / 'made')!r})"
    text = "__import__"

    def inputs(name: str, data: bytes) -> bytes:
        return evil if "sample_inputs" in name else data

    def expression(name: str, data: bytes) -> bytes:
        if "/models/" not in name:
            return data
        found = data.replace(b'"expr_str": "', b'"expr_str": "' + json.dumps(code + " + ")[1:-1].encode())
        assert found != data
        return found

    def target(name: str, data: bytes) -> bytes:
        found = data.replace(b"torch.ops.aten.relu.default", b"torch.ops.aten.from_file.default")
        return found if "/models/" in name else data

    def pickled(name: str, data: bytes) -> bytes:
        return data.replace(b'"use_pickle": false', b'"use_pickle": true')

    attacks = {
        "inputs": (inputs, {}, "example inputs"),
        "expression": (expression, {}, text),
        "target": (target, {}, "from_file"),
        "pickled": (pickled, {}, "pickled"),
        "library": (lambda name, data: data, {"data/aotinductor/m/m.so": b"\x7fELF"}, "m.so"),
        "object": (lambda name, data: data, {"data/constants/custom_obj_0": evil}, "custom_obj_0"),
        "old": (lambda name, data: data, {"data/constants/m.pt": evil}, "m.pt"),
    }
    for attack, (change, more, word) in attacks.items():
        path = tmp_path / f"{attack}.pt2"
        path.write_bytes(good.read_bytes())
        with pytest.raises(LayoutxError) as caught:
            opened(rewritten(path, change, **more))  # type: ignore[arg-type]
        assert word in str(caught.value), attack
        assert path.name in str(caught.value)
    assert not (tmp_path / "made").exists()


def test_a_script_that_reads_files(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    class Reads(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[name-defined]
            return x + torch.from_file("/etc/passwd", False, 3, dtype=torch.uint8)

    source = "def forward(self, x):\n    return x + torch.from_file('/etc/passwd', False, 3, dtype=torch.uint8)\n"
    module = torch.jit.ScriptModule()
    module.define(source)
    torch.jit.save(module, str(tmp_path / "x.pt"))
    with pytest.raises(LayoutxError, match="is not run") as caught:
        opened(tmp_path / "x.pt")
    assert "from_file" in str(caught.value)


def test_a_saved_model_that_writes_files(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    out = tmp_path / "written"

    class Net(tf.Module):  # type: ignore[misc, name-defined]
        @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.float32, name="x")])  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> dict[str, Any]:
            tf.io.write_file(str(out), "evil")
            return {"y": x}

    model = Net()
    tf.saved_model.save(model, str(tmp_path / "m"), signatures=model.__call__)
    out.unlink(missing_ok=True)
    with pytest.raises(LayoutxError, match="WriteFile"):
        opened(tmp_path / "m")
    with pytest.raises(LayoutxError, match="m is not run"):
        check_saved_model(tmp_path / "m")
    assert not out.exists()


def test_a_saved_model_that_saves_when_it_is_called(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")

    class Net(tf.Module):  # type: ignore[misc, name-defined]
        @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.float32, name="x")])  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> dict[str, Any]:
            tf.raw_ops.SaveV2(prefix=str(tmp_path / "c"), tensor_names=["x"], shape_and_slices=[""], tensors=[x])
            return {"y": x}

    model = Net()
    tf.saved_model.save(model, str(tmp_path / "m"), signatures=model.__call__)
    with pytest.raises(LayoutxError, match="is not run"):
        opened(tmp_path / "m")


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        ("Symbol('s31', positive=True, integer=True)", True),
        ("Add(Mul(Integer(2), Symbol('s0')), Integer(-1))", True),
        ("2*s0 + 1", True),
        ("Float('0.5', precision=53)", True),
        ("__import__('os').system('id')", False),
        ("Symbol('a').func", False),
        ("eval('1')", False),
        ("exec(Symbol('x'))", False),
        ("(input)()", False),
        ("s0[0]", False),
        ("lambda: 1", False),
        ("sympify(Symbol('__import__(1)'))", False),
    ],
)
def test_a_size_that_torch_would_evaluate(text: str, formula: bool) -> None:
    assert _is_expression(text) is formula
