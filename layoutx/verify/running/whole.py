"""The model in a file, compared with a live one by their outputs: run by its own framework, if that loads it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from layoutx.errors import LayoutxError, UsageError
from layoutx.frozen import frozen
from layoutx.model.keras_live import is_keras
from layoutx.model.keyed import Keyed
from layoutx.model.record import ModelRecord
from layoutx.plan.plan import Array
from layoutx.spec.registry import Registry, registry
from layoutx.verify.made import enlarged
from layoutx.verify.models import compare_models
from layoutx.verify.outcome import EndToEnd
from layoutx.verify.plain import is_torch
from layoutx.verify.running.opened import Runner, opened


def first_in(framework: str, model: Keyed | ModelRecord, known: Registry) -> bool | None:
    """Whether a model's maps have their channels first: as it says itself, as is usual where a framework has one way.

    An ONNX graph may come from a framework of either way: None where its own nodes do not say.
    """
    said = model.channels if isinstance(model, ModelRecord) else ""
    if said or framework == "onnx":
        return said == "first" if said else None
    return known.framework(framework).channels == "first"


@frozen
class Function:
    """A runner as a function of arrays, in the model's own dtype: what `compare_models` calls.

    `channels_first`: how it takes its maps; None where nobody can tell.
    """

    runner: Runner
    channels_first: bool | None = None

    def __call__(self, data: Array | Sequence[Array], training: bool = False) -> tuple[Array, ...]:
        """The model's outputs at inference."""
        return tuple(self.runner.record(list(data) if isinstance(data, list) else [data], double=False).outputs)


def compare_file(
    path: Path,
    target: Any,
    model: Keyed | ModelRecord,
    inputs: Any = None,
    left_out: Collection[str] = (),
    there: Keyed | ModelRecord | None = None,
    far: float = 1.0,
) -> EndToEnd:
    """Run the model in a file and a live one on the same inputs; the note says why, where the file cannot be run.

    Args:
        model: the file's record. inputs: in the axis order of the file's model; None: random ones.
        left_out, there, far: as for `compare_models`.

    Raises:
        UsageError: one of the two does not run on the inputs that were given.
    """
    try:
        runner = opened(path)
    except LayoutxError as error:
        why = error.why or "; ".join(error.where)
        return EndToEnd(note=f"{error.what}: {why}" if why else error.what)
    if is_keras(runner.model) or is_torch(runner.model):
        return compare_models(runner.model, target, model, inputs, left_out, there, far=far)
    whole = Function(runner, first_in(runner.framework, model, registry()))
    if inputs is None and is_keras(target):
        end = compare_models(whole, target, model, None, left_out, there, far=far)
        if end.agrees is not None or end.largest is not None:
            return end  # else the file may take its own shapes alone: a graph that was exported for a batch of 2
    if inputs is not None:
        return compare_models(whole, target, model, inputs, left_out, there)
    try:
        return compare_models(whole, target, model, enlarged(runner.inputs(), far) or None, left_out, there)
    except UsageError as error:
        return EndToEnd(note=f"{error.what}: {error.why}")
