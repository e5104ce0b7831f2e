"""A form that the user names: tensors take its places by their names, by position only where a file numbers them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import LayoutxError
from layoutx.model.identify import identified
from layoutx.model.record import LayerRecord
from layoutx.spec.registry import registry

BN = "weight bias running_mean running_var"


def record(names, name="l", **more):
    """Vectors of one length under these names: shapes tell nothing apart."""
    tensors = {n: SimpleNamespace(name=n, shape=(7,), dtype=np.dtype("f4")) for n in names}
    return LayerRecord(name, "", tensors=tensors, **more)


def placed(names, framework, form):
    """Form tensor name -> the name in the file."""
    found = identified(record(names), registry(), framework, form)
    return {name: tensor.name for name, tensor in found.tensors.items()}


@pytest.mark.parametrize(
    ("form", "names"),
    [
        ("torch.LayerNorm", "beta gamma"),
        ("torch.LayerNorm", "a b"),
        ("torch.LayerNorm", "scale bias"),
        ("torch.BatchNorm2d", "bn.bias bn.mean bn.running_var bn.weight"),
        ("torch.BatchNorm2d", "bias mean running_var weight"),
        ("flax.LayerNorm", "mean var"),
        ("haiku.BatchNorm", "offset scale w z"),
    ],
)
def test_other_names_are_refused(form, names) -> None:
    with pytest.raises(LayoutxError, match="names decide") as caught:
        placed(names.split(), form.split(".")[0], form)
    text = str(caught.value)
    assert all(name in text for name in (*names.split(), "--from", "rename"))


def test_the_forms_own_names_decide_in_any_order() -> None:
    names = sorted(BN.split())
    assert placed(names, "torch", "torch.BatchNorm2d") == dict(zip(names, names, strict=True))


@pytest.mark.parametrize("names", ["0 1 2 3", "bn/vars/0 bn/vars/1 bn/vars/2 bn/vars/3"])
def test_numbers_are_positions(names) -> None:
    wanted = dict(zip(["gamma", "beta", "moving_mean", "moving_variance"], names.split(), strict=True))
    assert placed(names.split(), "keras", "keras.BatchNormalization") == wanted


def test_keras_lists_its_variables_in_order_under_any_names() -> None:
    assert placed(["l/a:0", "l/b:0"], "keras", "keras.LayerNormalization") == {"gamma": "l/a:0", "beta": "l/b:0"}
    assert placed(["l/gamma:0", "l/beta:0"], "keras", "keras.LayerNormalization")["beta"] == "l/beta:0"
    with pytest.raises(LayoutxError, match="names decide"):
        placed(["l/beta:0", "l/gamma:0"], "keras", "keras.LayerNormalization")


def test_a_size_that_only_the_user_knows_is_asked_for(tmp_path: Path) -> None:
    tree = {"params": {"gn": {"bias": np.arange(7.0), "scale": np.arange(7.0) + 2}}}
    serialization = pytest.importorskip("flax.serialization")
    source = tmp_path / "a.msgpack"
    source.write_bytes(serialization.to_bytes(tree))
    with pytest.raises(LayoutxError, match="--set num_groups=") as caught:
        lx.convert(source, to="torch", forms={"gn": "flax.GroupNorm"})
    assert "does not hold" not in str(caught.value)
    assert lx.convert(source, to="torch", forms={"gn": "flax.GroupNorm"}, values={"num_groups": 7}).layers


def test_a_renamed_layer_norm_file(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    rng = np.random.default_rng(3)
    source, out = tmp_path / "a.safetensors", tmp_path / "b.msgpack"
    save_file({f"LayerNorm.{name}": rng.normal(size=7) for name in ("gamma", "beta")}, source)
    with pytest.raises(LayoutxError, match=r"LayerNorm does not hold what torch\.LayerNorm stores"):
        lx.convert(source, out, to="flax", forms={"LayerNorm": "torch.LayerNorm"})
    assert not out.exists()


def test_the_second_layer_of_a_stack_goes_by_its_own_names(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.r = torch.nn.LSTM(3, 5, 2)

    source = tmp_path / "a.safetensors"
    save_file(Net().state_dict(), source)
    forms = {"r/layer_0": "torch.LSTM", "r/layer_1": "torch.LSTM"}
    assert len(lx.convert(source, to="paddle", forms=forms).layers) == 2
