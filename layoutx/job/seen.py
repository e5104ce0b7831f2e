"""What a live torch module computes, where it cannot be traced: seen in a run on inputs of the other model's shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from layoutx.model.entry import shape_of
from layoutx.model.keyed import Keyed, wired
from layoutx.model.record import LayerRecord, ModelRecord
from layoutx.model.torch_flow import followed
from layoutx.model.torch_trace import traced
from layoutx.plan.plan import Array
from layoutx.verify.keywords import keywords_for
from layoutx.verify.made import sized, vocabularies
from layoutx.verify.models import arrangements
from layoutx.verify.plain import is_torch

Model = Keyed | ModelRecord
Tries = Callable[[], Iterator[tuple[Sequence[Array], Sequence[str]]]]  # inputs, and the arguments that they are


def with_run(
    model: Model, live: Any, other: Model, inputs: Any = None, ran: Callable[[], None] = lambda: None
) -> Model:
    """A torch module's names with its wiring from one run of a copy, where it cannot be traced; all else as it is.

    Args:
        live: the model itself; other: its counterpart, whose input shapes it is run on.
        inputs: what it is run on instead, in either model's order of axes.
        ran: is called before it is run: what it computes depends on its numbers.
    """
    if not isinstance(model, Keyed) or not is_torch(live) or not hasattr(live, "register_forward_hook"):
        return model

    def tries() -> Iterator[tuple[Sequence[Array], Sequence[str]]]:
        made = inputs is None
        named = _probes(other) if made else dict(inputs) if isinstance(inputs, Mapping) else {}
        given = list(map(np.asarray, named.values())) if named else _given(inputs) if not made else []
        keywords = keywords_for(live, tuple(named))
        for names in dict.fromkeys((keywords, ())) if given else ():
            for turned, _ in arrangements(given, False, True, mixed=bool(named)):
                yield turned, names

    shapes = {name: tensor.shape for name, tensor in model.tensors.items()}

    @cache
    def flow() -> Mapping[str, LayerRecord]:
        program = traced(live)
        if program is None:
            ran()
            program = _seen(live, tries)
        return followed(program, shapes) if program is not None else {}

    return wired(model, flow)


def _seen(live: Any, tries: Tries) -> Any:
    from layoutx.verify.running.torch_seen import seen

    return next((found for inputs, names in tries() if (found := seen(live, inputs, names)) is not None), None)


def _given(inputs: Any) -> list[Array]:
    return [np.asarray(x) for x in inputs] if isinstance(inputs, (list, tuple)) else [np.asarray(inputs)]


def _probes(model: Model) -> dict[str, Array]:
    """Random inputs of the shapes that a Keras config tells, in the model's order; {} where it tells none."""
    if not isinstance(model, ModelRecord):
        return {}
    rng = np.random.default_rng(20261121)
    limits = vocabularies(model)
    found: dict[str, Array] = {}
    for record in _inputs(model):
        shape = shape_of(record.config, {})
        if shape is None:
            return {}
        sizes = [3, *sized(shape)]
        limit = limits.get(record.name)
        whole = limit or "int" in str(record.config.get("dtype", ""))
        made = rng.integers(0, limit or 2, sizes) if whole else rng.normal(size=sizes).astype("float32")
        found[record.name] = made
    return found


def _inputs(model: ModelRecord) -> list[LayerRecord]:
    """The model's input layers in the order in which it takes them; of an old Sequential its first layer."""
    body = (model.store.config or {}).get("config")
    said = body.get("input_layers", ()) if isinstance(body, Mapping) else ()
    if said and isinstance(said[0], str):  # Keras 3 writes the only one without a list
        said = [said]
    names = [str(one[0]) for one in said if isinstance(one, (list, tuple)) and one]
    own = {record.name: record for record in model.layers if record.class_name == "InputLayer"}
    if names and all(name in own for name in names):
        return [own[name] for name in names]
    top = [record for name, record in own.items() if "/" not in name]
    return top or [record for record in model.layers[:1] if not record.inputs]
