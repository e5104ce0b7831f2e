"""Records bound to the registry: each layer's form, with the axes that the model's wiring refines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layoutx.empty import NOTHING
from layoutx.errors import BindError, LayoutxError
from layoutx.model.record import LayerRecord
from layoutx.spec.bind import bind
from layoutx.spec.bound import BoundForm
from layoutx.spec.memo import Memo
from layoutx.spec.registry import Registry
from layoutx.spec.schema import Form

OWN_KEYS = frozenset({"version", "rank", "over", "kernel_dims", "bias_dims"})


def refine_of(record: LayerRecord, registry: Registry, framework: str, keep_order: bool = False) -> dict[str, str]:
    """Axis -> its dims as a framework flattens them: channels last (Keras) or first (torch, onnx).

    For the record's own framework as its file has them.
    """
    if not record.refine:
        return {}
    habit = "last" if keep_order else registry.framework(framework).channels
    own = record.form.partition(".")[0] == framework and not keep_order
    axes = _axes(record, registry)
    return {
        axis: r.last if ((own and r.own) or habit) == "last" else r.first
        for axis, r in record.refine.items()
        if axis in axes
    }


def _axes(record: LayerRecord, registry: Registry) -> set[str]:
    from layoutx.spec.expand import axis_names

    kind = registry.kind_of(record.form)
    return {name for role in kind.roles.values() for name in axis_names(role.axes)}


def bind_record(record: LayerRecord, registry: Registry, ignore: frozenset[str] = frozenset()) -> BoundForm:
    """A layer's form bound to its config and stored shapes.

    Raises:
        LayoutxError: what does not fit, with the layer's name first.
    """
    form = registry.form(record.form)
    sizes = {leaf: size for r in record.refine.values() for leaf, size in r.sizes.items()} if record.refine else NOTHING
    try:
        check_keys(form, record.config, registry, ignore)
        return bind(
            registry.kinds[form.kind],
            form,
            record.config,
            shapes={name: tensor.shape for name, tensor in record.tensors.items()},
            sizes=sizes,
            refine=refine_of(record, registry, form.framework),
            instance=record.instance,
        )
    except LayoutxError as error:
        raise error.at(record.place) from error


def check_keys(form: Form, config: Mapping[str, Any], registry: Registry, ignore: frozenset[str] = frozenset()) -> None:
    """Refuse config keys that the spec does not know: they might change the function.

    Raises:
        BindError: keys that are neither read nor listed as harmless, unless they are None or False.
    """
    known = known_keys(form, registry)
    if config.keys() <= known:
        return
    unknown = [key for key, value in config.items() if key not in known and value is not None and value is not False]
    unknown = [key for key in unknown if key not in ignore]
    if unknown:
        shown = ", ".join(f"{key}={config[key]!r}"[:60] for key in unknown)
        raise BindError(
            f"{form.name} has config that layoutx does not know: {shown}",
            why="a key that is not understood may change what the layer computes",
            do=f"if it does not matter, say so: --ignore-key {unknown[0]}",
        )


_known: Memo[frozenset[str]] = Memo()


def known_keys(form: Form, registry: Registry) -> frozenset[str]:
    """The config keys of a form that are read, or do not matter."""
    own = registry.framework(form.framework).ignore
    return _known.get((form, registry), b"", lambda: frozenset((*form.config, *form.ignore, *own, *OWN_KEYS)))
