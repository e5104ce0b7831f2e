"""Shares out the weights of a legacy `.h5` group, where nested models lie flat and frozen weights come last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from layoutx.files.store import Store, Tensor
from layoutx.model.graph import VARIABLE, Node
from layoutx.model.keras_leaves import Leaf, cells_of
from layoutx.model.keras_slots import names_of, pieces, stock

Slot = tuple[tuple[str, ...], str]  # path of layer names, tensor name
Weight = tuple[str, Tensor]  # name as the layer's group lists it, tensor


def weights_of(store: Store, group: str) -> list[Weight]:
    """The weights of one layer group with the names that `weight_names` gives them."""
    found = []
    for key in store.groups.get(group, ()):
        start = key.find(f"{group}/")
        found.append((key[start + len(group) + 1 :] if start >= 0 else key, store.tensors[key]))
    return found


def tail(name: str) -> str:
    """The last part of a weight name without TensorFlow's `:0`."""
    return name.rsplit("/", 1)[-1].split(":", 1)[0]


def share(
    leaves: Sequence[Leaf], top: Node, weights: Sequence[Weight], version: int
) -> tuple[dict[str, list[Weight]], str]:
    """Leaf name -> its weights in its own order, and a note; an empty result where nothing decides.

    The weights' names decide where they name every leaf; else the order that follows from the config.
    """
    if len(leaves) == 1:
        return {leaves[0].name: list(weights)}, ""
    by_name = _by_name(leaves, weights)
    by_order = _by_order(leaves, top, weights, version)
    if by_name is None:
        return by_order or {}, ""
    note = (
        ""
        if by_order in (None, by_name)
        else "the stored order is not the one that the config gives; the weight names decided"
    )
    return by_name, note


def _by_name(leaves: Sequence[Leaf], weights: Sequence[Weight]) -> dict[str, list[Weight]] | None:
    found: dict[str, list[Weight]] = {leaf.name: [] for leaf in leaves}
    for name, tensor in weights:
        owners = _owners(leaves, name)
        if len(owners) != 1:
            return None
        found[owners[0].name].append((name, tensor))
    counts = all(leaf.own is None or len(names_of(leaf.own)) == len(found[leaf.name]) for leaf in leaves)
    return found if counts else None


def _owners(leaves: Sequence[Leaf], name: str) -> list[Leaf]:
    """Leaves whose layer name is a part of the weight's name; the innermost part, then the longest match, wins."""
    return _variables(leaves, name) or _of_part(leaves, name) or _of_slashed(leaves, name) or _of_keras1(leaves, name)


def _variables(leaves: Sequence[Leaf], name: str) -> list[Leaf]:
    """Variables that no layer owns: the weight's name ends in the path of one, or lacks only the model's own name."""
    plain = (*name.split("/")[:-1], tail(name))
    paths = [(leaf, leaf.path) for leaf in leaves if leaf.node.class_name == VARIABLE]
    return [leaf for leaf, path in paths if plain[-len(path) :] == path or plain == path[1:]]


def _of_part(leaves: Sequence[Leaf], name: str) -> list[Leaf]:
    """Leaves that are called as a part of the name; of two nested models the one whose outer names agree as well."""
    parts = name.split("/")
    for part in reversed(parts[:-1]):
        owners = [leaf for leaf in leaves if part in (leaf.path[-1], leaf.node.name)]
        if len(owners) > 1:
            owners = _longest([leaf for leaf in owners if all(p in parts for p in leaf.path[1:])], _depth)
        if owners:
            return owners
    return []


def _of_slashed(leaves: Sequence[Leaf], name: str) -> list[Leaf]:
    """tf.keras allows layer names such as expanded_conv/depthwise."""
    return _longest([leaf for leaf in leaves if "/" in leaf.path[-1] and f"/{leaf.path[-1]}/" in f"/{name}"], _letters)


def _of_keras1(leaves: Sequence[Leaf], name: str) -> list[Leaf]:
    """Keras 1 writes dense_1_W."""
    return [] if "/" in name else _longest([leaf for leaf in leaves if name.startswith(leaf.path[-1] + "_")], _letters)


def _depth(leaf: Leaf) -> int:
    return len(leaf.path)


def _letters(leaf: Leaf) -> int:
    return len(leaf.path[-1])


def _longest(leaves: Sequence[Leaf], length: Callable[[Leaf], int]) -> list[Leaf]:
    """All that are as long as the longest."""
    most = max(map(length, leaves), default=0)
    return [leaf for leaf in leaves if length(leaf) == most]


def _by_order(
    leaves: Sequence[Leaf], top: Node, weights: Sequence[Weight], version: int
) -> dict[str, list[Weight]] | None:
    if any(leaf.own is None for leaf in leaves):
        return None
    trained, fixed = flatten(top, version)
    order = [*trained, *fixed]
    if len(order) != len(weights):
        return None
    at = {leaf.path: leaf for leaf in leaves}
    found: dict[str, list[Weight]] = {leaf.name: [] for leaf in leaves}
    for (path, _), weight in zip(order, weights, strict=True):
        if path not in at:
            return None
        found[at[path].name].append(weight)
    return found


def flatten(node: Node, version: int, path: tuple[str, ...] = ()) -> tuple[list[Slot], list[Slot]]:
    """Trainable and non-trainable weights of a layer, in the order in which a legacy file writes them.

    Sources: keras 3.15.1 layer.py (weights in order, filtered by each variable's own flag); tf_keras 2.21
    base_layer.py and engine/training.py (a frozen model writes its children's trainable weights first).
    """
    path = (*path, node.name)
    children = _children(node)
    if not children:
        own = [
            ((path, name), i >= len(p.names) - p.frozen)
            for p in pieces(node, version) or ()
            for i, name in enumerate(p.names)
        ]
        if not node.trainable:
            return [], [slot for slot, _ in own]
        return [slot for slot, fixed in own if not fixed], [slot for slot, fixed in own if fixed]
    # RNN and TimeDistributed add their own path; the cells of one RNN are leaves of their own
    inner = [flatten(child, version, path) for child in children]
    trained, fixed = [s for t, _ in inner for s in t], [s for _, f in inner for s in f]
    if node.trainable:
        return trained, fixed
    if version >= 3 or node.inner is None:
        return [], [s for child in children for s in _in_order(child, version, path)]
    return [], [*trained, *fixed]


def _in_order(node: Node, version: int, path: tuple[str, ...]) -> list[Slot]:
    children = _children(node)
    if children:
        return [s for child in children for s in _in_order(child, version, (*path, node.name))]
    trained, fixed = flatten(node, version, path)
    return [*trained, *fixed]


def _children(node: Node) -> tuple[Node, ...]:
    if node.inner is not None:
        return node.inner.layers
    wrapped = node.part("layer")
    if stock(node) == "TimeDistributed" and wrapped is not None and wrapped.inner is not None:
        return wrapped.inner.layers
    return cells_of(node) if stock(node) == "RNN" else ()


def by_position(config: Mapping[str, Any] | None, names: Sequence[str]) -> bool:
    """Whether weights called as Keras 1 called them belong to a config of Keras 2 or 3, which load them by position.

    The files of keras.applications are so. Not where the names are Theano's, which turns kernels, or where a
    `running_std` is among them: Keras 1's forms ask what that holds.
    """
    text = repr(config)
    newer = any(f"'{key}'" in text for key in ("use_bias", "data_format", "kernel_size", "moving_mean_initializer"))
    return newer and all(name.endswith(":0") and "running_std" not in name for name in names)


def keras1_names(leaf: Leaf, weights: Sequence[Weight]) -> Mapping[str, Tensor]:
    """Keras 1 tensors by suffix (`W_i`), those of a Bidirectional below `forward_layer/` and `backward_layer/`."""
    found: dict[str, Tensor] = {}
    for name, tensor in weights:
        plain, side = tail(name), ""
        for word in ("forward", "backward"):
            if leaf.node.class_name == "Bidirectional" and plain.startswith(word + "_"):
                side, plain = f"{word}_layer/", plain[len(word) + 1 :]
        inner = leaf.node.part("layer")
        owners = [leaf.node.name, *([inner.name.removeprefix("forward_")] if inner is not None else [])]
        for owner in owners:
            plain = plain.removeprefix(owner + "_")
        found[side + plain] = tensor
    return found
