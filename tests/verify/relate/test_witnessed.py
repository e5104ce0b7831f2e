"""Right conversions of witnessed layers raise no alarm; their tensors with two axes swapped are explained exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from layoutx.errors import LayoutxError
from layoutx.plan.fit import fit
from layoutx.plan.run import run
from layoutx.verify.relate.related import related
from layoutx.verify.witness import bind_case, read
from tests.verify.relate.planted import known

FOLDER = Path(__file__).resolve().parents[2] / "witnesses"
FILES = (
    *("dense.keras", "dense.flax", "conv.keras", "conv.torch", "conv_transpose.flax", "lstm.keras", "lstm.onnx"),
    *("gru.torch", "gru.haiku", "attention.keras", "attention.torch", "batch_norm.torch", "embedding.keras"),
    *("separable_conv.keras", "layer_norm.torch", "group_norm.keras", "simple_rnn.keras", "prelu.keras"),
)
MOST = 4


@pytest.mark.parametrize("name", FILES)
def test_no_false_alarm_and_no_swapped_axes_unexplained(name: str) -> None:
    count = 0
    for case in read(FOLDER / f"{name}.npz")[:MOST]:
        for bound, weights in bind_case(case, known()):
            for form in list(bound.kind.forms.values())[::3]:
                try:
                    plan = fit(bound, form, instance={form.each: 0} if form.each else {})
                    stored = run(plan, weights).tensors
                except LayoutxError:
                    continue
                count += 1
                found = related(bound, weights, plan.target, stored, plan=plan)
                assert all(relation.fine for relation in found), (form.name, found)
                swapped = {n: np.swapaxes(a, 0, -1).reshape(a.shape) for n, a in stored.items() if a.ndim > 1}
                for relation in related(bound, weights, plan.target, {**stored, **swapped}, plan=plan):
                    # a few witnesses have many equal numbers: no relation is then better than a wrong one
                    tied = len(np.unique(stored[relation.name])) < 0.9 * stored[relation.name].size
                    cut = plan.target.tensor(relation.name).cut  # its blocks do not survive the swap
                    silent = (tied or cut) and not relation.holds
                    assert relation.fine or relation.exact or silent, (form.name, relation)
    assert count
