"""A plan as NumPy source that anybody can read, run and keep: one expression a tensor where that is possible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

from layoutx.frozen import frozen
from layoutx.lang.tree import Axis, Dim, Product, Sum
from layoutx.plan.plan import Plan
from layoutx.plan.steps import Add, Copy, Fill, Step
from layoutx.spec.bound import BoundTensor
from layoutx.spec.values import ValueMap


@frozen
class _Leaf:
    """One dimension of a tensor after its products are split: an integer axis or the options of a sum."""

    name: str
    size: int
    back: bool = False
    labels: tuple[str, ...] = ()


def code(plan: Plan) -> str:
    """Source of a function `convert(source)`: dict of arrays by source tensor name -> dict by target tensor name."""
    body = []
    for tensor in plan.target.tensors:
        body += _expression(plan, tensor) or _concatenated(plan, tensor) or _blocks(plan, tensor)
    lines = [
        "import numpy as np",
        "",
        "",
        "def convert(source):",
        f'    """{plan.source.form.name} to {plan.target.form.name}: {plan.exactness}."""',
        "    target = {}",
        *(f"    {line}" for line in body),
        "    return target",
    ]
    return "\n".join(lines) + "\n"


def expression(plan: Plan, tensor: str) -> str:
    """The one NumPy expression that makes a target tensor from a source tensor; "" where it takes several."""
    lines = _expression(plan, plan.target.tensor(tensor))
    return lines[0].partition(" = ")[2] if lines else ""


def _leaves(tensor: BoundTensor, sizes: Mapping[str, int]) -> list[_Leaf] | None:
    """The split dimensions; None where a sum has blocks of its own dims, which no reshape can split."""
    found: list[_Leaf] = []

    def add(dims: Sequence[Dim]) -> bool:
        for dim in dims:
            match dim:
                case Axis(name, back):
                    found.append(_Leaf(name, sizes[name], back))
                case Product(inner):
                    if not add(inner):
                        return False
                case Sum(axis, options):
                    if any(option.dims for option in options):
                        return False
                    found.append(_Leaf(axis or "", len(options), False, tuple(o.label for o in options)))
                case _:
                    pass
        return True

    return found if add(tensor.layout.dims) else None


def _expression(plan: Plan, tensor: BoundTensor) -> list[str]:
    steps = [s for s in plan.steps if getattr(s, "target", None) == tensor.name]
    there = _leaves(tensor, plan.target.sizes)
    text = _piece(plan, tensor, steps, there) if there is not None and not tensor.cut else ""
    return [f"target[{tensor.name!r}] = {text}"] if text else []


def _piece(plan: Plan, tensor: BoundTensor, steps: Sequence[Step], there: list[_Leaf]) -> str:
    """The expression of a tensor, or of a part of one, that one source makes by these steps; "" where none does."""
    copies = [s for s in steps if isinstance(s, Copy) and not s.negate]
    names = {s.source for s in copies}
    if len(copies) != len(steps) or len(names) != 1:
        return ""
    source = plan.source.tensor(names.pop())
    here = _leaves(source, plan.source.sizes) if not source.cut else None
    if here is None:
        return ""
    there = [leaf for leaf in there if leaf.size != 1 or any(x.name == leaf.name for x in here)]
    plain = [[leaf for leaf in leaves if leaf.size != 1] for leaves in (here, there)]
    ways = [_way(source, tensor, *leaves) for leaves in (plain, (here, there), _merged(here, there))]
    return min(filter(None, ways), key=len, default="")


def _concatenated(plan: Plan, tensor: BoundTensor) -> list[str]:
    """Parts that one source makes each, or one number, laid end to end; [] where the tensor is made in another way."""
    there = _leaves(tensor, plan.target.sizes)
    first = next((at for at, leaf in enumerate(there or ()) if leaf.size != 1), -1)
    if there is None or tensor.cut or first < 0 or not there[first].labels:
        return []
    steps = [s for s in plan.steps if isinstance(s, (Copy, Fill, Add)) and s.target == tensor.name]
    like = next((s.source for s in steps if isinstance(s, Copy)), "")
    leaf, rest = there[first], [*there[:first], *there[first + 1 :]]
    axis = next(at for at, size in enumerate(tensor.shape) if size != 1)
    shape = (*tensor.shape[:axis], tensor.shape[axis] // leaf.size, *tensor.shape[axis + 1 :])
    parts = []
    for number, label in enumerate(leaf.labels):
        reach = range(number * prod(shape), (number + 1) * prod(shape))
        own = [step for step in steps if _ends(step)[0] in reach]
        if any(_ends(step)[1] not in reach for step in own):
            return []
        blocks = tuple(b for b in tensor.blocks if label == (dict(b.labels).get(leaf.name) if leaf.name else b.role))
        filled = {step.value if isinstance(step, Fill) else None for step in own}
        one = filled.pop() if len(filled) == 1 else None
        made = f"{_filled(one, shape)}, source[{like!r}].dtype)" if one is not None and like else ""
        parts.append(made or _piece(plan, replace(tensor, shape=shape, blocks=blocks), own, rest))
    along = f", axis={axis}" if axis else ""
    return [f"target[{tensor.name!r}] = np.concatenate([{', '.join(parts)}]{along})"] if all(parts) else []


def _ends(step: Copy | Fill | Add) -> tuple[int, int]:
    """The first and the last element of the target that a step writes."""
    ways = [(loop.size - 1) * loop.target for loop in step.loops]
    return step.target_offset + sum(min(way, 0) for way in ways), step.target_offset + sum(max(way, 0) for way in ways)


def _way(source: BoundTensor, tensor: BoundTensor, here: Sequence[_Leaf], there: Sequence[_Leaf]) -> str:
    """Reshape to the source's leaves, pick, transpose, reshape to the target; "" where that cannot be."""
    text = f"source[{source.name!r}]"
    picked = _picked(here, there, tensor)
    if picked is None:
        return ""
    index, remaining = picked
    positions = [remaining.index(leaf.name) for leaf in there if leaf.name in remaining]
    if len(positions) != len(there) or len(positions) != len(remaining):
        return ""
    shape = source.shape
    turned = positions != sorted(positions)
    if (index or turned) and tuple(leaf.size for leaf in here) != shape:
        text += f".reshape({_tuple([leaf.size for leaf in here])})"
    text += index
    if turned:
        text += ".T" if positions == [1, 0] else f".transpose({', '.join(map(str, positions))})"
    if index or turned:
        shape = tuple(leaf.size for leaf in there)
    if shape != tensor.shape:
        text += f".reshape({_tuple(tensor.shape)})"
    return text


def _merged(here: list[_Leaf], there: list[_Leaf]) -> tuple[list[_Leaf], list[_Leaf]]:
    """Neighbours that stay neighbours on both sides become one dimension."""
    at = 0
    while at + 1 < len(here):
        first, second = here[at], here[at + 1]
        joined = _Leaf(f"{first.name}×{second.name}", first.size * second.size)
        for i in range(len(there) - 1):
            if there[i] == first and there[i + 1] == second and not (first.back or second.back):
                here = [*here[:at], joined, *here[at + 2 :]]
                there = [*there[:i], joined, *there[i + 2 :]]
                break
        else:
            at += 1
    return here, there


def _picked(here: Sequence[_Leaf], there: Sequence[_Leaf], tensor: BoundTensor) -> tuple[str, list[str]] | None:
    """The indexing that selects and reorders labels and flips axes, and the names of the dimensions it leaves."""
    wanted = {leaf.name: leaf for leaf in there}
    plain: list[str] = []
    lists: list[str] = []
    remaining: list[str] = []
    for leaf in here:
        goal = wanted.get(leaf.name)
        positions: list[int] = []
        if leaf.labels:
            labels = goal.labels if goal else _fixed(leaf, tensor)
            if labels is None or not set(labels) <= set(leaf.labels):
                return None
            positions = [leaf.labels.index(label) for label in labels]
        if goal is None:
            if not leaf.labels and leaf.size != 1:
                return None
            plain.append(str(positions[0]) if leaf.labels else "0")
            continue
        if positions and positions != list(range(leaf.size)) and not _slice(positions):
            lists.append("[" + ":, " * len(remaining) + f"{positions}]")
            plain.append(":")
        elif positions and positions != list(range(leaf.size)):
            plain.append(_slice(positions))
        else:
            plain.append("::-1" if goal.back != leaf.back else ":")
        remaining.append(leaf.name)
    while plain and plain[-1] == ":":
        plain.pop()
    return (f"[{', '.join(plain)}]" if plain else "") + "".join(lists), remaining


def _slice(positions: Sequence[int]) -> str:
    """A slice where positions are consecutive, else ""."""
    first, last = positions[0], positions[-1]
    return f"{first}:{last + 1}" if list(positions) == list(range(first, last + 1)) else ""


def _fixed(leaf: _Leaf, tensor: BoundTensor) -> tuple[str, ...] | None:
    """The one label (or role) of a source sum that this target tensor holds."""
    found = {block.role if leaf.name == "" else dict(block.labels).get(leaf.name, "") for block in tensor.blocks}
    return tuple(found) if len(found) == 1 else None


def _tuple(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes)) if sizes else "()"


def _blocks(plan: Plan, tensor: BoundTensor) -> list[str]:
    """Any plan: a flat array, and for each step a strided view on both sides."""
    name = f"target[{tensor.name!r}]"
    steps = [s for s in plan.steps if getattr(s, "target", None) == tensor.name]
    plain = next((t.name for t in plan.source.tensors if not t.dtype), "")
    like = next((s.source for s in steps if isinstance(s, Copy)), "") or next(
        (s.terms[0].source for s in steps if isinstance(s, Add)), plain
    )
    dtype = f"source[{like!r}].dtype" if like and not tensor.dtype else repr(tensor.dtype or "float32")
    values = {s.value for s in steps if isinstance(s, Fill)}
    if len(values) == 1 and all(isinstance(s, Fill) for s in steps):
        return [f"{name} = {_filled(values.pop(), tensor.shape)}, {dtype})"]
    lines = [f"out = np.empty({prod(tensor.shape)}, {dtype})  # {tensor.name}"]
    for step in steps:
        to = _index(step.target_offset, [(x.size, x.target) for x in step.loops])  # type: ignore[union-attr]
        match step:
            case Fill():
                lines.append(f"out[{to}] = {step.value:g}")
            case Copy():
                of = _index(step.source_offset, [(x.size, x.source) for x in step.loops])
                sign = "-" if step.negate else ""
                lines.append(f"out[{to}] = {sign}{_memory(plan.source.tensor(step.source))}[{of}]")
            case Add():
                terms = []
                for term in step.terms:
                    of = _index(term.offset, [(x.size, s) for x, s in zip(step.loops, term.strides, strict=True)])
                    of = f"{_memory(plan.source.tensor(term.source))}[{of}].astype(np.float64)"
                    of = f"-{of}" if term.negate else of
                    terms.append(_meaning(of, term.value))
                lines.append(f"out[{to}] = {_stored(' + '.join(terms), step)}")
            case _:
                pass
    whole = "out"
    if tensor.cut is not None:  # written block after block
        rows, blocks, columns = tensor.cut
        whole = f"out.reshape({blocks}, {rows}, {columns}).transpose(1, 0, 2)"
    lines.append(f"{name} = {whole}.reshape({_tuple(tensor.shape) if tensor.shape else '()'})")
    return lines


def _filled(value: float, shape: Sequence[int]) -> str:
    """The beginning of an array of one number: `np.zeros(28`, `np.full((7, 3), 2`."""
    size = str(shape[0]) if len(shape) == 1 else repr(tuple(shape))
    made = {0.0: f"np.zeros({size}", 1.0: f"np.ones({size}"}
    return made.get(value) or f"np.full({size}, {value:g}"


def _memory(tensor: BoundTensor) -> str:
    """The flat memory that places count: `source['kernel'].ravel()`, or its blocks end to end."""
    name = f"source[{tensor.name!r}]"
    return f"{name}.ravel()" if tensor.cut is None else f"{name}.reshape{tensor.cut}.transpose(1, 0, 2).ravel()"


def _meaning(text: str, value: ValueMap) -> str:
    text = f"{text} + {value.shift!r}" if value.shift else text
    text = f"({text}) ** {value.power}" if value.power != 1 else text
    text = f"{value.times!r} * {text}" if value.times != 1.0 else text
    return f"{text} + {value.add!r}" if value.add else text


def _stored(text: str, step: Add) -> str:
    value = step.value
    text = f"{text} - {value.add!r}" if value.add else text
    text = f"({text}) / {value.times!r}" if value.times != 1.0 else text
    text = f"np.sqrt({text})" if value.power != 1 else text
    text = f"{text} - {value.shift!r}" if value.shift else text
    return f"-({text})" if step.negate else text


def _index(offset: int, loops: Sequence[tuple[int, int]]) -> str:
    """A flat index: a slice where there is one loop, else a sum of ranges that broadcasts."""
    loops = [x for x in loops if x[0] != 1]
    if not loops:
        return str(offset)
    if len(loops) == 1 and loops[0][1] > 0:
        size, step = loops[0]
        end = offset + (size - 1) * step + 1
        return f"{offset}:{end}" + (f":{step}" if step != 1 else "")
    terms = []
    for at, (size, step) in enumerate(loops):
        tail = "[:" + ", None" * (len(loops) - at - 1) + "]" if at < len(loops) - 1 else ""
        terms.append(f"{step} * np.arange({size}){tail}" if step != 1 else f"np.arange({size}){tail}")
    return " + ".join(([str(offset)] if offset else []) + terms)
