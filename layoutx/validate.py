"""Two models on the same inputs, compared layer by layer: each in its own right, what lies between, end to end."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from layoutx.empty import NOTHING
from layoutx.errors import LayoutxError, UsageError
from layoutx.files.open import open_store
from layoutx.job.jobs import Options, options_of
from layoutx.job.joined import Joined, Joint
from layoutx.job.parted import Sides, paired_sides
from layoutx.model.keras_live import is_keras
from layoutx.model.keyed import Keyed
from layoutx.model.load import live_model, model_of, says_itself
from layoutx.model.record import ModelRecord
from layoutx.model.said import stacks_said
from layoutx.plan.plan import Array
from layoutx.progress import Progress
from layoutx.show.progress import reported
from layoutx.spec.registry import Registry, registry
from layoutx.validated import about, validation
from layoutx.validation import Validation
from layoutx.verify.ahead import Ahead, Begun, ahead
from layoutx.verify.compare.both import both
from layoutx.verify.compare.layers import sides_of
from layoutx.verify.compare.limits import FAIL, OPEN
from layoutx.verify.compare.recorded import compared
from layoutx.verify.compare.stacks import title
from layoutx.verify.compare.subclassed import told
from layoutx.verify.made import FAR, LARGER
from layoutx.verify.recording import Recording
from layoutx.verify.running.inputs_file import inputs_of
from layoutx.verify.running.opened import Runner, opened


@reported
def validate(
    a: Any,
    b: Any,
    inputs: Any = None,
    *,
    map: str | PathLike[str] | None = None,
    forms: Mapping[str, str] | None = None,
    pairs: Mapping[str, str] | None = None,
    skip: Sequence[str] = (),
    only: Sequence[str] = (),
    ignore_keys: Collection[str] = (),
    keep_order: bool | Sequence[str] = False,
    specs: Sequence[str | PathLike[str]] = (),
    tolerance: float | None = None,
    values: Mapping[str, Any] | None = None,
    weights: Any = None,
    progress: bool | Progress | None = None,
) -> Validation:
    """Compare every layer of `b` with its counterpart in `a`, which is taken to be right.

    Args:
        a, b: live models, files of whole models (.keras, .h5, .onnx, .pt2), "package.module:callable", or recordings
            made with `layoutx record`.
        inputs: what both are run on, in the axis order of `a`: an array, several, a mapping by the names of the
            inputs, or a file of them (.npy, .npz, .safetensors); None: random ones of the shapes that a Keras or ONNX
            model says.
        map: a mapping file that `layoutx match` wrote.
        forms, pairs, skip, only, ignore_keys, keep_order, specs, values: as for `convert`.
        tolerance: relative difference up to which a layer is OK, in place of the limits of docs/validate.md.
        weights: the weights of a recorded `a` (a file of it, or the model): its layers are then compared one by one.
        progress: True tells it on a terminal; or a function of (done, of how many, what comes now).

    Raises:
        UsageError: a model that cannot be run; no inputs where none can be made; weights of a model that has its own.
        MatchError: layers that could not be paired.
    """
    options = options_of((), skip, only, forms, pairs, ignore_keys, keep_order, values=values, map=map)
    given = inputs_of(inputs)
    if tolerance is not None and not tolerance >= 0:
        raise UsageError(f"no difference is below {tolerance:g}", do="give a tolerance of at least 0")
    found = compared_models(a, b, given, options, registry(specs), tolerance=tolerance or 0.0, weights=weights)
    return (on_larger(a, b, options, registry(specs)) if found.ok and given is None else None) or found


def on_larger(a: Any, b: Any, options: Options, known: Registry) -> Validation | None:
    """The comparison on made inputs that are much larger, where the outputs plainly differ on these; else None.

    What cuts off large numbers alone (ReLU6 in the place of ReLU, a clip) does not show on others.
    """
    found = None
    for first_only in (True, False):
        try:
            found = compared_models(a, b, None, options, known, first_only=first_only, far=FAR)
        except LayoutxError:  # inputs of one's own, or a model that takes no such numbers
            return None
        if all(check.verdict != FAIL for check in found.end_to_end):
            return None
    return found and replace(found, notes=(LARGER, *found.notes))


def compared_models(
    a: Any,
    b: Any,
    inputs: Any,
    options: Options,
    known: Registry,
    *,
    tolerance: float = 0.0,
    weights: Any = None,
    first_only: bool = False,
    far: float = 1.0,
) -> Validation:
    """As `validate`.

    Args:
        first_only: in the models' own precision, and no further than to the first difference.
        far: how many times as large made inputs are as they are else.
    """
    started = time.perf_counter()
    first, second = opened(a), opened(b)
    if weights is not None and _kind(first) != "recorded":
        raise UsageError("weights are told of a recording alone", why="this model has its own", do="leave them out")
    if "recorded" in (_kind(first) if weights is None else "", _kind(second)):
        return _stamped(_of_recordings(first, second, inputs, known, tolerance, (a, b)), started)
    shapes = inputs if inputs is not None else first.inputs() or second.inputs() or None
    here, there = (
        _model(a if weights is None else weights, first, known, options.forms, options.values, shapes),
        _model(b, second, known, options.forms, stacks_said(options.values), shapes),
    )
    sides = Sides(first, second, here, there)
    joined, sides = paired_sides(sides, inputs, known, options, whole=weights is not None)
    first, second, here, there = sides.first, sides.second, sides.here, sides.there

    def given(arrays: Sequence[Array], swapped: bool) -> Ahead:
        source, target = Begun(first.model, here, "source"), Begun(second.model, there, "target")
        return ahead(*((target, source) if swapped else (source, target)), options.skip, arrays)

    found = both(
        first,
        second,
        joined.pairs,
        inputs,
        channels=(_channels(known, first, here), _channels(known, second, there)),
        wires=_wires(here, there, joined),
        problems={title(pair.source): _problem(pair) for pair in joined.pairs},
        tolerance=tolerance,
        first_only=first_only,
        far=far,
        given=given,
    )
    return _stamped(validation(found, joined, first, second, (a, b)), started)


def _of_recordings(
    first: Runner, second: Runner, inputs: Any, known: Registry, tolerance: float, given: tuple[Any, Any]
) -> Validation:
    """Two runs of which one at least was recorded: by what flows through them."""

    def kind_of(framework: str, name: str) -> str:
        form = known.forms.get(f"{framework}.{name}")
        return form.kind if form is not None else ""

    channels = (_channels(known, first, None), _channels(known, second, None))
    found = compared(first, second, inputs, kind_of, channels, tolerance)
    return Validation(
        about(first, found.source, given[0]),
        about(second, found.target, given[1]),
        found.checks,
        end_to_end=tuple(sides_of(found.outputs)),
        layers=len(found.checks),
        compared=sum(check.verdict != OPEN for check in found.checks),
        notes=found.notes,
        runs=(found.source, found.target),
    )


def _channels(known: Registry, runner: Runner, model: Keyed | ModelRecord | None) -> bool:
    """Whether a model has its channels first: as it says itself, else as its framework has them."""
    if isinstance(model, ModelRecord) and model.channels:
        return model.channels == "first"
    return known.framework(runner.framework).channels == "first"


def _stamped(found: Validation, started: float) -> Validation:
    return replace(found, seconds=time.perf_counter() - started)


def _kind(runner: Runner) -> str:
    return "recorded" if isinstance(runner.model, Recording) else "live"


def _model(
    given: Any,
    runner: Runner,
    known: Registry,
    forms: Mapping[str, str] | None,
    values: Mapping[str, Any] = NOTHING,
    inputs: Any = None,
) -> Keyed | ModelRecord:
    """What a pairing needs: from the file itself, which says more than what its framework makes of it."""
    saved = runner.framework == "tf1"  # a SavedModel that only runs: the folder holds its variables and their names
    if isinstance(given, (str, Path)) and Path(given).exists() and (saved or not Path(given).is_dir()):
        store = open_store(given)
        if saved or says_itself(store) or isinstance(runner.model, Recording):
            return model_of(store, known, forms or {}, values=values)
    live = opened(given).model if isinstance(runner.model, Recording) else runner.model
    model = live_model(live, known, forms or {}, inputs=inputs, values=values)
    if not isinstance(model, ModelRecord) or not is_keras(live):
        return model
    return told(model, {layer.name: layer for layer in live.layers}, known)


def _wires(source: Keyed | ModelRecord, target: Keyed | ModelRecord, joined: Joint) -> dict[str, tuple[str, ...]]:
    """What feeds each layer, by the source's names: from the side that knows its wiring."""
    if isinstance(source, ModelRecord) and any(record.inputs for record in source.layers):
        return {record.name: record.inputs for record in source.layers}
    if not isinstance(target, ModelRecord) or not any(record.inputs for record in target.layers):
        return {}
    names = {pair.target.name: title(pair.source) for pair in joined.pairs}
    wires = {}
    for record in target.layers:  # a layer without a counterpart keeps a name that is none of the source's
        own = tuple(names.get(name, f"target:{name}") for name in record.inputs)
        wires[names.get(record.name, f"target:{record.name}")] = own
    return wires


def _problem(pair: Joined) -> str:
    """Why a pair's weights cannot be converted, in one line; "" where they can."""
    if pair.problem is None:
        return ""
    return " ".join(f"{pair.problem.what}: {pair.problem.why}".rstrip(": ").split())
