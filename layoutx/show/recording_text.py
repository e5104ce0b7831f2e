"""What a recording holds, for a terminal and as JSON: one line a call, shapes only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from layoutx.plan.plan import Array
from layoutx.show.tables import Line, Note, clean, grid, plural, row, size_text
from layoutx.verify.recording import Recording

MOST = 60  # calls shown


def recording_text(found: Recording, path: str, width: int = 99, color: bool = False) -> str:
    """The recording in a screen or two."""
    lines: list[Line] = [
        row(clean(call.layer or "(the model)"), clean(call.class_name), _shapes(call.inputs), _shapes(call.outputs))
        for call in found.calls[:MOST]
    ]
    if len(found.calls) > MOST:
        lines.append(Note(f"... and {len(found.calls) - MOST} more"))
    table = grid(("layer", "class", "in", "out"), lines, width, color) if found.calls else "  no layer was seen"
    size = sum({id(a): a.nbytes for c in found.calls for a in (*c.inputs, *c.outputs)}.values())
    name = clean(found.about.get("model", "the model"))
    head = f"{name}  {clean(found.framework)} {clean(found.version)}  {clean(found.dtype)}"
    end = [f"{plural(len(found.calls), 'call')}, {size_text(size)} in {clean(path)}."]
    end += [f"note: {clean(found.note)}"] if found.note else []
    end.append(f"Compare: layoutx validate {clean(path)} OTHER_MODEL")
    return "\n".join([head, "", table, "", *end])


def recording_dict(found: Recording, path: str) -> dict[str, Any]:
    """The same as plain values."""
    return {
        "output": path,
        "model": found.about.get("model", ""),
        "framework": found.framework,
        "version": found.version,
        "dtype": found.dtype,
        "note": found.note,
        "inputs": [list(a.shape) for a in found.inputs],
        "outputs": [list(a.shape) for a in found.outputs],
        "calls": [
            {
                "layer": call.layer,
                "class": call.class_name,
                "number": call.number,
                "in": [list(a.shape) for a in call.inputs],
                "out": [list(a.shape) for a in call.outputs],
            }
            for call in found.calls
        ],
    }


def _shapes(arrays: Sequence[Array]) -> str:
    return "  ".join("×".join(map(str, a.shape)) or "one" for a in arrays[:3]) + (" …" if len(arrays) > 3 else "")
