"""Who feeds whom in a graph of which nobody knows what becomes of the axes: edges between records, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from layoutx.model.flow import Flow
from layoutx.model.graph import Graph, Node
from layoutx.model.keras_leaves import cells_of
from layoutx.model.readers import ELSE
from layoutx.model.wiring import Ref

Made = Mapping[tuple[str, int], Sequence[str]]


def fed(flow: Flow, graph: Graph, prefix: str, given: Sequence[str]) -> list[str]:
    """Remembers what feeds each record of a graph, nested ones too.

    Args:
        prefix: of the records' names. given: what makes each of the graph's inputs, "" of the model's own.

    Returns:
        What makes each of its outputs; [] where the graph does not say what they are.
    """
    values: dict[tuple[str, int], Sequence[str]] = {}
    at = {ref.layer: i for i, ref in enumerate(graph.inputs)}
    pending = [(node, i, call) for node in graph.layers for i, call in enumerate(node.calls or ((),))]
    while pending:
        waiting = []
        for node, i, call in pending:
            if any(ref.layer and (ref.layer, ref.call) not in values for ref in call):
                waiting.append((node, i, call))
                continue
            args = [_maker(values, given, ref) for ref in call]
            if not call and at.get(node.name, len(given)) < len(given):
                args = [given[at[node.name]]]
            values[node.name, i] = _call(flow, node, prefix + node.name, args)
        if len(waiting) == len(pending):
            break
        pending = waiting
    made = [_maker(values, given, ref) for ref in graph.outputs]
    flow.readers.note(ELSE, [*given, *made])
    return made


def _maker(values: Made, given: Sequence[str], ref: Ref) -> str:
    made = given if not ref.layer else values.get((ref.layer, ref.call), ())
    return made[ref.tensor] if ref.tensor < len(made) else next(iter(made), "")


def _call(flow: Flow, node: Node, name: str, args: Sequence[str]) -> list[str]:
    if node.inner is not None and node.inner.layers:
        return fed(flow, node.inner, f"{name}/", args)
    own = records_of(flow, node, name)
    flow.readers.note(ELSE, args)  # nobody knows what is read here besides
    for target in own[:1]:
        flow.inputs.setdefault(target, []).extend(maker for maker in args if maker)
    return list(args) if in_passing(flow, node, own, args) else own[-1:]


def in_passing(flow: Flow, node: Node, own: Sequence[str], args: Sequence[object]) -> bool:
    """Whether a layer without weights stands at several places (one Dropout for all), each reading one value.

    What feeds it feeds what comes after it: a record does not say which of its calls reads what.
    """
    return len(node.calls) > 1 and len(args) == 1 and not any(flow.records[name].tensors for name in own)


def records_of(flow: Flow, node: Node, name: str) -> list[str]:
    """The records that one layer became: itself, or its cells, of which each feeds the next."""
    if name in flow.records:
        return [name]
    cells = [f"{name}/cell_{i}" for i in range(len(cells_of(node)))]
    if not cells or cells[0] not in flow.records:
        return []
    for before, after in pairwise(cells):
        flow.inputs.setdefault(after, [before])
    return cells
