"""The groups of a Keras 3 weights file: how containers number them, what lies in one, and records without a config."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from layoutx.errors import ModelError
from layoutx.files.store import Store, Tensor
from layoutx.model.graph import Graph, Node
from layoutx.model.keras_leaves import Leaf, Number, snake
from layoutx.model.keras_legacy import tail, weights_of
from layoutx.model.keras_slots import CELLS, PLAIN, names_of
from layoutx.model.record import QUANTISED, LayerRecord

OLD = "_layer_checkpoint_dependencies"  # container of tf.keras 2.12 to 2.14
# groups that hold state, not weights
STATE = {
    "optimizer": "optimizer state",
    "optimizer_weights": "optimizer state",
    "_optimizer": "optimizer state",
    "loss_tracker": "training metric",
    "compile_metrics": "training metric",
    "_compile_metrics": "training metric",
    "metrics": "training metric",
    "_metrics": "training metric",
    "_loss_tracker": "training metric",
    "seed_generator": "state of a random generator",
}
HINTS = [
    "Dense",
    "Conv1D",
    "Conv2D",
    "Conv3D",
    "Conv1DTranspose",
    "Conv2DTranspose",
    "Conv3DTranspose",
    "DepthwiseConv1D",
    "DepthwiseConv2D",
    "SeparableConv1D",
    "SeparableConv2D",
    "Embedding",
    "BatchNormalization",
    "LayerNormalization",
    "GroupNormalization",
    "RMSNormalization",
    "SimpleRNN",
    "LSTM",
    "GRU",
    "Bidirectional",
    "MultiHeadAttention",
    "GroupedQueryAttention",
    "EinsumDense",
    "PReLU",
    "TimeDistributed",
    "RNN",
    "SimpleRNNCell",
    "LSTMCell",
    "GRUCell",
]
ATTRIBUTES = re.compile(
    r"(/cell|/layer|/(forward|backward)_layer(/cell)?|/_?(query|key|value|output|gate)_dense)$"
)  # sub-objects of stock layers that hold the layer's own weights

# sub-objects of stock layers in the order in which the layer lists their weights
PARTS = ("forward_layer", "backward_layer", "query_dense", "key_dense", "gate_dense", "value_dense", "output_dense")


def numbering(store: Store, graph: Graph, version: int) -> tuple[str, Number]:
    """The name of the layer container in this file, and the rule by which its children are numbered.

    Keras 3 counts every layer. tf_keras (2.14 on) does not count a layer that was written before.
    tf.keras 2.12 and 2.13 count a layer that has weights twice (keras v2.13.1 saving_lib.py).
    """
    container = "layers" if any(n.startswith("layers/") for n in store.tensors) else OLD
    if not any(n.startswith(f"{OLD}/") for n in store.tensors):
        container = "layers"
    old = store.version.startswith(("2.12", "2.13")) or (container == OLD and not store.version and _gaps(store, graph))
    keras2 = version == 2
    written: set[str] = set()

    def number(root: str, nodes: tuple[Node, ...]) -> Iterator[str | None]:
        # lazily: what a nested model wrote must be known before its next sibling is looked at
        counts: dict[str, int] = {}
        fewer = _fewer(store, root, nodes)
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
            heavy = old and any(n.startswith(f"{root}/{name}/") for n in store.tensors)
            counts[base] = count + (2 if heavy else 1)
            written.update({node.shared, alike} - {""})
            yield None if again else name

    return container, number


def _fewer(store: Store, root: str, nodes: tuple[Node, ...]) -> set[str]:
    """Classes of which the container holds fewer groups than layers: some layers were written elsewhere.

    A config from `to_json` has no object ids, and this is how a layer that is also part of a nested model shows.
    """
    present = {n[len(root) + 1 :].split("/")[0] for n in store.tensors if n.startswith(f"{root}/")}
    groups = Counter(base for p in present for base in {re.sub(r"_\d+$", "", p), p})
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
    below = _subpaths(store, leaf.group, names.get(leaf.group, ()))
    if leaf.own is None:
        return below, "", None
    found: dict[str, Tensor] = {}
    for piece in leaf.own:
        group = next((g for g in piece.groups if any(_dir(p) == g for p in below)), piece.groups[0])
        mine = [t for p, t in below.items() if _dir(p) == group]
        found.update(zip((*piece.again, *piece.names), mine, strict=False))
    slots = names_of(leaf.own)
    if len(found) == len(slots) + sum(len(piece.again) for piece in leaf.own) == len(below):
        return found, "", None
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
        group = _dir(name)
        while group:
            found.setdefault(group, []).append(name)
            group = _dir(group)
    return found


def _subpaths(store: Store, group: str, names: Iterable[str]) -> dict[str, Tensor]:
    """Tensors below a group by short path, numbers in numeric order: `0`, `cell/0`, `query_dense/1`."""
    found = []
    for name in names:
        if "/seed_generator/" not in name:
            path = re.sub(r"(^|/)vars/(\d+)$", r"\1\2", name[len(group) + 1 :])
            number = int(path.rsplit("/", 1)[-1]) if path[-1].isdigit() else 0
            found.append((_dir(path), number, path, store.tensors[name]))
    return {path: tensor for _, _, path, tensor in sorted(found, key=lambda f: f[:3])}


def _dir(path: str) -> str:
    return path.rpartition("/")[0]


def _name_problem(store: Store, leaf: Leaf) -> ModelError | None:
    """Keras 3.6 and later write each layer's name beside its weights; it must be the config's."""
    said = store.metadata.get(f"name:{leaf.group}", store.metadata.get(f"name:{leaf.group}/vars"))
    if not said or said == leaf.node.name or leaf.path[-1] == said:
        return None
    return ModelError(
        f'Group "{leaf.group}" says that it is layer "{said}", but the config makes it layer "{leaf.node.name}"',
        where=str(store.path),
        why="The file's groups and its config do not belong together.",
        do="Save the model again, or give the config that these weights were saved with.",
    )


def by_groups(store: Store, used: Collection[str], note: str) -> tuple[list[LayerRecord], dict[str, str]]:
    """Records of every tensor that no config explains, one a group, and the tensors that no layer owns."""
    taken = set(used)
    leftover: dict[str, str] = {}
    groups: dict[str, dict[str, Tensor]] = {}
    listed = {key for keys in store.groups.values() for key in keys}
    for name, tensor in store.tensors.items():
        if name in taken or name in listed:
            continue
        reason = next((STATE[p] for p in name.split("/")[:-1] if p in STATE), "")
        if reason:
            leftover[name] = reason
            continue
        group = re.sub(r"(^|/)vars$", "", _dir(name))
        owner = ATTRIBUTES.sub("", group)
        key = re.sub(r"(^|/)vars/(\d+)$", r"\1\2", name[len(owner) + 1 if owner else 0 :])
        groups.setdefault(owner, {})[key] = tensor
    for group in store.groups:
        rest = [(name, t) for name, t in weights_of(store, group) if t.name not in taken]
        for owner, weights in _split(group, rest).items():
            groups[owner] = weights
    layers = []
    for owner in groups if listed else sorted(groups, key=_natural):
        tensors = groups[owner]
        shown = re.sub(r"(^|/)(layers|" + OLD + r")/", r"\1", owner) or "model"
        said = store.metadata.get(f"name:{owner}", store.metadata.get(f"name:{owner}/vars", "")) if owner else ""
        text = f"{note}; the file calls it {said}" if said else note
        layers.append(LayerRecord(shown, hint(shown), "", {}, dict(_numeric(tensors)), note=text))
    return layers, leftover


def _split(group: str, weights: list[tuple[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """One legacy group as one record, or one for each layer of a nested model, by the weights' first names."""
    if not weights:
        return {}
    firsts = list(dict.fromkeys(_dir(name).split("/")[0] for name, _ in weights))
    if len(firsts) == 1:
        tails = [tail(name) for name, _ in weights]
        short = len(set(tails)) == len(tails)
        return {group: {(t if short else name.split(":")[0]): w for t, (name, w) in zip(tails, weights, strict=True)}}
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in weights:
        first, _, rest = name.partition("/")
        found.setdefault(f"{group}/{first}", {})[rest.split(":")[0]] = tensor
    return found


def _numeric(tensors: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    """Numbered variables in their layer's own order, which HDF5 loses as it sorts by name; named ones as they are."""
    if all(key.rsplit("/", 1)[-1].isdigit() for key in tensors):
        return sorted(tensors.items(), key=lambda item: _place(item[0]))
    return list(tensors.items())


def _place(key: str) -> tuple[int, str, int]:
    """Where a variable stands in its layer: forward before backward, the query first, then by number."""
    first = key.split("/")[0].removeprefix("_")
    return PARTS.index(first) if first in PARTS else len(PARTS), _dir(key), int(key.rsplit("/", 1)[-1])


def _natural(name: str) -> list[tuple[int, str]]:
    """`dense_2` before `dense_10`: the numbers count layers of a class in their order."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def hint(name: str) -> str:
    """The stock class that a group's name suggests, "" where it suggests none: conv2d_1 is perhaps a Conv2D."""
    base = re.sub(r"_\d+$", "", name.rsplit("/", 1)[-1])
    return next((c for c in (*HINTS, *CELLS, *PLAIN) if snake(c) == base), "")
