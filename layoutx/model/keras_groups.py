"""The groups of a Keras 3 weights file: how containers number them, what lies in one, and records without a config."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

from layoutx.errors import ModelError
from layoutx.files.store import Store, Tensor
from layoutx.model.graph import Graph, Node
from layoutx.model.keras_leaves import Leaf, Number, snake
from layoutx.model.keras_slots import Piece, names_of
from layoutx.model.record import QUANTISED
from layoutx.words import listed

OLD = "_layer_checkpoint_dependencies"  # container of tf.keras 2.12 to 2.14
NUMBER = re.compile(r"_\d+$")


def numbering(store: Store, graph: Graph, version: int, below: Mapping[str, Sequence[str]]) -> tuple[str, Number]:
    """The name of the layer container in this file, and the rule by which its children are numbered.

    Keras 3 counts every layer. tf_keras (2.14 on) does not count a layer that was written before.
    tf.keras 2.12 and 2.13 count a layer that has weights twice (keras v2.13.1 saving_lib.py).

    Args:
        below: what `names_below` gave for this file.
    """
    container = OLD if OLD in below and "layers" not in below else "layers"
    old = store.version.startswith(("2.12", "2.13")) or (container == OLD and not store.version and _gaps(store, graph))
    keras2 = version == 2
    written: set[str] = set()

    def number(root: str, nodes: tuple[Node, ...]) -> Iterator[str | None]:
        # lazily: what a nested model wrote must be known before its next sibling is looked at
        counts: dict[str, int] = {}
        fewer = _fewer(root, nodes, below.get(root, ()))
        for node in nodes:
            if node.operation:
                yield None
                continue
            # only the later mentions of an object carry its id for certain: the first is found by class and name
            alike = f"{node.class_name}:{node.name}"
            again = bool(node.shared) and bool({node.shared, alike} & written)
            again = again or root.startswith("?") or (snake(node.class_name) in fewer and alike in written)
            if again and keras2:
                yield None
                continue
            base = snake(node.class_name)
            count = counts.get(base, 0)
            name = f"{base}_{count}" if count else base
            heavy = old and f"{root}/{name}" in below
            counts[base] = count + (2 if heavy else 1)
            written.update({node.shared, alike} - {""})
            yield None if again else name

    return container, number


def _fewer(root: str, nodes: tuple[Node, ...], names: Iterable[str]) -> set[str]:
    """Classes of which the container holds fewer groups than layers: some layers were written elsewhere.

    A config from `to_json` has no object ids, and this is how a layer that is also part of a nested model shows.

    Args:
        names: of the tensors in the container.
    """
    present = {n[len(root) + 1 :].partition("/")[0] for n in names}
    groups = Counter(base for p in present for base in {NUMBER.sub("", p), p})
    layers = Counter(snake(node.class_name) for node in nodes if not node.operation)
    return {base for base, count in layers.items() if 0 < groups[base] < count}


def _gaps(store: Store, graph: Graph) -> bool:
    """Whether group numbers of the outer container skip: three Dense layers as dense, dense_2, dense_4."""
    present = {n.split("/")[1] for n in store.tensors if n.startswith(f"{OLD}/")}
    counts: dict[str, int] = {}
    for node in graph.layers:  # operations have no groups and do no harm here
        counts[snake(node.class_name)] = counts.get(snake(node.class_name), 0) + 1
    return any(f"{base}_{i}" in present for base, n in counts.items() for i in range(n, 2 * n))


def group_tensors(
    store: Store, leaf: Leaf, *, check_name: bool, names: Mapping[str, Sequence[str]]
) -> tuple[dict[str, Tensor], str, ModelError | None]:
    """What one leaf stores: its tensors by form name, a note, or the problem.

    Args:
        names: what `names_below` gave for this file.
    """
    if leaf.group is None or leaf.group.startswith("?"):
        shared = "its weights are shared with a layer that the file wrote before" if leaf.own != () else ""
        return {}, shared, None
    problem = _name_problem(store, leaf) if check_name else None
    if problem is not None:
        return {}, "", problem
    own = [name for name in names.get(leaf.group, ()) if "/seed_generator/" not in name]
    short = tuple([name[len(leaf.group) + 1 :] for name in own])
    slots = _slots(short, leaf.own)
    if slots is not None:
        return {slot: store.tensors[own[at]] for slot, at in slots}, "", None
    below = {path: store.tensors[own[at]] for path, at in _subpaths(short).items()}
    return _unlike(store, leaf, below)


@lru_cache(1024)
def _slots(short: tuple[str, ...], own: tuple[Piece, ...] | None) -> tuple[tuple[str, int], ...] | None:
    """What the form calls the tensors of a group, and which of them each is; None where they do not fit.

    Args:
        short: their names below the group; layers of one make have the same.
    """
    below = _subpaths(short)
    if own is None:
        return tuple(below.items())
    found: dict[str, int] = {}
    for piece in own:
        group = next((g for g in piece.groups if any(dir_of(p) == g for p in below)), piece.groups[0])
        mine = [at for path, at in below.items() if dir_of(path) == group]
        found.update(zip((*piece.again, *piece.names), mine, strict=False))
    wanted = len(names_of(own)) + sum(len(piece.again) for piece in own)
    return tuple(found.items()) if len(found) == wanted == len(below) else None


def _unlike(store: Store, leaf: Leaf, below: dict[str, Tensor]) -> tuple[dict[str, Tensor], str, ModelError | None]:
    """Why a group does not hold what its layer should: the note, or the problem."""
    slots = names_of(leaf.own or ())
    if below and quantised(leaf.node, below.values()):
        return below, QUANTISED, None
    if not below:
        return (
            {},
            "",
            ModelError(
                f'Layer "{leaf.name}" ({leaf.node.class_name}) has no tensors in the file',
                where=(str(store.path), f"group {leaf.group}"),
                why=f"Its config says that it stores {', '.join(slots)}.",
                do="Give the config that these weights were saved with.",
            ),
        )
    return (
        {},
        "",
        ModelError(
            f'Layer "{leaf.name}" ({leaf.node.class_name}) does not store what its config says',
            where=(str(store.path), f"group {leaf.group}: {', '.join(f'{p} {t.shape}' for p, t in below.items())}"),
            why=f"Its config says that it stores {', '.join(slots) or 'nothing'}.",
            do="Give the config that these weights were saved with.",
        ),
    )


def quantised(node: Node, tensors: Iterable[Tensor]) -> bool:
    """Whether Keras 3 quantised the layer: its config says so, or integers stand where it has floats."""
    policy = node.config.get("dtype")
    by_policy = isinstance(policy, Mapping) and "Quantized" in str(policy.get("class_name", ""))
    return bool(node.config.get("quantization_config")) or by_policy or any(t.dtype.kind in "iu" for t in tensors)


def names_below(store: Store) -> dict[str, list[str]]:
    """Group -> the names of all tensors below it, in the file's order."""
    found: dict[str, list[str]] = {}
    for name in store.tensors:
        group = dir_of(name)
        while group:
            found.setdefault(group, []).append(name)
            group = dir_of(group)
    return found


def _subpaths(short: Iterable[str]) -> dict[str, int]:
    """Short paths below a group, numbers in numeric order: `0`, `cell/0`, `query_dense/1`; where each stood."""
    found = []
    for at, name in enumerate(short):
        path = re.sub(r"(^|/)vars/(\d+)$", r"\1\2", name)
        number = int(path.rsplit("/", 1)[-1]) if path[-1].isdigit() else 0
        found.append((dir_of(path), number, path, at))
    return {path: at for _, _, path, at in sorted(found, key=lambda f: f[:3])}


def dir_of(path: str) -> str:
    """The group that holds a tensor or group."""
    return path.rpartition("/")[0]


def _name_problem(store: Store, leaf: Leaf) -> ModelError | None:
    """Keras 3.6 and later write each layer's name beside its weights; it must be the config's, where that has one."""
    said = store.metadata.get(f"name:{leaf.group}", store.metadata.get(f"name:{leaf.group}/vars"))
    if not said or said == leaf.node.name or leaf.path[-1] == said or "name" not in leaf.node.config:
        return None
    return ModelError(
        f'Group "{leaf.group}" says that it is layer "{said}", but the config makes it layer "{leaf.node.name}"',
        where=str(store.path),
        why="The file's groups and its config do not belong together.",
        do="Save the model again, or give the config that these weights were saved with.",
    )


def missing(store: Store, name: str, class_name: str, names: Iterable[str]) -> ModelError:
    """The problem of a layer whose tensors are not in the file."""
    return ModelError(
        f'Layer "{name}" ({class_name}) has no tensors in the file',
        where=str(store.path),
        why=f"Its config says that it stores {', '.join(names)}.",
        do="Give the config that these weights were saved with.",
    )


def unexplained(store: Store, names: Sequence[str]) -> ModelError:
    """The problem of tensors that no layer of the config owns."""
    return ModelError(
        "The file holds tensors that no layer of its config owns",
        where=(str(store.path), listed(names)),
        why="The groups of the file are numbered by class in the order of the config's layers, and these are left.",
        do="Give the config that these weights were saved with.",
    )
