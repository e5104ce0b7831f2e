"""Jobs between live models, kept: what has the structure of the last call is not planned again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock
from typing import Any

import numpy as np

from layoutx.errors import ModelError
from layoutx.files.store import Tensor
from layoutx.frozen import frozen
from layoutx.job.jobs import Job, LayerJob, Options
from layoutx.job.structure import structure
from layoutx.model.keras_live import is_keras, live_tensors
from layoutx.model.keyed import Keyed, torch_tensor
from layoutx.model.record import ModelRecord
from layoutx.spec.registry import Registry
from layoutx.verify.plain import is_torch

Model = Keyed | ModelRecord
MOST = 8  # jobs: a plan is a few hundred kilobytes, and no numbers
_jobs: OrderedDict[Any, Kept] = OrderedDict()
_lock = Lock()


@frozen
class Kept:
    """A job without the models that it was made for.

    Attributes:
        job: its tensors have names, dtypes and shapes, and cannot be read.
        many: how many tensors the source has.
        more: what was computed of it since, by whoever did.
    """

    registry: Registry
    job: Job
    many: int
    more: dict[str, Any] = field(default_factory=dict)


@dataclass
class Looked:
    """Whether a job was decided by numbers: it holds for these alone then, and is not kept.

    Attributes:
        on: whether anybody wants to know. at: whether numbers were used. plain: tensors as the model holds them.
    """

    on: bool
    at: bool = False
    plain: dict[int, Tensor] = field(default_factory=dict)

    def ran(self) -> None:
        """Numbers were used."""
        self.at = True

    def watched(self, model: Model) -> Model:
        """The same model, whose tensors tell when they are read."""
        if not self.on:
            return model
        known: dict[int, Tensor] = {}

        def one(tensor: Tensor) -> Tensor:
            if id(tensor) not in known:
                known[id(tensor)] = replace(tensor, read=partial(self._read, tensor))
                if not tensor.derived:
                    self.plain[id(known[id(tensor)])] = known[id(tensor)]
            return known[id(tensor)]

        if isinstance(model, Keyed):
            return replace(model, tensors={name: one(tensor) for name, tensor in model.tensors.items()})
        layers = tuple(replace(r, tensors={n: one(t) for n, t in r.tensors.items()}) for r in model.layers)
        store = replace(model.store, tensors={name: one(tensor) for name, tensor in model.store.tensors.items()})
        return replace(model, layers=layers, store=store)

    def _read(self, tensor: Tensor) -> Any:
        self.at = True
        return tensor.read()


def key_of(source: Any, target: Any, options: Options, *more: Any) -> Any:
    """What a job between two live models depends on, without their numbers; None where that cannot be told.

    Args:
        more: what else was said: arrays count by their shapes and dtypes.
    """
    if not all(is_keras(model) or is_torch(model) for model in (source, target)):
        return None
    said = [_shapes(one) for one in more]
    return structure(source, target, options, said)


def _shapes(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _shapes(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)) and not all(isinstance(one, (int, float, str)) for one in value):
        return [_shapes(one) for one in value]
    if value is None or isinstance(value, (str, bool)):
        return value
    array = np.asarray(value)
    return array.shape, str(array.dtype)


def kept(key: Any, source: Any, registry: Registry) -> tuple[Job, Kept] | None:
    """The job of an earlier call, to read from this source; None where there is none.

    Args:
        key: of `key_of`.
    """
    with _lock:
        found = _jobs.get(key) if key is not None else None
        if found is None or found.registry is not registry:
            return None
        _jobs.move_to_end(key)
    own = live_tensors(source) if is_keras(source) else _state(source)
    return _read_from(found.job, lambda tensor: own[tensor.name]), found


def keep(key: Any, job: Job, many: int, registry: Registry, looked: Looked) -> Kept:
    """Keep a job for the next call, unless it depends on numbers or reads what is no plain tensor of the source."""
    found = Kept(registry, _stripped(job), many)
    tensors = [tensor for layer in job.layers for tensor in layer.sources.values()]
    if key is None or looked.at or not all(id(tensor) in looked.plain for tensor in tensors):
        return found
    with _lock:
        _jobs[key] = found
        while len(_jobs) > MOST:
            _jobs.popitem(last=False)
    return found


def _read_from(job: Job, tensor_of: Callable[[Tensor], Tensor]) -> Job:
    """A job whose source tensors are others."""
    layers = [replace(one, sources={n: tensor_of(t) for n, t in one.sources.items()}) for one in job.layers]
    return replace(job, layers=tuple(layers))


def _stripped(job: Job) -> Job:
    """A job that holds on to no model."""
    known: dict[int, Tensor] = {}

    def unread(tensor: Tensor) -> Tensor:
        if id(tensor) not in known:  # most stand in the record and among the sources
            known[id(tensor)] = replace(tensor, read=partial(_gone, tensor.name))
        return known[id(tensor)]

    def own(layer: LayerJob) -> LayerJob:
        tensors = {name: unread(tensor) for name, tensor in layer.record.tensors.items()}
        return replace(layer, record=replace(layer.record, tensors=tensors))

    return _read_from(replace(job, layers=tuple(own(layer) for layer in job.layers)), unread)


def _gone(name: str) -> Any:
    raise ModelError(f"{name} is of a model of an earlier call")


def _state(module: Any) -> dict[str, Tensor]:
    state = module.state_dict(keep_vars=True)
    return {name: torch_tensor(name, value) for name, value in state.items() if hasattr(value, "copy_")}


def forget() -> None:
    """Plan all anew."""
    with _lock:
        _jobs.clear()
