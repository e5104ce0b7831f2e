"""What a layer's arrays are and why they lie so: indices, axes, meaning, and the same numbers in other frameworks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import prod
from typing import Any

from layoutx.explained import Block, Box, Code, Rows, Say
from layoutx.lang.tree import Sum, walk
from layoutx.plan.code import expression
from layoutx.plan.plan import Plan
from layoutx.plan.region import picked, region
from layoutx.plan.words import orders
from layoutx.show.parts import fixed_at
from layoutx.show.picture import picture
from layoutx.show.topics.axis import sentence
from layoutx.show.topics.words import Subject, condition, dims, formula, label_word, missing, shaped, words_of
from layoutx.spec.bound import BoundForm, BoundTensor
from layoutx.spec.expand import axis_names
from layoutx.verify.hand.loops import loop, turned, units

GIVEN = {"keras": "get_weights()[{}]", "keras1": "get_weights()[{}]"}


def title(subject: Subject) -> str:
    """`dense_1 is a Dense layer: y = relu(x @ kernel + bias).   2000 inputs, 32 units.`"""
    bound = subject.bound
    named = subject.view.class_name if subject.view is not None and subject.view.class_name else bound.form.class_name
    text = formula(bound)
    what = f"y = {text}" if text else bound.kind.about.rstrip(".")
    article = "an" if named[:1] in "AEIO" or (named[:2].isupper() and named[0] in "FHLMNRSX") else "a"
    who = f"{subject.name} is {article} {named} layer" if subject.view is not None else bound.form.name
    return f"{who}: {what}.   {_sizes(bound)}".rstrip()


def _sizes(bound: BoundForm) -> str:
    """`2000 inputs, 32 units.` of the axes that the spec has words for."""
    found = []
    for axis, words in bound.kind.words.items():
        size = bound.sizes.get(axis)
        over = bound.kind.index.get(axis, (axis,))
        if size is not None and axis in over:
            size = prod(bound.sizes.get(name, 1) for name in over)
        if axis in bound.labels or axis == "hidden_prev" or (size is not None and size < 2):
            continue
        if size is None:
            leaves = _leaves(bound, axis)
            size = leaves if leaves else None
        if size is not None:
            found.append(f"{size} {words.many}")
    return f"{', '.join(found)}." if found else ""


def _leaves(bound: BoundForm, axis: str) -> int:
    """The length of a refined axis: what the tensor has beside the role's other axes."""
    for (role, _), place in bound.places.items():
        own = axis_names(bound.kind.roles[role].axes)
        if axis in own and not own & set(bound.labels):
            return prod(bound.sizes[name] for name in place.block.strides if name not in own)
    return 0


def arrays(subject: Subject) -> tuple[list[Block], list[dict[str, Any]]]:
    """Each stored array: its index, its axes, what it is for, what the file calls it."""
    bound, view = subject.bound, subject.view
    keyed = view is not None
    rows: list[tuple[str, ...]] = []
    data = []
    for index, tensor in enumerate(bound.tensors):
        stored = next((t for t in view.tensors if t.name == tensor.name), None) if view is not None else None
        given = GIVEN.get(subject.framework, "{}").format(stored.index if stored is not None else index)
        label = given if subject.framework in GIVEN else tensor.name
        state = all(bound.kind.roles[b.role].state for b in tensor.blocks)
        trained = stored.role if stored is not None else "state" if state else "trainable"
        rows.append((label, shaped(bound, tensor), trained, stored.key if stored is not None else ""))
        rows += [(text,) for text in remarks(bound, tensor)]
        data.append(
            {
                "name": tensor.name,
                "index": stored.index if stored is not None else index,
                "position": stored.position if stored is not None else None,
                "key": stored.key if stored is not None else None,
                "shape": list(tensor.shape),
                "axes": dims(bound, tensor),
                "kind": trained,
                "roles": sorted({b.role for b in tensor.blocks}),
                "about": remarks(bound, tensor),
            }
        )
    head = ("", "array", "", "name in the file" if keyed else "")
    blocks: list[Block] = [Rows(head, tuple(rows))]
    gone = missing(bound)
    if gone:
        blocks.append(Say("; ".join(f"{name} is absent here: {means}" for name, means in gone) + "."))
    return blocks, data


def remarks(bound: BoundForm, tensor: BoundTensor) -> list[str]:
    """What each row and column of an array means, when it is absent, and what is odd about how it lies."""
    found = [meaning(bound, tensor)]
    gone = condition(bound, tensor.name)
    found += [gone] if gone else []
    back = turned(tensor)
    if back:
        found.append(f"stored back to front along {', '.join(back)}: turn it around before the window slides")
    for at in units(tensor):
        found.append(f"dimension {at} has length one and means nothing")
    return [text for text in found if text]


def odd(bound: BoundForm) -> list[str]:
    """What people trip over who compute with arrays as they lie: kernels back to front, dimensions of length one."""
    found = []
    for tensor in bound.tensors:
        if turned(tensor):
            found.append(f"{tensor.name} is stored back to front along {', '.join(turned(tensor))}. {bound.form.why}.")
        for at in units(tensor):
            found.append(f"Dimension {at} of {tensor.name} {tensor.shape} has length one and means nothing.")
    return found


def meaning(bound: BoundForm, tensor: BoundTensor) -> str:
    """`row i: input i;  column j: unit j`, `one number a unit`; else what the spec says of its roles."""
    roles = list(dict.fromkeys(b.role for b in tensor.blocks))
    abouts = [f"{name}: {a}" if len(roles) > 1 else a for name in roles if (a := bound.kind.roles[name].about)]
    named = dims(bound, tensor)
    if len(tensor.shape) == 2 and len(roles) == 1:
        row, column = (_one(bound, tensor, at) for at in range(2))
        if row and column:
            return f"row i belongs to {row} i, column j to {column} j{_whole(bound, tensor)}"
    told = [name for name in named if name != "1"]
    parts = [*abouts, *([f"axes: {', '.join(told)}"] if len(named) > 1 else [])]
    for axis, order in orders(tensor).items():
        if axis in bound.kind.labels:
            each = [
                f"{s} {w}" for s, x in zip(order.spelled, order.labels, strict=True) if (w := _label(bound, axis, x))
            ]
            parts.append(f"{words_of(bound, axis).many} in the order {', '.join(each) or ' '.join(order.spelled)}")
    return ";  ".join(parts)


def _label(bound: BoundForm, axis: str, label: str) -> str:
    """The word for a label, where it is another than the label."""
    word = label_word(bound, axis, label)
    return f"({word})" if word != label else ""


def _one(bound: BoundForm, tensor: BoundTensor, at: int) -> str:
    """What one index along a stored dimension stands for; "" where it is a product of several axes, or gates."""
    if any(isinstance(node, Sum) for node in walk((tensor.layout.dims[at],))):
        return ""
    names = axis_names((tensor.layout.dims[at],))
    own = [name for name in names if name in bound.labels or bound.sizes.get(name, 1) != 1] or list(names)
    if len(own) == 1 and own[0] in bound.kind.words and own[0] not in bound.labels:
        return words_of(bound, own[0]).one
    role = tensor.blocks[0].role
    gone = [a for a in axis_names(bound.kind.roles[role].axes) if a in bound.kind.words and a not in bound.sizes]
    inner = own and not set(own) & set(bound.kind.words) and not set(own) & set(bound.labels)
    return words_of(bound, gone[0]).one if inner and len(gone) == 1 else ""


def _whole(bound: BoundForm, tensor: BoundTensor) -> str:
    """`: kernel[:, 5] is all that unit 5 reads`, of the axis that the role's view ends with."""
    found = example(bound, tensor)
    return f";  {found[1]} is all of {found[0]}" if found is not None else ""


def example(bound: BoundForm, tensor: BoundTensor, at: int = 5) -> tuple[str, str] | None:
    """("unit 5", "kernel[:, 5]"): one index along what the role makes; None where it has no such axis."""
    block = tensor.blocks[0]
    role = bound.kind.roles[block.role]
    order = role.view or tuple(getattr(d, "name", "") for d in role.axes)
    axis = order[-1] if order else ""
    over = bound.kind.index.get(axis, (axis,))
    count = prod(bound.sizes.get(name, 1) for name in over)
    shared = any(bound.sizes.get(name, 1) > 1 and name not in block.strides for name in over)  # a key head of several
    if shared or not block.strides.keys() & set(over) or len(tensor.blocks) != 1 or count < 2 or len(block.strides) < 2:
        return None
    number = min(at, count - 1)
    where = region(bound, tensor, picked(block, fixed_at(bound, block.role, {axis: number}, block)))
    word = words_of(bound, axis).one if axis in over else axis
    return (f"{word} {number}", where.text) if where.taken else None


def elsewhere(subject: Subject, found: list[Plan], refused: dict[str, str]) -> tuple[list[Block], list[dict[str, Any]]]:
    """Why the arrays lie so here, and how the same numbers lie in other frameworks, with the line of NumPy."""
    bound = subject.bound
    main = next((t for t in bound.tensors if len(t.shape) > 1), bound.tensors[0] if bound.tensors else None)
    blocks: list[Block] = []
    told = list(_beside(bound, main, found)) if main is not None else []
    if main is not None and len(main.shape) == 2 and told:
        names = dims(bound, main)
        blocks.append(Box(main.name, (names[0], main.shape[0]), (names[1], main.shape[1]), tuple(told)))
    elif told:
        blocks += [Say(text) for text in told if text]
    for plan in found:
        lines = picture(bound, plan).code
        blocks.append(Say(f"To {plan.target.form.name} ({plan.exactness}):"))
        blocks.append(Code(lines))
    blocks += [Say(f"{name} cannot hold it: {why}.") for name, why in refused.items()]
    return blocks, [_plan_dict(plan) for plan in found]


def _beside(bound: BoundForm, main: BoundTensor, found: list[Plan]) -> Iterator[str]:
    if bound.form.why:
        yield f"{bound.form.why}."
        yield ""
    for plan in found:
        goal = plan.target
        there = next((t for t in goal.tensors if len(t.shape) > 1), None)
        if there is None:
            continue
        text = formula(goal)
        moved = not expression(plan, there.name).endswith("']")
        lies = f"({', '.join(dims(goal, there))})" if moved or there.shape != main.shape else "the same"
        yield f"{goal.form.name}: {there.name} {there.shape}, {lies}" + (f"; y = {text}." if text else ".")
    here = example(bound, main)
    pairs = [(plan.target.form.name, example(plan.target, t)) for plan in found for t in plan.target.tensors[:1]]
    others = [f"{pair[1]} in {name}" for name, pair in pairs if pair is not None]
    if here is not None and others:
        yield ""
        yield f"All of {here[0]}: {here[1]} here, {', '.join(others)}."


def _bare(code: str) -> str:
    """`kernel.T` of `source['kernel'].T`."""
    return re.sub(r"source\['([A-Za-z_]\w*)'\]", r"\1", code)


def _plan_dict(plan: Plan) -> dict[str, Any]:
    goal = plan.target
    return {
        "form": goal.form.name,
        "formula": formula(goal),
        "why": goal.form.why,
        "exactness": str(plan.exactness),
        "tensors": [
            {"name": t.name, "shape": list(t.shape), "axes": dims(goal, t), "code": _bare(expression(plan, t.name))}
            for t in goal.tensors
        ],
        "code": plan.code(),
    }


def rest(subject: Subject) -> list[Block]:
    """The loop, where the inputs come from, and what the spec adds about the form."""
    blocks: list[Block] = []
    facts = [f"{name} {value}" for name, value in subject.bound.facts.items() if isinstance(value, str)]
    blocks += [Say(f"Here: {', '.join(facts)}.")] if facts and subject.bound.kind.facts else []
    text = loop(subject.bound)
    if text and subject.bound.kind.name not in ("dense", "embedding"):
        blocks += [Say("Every output element:"), Code((text,))]
    where = sentence(subject)
    blocks += [Say(where)] if where else []
    if subject.bound.form.about:
        blocks.append(Say(f"Note: {subject.bound.form.about}.", "dim"))
    return blocks
