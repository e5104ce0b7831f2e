"""Settings and facts that differ: epsilon, activations, the place of the reset gate, the direction of time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import isfinite
from typing import Any

import numpy as np

from layoutx.errors import LayoutxError
from layoutx.verify.diagnose.evaluate import outputs
from layoutx.verify.diagnose.fixes import with_keyword
from layoutx.verify.diagnose.suspect import Edit, Suspect

# epsilons that frameworks use: Keras 1e-3, torch 1e-5, flax 1e-6, BERT 1e-12, Keras 1 1e-6, darknet 1e-5, Caffe 1e-5
EPSILONS = (1e-3, 1e-5, 1e-6, 1e-12, 1e-8, 1e-4, 1.1e-5, 2e-5, 1e-7, 1e-2, 0.0)
NORMS = ("batch_norm", "layer_norm", "rms_norm", "group_norm")
ACTIVATIONS = (
    *("linear", "relu", "tanh", "sigmoid", "hard_sigmoid_0.2", "hard_sigmoid_1/6", "gelu", "gelu_tanh", "silu"),
    *("elu", "selu", "softplus", "softsign", "relu6", "exponential", "mish"),
    *("leaky_relu_0.01", "leaky_relu_0.1", "leaky_relu_0.2", "leaky_relu_0.3"),
)
RARE = ("selu", "softplus", "softsign", "relu6", "exponential", "mish", "elu", 2e-5, 1e-2, 1e-7, 0.0)
OTHERS: Mapping[str, tuple[Any, ...]] = {
    "reset": ("after", "before"),
    "statistics": ("running", "batch", "instance"),
    "eps_added_to": ("variance", "deviation"),
    "theta": (10000.0, 500000.0, 1000000.0),
    "causal": (True, False),
    "invert": (True, False),
    "activation": ACTIVATIONS,
    "gate_activation": ACTIVATIONS,
}
MODES: Mapping[str, str] = {
    "reset": "F5",
    "statistics": "F10",
    "eps_added_to": "F8",
    "theta": "F24",
    "direction": "F18",
}


def setting(suspect: Suspect, name: str, default: Any = None) -> Any:
    """What the target computes with: as the suspect says, else as its form reads its config."""
    return {**suspect.target.settings, **suspect.settings}.get(name, default)


def fact(suspect: Suspect, name: str) -> Any:
    """The same for a fact."""
    known = suspect.target.kind.facts.get(name)
    return {**suspect.target.facts, **suspect.facts}.get(name, known.default if known else None)


def epsilons(suspect: Suspect) -> Iterator[Edit]:
    """The source's own epsilon, those that frameworks use, and the one that fits (F8)."""
    if suspect.target.kind.name not in NORMS:
        return
    now, own = setting(suspect, "eps"), suspect.source.settings.get("eps")
    for value in dict.fromkeys([own, *EPSILONS]):
        if value is not None and value != now:
            whose = f", {suspect.source.form.name}'s {value:g}" if value == own else f", not {value:g}"
            yield _set(suspect, "F8", "eps", value, f"{suspect.target.form.name} computes with eps={now}{whose}")
    what = f"{suspect.target.form.name} computes with eps={now}, and another one fits"
    yield Edit("F8", "eps", what, _solved, code="give the layer the eps that fits", short="another eps", solves=True)


def _set(suspect: Suspect, mode: str, name: str, value: Any, what: str) -> Edit:
    def apply(s: Suspect) -> Suspect:
        return replace(s, settings={**s.settings, name: value})

    code = with_keyword(suspect, suspect.target.form.settings.get(name, ()), value)
    code = code or f"y = {value}({suspect.place}(x))   # what follows the layer"
    family = name if name == "eps" else "activation"
    option = "layoutx port and convert list it under: set these on the target" if name == "eps" else ""
    return Edit(mode, family, what, apply, option, code, f"{name} {value}", rare=value in RARE)


def _solved(suspect: Suspect) -> Suspect:
    """With the epsilon at which the output farthest from zero is what the source gave; unchanged where none is."""

    def at(eps: float) -> np.ndarray[Any, Any]:
        return outputs(replace(suspect, settings={**suspect.settings, "eps": eps}))["y"]

    try:
        wide, narrow = at(1.0), at(1e-16)
        index = np.unravel_index(np.nanargmax(np.abs(wide - narrow)), wide.shape)
        goal, up = float(suspect.expected["y"][index]), bool(wide[index] > narrow[index])
        low, high = -16.0, 0.0
        for _ in range(60):
            middle = (low + high) / 2
            above = float(at(10.0**middle)[index]) > goal
            low, high = (low, middle) if above == up else (middle, high)
    except (LayoutxError, KeyError, ValueError, IndexError):
        return suspect
    found = 10.0 ** ((low + high) / 2)
    if not isfinite(found) or not -15.9 < np.log10(found) < -0.01:
        return suspect
    nice = float(f"{found:.3g}")
    return replace(suspect, settings={**suspect.settings, "eps": nice if abs(nice - found) < 1e-6 * found else found})


def functions(suspect: Suspect) -> Iterator[Edit]:
    """Another activation after the layer, or within it; the reset gate elsewhere (F5, F10, F19, F20, F24, F31)."""
    bound = suspect.target
    if "activation" in bound.kind.settings:
        now = setting(suspect, "activation") or "linear"
        for value in ACTIVATIONS:
            if value != now:
                what = f"{bound.form.name}'s result goes through {now}, not {value}"
                yield _set(suspect, _of_activation(str(now), value), "activation", value, what)
    for name, known in bound.kind.facts.items():
        now = fact(suspect, name)
        own = suspect.source.facts.get(name, known.default)
        for value in dict.fromkeys([own, *OTHERS.get(name, ())]):
            if value != now and _possible(suspect, name, value):
                yield _other(suspect, name, now, value, known.why)


def _possible(suspect: Suspect, name: str, value: Any) -> bool:
    if name != "statistics":
        return True
    return value in {"batch_norm": ("running", "batch"), "group_norm": ("instance", "running")}.get(
        suspect.target.kind.name, ()
    )


def _of_activation(now: str, value: str) -> str:
    names = now + value
    return "F20" if "gelu" in now and "gelu" in value else "F31" if "leaky_relu" in names else "F19"


def _other(suspect: Suspect, name: str, now: Any, value: Any, why: str) -> Edit:
    def apply(s: Suspect) -> Suspect:
        return replace(s, facts={**s.facts, name: value})

    mode = _of_activation(str(now), str(value)) if "activation" in name else MODES.get(name, "F19")
    words = name.replace("_", " ")
    what = f"{suspect.target.form.name} has {words} {now}, not {value}: {why}"
    code = with_keyword(suspect, suspect.target.form.facts.get(name, ()), value)
    code = code or f"{suspect.place}: use a layer whose {words} is {value}"
    torch = suspect.target.form.framework == "torch" and name in ("reset", "activation", "gate_activation")
    option = f"layoutx.torch has layers with {words} {value}" if torch else ""
    return Edit(mode, words, what, apply, option, code, f"{words} {value}", rare=value in RARE)
