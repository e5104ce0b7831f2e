"""Follows axes through the wiring: which maps and concatenations a layer's input axis is made of, in which order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace

from layoutx.empty import NOTHING
from layoutx.model.axes import Dim, State, Use, axes_in, expand, refinement
from layoutx.model.entry import bad_config
from layoutx.model.fed import fed, in_passing, records_of
from layoutx.model.flow import Flow, Value
from layoutx.model.graph import SAID, Graph, Node, walk
from layoutx.model.keras_inputs import first_shape, input_state, shape_of
from layoutx.model.keras_merged import features
from layoutx.model.keras_rules import CODE, rule_of, untold
from layoutx.model.keras_slots import stock
from layoutx.model.keras_uses import consume
from layoutx.model.other_axis import normed
from layoutx.model.readers import ELSE
from layoutx.model.record import LayerRecord, Piece, Refinement
from layoutx.model.splits import note_readers, settle
from layoutx.model.wiring import Ref

UNKNOWN = "what feeds it is unknown: it is held by a"


def refined(graph: Graph, layers: Iterable[LayerRecord], where: str = "") -> list[LayerRecord]:
    """The same records with `refine` and `inputs`; notes where axes could not be followed; ModelError at `where`."""
    layers = list(layers)
    if not graph.wired and not graph.outputs:
        return layers
    nodes = [node for _, node in walk(graph)]
    first = any(
        "channels_first" in (n.config.get("data_format"), _inner(n)) or n.config.get("dim_ordering") == "th"
        for n in nodes
    )
    flow = Flow({r.name: r for r in layers}, first, where)
    if graph.wired:
        run(flow, graph, "", None)
    else:
        fed(flow, graph, "", [])
    _note_held(flow, graph)
    settle(flow)
    return [_finished(flow, record) for record in layers]


def _note_held(flow: Flow, graph: Graph) -> None:
    """Nothing is known about the axes of what feeds the layers that a layer of another class holds."""
    holders = [("", graph.class_name)] if not graph.wired else []
    holders += [(f"{name}/", n.class_name) for name, n in walk(graph) if n.inner is not None and not n.inner.wired]
    for record in flow.records.values() if holders else ():
        own = [kind for prefix, kind in holders if record.name.startswith(prefix)]
        if own and record.tensors:
            flow.note(record.name, f"{UNKNOWN} {own[-1]}, which is none of Keras' own")


def _inner(node: Node) -> object:
    wrapped = node.part("layer")
    return wrapped.config.get("data_format") if wrapped is not None else None


def _finished(flow: Flow, record: LayerRecord) -> LayerRecord:
    own = flow.uses.get(record.name, {})
    refine: dict[str, Refinement] = {}
    notes = [record.note] if record.note else []
    for axis, uses in own.items():
        found = [_joined(flow, refinement(axis, use, flow.splits), use) for use in uses]
        if any(f != found[0] for f in found[1:]):
            notes.append(
                f"{axis} axis could not be followed: the layer is used at several places with different inputs"
            )
        elif isinstance(found[0], str):
            notes.append(f"{axis} axis could not be followed: {found[0]}")
        elif found[0] is not None:
            known = record.refine.get(axis)
            if known is not None and any(" " in text for text in (known.last, found[0].last)):
                notes.append(f"{axis} axis could not be followed: {found[0].why} into an einsum of several axes")
            else:
                refine[axis] = _apart(axis, found[0], {name for one in refine.values() for name in one.sizes})
    notes.extend(flow.notes.get(record.name, ()))
    config = {**record.config, **flow.normed[record.name]} if record.name in flow.normed else record.config
    return LayerRecord(
        record.name,
        record.class_name,
        record.form,
        config,
        record.tensors,
        record.instance,
        {**record.refine, **refine} if record.refine or refine else NOTHING,
        tuple(dict.fromkeys(flow.inputs.get(record.name, ()))),
        "; ".join(notes),
        _pieces(flow, own, flow.seen.get(record.name, {})) or NOTHING,
        flow.readers.alone(record.name),
    )


def _apart(axis: str, found: Refinement, taken: Set[str]) -> Refinement:
    """A refinement whose axes have other names than those of the layer's other axes: a map into a map."""
    names = {name: f"{axis}_{name}" for name in found.sizes if name in taken}
    if not names:
        return found
    last, first = (re.sub(r"\w+", lambda word: names.get(word[0], word[0]), text) for text in (found.last, found.first))
    return replace(found, last=last, first=first, sizes={names.get(n, n): size for n, size in found.sizes.items()})


def _joined(flow: Flow, found: Refinement | str | None, use: Use) -> Refinement | str | None:
    """A refinement that says which layer joined the channels of a map with some of its positions."""
    if not flow.joined or not isinstance(found, Refinement):
        return found
    met = {axis.id for dim in use.last for axis in axes_in(expand(dim, flow.splits, 0))}
    return replace(found, joined=next((layer for ids, layer in flow.joined.items() if ids <= met), ""))


def _pieces(flow: Flow, own: Mapping[str, list[Use]], seen: Mapping[str, list[Dim]]) -> dict[str, tuple[Piece, ...]]:
    """What each of a record's axes is made of, where every use of the layer agrees."""
    found: dict[str, tuple[Piece, ...]] = {}
    for axis, (first, *others) in own.items():
        if axis == "out":
            continue  # what a layer makes
        made = flow.pieces(first.last, first.total)
        if made and all(flow.pieces(use.last, use.total) == made for use in others):
            found[axis] = made
    for axis, (dim, *more) in seen.items():
        made = flow.pieces((dim,), None)
        if made and all(flow.pieces((other,), None) == made for other in more):
            found[axis] = made
    return found


def run(flow: Flow, graph: Graph, prefix: str, given: Sequence[Value] | None) -> list[Value]:
    """Walks one graph on its inputs (None: the model's own inputs); returns its outputs."""
    values: dict[tuple[str, int], list[Value]] = {}
    feed = list(given) if given is not None else None
    at = {ref.layer: i for i, ref in enumerate(graph.inputs)}
    pending = [(node, i, call) for node in graph.layers for i, call in enumerate(node.calls or ((),))]
    while pending:
        waiting, left = [], list[str]()
        for node, i, call in pending:
            args = [_value(flow, values, feed, graph, ref) for ref in call]
            if any(a is None for a in args):
                waiting.append((node, i, call))
                left += [a.maker for a in args if a is not None]
                continue
            known = [_with_shape(a, ref) for a, ref in zip(args, call, strict=True) if a is not None]
            if not call and node.name in at and feed is not None:
                known = [feed[at[node.name]]] if at[node.name] < len(feed) else []
            made = _followed(flow, node, prefix + node.name, known, call)
            values[node.name, i] = (
                [_as_said(flow, graph, node, prefix + node.name, made[0])] if len(made) == 1 else made
            )
        if len(waiting) == len(pending):
            flow.readers.note(ELSE, left)
            break  # a cycle, or a layer that the wiring leaves out: nothing more can be followed
        pending = waiting
    outputs = [_value(flow, values, feed, graph, ref) for ref in graph.outputs]
    if given is None:
        flow.readers.note(ELSE, [v.maker for v in outputs if v is not None])
        note_readers(flow, [v.state for v in outputs if v is not None])
    return [v if v is not None else Value(State(blocked=f'"{graph.name}"')) for v in outputs]


def _with_shape(value: Value, ref: Ref) -> Value:
    """A tensor of which not all axes are known, with its lengths where the config says them."""
    hidden = value.state.blocked or value.state.lead
    return replace(value, state=replace(value.state, shape=ref.shape)) if hidden else value


def _as_said(flow: Flow, graph: Graph, node: Node, name: str, made: Value) -> Value:
    """What a layer of another class makes: a map, where the layer has a data_format and its reader says the shape."""
    habit = "channels_first" if flow.channels_first else "channels_last"
    if CODE not in made.state.blocked or made.state != untold(node) or node.config.get(SAID) != habit:
        return made
    reads = [one for one in graph.layers if one.calls == ((Ref(node.name),),) and one.shape]
    return replace(made, state=input_state(flow, reads[0].shape, name)) if reads and len(node.calls) < 2 else made


def _value(
    flow: Flow, values: dict[tuple[str, int], list[Value]], feed: list[Value] | None, graph: Graph, ref: Ref
) -> Value | None:
    if not ref.layer:
        if feed is not None:
            return feed[ref.tensor] if ref.tensor < len(feed) else Value(State(blocked="the model's input"))
        return Value(input_state(flow, first_shape(graph), "input"))
    made = values.get((ref.layer, ref.call))
    if made is None:
        return None
    return (
        made[ref.tensor]
        if ref.tensor < len(made)
        else Value(State(blocked=f'"{ref.layer}"'), made[0].maker if made else "")
    )


def _followed(flow: Flow, node: Node, name: str, args: list[Value], call: Sequence[Ref]) -> list[Value]:
    """`_call`, of a config that may hold anything: a damaged one has texts or lists where rules read numbers."""
    try:
        return _call(flow, node, name, args, call)
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        what = f'The config of "{name}" ({node.class_name}) cannot be followed: {type(error).__name__}: {error}'
        raise bad_config(what[:300], flow.where) from error


def _call(flow: Flow, node: Node, name: str, args: list[Value], call: Sequence[Ref]) -> list[Value]:
    """One call of one layer: what comes out, and what its record's axes turn out to be."""
    if node.inner is not None and node.inner.layers:
        return _model(flow, node, node.inner, name, args)
    wrapped, kind = node.part("layer"), stock(node)
    if kind == "TimeDistributed" and wrapped is not None and args:
        return _distributed(flow, node, wrapped, name, args)
    if kind == "SpectralNormalization" and wrapped is not None:
        return _call(flow, replace(wrapped, name=node.name), name, args, call)
    if kind == "InputLayer":
        _note_fed(flow, records_of(flow, node, name), args)
        state = args[0].state if args else input_state(flow, shape_of(node), name)
        return [Value(state, name if name in flow.records else "")]
    return _layer(flow, node, name, args, [ref.keyword for ref in call])


def _model(flow: Flow, node: Node, inner: Graph, name: str, args: list[Value]) -> list[Value]:
    """A model in the place of a layer; of one that does not say its wiring, who feeds whom in it."""
    if inner.wired:
        return run(flow, inner, f"{name}/", args or None)
    note_readers(flow, [a.state for a in args])
    makers = fed(flow, inner, f"{name}/", [a.maker for a in args]) or [""]
    states = _passed(flow, node, name, args, makers)
    return [Value(state, maker) for state, maker in zip(states, makers, strict=True)]


def _layer(flow: Flow, node: Node, name: str, args: list[Value], keywords: Sequence[str]) -> list[Value]:
    """A layer by the rule of its class; one without weights that stands at several places hands on who made what."""
    own = records_of(flow, node, name)
    states, makers = [a.state for a in args], [a.maker for a in args]
    _note_fed(flow, own, args)
    if stock(node) == "BatchNormalization" and states and states[0].last and own:
        flow.normed[own[0]] = normed(states[0], node.config.get("axis"))
    consume(flow, node, own[0] if own else name, states, keywords)
    made = rule_of(node)(flow, node, name, states, makers)
    note_readers(flow, states, made)
    maker = own[-1] if own else ""
    if in_passing(flow, node, own, args):
        flow.readers.note(ELSE, makers)
        maker = makers[0]
    return [Value(state, maker) for state in made]


def _note_fed(flow: Flow, own: Sequence[str], args: Sequence[Value]) -> None:
    """What a layer is given, the first of its records reads."""
    makers = [a.maker for a in args]
    flow.readers.note(own[0] if own else ELSE, makers)
    if own:
        flow.inputs.setdefault(own[0], []).extend(maker for maker in makers if maker)


def _passed(flow: Flow, node: Node, name: str, args: list[Value], makers: Sequence[str]) -> list[State]:
    """What comes out of a layer of which not all can be followed: what it adds to, or features as those of a sum are.

    Found on notes of its own, which are thrown away: nothing is known of the axes inside. One without weights makes
    of vectors what a layer does of which nothing is known.
    """
    assert node.inner is not None
    held = any(record.tensors for one, record in flow.records.items() if one.startswith(f"{name}/"))
    lost = untold(node) if held else rule_of(node)(flow, node, name, [a.state for a in args], [])[0]
    if not node.inner.passes:
        return [lost] * len(makers)
    aside = Flow(flow.records, flow.channels_first, splits=dict(flow.splits), parents=dict(flow.parents))
    aside.count = flow.count
    made = run(aside, node.inner, f"{name}/", args or None)
    flow.count = aside.count
    came = [a.state for a in args if not a.state.blocked and not a.state.lead]
    found = [v.state if v.state in came else features(v.state, untold(node).blocked) or lost for v in made] or [lost]
    return [found[i] if i < len(found) else lost for i in range(len(makers))]


def _distributed(flow: Flow, node: Node, wrapped: Node, name: str, args: list[Value]) -> list[Value]:
    """TimeDistributed: the first axis is set aside, and put back in front of what the wrapped layer makes."""
    state = args[0].state
    if state.blocked or len(state.last) < 2:
        inner, time = state, None
    else:
        time = state.last[0]
        rest = tuple(d for d in state.first if d != time)
        inner = replace(
            state, last=state.last[1:], first=rest, spatial=len(state.last) > 3 or (state.spatial and len(rest) > 1)
        )
    if wrapped.inner is not None:
        made = run(flow, wrapped.inner, f"{name}/", [Value(inner, args[0].maker)])
    else:
        made = _call(flow, replace(wrapped, name=node.name), name, [Value(inner, args[0].maker)], ())
    if time is None:
        return made
    return [
        v
        if v.state.blocked
        else replace(v, state=replace(v.state, last=(time, *v.state.last), first=(time, *v.state.first)))
        for v in made
    ]
