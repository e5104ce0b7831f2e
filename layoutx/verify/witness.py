"""A spec against what a real framework computed: the captured outputs, found again from the weights with NumPy alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from layoutx.empty import NOTHING
from layoutx.errors import VerificationError
from layoutx.lang.parse import parse_dims
from layoutx.lang.tree import Dim
from layoutx.model.einsum import parse
from layoutx.plan.plan import Array
from layoutx.spec.bind import bind, tensor_names
from layoutx.spec.bound import BoundForm
from layoutx.spec.registry import Registry
from layoutx.spec.schema import Form, Kind
from layoutx.verify.data import canonical_data, rearrange
from layoutx.verify.forward import forward
from layoutx.verify.forward.activations import activation
from layoutx.verify.roles import as_float, roles

TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
MERGES = {"sum": lambda y: y.sum(2), "mul": lambda y: y.prod(2), "ave": lambda y: y.mean(2)}


@dataclass(frozen=True, slots=True)
class Case:
    """One layer of a real framework, its weights, and what it made of an input.

    Attributes:
        form: the form that is said to describe it.
        config: keywords of the real constructor, or attributes of the node; for keras also `version` (2: tf_keras).
        refine: dims of a refined axis as stored: {"features": "h w"}.
        tensors: native names (keras: paths below the layer) -> weights, in the layer's own order.
        inputs, outputs: `x` or `query`, `key`, `value`; `y`, `h`, `c`; axes in the framework's own order.
        framework, version: `keras`, `tf_keras`, `torch` or `onnx`, as installed when it was captured.
        dtype: in which the framework computed.
    """

    form: str
    config: Mapping[str, Any]
    refine: Mapping[str, str]
    tensors: Mapping[str, Array]
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    framework: str
    version: str
    dtype: str

    @property
    def name(self) -> str:
        """The form and every keyword: unique among all cases."""
        given = " ".join(f"{key}={json.dumps(value)}" for key, value in self.config.items())
        return f"{self.framework}: {self.form} {given}".strip()


def check(case: Case, reg: Registry) -> float:
    """Largest difference between what the spec and the NumPy reference compute and what the framework did.

    The difference is relative to the largest output (absolute where that is below one).

    Raises:
        VerificationError: the spec's tensors are not the layer's, in name or order; an output has another shape.
        LayoutxError: the spec does not bind to the config and the weights.
    """
    found = compute(case, reg)
    largest = 0.0
    for name, wanted in found.items():
        got = case.outputs[name]
        if wanted.shape != got.shape:
            raise VerificationError(
                f"{name} has shape {got.shape} in {case.framework} and {wanted.shape} by the spec", where=case.name
            )
        scale = max(1.0, float(np.abs(got).max(initial=0.0)))
        largest = max(largest, float(np.abs(wanted - got).max(initial=0.0)) / scale)
    if found.keys() != case.outputs.keys():
        raise VerificationError(f"the outputs are {', '.join(case.outputs)}", where=case.name)
    return largest


def compute(case: Case, reg: Registry) -> dict[str, Array]:
    """The layer's outputs in the framework's own axis order, by spec and NumPy, in float64."""
    last = {axis: f"({text})" for axis, text in case.refine.items()}
    layers = bind_case(case, reg)
    first = layers[0][0]
    order, native = canonical_data(first.kind.name), data_order(first)
    refine = bound_refine(case)[1]
    x = {
        name: rearrange(array, native[name], order[name], first.sizes, labels=first.labels, refine_here=refine, refine_there=last)
        for name, array in as_float(case.inputs, "float64").items()
    }
    results = []
    for bound, tensors in layers:
        results.append(_layer(bound, tensors, x, last or bound_refine(case)[0]))
        x = {"x": results[-1]["y"]}
    found = {"y": results[-1]["y"]}
    found |= {name: np.concatenate([r[name] for r in results]) for name in ("h", "c") if name in results[0]}
    merge = MERGES.get(str(first.settings.get("merge_mode")))
    if merge is not None:  # no dims of the spec name this order: the two directions are one
        y = found.pop("y")
        merged = {"y": merge(y.reshape(*y.shape[:2], 2, -1))}
    else:
        merged = {}
    return merged | {
        name: rearrange(array, order[name], native[name], first.sizes, labels=_stack(first, name, array), refine_here=last, refine_there=refine)
        for name, array in found.items()
    }
