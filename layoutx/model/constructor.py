"""A module's constructor call for a layer: what its weights, its config and the source's settings say together."""

from __future__ import annotations

from typing import Any

from layoutx.lang.sizes import extent
from layoutx.lang.tree import Axis, Product
from layoutx.model.settings import reading_of, shown, single, spelled
from layoutx.spec.bound import BoundForm
from layoutx.spec.expand import axis_names, expand
from layoutx.spec.schema import choose


def constructor(source: BoundForm, target: BoundForm) -> str:
    """`layoutx.torch.GRU(input_size=4, hidden_size=5, batch_first=True)`: all sizes, and whatever is no default.

    Time comes first, or the batch, as in the source's data.
    """
    form = target.form
    said = {**_sizes(target), **{k: v for k, v in target.config.items() if k in form.config and v is not None}}
    for name in form.settings:
        there, value = reading_of(target, name), source.settings.get(name)
        if there is not None and value is not None and name != "axis":
            said[there.config] = spelled(value, there)
    if "batch_first" in form.config:
        x = choose(next(iter(source.form.data.values()), ()), source.config)
        said["batch_first"] = bool(x) and isinstance(x[0], Axis) and x[0].name == "batch"
    said = {key: single(value) for key, value in said.items()}
    words = [f"{key}={shown(said[key])}" for key in form.config if key in said and said[key] != form.config[key]]
    return f"{form.import_name}({', '.join(words)})"


def _sizes(target: BoundForm) -> dict[str, Any]:
    found: dict[str, Any] = {}
    names = max((n for n in target.kind.spread.values() if all(a in target.sizes for a in n)), key=len, default=())
    for key, dim in target.form.sizes:
        dims = expand(dim if isinstance(dim, tuple) else (dim,), names, {}, {}, {})
        if axis_names(dims) <= set(target.sizes):
            whole = isinstance(dim, tuple)
            found[key] = tuple(extent(d, target.sizes) for d in dims) if whole else extent(Product(dims), target.sizes)
    return found
