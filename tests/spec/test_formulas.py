"""Every formula of the registry is true: where it is an expression, it computes what the real frameworks gave."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layoutx.show.parts import array_of, part_of
from layoutx.show.topics.part import equations
from layoutx.show.topics.words import formula
from layoutx.spec.bound import BoundForm
from layoutx.spec.registry import registry
from layoutx.verify.forward.activations import PLAIN, activation
from layoutx.verify.reference import canonically
from layoutx.verify.roles import as_float
from layoutx.verify.witness import TOLERANCE, Case, bind_case, read, refinement

FOLDER = Path(__file__).parent.parent / "witnesses"
EVALUATED = ("dense", "embedding", "batch_norm", "layer_norm", "rms_norm", "group_norm", "prelu")
PATHS = sorted(p for p in FOLDER.glob("*.npz") if p.name.split(".")[0] in EVALUATED)
GATED = sorted(p for p in FOLDER.glob("*.npz") if p.name.split(".")[0] in ("lstm", "gru"))
FUNCTIONS = {"sqrt", "mean", "variance", "where", "einsum", "batch_mean", "batch_variance", *PLAIN}
WORDS = {"correlate", "convolve", "scatter", "of", "each", "channel", "apart", "T", "x"}
FORMS = [form for form in registry().forms.values() if form.formula]


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.name)
def test_a_formula_names_only_what_the_form_has(form: Any) -> None:
    known = {spec.name for spec in form.tensors} | set(form.config) | FUNCTIONS | WORDS
    for case in form.formula:
        named = set(re.findall(r"[A-Za-z_]\w*", case.value))
        assert named <= known, named - known


def namespace(bound: BoundForm, tensors: dict[str, Any], x: np.ndarray) -> dict[str, Any]:
    """Names that a formula may use: arrays as stored, config values, a few functions; channels are last."""
    group = None
    if bound.kind.name == "group_norm":
        sizes = {name: bound.sizes[name] for name in ("group", "channel") if name in bound.sizes}
        group = sizes.get("group", bound.settings.get("groups"))

    def moment(of: Any) -> Any:
        def function(data: np.ndarray) -> np.ndarray:
            if group is None:
                return np.asarray(of(data, axis=-1, keepdims=True))
            cut = data.reshape(*data.shape[:-1], group, -1)
            each = of(cut, axis=(*range(1, data.ndim - 1), data.ndim), keepdims=True)
            return np.broadcast_to(each, cut.shape).reshape(data.shape)

        return function

    def batch(of: Any) -> Any:
        return lambda data: of(data, axis=tuple(range(data.ndim - 1)), keepdims=True)

    functions = {"sqrt": np.sqrt, "where": np.where, "mean": moment(np.mean), "variance": moment(np.var)}
    functions |= {"batch_mean": batch(np.mean), "batch_variance": batch(np.var)}
    functions |= {name: activation(name) for name in PLAIN}
    config = {key: value for key, value in bound.config.items() if key.isidentifier()}
    return {**config, **functions, **as_float(tensors, "float64"), "x": x}


def evaluated(case: Case) -> tuple[np.ndarray, np.ndarray] | None:
    """What the formula gives and what the framework gave, both with channels last; None where it is no expression."""
    layers = bind_case(case, registry())
    if len(layers) > 1 or refinement(case) or "mask" in case.inputs:
        return None
    bound, tensors = layers[0]
    applied = str(bound.settings.get("activation"))
    text = formula(bound).replace(f"{applied}(", "act(")
    if not text or "einsum" in text or not re.fullmatch(r"[\w\s@+\-*/().>,\[\]]+", text):
        return None
    if bound.config.get("epsilon", 0) is None or bound.config.get("eps", 0) is None:
        return None  # the dtype's own
    x = canonically(bound, as_float(case.inputs, "float64"))["x"]
    names = namespace(bound, tensors, x)
    if "act(" in text:
        names["act"] = activation(applied)
    if "scalar" in bound.config.values():
        return None  # one number without an axis: the formula counts it as one
    if bound.kind.name == "prelu":
        from layoutx.verify.roles import roles

        (name,) = tensors
        names[name] = roles(bound, as_float(tensors, "float64"))["alpha"]  # broadcast as the canonical axes are
    found = np.asarray(eval(text, {"__builtins__": {}}, names))  # the registry's own text
    wanted = case.outputs["y"]
    if set(bound.data.get("y", ())) != set(bound.data.get("x", ())):
        return found, np.asarray(wanted, np.float64)
    return found, canonically_y(bound, wanted)


def canonically_y(bound: BoundForm, y: np.ndarray) -> np.ndarray:
    from layoutx.verify.data import canonical_data, data_order, data_sizes, rearrange

    order, native = canonical_data(bound.kind.name), data_order(bound)
    return rearrange(y, native["y"], order["y"], data_sizes(bound), labels=bound.labels).astype(np.float64)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_the_formula_computes_what_the_framework_did(path: Path) -> None:
    seen = set()
    for case in read(path):
        if not registry().form(case.form).formula:
            continue
        result = evaluated(case)
        if result is None:
            continue
        found, wanted = result
        seen.add(case.form)
        assert found.shape == wanted.shape, case.name
        scale = max(1.0, float(np.abs(wanted).max(initial=0.0)))
        assert float(np.abs(found - wanted).max(initial=0.0)) <= TOLERANCE[case.dtype] * scale * 10, case.name
    said = {case.form for case in read(path) if registry().form(case.form).formula}
    assert not said or seen, f"no case of {said} was evaluated"


class Parts:
    """`w_input.f` of an equation: the part in its usual order."""

    def __init__(self, bound: BoundForm, tensors: dict[str, Any], roles: tuple[str, ...], way: str) -> None:
        self.said = (bound, tensors, roles, way)

    def __getattr__(self, label: str) -> Any:
        bound, tensors, roles, way = self.said
        total: Any = 0.0
        for role in roles:
            if any(atom[0] == role and dict(atom[1])["gate"] == label for atom in bound.places):
                name = f"{role}.{way}.{label}" if len(bound.labels["direction"]) > 1 else f"{role}.{label}"
                total = total + array_of(bound, part_of(bound, name), lambda t: tensors[t].astype(np.float64))
        return total


def stepped(bound: BoundForm, tensors: dict[str, Any], x: np.ndarray, way: str) -> np.ndarray:
    """One direction of an LSTM or a GRU by the equations of the registry: x (batch, time, input) -> h of all steps."""
    several = len(bound.labels["direction"]) > 1
    names: dict[str, Any] = {
        name: Parts(bound, tensors, roles, way)
        for name, roles in {
            "w_input": ("w_input",),
            "w_recurrent": ("w_recurrent",),
            "b": ("b_input", "b_recurrent"),
            "b_input": ("b_input",),
            "b_recurrent": ("b_recurrent",),
        }.items()
    }
    for value in bound.facts.values():
        if isinstance(value, str) and value not in ("after", "before", "forward", "backward"):
            names[value.replace("/", "_").replace(".", "_")] = activation(value)
    labels = list(bound.kind.labels["gate"])
    texts = {}
    for label in labels:
        found = part_of(bound, f"w_input.{way}.{label}" if several else f"w_input.{label}")
        (text,) = (t for t in equations(bound, found) if t)
        for value in bound.facts.values():
            text = text.replace(str(value), str(value).replace("/", "_").replace(".", "_"))
        texts[label] = text.partition(" = ")[2]
    h = c = np.zeros((len(x), bound.sizes["hidden"]))
    outputs = []
    act = activation(str(bound.facts["activation"]))
    for t in range(x.shape[1]):
        here = {**names, "x": x[:, t], "h": h}
        for label in labels:
            here[label] = eval(texts[label], {"__builtins__": {}}, here)  # the registry's own text
        if "o" in here:
            c = here["f"] * c + here["i"] * here["g"]
            h = here["o"] * act(c)
        else:
            h = here["z"] * h + (1 - here["z"]) * here["n"]
        outputs.append(h)
    return np.stack(outputs, axis=1)


@pytest.mark.parametrize("path", GATED, ids=lambda p: p.stem)
def test_the_equations_of_the_gates_compute_what_the_framework_did(path: Path) -> None:
    """With `part()` in its usual order, which is that of `x @ part` for any framework's file."""
    many = 0
    cases = read(path)
    for case in cases[:: max(1, len(cases) // 25)]:
        layers = bind_case(case, registry())
        bound, tensors = layers[0]
        plain = len(layers) == 1 and set(case.inputs) == {"x"} and not bound.maps
        roles = {atom[0] for atom in bound.places}
        if (
            not plain
            or roles & {"peephole", "w_projection"}
            or bound.settings.get("merge_mode") in ("sum", "mul", "ave")
        ):
            continue
        if bound.settings.get("go_backwards") or bound.labels["direction"] == ("backward",):
            continue
        x = canonically(bound, as_float(case.inputs, "float64"))["x"]
        y = canonically_y(bound, case.outputs["y"])
        hidden = bound.sizes["hidden"]
        for at, way in enumerate(bound.labels["direction"]):
            steps = x[:, ::-1] if way == "backward" else x
            found = stepped(bound, tensors, steps, way)
            found = found[:, ::-1] if way == "backward" else found
            wanted = y[..., at * hidden : (at + 1) * hidden]
            np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE[case.dtype] * 10, err_msg=case.name)
        many += 1
    assert many or path.stem == "lstm.haiku"  # which adds to its forget gate at run time
