"""What the user says of layers comes before what their shapes allow; a file that layoutx wrote says it of itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import LayoutxError
from layoutx.files.open import open_store
from layoutx.files.save import save

torch = pytest.importorskip("torch")
WIDE, INNER, WORDS = 11, 17, 23
FORMS = {
    "*_proj": "torch.Linear",
    "*norm": "torch.RMSNorm",
    "lm_head": "torch.Linear",
    "model.embed_tokens": "torch.Embedding",
}


def llama(layers: int) -> dict[str, np.ndarray]:
    """The names and shapes of a LLaMA checkpoint, whose MLP is a gated one."""
    rng = np.random.default_rng(7)
    shapes = {"model.embed_tokens": (WORDS, WIDE), "model.norm": (WIDE,), "lm_head": (WORDS, WIDE)}
    for i in range(layers):
        own = {f"self_attn.{name}_proj": (WIDE, WIDE) for name in "qkvo"}
        own |= {"mlp.gate_proj": (INNER, WIDE), "mlp.up_proj": (INNER, WIDE), "mlp.down_proj": (WIDE, INNER)}
        own |= {"input_layernorm": (WIDE,), "post_attention_layernorm": (WIDE,)}
        shapes |= {f"model.layers.{i}.{name}": shape for name, shape in own.items()}
    return {f"{name}.weight": rng.standard_normal(shape).astype("f4") for name, shape in shapes.items()}


def test_what_the_user_says_of_parts_comes_before_the_whole(tmp_path: Path) -> None:
    save(tmp_path / "m.npz", llama(1), {})
    lx.convert(tmp_path / "m.npz", tmp_path / "o.npz", to="flax", from_="torch", forms=FORMS, live=False)
    made = open_store(tmp_path / "o.npz").tensors
    kernel = made["params/model/layers/0/mlp/gate_proj/kernel"].read()
    np.testing.assert_array_equal(kernel, llama(1)["model.layers.0.mlp.gate_proj.weight"].T)
    whole = {**FORMS, "*.mlp": "torch.GatedMLP"}
    with pytest.raises(LayoutxError, match=r"no form for the kind gated_mlp(.|\n)*'\*\.gate_proj=torch\.Linear'"):
        lx.convert(tmp_path / "m.npz", to="flax", from_="torch", forms=whole, live=False)


def test_a_pattern_that_means_a_part_leaves_an_attention_whole(tmp_path: Path) -> None:
    layer = torch.nn.MultiheadAttention(10, 2)
    state = {f"block.{name}": value for name, value in layer.state_dict().items()}
    torch.save({**state, "head.out_proj.weight": torch.ones(5, 7)}, tmp_path / "m.pt")
    report = lx.convert(tmp_path / "m.pt", to="flax", forms={"*_proj": "torch.Linear"}, values={"num_heads": 2})
    assert [layer.source for layer in report.layers] == ["torch.MultiheadAttention", "torch.Linear"]


@pytest.mark.parametrize("most", [512, 3])
def test_the_way_back_needs_nothing_said_again(tmp_path: Path, monkeypatch, most: int) -> None:
    """LLaMA into flax and back, twice: square weights fit an Embedding too, vectors any norm."""
    monkeypatch.setattr(sys.modules["layoutx.report"], "FULL", most)
    save(tmp_path / "m.npz", llama(2), {})
    lx.convert(tmp_path / "m.npz", tmp_path / "a.msgpack", to="flax", from_="torch", forms=FORMS, live=False)
    lx.convert(tmp_path / "a.msgpack", tmp_path / "b.safetensors", to="torch", live=False)
    lx.convert(tmp_path / "b.safetensors", tmp_path / "n.pt", to="torch")  # made anew, and it still knows
    found = lx.convert(tmp_path / "n.pt", tmp_path / "c.msgpack", to="flax", live=False)
    assert {layer.source for layer in found.layers} == {"torch.Linear", "torch.RMSNorm", "torch.Embedding"}
    back, again = (open_store(tmp_path / name).tensors for name in ("b.safetensors", "c.msgpack"))
    for name, array in llama(2).items():
        np.testing.assert_array_equal(back[name].read(), array)
    for name, tensor in open_store(tmp_path / "a.msgpack").tensors.items():
        np.testing.assert_array_equal(again[name].read(), tensor.read())
    assert lx.verify_file(tmp_path / "c.msgpack", tmp_path / "n.pt").ok


def test_a_certificate_gives_no_form_that_does_not_fit(tmp_path: Path) -> None:
    """Whatever a stranger's certificate says, forms that names and shapes allow are all that it chooses from."""
    layers = [{"name": "a", "target": "torch.LSTM", "tensors": {"a.weight": "moves"}}, "nonsense", {"target": 3}]
    metadata = {"layoutx": json.dumps({"target": "torch", "layers": layers})}
    save(tmp_path / "m.safetensors", {"a.weight": np.ones((5, 5), "f4")}, metadata)
    with pytest.raises(LayoutxError, match=r"torch\.Linear, torch\.Embedding"):
        lx.convert(tmp_path / "m.safetensors", to="flax", live=False)
