"""A found layout beside the one that is read: what is different, in words."""

from __future__ import annotations

from collections.abc import Sequence

from layoutx.lang.tree import Axis, Dim, Sum, walk
from layoutx.verify.relate.found import Found
from layoutx.verify.relate.written import SHUFFLED, Written

MOST = 4


def label_orders(dims: Sequence[Dim]) -> dict[str, tuple[str, ...]]:
    """Enumerated axis -> its labels as they lie; an axis that lies in several orders is left out."""
    found: dict[str, set[tuple[str, ...]]] = {}
    for node in walk(tuple(dims)):
        if isinstance(node, Sum) and node.axis:
            found.setdefault(node.axis, set()).add(tuple(o.label for o in node.options))
    return {axis: next(iter(orders)) for axis, orders in found.items() if len(orders) == 1}


def differences(holds: Written, reads: Written, form: str) -> list[str]:
    """What a layout does otherwise than its form.

    Args:
        form: "torch.LSTM".
    """
    words: list[str] = []
    if holds.head != reads.head and holds.head and reads.head:
        words.append(f"it holds {holds.head}, where {form} reads {reads.head}")
    elif (parts := _parts(holds.dims)) != (wanted := _parts(reads.dims)):
        words.append(f"its parts lie as {' '.join(parts) or holds.head}; {form} reads {' '.join(wanted) or reads.head}")
    there = label_orders(reads.dims)
    for axis, order in label_orders(holds.dims).items():
        if axis in there and there[axis] != order:
            words.append(f"its {axis} order is {' '.join(order)}; {form} reads {' '.join(there[axis])}")
    words += _axes(holds, reads, form)
    if holds.reshaped:
        words.append("its numbers were reshaped, not transposed: its dimensions cut through these axes")
    if not words and holds.text.removeprefix("-") != reads.text.removeprefix("-"):
        words.append(f"it lies as {holds.text}; {form} reads {reads.text}")
    return words


def _axes(holds: Written, reads: Written, form: str) -> list[str]:
    own, theirs = _names(holds.dims), _names(reads.dims)
    flips, known = set(_reversed(holds.dims)), set(_reversed(reads.dims))
    words = []
    if flips != known:
        turned = sorted(flips ^ known)
        words.append(f"{' and '.join(turned)} {_be(turned)} stored back to front")
    shuffled = [name.removeprefix(SHUFFLED) for name in own if name.startswith(SHUFFLED)]
    if shuffled:
        words.append(f"{' and '.join(shuffled)} {_be(shuffled)} shuffled, in an order that no layout says")
    split = [name for name in own if name not in theirs and not name.startswith(SHUFFLED)]
    whole = [name for name in theirs if any(_digit(x, name) for x in split)]
    for axis in whole:
        digits = [x for x in own if _digit(x, axis)]
        slow = " x ".join(str(holds.sizes[x]) for x in sorted(digits))
        words.append(f"{axis} is {slow} ({' '.join(sorted(digits))}), laid as {' '.join(digits)}")
    merged = [next((axis for axis in whole if _digit(x, axis)), x.removeprefix(SHUFFLED)) for x in own]
    order = list(dict.fromkeys(merged))
    if order != theirs and sorted(order) == sorted(theirs):
        note = ": not transposed" if len(order) == 2 and not holds.reshaped else ""
        words.append(f"its axes lie as {' '.join(order)}; {form} reads {' '.join(theirs)}{note}")
    return words


def _be(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _digit(name: str, axis: str) -> bool:
    return name.startswith(axis) and name != axis and name[len(axis) :].isdigit()


def _names(dims: Sequence[Dim]) -> list[str]:
    return list(dict.fromkeys(node.name for node in walk(tuple(dims)) if isinstance(node, Axis)))


def _reversed(dims: Sequence[Dim]) -> list[str]:
    return [node.name for node in walk(tuple(dims)) if isinstance(node, Axis) and node.reversed]


def _parts(dims: Sequence[Dim]) -> list[str]:
    sums = [node for node in walk(tuple(dims)) if isinstance(node, Sum) and node.axis is None]
    return [option.label.partition("#")[0] for node in sums for option in node.options]


def changed(found: Sequence[Found], silent: Sequence[str] = ()) -> list[str]:
    """What was done to the numbers: `b_input.f + 1`; one line for all atoms that it was done to."""
    atoms: dict[str, list[str]] = {}
    for piece in found:
        if piece.change.text:
            atoms.setdefault(piece.change.text, []).append(_text(piece, silent))
    words = []
    for text, names in atoms.items():
        whole = len(names) == len(found)
        shown = _role(found) if whole else ", ".join(names[:MOST]) + (", ..." if len(names) > MOST else "")
        colon = "" if text[0] in "+-x" or text.startswith("rounded") else ":"
        words.append(f"{shown}{colon} {text}")
    words += [f"{axis} is moved on by {by}, round the end" for axis, by in _rolled(found).items()]
    negated = [_text(piece, silent) for piece in found if piece.negated]
    if negated:
        shown = "all of it is" if len(negated) == len(found) else f"{', '.join(negated[:MOST])} is"
        words.append(f"{shown} stored with the other sign")
    return words


def _role(found: Sequence[Found]) -> str:
    return " and ".join(dict.fromkeys(piece.numbers.role for piece in found))


def _rolled(found: Sequence[Found]) -> dict[str, int]:
    """Axes whose indices all moved on by the same number."""
    rolled: dict[str, int] = {}
    for piece in found:
        for axis, order in piece.orders.items():
            n, step = len(order), sorted(order)[1] - sorted(order)[0]
            first = (order[0] - min(order)) // step
            if all((at - min(order)) // step == (i + first) % n for i, at in enumerate(order)):
                rolled[axis] = first
    return rolled


def _text(piece: Found, silent: Sequence[str]) -> str:
    return ".".join((piece.numbers.role, *(label for axis, label in piece.numbers.labels if axis not in silent)))
