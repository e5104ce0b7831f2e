"""Dense layers that a class of the user's own keeps as one tensor (the experts of a mixture), each as its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from layoutx.files.stacked import layers_of
from layoutx.files.store import Tensor
from layoutx.model.bare import NUMBER
from layoutx.model.dense_apart import stored_apart
from layoutx.model.keras_uses import UNFOLLOWED
from layoutx.model.keyed import Keyed
from layoutx.model.loose import free, of_ones_own, reading
from layoutx.model.record import LayerRecord, ModelRecord
from layoutx.spec.registry import Registry

STACKED = 3  # dimensions of a tensor that holds a matrix for each of several layers


def experts_apart(model: ModelRecord, keyed: Keyed, registry: Registry) -> ModelRecord:
    """The model with a Dense for each matrix of a stack that a class of no form holds, where the other has them apart.

    A stack of vectors of their outputs, if the class holds as many of these as of matrices, is their biases. A layer
    that may be given a flattened map stays whole.
    """
    if model.framework != "keras":
        return model
    there = Counter(tuple(sorted(tensor.shape)) for tensor in keyed.tensors.values() if len(tensor.shape) == 2)
    whole = {tuple(sorted(tensor.shape)) for tensor in keyed.tensors.values() if len(tensor.shape) == STACKED}
    found: dict[str, list[LayerRecord]] = {}
    for one in model.layers:
        stacks = [tensor for tensor in one.tensors.values() if len(tensor.shape) == STACKED]
        many = Counter(tuple(sorted(t.shape[1:])) for t in stacks for _ in range(t.shape[0]))
        fits = all(there[size] >= number for size, number in many.items())
        fits = fits and not any(tuple(sorted(t.shape)) in whole for t in stacks)
        free_ = not one.form and not one.refine and UNFOLLOWED not in one.note and of_ones_own(one, "keras", registry)
        if stacks and fits and free_ and (parts := _parts(one, model.version)):
            found[one.name] = parts
    if not found:
        return model
    layers = [part for one in model.layers for part in (found.get(one.name) or [reading(one, found)])]
    return stored_apart(replace(model, layers=tuple(layers)))


def _parts(record: LayerRecord, version: str) -> list[LayerRecord]:
    """A record for each layer of each stack, and for what else the class holds; [] where that may be anything."""
    biases = _biases(record.tensors)
    parts: list[LayerRecord] = []
    for short, tensor in record.tensors.items():
        if short in biases.values():
            continue
        if len(tensor.shape) != STACKED:
            parts.append(free(record, short, "keras"))
            continue
        held = {"kernel": layers_of(tensor, 0)}
        held |= {"bias": layers_of(record.tensors[biases[short]], 0)} if short in biases else {}
        config = {"units": tensor.shape[-1], "use_bias": short in biases, "activation": "linear"}
        config["version"] = int(version.partition(".")[0] or 3)
        for at in range(tensor.shape[0]):
            own = {name: some[at] for name, some in held.items()}
            part = LayerRecord(f"{record.name}/{short}/{at}", record.class_name, "keras.Dense", config, own)
            parts.append(replace(part, inputs=record.inputs, ways=record.ways, note=NUMBER))
    return parts if all(part.form for part in parts) else []


def _biases(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Stack of matrices -> that of its biases, where each has one in the order in which the class made them."""
    stacks = {n: t.shape for n, t in tensors.items() if len(t.shape) == STACKED}
    vectors = [n for n, t in tensors.items() if len(t.shape) == 2 and t.shape[0] in {s[0] for s in stacks.values()}]
    fits = [[name for name in vectors if tensors[name].shape == (shape[0], shape[-1])] for shape in stacks.values()]
    alone = all(len(one) == 1 for one in fits) and len({one[0] for one in fits}) == len(fits)
    return {name: one[0] for name, one in zip(stacks, fits, strict=True)} if alone else {}
