"""Records of the groups of a Keras weights file that no config explains: one a group, its class a guess by its name."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from layoutx.files.store import Store, Tensor
from layoutx.model.keras_groups import OLD, dir_of
from layoutx.model.keras_leaves import snake
from layoutx.model.keras_legacy import tail, weights_of
from layoutx.model.keras_slots import CELLS, PLAIN
from layoutx.model.record import LayerRecord
from layoutx.words import natural

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
        group = re.sub(r"(^|/)vars$", "", dir_of(name))
        owner = ATTRIBUTES.sub("", group)
        key = re.sub(r"(^|/)vars/(\d+)$", r"\1\2", name[len(owner) + 1 if owner else 0 :])
        groups.setdefault(owner, {})[key] = tensor
    for group in store.groups:
        rest = [(name, t) for name, t in weights_of(store, group) if t.name not in taken]
        for owner, weights in _split(group, rest).items():
            groups[owner] = weights
    layers = []
    for owner in groups if listed else sorted(groups, key=natural):
        tensors = groups[owner]
        shown = re.sub(r"(^|/)(layers|" + OLD + r")/", r"\1", owner) or "model"
        said = store.metadata.get(f"name:{owner}", store.metadata.get(f"name:{owner}/vars", "")) if owner else ""
        called = _called(shown, said)
        layers.append(LayerRecord(shown, hint(shown), "", {}, dict(_numeric(tensors)), note=note, called=called))
    return layers, leftover


def _called(shown: str, said: str) -> str:
    """The path of a group with the name that its user gave the layer; "" where Keras made that name of the class."""
    home, _, own = shown.rpartition("/")
    base, given = (re.sub(r"_\d+$", "", name) for name in (own, said))
    return "" if not said or base == given else f"{home}/{said}".lstrip("/")


def _split(group: str, weights: list[tuple[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """One legacy group as one record, or one for each layer of a nested model, by the weights' first names."""
    if not weights:
        return {}
    firsts = list(dict.fromkeys(dir_of(name).split("/")[0] for name, _ in weights))
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
    return PARTS.index(first) if first in PARTS else len(PARTS), dir_of(key), int(key.rsplit("/", 1)[-1])


def hint(name: str) -> str:
    """The stock class that a group's name suggests, "" where it suggests none: conv2d_1 is perhaps a Conv2D."""
    base = re.sub(r"_\d+$", "", name.rsplit("/", 1)[-1])
    return next((c for c in (*HINTS, *CELLS, *PLAIN) if snake(c) == base), "")
