"""The job between two live models, or from a file into one: planned, or that of an earlier call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layoutx.errors import UsageError
from layoutx.files.open import open_store
from layoutx.job.jobs import Job, Options
from layoutx.job.kept import Kept, Looked, keep, kept, key_of
from layoutx.job.paired import plan_pair
from layoutx.job.seen import with_run
from layoutx.model.config import config_of
from layoutx.model.in_parts import settled
from layoutx.model.keyed import Keyed
from layoutx.model.load import is_keras_file, keyed_of, live_model, model_of, says_itself, with_forms
from layoutx.model.record import ModelRecord
from layoutx.model.state import state_records
from layoutx.model.tree_config import told
from layoutx.spec.memo import uncollected
from layoutx.spec.registry import Registry


@dataclass
class Planned:
    """A job, and what else is known of the call; layers are read again only where somebody asks for them."""

    job: Job
    kept: Kept
    registry: Registry
    here: Callable[[], Keyed | ModelRecord]
    there: Callable[[], Keyed | ModelRecord]


@uncollected()
def planned_between(
    source: Any,
    target: Any,
    known: Registry,
    options: Options,
    from_: str = "",
    inputs: Any = None,
    config: Any = None,
) -> Planned:
    """The job from a live model or a file into a live model; that of an earlier call, where both are built alike.

    Args:
        from_, inputs, config: as for `port`.

    Raises:
        UsageError: a config for a source that is no Keras file.
        LayoutxError: what cannot be done, all of it together.
    """
    key = key_of(source, target, options, from_, inputs) if config is None else None
    found = kept(key, source, known)
    looked = Looked(key is not None)

    def here() -> Keyed | ModelRecord:
        own = _source(source, known, options, from_, inputs, looked, config)
        return with_run(own, source, goal(), inputs)

    def goal() -> Keyed | ModelRecord:
        return live_model(target, known, inputs=inputs, values=options.values)

    if found is not None:
        return Planned(found[0], found[1], known, here, goal)
    first = _source(source, known, options, from_, inputs, looked, config)
    there = looked.watched(goal())
    model = with_run(first, source, there, inputs, looked.ran)
    there = with_run(there, target, model, inputs, looked.ran)
    if any(isinstance(one, Keyed) and one.kept for one in (first, there)):
        looked.ran()  # what a buffer holds says that nobody trained it
    job = plan_pair(model, there, known, options)
    return Planned(job, keep(key, job, _many(model, job), known, looked), known, lambda: model, lambda: there)


def planned_into(source: Any, target: ModelRecord, known: Registry, options: Options, from_: str = "") -> Job:
    """The job from a live torch module into a file that describes its model: who feeds whom is told by both."""
    first = _source(source, known, options, from_, None, Looked(False), None)
    return plan_pair(with_run(first, source, target), target, known, options)


def _source(
    source: Any, known: Registry, options: Options, from_: str, inputs: Any, looked: Looked, config: Any
) -> Keyed | ModelRecord:
    store = open_store(source) if isinstance(source, (str, Path)) else None
    if config is not None and (store is None or not is_keras_file(store)):
        what = store.path.name if store is not None else f"a {type(source).__name__}"
        raise UsageError(f"{what} is not a Keras file: a model config says nothing about it", do="leave config out")
    if store is not None:
        if says_itself(store):
            return model_of(
                store, known, options.forms, values=options.values, config=config_of(config), framework=from_
            )
        found: Keyed | ModelRecord = keyed_of(store, from_, known, options.values)
    else:
        found = looked.watched(live_model(source, known, options.forms, from_, inputs, options.values))
    if isinstance(found, ModelRecord):
        return found
    found = settled(found, options.materialise, options.skip)
    if found.framework == "torch":
        return found
    records = told(state_records(found, known, options.values), found, known)
    return with_forms(records, known, options.forms, values=options.values)


def _many(model: Keyed | ModelRecord, job: Job) -> int:
    """How many tensors the source has; tied ones count where the target has a layer for each."""
    if isinstance(model, ModelRecord):
        return len(model.store.tensors)
    used = {tensor.name for layer in job.layers for tensor in layer.sources.values()}
    return len(used | model.distinct().tensors.keys() | model.kept.keys())
