"""The certificate's room is taken before a number is read: it has to be enough for whatever the numbers show."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import layoutx as lx


def certificate(path: Path) -> dict:
    with safe_open(str(path), "np") as file:
        return json.loads(file.metadata()["layoutx"])


@pytest.mark.parametrize("verify", ["layers", "bytes"])
def test_fused_projections_in_another_dtype(tmp_path: Path, verify: str) -> None:
    """Every tensor of the target has several sources, and all of them are rounded."""
    rng = np.random.default_rng(5)
    shapes = {"kernel": (10, 2, 5), "bias": (2, 5)}
    state = {f"{n}/{slot}": rng.standard_normal(s) for n in ("query", "key", "value") for slot, s in shapes.items()}
    state |= {"out/kernel": rng.standard_normal((2, 5, 10)), "out/bias": rng.standard_normal(10)}
    source = {f"block_{i}/attn/{name}": a.astype("f4") for i in range(5) for name, a in state.items()}
    save_file(source, tmp_path / "m.safetensors")
    out = tmp_path / "o.safetensors"
    lx.convert(tmp_path / "m.safetensors", out, to="torch", from_="flax", dtype="bf16", verify=verify)
    fused = np.concatenate([state[f"{n}/kernel"].astype("f4").reshape(10, 10).T for n in ("query", "key", "value")])
    np.testing.assert_array_equal(
        load_file(out)["block_3.attn.in_proj_weight"].view("u2"), fused.astype(ml_dtypes.bfloat16).view("u2")
    )
    assert "sums" not in certificate(out)["layers"][0]  # end to end is no sum


def test_sums_that_nobody_computed_before(tmp_path: Path) -> None:
    """Which biases round is seen where they are added, long after the header was laid out."""
    rng = np.random.default_rng(5)
    shapes = {"weight_ih": (28, 3), "weight_hh": (28, 7), "bias_ih": (28,), "bias_hh": (28,)}
    names = {f"r{i}.{n}{end}": s for i in range(9) for end in ("_l0", "_l0_reverse") for n, s in shapes.items()}
    source = {name: rng.standard_normal(shape).astype("f4") for name, shape in names.items()}
    save_file(source, tmp_path / "m.safetensors", metadata={"format": "pt"})
    out = tmp_path / "o.safetensors"
    lx.convert(tmp_path / "m.safetensors", out, to="flax", forms={"r*": "torch.LSTM"}, allow={"rounds"}, verify="bytes")
    layers = certificate(out)["layers"]
    assert len(layers) == 9
    assert all(len(layer["sums"]) == 8 for layer in layers)


def test_a_long_name_in_another_dtype(tmp_path: Path) -> None:
    name = ".".join(f"module{i}" for i in range(100))
    save_file({name: np.linspace(0, 1, 7, dtype="f4")}, tmp_path / "m.safetensors", metadata={"format": "pt"})
    lx.convert(tmp_path / "m.safetensors", tmp_path / "o.safetensors", to="torch", dtype="f16")
    assert name in certificate(tmp_path / "o.safetensors")["overall"]["round_trip"]
