"""What in an ONNX graph does not depend on its input: stored tensors, and what becomes of them before they are used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field, replace
from functools import partial
from typing import Any

import numpy as np

from layoutx.files.onnx_file import bodies, label, need_onnx
from layoutx.files.store import Store, Tensor
from layoutx.frozen import frozen
from layoutx.model.onnx_fold import Folding

QUANTISED = ("DequantizeLinear", "QuantizeLinear", "DynamicQuantizeLinear")
LAYERS = ("MatMul", "Gemm", "Conv", "RNN", "GRU", "LSTM")
NORMS = ("BatchNormalization", "LayerNormalization", "GroupNormalization", "InstanceNormalization", "RMSNormalization")
WEIGHTED = (*LAYERS, *NORMS, "ConvTranspose", "PRelu")  # what reads weights beside its data
RANDOM = ("RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial", "Dropout")


@frozen
class Const:
    """A value that is the same for every input.

    Attributes:
        tensors: the stored tensors that it is made of; none where the graph computes it from shapes.
        turned: it is its one tensor with the two dimensions exchanged.
        through: why nobody can tell its numbers, "" where they can be told.
        own: its one tensor under the name of an Identity, where others read that tensor too.
        literal: a Constant node gives it.
        fold: computes the value; None where it is a stored tensor as it lies there.
    """

    tensors: tuple[Tensor, ...] = ()
    turned: bool = False
    through: str = ""
    own: Tensor | None = None
    literal: bool = False
    fold: Callable[[], Tensor | None] | None = field(default=None, compare=False, repr=False)

    @property
    def tensor(self) -> Tensor | None:
        """The tensor that is this value, or that it is when turned; None where nobody can tell its numbers."""
        if self.turned or (self.fold is None and not self.through):
            return self.own or (self.tensors[0] if len(self.tensors) == 1 else None)
        return self.value

    @property
    def value(self) -> Tensor | None:
        """The value as it is used, turned where it is; None where nobody can tell its numbers."""
        if self.through:
            return None
        return self.fold() if self.fold is not None else self.tensor

    @property
    def known(self) -> Tensor | None:
        """The stored tensor, where it is one."""
        return self.tensor if self.fold is None else None

    @property
    def floats(self) -> bool:
        """Whether it may be a weight: more than one number, and not whole numbers."""
        value = self.value if self.fold is not None else None
        return any(t.size > 1 and t.dtype.kind not in "iub" for t in ((value,) if value else self.tensors))


def constants(
    graph: Any,
    store: Store,
    prefix: str = "",
    outer: Mapping[str, Const] | None = None,
    folding: Folding | None = None,
) -> dict[str, Const]:
    """Value name -> what it is made of, for all values of a graph that do not depend on its inputs.

    Args:
        prefix: of the names that a body's tensors have in the store.
        outer: what the graph around a body knows.
        folding: filled with what can be computed; ONNX's newest operators are taken where it is left out.
    """
    folding = folding if folding is not None else Folding(17)
    found = _constants(graph, store, prefix, outer or {}, folding, frozenset())
    looked = _lookups(graph, found)
    return _constants(graph, store, prefix, outer or {}, folding, looked) if looked else found


def _lookups(graph: Any, found: Mapping[str, Const]) -> frozenset[str]:
    """What is looked up in a stored table by numbers that are always the same: the table is a layer, and this its data.

    Positions of a sequence whose length was fixed, or the places of a window (Swin). Where a layer's weight is made of
    the rows, they are that weight in another order.
    """
    makers = {name: node for node in graph.node for name in node.output if name in found}
    layers = [node for node in graph.node if node.op_type in WEIGHTED]
    waiting = [n for node in layers for i, n in enumerate(node.input) if i or node.op_type == "MatMul"]
    weights: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in makers and name not in weights:
            weights.add(name)
            waiting += makers[name].input
    return frozenset(
        name
        for name, node in makers.items()
        if node.op_type in ("Gather", "GatherND") and name not in weights and _table(node, found)
    )


def _table(node: Any, found: Mapping[str, Const]) -> bool:
    """Whether a node takes rows of a stored table of floats, and more than one number says which."""
    table, rows = (found[name] for name in node.input)
    held, value = table.known, rows.value
    if held is None or table.turned or len(held.shape) != 2 or held.dtype.kind in "iub" or not rows_of(node, rows):
        return False
    return value is not None and value.dtype.kind in "iu" and len(value.shape) > 0


def rows_of(node: Any, index: Const | None) -> bool:
    """Whether a Gather takes whole rows of a table; a GatherND does where each index is one number (torch)."""
    said = {a.name: a.i for a in node.attribute}
    if node.op_type == "Gather":
        return said.get("axis", 0) in (0, -2)
    value = index.value if index is not None else None
    return not said.get("batch_dims", 0) and value is not None and value.shape[-1:] == (1,)


def _constants(
    graph: Any, store: Store, prefix: str, outer: Mapping[str, Const], folding: Folding, data: frozenset[str]
) -> dict[str, Const]:
    """As `constants`; `data`: values that are none, though nothing else goes into them than constants."""
    found = dict(outer)
    reads = Counter(names_read(graph))
    for proto in graph.initializer:
        if prefix + proto.name in store.tensors:
            tensor = folding.leaves[proto.name] = store.tensors[prefix + proto.name]
            found[proto.name] = Const((tensor,))
    for i, node in enumerate(graph.node):
        if node.op_type == "Constant" and node.output:
            found[node.output[0]] = _constant(node, store, prefix, folding)
            continue
        like_data = node.op_type == "CastLike" and node.input[1] not in found  # only its dtype is the data's
        if like_data and node.input[0] in found and node.output:
            found[node.output[0]] = found[node.input[0]]
            folding.makers[node.output[0]] = need_onnx().helper.make_node("Identity", node.input[:1], node.output)
            continue
        given = [name for name in node.input if name]
        if not given or not all(name in found for name in given) or node.op_type in RANDOM:
            continue
        if any(bodies(a) for a in node.attribute) or _of_nothing(node, found) or data & set(node.output):
            continue
        folding.makers.update({name: node for name in node.output if name})
        for name in filter(None, node.output):
            fold = partial(folding.computed, name, prefix + name)
            found[name] = _made(node, i, [found[n] for n in given], prefix + name, fold, shared=reads[given[0]] > 1)
    return found


def _of_nothing(node: Any, found: Mapping[str, Const]) -> bool:
    """Whether a layer is fed zeros: the first step of an unrolled one, and no computed weight."""
    value = found[node.input[0]].value if node.op_type in LAYERS and node.input[0] else None
    return value is not None and not np.any(value.read())


def small_ints(const: Const | None) -> list[int] | None:
    """The whole numbers of a value that is a shape, axes or an index; None of anything else."""
    tensor = const.value if const is not None else None
    if tensor is None or tensor.dtype.kind not in "iu" or tensor.size > 16:
        return None
    return [int(n) for n in tensor.read().reshape(-1)]


def names_read(graph: Any) -> Iterator[str]:
    """Every value that the nodes of a graph and of its bodies read, and the graph's outputs, each time it is read."""
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            for body in bodies(attribute):
                yield from names_read(body)
    yield from (output.name for output in graph.output)


def _constant(node: Any, store: Store, prefix: str, folding: Folding) -> Const:
    name = node.output[0]
    tensor = store.tensors.get(prefix + name)
    if tensor is None:  # a number or a list of numbers
        folding.makers[name] = node
        return Const(fold=partial(folding.computed, name, prefix + name))
    folding.leaves[name] = tensor
    return Const((tensor,), literal=True)


def _made(
    node: Any, position: int, given: list[Const], name: str, fold: Callable[[], Tensor | None], shared: bool
) -> Const:
    """What one node makes of constants.

    An Identity of a tensor that others read too is a tensor of its own: torch's exporter keeps one tensor of several
    that were equal when it ran (all norms of an untrained model), and gives the others' names to Identities.
    """
    first = given[0]
    if node.op_type in ("Shape", "Size"):
        return Const(fold=fold)
    tensors = tuple({t.name: t for const in given for t in const.tensors}.values())
    lost = next((const.through for const in given if const.through), "")
    if lost:
        return Const(tensors, through=lost)
    if node.op_type in QUANTISED:
        return Const(tensors, through=f"{node.op_type} {label(node, position)}: they are quantised")
    plain = first.tensor if first.fold is None else None
    if node.op_type == "Identity":
        alias = plain is not None and shared and first.floats
        return replace(first, own=replace(plain, name=name)) if plain is not None and alias else first
    if node.op_type == "Cast" and plain is not None and _widens(plain, node):
        return first
    if node.op_type == "Transpose" and (plain is not None or first.turned) and len(first.tensors[0].shape) == 2:
        perm = next((list(a.ints) for a in node.attribute if a.name == "perm"), [1, 0])
        turned = first.turned != (perm == [1, 0])
        return replace(first, turned=turned, fold=fold if turned else None)
    return Const(tensors, fold=fold)


def _widens(tensor: Tensor, node: Any) -> bool:
    """Whether a Cast keeps every number as it is: the stored numbers are then the weights."""
    from layoutx.files.onnx_file import dtype_of

    to = next((dtype_of(a.i) for a in node.attribute if a.name == "to"), None)
    if to is None:
        return False
    if tensor.dtype.isbuiltin == 2:  # bfloat16 and float8 are all floats of 32 bits cut short
        return to.name in ("float32", "float64") and "float" in tensor.dtype.name
    return bool(np.can_cast(tensor.dtype, to, "safe"))
