"""Follows values through a torch program: which module feeds which, and what the axes of their weights are made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from layoutx.model.axes import UNSIZED, Dim, size_of
from layoutx.model.followed import AXES
from layoutx.model.onnx_axes import Flow, Value, finished
from layoutx.model.onnx_flow import read_map
from layoutx.model.readers import ELSE
from layoutx.model.record import LayerRecord, Way
from layoutx.model.torch_layers import CONVS, RECURRENT, Walk, made_by
from layoutx.model.torch_ops import MAPS, PARTS, SUMS, ruled
from layoutx.model.torch_program import Op, Program
from layoutx.model.ways import kind_of, passed

TURNED = ("t", "transpose", "permute", "to", "clone", "detach", "alias")  # a weight on its way to its operation
OVER = ("t", "transpose", "permute")  # and turned over by it, where it is a matrix
ALONE = ("float", "double", "add")  # what a vector may meet before its operation: a wider dtype, a constant
LIKE = ("to", "typeas", "viewas", "reshapeas", "expandas")  # what a value is made like is not handed on
UNTOUCHED = ("identity", "to", "clone", "detach", "contiguous", "alias")
JOINS = ("cat", "concat", "concatenate")  # one value may stand in them twice
SPREAD = ("reshape", "view", "unsqueeze", "getitem", "flatten")  # and a vector, which gets ones around it
# an axis lost in an operation that is not known, as `finished` says it; other notes say what is doubtful
_THROUGH = re.compile(r"(" + "|".join(AXES) + r"|output) axis could not be followed through ")


def followed(program: Program, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, LayerRecord]:
    """Path of each module with weights, in the order of its first call -> its class, axes and what feeds it.

    Args:
        shapes: the state dict's names -> shapes.
    """
    known = {name: tuple(n if isinstance(n, int) else None for n in own) for name, own in program.shapes.items()}
    flow = Flow(shapes=known, tried=program.tried)
    walk = Walk(flow, shapes, _below(shapes), dict(program.weights))
    for name in program.inputs:
        dims = flow.fresh(known.get(name), name)
        flow.values[name] = Value(dims, (Way(""),), "" if dims is not None else "the model's input of unknown rank")
        if dims is not None and len(dims) >= 4:
            flow.inputs |= {a.id for d in dims[1:] for a in d}
    for op in program.ops:
        _op(walk, op)
    flow.readers.note(ELSE, [flow.values[name].of for name in program.outputs if name in flow.values])
    records = (LayerRecord(path, walk.classes.get(path, "")) for path in flow.fed)
    return {record.name: record for record in finished(flow, records)}


def _below(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        path = name.rpartition(".")[0]
        while path:
            found.setdefault(path, []).append(name)
            path = path.rpartition(".")[0]
    return found


def lost(found: Mapping[str, LayerRecord]) -> bool:
    """Whether an axis ended in an operation that is not known, or needs sizes: those of axes that were turned."""
    turned = (p.turned and p.size is None for record in found.values() for own in record.pieces.values() for p in own)
    return _stopped(found) or any(UNSIZED in record.note for record in found.values()) or any(turned)


def _stopped(found: Mapping[str, LayerRecord]) -> bool:
    return any(_THROUGH.search(record.note) for record in found.values())


def sure(found: Mapping[str, LayerRecord]) -> dict[str, LayerRecord]:
    """What counts of a program's axes.

    An axis that ended in an operation that is not known is as if nobody had followed it: names and sizes have to
    tell. With one such axis nothing counts as wired, so that the others are judged likewise unless they are refined.
    """
    unsure = _stopped(found)
    made = {}
    for path, record in found.items():
        notes = [note for note in record.note.split("; ") if note and not _THROUGH.search(note)]
        made[path] = replace(record, note="; ".join(notes), inputs=() if unsure else record.inputs)
    return made


def _op(walk: Walk, op: Op) -> None:
    refs = [ref.name for ref in op.refs()][: 1 if op.name in LIKE else None]
    if _weight(walk, op, refs) or _sizes(walk, op) or _picked(walk, op, refs):
        return
    every = [ref.name for ref in op.operands()] if op.name in JOINS else dict.fromkeys(refs)
    values = [_value(walk, op, name) for name in every]
    ins = [value for value in values if value is not None]
    if op.name in MAPS | CONVS and ins and ins[0].dims is not None:
        read_map(walk.flow, ins[0].dims)
    path = _path(walk, op, refs)
    if path is not None:
        _fed(walk, op, path, ins)
    same = walk.flow.readers.given(path or ELSE, [value.of for value in ins], path is None and op.name in UNTOUCHED)
    came = [() if value is None else value.makers for value in values]
    makers = (Way(path),) if path is not None else passed(kind_of(op.name), came)
    _give(walk, op, ins, made_by(walk, op, path, ins), Value(None, makers, of=same))


def _weight(walk: Walk, op: Op, refs: Sequence[str]) -> bool:
    """Whether an operation only turns or spreads a weight, which it is then still."""
    if len(refs) != 1 or refs[0] not in walk.owner or not (op.name in TURNED or _spread(walk, op, refs[0])):
        return False
    walk.owner[op.outputs[0]] = walk.owner[refs[0]]
    if (refs[0] in walk.over) != (op.name in OVER):
        walk.over.add(op.outputs[0])
    return True


def _fed(walk: Walk, op: Op, path: str, ins: Sequence[Value]) -> None:
    """Remembers what feeds a module, and its class."""
    again = path if op.name in SUMS else None  # a norm by hand multiplies by its weight, then adds its bias
    walk.flow.fed.setdefault(path, []).extend(m for v in ins for m in v.makers if m.maker != again)
    walk.classes.setdefault(path, op.stack[-1][1].rpartition(".")[2] if op.stack else "")


def _give(walk: Walk, op: Op, ins: Sequence[Value], made: Sequence[tuple[Dim, ...] | None], like: Value) -> None:
    """Remembers an operation's outputs, made by the makers of `like`."""
    flow = walk.flow
    lost = next((v.lost for v in ins[:1] if v.dims is None and v.lost), "") or op.name
    for at, name in enumerate(op.outputs):
        dims = made[at] if at < len(made) else None
        if dims is None and op.name in PARTS:
            dims = ruled(flow, op, ins, flow.shapes.get(name))
        dims = dims if dims is not None else _vector(flow, name, ins)
        flow.values[name] = replace(like, dims=dims, lost="" if dims is not None else lost)
    if op.whole and op.name in RECURRENT:
        y, *states = [Value(d, like.makers, "" if d is not None else lost) for d in (*made, None, None)[:3]]
        walk.parts[op.outputs[0]] = [y, states if op.name == "lstm" else states[0]]


def _spread(walk: Walk, op: Op, name: str) -> bool:
    """Whether a vector only gets dimensions of length one, `gamma.reshape(1, -1, 1, 1)`, or a constant, `1 + gamma`."""
    shape = walk.shapes.get(walk.owner[name], ())
    return op.name in (*SPREAD, *ALONE) and len(shape) - shape.count(1) <= 1


def _vector(flow: Flow, name: str, ins: Sequence[Value]) -> tuple[Dim, ...] | None:
    """A vector made of vectors without maps is a plain vector, whatever made it."""
    out = flow.shapes.get(name)
    plain = all(v.dims is not None and len(v.dims) <= 2 and all(len(d) == 1 for d in v.dims) for v in ins)
    return flow.fresh(out, name) if out is not None and len(out) <= 2 and plain else None


def _sizes(walk: Walk, op: Op) -> bool:
    """Remembers the sizes that a program asks for; whether this operation does that."""
    flow, first = walk.flow, next(op.refs(), None)
    dims = flow.values[first.name].dims if first is not None and first.name in flow.values else None
    if op.name in ("size", "symsize") or (op.name == "getattr" and op.arg(1, "name") == "shape"):
        every: list[Any] = [n if (n := size_of(d)) is not None else d for d in dims or ()]
        at = op.arg(1, "dim") if op.name != "getattr" else None
        flow.sizes[op.outputs[0]] = every if at is None else every[at:][:1] if isinstance(at, int) else []
        return True
    if op.name == "getitem" and first is not None and first.name in flow.sizes:
        at, every = op.arg(1, "index"), list(flow.sizes[first.name])
        flow.sizes[op.outputs[0]] = [every[at]] if isinstance(at, int) and -len(every) <= at < len(every) else []
        return True
    return False


def _picked(walk: Walk, op: Op, refs: Sequence[str]) -> bool:
    """Remembers one output of a module that gives several, some of them together; whether this operation picks one."""
    if op.name != "getitem" or not refs or refs[0] not in walk.parts:
        return False
    parts, at = walk.parts[refs[0]], op.arg(1, "index")
    found = parts[at] if isinstance(at, int) and -len(parts) <= at < len(parts) else Value()
    if isinstance(found, list):
        walk.parts[op.outputs[0]] = found
    else:
        walk.flow.values[op.outputs[0]] = found
    return True


def _value(walk: Walk, op: Op, name: str) -> Value | None:
    """What an operation is given; of a weight the axes where it is laid beside others, and else nothing."""
    if name in walk.flow.values:
        return walk.flow.values[name]
    if name in walk.parts:  # several outputs together, as the states of an LSTM are handed on
        return Value(makers=_makers(walk.parts[name]))
    weight = walk.owner.get(name)
    if weight is None or op.name in SUMS or op.name not in (*JOINS, "expand", "repeat"):
        return None
    return Value(walk.flow.fresh(walk.shapes.get(weight), weight))


def _makers(parts: Sequence[Any]) -> tuple[Way, ...]:
    found = (name for one in parts for name in (one.makers if isinstance(one, Value) else _makers(one)))
    return tuple(dict.fromkeys(found))


def _path(walk: Walk, op: Op, refs: Sequence[str]) -> str | None:
    """The module whose weights an operation reads; None where it reads none."""
    if op.whole:
        path = op.stack[-1][0]
        return path if path in walk.below else None
    own = [walk.owner[name] for name in refs if name in walk.owner]
    if not own:
        return None
    path, _, last = own[0].rpartition(".")
    here = op.stack[-1][0] if op.stack else path  # a tied weight has the name of another module
    return here if f"{here}.{last}" in walk.shapes else path
