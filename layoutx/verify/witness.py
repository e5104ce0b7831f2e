"""A spec against what a real framework computed: its outputs, found again from the weights with NumPy alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from layoutx.errors import VerificationError
from layoutx.frozen import frozen
from layoutx.model.einsum import parse
from layoutx.plan.plan import Array
from layoutx.spec.bind import bind, tensor_names
from layoutx.spec.bound import BoundForm
from layoutx.spec.registry import Registry
from layoutx.spec.schema import Form, Kind
from layoutx.verify.reference import canonically, forward_layer, natively, span
from layoutx.verify.roles import as_float

TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
GROUPS = ("tensors", "inputs", "outputs")
SHAPED = ("onnx", "tflite")  # frameworks whose nodes take their sizes from the weights
ORDERED = ("keras", "torch", "onnx")  # frameworks that list a layer's weights in an order of their own


@frozen
class Case:
    """One layer of a real framework, its weights, and what it made of an input.

    Attributes:
        form: the form that is said to describe it.
        config: keywords of the real constructor, or attributes of the node; for keras also `version` (2: tf_keras).
        refine: dims of a refined axis as stored: {"features": "h w"}.
        tensors: native names (keras: paths below the layer) -> weights, in the layer's own order.
        inputs, outputs: `x` or `query`, `key`, `value`; `y`, `h`, `c`; axes in the framework's own order.
        framework, version: `keras`, `tf_keras`, `torch`, `onnx`, `flax`, ..., as installed when it was captured.
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
        """Framework, form, shapes of the inputs (onnx: and of the weights), every keyword: unique."""
        given = [f"{key}={json.dumps(value)}" for key, value in self.config.items()]
        own = [f"{key}{array.shape}" for key, array in self.tensors.items()] if self.framework in SHAPED else []
        shapes = [str(array.shape) for array in self.inputs.values()]
        return " ".join([f"{self.framework}:", self.form, *shapes, *own, *given])


def check(case: Case, reg: Registry) -> float:
    """Largest difference between what the spec and the NumPy reference compute and what the framework did.

    The difference is relative to the largest output, or to the largest weight where that is larger and below one.

    Raises:
        VerificationError: the spec's tensors are not the layer's, in name or order; an output has another shape.
        LayoutxError: the spec does not bind to the config and the weights.
    """
    found = compute(case, reg)
    if found.keys() != case.outputs.keys():
        names = ", ".join(case.outputs), ", ".join(found)
        raise VerificationError(f"{case.framework} gave {names[0]}; by the spec there are {names[1]}", where=case.name)
    largest = 0.0
    for name, wanted in found.items():
        got = case.outputs[name]
        if wanted.shape != got.shape:
            raise VerificationError(
                f"{name} has shape {got.shape} in {case.framework} and {wanted.shape} by the spec", where=case.name
            )
        scale = max(span(case.tensors), float(np.abs(got).max(initial=0.0))) or 1.0
        largest = float(np.maximum(largest, np.abs(wanted - got).max(initial=0.0) / scale))  # keeps a NaN
    return largest


def compute(case: Case, reg: Registry) -> dict[str, Array]:
    """The layer's outputs in the framework's own axis order, by spec and NumPy, in float64."""
    stored = refinement(case)
    last = {axis: f"({text})" for axis, text in stored.items()}
    layers = bind_case(case, reg)
    x = canonically(layers[0][0], as_float(case.inputs, "float64"), stored, last)
    results = []
    for bound, tensors in layers:
        found = forward_layer(bound, tensors, x, last, dtype="float64")
        x = {"x": found["y"]}
        results.append(natively(bound, found, stored, last))
    states = {name: np.concatenate([r[name] for r in results]) for name in results[0] if name != "y"}
    return {"y": results[-1]["y"], **states}


def bind_case(case: Case, reg: Registry) -> list[tuple[BoundForm, dict[str, Array]]]:
    """The bound form and the tensors under its names; several for the layers of a stack.

    Raises:
        VerificationError: the spec names or orders the tensors otherwise than the framework.
    """
    kind, form, config = reg.kind_of(case.form), reg.form(case.form), spec_config(case)
    instances = _instances(kind, form, config, len(case.tensors))
    names = [name for own, _ in instances for name in own]
    optional = {spec.name for spec in form.tensors if spec.optional}
    names = [name for name in names if name in case.tensors or name not in optional]
    tensors = _renamed(case, form, names)
    bound = []
    for own, instance in instances:
        held = {name: tensors[name] for name in own if name in tensors}
        shapes = {name: array.shape for name, array in held.items()}
        bound.append((bind(kind, form, config, shapes=shapes, refine=refinement(case), instance=instance), held))
    return bound


def spec_config(case: Case) -> dict[str, Any]:
    """The config as the spec reads it: an EinsumDense also has the letters of its equation."""
    config = dict(case.config)
    if "equation" in config:
        letters = parse(str(config["equation"]), config.get("bias_axes"))
        config |= {"kernel_dims": " ".join(letters.kernel), "bias_dims": " ".join(letters.bias)}
        config["use_bias"] = config.get("bias_axes") is not None
    return config


def refinement(case: Case) -> dict[str, str]:
    """Dims of refined axes as stored and as they stand in the data."""
    if "equation" not in case.config:
        return dict(case.refine)
    letters = parse(str(case.config["equation"]), case.config.get("bias_axes"))
    return {"input": " ".join(letters.input), "output": " ".join(letters.output)}


def _instances(
    kind: Kind, form: Form, config: Mapping[str, Any], many: int
) -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    if not form.each:
        return [(tensor_names(kind, form, config), {})]
    layers = many // max(1, len(tensor_names(kind, form, config)))
    return [(tensor_names(kind, form, config, {form.each: n}), {form.each: n}) for n in range(max(1, layers))]


def _renamed(case: Case, form: Form, names: Sequence[str]) -> dict[str, Array]:
    """The tensors under the spec's names; keras counts by position, and its paths' last words must agree.

    Where weights are a mapping by name, their order says nothing.
    """
    native = list(case.tensors)
    if form.framework not in ORDERED and sorted(names) == sorted(native):
        return {name: case.tensors[name] for name in names}
    plain = [name.rpartition("/")[2] for name in names], [name.rpartition("/")[2] for name in native]
    sides = [[_side(name) for name in listed] for listed in (names, native)]
    agree = form.framework == "keras" and plain[0] == plain[1] and sides[0] == sides[1]
    if list(names) != native and not agree:
        raise VerificationError(
            f"{case.framework} {case.version} stores {', '.join(native) or 'nothing'}",
            where=case.name,
            why=f"the spec of {form.name} says {', '.join(names) or 'nothing'}",
        )
    return dict(zip(names, case.tensors.values(), strict=True))


def _side(path: str) -> str:
    """`forward` or `backward`, where a part of a Keras path says it: `forward_lstm/lstm_cell/kernel`."""
    return next((side for side in ("forward", "backward") if path.startswith(f"{side}_")), "")


def write(path: Path, cases: Sequence[Case]) -> None:
    """Write cases to one compressed `.npz`.

    `cases` is JSON text; all numbers of one group and dtype stand end to end in one array ("outputs float64"), since
    a zip entry for each of a thousand small arrays would be larger than the arrays.
    """
    about: list[dict[str, Any]] = []
    flat: dict[str, list[Array]] = {}
    for case in cases:
        known = {key: getattr(case, key) for key in ("form", "config", "refine", "framework", "version", "dtype")}
        for group in GROUPS:
            held: Mapping[str, Array] = getattr(case, group)
            known[group] = [[name, str(array.dtype), list(array.shape)] for name, array in held.items()]
            for array in held.values():
                flat.setdefault(f"{group} {array.dtype}", []).append(array.reshape(-1))
        about.append(known)
    text = np.frombuffer(json.dumps(about).encode(), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole: dict[str, Any] = {key: np.concatenate(pieces) for key, pieces in flat.items()}
    np.savez_compressed(path, cases=text, **whole)


def read(path: Path) -> list[Case]:
    """The cases of one file, in the order in which they were written."""
    with np.load(path, allow_pickle=False) as file:
        flat = {key: file[key] for key in file.files}
    used = dict.fromkeys(flat, 0)
    found = []
    for known in json.loads(flat["cases"].tobytes().decode()):
        for group in GROUPS:
            held = {}
            for name, dtype, shape in known[group]:
                key, size = f"{group} {dtype}", prod(shape)
                held[name] = flat[key][used[key] : used[key] + size].reshape(shape)
                used[key] += size
            known[group] = held
        found.append(Case(**known))
    return found
