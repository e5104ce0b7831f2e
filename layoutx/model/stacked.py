"""Models that keep equal layers as one: tensors with an axis for the layers become a tensor a layer, each with a name.

`nn.scan`, `nnx.vmap`, `equinox.filter_vmap` and haiku's `layer_stack` keep `layers.attn.kernel` (12, 768, 768) where
other models keep `layers.0.attn.kernel` to `layers.11.attn.kernel`. Which axis counts the layers is what the user says
(`--set layers.stacked=0`), what the model's own program scans over, or the one without which the layers have forms.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import takewhile
from typing import Any

from layoutx.empty import NOTHING
from layoutx.errors import UsageError
from layoutx.files.stacked import layers_of
from layoutx.files.store import Part, Tensor
from layoutx.frozen import frozen
from layoutx.model.keyed import Keyed
from layoutx.model.record import ModelRecord
from layoutx.model.said import PARTS, STACKED
from layoutx.model.state import NO_FORM, state_records
from layoutx.spec.registry import Registry

STACKING = ("flax", "nnx", "haiku", "equinox")  # whose libraries keep layers so; of others the user says it
AXES = (0, 1)  # flax' scan puts its axis first, T5X and MaxText second


@frozen
class Stack:
    """The tensors below a path have an axis for the layers.

    Attributes:
        path: what they lie below; "" is the whole model. axis: of each tensor. count: of the layers.
    """

    path: str
    axis: int
    count: int


def unstacked(keyed: Keyed, registry: Registry, values: Mapping[str, Any] = NOTHING) -> Keyed:
    """The model with a tensor for each layer; itself where it keeps none so.

    Args:
        values: what the user says: `{"layers.stacked": 1}` is the axis, False: these are no layers.

    Raises:
        UsageError: an axis that the tensors below a path do not have in common, or one that nothing decides.
    """
    said = {name.rpartition(".")[0]: axis for name, axis in values.items() if name.rpartition(".")[2] == STACKED}
    stacks = [_said(keyed, path, axis) for path, axis in said.items() if axis is not False and _below(keyed, path)]
    if keyed.framework in STACKING:
        rest = {n: t for n, t in keyed.tensors.items() if not any(_inside(n, path) for path in said)}
        stacks += _found(replace(keyed, tensors=rest), registry, values)
    for stack in stacks:
        keyed = _taken_apart(keyed, stack)
    if not stacks or keyed.flow is None:
        return keyed
    from layoutx.model.jax_live import with_flow

    return with_flow(keyed)


def parts_of(model: Keyed | ModelRecord) -> dict[str, Part]:
    """Name of each tensor that is a layer of a stored one -> which."""
    tensors = model.tensors.values() if isinstance(model, Keyed) else model.store.tensors.values()
    return {tensor.name: tensor.part for tensor in tensors if tensor.part is not None}


def check_stacked(values: Mapping[str, Any], *models: Keyed | ModelRecord) -> None:
    """Refuse a path that is in none of the models.

    Raises:
        UsageError: with the names that there are.
    """
    names = [name for model in models for name in _names(model)]
    wholes = {
        part.whole.name.replace("/", ".").rpartition(".")[0] for model in models for part in parts_of(model).values()
    } | {
        one.name.rpartition("/")[0].replace("/", ".")
        for model in models
        for one in (model.layers if isinstance(model, ModelRecord) else ())
        if any(tensor.part is not None for tensor in one.tensors.values())
    }
    for said in values:
        path, _, key = said.rpartition(".")
        if key == PARTS and not any(fnmatchcase(whole, path.replace("/", ".")) for whole in wholes):
            raise UsageError(
                f"--set {said} names no layer of a model that has several in one: {path!r}",
                do="give the path of the layer in the file: 'h.*.attn.qkv.parts=query 6, key 6, value 6'",
            )
        if key == STACKED and not any(_inside(name, path) for name in names):
            raise UsageError(
                f"--set {said} names no part of a model: {path!r}",
                why=f"the layers are {', '.join(names[:20])}",
                do="give the path that the stacked layers have in common: decoder.layers.stacked=0",
            )


def _names(model: Keyed | ModelRecord) -> list[str]:
    names = model.tensors if isinstance(model, Keyed) else [record.name for record in model.layers]
    return [name.replace("/", ".") for name in names]


def _inside(name: str, path: str) -> bool:
    return not path or name == path or name.startswith(f"{path}.")


def _below(keyed: Keyed, path: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in keyed.tensors.items() if _inside(name, path)}


def _said(keyed: Keyed, path: str, axis: Any) -> Stack:
    below = _below(keyed, path)
    sizes = {tensor.shape[axis : axis + 1] for tensor in below.values()} if type(axis) is int and axis >= 0 else set()
    if len(sizes) != 1 or () in sizes:
        shapes = ", ".join(f"{name} {tensor.shape}" for name, tensor in list(below.items())[:6])
        raise UsageError(
            f"the tensors below {path or 'the model'} have not one number of layers in axis {axis}",
            where=shapes,
            do=f"say another axis, a longer path, or that it holds no layers: --set {path}.{STACKED}=false",
        )
    return Stack(path, axis, next(iter(sizes))[0])


def _found(keyed: Keyed, registry: Registry, values: Mapping[str, Any]) -> list[Stack]:
    """The stacks that show: in the model's program, or as layers that have forms without the axis, and none with it."""
    bare, _ = _unformed(keyed, registry, values)
    if not bare:
        return []
    scanned = keyed.scanned() if keyed.scanned is not None else {}
    found = list(_of_program(keyed, scanned))
    rest = {n: t for n, t in keyed.tensors.items() if not any(_inside(n, stack.path) for stack in found)}
    return found + list(_of_shapes(replace(keyed, tensors=rest), "", bare, registry, values))


def _unformed(keyed: Keyed, registry: Registry, values: Mapping[str, Any]) -> tuple[set[str], int]:
    """The tensors of layers that no form fits, and how many layers there are."""
    layers = state_records(keyed, registry, values).layers
    short = {tensor.name: name for name, tensor in keyed.tensors.items()}
    lost = [record for record in layers if not record.form and record.note == NO_FORM]
    return {short[tensor.name] for record in lost for tensor in record.tensors.values()}, len(layers)


def _of_program(keyed: Keyed, scanned: Mapping[str, tuple[int, int, int]], path: str = "") -> Iterator[Stack]:
    """The shortest paths of which one loop scans over every tensor."""
    below = _below(keyed, path)
    if not below.keys() & scanned.keys() or path in below:
        return
    ways = {scanned.get(name) for name in below}
    if len(ways) == 1 and (way := ways.pop()) is not None:
        yield Stack(_common(below), *way[:2])
        return
    for child in _children(below, path):
        yield from _of_program(keyed, scanned, child)


def _of_shapes(
    keyed: Keyed, path: str, bare: set[str], registry: Registry, values: Mapping[str, Any]
) -> Iterator[Stack]:
    """The shortest paths below which layers without a form have one once an axis is taken away, and none loses its."""
    below = _below(keyed, path)
    if not bare & below.keys():
        return
    held = [fit for axis in AXES if (fit := _fitting(keyed, below, axis, bare, registry, values)) is not None]
    if held and held[0][1] < 2:
        return  # a layer of the user's own rather than a stack of them
    if len(held) == 2 and held[0][0].count == held[1][0].count:
        common, count = held[0][0].path, held[0][0].count
        raise UsageError(
            f"{common or 'the model'} keeps {count} layers as one, in its first axis or in its second",
            why=f"both have {count} elements, and either is how libraries keep stacked layers",
            do=f"say which: --set {common}.{STACKED}=0 or --set {common}.{STACKED}=1",
        )
    if held:  # of two axes the wrong one would show as another number of layers
        _check_list(below, held[0][0])
        yield held[0][0]
        return
    for child in _children(below, path):
        yield from _of_shapes(keyed, child, bare, registry, values)


def _fitting(
    keyed: Keyed, below: Mapping[str, Tensor], axis: int, bare: set[str], registry: Registry, values: Mapping[str, Any]
) -> tuple[Stack, int] | None:
    """These tensors as a stack, and how many layers it stacks; a parameter of the user's own has no form either way."""
    sizes = {tensor.shape[axis : axis + 1] for tensor in below.values()}
    if len(sizes) != 1 or () in sizes or sizes == {(1,)} or sizes == {(0,)}:
        return None
    one = {name: replace(t, shape=t.shape[:axis] + t.shape[axis + 1 :]) for name, t in below.items()}
    still, many = _unformed(replace(keyed, tensors=one, tied={}), registry, values)
    return (Stack(_common(below), axis, next(iter(sizes))[0]), many) if still < bare & below.keys() else None


def _check_list(below: Mapping[str, Tensor], stack: Stack) -> None:
    """Refuse blocks that differ by a number alone: several stacks, or one whose layers are several blocks each?

    Raises:
        UsageError: with what says which.
    """
    blocks = _children(below, stack.path)
    words = {re.sub(r"[0-9]+", "", block) for block in blocks}
    deep = [b for b in blocks if any(_inside(name, b) and name.count(".") > b.count(".") + 1 for name in below)]
    if len(blocks) > 1 and len(words) == 1 and deep == blocks:
        apart = " ".join(f"--set {block}.{STACKED}={stack.axis}" for block in blocks)
        raise UsageError(
            f"{' and '.join(blocks[:3])} keep {stack.count} layers as one, or each of {stack.count} layers has them",
            why="which comes first in the order of the layers is not in the names",
            do=f"say which: {apart}, or --set {stack.path}.{STACKED}={stack.axis}",
        )


def _common(names: Iterable[str]) -> str:
    """The path that all of these tensors lie below."""
    levels = zip(*(name.split(".")[:-1] for name in names), strict=False)
    return ".".join(level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels))


def _children(names: Iterable[str], path: str) -> list[str]:
    start = f"{path}." if path else ""
    found = dict.fromkeys(start + name[len(start) :].split(".")[0] for name in names)
    return [child for child in found if child != path]


def _taken_apart(keyed: Keyed, stack: Stack) -> Keyed:
    """The layers one after the other, where the first tensor of the stack stood."""
    below = _below(keyed, stack.path)
    split = {name: layers_of(tensor, stack.axis) for name, tensor in below.items()}
    layers = {_at(name, stack, i): split[name][i] for i in range(stack.count) for name in below}
    tensors: dict[str, Tensor] = {}
    for name, tensor in keyed.tensors.items():
        tensors.update(layers if name in below else {name: tensor})
    names = {**keyed.split, **{name: tuple(_at(name, stack, i) for i in range(stack.count)) for name in below}}
    modules, tied = dict(keyed.modules), {n: first for n, first in keyed.tied.items() if n not in below}
    for path, module in keyed.modules.items():
        if path != stack.path and _inside(path, stack.path):
            modules.update({_at(path, stack, i): module for i in range(stack.count)})
    for name, first in keyed.tied.items():
        if name in below and first in below:
            tied.update({_at(name, stack, i): _at(first, stack, i) for i in range(stack.count)})
    store = keyed.store
    if store is not None:
        own = {below[name].name: split[name] for name in below}
        kept = {t.name: t for n, full in store.tensors.items() for t in own.get(n, [full])}
        store = replace(store, tensors=kept)
    return replace(keyed, tensors=tensors, modules=modules, tied=tied, store=store, split=names)


def _at(name: str, stack: Stack, index: int) -> str:
    """A name in one layer: the layer's number stands behind the path of the stack."""
    rest = name[len(stack.path) :].lstrip(".")
    return ".".join(filter(None, (stack.path, str(index), rest)))
