"""What the dimensions of values in an ONNX graph are made of; at the end, in which order a map was flattened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from layoutx.frozen import frozen
from layoutx.model.axes import Axis, Cat, Dim, Item, Shape, Use, axes_in, refinement, same_order, size_of
from layoutx.model.onnx_apart import apart, key_of, lettered
from layoutx.model.onnx_sizes import Size
from layoutx.model.pieces import pieces
from layoutx.model.readers import ELSE, Readers
from layoutx.model.record import LayerRecord, Piece, Refinement, Way

Dims = tuple[Dim, ...]
Letters = Mapping[int, str]  # of axes by their numbers
Told = Refinement | str | None  # a text where it could not be followed
LETTERS: Mapping[int, str] = {1: "t", 2: "hw", 3: "dhw"}
KEEPS_LAST = "in a model that keeps channels last"


@frozen
class Value:
    """One value on its way, with its batch axis: dims in the graph's own order, None where they were lost.

    `makers` are the records that it comes from through nodes without weights, and how; `lost` says where the dims
    ended; `of` is the record whose output it is, just as it came.
    """

    dims: Dims | None = None
    makers: tuple[Way, ...] = ()
    lost: str = ""
    of: str = ""


@dataclass(slots=True)
class Flow:
    """What is gathered while walking a graph once.

    Attributes:
        maps: axes of a map (those not of length one) -> its axes, channels first; known once a spatial node reads or
            makes it, which may be after it was flattened or taken apart.
        splits: an axis taken apart by a Reshape -> its parts; cut: each part -> that axis.
        inputs: axes of the model's own inputs that could be a map, while no spatial node has said so.
        sizes: computed shapes, by value name.
        given: an axis of the model's own inputs, of sequences too -> its place there.
        tried: the inputs' sizes are only those that the model ran on: of axes in `inputs` they tell no order.
        habits: "first" and "last", as the channels stand in those that a spatial node reads.
    """

    values: dict[str, Value] = field(default_factory=dict)
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    maps: dict[frozenset[int], tuple[Axis, ...]] = field(default_factory=dict)
    channels: set[int] = field(default_factory=set)
    splits: dict[int, tuple[Axis, ...]] = field(default_factory=dict)
    cut: dict[int, Axis] = field(default_factory=dict)
    inputs: set[int] = field(default_factory=set)
    uses: dict[str, dict[str, list[tuple[Value, Dims, int | None]]]] = field(default_factory=dict)  # by record
    fed: dict[str, list[Way]] = field(default_factory=dict)
    sizes: dict[str, list[Size]] = field(default_factory=dict)
    given: dict[int, int] = field(default_factory=dict)
    habits: set[str] = field(default_factory=set)
    readers: Readers = field(default_factory=Readers)
    tried: bool = False
    count: int = 0

    def axis(self, letter: str, origin: str, size: int | None) -> Axis:
        """An axis that no other value has."""
        self.count += 1
        return Axis(self.count, letter, origin, size)

    def fresh(self, shape: Shape, origin: str) -> Dims | None:
        """New axes of these sizes; None where not even their number is known."""
        if shape is None:
            return None
        letters = ["b", *{2: "n", 3: "tn"}.get(len(shape), "")]
        names = letters if len(letters) == len(shape) else ["b", *(f"d{i}" for i in range(1, len(shape)))]
        return tuple((self.axis(letter, origin, n),) for letter, n in zip(names, shape, strict=False))

    def note_map(self, dims: Sequence[Dim]) -> None:
        """Remembers that these dims (batch, channel, spatial...) are a map, where each is an axis of its own."""
        axes = [d[0] for d in dims[1:] if len(d) == 1 and isinstance(d[0], Axis)]
        if len(axes) != len(dims) - 1 or len(axes) < 2:
            return
        self.maps[key_of(axes)] = tuple(axes)
        self.channels.add(axes[0].id)

    def use(self, record: str, axis: str, value: Value, dims: Sequence[Dim], total: int | None) -> None:
        """Remembers what one axis of a record's weights meets.

        Where a norm's channels are another axis than what the layer before has made, it does not read that one alone.
        """
        if axis == "channel" and value.of and dims and not any(a.origin == value.of for a in axes_in(dims[0])):
            self.readers.note(ELSE, [value.of])
        self.uses.setdefault(record, {}).setdefault(axis, []).append((value, tuple(dims), total))


@frozen
class Orders:
    """One dimension as Keras, and as a channels-first framework, would have it; `own` says which one the graph has."""

    last: Dim
    first: Dim
    own: str = ""


def orders(flow: Flow, dim: Dim) -> Orders | str:
    """Both orders of one dimension of the graph; a reason where they cannot be told."""
    items = apart(flow, whole(flow, dim))
    real = [x for x in items if isinstance(x, Cat) or x.size != 1]
    if len(real) == 1 and isinstance(real[0], Cat):
        return _of_cat(flow, real[0])
    if any(isinstance(x, Cat) for x in real) and len(real) > 1:
        return "a concatenation lies inside a product of axes"
    axes = [x for x in real if isinstance(x, Axis)]
    found = flow.maps.get(key_of(axes)) if len(axes) > 1 else None
    if found is not None:
        first = tuple(a for a in found if a.size != 1)
        last = (*(a for a in first if a.id not in flow.channels), *(a for a in first if a.id in flow.channels))
        ids = [a.id for a in axes]
        if ids == [a.id for a in first]:
            return Orders(last, first)
        return Orders(last, first, "last") if ids == [a.id for a in last] else "its map is flattened in another order"
    if len(axes) > 1 and any(a.id in flow.channels for a in axes):
        return _of_part(flow, axes)
    runs = _runs(flow, axes)
    if len(runs) > 1 and any(axis.id in flow.channels for axis, _ in runs):
        return _of_runs(flow, runs)
    if len(axes) > 1 and any(_uncut(flow, a).id in flow.inputs for a in axes):
        return "the model's own input is flattened, whose channels may stand first or last"
    return Orders(tuple(real), tuple(real))


def _uncut(flow: Flow, axis: Axis) -> Axis:
    """The axis of which this one is a part, whatever was cut on the way."""
    while axis.id in flow.cut:
        axis = flow.cut[axis.id]
    return axis


def _runs(flow: Flow, axes: Sequence[Axis]) -> list[tuple[Axis, Dim]]:
    """Neighbours that are parts of one axis, in whatever order: that axis, and they."""
    found: list[tuple[Axis, Dim]] = []
    for axis in axes:
        of = _uncut(flow, axis)
        if found and found[-1][0].id == of.id:
            found[-1] = (of, (*found[-1][1], axis))
        else:
            found.append((of, (axis,)))
    return found


def _of_runs(flow: Flow, runs: Sequence[tuple[Axis, Dim]]) -> Orders | str:
    """A map whose channels were cut and dealt out anew (a shuffle of groups) is one in which they lie so."""
    found = flow.maps.get(key_of([axis for axis, _ in runs]))
    if found is None or any(axis.size is None or size_of(run) != axis.size for axis, run in runs):
        return "a part of a map's channels is flattened with something else"
    order = [a.id for a in found if a.size != 1]
    last = sorted(order, key=lambda a: a in flow.channels)
    own = [axis.id for axis, _ in runs]
    if own not in (order, last):
        return "its map is flattened in another order"
    run = {axis.id: items for axis, items in runs}
    here, there = (tuple(x for a in ids for x in run[a]) for ids in (last, order))
    return Orders(here, there, "last" if own == last != order else "")


def _of_part(flow: Flow, axes: Sequence[Axis]) -> Orders | str:
    """The channels of a map and some of its positions as one dimension: the features of each time step."""
    ids = {a.id for a in axes}
    maps = [found for key, found in flow.maps.items() if ids < key]
    channels = [a for a in axes if a.id in flow.channels]
    if not maps or len(channels) > 1:
        return "a part of a map was flattened"
    rest = tuple(a for a in axes if a.id not in flow.channels)
    last, first = (*rest, *channels), (*channels, *rest)
    if tuple(axes) not in (last, first):
        return "a part of a map is flattened in another order"
    return Orders(last, first, "last" if tuple(axes) == last else "")


def whole(flow: Flow, dim: Dim) -> Dim:
    """The dimension with parts that lie together as a Reshape cut them made one axis again."""
    out: list[Item] = []
    for item in dim:
        out.append(item)
        axis = flow.cut.get(item.id) if isinstance(item, Axis) else None
        if axis is None:
            continue
        parts = [p.id for p in flow.splits[axis.id] if p.size != 1]
        if [x.id for x in out[-len(parts) :]] == parts:
            out[-len(parts) :] = whole(flow, (axis,))
    return tuple(out)


def _of_cat(flow: Flow, cat: Cat) -> Orders | str:
    parts, own = [], set()
    for name, dim, _ in cat.parts:
        found = orders(flow, dim)
        if isinstance(found, str):
            return found
        if not same_order(found.last, found.first):
            own.add(found.own)
        parts.append((name, found.last, found.first))
    if len(own) > 1:
        return "maps are flattened in both orders before a concatenation"
    made: Dim = (Cat(cat.id, tuple(parts)),)
    return Orders(made, made, next(iter(own), ""))


def finished(flow: Flow, records: Iterable[LayerRecord]) -> list[LayerRecord]:
    """The records with what is known of their axes and of the layers that feed them, once the walk is over."""
    letters = _letters(flow)
    return [_finished(flow, record, letters) for record in records]


def _finished(flow: Flow, record: LayerRecord, letters: Letters) -> LayerRecord:
    refine: dict[str, Refinement] = {}
    notes = [record.note] if record.note else []
    for axis, uses in flow.uses.get(record.name, {}).items():
        found = [_refined(flow, letters, axis, *use) for use in uses]
        if any(_plain(f) != _plain(found[0]) for f in found[1:]):
            found = [f"{axis} axis could not be followed: the layer is used at several places with different inputs"]
        if isinstance(found[0], str):
            notes.append(f"{found[0]}, {KEEPS_LAST}" if "last" in flow.habits else found[0])
        elif found[0] is not None:
            refine[axis] = found[0]
    ways = tuple(way for way in dict.fromkeys(flow.fed.get(record.name, [])) if way.maker != record.name)
    inputs = tuple(dict.fromkeys(way.maker for way in ways if way.maker))
    wired = replace(record, refine=refine, inputs=inputs, note="; ".join(notes), ways=ways)
    return replace(wired, pieces=_pieces(flow, record, letters), alone=flow.readers.alone(record.name))


def _pieces(flow: Flow, record: LayerRecord, letters: Letters) -> dict[str, tuple[Piece, ...]]:
    """What each of a record's axes is made of, where every use of the layer agrees; axes of a map by its letters."""

    def parts(dim: Dim) -> Dim:
        return lettered(letters, apart(flow, dim, every=True))

    found: dict[str, list[tuple[Piece, ...]]] = {}
    for axis, uses in flow.uses.get(record.name, {}).items():
        intact = all(a.id not in flow.splits for _, dims, _ in uses for d in dims for a in d)
        ids = {_uncut(flow, a).id for _, dims, _ in uses for d in dims for a in axes_in(d)}
        if axis == "out" or (axis == "output" and intact) or (flow.tried and flow.inputs & ids):
            continue  # units are of interest where a Reshape takes them apart
        found[axis] = [
            pieces([lettered(letters, d) for d in dims], total, parts)
            for value, dims, total in uses
            if value.dims is not None
        ]
    alike = {axis: {tuple(piece.axes for piece in one) for one in every} for axis, every in found.items()}
    return {axis: every[0] for axis, every in found.items() if len(alike[axis]) == 1 and every[0]}


def _plain(found: Told) -> Told:
    """What two calls of one layer must have in common: not which nodes their maps went through."""
    return replace(found, why="") if isinstance(found, Refinement) else found


def _letters(flow: Flow) -> dict[int, str]:
    """The usual letters of the axes of maps: c, and h w."""
    letters: dict[int, str] = {}
    for axes in flow.maps.values():
        letters |= dict(zip((a.id for a in axes), ("c", *LETTERS.get(len(axes) - 1, "")), strict=False))
    return letters


def _refined(flow: Flow, letters: Letters, axis: str, value: Value, dims: Dims, total: int | None) -> Told:
    if value.dims is None:
        return f"{axis} axis could not be followed through {value.lost or 'the graph'}"
    if len(dims) == 1:
        both = orders(flow, dims[0])
        if isinstance(both, str):
            return f"{axis} axis could not be followed: {both}"
        use, own = Use((lettered(letters, both.last),), (lettered(letters, both.first),), total), both.own
    else:
        use, own = _several(flow, dims, total)
    found = refinement(axis, use, {})
    if isinstance(found, str):
        return f"{axis} axis could not be followed: {found}"
    if found is None:
        return None
    dealt = next((f'channels that "{a.origin}" deals out' for d in use.last for a in axes_in(d)), "")
    return replace(found, own=own, joined=dealt if axis == "out" else "")


def _several(flow: Flow, dims: Dims, total: int | None) -> tuple[Use, str]:
    """A norm over several axes: those of a map stand in another order in Keras."""
    axes = [a for d in dims for a in axes_in(d)]
    found = flow.maps.get(key_of(axes))
    if found is None or any(len(d) != 1 for d in dims):
        return Use(dims, dims, total), ""
    first = tuple((a,) for a in found)
    last = (*first[1:], first[0])
    own = "last" if [a.id for a in axes] == [d[0].id for d in last] else ""
    return Use(last, first, total), own
