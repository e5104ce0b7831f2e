"""ONNX's own recurrent cases: read as files, converted to every form that can hold them, and run there."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layoutx.errors import ConversionError, LayoutxError
from layoutx.files.open import open_store
from layoutx.model.load import model_of
from layoutx.plan.fit import fit
from layoutx.plan.plan import Array
from layoutx.plan.run import run
from layoutx.spec.bound import BoundForm
from layoutx.spec.registry import registry
from layoutx.verify import live
from layoutx.verify.data import canonical_data, data_order, rearrange
from layoutx.verify.layer import run_live
from layoutx.verify.reference import canonically, forward_layer
from scripts.matrix_runs import NEVER_RUN

onnx = pytest.importorskip("onnx")

WEIGHTS = ("W", "R", "B", "P")
ZERO_STATES = ("initial_h", "initial_c")
LENGTHS = "sequence_lens"  # all steps of all samples in these cases, which is what is computed without them


@dataclass(frozen=True)
class Case:
    """One of ONNX's cases: the node with its weights inside, the data, and what it gives."""

    name: str
    model: Any
    x: Array
    outputs: dict[str, Array]


@cache
def cases() -> tuple[Case, ...]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = collect_testcases(None)
    kinds = ("RNN", "GRU", "LSTM")
    return tuple(_case(c) for c in found if c.model is not None and c.model.graph.node[0].op_type in kinds)


def _case(found: Any) -> Case:
    """The weights, which ONNX gives as inputs, become initializers, as a trained model has them."""
    from onnx import helper, numpy_helper

    node = found.model.graph.node[0]
    inputs, outputs = found.data_sets[0]
    given = dict(zip([name for name in node.input if name], inputs, strict=True))
    assert all(not given[name].any() for name in ZERO_STATES if name in given), found.name
    time = given["X"].shape[0]
    assert all(length == time for length in given.get(LENGTHS, [])), found.name
    plain = helper.make_node(
        node.op_type, ["X", *(name if name in (*WEIGHTS, "") else "" for name in node.input[1:])], ["Y", "Y_h"]
    )
    plain.attribute.extend(node.attribute)
    graph = helper.make_graph(
        [plain],
        found.name,
        [i for i in found.model.graph.input if i.name == "X"],
        [helper.make_tensor_value_info("Y", 1, None)],
        [numpy_helper.from_array(given[name], name) for name in WEIGHTS if name in given],
    )
    model = helper.make_model(graph, opset_imports=list(found.model.opset_import), ir_version=10)
    named = dict(zip([name for name in node.output if name], outputs, strict=True))
    return Case(found.name, model, given["X"], {"y" if k == "Y" else k[-1]: v for k, v in named.items()})


def imported(case: Case, folder: Path) -> tuple[BoundForm, dict[str, Array]]:
    """The one layer of the case's file, bound, and its tensors."""
    path = folder / "case.onnx"
    path.write_bytes(case.model.SerializeToString())
    (record,) = (layer for layer in model_of(open_store(path), registry(), {}).layers if layer.tensors)
    shapes = {name: tensor.shape for name, tensor in record.tensors.items()}
    bound = registry().bind(record.form, record.config, shapes=shapes, instance=record.instance)
    return bound, {name: tensor.read() for name, tensor in record.tensors.items()}


def natively(bound: BoundForm, found: dict[str, Array]) -> dict[str, Array]:
    order, native = canonical_data(bound.kind.name), data_order(bound)
    return {
        name: rearrange(array, order[name], native[name], dict(bound.sizes), labels=bound.labels)
        for name, array in found.items()
    }


def test_there_are_cases_of_every_operator() -> None:
    ops = [case.model.graph.node[0].op_type for case in cases()]
    assert {op: ops.count(op) for op in ("RNN", "GRU", "LSTM")} == {"RNN": 6, "GRU": 6, "LSTM": 6}


@pytest.mark.parametrize("name", [case.name for case in cases()])
def test_an_imported_case_is_computed_by_every_form_that_can_hold_it(name: str, tmp_path: Path) -> None:
    (case,) = (c for c in cases() if c.name == name)
    source, tensors = imported(case, tmp_path)
    x = canonically(source, {"x": case.x.astype("float64")})
    wide = {key: array.astype("float64") for key, array in tensors.items()}
    agree(case, natively(source, forward_layer(source, wide, x, dtype="float64")), "the reference")
    ran = []
    for target, result in held(source, wide, x):
        ran.append(target)
        agree(case, natively(source, result), target)
    least = {"keras", "torch"} if source.kind.name != "gru" else {"keras"}
    assert least <= {form.partition(".")[0] for form in ran} or "peepholes" in name or "reverse" in name, ran


def held(source: BoundForm, tensors: dict[str, Array], x: dict[str, Array]) -> Iterator[tuple[str, dict[str, Array]]]:
    """Every form that takes the case over, run in its own framework."""
    for form in source.kind.forms.values():
        if form.name in NEVER_RUN or form.framework not in live.RUNNERS or not live.available(form.framework):
            continue
        try:
            plan = fit(source, form)
            target = run(plan, tensors).tensors
        except ConversionError:
            continue
        except LayoutxError as error:
            if "cannot" in str(error) or "no place" in str(error):
                continue
            raise
        yield form.name, run_live(plan.target, target, x, {}, "float64")[0]


def agree(case: Case, found: dict[str, Array], where: str) -> None:
    for name, wanted in case.outputs.items():
        if name in found:
            np.testing.assert_allclose(found[name], wanted, rtol=0, atol=2e-6, err_msg=f"{case.name} {name}: {where}")


def test_another_gate_order_is_noticed(tmp_path: Path) -> None:
    (case,) = (c for c in cases() if c.name == "test_lstm_with_initial_bias")
    source, tensors = imported(case, tmp_path)
    spoilt = {k: a.astype("float64") for k, a in tensors.items()}
    spoilt["B"] = np.roll(spoilt["B"], 4, axis=1) * np.linspace(1, 2, 32)
    x = canonically(source, {"x": case.x.astype("float64")})
    with pytest.raises(AssertionError):
        agree(case, natively(source, forward_layer(source, spoilt, x, dtype="float64")), "the reference")
