"""Every form of the registry can be probed: bound with prime sizes, the reference computes something finite from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from layoutx.lang.sizes import extent
from layoutx.lang.tree import Product
from layoutx.spec.bind import bind
from layoutx.spec.bound import BoundForm
from layoutx.spec.configs import structural
from layoutx.spec.expand import axis_names
from layoutx.spec.registry import builtin_folder, load_registry
from layoutx.spec.schema import Form
from layoutx.spec.sizing import UndeterminedError
from layoutx.verify.probe import WINDOWS, probe_data, probe_settings
from layoutx.verify.reference import forward_layer

SPECS = load_registry([builtin_folder()])
PRIMES = (2, 3, 5, 7, 11, 13)
WEIGHTLESS = {"group": 3, "channel": 1, "features": 7}  # a norm without weights: nothing stored says how many channels
# form -> why it cannot be probed
UNPROBED: dict[str, str] = {}


def sized(form: Form, config: Mapping[str, Any]) -> BoundForm:
    """The form with a prime for each axis that nothing decides, but where one config key names two axes at once."""
    kind, sizes, given = SPECS.kinds[form.kind], dict[str, int](), dict(config)
    if form.rank is None and kind.name in WINDOWS:  # a form of any rank
        sizes |= dict(zip(kind.spread[2], (1, 1) if "..." in form.pin else (3, 2), strict=True))
    while True:
        try:
            return bind(kind, form, given, sizes={**sizes, **({} if tensors(form, given) else WEIGHTLESS)})
        except UndeterminedError as error:
            pending = error.axes
        keyed = {a for key, dim in form.sizes if isinstance(dim, Product) for a in axis_names((dim,))}
        axis = min(pending, key=lambda a: (a not in keyed, a))
        sizes[axis] = PRIMES[len(sizes) % len(PRIMES)]
        for key, dim in form.sizes:
            if not isinstance(dim, tuple) and axis_names((dim,)) <= set(sizes) and shared(form, key):
                given[key] = extent(dim, sizes)


def shared(form: Form, key: str) -> bool:
    return sum(name == key for name, _ in form.sizes) > 1


def tensors(form: Form, config: Mapping[str, Any]) -> bool:
    from layoutx.spec.bind import tensor_names

    return bool(tensor_names(SPECS.kinds[form.kind], form, config))


def weights(bound: BoundForm) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    made = {t.name: rng.uniform(0.1, 1.0, t.shape) for t in bound.tensors}
    return {t.name: np.array(3, t.dtype) if t.dtype.startswith("int") else made[t.name] for t in bound.tensors}


@pytest.mark.parametrize("kind", SPECS.kinds)
def test_every_form_can_be_probed(kind: str) -> None:
    wrong = []
    for form in SPECS.kinds[kind].forms.values():
        for config in structural(form):
            try:
                bound = sized(form, config)
                settings = probe_settings(bound)
                probe = probe_data(bound, settings, "float64", form.rank)
                found = forward_layer(bound, weights(bound), probe, settings=settings, dtype="float64")
                problem = "" if all(np.isfinite(y).all() and np.ptp(y) > 0 for y in found.values()) else "tells nothing"
            except Exception as error:
                problem = f"{type(error).__name__}: {' '.join(str(error).split())}"
            if problem and form.name not in UNPROBED:
                wrong.append(f"{form.name} {config}: {problem}")
    assert wrong == [], f"{len(wrong)}"
