"""Two models on the same inputs, compared layer by layer: each in its own right, what lies between, end to end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from layoutx.files.open import open_store
from layoutx.job.jobs import options_of
from layoutx.job.joined import Joined, Joint
from layoutx.job.joint import joint
from layoutx.model.keras_live import is_keras
from layoutx.model.keyed import Keyed
from layoutx.model.load import live_model, model_of, says_itself
from layoutx.model.record import ModelRecord
from layoutx.spec.registry import Registry, registry
from layoutx.validation import Validation
from layoutx.verify.compare.both import Both, both
from layoutx.verify.compare.layers import sides_of
from layoutx.verify.compare.limits import OPEN
from layoutx.verify.compare.recorded import compared
from layoutx.verify.compare.stacks import title
from layoutx.verify.compare.subclassed import told
from layoutx.verify.recording import Recording
from layoutx.verify.running.inputs_file import inputs_of
from layoutx.verify.running.opened import Runner, opened


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
    specs: Sequence[str | PathLike[str]] = (),
    tolerance: float | None = None,
) -> Validation:
    """Compare every layer of `b` with its counterpart in `a`, which is taken to be right.

    Args:
        a, b: live models, files of whole models (.keras, .h5, .onnx, .pt2), "package.module:callable", or recordings
            made with `layoutx record`.
        inputs: what both are run on, in the axis order of `a`: an array, several, a mapping by the names of the
            inputs, or a file of them (.npy, .npz, .safetensors); None: random ones of the shapes that a Keras or ONNX
            model says.
        map: a mapping file that `layoutx match` wrote. forms, pairs, skip, only, specs: as for `convert`.
        tolerance: relative difference up to which a layer is OK, in place of the limits of docs/validate.md.

    Raises:
        UsageError: a model that cannot be run; no inputs where none can be made.
        MatchError: layers that could not be paired.
    """
    started = time.perf_counter()
    known = registry(specs)
    first, second = opened(a), opened(b)
    inputs = inputs_of(inputs)
    if "recorded" in (_kind(first), _kind(second)):
        return _stamped(_of_recordings(first, second, inputs, known, tolerance or 0.0, (a, b)), started)
    options = options_of((), skip, only, forms, pairs, map=map)
    here, there = _model(a, first, known, forms), _model(b, second, known, forms)
    joined = joint(here, there, known, options)
    found = both(
        first,
        second,
        joined.pairs,
        inputs,
        channels=(_channels(known, first), _channels(known, second)),
        wires=_wires(here, there, joined),
        problems={title(pair.source): _problem(pair) for pair in joined.pairs},
        tolerance=tolerance or 0.0,
    )
    return _stamped(_validation(found, joined, first, second, (a, b)), started)


def _of_recordings(
    first: Runner, second: Runner, inputs: Any, known: Registry, tolerance: float, given: tuple[Any, Any]
) -> Validation:
    """Two runs of which one at least was recorded: by what flows through them."""

    def kind_of(framework: str, name: str) -> str:
        form = known.forms.get(f"{framework}.{name}")
        return form.kind if form is not None else ""

    channels = (_channels(known, first), _channels(known, second))
    found = compared(first, second, inputs, kind_of, channels, tolerance)
    return Validation(
        _about(first, found.source, given[0]),
        _about(second, found.target, given[1]),
        found.checks,
        end_to_end=tuple(sides_of(found.outputs)),
        layers=len(found.checks),
        compared=sum(check.verdict != OPEN for check in found.checks),
        notes=found.notes,
    )


def _channels(known: Registry, runner: Runner) -> bool:
    """Whether a framework keeps channels first."""
    return known.framework(runner.framework).channels == "first"


def _stamped(found: Validation, started: float) -> Validation:
    return replace(found, seconds=time.perf_counter() - started)


def _kind(runner: Runner) -> str:
    return "recorded" if isinstance(runner.model, Recording) else "live"


def _model(given: Any, runner: Runner, known: Registry, forms: Mapping[str, str] | None) -> Keyed | ModelRecord:
    """What a pairing needs: from the file itself, which says more than what its framework makes of it."""
    if isinstance(given, (str, Path)) and Path(given).exists() and not Path(given).is_dir():
        store = open_store(given)
        if says_itself(store):
            return model_of(store, known, forms or {})
    model = live_model(runner.model, known, forms or {})
    if not isinstance(model, ModelRecord) or not is_keras(runner.model):
        return model
    return told(model, {layer.name: layer for layer in runner.model.layers}, known)


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


def _about(runner: Runner, recording: Recording | None, given: Any) -> dict[str, str]:
    name = Path(given).name if isinstance(given, (str, Path)) else type(given).__name__
    if recording is None:
        return {"name": name, "framework": runner.framework, "version": "", "dtype": ""}
    return {
        "name": name,
        "framework": recording.framework,
        "version": recording.version,
        "dtype": recording.dtype,
    }


def _validation(found: Both, joined: Joint, first: Runner, second: Runner, given: tuple[Any, Any]) -> Validation:
    checks = [check for one in found.looked for check in one.checks]
    open_ = {name: f"could be any of {', '.join(names)}: none was chosen" for name, names in joined.open.items()}
    lost = {**joined.lost, **open_, **joined.skipped}
    evidence = {name: made for one in found.looked for name, made in one.suspects.items()}
    seen = {c.layer.rpartition(".")[0] if _halved(c.layer) else c.layer for c in checks if c.verdict != OPEN}
    return Validation(
        _about(first, found.runs.source, given[0]),
        _about(second, found.runs.target, given[1]),
        tuple(checks),
        found.gaps,
        tuple(sides_of(found.outputs)),
        len(joined.pairs) + len(lost),
        len(seen),
        lost,
        dict(joined.unused),
        found.notes,
        fed=tuple(run.inputs for run in (found.runs.source, found.runs.target) if run is not None),
        bounds=tuple((title(p.source), title(p.target), p.source.bound, p.target.bound) for p in joined.pairs),
        evidence=evidence,
    )


def _halved(name: str) -> bool:
    return name.endswith((".forward", ".backward"))
