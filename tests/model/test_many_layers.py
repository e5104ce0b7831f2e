"""Models of many layers: what is alike is worked out once, and nothing is done once a layer for all layers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.convert import planned
from layoutx.errors import Problems
from layoutx.files.safetensors import write_safetensors
from layoutx.files.store import Store, tensor_of
from layoutx.job import named as naming
from layoutx.job.jobs import options_of
from layoutx.model import followed
from layoutx.model.keras_groups import _slots as slots
from layoutx.model.keyed import keyed_store
from layoutx.model.state import state_records
from layoutx.plan import fit as fitting
from layoutx.show.report_text import MOST_LAYERS
from layoutx.spec import bind as binding
from layoutx.spec.memo import Memo
from layoutx.spec.registry import registry


def _dense(number: int, units: int) -> dict[str, Any]:
    name = f"dense_{number}" if number else "dense"
    config = {"name": name, "units": units, "activation": "relu", "use_bias": True}
    return {"module": "keras.layers", "class_name": "Dense", "config": config, "registered_name": None}


def _keras(widths: list[int]) -> Store:
    """A `.keras` file of Dense layers, without the file."""
    tensors, layers = {}, []
    for number, (here, there) in enumerate(pairwise(widths)):
        layers.append(_dense(number, there))
        group = f"layers/{layers[-1]['config']['name']}/vars"
        for slot, shape in enumerate(((here, there), (there,))):
            tensors[f"{group}/{slot}"] = tensor_of(f"{group}/{slot}", np.full(shape, number, np.float32))
    body = {"name": "many", "layers": layers, "build_input_shape": [None, widths[0]]}
    config = {"module": "keras", "class_name": "Sequential", "config": body, "registered_name": None}
    return Store(Path("many.keras"), "keras", tensors, config=json.loads(json.dumps(config)), version="3.15.1")


def test_layers_that_are_alike_are_bound_and_planned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {"_bind": 0, "_best_of": 0}
    for module, name in ((binding, "_bind"), (fitting, "_best_of")):
        plain = getattr(module, name)

        def counting(*args: Any, _plain: Any = plain, _name: str = name, **given: Any) -> Any:
            calls[_name] += 1
            return _plain(*args, **given)

        monkeypatch.setattr(module, name, counting)
    monkeypatch.setattr(binding, "_bound", Memo())
    monkeypatch.setattr(fitting, "_best", Memo())
    monkeypatch.setattr(naming, "_ways", Memo())
    job = planned(_keras([7 if n % 2 else 5 for n in range(301)]), "torch", None, registry(), options_of())
    assert len(job.layers) == 300
    assert [layer.record.name for layer in job.layers][:3] == ["dense", "dense_1", "dense_2"]
    assert {layer.plan.source.config["name"] for layer in job.layers} == {layer.record.name for layer in job.layers}
    assert calls["_bind"] < 20
    assert 0 < calls["_best_of"] < 10


def test_widths_are_counted_once_a_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """They were once more for each layer of a model with maps: 2,000 layers took as long as all the rest."""
    plain, looked = followed._widths, list[str]()

    def counting(bound: Any) -> set[int]:
        looked.append(bound.config["name"])
        return plain(bound)

    monkeypatch.setattr(followed, "_widths", counting)
    monkeypatch.setattr(followed, "_makes_maps", lambda record: True)
    assert len(planned(_keras([7] * 101), "torch", None, registry(), options_of()).layers) == 100
    assert set(looked) == {f"dense_{n}" if n else "dense" for n in range(100)}
    assert len(looked) <= 300


def test_groups_that_hold_the_same_names_are_read_once() -> None:
    slots.cache_clear()
    planned(_keras([7 if n % 2 else 5 for n in range(101)]), "torch", None, registry(), options_of())
    assert slots.cache_info().misses == 1


def test_a_parameter_beside_layers_is_told_as_before() -> None:
    """A block that holds layers and a table; one that holds a table alone; a table of the model itself."""
    shapes: Mapping[str, tuple[int, ...]] = {
        "cls": (3, 5),
        "block.pos_embed": (7, 5),
        "block.fc.weight": (11, 5),
        "block.fc.bias": (11,),
        "alone.pos_embed": (7, 5),
        "odd.mask": (7, 5),
    }
    store = Store(Path("x"), "safetensors", {n: tensor_of(n, np.zeros(s, np.float32)) for n, s in shapes.items()})
    found = {r.name: list(r.tensors) for r in state_records(keyed_store(store), registry()).layers}
    assert found == {
        "cls": ["cls"],
        "block.pos_embed": ["pos_embed"],
        "block.fc": ["weight", "bias"],
        "alone.pos_embed": ["pos_embed"],
        "odd": ["mask"],
    }


def test_a_report_of_very_many_layers_is_short_and_its_json_whole(tmp_path: Path) -> None:
    path = tmp_path / "many.safetensors"
    arrays = {}
    for n in range(MOST_LAYERS + 200):
        arrays |= {f"b.{n}.fc.weight": np.ones((3, 2), np.float32), f"b.{n}.fc.bias": np.ones(3, np.float32)}
    write_safetensors(path, arrays, {})
    report = lx.convert(path, to="flax")
    assert len(report.text().split("\n")) < 40
    assert "more like it, the last: b.1199.fc" in report.text()
    assert len(report.to_dict()["layers"]) == MOST_LAYERS + 200
    few = replace(report, layers=report.layers[:9])
    assert "more like it" not in few.text()


def test_very_many_layers_without_a_form_are_told_as_one(tmp_path: Path) -> None:
    path = tmp_path / "many.safetensors"
    write_safetensors(path, {f"b.{n}.fc.weight": np.ones((3, 2), np.float32) for n in range(300)}, {})
    with pytest.raises(Problems) as caught:
        lx.convert(path, to="flax")
    assert len(caught.value.problems) == 300
    assert "299 more like it" in str(caught.value)
    assert len(str(caught.value).split("\n")) < 10
