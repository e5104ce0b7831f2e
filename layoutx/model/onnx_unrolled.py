"""Recurrent layers that an exporter wrote out step by step: the same products again and again, with gates between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from layoutx.frozen import frozen
from layoutx.model.onnx_parts import Parts
from layoutx.model.record import LayerRecord

LOOKS = "looks like a part of an unrolled"
SQUASHES = ("Sigmoid", "HardSigmoid", "Tanh", "Relu")
ELEMENTS = ("Add", "Sub", "Mul", "Sum", "Clip", "Cast", "Identity", "Concat", *SQUASHES)
CUTS = ("Split", "Slice", "Gather", "Squeeze", "Unsqueeze", "Reshape", "Transpose", "Expand")
PRODUCTS = ("onnx.MatMul", "onnx.Gemm")


@frozen
class _Between:
    """What lies between one use of a weight and the next: operators with their counts, layers, and the use before."""

    ops: Counter[str]
    layers: frozenset[str]
    again: bool


def unrolled(graph: Any, parts: Parts, layers: Sequence[LayerRecord]) -> tuple[LayerRecord, ...]:
    """The layers; those that are the steps of one recurrent layer say so in their notes.

    A weight is a recurrent one where each of its products goes, through gates and an addition of another product (or
    side by side with the step's input), into its next one. What a layer called twice in a row does has no such sum.
    """
    uses: dict[str, list[int]] = {}
    for position, name in sorted(parts.owner.items()):
        uses.setdefault(name, []).append(position)
    makers = {value: i for i, node in enumerate(graph.node) for value in node.output if value}
    loops: dict[str, list[_Between]] = {}
    for record in layers:
        at = uses.get(record.name, [])
        if record.form in PRODUCTS and len(at) > 1:
            steps = [_between(graph, parts, makers, a, b) for a, b in pairwise(at)]
            if all(_is_step(step, record.name) for step in steps):
                loops[record.name] = steps
    notes: dict[str, str] = {}
    for group in _groups(loops, uses, {r.name for r in layers if r.form in PRODUCTS}):
        steps = [step for name in group if name in loops for step in loops[name]]
        squashed = {op: max(step.ops[op] for step in steps) for op in SQUASHES}
        gates = squashed["Sigmoid"] + squashed["HardSigmoid"]
        kind = "RNN" if not gates else "LSTM" if squashed["Tanh"] > 1 else "GRU"
        count = max(len(uses[name]) for name in group)
        said = f"{LOOKS} {kind} of {count} steps, with {', '.join(group)}"
        notes |= dict.fromkeys(group, said)
    return tuple(
        replace(r, note="; ".join(filter(None, [r.note, notes[r.name]]))) if r.name in notes else r for r in layers
    )


def _between(graph: Any, parts: Parts, makers: Mapping[str, int], before: int, after: int) -> _Between:
    ops: Counter[str] = Counter()
    found: set[str] = set()
    again = False
    waiting, seen = list(graph.node[after].input), {after}
    while waiting:
        at = makers.get(waiting.pop(), -1)
        if at < 0 or at in seen:
            continue
        seen.add(at)
        node = graph.node[at]
        cut = at in parts.fused or node.op_type in CUTS
        if at in parts.owner:
            again = again or at == before
            found.add(parts.owner[at])
        elif cut or (at > before and node.op_type in ELEMENTS):
            ops[node.op_type] += 1
            waiting += node.input
    return _Between(ops, frozenset(found), again)


def _is_step(step: _Between, name: str) -> bool:
    summed = bool(step.layers - {name}) and bool(step.ops["Add"] or step.ops["Sum"])
    return step.again and any(step.ops[op] for op in SQUASHES) and (summed or bool(step.ops["Concat"]))


def _groups(
    loops: Mapping[str, Sequence[_Between]], uses: Mapping[str, Sequence[int]], products: set[str]
) -> list[tuple[str, ...]]:
    """The weights of each recurrent layer: the recurrent ones, and those of its input, used as often within a step."""
    groups: list[set[str]] = []
    for name, steps in loops.items():
        near = set.union(*(set(step.layers) for step in steps)) & products
        often = {n for n in near if len(uses[n]) >= len(uses[name]) or n in loops}
        joined = [g for g in groups if g & ({name} | often)]
        groups = [g for g in groups if not g & ({name} | often)]
        groups.append({name} | often | set().union(*joined))
    return [tuple(sorted(g, key=lambda n: uses[n][0])) for g in groups]
