"""TensorFlow object graphs: which paths of a checkpoint are which layer's, with a Keras config and without one."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from layoutx.errors import ModelError
from layoutx.files.notes import skipped_of
from layoutx.files.store import Store, Tensor
from layoutx.files.tf_checkpoint import LISTED, STYLE
from layoutx.model.graph import Node
from layoutx.model.keras_groups import quantised
from layoutx.model.keras_leaves import Leaf, Number, cells_of
from layoutx.model.keras_slots import names_of, pieces
from layoutx.model.keras_unsaid import ATTRIBUTES, hint
from layoutx.model.record import QUANTISED, LayerRecord
from layoutx.words import natural

# tf_keras 2.21 engine/functional.py `_layer_checkpoint_dependencies`: the N-th layer with weights; keras 3.15.1
# models/functional.py keeps `_operations`, a Sequential such a model as `_functional`
_OLD = re.compile(r"(?P<front>(?:.*?/)??)layer_with_weights-\d+/")
_NEW = re.compile(r"(?P<front>(?:.*?/)??)(?:_functional/)?_operations/\d+/")
_DENSE = re.compile(r"_?(query|key|value|gate|output)_dense")
# what a layer's variables are called, in the order of get_weights
_ORDER = (
    *("embeddings", "depthwise_kernel", "pointwise_kernel", "kernel", "recurrent_kernel", "bias"),
    *("gamma", "beta", "moving_mean", "moving_variance"),
)
_SIDES = ("forward_layer", "backward_layer", "query", "key", "gate", "value", "attention_output")


def is_objects(store: Store) -> bool:
    """Whether a file is a checkpoint of Python objects, as TensorFlow 2 writes them."""
    return store.format == "tf_checkpoint" and store.metadata.get(STYLE) == "objects"


def version_of(store: Store) -> int:
    """Keras' major version, by what only one version calls its objects; 2 where nothing shows it."""
    if is_listed(store):
        return 3
    new = any(_NEW.match(name) or name.rpartition("/")[2].startswith("_") for name in store.tensors)
    return 3 if new and not any(_OLD.match(name) for name in store.tensors) else 2


def object_numbering(store: Store, version: int) -> tuple[str, Number]:
    """The rule by which the layers of a config are numbered in this checkpoint, as `numbering` of keras_groups.

    Raises:
        ModelError: the paths are not those of one model whose config names its layers; on numbering: a custom class
            of which nobody can tell whether it has weights.
    """
    if is_listed(store):
        return "", lambda _, nodes: [node.name for node in nodes]
    front = _front(store, version)

    def number(root: str, nodes: tuple[Node, ...]) -> Iterator[str | None]:
        if root.endswith("/cells"):
            yield from map(str, range(len(nodes)))
        elif version >= 3:
            yield from (f"_operations/{n}" for n in range(len(nodes)))
        else:
            yield from _old_numbers(store, _clean(f"{front}/{root}"), nodes)

    return "", number


def _front(store: Store, version: int) -> str:
    """The path of the model in the checkpoint: "" or `model`."""
    pattern = _NEW if version >= 3 else _OLD
    fronts: dict[str, None] = dict.fromkeys(
        match["front"].strip("/") for name in store.tensors if (match := pattern.match(name))
    )
    if len(fronts) == 1:
        return next(iter(fronts))
    raise ModelError(
        f"{store.path.name} does not hold the layers of one model",
        where=", ".join(fronts) or ", ".join(list(store.tensors)[:4]),
        why="several models are in it" if fronts else "its paths do not number layers: the model was a subclass",
        do="leave --config out: the layers are then known by their paths",
    )


def _old_numbers(store: Store, root: str, nodes: Sequence[Node]) -> Iterator[str | None]:
    """The N-th layer with weights; classes that are not known have some if the groups are so many."""
    start = f"{root}/layer_with_weights-" if root else "layer_with_weights-"
    present = {name[len(start) :].partition("/")[0] for name in store.tensors if name.startswith(start)}
    heavy = [_heavy(node) for node in nodes]
    unknown = len(present) - heavy.count(True)
    if unknown not in (0, heavy.count(None)):
        names = ", ".join(node.class_name for node, known in zip(nodes, heavy, strict=True) if known is None)
        raise ModelError(
            f"the config does not explain the {len(present)} layers with weights of the checkpoint",
            where=(str(store.path), root),
            why=f"it has {heavy.count(True)}, and of these nobody knows: {names or 'none'}",
            do="give the config that these weights were saved with",
        )
    count = 0
    for known in heavy:
        has = known if known is not None else unknown > 0
        yield f"layer_with_weights-{count}" if has else None
        count += has


def _heavy(node: Node) -> bool | None:
    """Whether a layer has weights; None where its class is not known."""
    wrapped = node.part("layer")
    inner = node.inner or (wrapped.inner if wrapped is not None else None)
    if inner is not None:
        found = [_heavy(part) for part in inner.layers]
        return True if any(found) else None if None in found else False
    if cells_of(node):
        return True
    own = pieces(node, 2)
    return None if own is None else bool(names_of(own))


def is_listed(store: Store) -> bool:
    """Whether a file is an export of Keras 3, which lists the model's variables and knows no layers."""
    return is_objects(store) and LISTED in store.metadata


def listed_tensors(store: Store, leaves: Sequence[Leaf]) -> dict[str, tuple[dict[str, Tensor], str, ModelError | None]]:
    """Leaf -> what it stores, as `object_tensors`, of variables in the order of the model's layers.

    keras 3.15.1 export/saved_model_export_archive.py tracks `model.variables`: layer after layer, each layer's own
    in the order of creation. Names, which hold those of layers, must agree.
    """
    rest = list(store.tensors.values())
    names = {leaf.node.name for leaf in leaves}
    found: dict[str, tuple[dict[str, Tensor], str, ModelError | None]] = {}
    for leaf in leaves:
        slots = names_of(leaf.own or ()) if leaf.group is not None else ()
        own, rest = rest[: len(slots)], rest[len(slots) :]
        parts = [set(tensor.name.split("/")[:-1]) & names for tensor in own]
        ends = [tensor.name.rpartition("/")[2] for tensor in own]
        fits = all(not said or leaf.node.name in said for said in parts)
        fits &= all(end == slot.rpartition("/")[2] or end.isdigit() for end, slot in zip(ends, slots, strict=False))
        problem = None if fits and len(own) == len(slots) else _unlike(store, leaf, slots, own)
        found[leaf.name] = ({} if problem else dict(zip(slots, own, strict=True))), "", problem
    return found


def _unlike(store: Store, leaf: Leaf, slots: Sequence[str], own: Sequence[Tensor]) -> ModelError:
    has = ", ".join(f"{tensor.name} {tensor.shape}" for tensor in own) or "nothing"
    return ModelError(
        f'Layer "{leaf.name}" ({leaf.node.class_name}) is not what the export holds at its place',
        where=(str(store.path), has),
        why=f"Its config says that it stores {', '.join(slots)}.",
        do="Give the config of the model that was exported.",
    )


def object_tensors(store: Store, leaf: Leaf) -> tuple[dict[str, Tensor], str, ModelError | None]:
    """What one leaf stores: its tensors by form name, a note, or the problem; as `group_tensors` of keras_groups."""
    if leaf.group is None:
        return {}, "", None
    below = _below(store, _clean(leaf.group))
    if leaf.own is None:
        return below, "", None
    names = names_of(leaf.own)
    if set(below) == set(names):
        return {name: below[name] for name in names}, "", None
    if below and quantised(leaf.node, below.values()):
        return below, QUANTISED, None
    has = ", ".join(f"{name} {tensor.shape}" for name, tensor in below.items()) or "nothing"
    problem = ModelError(
        f'Layer "{leaf.name}" ({leaf.node.class_name}) does not store what its config says',
        where=(str(store.path), f"object {_clean(leaf.group)}: {has}"),
        why=f"Its config says that it stores {', '.join(names) or 'nothing'}.",
        do="Give the config that these weights were saved with.",
    )
    return {}, "", problem


def _below(store: Store, path: str) -> dict[str, Tensor]:
    """A layer's variables, by the names of forms, in their order."""
    front = _front(store, version_of(store))
    start = f"{front}/{path}/" if front else f"{path}/"
    found: dict[str, Tensor] = {}
    for name, tensor in store.tensors.items():
        plain = name.replace("_functional/", "")
        if plain.startswith(start):
            found[_slot(plain[len(start) :])] = tensor
    return _sorted(found)


def _clean(path: str) -> str:
    return "/".join(part for part in path.split("/") if part and part != "_functional")


def _slot(path: str) -> str:
    """A variable's path below its layer as forms call it: `_query_dense/_kernel` is `query/kernel`."""
    *parts, last = path.split("/")
    kept = []
    for part in parts:
        dense = _DENSE.fullmatch(part)
        if dense:
            kept.append("attention_output" if dense[1] == "output" else dense[1])
        elif part not in ("cell", "layer"):
            kept.append(part)
    return "/".join([*kept, last.lstrip("_") or last])


def _sorted(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    def place(name: str) -> tuple[int, int]:
        first, _, last = name.partition("/")[0], "", name.rpartition("/")[2]
        side = _SIDES.index(first) if first in _SIDES else len(_SIDES)
        return side, _ORDER.index(last) if last in _ORDER else len(_ORDER)

    return dict(sorted(tensors.items(), key=lambda item: place(item[0])))


def by_objects(store: Store, used: Collection[str], note: str) -> tuple[list[LayerRecord], dict[str, str]]:
    """Records of every variable that no config explains, one an object that owns some; and what is no weight."""
    owners: dict[str, dict[str, Tensor]] = {}
    for name, tensor in store.tensors.items():
        if name in used:
            continue
        folder = name.rpartition("/")[0]
        owner = ATTRIBUTES.sub("", folder)
        slot = _slot(name[len(owner) + 1 if owner else 0 :])
        if slot in owners.get(owner, {}):  # `layer` and `cell` may be the names that a user gave
            owner, slot = folder, _slot(name.rpartition("/")[2])
        owners.setdefault(owner, {})[slot] = tensor
    layers = [
        LayerRecord(owner or "model", hint(owner), "", {}, _sorted(owners[owner]), note=note)
        for owner in sorted(owners, key=natural)
    ]
    return layers, skipped_of(store.metadata)
