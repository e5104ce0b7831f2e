"""Two live models on the same inputs: axes turned where one keeps channels first, outputs compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from layoutx.errors import UsageError
from layoutx.model.keras_live import is_keras
from layoutx.model.keyed import Keyed
from layoutx.model.record import ModelRecord
from layoutx.model.tree import family, is_tree
from layoutx.plan.plan import Array
from layoutx.verify.left_out import ended, ends_of
from layoutx.verify.outcome import EndToEnd
from layoutx.verify.plain import called, is_torch, outputs_of, said

# float64 is not tighter: TensorFlow rounds some constants to float32 (gelu's root of 2, 1/sqrt(head_dim) of attention)
RELATIVE = {"float64": 1e-7, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
LENGTHS = (7, 11, 13)  # of axes that a model leaves open
# of maps and volumes: a deep network halves them five times, and Keras pads those of unknown size as if they were even
WIDE = {4: (64, 96, 32), 5: (16, 32, 8)}


def compare_models(source: Any, target: Any, model: Keyed | ModelRecord, inputs: Any = None) -> EndToEnd:
    """Run both on the same inputs and compare all outputs.

    Args:
        source, target: live models; mappings of weights are told to be no models.
        model: the source's record, which tells integer inputs (those of an Embedding) and their range.
        inputs: one array or several, in the source's own axis order; None: random ones.

    Raises:
        UsageError: the given inputs cannot be run by the source or the target.
    """
    for side, one in (("source", source), ("target", target)):
        if is_tree(one) and not callable(called(one)):
            return EndToEnd(note=f"the {side} is a {type(one).__name__} of weights: it cannot be run")
    keras = next((m for m in (source, target) if is_keras(m)), None)
    given = inputs is not None
    arrays = _listed(inputs) if given else probes(keras, model) if keras is not None else []
    if not arrays:
        return EndToEnd(note="no inputs: the models' own shapes are not known")
    swapped = not given and not is_keras(source)  # probes have the axis order of the Keras side
    first, second = (target, source) if swapped else (source, target)
    try:
        expected = outputs_of(first, arrays)
    except Exception as error:
        if given and not is_tree(first):
            raise UsageError("the source does not run on these inputs", why=said(error, 200)) from error
        return EndToEnd(note=f"the models were not run: {said(error)}")
    return _best(first, second, arrays, expected, given)


def _best(first: Any, second: Any, arrays: Sequence[Array], expected: Sequence[Array], given: bool) -> EndToEnd:
    """The comparison under the arrangement of axes that the second model takes and that agrees best."""
    ends: list[EndToEnd] = []
    refused = ""
    for turned, note in arrangements(arrays, _channels_first(first), _channels_first(second)):
        try:
            found = outputs_of(second, turned)
        except Exception as error:  # a wrong arrangement, or a model that cannot run at all
            refused = refused or said(error)
            continue
        ends.append(_difference(expected, found, note))
        if ends[-1].agrees:
            return ends[-1]
    if ends:  # outputs of other shapes are no comparison, and not the same
        return min(ends, key=lambda end: np.inf if end.largest is None or np.isnan(end.largest) else end.largest)
    if given and not is_tree(first) and not is_tree(second):
        raise UsageError("the target does not run on these inputs", why=refused)
    return EndToEnd(note=f"the models were not run on the same inputs: {refused}")


def arrangements(arrays: Sequence[Array], here: bool, there: bool) -> Iterator[tuple[list[Array], str]]:
    """Inputs as they are, and with channels moved: maps first where one model alone has its channels first."""
    options: list[list[tuple[Array, str]]] = []
    for array in arrays:
        plain = (array, "")
        moves = [(-1, 1, "channels turned to the front")] if here != there else []
        moves += [(1, -1, "channels turned to the end")] if here and not there else []
        moves += [(-1, 2, "channels turned behind time")] if here != there and array.ndim > 3 else []  # maps in time
        if array.ndim < 3:
            options.append([plain])
        else:
            moved = [(np.ascontiguousarray(np.moveaxis(array, a, b)), note) for a, b, note in moves]
            options.append([*moved, plain] if array.ndim > 3 else [plain, *moved])
    for choice in product(*options):
        notes = dict.fromkeys(note for _, note in choice if note)
        yield [array for array, _ in choice], ", ".join(notes)


def _channels_first(model: Any) -> bool:
    return is_torch(model) or family(called(model)) in ("equinox", "paddle")


def _difference(expected: Sequence[Array], found: Sequence[Array], note: str) -> EndToEnd:
    if len(expected) != len(found):
        return EndToEnd(agrees=False, note=f"{len(expected)} outputs against {len(found)}")
    largest, scale, worst = 0.0, 0.0, "float64"
    for left, right in zip(expected, found, strict=True):
        apart = [_apart(left, turned) for turned in _turned(right) if turned.shape == left.shape]
        if not apart:
            return EndToEnd(agrees=False, note=f"outputs of shapes {left.shape} and {right.shape}")
        for array in (left, right):
            name = array.dtype.name
            worst = name if name in RELATIVE and RELATIVE[name] > RELATIVE[worst] else worst
        largest = float(np.maximum(largest, min(apart)))  # unlike max(), keeps a NaN
        scale = float(np.maximum(scale, np.abs(left.astype(np.float64)).max(initial=0.0)))
    if largest == 0.0 and scale == 0.0:
        return EndToEnd(largest, scale, worst, None, "all outputs are zero")
    agrees = bool(largest <= RELATIVE[worst] * max(scale, 1e-6))
    return EndToEnd(largest, scale, worst, agrees, note)


def _turned(output: Array) -> list[Array]:
    """An output as it is, and with its channels at the other end: shapes do not tell where lengths are equal."""
    if output.ndim < 3:
        return [output]
    in_time = [(2, -1), (-1, 2)] if output.ndim > 3 else []  # maps in time: channels behind time
    return [output, *(np.moveaxis(output, a, b) for a, b in ((1, -1), (-1, 1), *in_time))]


def _apart(left: Array, right: Array) -> float:
    return float(np.abs(left.astype(np.float64) - right.astype(np.float64)).max(initial=0.0))


def probes(model: Any, record: Keyed | ModelRecord) -> list[Array]:
    """Random inputs of a Keras model's own shapes; integers below the vocabulary where an Embedding reads them."""
    rng = np.random.default_rng(20261121)
    limits, ends = vocabularies(record), ends_of(model)
    found = []
    for tensor in getattr(model, "inputs", None) or []:
        shape = [3, *sized(tensor.shape[1:])]
        name = str(tensor.name).split(":")[0]
        dtype = str(getattr(tensor.dtype, "name", tensor.dtype))
        limit = limits.get(name) or (limits.get("") if len(model.inputs) == 1 else None)
        if limit or "int" in dtype:
            found.append(rng.integers(0, limit or 2, shape).astype(dtype if "int" in dtype else "int64"))
        else:
            found.append(rng.normal(size=shape).astype(dtype))
        value = ends.get(name, ends.get("") if len(model.inputs) == 1 else None)
        if value is not None and found[-1].ndim > 1 and limit != 1:
            found[-1] = ended(found[-1], value)
    return found


def sized(shape: Sequence[int | None]) -> list[int]:
    """A shape without its batch, with a length for each axis that the model leaves open (None)."""
    lengths = WIDE.get(len(shape) + 1, LENGTHS)
    return [lengths[i % 3] if n is None else int(n) for i, n in enumerate(shape)]


def vocabularies(record: Keyed | ModelRecord) -> dict[str, int]:
    """Input name -> vocabulary of the Embedding that reads it; under "" that of any."""
    found: dict[str, int] = {}
    for layer in getattr(record, "layers", ()):
        if layer.form.endswith(".Embedding"):
            size = next(iter(layer.tensors.values())).shape[0]
            for name in (*layer.inputs, ""):
                found[name] = min(size, found.get(name, size))
    return found


def _listed(inputs: Any) -> list[Array]:
    if isinstance(inputs, Mapping):
        inputs = list(inputs.values())
    return [np.asarray(x) for x in inputs] if isinstance(inputs, (list, tuple)) else [np.asarray(inputs)]
