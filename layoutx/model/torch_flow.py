"""Follows values through a torch program: which module feeds which, and what the axes of their weights are made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from layoutx.model.axes import UNSIZED, Dim, size_of
from layoutx.model.followed import AXES
from layoutx.model.onnx_axes import Flow, Shape, Value, finished
from layoutx.model.onnx_flow import read_map
from layoutx.model.onnx_rules import spatial
from layoutx.model.readers import ELSE
from layoutx.model.record import LayerRecord, Way
from layoutx.model.torch_ops import MAPS, PARTS, SUMS, ruled
from layoutx.model.torch_program import Op, Program
from layoutx.model.ways import kind_of, passed

LINEAR = ("linear", "nondynamicallyquantizablelinear", "addmm", "mm")
CONVS = frozenset(f"conv{kind}{n}d" for kind in ("", "transpose") for n in (1, 2, 3)) | {"convolution"}
RECURRENT = ("lstm", "gru", "rnn", "rnntanh", "rnnrelu")
TURNED = ("t", "transpose", "permute", "to", "clone", "detach", "alias")  # a weight on its way to its operation
OVER = ("t", "transpose", "permute")  # and turned over by it, where it is a matrix
ALONE = ("float", "double", "add")  # what a vector may meet before its operation: a wider dtype, a constant
LIKE = ("to", "typeas", "viewas", "reshapeas", "expandas")  # what a value is made like is not handed on
UNTOUCHED = ("identity", "to", "clone", "detach", "contiguous", "alias")
SPREAD = ("reshape", "view", "unsqueeze", "getitem", "flatten")  # and a vector, which gets ones around it
NORMS = ("batchnorm", "batchnorm1d", "nativebatchnormlegitnotraining", "nativebatchnorm", "prelu", "syncbatchnorm")
LAST_NORMS = ("layernorm", "nativelayernorm", "rmsnorm")
# an axis lost in an operation that is not known, as `finished` says it; other notes say what is doubtful
_THROUGH = re.compile(r"(" + "|".join(AXES) + r"|output) axis could not be followed through ")


@dataclass(slots=True)
class _Walk:
    flow: Flow
    program: Program
    shapes: Mapping[str, tuple[int, ...]]  # of the state dict
    below: Mapping[str, list[str]]  # path of a module -> names of the state dict below it
    owner: dict[str, str] = field(default_factory=dict)  # value name -> the state dict's name of a weight
    classes: dict[str, str] = field(default_factory=dict)
    parts: dict[str, list[Any]] = field(default_factory=dict)
    over: set[str] = field(default_factory=set)  # names of weights that were turned over

    def rows_out(self, op: Op) -> bool:
        """Whether each row of the matrix that an operation reads makes one output: `linear` wants it so, `mm` not."""
        turned = any(ref.name in self.over for ref in op.refs())
        return turned if op.name in ("addmm", "mm") else not turned

    def weight(self, op: Op, ending: str = "weight") -> str:
        """The state dict's name of the weight that an operation reads; "" where it reads none of its module's."""
        for ref in op.refs():
            name = self.owner.get(ref.name, "")
            if name.rpartition(".")[2].startswith(ending):
                return name
        if op.whole and op.stack:
            path = op.stack[-1][0]
            return next((n for n in self.below.get(path, ()) if n.startswith(f"{path}.{ending}")), "")
        return ""


def followed(program: Program, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, LayerRecord]:
    """Path of each module with weights, in the order of its first call -> its class, axes and what feeds it.

    Args:
        shapes: the state dict's names -> shapes.
    """
    known = {name: tuple(n if isinstance(n, int) else None for n in own) for name, own in program.shapes.items()}
    flow = Flow(shapes=known)
    walk = _Walk(flow, program, shapes, _below(shapes), dict(program.weights))
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
    """Whether an axis ended in an operation that is not known, or whose sizes are not."""
    return _stopped(found) or any(UNSIZED in record.note for record in found.values())


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


def _op(walk: _Walk, op: Op) -> None:
    flow = walk.flow
    refs = [ref.name for ref in op.refs()][: 1 if op.name in LIKE else None]
    if len(refs) == 1 and refs[0] in walk.owner and (op.name in TURNED or _spread(walk, op, refs[0])):
        walk.owner[op.outputs[0]] = walk.owner[refs[0]]
        if (refs[0] in walk.over) != (op.name in OVER):
            walk.over.add(op.outputs[0])
        return
    if _sizes(walk, op):
        return
    if op.name == "getitem" and refs and refs[0] in walk.parts:
        _picked(walk, op, refs[0])
        return
    values = [_value(walk, op, name) for name in dict.fromkeys(refs)]
    ins = [value for value in values if value is not None]
    if op.name in MAPS | CONVS and ins and ins[0].dims is not None:
        read_map(flow, ins[0].dims)
    path = _path(walk, op, refs)
    if path is not None:
        again = path if op.name in SUMS else None  # a norm by hand multiplies by its weight, then adds its bias
        flow.fed.setdefault(path, []).extend(m for v in ins for m in v.makers if m.maker != again)
        walk.classes.setdefault(path, op.stack[-1][1].rpartition(".")[2] if op.stack else "")
    same = flow.readers.given(path or ELSE, [value.of for value in ins], path is None and op.name in UNTOUCHED)
    made = _made(walk, op, path, ins)
    came = [() if value is None else value.makers for value in values]
    makers = (Way(path),) if path is not None else passed(kind_of(op.name), came)
    lost = next((v.lost for v in ins[:1] if v.dims is None and v.lost), "") or op.name
    for at, name in enumerate(op.outputs):
        dims = made[at] if at < len(made) else None
        if dims is None and op.name in PARTS:
            dims = ruled(flow, op, ins, flow.shapes.get(name))
        dims = dims if dims is not None else _vector(flow, name, ins)
        flow.values[name] = Value(dims, makers, "" if dims is not None else lost, same)
    if op.whole and op.name in RECURRENT:
        y, *states = [Value(dims, makers, "" if dims is not None else lost) for dims in (*made, None, None)[:3]]
        walk.parts[op.outputs[0]] = [y, states if op.name == "lstm" else states[0]]


def _spread(walk: _Walk, op: Op, name: str) -> bool:
    """Whether a vector only gets dimensions of length one, `gamma.reshape(1, -1, 1, 1)`, or a constant, `1 + gamma`."""
    shape = walk.shapes.get(walk.owner[name], ())
    return op.name in (*SPREAD, *ALONE) and len(shape) - shape.count(1) <= 1


def _vector(flow: Flow, name: str, ins: Sequence[Value]) -> tuple[Dim, ...] | None:
    """A vector made of vectors without maps is a plain vector, whatever made it."""
    out = flow.shapes.get(name)
    plain = all(v.dims is not None and len(v.dims) <= 2 and all(len(d) == 1 for d in v.dims) for v in ins)
    return flow.fresh(out, name) if out is not None and len(out) <= 2 and plain else None


def _sizes(walk: _Walk, op: Op) -> bool:
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


def _picked(walk: _Walk, op: Op, name: str) -> None:
    """One output of a module that gives several, some of them together."""
    parts, at = walk.parts[name], op.arg(1, "index")
    found = parts[at] if isinstance(at, int) and -len(parts) <= at < len(parts) else Value()
    if isinstance(found, list):
        walk.parts[op.outputs[0]] = found
    else:
        walk.flow.values[op.outputs[0]] = found


def _value(walk: _Walk, op: Op, name: str) -> Value | None:
    """What an operation is given; of a weight the axes where it is laid beside others, and else nothing."""
    if name in walk.flow.values:
        return walk.flow.values[name]
    if name in walk.parts:  # several outputs together, as the states of an LSTM are handed on
        return Value(makers=_makers(walk.parts[name]))
    weight = walk.owner.get(name)
    if weight is None or op.name in SUMS or op.name not in ("cat", "concat", "expand", "repeat"):
        return None
    return Value(walk.flow.fresh(walk.shapes.get(weight), weight))


def _makers(parts: Sequence[Any]) -> tuple[Way, ...]:
    found = (name for one in parts for name in (one.makers if isinstance(one, Value) else _makers(one)))
    return tuple(dict.fromkeys(found))


def _path(walk: _Walk, op: Op, refs: Sequence[str]) -> str | None:
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


def _made(walk: _Walk, op: Op, path: str | None, ins: Sequence[Value]) -> list[tuple[Dim, ...] | None]:
    """The dims of an operation's outputs, and what a module's weights meet."""
    flow, value = walk.flow, ins[0] if ins else Value()
    out: Shape = flow.shapes.get(op.outputs[0])
    shape = walk.shapes.get(walk.weight(op), ())
    if path is not None:
        if op.name in LINEAR and len(shape) == 2:
            shape = shape if walk.rows_out(op) else shape[::-1]
            return [_linear(flow, path, value, shape, walk.weight(op).endswith("weight"))]
        if op.name in CONVS and len(shape) > 2:
            turned = "transpose" in op.name or bool(op.arg(6, "transposed", default=False) and op.name == "convolution")
            channels = shape[0] if not turned else None
            if value.dims is not None and len(value.dims) > 1 and len(value.dims[1]) > 1:  # a map's, and positions
                flow.use(path, "in", value, value.dims[1:2], shape[0 if turned else 1])
            known = out if out is not None else (None, channels, *[None] * (len(shape) - 2))
            return [spatial(flow, path, value.dims, known, None)]
        if op.name == "embedding" and len(shape) == 2:
            return [None if value.dims is None else (*value.dims, (flow.axis("n", path, shape[1]),))]
        if op.name in RECURRENT:
            return _recurrent(walk, op, path, value)
        if op.name in (*NORMS, *LAST_NORMS) and shape:
            _norm(flow, op, path, value, shape)
        if op.whole and op.name == "multiheadattention":
            return [value.dims]
    if op.name in PARTS and len(op.outputs) > 1:
        return []
    return [ruled(flow, op, ins, out)]


def _linear(flow: Flow, path: str, value: Value, shape: tuple[int, ...], own: bool) -> tuple[Dim, ...] | None:
    """`own`: it is the module's `weight`, and no part of a larger one, whose rows are another kind's."""
    new: Dim = (flow.axis("n", path, shape[0]),)
    if own:
        flow.use(path, "input", value, value.dims[-1:] if value.dims else (), shape[1])
        flow.use(path, "output", Value((new,)), (new,), shape[0])
    return None if value.dims is None else (*value.dims[:-1], new)


def _recurrent(walk: _Walk, op: Op, path: str, value: Value) -> list[tuple[Dim, ...] | None]:
    """y is (batch, time, hidden) or (time, batch, hidden) as what goes in; states (layers, batch, hidden)."""
    flow = walk.flow
    kernel = walk.shapes.get(f"{path}.weight_ih_l0" if path else "weight_ih_l0", ())
    flow.use(path, "input", value, value.dims[-1:] if value.dims else (), kernel[1] if len(kernel) == 2 else None)
    given = op.arg(-1, "batch_first", default=False)
    if value.dims is None or len(value.dims) != 3:
        return [None]
    hidden: Dim = (flow.axis("n", path, None),)
    batch = value.dims[0 if given else 1]
    layers: Dim = (flow.axis("r", path, None),)
    return [(*value.dims[:2], hidden), (layers, batch, hidden), (layers, batch, hidden)]


def _norm(flow: Flow, op: Op, path: str, value: Value, shape: tuple[int, ...]) -> None:
    """Norms over a flattened map have their numbers in its order too."""
    dims, last = value.dims or (), op.name in LAST_NORMS
    used = dims[-len(shape) :] if last else dims[1:2]
    if value.dims is None and not last:
        return  # the channels of a map, whatever came before
    flow.use(path, "features" if last else "channel", value, used, prod(shape) if len(used) == 1 else None)
