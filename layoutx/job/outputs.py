"""The arrays of an output file: in the target's order and dtypes, with what a template keeps of its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from layoutx.errors import ConsentError, ConversionError, LayoutxError, raise_all
from layoutx.job.jobs import Job, Options
from layoutx.job.run import Moved
from layoutx.model.keyed import Keyed
from layoutx.model.record import ModelRecord

Arrays = dict[str, np.ndarray[Any, Any]]


def arrays_of(moved: Moved, job: Job, target: Keyed | ModelRecord | None, options: Options) -> Arrays:
    """The output's tensors in the target's order; a Keras template lends what is no weight (seeds of dropout)."""
    arrays = {name: moved.arrays[name] for name in job.order if name in moved.arrays}
    if isinstance(target, Keyed):
        arrays.update({t.name: t.read() for t in target.tensors.values() if t.name not in arrays})
        arrays.update({tied: arrays[kept] for tied, kept in job.tied.items() if kept in arrays})
        order = dict.fromkeys((*(t.name for t in target.tensors.values()), *arrays))
        arrays = {name: arrays[name] for name in order if name in arrays}
    if isinstance(target, ModelRecord):
        arrays = _completed(_in_dtypes(arrays, job, moved, target, options), job, target, options)
    return arrays


def _in_dtypes(arrays: Arrays, job: Job, moved: Moved, target: ModelRecord, options: Options) -> Arrays:
    """Arrays in the dtypes of a Keras template, into which Keras would cast them silently when it loads the file.

    Raises:
        ConsentError: a narrower dtype without consent; all tensors together.
        ConversionError: a finite value that the narrower dtype turns into infinity.
    """
    wanted = target.store.tensors
    narrower = []
    for layer in job.layers:
        for name, full in layer.targets.items():
            if target.framework == "onnx":
                arrays[full] = arrays[full].reshape(wanted[full].shape)  # a bias may be spread from (1, n)
            have, want = arrays[full].dtype, wanted[full].dtype
            if have == want:
                continue
            if not np.can_cast(have, want, "safe"):
                narrower.append(f"{full}: {have} to {want}")
                moved.results[layer.record.name].narrowed[name] = (str(have), str(want))
            with np.errstate(over="ignore"):
                cast = arrays[full].astype(want)
            if have.kind == "f" and not np.isfinite(cast[np.isfinite(arrays[full])]).all():
                what = f"{full} does not fit into {want}"
                raise ConversionError(what, where=f"largest value {np.nanmax(np.abs(arrays[full])):.3g}, as {have}")
            arrays[full] = cast
    if narrower and "rounds" not in options.allow:
        raise ConsentError(
            f"the template's dtype is narrower for {len(narrower)} tensors",
            where=narrower[:6],
            do="allow it with --allow rounds (allow={'rounds'} in Python), or give a template of the source's dtype",
        )
    return arrays


def _completed(arrays: Arrays, job: Job, target: ModelRecord, options: Options) -> Arrays:
    from layoutx.files.keras_write import weights_of
    from layoutx.files.onnx_replace import names_of

    problems: list[LayoutxError] = []
    onnx = target.framework == "onnx"
    chosen = onnx and bool(options.skip or options.only)  # it keeps what the user left out
    for name in names_of(target.store, arrays) if onnx else weights_of(target.store):
        if name in arrays:
            continue
        owner = next((r for r in target.layers if any(t.name == name for t in r.tensors.values())), None)
        if owner is not None and owner.form and owner.name not in job.skipped and not chosen:
            problems.append(ConversionError(f"{name} of the template is not written", where=f"layer {owner.name}"))
        else:
            arrays[name] = target.store.tensors[name].read()
    raise_all(problems, "the template has tensors that nothing was found for")
    return arrays
