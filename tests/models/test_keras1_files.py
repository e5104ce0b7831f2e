"""Real Keras 1.2.2 files, of TensorFlow and of Theano: spec and NumPy give, layer by layer, what Keras recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from layoutx.files.open import open_store
from layoutx.model.bindings import bind_record
from layoutx.model.load import model_of
from layoutx.model.origin import written_by
from layoutx.model.record import ModelRecord
from layoutx.plan.plan import plan
from layoutx.plan.run import run
from layoutx.spec.registry import registry
from layoutx.verify.reference import forward_layer

pytestmark = pytest.mark.models
FILES = ("tf_keras_1", "th_keras_1")


def opened(models: Path, name: str) -> tuple[ModelRecord, dict[str, np.ndarray]]:
    """The model's records, and what Keras recorded: input and the activations of each layer, float64."""
    folder = models / "dl4j-fixtures" / "simple_lstm"
    model = model_of(open_store(folder / f"{name}_model.h5"), registry(), {})
    with h5py.File(folder / f"{name}_inputs_and_outputs.h5") as file:
        known = {key: file[f"activations/{key}"][()].astype("float64") for key in file["activations"]}
        known["x"] = file["inputs/lstm_input_1"][()].astype("float64")
        np.testing.assert_array_equal(file["predictions/dense_1"][()], known["dense_1"].astype("float32"))
    return model, known


def worst(model: ModelRecord, known: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The difference from the recorded activations, relative to the largest, of each layer fed with recorded ones."""
    found, x = {}, known["x"]
    for record in (r for r in model.layers if r.tensors):
        tensors = {name: tensor.read() for name, tensor in record.tensors.items()}
        y = forward_layer(bind_record(record, registry()), tensors, {"x": x}, dtype="float64")["y"]
        y = y[:, -1] if y.ndim == 3 else y  # return_sequences=False
        wanted = x = known[record.name]
        found[record.name] = float(np.abs(y - wanted).max() / max(1.0, np.abs(wanted).max()))
    return found


@pytest.mark.parametrize("name", FILES)
def test_each_layer_gives_what_keras_1_recorded(name: str, models: Path) -> None:
    model, known = opened(models, name)
    assert (model.framework, model.version) == ("keras1", "1.2.2")
    assert [r.form for r in model.layers if r.tensors] == ["keras1.LSTM", "keras1.Dense"]
    found = worst(model, known)
    assert list(found) == ["lstm_1", "dense_1"]
    assert max(found.values()) < 3e-7


@pytest.mark.parametrize(("name", "backend"), [(FILES[0], "tensorflow"), (FILES[1], "theano")])
def test_the_names_tell_the_backend(name: str, backend: str, models: Path) -> None:
    model, _ = opened(models, name)
    assert written_by(model.store) == {"release": "1.2.2", "backend": backend}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("one", "two", "least"),
    [("b_i", "b_c", 1e-3), ("U_f", "U_c", 1e-3), ("W_i", "W_o", 1e-3), ("b_c", "b_o", 1e-3), ("W_i", "W_c", 1e-3)],
)
def test_exchanged_gates_are_seen(name: str, one: str, two: str, least: float, models: Path) -> None:
    """One step from a state of zeros does not read U and f: U_f and U_c exchanged change nothing here."""
    model, known = opened(models, name)
    layers = []
    for record in model.layers:
        held = dict(record.tensors)
        if one in held:
            held[one], held[two] = held[two], held[one]
        layers.append(replace(record, tensors=held))
    error = worst(replace(model, layers=tuple(layers)), known)["lstm_1"]
    assert error < 3e-7 if one.startswith("U") else error > least


@pytest.mark.parametrize("name", FILES)
def test_the_twelve_arrays_become_three_and_come_back(name: str, models: Path) -> None:
    """Through Keras 2's layout, whose hard_sigmoid is the same, bit for bit."""
    model, _ = opened(models, name)
    record = next(r for r in model.layers if r.form == "keras1.LSTM")
    source = bind_record(record, registry())
    config = {"version": 2, "recurrent_activation": "hard_sigmoid"}
    target = registry().bind("keras.LSTM", config, sizes=source.sizes)
    tensors = {key: tensor.read() for key, tensor in record.tensors.items()}
    there = run(plan(source, target), tensors).tensors
    np.testing.assert_array_equal(there["kernel"], np.concatenate([tensors[f"W_{g}"] for g in "ifco"], axis=1))
    back = run(plan(target, source), there).tensors
    assert {k: a.tobytes() for k, a in back.items()} == {k: a.tobytes() for k, a in tensors.items()}
