"""Where the rows of a layer's weights come from: an axis followed back to the layers that made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from layoutx.errors import UsageError
from layoutx.explained import Block, Rows, Say
from layoutx.model.record import Piece
from layoutx.show.topics.words import Subject, words_of

GENERAL = ("input", "inputs", "in", "rows")  # what people call the axis that a layer reads, whatever the spec says
LETTERS = {"n": "unit", "r": "direction"}  # of the axes that an ONNX graph does not name
AXES = ("input", "in", "features", "channel", "embed_q", "embed_k", "embed_v")


def axis_of(subject: Subject, axis: str) -> tuple[list[Block], dict[str, Any]]:
    """One axis, run by run.

    Raises:
        UsageError: an axis that cannot be followed, with the reason.
    """
    axis = followed(subject, axis)
    found = _followable(subject).get(axis, ())
    if not found:
        raise UsageError(
            f"the {axis} axis of {subject.name} cannot be followed back",
            why=_why(subject, axis),
            do=_advice(subject),
        )
    runs = list(_runs(found))
    runs = [(start, stop, _named(subject, piece)) for start, stop, piece in runs]
    rows = [(span(start, stop), _made(subject, piece), _order(piece)) for start, stop, piece in runs]
    many = words_of(subject.bound, axis).many
    blocks: list[Block] = [Rows((f"{many}", "come from", "in the order"), tuple(rows))]
    for start, _, piece in runs:
        if len(piece.axes) > 1:
            blocks.append(Say(_counted(piece, start, words_of(subject.bound, axis).one)))
    if len(runs) > 1:
        blocks.append(Say(f"In all {sum(p.size or 0 for p in found)} {many}, laid end to end in this order."))
    return blocks, {"axis": axis, "pieces": [_dict(subject, *run) for run in runs]}


def followed(subject: Subject, axis: str) -> str:
    """The axis that is meant: of a layer that reads along one axis only, "input" is that axis."""
    pieces = _followable(subject)
    readable = [name for name in pieces if name in AXES]
    return readable[0] if axis not in pieces and axis in GENERAL and len(readable) == 1 else axis


def _followable(subject: Subject) -> Mapping[str, tuple[Piece, ...]]:
    """The axes that come from other layers; what a layer makes comes from itself."""
    return {
        axis: found
        for axis, found in subject.pieces.items()
        if any(piece.origins[0] != subject.name for piece in found)
    }


def _wired(subject: Subject) -> bool:
    return subject.model is not None and any(layer.inputs for layer in subject.model.layers)


def _advice(subject: Subject) -> str:
    pieces = _followable(subject)
    if pieces:
        return f"the axes that can: {', '.join(pieces)}"
    if _wired(subject):
        return ""
    return "give what says its wiring: a Keras or ONNX file, a live model, or torch.export.export(model, inputs)"


def _runs(found: tuple[Piece, ...]) -> list[tuple[int | None, int | None, Piece]]:
    runs, at = list[tuple[int | None, int | None, Piece]](), 0
    known = True
    for piece in found:
        size = piece.size
        runs.append((at if known else None, at + size if known and size is not None else None, piece))
        known = known and size is not None
        at += size or 0
    return runs


def span(start: int | None, stop: int | None) -> str:
    """`0..127`, `128`."""
    if start is None or stop is None:
        return "?"
    return str(start) if stop - start == 1 else f"{start}..{stop - 1}"


def _made(subject: Subject, piece: Piece) -> str:
    first, *rest = (named(subject, origin) for origin in piece.origins)
    return f"{first}, through {', '.join(rest)}" if rest else first


def named(subject: Subject, origin: str) -> str:
    """A layer by name; the model's own input as that."""
    layers = {layer.name: layer for layer in subject.model.layers} if subject.model is not None else {}
    layer = layers.get(origin)
    if layer is None and origin in ("input", "x"):
        return "the model's input"
    if layer is not None and layer.class_name == "InputLayer":
        return f"{origin} (the model's input)"
    return origin


def _named(subject: Subject, piece: Piece) -> Piece:
    """Its axes by words: the letters of an ONNX graph, and the directions that a recurrent layer lays end to end."""
    axes = tuple((LETTERS.get(name, name), size) for name, size in piece.axes)
    layers = {layer.name: layer for layer in subject.model.layers} if subject.model is not None else {}
    made = layers.get(piece.origins[0])
    bound = made.bound if made is not None else None
    ways = len(bound.labels.get("direction", ())) if bound is not None else 1
    hidden = bound.sizes.get("hidden", 0) if bound is not None else 0
    if len(axes) == 1 and ways > 1 and piece.size == ways * hidden:
        axes = (("direction", ways), ("unit", hidden))
    return replace(piece, axes=axes)


def _order(piece: Piece) -> str:
    if len(piece.axes) < 2:
        return ""
    return f"({', '.join(f'{name} {size}' for name, size in piece.axes)}), the last fastest"


def _counted(piece: Piece, start: int | None, one: str) -> str:
    """Which row belongs to which place of a flattened map."""
    names = [name for name, _ in piece.axes]
    steps, step = [], 1
    for name, size in reversed(piece.axes):
        steps.append(f"{name}*{step}" if step > 1 else name)
        step *= size or 1
    first = f"{start} + " if start else ""
    at = [min(1, (size or 1) - 1) for _, size in piece.axes]
    number, step = start or 0, 1
    for (_, size), index in zip(reversed(piece.axes), reversed(at), strict=True):
        number, step = number + index * step, step * (size or 1)
    where = ", ".join(f"{name}={index}" for name, index in zip(names, at, strict=True))
    return f"{one} number = {first}{' + '.join(reversed(steps))}: {where} is {one} {number}."


def _why(subject: Subject, axis: str) -> str:
    notes = "; ".join(subject.view.notes) if subject.view is not None else ""
    told = next((note for note in notes.split("; ") if note.startswith(f"{axis} axis")), "")
    if told:
        return told
    if not _wired(subject):
        return "the file does not say what feeds what"
    bound = subject.bound
    if not any(axis in place.block.strides for place in bound.places.values()) and axis not in GENERAL:
        return "it has no such axis"
    if _followable(subject) and axis not in GENERAL:
        return "the layer itself makes it: nothing that it reads lies along it"
    feeding = subject.view.inputs if subject.view is not None else ()
    return f"it reads {', '.join(feeding)}, of which this axis is not followed" if feeding else "nothing feeds it"


def _dict(subject: Subject, start: int | None, stop: int | None, piece: Piece) -> Mapping[str, Any]:
    return {
        "start": start,
        "stop": stop,
        "from": piece.origins[0],
        "through": list(piece.origins[1:]),
        "model_input": "model's input" in named(subject, piece.origins[0]),
        "axes": [[name, size] for name, size in piece.axes],
    }


def sentence(subject: Subject) -> str:
    """Where the inputs come from in one line; "" where nobody knows."""
    axis = next((a for a in AXES if a in subject.pieces), "")
    if not axis:
        return ""
    many = words_of(subject.bound, axis).many
    parts = []
    for start, stop, piece in _runs(subject.pieces[axis]):
        order = f" in the order ({' '.join(name for name, _ in piece.axes)})" if len(piece.axes) > 1 else ""
        parts.append(f"{span(start, stop)} {_made(subject, piece)}{order}")
    return f"Where its {many} come from:   {';  '.join(parts)}"
