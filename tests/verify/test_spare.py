"""Models of which one takes a mask of padding: both are run, as long as nothing is masked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import UsageError
from layoutx.verify.spare import left, spare_masks

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
L = keras.layers


def _keras() -> Any:
    """As the models of keras_hub: two inputs by name, positions looked up for each sample."""

    class Positions(L.Layer):
        def build(self, shape: Any) -> None:
            self.table = self.add_weight(shape=(11, 5), name="embeddings", initializer="normal")

        def call(self, x: Any) -> Any:
            return keras.ops.broadcast_to(self.table[: keras.ops.shape(x)[1]], keras.ops.shape(x))

    ids, mask = keras.Input((None,), dtype="int32", name="ids"), keras.Input((None,), dtype="int32", name="pad_mask")
    x = L.Embedding(13, 5, name="tokens")(ids)
    x = L.Add()([x, Positions(name="positions")(x)])
    x = L.Multiply()([x, keras.ops.expand_dims(keras.ops.cast(mask, "float32"), -1)])
    first, second = L.Dense(5, name="one", activation="tanh"), L.Dense(5, name="two", activation="tanh")
    return keras.Model({"ids": ids, "pad_mask": mask}, second(first(x)))


class Net(torch.nn.Module):
    """As nanoGPT: ids alone, positions looked up once for the whole batch."""

    def __init__(self, act: Any = torch.tanh) -> None:
        super().__init__()
        self.tokens, self.positions = torch.nn.Embedding(13, 5), torch.nn.Embedding(11, 5)
        self.one, self.two, self.act = torch.nn.Linear(5, 5), torch.nn.Linear(5, 5), act

    def forward(self, ids: Any) -> Any:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        return torch.tanh(self.two(self.act(self.one(x))))


@pytest.mark.parametrize("back", [False, True])
def test_a_mask_that_one_model_lacks_masks_nothing(back: bool) -> None:
    model, net = _keras(), Net()
    report = lx.port(net, model) if back else lx.port(model, net)
    assert report.end_to_end.agrees
    assert "without pad_mask" in report.end_to_end.note
    ids = np.array([[3, 7, 12, 0]])
    want = np.asarray(model({"ids": ids, "pad_mask": np.ones_like(ids)}))
    np.testing.assert_allclose(net(torch.from_numpy(ids)).detach().numpy(), want, atol=1e-6)


def test_the_users_own_mask_is_left_out_where_it_masks_nothing() -> None:
    model, net = _keras(), Net()
    ids = np.array([[3, 7, 12, 0]])
    assert lx.port(model, net, {"ids": ids, "pad_mask": np.ones_like(ids)}).end_to_end.agrees
    with pytest.raises(UsageError, match="the target does not run on these inputs"):
        lx.port(model, net, {"ids": ids, "pad_mask": np.array([[1, 1, 0, 0]])})


def test_validate_finds_what_differs_behind_a_table_that_is_looked_up_once() -> None:
    model, net = _keras(), Net(torch.sigmoid)
    lx.port(model, net, compare=False)
    found = lx.validate(model, net)
    assert {check.layer for check in found.checks if not check.ok} == set()
    assert "first between one and two" in str(found).replace("\n", " ")
    assert any("without pad_mask" in note for note in found.notes)


def test_a_forward_that_takes_masks_or_too_much_keeps_them() -> None:
    class Masked(torch.nn.Module):
        def forward(self, ids: Any, mask: Any = None) -> Any: ...

    class Two(torch.nn.Module):
        def forward(self, ids: Any, other: Any) -> Any: ...

    names = ("ids", "pad_mask")
    assert [spare_masks(one(), names) for one in (Net, Masked, Two)] == [("pad_mask",), (), ()]
    assert spare_masks(Net(), ()) == ()
    assert left({"ids": np.zeros(3), "pad_mask": np.array([1, 0, 1])}, ("pad_mask",)) == (0, 1)


class Inputs(torch.nn.Module):
    """What it calls `inputs` are layers of its own, and no inputs of Keras."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs = torch.nn.ModuleList([torch.nn.Linear(7, 5), torch.nn.Linear(5, 3)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.inputs:
            x = layer(x).tanh()
        return x


@pytest.mark.parametrize("given", [False, True])
def test_what_another_model_calls_its_inputs_has_no_names(given: bool) -> None:
    model = keras.Sequential([keras.Input((7,)), *(L.Dense(n, activation="tanh") for n in (5, 3))])
    x = np.random.default_rng(5).normal(size=(2, 7)).astype(np.float32)
    assert lx.port(model, Inputs(), inputs=x if given else None).end_to_end.agrees
    assert lx.port(Inputs(), model, inputs=x if given else None).end_to_end.agrees
    net = Inputs()
    assert lx.validate(net, net, x).ok
