"""A Keras file becomes records: every stored tensor goes to the layer that owns it, by the config's text alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from layoutx.errors import LayoutxError, ModelError, raise_all
from layoutx.files.store import NOTHING, Store, Tensor
from layoutx.model.graph import Graph, Node, graph_of
from layoutx.model.keras_given import with_given, with_made
from layoutx.model.keras_groups import group_tensors, missing, names_below, numbering, quantised, unexplained
from layoutx.model.keras_leaves import Leaf, leaves_of
from layoutx.model.keras_legacy import Weight, by_position, keras1_names, share, tail, weights_of
from layoutx.model.keras_slots import PLAIN, names_of, stock
from layoutx.model.keras_unsaid import HINTS, by_groups
from layoutx.model.keras_untied import untied
from layoutx.model.record import QUANTISED, LayerRecord, ModelRecord
from layoutx.model.refine import refined
from layoutx.model.tf_objects import (
    by_objects,
    is_listed,
    is_objects,
    listed_tensors,
    object_numbering,
    object_tensors,
    version_of,
)

Known = Callable[[str], bool]
NOT_KERAS = "is not a class of Keras"
UNNAMED = "the config does not name this group"  # that of a model's own weights, or of a layer that it lacks
UNSAID = "class unknown"  # how the note of a layer begins of which no config says anything


def records(
    store: Store, known: Known, *, config: Mapping[str, Any] | None = None, template: ModelRecord | None = None
) -> ModelRecord:
    """The layers of a Keras file, in `model.layers` order, each with its form, config and tensors.

    Args:
        store: an opened `.keras`, `.weights.h5` or legacy `.h5` file.
        known: whether the registry has a form of this name.
        config: a model config from elsewhere, for a file that holds weights only.
        template: another file's record, whose config is used in the same way.

    Raises:
        ModelError: the config cannot be read, or it does not explain the file's tensors.
    """
    borrowed = store.config is None
    chosen = store.config or config or (template.store.config if template is not None else None)
    where = "model config" if borrowed else f"{store.path.name}: model config"
    graph = graph_of(chosen, where) if chosen is not None else None
    version = _version(store, chosen)
    framework = "keras1" if version == 1 else "keras"
    if graph is None or not graph.layers:
        why = (
            "the file holds no model config" if graph is None else "the model is a subclass, its config names no layers"
        )
        others = by_objects if is_objects(store) else by_groups
        layers, leftover = others(store, (), f"{UNSAID}: {why}")
        return _checked(ModelRecord(framework, store.version, tuple(layers), store, leftover))
    read = _legacy if store.format == "h5" else _grouped
    layers, leftover = read(store, graph, version, known, borrowed)
    found = untied(with_given(refined(graph, layers, where)))
    return _checked(ModelRecord(framework, store.version, tuple(found), with_made(store, found), leftover))


def _version(store: Store, config: Mapping[str, Any] | None) -> int:
    """Keras' major version: as the file says, else from what only one version writes."""
    said = store.version or str((config or {}).get("keras_version", ""))
    if number := re.match(r"\d{1,4}", said, re.ASCII):
        return int(number[0])
    if config is not None and "tf_keras" in str(config.get("module", "")):
        return 2
    if is_objects(store):
        return version_of(store)
    if store.format != "h5":
        old = any("_layer_checkpoint_dependencies/" in name for name in store.tensors)
        return 2 if old else 3
    names = [name for group in store.groups for name, _ in weights_of(store, group)]
    told = any("/" in name for name in names) or (store.config is None and by_position(config, names))
    return 2 if told else 1


def _grouped(
    store: Store, graph: Graph, version: int, known: Known, borrowed: bool
) -> tuple[list[LayerRecord], dict[str, str]]:
    """Layers of a `.keras` or `.weights.h5` file, whose groups are numbered by class (layouts.md 15.1)."""
    objects = is_objects(store)
    below = {} if objects else names_below(store)
    container, number = object_numbering(store, version) if objects else numbering(store, graph, version, below)
    one = object_tensors if objects else partial(group_tensors, check_name=not borrowed, names=below)
    problems: list[LayoutxError] = []
    found: list[LayerRecord] = []
    used: set[str] = set()
    aside: dict[str, str] = {}
    broken: list[str] = []
    leaves: Iterable[Leaf] = leaves_of(graph, version, number, container)
    listed: dict[str, tuple[dict[str, Tensor], str, ModelError | None]] = {}
    if is_listed(store):
        leaves = list(leaves)
        listed = listed_tensors(store, leaves)
    for leaf in leaves:
        tensors, note, problem = listed.get(leaf.name) or one(store, leaf)
        if problem is not None:
            problems.append(problem)
            broken.append(f"{leaf.group}/")
            continue
        used.update(t.name for t in tensors.values())
        tensors, dropped = _aside(leaf, tensors)
        aside |= dropped
        found.append(_record(replace(leaf, form="") if note == QUANTISED else leaf, tensors, known, note))
    rest = [n for n in store.tensors if n not in used]
    lost = [n for n in rest if n.startswith(f"{container}/") and "/seed_generator/" not in n]
    lost = [n for n in lost if not n.startswith(tuple(broken))]
    if lost:
        problems.append(unexplained(store, lost))
    raise_all(problems, "The config does not explain the file's tensors")
    rest_of = by_objects if objects else by_groups
    others, leftover = rest_of(store, used, "held by an attribute of the model: its class is not in the config")
    return [*found, *others], {**leftover, **aside}


def _aside(leaf: Leaf, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A layer's weights, and what it stores beside them with the reason why that is none: file name -> reason."""
    reasons = {name: piece.drop for piece in leaf.own or () if piece.drop for name in piece.names}
    reasons |= {name: "the same weight once more" for piece in leaf.own or () for name in piece.again}
    if not reasons:
        return tensors, {}
    kept = {name: tensor for name, tensor in tensors.items() if name not in reasons}
    return kept, {tensor.name: reasons[name] for name, tensor in tensors.items() if name in reasons}


def _legacy(
    store: Store, graph: Graph, version: int, known: Known, borrowed: bool
) -> tuple[list[LayerRecord], dict[str, str]]:
    """Layers of a legacy `.h5` file: one group a layer of the outermost model."""
    by_top: dict[str, list[Leaf]] = {}
    for leaf in leaves_of(graph, version, lambda _, nodes: [n.name for n in nodes]):
        by_top.setdefault(leaf.top, []).append(leaf)
    problems: list[LayoutxError] = []
    found: list[LayerRecord] = []
    aside: dict[str, str] = {}
    groups = _group_names(store, graph)
    for node in graph.layers:
        leaves = by_top.get(node.name, [])
        weights = weights_of(store, groups.get(node.name, node.name))
        shared, note = share(leaves, node, weights, version)
        if weights and not shared:
            note = "the weights of this nested model could not be shared out among its layers"
            found.append(LayerRecord(node.name, node.class_name, "", node.config, dict(weights), note=note))
            continue
        for leaf in leaves:
            own = shared.get(leaf.name, [])
            if not own and leaf.own and names_of(leaf.own):
                problems.append(missing(store, leaf.name, leaf.node.class_name, names_of(leaf.own)))
                continue
            record = _legacy_record(leaf, own, known, version, note)
            tensors, dropped = _aside(leaf, dict(record.tensors))
            aside |= dropped
            found.append(replace(record, tensors=tensors))
    raise_all(problems, "The config does not explain the file's tensors")
    used = {*aside, *(t.name for record in found for t in record.tensors.values())}
    others, leftover = by_groups(store, used, UNNAMED)
    return [*found, *others], {**leftover, **aside}


def _group_names(store: Store, graph: Graph) -> dict[str, str]:
    """Layer -> group; before Keras 0.3.3 and in weights of another build, groups go by position (`layer_0`)."""
    names = [node.name for node in graph.layers if not node.operation]
    if all(name in store.groups for name in names):
        return {name: name for name in names}
    numbered = sorted((g for g in store.groups if re.fullmatch(r"layer_\d+", g)), key=lambda g: int(g[6:]))
    if len(numbered) == len(names) == len(store.groups):
        return dict(zip(names, numbered, strict=True))
    filled = [g for g in store.groups if store.groups[g] and g != "top_level_model_weights"]
    weighted = [n.name for n in graph.layers if stock(n) not in PLAIN]
    if store.config is None and not set(filled) & set(weighted) and len(filled) == len(weighted):
        return dict(zip(weighted, filled, strict=True))  # load_weights of Keras: by position
    return {name: name for name in names}


def _legacy_record(leaf: Leaf, weights: Sequence[Weight], known: Known, version: int, note: str) -> LayerRecord:
    if version == 1:
        return _keras1(leaf, weights, known, note)
    names = names_of(leaf.own) if leaf.own is not None else ()
    if leaf.own is not None and len(names) == len(weights):
        return _record(leaf, _ordered(names, weights), known, note)
    if leaf.own is not None:
        note = _mismatch(leaf, names, weights)
        return _record(replace(leaf, form="", note=note), _own_names(weights), known, "")
    return _record(leaf, _own_names(weights), known, note)


def _mismatch(leaf: Leaf, names: Sequence[str], weights: Sequence[Weight]) -> str:
    """Why a legacy group holds other tensors than its layer: parts that Keras 3 added to it, or nobody knows."""
    if quantised(leaf.node, [tensor for _, tensor in weights]):
        return QUANTISED
    return f"{leaf.node.class_name} stores {', '.join(names) or 'nothing'}, but the file has {len(weights)} tensors"


def _ordered(names: Sequence[str], weights: Sequence[Weight]) -> dict[str, Tensor]:
    """Names by position; where the weights carry the very same last names in another order, those decide."""
    tails = [tail(name) for name, _ in weights]
    ends = [name.rsplit("/", 1)[-1] for name in names]
    if len(set(ends)) == len(ends) and sorted(tails) == sorted(ends):
        at = {t: tensor for t, (_, tensor) in zip(tails, weights, strict=True)}
        return {name: at[end] for name, end in zip(names, ends, strict=True)}
    return {name: tensor for name, (_, tensor) in zip(names, weights, strict=True)}


def _own_names(weights: Sequence[Weight]) -> dict[str, Tensor]:
    """The file's own names: the last part where that is enough."""
    tails = [tail(name) for name, _ in weights]
    if len(set(tails)) == len(tails):
        return {t: tensor for t, (_, tensor) in zip(tails, weights, strict=True)}
    return {name.split(":")[0]: tensor for name, tensor in weights}


def _keras1(leaf: Leaf, weights: Sequence[Weight], known: Known, note: str) -> LayerRecord:
    inner = leaf.node.part("layer")
    kind = leaf.node.class_name
    if kind == "TimeDistributed" and inner is not None:
        kind = inner.class_name
    elif kind == "Bidirectional" and inner is not None:
        kind = f"Bidirectional.{inner.class_name}"
    tensors = keras1_names(leaf, weights)
    leaf = replace(leaf, form=f"keras1.{kind}" if not leaf.node.custom else "")
    return _record(leaf, tensors, known, note)


def _record(leaf: Leaf, tensors: Mapping[str, Tensor], known: Known, note: str) -> LayerRecord:
    form = _form(leaf, known) if tensors else ""
    notes = [n for n in (leaf.note, note) if n]
    config = leaf.config
    if form == "keras.EinsumDense":
        from layoutx.model.einsum import einsum_record

        return einsum_record(LayerRecord(leaf.name, leaf.node.class_name, form, config, tensors, note="; ".join(notes)))
    if tensors and not form and leaf.node.custom:
        notes.append(f"{leaf.node.class_name} {NOT_KERAS}")
    return LayerRecord(leaf.name, leaf.node.class_name, form, config or NOTHING, tensors, note="; ".join(notes))


def _form(leaf: Leaf, known: Known) -> str:
    """The form that the registry knows; a custom class never takes the form of a stock class of its name."""
    if leaf.form and known(leaf.form) and not leaf.node.custom:
        return leaf.form
    plain = leaf.node.class_name.split(">")[-1]
    alike = plain in HINTS
    if leaf.node.custom and alike and not leaf.node.registered:
        return ""
    for form in (
        leaf.form,
        leaf.form.replace("GroupQuery", "GroupedQuery"),
        leaf.form.replace("GroupedQuery", "GroupQuery"),
    ):
        if form and known(form):
            return form
    return f"keras.{plain}" if leaf.node.custom and not alike and known(f"keras.{plain}") else ""


def _checked(model: ModelRecord) -> ModelRecord:
    """The same model, after every tensor of the file was found in one place exactly."""
    owned = [*(tensor.name for record in model.layers for tensor in record.tensors.values()), *model.leftover]
    if len(owned) == len(model.store.tensors) and model.store.tensors.keys() == set(owned):
        return model
    places: dict[str, list[str]] = {name: [] for name in model.store.tensors}
    for record in model.layers:
        for tensor in record.tensors.values():
            places.setdefault(tensor.name, []).append(record.name)
    for name in model.leftover:
        places.setdefault(name, []).append("left over")
    wrong = {name: where for name, where in places.items() if len(where) != 1}
    raise_all(
        [
            ModelError(
                f'Tensor "{name}" belongs to {"no layer" if not where else "several layers"}',
                where=(str(model.store.path), *where),
                why="Every tensor of the file must have one owner.",
                do="Report this file: layoutx reads it wrongly.",
            )
            for name, where in wrong.items()
        ]
    )
    return model


__all__ = ["Node", "records"]
