"""Follows values through a jaxpr: which layer feeds which, and what the axes of their weights are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from layoutx.model.axes import Dim
from layoutx.model.jax_ops import Dims, alike, picked, product, ruled, window
from layoutx.model.jax_program import Traced
from layoutx.model.jax_stacks import INNER
from layoutx.model.keyed import Keyed
from layoutx.model.onnx_axes import Flow, Value, finished
from layoutx.model.readers import ELSE
from layoutx.model.record import LayerRecord, Refinement, Way
from layoutx.model.ways import kind_of, passed

LOOPS = ("while", "cond", "scan")
UNTOUCHED = ("convert_element_type", "copy")
NORMS = {"BatchNorm": "channel", "PReLU": "channel", "LayerNorm": "features", "RMSNorm": "features"}


@dataclass(slots=True)
class _Walk:
    flow: Flow
    classes: Mapping[str, str]  # of the modules
    split: Mapping[str, tuple[str, ...]]  # weights that hold many layers -> those of each
    owner: dict[Any, str] = field(default_factory=dict)  # variable -> the weight that it holds
    values: dict[Any, Value] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)  # layers whose product or window was met: the rest is their bias

    def set(self, variable: Any, value: Value | None, owner: str = "") -> None:
        """What a variable holds from now on; a body that is called again has the same variables."""
        self.values.pop(variable, None)
        self.owner.pop(variable, None)
        if value is not None:
            self.values[variable] = value
        elif owner:
            self.owner[variable] = owner


def followed(traced: Traced, keyed: Keyed, channels: str) -> dict[str, LayerRecord]:
    """Path of each layer with weights, in the order of its first use -> its axes and what feeds it.

    Args:
        keyed: the model's weights by name, and the classes of its modules by path.
        channels: "last" or "first", as its framework keeps them: so an image is flattened that no layer read before.
    """
    jaxpr, count = traced.jaxpr.jaxpr, len(traced.weights)
    classes = {path: module.class_name for path, module in keyed.modules.items()}
    walk = _Walk(Flow(), classes, keyed.split)
    for variable, name in zip(jaxpr.invars, traced.weights, strict=False):
        walk.set(variable, None, name if name in keyed.tensors or name in keyed.split else "")
    given = []
    for at, variable in enumerate(jaxpr.invars[count:]):
        dims = walk.flow.fresh(tuple(variable.aval.shape), f"input {at}" if at else "input")
        walk.set(variable, Value(dims, (Way(""),)))
        if dims is not None and len(dims) > 3:
            walk.flow.inputs |= {axis.id for d in dims[1:] for axis in d}
            given.append(dims)
    _body(walk, jaxpr)
    made = [walk.values[v].of for v in jaxpr.outvars if not _literal(v) and v in walk.values]
    walk.flow.readers.note(ELSE, made)
    for dims in given:  # no layer has told where its channels are
        if {axis.id for d in dims[1:] for axis in d} <= walk.flow.inputs:
            walk.flow.inputs -= {axis.id for d in dims[1:] for axis in d}
            walk.flow.note_map(dims if channels == "first" else (dims[0], dims[-1], *dims[1:-1]))
    fed = walk.flow.fed
    records = finished(walk.flow, (LayerRecord(path, classes.get(path, "")) for path in fed))
    return {record.name: _own(record, channels) for record in records}


def _own(record: LayerRecord, channels: str) -> LayerRecord:
    """The record with `own` only where the program flattens in the order that its framework has not."""
    if channels == "first":
        return record
    turned = {axis: replace(r, own="" if r.own == "last" else "first") for axis, r in record.refine.items()}
    return replace(record, refine=turned)


def with_outer(found: Mapping[str, LayerRecord]) -> dict[str, LayerRecord]:
    """The records, and for each module around one what its inner layers are given: a form may take these in.

    The cell of an RNN has the weights that read a flattened map, and the RNN is the layer.
    """
    made = dict(found)
    for path, record in found.items():
        outer = path.rpartition(".")[0]
        while outer and outer not in found:
            have = made.setdefault(outer, LayerRecord(outer, ""))
            inputs = (n for n in record.inputs if not n.startswith(f"{outer}."))
            refine: dict[str, Refinement] = {**record.refine, **have.refine}
            notes = dict.fromkeys(note for note in (have.note, record.note) if note)
            kept = tuple(dict.fromkeys((*have.inputs, *inputs)))
            ways = tuple(dict.fromkeys((*have.ways, *record.ways)))
            made[outer] = replace(have, refine=refine, inputs=kept, note="; ".join(notes), ways=ways)
            outer = outer.rpartition(".")[0]
    return made


def _body(walk: _Walk, jaxpr: Any) -> None:
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        inner = next((eqn.params[key] for key in INNER if key in eqn.params), None)
        if name == "scan":
            _scan(walk, eqn, eqn.params["jaxpr"].jaxpr)
        elif inner is not None and name not in LOOPS:
            inner = getattr(inner, "jaxpr", inner)
            _given(walk, eqn.invars, inner.invars)
            _body(walk, inner)
            _given(walk, inner.outvars, eqn.outvars)
        else:
            _op(walk, eqn, name)


def _literal(variable: Any) -> bool:
    return hasattr(variable, "val")


def _given(walk: _Walk, here: Sequence[Any], there: Sequence[Any]) -> None:
    """Variables of one body become those of another."""
    held = [(None, "") if _literal(v) else (walk.values.get(v), walk.owner.get(v, "")) for v in here]
    for variable, (value, owner) in zip(there, held, strict=False):
        walk.set(variable, value, owner)


def _scan(walk: _Walk, eqn: Any, body: Any) -> None:
    """One step of a loop stands for all: what is scanned goes in without its first axis, what is stacked gets it.

    A loop over layers is walked layer by layer.
    """
    consts, carry = eqn.params["num_consts"], eqn.params["num_carry"]
    own = [walk.split.get(walk.owner.get(v, ""), ()) for v in eqn.invars[consts + carry :] if not _literal(v)]
    if any(len(names) == eqn.params["length"] for names in own):
        _layers(walk, eqn, body)
        return
    _given(walk, eqn.invars, body.invars)
    times: Dim | None = None
    for at, variable in enumerate(body.invars):
        value = walk.values.get(variable)
        if at >= consts + carry and value is not None and value.dims:
            times = times or value.dims[0]
            walk.set(variable, replace(value, dims=value.dims[1:]))
        elif consts <= at < consts + carry and value is None and not walk.owner.get(variable):
            walk.set(variable, Value(walk.flow.fresh(tuple(variable.aval.shape), "state")))
    _body(walk, body)
    first: Dim = times or (walk.flow.axis("t", "scan", eqn.params["length"]),)
    for at, (inner, outer) in enumerate(zip(body.outvars, eqn.outvars, strict=True)):
        value = None if _literal(inner) else walk.values.get(inner)
        if at >= carry and value is not None and value.dims is not None:
            value = replace(value, dims=(first, *value.dims))
        walk.set(outer, value)


def _layers(walk: _Walk, eqn: Any, body: Any) -> None:
    """The steps of a loop over layers, each with the weights of its own."""
    consts, length = eqn.params["num_consts"], eqn.params["length"]
    end = consts + eqn.params["num_carry"]
    carried = eqn.invars[consts:end]
    for step in range(length)[:: -1 if eqn.params["reverse"] else 1]:
        _given(walk, carried, body.invars[consts:end])
        _given(walk, eqn.invars[:consts], body.invars[:consts])
        for variable, outer in zip(body.invars[end:], eqn.invars[end:], strict=True):
            owner = "" if _literal(outer) else walk.owner.get(outer, "")
            names = walk.split.get(owner, ())
            walk.set(variable, None, names[step] if len(names) == length else owner)
        _body(walk, body)
        carried = body.outvars[: end - consts]
    _given(walk, carried, eqn.outvars[: end - consts])
    for outer in eqn.outvars[end - consts :]:
        walk.set(outer, None)


def _of_layer(walk: _Walk, eqn: Any, name: str, owner: str) -> str:
    """The weight that an operation on weights alone gives: of a stack one layer where it cuts that out."""
    names = walk.split.get(owner, ())
    before, after = (tuple(v[0].aval.shape) for v in (eqn.invars, eqn.outvars))
    if name != "slice" or not names:
        return owner
    cut = [axis for axis, sizes in enumerate(zip(before, after, strict=True)) if sizes == (len(names), 1)]
    return names[eqn.params["start_indices"][cut[0]]] if len(cut) == 1 and before != after else owner


def _op(walk: _Walk, eqn: Any, name: str) -> None:
    flow = walk.flow
    known = [None if _literal(v) else walk.values.get(v) for v in eqn.invars]
    data = [value for value in known if value is not None]
    weights = [walk.owner[v] for v in eqn.invars if not _literal(v) and v in walk.owner]
    if not data:  # weights on their way to their operation, or numbers of no input
        for out in eqn.outvars:
            walk.set(out, None, _of_layer(walk, eqn, name, weights[0]) if weights else "")
        return
    path = weights[0].rpartition(".")[0] if weights else None
    if path is not None:
        flow.fed.setdefault(path, []).extend(maker for value in data for maker in value.makers)
    same = walk.flow.readers.given(path or ELSE, [value.of for value in data], path is None and name in UNTOUCHED)
    made = _made(walk, eqn, name, path, known)
    came = [() if value is None else value.makers for value in known]
    makers = (Way(path),) if path is not None else passed(kind_of(name), came)
    lost = next((value.lost for value in data if value.dims is None and value.lost), "") or name
    for at, out in enumerate(eqn.outvars):
        dims = made[at] if at < len(made) else None
        dims = dims if dims is not None else _plain(flow, tuple(out.aval.shape), data)
        walk.set(out, Value(dims, makers, "" if dims is not None else lost, same))


def _plain(flow: Flow, shape: tuple[int, ...], data: Sequence[Value]) -> Dims:
    """A vector made of vectors without maps is a plain vector, whatever made it."""
    plain = all(v.dims is not None and len(v.dims) <= 2 and all(len(d) == 1 for d in v.dims) for v in data)
    return flow.fresh(shape, "") if len(shape) <= 2 and plain else None


def _made(walk: _Walk, eqn: Any, name: str, path: str | None, known: Sequence[Value | None]) -> Sequence[Dims]:
    """The dims of an operation's outputs, and what a layer's weights meet."""
    dims = [None if value is None else value.dims for value in known]
    if name == "dot_general":
        return [_product(walk, eqn, path, known)]
    if name == "conv_general_dilated":
        walk.done |= {path} if path is not None else set()
        return [window(walk.flow, eqn, path or "conv", dims[0])]
    if name == "gather":
        return [picked(walk.flow, eqn, path, dims)]
    if path is not None and path not in walk.done:
        _norm(walk, eqn, path, known)
    if name == "concatenate":
        if any(value is not None and value.dims is None for value in known):
            return []
        fresh = walk.flow.fresh  # a weight or a number is laid beside the data, as a class token
        own = path or "constant"
        dims = [fresh(tuple(v.aval.shape), own) if d is None else d for v, d in zip(eqn.invars, dims, strict=True)]
    return ruled(walk.flow, eqn, name, dims)


def _product(walk: _Walk, eqn: Any, path: str | None, known: Sequence[Value | None]) -> Dims:
    """A product; of data with a weight the layer's input is the axis that it sums over."""
    flow = walk.flow
    at = next((i for i, value in enumerate(known) if value is not None), 0)
    value, weight = known[at] or Value(), eqn.invars[1 - at]
    if path is None or all(one is not None for one in known):
        lost = any(one is not None and one.dims is None for one in known)
        return None if lost else product(flow, eqn, [None if one is None else one.dims for one in known])
    own, summed = (eqn.params["dimension_numbers"][0][i] for i in (at, 1 - at))
    batch = eqn.params["dimension_numbers"][1][1 - at]
    shape = tuple(weight.aval.shape)
    free = [i for i in range(len(shape)) if i not in summed and i not in batch]
    new: list[Dim] = [(flow.axis("n", path, shape[i]),) for i in free]
    kernel = len(own) == 1 and not batch
    if kernel:
        used = (value.dims[own[0]],) if value.dims is not None else ()
        flow.use(path, "input", value, used, shape[summed[0]])
    if kernel and len(new) == 1:
        flow.use(path, "output", Value((new[0],)), (new[0],), shape[free[0]])
    walk.done.add(path)
    return product(flow, eqn, [None if one is None else one.dims for one in known], {1 - at: new})


def _norm(walk: _Walk, eqn: Any, path: str, known: Sequence[Value | None]) -> None:
    """Norms over a flattened map have their numbers in its order too."""
    axis = NORMS.get(walk.classes.get(path, ""), "")
    weight = next(v for v in eqn.invars if not _literal(v) and v in walk.owner)
    value = next(v for v in known if v is not None)
    shape, out = tuple(weight.aval.shape), tuple(eqn.outvars[0].aval.shape)
    if not axis or alike(shape, out) is None:
        return
    walk.done.add(path)
    at = [i for i in alike(shape, out) or () if out[i] > 1]
    if value.dims is None and axis == "channel":
        return  # the channels of a map, whatever came before
    used = tuple(value.dims[i] for i in at) if value.dims is not None and len(value.dims) == len(out) else ()
    total = out[at[0]] if len(at) == 1 else None
    walk.flow.use(path, axis, value, used, total)
