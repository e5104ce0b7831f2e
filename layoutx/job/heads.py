"""Attention that splits the same numbers into another count of heads: paired all the same, so that it can be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from layoutx.errors import LayoutxError
from layoutx.job.joined import Joint
from layoutx.model.keyed import Keyed, Module
from layoutx.model.record import ModelRecord
from layoutx.spec.registry import Registry
from layoutx.verify.diagnose.heads import HEADS

Model = Keyed | ModelRecord


def other_heads(found: Joint, source: Model, target: Model, registry: Registry) -> Keyed | None:
    """The target as if its attention layers had the source's count of heads.

    None where nothing is lost, where their counts are no riddle, or where the count shows in the shapes.
    """
    if not found.lost or not isinstance(target, Keyed):
        return None
    counts = {int(n) for config in _configs(source, registry) if (n := _count(config)) is not None}
    if len(counts) != 1:
        return None
    many = counts.pop()
    modules = {path: _with(module, many) if _attends(module.form, registry) else module
               for path, module in target.modules.items()}  # fmt: skip
    changed = any(modules[path] is not module for path, module in target.modules.items())
    return replace(target, modules=modules) if changed else None


def _configs(model: Model, registry: Registry) -> list[Mapping[str, Any]]:
    if isinstance(model, Keyed):
        return [module.config for module in model.modules.values() if _attends(module.form, registry)]
    return [record.config for record in model.layers if _attends(record.form, registry)]


def _attends(form: str, registry: Registry) -> bool:
    try:
        return bool(form) and registry.form(form).kind == "attention"
    except LayoutxError:
        return False


def _count(config: Mapping[str, Any]) -> int | None:
    return next((config[key] for key in HEADS if config.get(key)), None)


def _with(module: Module, many: int) -> Module:
    own = _count(module.config)
    if own is None or own == many:
        return module
    return replace(module, config={**module.config, **{key: many for key in HEADS if key in module.config}})
