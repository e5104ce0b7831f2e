"""What a live torch module computes, where it cannot be traced: seen in a run on inputs of the other model's shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from layoutx.model.keyed import Keyed, wired
from layoutx.model.record import LayerRecord, ModelRecord
from layoutx.model.share import Share
from layoutx.model.torch_dealt import dealt
from layoutx.model.torch_flow import followed, lost
from layoutx.model.torch_program import Program
from layoutx.model.torch_trace import traced, unopened
from layoutx.plan.plan import Array
from layoutx.spec.registry import registry
from layoutx.verify.keywords import keywords_for
from layoutx.verify.made import told_inputs
from layoutx.verify.made_onnx import onnx_inputs
from layoutx.verify.models import arrangements
from layoutx.verify.plain import is_torch
from layoutx.verify.running.torch_rows import first_rows
from layoutx.verify.running.whole import first_in
from layoutx.verify.spare import spare_masks

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

    first = first_in(other.framework, other, registry())

    def tries() -> Iterator[tuple[Sequence[Array], Sequence[str]]]:
        made = inputs is None
        named = _probes(other) if made else dict(inputs) if isinstance(inputs, Mapping) else {}
        named = {name: array for name, array in named.items() if name not in spare_masks(live, tuple(named))}
        given = list(map(np.asarray, named.values())) if named else _given(inputs) if not made else []
        keywords = keywords_for(live, tuple(named))
        for names in dict.fromkeys((keywords, ())) if given else ():
            for turned, *_ in arrangements(given, first, True, mixed=bool(named)):
                yield turned, names

    shapes = {name: tensor.shape for name, tensor in model.tensors.items()}

    refused: list[str] = []

    @cache
    def flow() -> Mapping[str, LayerRecord]:
        program = traced(live)
        found = followed(program, shapes) if program is not None else {}
        if program is None or unopened(program, live):
            ran()
            program = _seen(live, tries, refused)
        elif lost(found):  # its sizes were not known: a run without numbers tells them, and depends on none
            program = _seen(live, tries, [], ("meta",))
        else:
            return found
        return followed(program, shapes) if program is not None else found

    @cache
    def told() -> Mapping[str, Mapping[str, Any]]:
        ran()
        return next((found for inputs, names in tries() if (found := first_rows(live, inputs, names))), {})

    @cache
    def parts() -> tuple[Program, Mapping[str, tuple[Share, ...]]] | None:
        program = _seen(live, tries, [], ("meta",))
        if program is None:
            ran()
            program = _seen(live, tries, [], (None,))
        return (program, dealt(program)) if program is not None else None

    return replace(wired(model, flow), told=told, refused=refused, dealt=parts)


def _seen(live: Any, tries: Tries, refused: list[str], devices: Sequence[str | None] = ("meta", None)) -> Any:
    """The program of the first run that succeeds; `refused` is told why none did."""
    from layoutx.verify.running.torch_seen import seen

    for inputs, names in tries():
        if (found := seen(live, inputs, names, devices, refused)) is not None:
            refused.clear()
            return replace(found, tried=True)
    return None


def _given(inputs: Any) -> list[Array]:
    return [np.asarray(x) for x in inputs] if isinstance(inputs, (list, tuple)) else [np.asarray(inputs)]


def _probes(model: Model) -> dict[str, Array]:
    if not isinstance(model, ModelRecord):
        return {}
    return onnx_inputs(model) if model.framework == "onnx" else told_inputs(model)
