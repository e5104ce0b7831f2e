"""How a fix is written: one line of the framework's own code, and the layoutx option that makes it needless."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from layoutx.spec.bound import BoundForm
from layoutx.spec.schema import Cases, Reading, choose
from layoutx.verify.diagnose.suspect import Suspect


def rewritten(suspect: Suspect, tensor: str, steps: str) -> str:
    """A line of the target's code that puts `steps` (".reshape(2, 3)", NumPy words) of a tensor in its place."""
    place, framework = suspect.place, suspect.target.form.framework
    match framework:
        case "torch":
            name = ".".join(part for part in (place.partition("/")[0], tensor) if part)  # rnn/layer_1 is in rnn
            steps = steps.replace(".transpose(", ".permute(").replace("np.", "torch.")
            return f'w = model.state_dict()["{name}"]; w.copy_({_applied(steps)}.clone())'  # state_dict() detaches
        case "keras" | "tf_keras":
            at = [t.name for t in suspect.target.tensors].index(tensor)  # Keras lists weights in the form's order
            return f'w = model.get_layer("{place}").weights[{at}]; w.assign({_applied(steps, "w.numpy()")})'
        case "onnx":
            return f"w = onnx.numpy_helper.to_array({tensor}); {tensor}.CopyFrom(onnx.numpy_helper.from_array({_applied(steps)}, {tensor}.name))"  # noqa: E501
        case "flax" | "haiku" | "nnx":
            return f'w = params["{place}"]["{tensor}"]; params["{place}"]["{tensor}"] = {_applied(steps)}'
        case _:
            return f"{place}.{tensor} = {_applied(steps, f'{place}.{tensor}')}"


def _applied(steps: str, w: str = "w") -> str:
    return f"({steps.replace('{w}', w)})" if "{w}" in steps else w + steps


def with_keyword(suspect: Suspect, cases: Cases, value: Any) -> str:
    """The target's constructor with the config value that means `value`: `torch.nn.BatchNorm2d(..., eps=0.001)`."""
    bound = suspect.target
    reading = choose(cases, bound.config)
    if not isinstance(reading, Reading):
        return ""
    return constructor(
        bound, f"{reading.config}={_spelled(reading.values, value, reading.complement)!r}", suspect.place
    )


def constructor(bound: BoundForm, keyword: str, place: str) -> str:
    """The target's class called with one more keyword, or its node given one attribute."""
    framework, name = bound.form.framework, bound.form.class_name
    match framework:
        case "torch":
            return f"{place} = torch.nn.{name}(..., {keyword})"
        case "keras" | "tf_keras":
            return f'keras.layers.{name}(..., {keyword}, name="{place}")'
        case "onnx":
            return f"onnx.helper.make_node({name!r}, ..., {keyword})"
        case _:
            return f"{framework}.{name}(..., {keyword})"


def _spelled(values: Mapping[str, Any], value: Any, complement: bool) -> Any:
    for word, meaning in values.items():
        if meaning == value and type(meaning) is type(value):
            return word
    if complement and isinstance(value, float):
        return round(1.0 - value, 12)
    return value


def ported(suspect: Suspect, more: str = "") -> str:
    """The layoutx call that writes the layer as its form reads it."""
    return " ".join(part for part in (f"layoutx port SOURCE TARGET --only {suspect.name}", more) if part)


def loaded_from(bound: BoundForm, sources: Mapping[str, str]) -> str:
    """A line of the target's code that gives each place the numbers that another one holds now."""
    pairs = ", ".join(f'"{place}": "{other}"' for place, other in sources.items())
    match bound.form.framework:
        case "torch":
            return f"held = copy.deepcopy(model); [model.get_submodule(to).load_state_dict(held.get_submodule(at).state_dict()) for to, at in {{{pairs}}}.items()]"  # noqa: E501
        case "keras" | "tf_keras":
            return f"held = {{l.name: l.get_weights() for l in model.layers}}; [model.get_layer(to).set_weights(held[at]) for to, at in {{{pairs}}}.items()]"  # noqa: E501
        case _:
            return f"for each of {{{pairs}}}: load into the first what lies at the second"


def numbers(values: Sequence[int]) -> str:
    """Arguments of reshape and transpose."""
    return ", ".join(str(value) for value in values)
