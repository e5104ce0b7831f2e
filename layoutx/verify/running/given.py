"""What a model is run on: one array, several, or arrays by name, in the order of the model's inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from layoutx.errors import LayoutxError, ModelError, UsageError
from layoutx.plan.plan import Array
from layoutx.verify.plain import COLOURS
from layoutx.verify.recording import Recording
from layoutx.words import near

OTHER_INPUTS = "give inputs of its own shapes, in its own axis order"
Inputs = Any  # one array, a sequence of arrays, or a mapping of them by the names of the inputs


def listed(inputs: Inputs, names: Sequence[str] = ()) -> tuple[Array, ...]:
    """The inputs in the model's order.

    Args:
        names: of the model's inputs, in order; () where it has none: a mapping keeps its own order.
            A model of one input takes one array of any name.

    Raises:
        UsageError: a mapping with other names than the model's.
    """
    if isinstance(inputs, Mapping):
        names = () if len(inputs) == len(names) == 1 else names
        if names and set(inputs) != set(names):
            raise UsageError(
                "the inputs have other names than the model's",
                where=[f"given: {', '.join(map(str, inputs))}", f"the model's: {', '.join(names)}"],
            )
        inputs = [inputs[name] for name in names] if names else list(inputs.values())
    return tuple(np.asarray(x) for x in inputs) if isinstance(inputs, (list, tuple)) else (np.asarray(inputs),)


def only_one(inputs: Inputs, names: Sequence[str]) -> Inputs:
    """One array by a name that no argument (`names`) has, as that array: it can only be the first argument."""
    one = isinstance(inputs, Mapping) and len(inputs) == 1 and not set(inputs) & set(names)
    return list(inputs.values()) if one else inputs


def said(error: BaseException, most: int = 300) -> str:
    """The error in one line."""
    text = " ".join(COLOURS.sub("", str(error)).split()) or type(error).__name__
    return text if len(text) <= most else text[:most] + "..."


def cannot_run(error: Exception) -> LayoutxError:
    """The model itself fails on these inputs."""
    return UsageError(
        "the model does not run on these inputs",
        why=f"{type(error).__name__}: {said(error)}",
        do=OTHER_INPUTS,
    )


def widest(run: Callable[[bool, str], Recording], double: bool, note: str = "") -> Recording:
    """A run in float64, or in the model's own precision where it fails so.

    Args:
        run: called with whether it is in float64, and the note for its recording.

    Raises:
        LayoutxError: as the run; or the model runs in neither.
    """
    if double:
        try:
            return run(True, note)
        except LayoutxError:
            raise
        except Exception as error:  # frameworks raise what they like
            note = f"not in float64: {said(error, 120)}"
    try:
        return run(False, note)
    except LayoutxError:
        raise
    except Exception as error:
        raise cannot_run(error) from error


def widest_layer(run: Callable[[bool], tuple[Array, ...]], name: str, doubles: bool = True) -> tuple[Array, ...]:
    """What one layer gives alone in float64, where it can; in the model's own precision where that fails.

    Raises:
        LayoutxError: as the run. ModelError: it runs in neither.
    """
    problem: Exception | None = None
    for double in (True, False) if doubles else (False,):
        try:
            return run(double)
        except LayoutxError:
            raise
        except Exception as error:
            problem = problem or error
    assert problem is not None
    raise layer_fails(name, problem) from problem


def layer_fails(name: str, error: Exception) -> LayoutxError:
    """One layer alone fails on these inputs."""
    return ModelError(
        f"{name or 'the model'} does not run on these inputs", why=f"{type(error).__name__}: {said(error)}"
    )


def no_layer(name: str, layers: Mapping[str, str]) -> LayoutxError:
    """There is no layer of this name to run."""
    return UsageError(f"the model has no layer {name!r} that can be run", why=near(name, layers))


def resolved(name: str, layers: Iterable[str]) -> str:
    """The layer of this name; keyed views of Keras and ONNX models write `/` as a dot."""
    known = list(layers)
    alike = [layer for layer in known if layer.replace("/", ".") == name.replace("/", ".")]
    return name if name in known or not alike else alike[0]
