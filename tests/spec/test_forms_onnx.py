"""Every onnx form against the operator's own schema: input names in order, attributes, their defaults."""

from __future__ import annotations

from typing import Any

import pytest

from layoutx.spec.registry import registry

onnx = pytest.importorskip("onnx")

DATA = {"X", "A", "input", "indices", "sequence_lens", "initial_h", "initial_c"}
OWN = {"rank", "since_version", "spatial", "is_test"}  # what a reader adds, or an older operator version had
FORMS = """Gemm Conv ConvTranspose Gather BatchNormalization LayerNormalization
RMSNormalization GroupNormalization InstanceNormalization PRelu RNN LSTM GRU"""


def _default(attribute: Any) -> Any:
    if not attribute.default_value.name:
        return None
    value = onnx.helper.get_attribute_value(attribute.default_value)
    return value.decode() if isinstance(value, bytes) else value


@pytest.mark.parametrize("name", FORMS.split())
def test_inputs_and_attributes_are_those_of_the_operator(name: str) -> None:
    form, schema = registry().form(f"onnx.{name}"), onnx.defs.get_schema(name)
    assert str(schema.since_version) in form.source
    assert [t.name for t in form.tensors] == [i.name for i in schema.inputs if i.name not in DATA]
    optional = {i.name for i in schema.inputs if i.option == onnx.defs.OpSchema.FormalParameterOption.Optional}
    assert {t.name for t in form.tensors if t.optional} == optional - DATA
    assert set(schema.attributes) <= set(form.config) | form.ignore | registry().framework("onnx").ignore
    for key, value in form.config.items():
        if key in OWN:
            continue
        real = _default(schema.attributes[key])
        if real is None or key == "activations":  # the operator's rule: strides and dilations 1, pads 0
            assert value in (None, 0, 1)
        else:
            assert value == pytest.approx(real) if isinstance(real, float) else value == real


def test_each_direction_binds_the_labels_it_has() -> None:
    for direction, count in (("forward", 1), ("reverse", 1), ("bidirectional", 2)):
        bound = registry().bind("onnx.GRU", {"direction": direction}, sizes={"hidden": 5, "input": 7})
        assert [(t.name, t.shape) for t in bound.tensors] == [
            ("W", (count, 15, 7)),
            ("R", (count, 15, 5)),
            ("B", (count, 30)),
        ]
    only = registry().bind("onnx.GRU", {"direction": "reverse"}, sizes={"hidden": 5, "input": 7})
    assert {dict(labels)["direction"] for _, labels in only.places} == {"backward"}


def test_reset_follows_linear_before_reset() -> None:
    for value, fact in ((1, "after"), (0, "before")):
        assert (
            registry().bind("onnx.GRU", {"linear_before_reset": value}, sizes={"hidden": 5, "input": 7}).facts["reset"]
            == fact
        )
