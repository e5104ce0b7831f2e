"""Tables whose class does more with them than look them up, in one of the two models."""

from __future__ import annotations

from typing import Any

import pytest

import layoutx as lx

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

T = 11


def test_positions_that_begin_later() -> None:
    """RoBERTa: made inputs go to the module by their names, or it is given the mask for its ids."""

    class Positions(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.rows = self.add_weight(shape=(T, 5), name="position_embeddings")

        def call(self, x: Any) -> Any:
            return x + self.rows[: x.shape[1]]

    ids, mask = (keras.Input((7,), dtype="int32", name=name) for name in ("token_ids", "padding_mask"))
    x = Positions(name="position_embeddings")(keras.layers.Embedding(37, 5, name="table")(ids))
    x = keras.ops.where(mask[..., None] > 0, x, keras.ops.zeros_like(x))
    model = keras.Model({"padding_mask": mask, "token_ids": ids}, keras.layers.Dense(3, name="head")(x))

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.position_embeddings = nn.Embedding(37, 5, 1), nn.Embedding(T + 2, 5, 1)
            self.head = nn.Linear(5, 3)

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            there = input_ids.ne(1).int()  # 1 is padding
            x = self.table(input_ids) + self.position_embeddings(torch.cumsum(there, 1) * there + 1)
            return self.head(x * attention_mask[..., None])

    module = Module().eval()
    lx.port(model, module)
    found = lx.validate(model, module)
    assert found.ok
    assert not found.lost
    assert not found.unused


@pytest.mark.parametrize("moved", [True, False])
def test_a_class_that_adds_its_table_is_no_fault_of_the_table(moved: bool) -> None:
    """Where the outputs agree and the weights are the same; a wrong row is one."""

    class Positions(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.rows = self.add_weight(shape=(T, 5), name="position_embeddings")

        def call(self, x: Any) -> Any:
            return x + self.rows[: x.shape[1]]

    ids = keras.Input((7,), dtype="int32")
    x = Positions(name="position_embeddings")(keras.layers.Embedding(37, 5, name="table")(ids))
    model = keras.Model(ids, keras.layers.Dense(3, name="head")(x))

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.position_embeddings = nn.Embedding(37, 5), nn.Embedding(T, 5)
            self.head = nn.Linear(5, 3)

        def forward(self, ids: Any) -> Any:
            return self.head(self.table(ids) + self.position_embeddings(torch.arange(ids.shape[1])))

    module = Module().eval()
    lx.port(model, module)
    if not moved:
        with torch.no_grad():
            module.position_embeddings.weight[3] += 1
    found = lx.validate(model, module)
    told = {check.layer: check.verdict for check in found.checks}
    assert (found.ok, told["position_embeddings"]) == ((True, "not compared") if moved else (False, "FAIL"))
