"""Many places of one shape: where both models call their layers alike, the name says which place it is."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np

import layoutx as lx
from layoutx.files.open import open_store
from layoutx.files.store import tensor_of
from layoutx.model.bindings import bind_record
from layoutx.model.keyed import Keyed
from layoutx.model.places import CROWD, candidates, index_of
from layoutx.model.record import LayerRecord
from layoutx.model.storing import Layer
from layoutx.spec.registry import registry

sys.path.insert(0, str(Path(__file__).parents[1] / "move"))
from keras_files import config_of, dense, write_model

LINEAR = registry().form("torch.Linear")


def named(names):
    return [SimpleNamespace(record=SimpleNamespace(name=name)) for name in names]


def keyed(names):
    tensors = {f"{name}.weight": tensor_of(f"{name}.weight", np.zeros((7, 7))) for name in names}
    return Keyed("torch", tensors)


def test_a_crowd_of_equal_names_is_told_apart_by_them():
    names = [f"block.{k}" for k in range(CROWD + 1)]
    layers = named(f"block/{k}" for k in range(CROWD + 1))
    index = index_of(keyed(names), registry(), layers)
    assert index.named
    assert index.among(layers[3], LINEAR, "weight", (7, 7)) == ["block.3.weight"]
    assert index.among(layers[3], LINEAR, "weight", (7, 5)) == []


def test_a_few_places_or_other_names_are_all_looked_at():
    few = index_of(keyed([f"l{k}" for k in range(9)]), registry(), named(f"l{k}" for k in range(9)))
    assert not few.named
    other = named([*(f"l{k}" for k in range(CROWD)), "head"])
    index = index_of(keyed([f"l{k}" for k in range(CROWD + 1)]), registry(), other)
    assert not index.named
    assert len(index.among(other[0], LINEAR, "weight", (7, 7))) == CROWD + 1


def dense_layers(*shapes):
    records = [
        LayerRecord(
            f"dense_{k}",
            "Dense",
            "keras.Dense",
            {},
            {"kernel": tensor_of(f"{k}/kernel", np.zeros(s)), "bias": tensor_of(f"{k}/bias", np.zeros(s[1:]))},
        )
        for k, s in enumerate(shapes)
    ]
    return [Layer(record, bind_record(record, registry()), {}) for record in records]


def test_layers_of_one_signature_share_their_places():
    tensors = {
        f"l{k}.{name}": tensor_of(f"l{k}.{name}", np.zeros(shape))
        for k, (rows, columns) in enumerate([(7, 7), (7, 5), (7, 7)])
        for name, shape in (("weight", (columns, rows)), ("bias", (columns,)))
    }
    model, layers = Keyed("torch", tensors), dense_layers((7, 7), (7, 5), (7, 7))
    index = index_of(model, registry(), layers)
    first, second, third = (candidates(layer, model, registry(), index=index) for layer in layers)
    assert first is third
    assert [one.prefix for one in first] == ["l0", "l2"]
    assert [one.prefix for one in second] == ["l1"]
    assert candidates(layers[2], model, registry()) == first  # as for the layer alone
    told = candidates(layers[2], model, registry(), {"dense_2.units": 7}, index)
    assert told is not first  # what the user says of one layer counts for that one


def test_a_crowd_comes_back_as_it_was(tmp_path):
    layers = [dense(f"dense_{k}" if k else "dense", 7, 7) for k in range(CROWD + 6)]
    path = write_model(tmp_path / "m.weights.h5", layers, [None, 7])
    out, back = tmp_path / "m.safetensors", tmp_path / "back.weights.h5"
    lx.convert(path, out, to="torch", config=config_of(path), verify="bytes")
    template = tmp_path / "t.keras"
    import zipfile

    with zipfile.ZipFile(template, "w") as archive:
        archive.writestr("metadata.json", '{"keras_version": "3.15.1"}')
        archive.writestr("config.json", config_of(path).read_text())
        archive.write(path, "model.weights.h5")
    lx.convert(out, back, to="keras", like=template, verify="bytes")
    before, after = open_store(path).tensors, open_store(back).tensors
    assert before.keys() == after.keys()
    assert all(tensor.read().tobytes() == after[name].read().tobytes() for name, tensor in before.items())
