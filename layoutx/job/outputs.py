"""The arrays of an output file: in the target's order and dtypes, with what a template keeps of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from layoutx.files.stacked import together
from layoutx.files.store import Tensor
from layoutx.job.jobs import Job, Options
from layoutx.job.narrowed import narrowed
from layoutx.job.run import Moved
from layoutx.job.unwritten import lent_by
from layoutx.model.keyed import Keyed
from layoutx.model.record import ModelRecord

Arrays = dict[str, np.ndarray[Any, Any]]


def arrays_of(moved: Moved, job: Job, target: Keyed | ModelRecord | None, options: Options) -> Arrays:
    """The output's tensors in the target's order; a Keras template lends what is no weight (seeds of dropout)."""
    arrays = {name: moved.arrays[name] for name in job.order if name in moved.arrays}
    if isinstance(target, Keyed):
        own = [*target.tensors.values(), *target.kept.values()]
        arrays.update({t.name: t.read() for t in own if t.name not in arrays})
    arrays.update({tied: arrays[kept] for tied, kept in job.tied.items() if kept in arrays})
    if isinstance(target, Keyed):
        order = dict.fromkeys((*(t.name for t in own), *arrays))
        arrays = together({name: arrays[name] for name in order if name in arrays}, job.stacked)
    if isinstance(target, ModelRecord):
        wanted = {**target.store.tensors, **{name: part.whole for name, part in job.stacked.items()}}
        arrays = together(in_dtypes(arrays, job, moved, wanted, options), job.stacked)
        arrays = _completed(arrays, job, target, options)
    return arrays


def in_dtypes(arrays: Arrays, job: Job, moved: Moved, wanted: Mapping[str, Tensor], options: Options) -> Arrays:
    """Arrays in the dtypes of a template, into which Keras would cast them silently when it loads the file.

    Args:
        wanted: the template's tensors by name.

    Raises:
        LayoutxError: a narrower dtype without consent, a finite value that it turns into infinity; all together.
    """
    names = {full: (layer, name) for layer in job.layers for name, full in layer.targets.items()}
    if job.target == "onnx":  # a bias may be spread from (1, n)
        arrays.update({full: arrays[full].reshape(wanted[full].shape) for full in names})
    own = {full: arrays[full] for full in names}
    lost = narrowed(own, {full: wanted[full].dtype for full in names}, options.allow, "template")
    for full, dtypes in lost.items():
        layer, name = names[full]
        moved.results[layer.record.name].narrowed[name] = dtypes
    return {**arrays, **{full: array.astype(wanted[full].dtype, copy=False) for full, array in own.items()}}


def _completed(arrays: Arrays, job: Job, target: ModelRecord, options: Options) -> Arrays:
    from layoutx.files.keras_write import weights_of
    from layoutx.files.onnx_replace import names_of

    onnx = target.framework == "onnx"
    chosen = onnx and bool(options.skip or options.only)  # it keeps what the user left out
    names = names_of(target.store, arrays) if onnx else weights_of(target.store)
    lent = lent_by(target, (name for name in names if name not in arrays and name not in job.stacked), job, chosen)
    return {**arrays, **{name: target.store.tensors[name].read() for name in lent}}
