"""What a live module of jax, mlx or paddle says of itself: its form, and its own attributes as the form's config."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from layoutx.model.keyed import Keyed, Module
from layoutx.model.record import LayerRecord, ModelRecord
from layoutx.spec.registry import Registry
from layoutx.spec.schema import Reading

Known = Callable[[str], Collection[str] | None]
PLAIN = (bool, int, float, str, type(None))
LIBRARIES = ("jax", "flax", "equinox", "mlx", "paddle")  # only their functions are what their names say
MISSING = object()
WAYS = ("forward_rnn", "backward_rnn")
CLASS = "form from the module's class"  # how the note of a record begins whose class is known


def module_of(framework: str, home: str, module: Any, known: Known) -> Module:
    """The form of a live module, and of the keys that its form reads those that the object holds.

    flax 0.12.8 nnx/nn/recurrent.py: RNN and Bidirectional are one form with the cell in them. paddle 3.3 keeps
    most of its options under `_name`.

    Args:
        home: the package of the framework's own classes; others have no form.
    """
    kind = type(module)
    holders = _holders(module) if framework in ("nnx", "flax") else [[module]]
    form = f"{framework}.{kind.__name__}"
    if len({tuple(type(part) for part in holder) for holder in holders}) == 1 and len(holders[0]) > 1:
        form = f"{form}.{type(holders[0][-1]).__name__}"
    parts = {type(part) for holder in holders for part in holder}
    keys = known(form) if all(part.__module__.startswith(home) for part in (kind, *parts)) else None
    config: dict[str, Any] = {}
    for key in keys or ():
        default = keys.get(key) if isinstance(keys, Mapping) else None
        found = [value for holder in holders if (value := _value(holder, key, default)) is not MISSING]
        if found:
            config[key] = found[0] if all(value == found[0] for value in found) else " and ".join(map(str, found))
    if form == "nnx.GroupNorm":
        config.pop("group_size", None)  # flax 0.12.8 normalization.py: it keeps both, num_groups says it all
    inner = _parts(module) if framework == "flax" and keys is not None and "." in form.partition(".")[2] else {}
    return Module(form if keys is not None else "", kind.__name__, config, parts=inner)


def _parts(module: Any) -> dict[str, str]:
    """flax 0.12.8 linen/recurrent.py: cells that are made in a @compact call have their weights beside the layer."""
    ways = {f"{way}.cell": getattr(module, way) for way in WAYS if hasattr(module, way)} or {"cell": module}
    cells = {part: getattr(rnn, "cell", None) for part, rnn in ways.items()}
    paths = {part: cell.path for part, cell in cells.items() if cell is not None and cell.scope is not None}
    if len(set(paths.values())) < len(cells) or any(p[: len(module.path)] == module.path for p in paths.values()):
        return {}  # one cell for both ways is no layer of two
    return {part: ".".join(path) for part, path in paths.items()}


def _holders(module: Any) -> list[list[Any]]:
    """The objects whose attributes make up one form's config, outermost first; a list for each direction."""
    name = type(module).__name__
    if name == "RNN" and hasattr(module, "cell"):
        return [[module, module.cell]]
    if name == "Bidirectional":  # it passes time_major, reverse and keep_order of its own: those of the RNN are unread
        cells = [getattr(getattr(module, way, None), "cell", None) for way in WAYS]
        return [[module, cell] for cell in cells]
    return [[module]]


def _value(holder: list[Any], key: str, default: Any) -> Any:
    """An attribute as a config value; MISSING where the object has none, or one that is no option."""
    for part in holder:
        for name in (key, f"_{key}"):
            value = getattr(part, name, MISSING)
            if value is not MISSING:
                return _plain(value, default)
    return MISSING


def _plain(value: Any, default: Any) -> Any:
    if isinstance(default, bool) and value is None:
        return False  # `bias` is the parameter itself, or None
    if isinstance(value, PLAIN) or (isinstance(value, (tuple, list)) and _simple(value)):
        return value
    if isinstance(default, bool):
        return MISSING  # the parameter is there: its name tells
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return "an array"
    return _called(value) if callable(value) else MISSING


def _simple(value: Any) -> bool:
    return all(isinstance(v, PLAIN) or (isinstance(v, (tuple, list)) and _simple(v)) for v in value)


def _called(value: Any) -> str:
    """A function by its name where it is a framework's; of others the repr, which no fact knows."""
    name = getattr(value, "__name__", "")
    home = str(getattr(value, "__module__", "") or "")
    return str(name) if name and home.split(".")[0] in LIBRARIES else repr(value)


def told(model: ModelRecord, keyed: Keyed, registry: Registry) -> ModelRecord:
    """Records with what a live module, or a program, tells of them.

    Where it tells all settings of a form these are not guessed, and the note says so; its graph tells the axes.
    """
    axes = keyed.axes() if keyed.axes is not None else {}
    layers = (_told(record, keyed, registry) for record in model.layers)
    return replace(model, layers=tuple(_with_axes(r, axes[r.name]) if r.name in axes else r for r in layers))


def _with_axes(record: LayerRecord, found: LayerRecord) -> LayerRecord:
    note = "; ".join(text for text in (record.note, found.note) if text)
    refine, pieces = {**record.refine, **found.refine}, {**record.pieces, **found.pieces}
    wired, alone = record if record.inputs else found, record.alone or found.alone
    record = replace(record, inputs=wired.inputs, ways=wired.ways, alone=alone)
    return replace(record, refine=refine, pieces=pieces, note=note)


def _told(record: LayerRecord, keyed: Keyed, registry: Registry) -> LayerRecord:
    module = keyed.modules.get(record.name)
    if module is not None and keyed.framework != "torch" and not (record.form or module.form):
        return replace(
            record, class_name=module.class_name
        )  # one of the user's own: nobody else tells what it computes
    if module is None or not module.form or module.form != record.form or not record.note.startswith(CLASS):
        return record
    tables = registry.form(record.form).settings.values()
    keys = {case.value.config for cases in tables for case in cases if isinstance(case.value, Reading)}
    if not keys <= {*module.config, *record.config}:
        return record
    whose = "exported program" if keyed.framework == "torch" and keyed.store is not None else "live module"
    return replace(record, note=f"its class and options are the {whose}'s")
