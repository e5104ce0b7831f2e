"""A live model of jax with what its program tells: its modules' options, its wiring, how its maps are flattened."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from typing import Any

from layoutx.model.jax_inputs import variants
from layoutx.model.jax_program import Traced, traced
from layoutx.model.keyed import Keyed, Module
from layoutx.model.record import LayerRecord, Way
from layoutx.model.tree_config import Known, module_of

CHANNELS = {"nnx": "last", "flax": "last", "haiku": "last", "equinox": "first"}
HOMES = {"flax": "flax.linen", "haiku": "haiku"}  # which hold no modules: these are made in every call


def with_program(keyed: Keyed, model: Any, leaves: Mapping[str, Any], known: Known, inputs: Any) -> Keyed:
    """The model with its wiring and axes, traced once somebody asks; of flax and haiku at once, which hold no modules.

    Args:
        model: the live model, as `tree_keyed` takes it; leaves: its arrays by the names of the tensors.
        inputs: arrays in any axis order; None: sizes are tried that fit the weights, where it has kernels of maps.
    """
    short = {tensor.name: name for name, tensor in keyed.tensors.items()}
    shapes = {name: tensor.shape for name, tensor in keyed.tensors.items()}
    own = keyed.framework
    names = {id(value): short.get(name, "") for name, value in leaves.items()}

    @cache
    def program() -> Traced | None:
        described = lambda module: module_of(own, HOMES[own], module, known)  # noqa: E731
        return traced(model, own, names, variants(inputs, shapes, CHANNELS[own]), described)

    modules: dict[str, Module] = dict(keyed.modules)
    if own in HOMES and (found := program()) is not None:
        modules = {**found.modules, **modules}
    homes: dict[str, str] = {}
    for path, module in modules.items():  # a Bidirectional comes before its two RNN
        for part, there in module.parts.items():
            homes.setdefault(there, f"{path}.{part}")
    tensors = {_home(name, homes): tensor for name, tensor in keyed.tensors.items()}
    modules = {_home(path, homes): module for path, module in modules.items()}
    keyed = dataclasses.replace(keyed, tensors=tensors)

    def flow(keyed: Keyed) -> Mapping[str, LayerRecord]:
        from layoutx.model.jax_flow import followed

        found = program()
        if found is not None and homes:
            found = dataclasses.replace(found, weights=tuple(_home(name, homes) for name in found.weights))
        return followed(found, keyed, CHANNELS[own]) if found is not None else {}

    def scanned() -> Mapping[str, tuple[int, int, int]]:
        from layoutx.model.jax_stacks import scanned_over

        found = program()
        return {_home(n, homes): way for n, way in scanned_over(found).items()} if found is not None else {}

    return with_flow(dataclasses.replace(keyed, modules=modules, scanned=scanned, flow=flow))


def _home(name: str, homes: Mapping[str, str]) -> str:
    """The name of a weight or module inside the layer that it belongs to, where it lies outside of it."""
    there = next((path for path in homes if name == path or name.startswith(f"{path}.")), None)
    return name if there is None else homes[there] + name[len(there) :]


def with_flow(keyed: Keyed) -> Keyed:
    """The model with the wiring and axes of its program, told of the layers as they are called now."""

    @cache
    def flow() -> Mapping[str, LayerRecord]:
        return keyed.flow(keyed) if keyed.flow is not None else {}

    def axes() -> Mapping[str, LayerRecord]:
        from layoutx.model.jax_flow import with_outer
        from layoutx.model.torch_flow import sure

        return with_outer(sure(flow()))

    def wires() -> Mapping[str, tuple[Way, ...]]:
        return {path: record.ways for path, record in flow().items()}

    return dataclasses.replace(keyed, wires=wires, axes=axes)
