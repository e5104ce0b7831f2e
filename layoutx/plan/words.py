"""A plan in words: each target tensor, where its numbers come from, in how many copies, how exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from layoutx.frozen import frozen
from layoutx.lang.tree import Option, Sum, walk
from layoutx.plan.naming import dim_name
from layoutx.plan.plan import Plan
from layoutx.plan.steps import Add, Copy, Drop, Fill, Guard, Step
from layoutx.spec.bound import BoundTensor
from layoutx.spec.values import ValueMap


def words(plan: Plan) -> str:
    """The whole plan, a paragraph a target tensor."""
    lines = [f"{plan.source.form.name} → {plan.target.form.name}: {plan.exactness}, {plan.exactness.meaning}"]
    for tensor in plan.target.tensors:
        lines += _tensor(plan, tensor)
    for step in plan.steps:
        if isinstance(step, Guard):
            lines.append(f"left out: {step.source} {_names(step)}, only if it is {step.value:g} everywhere")
        elif isinstance(step, Drop):
            lines.append(f"left out: {step.source} ({step.reason})")
    return "\n".join(lines)


def _names(step: Step) -> str:
    return ", ".join(step.atoms)


def _tensor(plan: Plan, tensor: BoundTensor) -> list[str]:
    steps = [s for s in plan.steps if getattr(s, "target", None) == tensor.name]
    sources = list(dict.fromkeys(s.source for s in steps if isinstance(s, Copy)))
    there = described(tensor)
    here = ", ".join(described(plan.source.tensor(name)) for name in sources)
    lines = [f"{here}  →  {there}" if here else there]
    copies = [s for s in steps if isinstance(s, Copy)]
    if copies:
        spelled = {o.label: _spelled(o, plan.source.tensor(n).layout.text) for n in sources for o in _options(plan, n)}
        lines.append(f"  {order_change(plan, tensor, sources)}{_copies(copies, spelled)}")
    for step in steps:
        if isinstance(step, Fill):
            lines.append(f"  filled with {step.value:g}: {_names(step)}")
        elif isinstance(step, Add):
            lines.append(f"  {formula(step)}: computed in float64, rounded once ({' + '.join(step.atoms)})")
    lines[-1] += f"   {plan.exactness_of(tensor.name)}"
    return lines


def formula(step: Add) -> str:
    """`bias_ih + bias_hh`, `bias + 1`, `running_std²`: what an Add stores, from stored tensors."""
    text = " + ".join(f"{'-' if term.negate else ''}{_meant(term.source, term.value)}" for term in step.terms)
    if step.shifts_only:
        amount = -step.constant if step.negate else step.constant
        text += f" {'-' if amount < 0 else '+'} {abs(amount):g}" if amount else ""
    else:
        text += f" - {step.value.add:g}" if step.value.add else ""
        text = f"({text}) / {step.value.times:g}" if step.value.times != 1.0 else text
        text = f"√({text})" if step.value.power != 1 else text
        text += f" - {step.value.shift:g}" if step.value.shift else ""
    return f"-({text})" if step.negate else text


def _meant(name: str, value: ValueMap) -> str:
    """A stored tensor with the map of its values; a shift alone is said with the constant."""
    name = f"({name} + {value.shift:g})" if value.shift else name
    text = f"{name}²" if value.power != 1 else name
    text = f"{value.times:g} × {text}" if value.times != 1.0 else text
    return text if value.shifts_only or not value.add else f"{text} + {value.add:g}"


def _options(plan: Plan, tensor: str) -> list[Option]:
    nodes = walk(plan.source.tensor(tensor).layout.dims)
    return [option for node in nodes if isinstance(node, Sum) and node.axis is not None for option in node.options]


def _copies(copies: Sequence[Copy], spelled: Mapping[str, str]) -> str:
    parts = ["{" + " ".join(_short(atom, spelled) for atom in c.atoms) + "}" for c in copies]
    groups = "" if len(copies) == 1 else ": " + " ".join(parts)
    negated = ", sign changed" if any(c.negate for c in copies) else ""
    return f"{len(copies)} {'copy' if len(copies) == 1 else 'copies'}{groups}{negated}"


def _short(atom: str, spelled: Mapping[str, str]) -> str:
    role, *labels = atom.split(".")
    return ".".join(spelled.get(label, label) for label in labels) or role


def described(tensor: BoundTensor) -> str:
    """`kernel (input 7, gate×hidden 20)`: a stored tensor with its named dimensions."""
    dims = ", ".join(f"{dim_name(d)} {n}" for d, n in zip(tensor.layout.dims, tensor.shape, strict=True))
    return f"{tensor.name} ({dims})"


def order_change(plan: Plan, tensor: BoundTensor, sources: Sequence[str]) -> str:
    """`gates i f g o → i o f g`: enumerated axes whose order differs between the two sides."""
    texts = []
    there = orders(tensor)
    here: dict[str, Order] = {}
    for name in sources:
        here.update(orders(plan.source.tensor(name)))
    for axis, labels in there.items():
        before = here.get(axis)
        if before is not None and before.labels != labels.labels:
            texts.append(f"{axis}  {' '.join(before.spelled)}  →  {' '.join(labels.spelled)}   ")
    return "".join(texts)


@frozen
class Order:
    """The labels of an enumerated axis as stored: by the kind's names, and as the framework spells them."""

    labels: tuple[str, ...]
    spelled: tuple[str, ...]


def orders(tensor: BoundTensor) -> dict[str, Order]:
    """Enumerated axis -> its labels in the stored order."""
    found: dict[str, Order] = {}
    for node in walk(tensor.layout.dims):
        if isinstance(node, Sum) and len(node.options) > 1:
            spelled = tuple(_spelled(option, tensor.layout.text) for option in node.options)
            found[node.axis or "parts"] = Order(tuple(option.label for option in node.options), spelled)
    return found


def _spelled(option: Option, text: str) -> str:
    """A label as the spec wrote it for this framework: Keras says c where torch says g."""
    start, end = option.span
    return text[start:end] if text[start:end].isidentifier() else option.label
