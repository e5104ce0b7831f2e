"""Orbax checkpoints as an output: orbax and flax restore them, and a folder appears whole or not at all."""

from __future__ import annotations

import os

import numpy as np
import pytest
from tricky import same_bits, tricky_arrays

from layoutx.cli import main
from layoutx.errors import LayoutxError, UsageError
from layoutx.files import orbax_write
from layoutx.files.open import open_store
from layoutx.files.save import can_write, save

ocp = pytest.importorskip("orbax.checkpoint")

RNG = np.random.default_rng(5)


def slashed():
    """Arrays of every dtype in a tree; orbax holds none without elements."""
    return {f"params/{name}/x": array for name, array in tricky_arrays().items() if array.size and "/" not in name}


def test_every_bit_and_the_metadata_survive(tmp_path):
    arrays, notes = slashed(), {"layoutx": '{"source": "snö"}', "author": "näme"}
    assert len(arrays) > 5
    save(tmp_path / "x.orbax", arrays, notes)
    store = open_store(tmp_path / "x.orbax")
    assert set(store.tensors) == set(arrays)
    for name, want in arrays.items():
        same_bits(store.tensors[name].read(), want)
    assert dict(store.metadata) == notes
    assert os.listdir(tmp_path) == ["x.orbax"]


@pytest.mark.parametrize("by", ["StandardCheckpointer", "PyTreeCheckpointer"])
def test_orbax_itself_restores_what_is_written(tmp_path, by):
    arrays = slashed()
    save(tmp_path / "x.orbax", arrays, {"layoutx": "{}"})
    tree = getattr(ocp, by)().restore((tmp_path / "x.orbax").resolve())
    assert set(tree) == {"params"}, "the note of layoutx is no part of the tree"
    for name, want in arrays.items():
        same_bits(np.asarray(tree["params"][name.split("/")[1]]["x"]), want)


def test_a_torch_model_becomes_a_flax_model(tmp_path, capsys):
    """Names as flax gives them, restored into the model's own variables; the outputs are the same."""
    torch = pytest.importorskip("torch")
    nn = pytest.importorskip("flax.linen")
    jax = pytest.importorskip("jax")

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(7, name="first")(x)
            x = nn.BatchNorm(use_running_average=True, epsilon=1e-5, name="norm")(x)
            return nn.Dense(7, name="last")(x)

    parts = {"first": torch.nn.Linear(5, 7), "norm": torch.nn.BatchNorm1d(7), "last": torch.nn.Linear(7, 7)}
    model = torch.nn.Sequential()
    for name, layer in parts.items():
        model.add_module(name, layer)
    for value in model.parameters():
        torch.nn.init.normal_(value, 0.3)
    model(torch.randn(11, 5) * 2 + 1)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    made = tmp_path / "made.orbax"
    call = ["convert", str(tmp_path / "model.pt"), "-o", str(made), "--to", "flax", "--form", "norm=torch.BatchNorm1d"]
    assert main(call) == 0, capsys.readouterr()
    x = RNG.normal(size=(3, 5)).astype(np.float32)
    fresh = Net().init(jax.random.key(0), x)
    with ocp.StandardCheckpointer() as checkpointer:
        state = checkpointer.restore(made.resolve(), jax.tree.map(jax.numpy.zeros_like, fresh))
    want = model.eval()(torch.from_numpy(x)).detach().numpy()
    assert np.abs(np.asarray(Net().apply(fresh, x)) - want).max() > 0.1
    np.testing.assert_allclose(np.asarray(Net().apply(state, x)), want, rtol=0, atol=2e-5)

    back = tmp_path / "back.safetensors"
    assert main(["inspect", str(made)]) == 0
    assert "model.pt" in capsys.readouterr().out, "the certificate is read back"
    call = ["convert", str(made), "-o", str(back), "--to", "torch", "--form", "last=flax.Dense"]
    assert main(call) == 0, capsys.readouterr()
    for name, value in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            same_bits(open_store(back).tensors[name].read(), value.numpy())


def test_what_orbax_cannot_hold_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"orbax cannot hold 'a/empty'(.|\n)*no elements"):
        save(tmp_path / "x.orbax", {"a/empty": np.ones((0, 3)), "b": np.ones(3)}, {})
    with pytest.raises(UsageError, match="inside another tensor"):
        save(tmp_path / "x.orbax", {"a": np.ones(3), "a/b": np.ones(3)}, {})
    assert os.listdir(tmp_path) == []


def test_only_a_checkpoint_of_ours_is_replaced(tmp_path):
    path = tmp_path / "x.orbax"
    save(path, {"w": np.arange(3.0)}, {})
    save(path, {"w": np.arange(5.0)}, {})
    assert open_store(path).tensors["w"].shape == (5,)
    ocp.PyTreeCheckpointer().save(tmp_path / "foreign.orbax", {"w": np.arange(3.0)})
    with pytest.raises(UsageError, match="something else"):
        can_write(tmp_path / "foreign.orbax")


def test_a_damaged_result_does_not_appear(tmp_path, monkeypatch):
    write = orbax_write.write_orbax
    wrong = lambda at, arrays, notes: write(at, {n: a + 1 for n, a in arrays.items()}, notes)  # noqa: E731
    save(tmp_path / "x.orbax", {"w": np.arange(3.0)}, {})
    monkeypatch.setattr(orbax_write, "write_orbax", wrong)
    with pytest.raises(LayoutxError, match="did not keep"):
        save(tmp_path / "x.orbax", {"w": np.arange(5.0)}, {})
    assert os.listdir(tmp_path) == ["x.orbax"]
    assert open_store(tmp_path / "x.orbax").tensors["w"].shape == (3,)


def test_without_orbax_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "orbax.checkpoint", None)
    with pytest.raises(UsageError, match="needs orbax"):
        can_write(tmp_path / "x.orbax")
