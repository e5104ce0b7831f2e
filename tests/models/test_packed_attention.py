"""torch attention of four Linears and torch's packed MultiheadAttention: each into the other, and told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import layoutx
from layoutx.errors import LayoutxError, VerificationError

WIDTH, HEADS = 15, 3
NAMES = [
    ("q_proj", "k_proj", "v_proj", "out_proj"),
    ("query", "key", "value", "proj"),
    ("wq", "wk", "wv", "wo"),
    ("key", "query", "value", "proj"),  # defined in another order than they are used in
    ("to_v", "to_k", "to_q", "to_out"),
]


class Own(nn.Module):
    """Attention around four Linears, defined in the order of `names`."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.names = names
        for name in names:
            setattr(self, name, nn.Linear(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, width) -> the same."""
        by = {next(c for c in "qkv" if c in name.removeprefix("to_")): name for name in self.names[:3]}
        q, k, v = (getattr(self, by[c])(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for c in "qkv")
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return getattr(self, self.names[3])(mixed.transpose(1, 2).flatten(2))


class Apart(nn.Module):
    """Two blocks with separate projections."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.tok = nn.Embedding(11, WIDTH)
        self.blocks = nn.ModuleList([Own(names), Own(names)])
        self.out = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time) -> (batch, time, 5)."""
        y = self.tok(x)
        for block in self.blocks:
            y = y + block(y)
        return self.out(y)


class Packed(nn.Module):
    """The same with torch's own module; `heads`: another number is another function."""

    def __init__(self, heads: int = HEADS) -> None:
        super().__init__()
        self.tok = nn.Embedding(11, WIDTH)
        self.blocks = nn.ModuleList([nn.MultiheadAttention(WIDTH, heads, batch_first=True) for _ in range(2)])
        self.out = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time) -> (batch, time, 5)."""
        y = self.tok(x)
        for block in self.blocks:
            y = y + block(y, y, y, need_weights=False)[0]
        return self.out(y)


def filled(module: nn.Module, seed: int) -> nn.Module:
    """float64, every number random, biases too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in module.double().eval().parameters():
            value.copy_(torch.randn(value.shape, generator=generator))
    return module


def tokens() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 11, (2, 7))


@pytest.mark.parametrize("names", NAMES)
def test_apart_into_packed_and_back(names: tuple[str, ...]) -> None:
    apart, packed = filled(Apart(names), 1), filled(Packed(), 2)
    assert layoutx.match(apart, packed).complete
    assert layoutx.match(packed, apart).complete
    assert not layoutx.validate(apart, packed, tokens()).ok
    assert layoutx.port(apart, packed, tokens()).end_to_end.agrees is True
    assert layoutx.validate(packed, apart, tokens()).ok
    first = apart.blocks[0]
    query = next(name for name in names if "q" in name)
    torch.testing.assert_close(packed.blocks[0].in_proj_weight[:WIDTH], getattr(first, query).weight, rtol=0, atol=0)
    other = filled(Apart(names), 3)
    assert layoutx.port(packed, other, tokens()).end_to_end.agrees is True
    for name, value in apart.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=0, atol=0)


def test_another_number_of_heads_is_noticed() -> None:
    with pytest.raises(VerificationError):
        layoutx.port(filled(Apart(NAMES[0]), 1), filled(Packed(5), 2), tokens())


def test_of_other_widths_is_refused() -> None:
    class Wide(Packed):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.MultiheadAttention(18, HEADS, batch_first=True) for _ in range(2)])

    with pytest.raises(LayoutxError, match="blocks"):
        layoutx.port(filled(Apart(NAMES[1]), 1), filled(Wide(), 2), compare=False)


def test_a_state_dict_into_a_live_module(tmp_path: Path) -> None:
    """Names and numbers alone: the heads are the module's."""
    from safetensors.torch import save_file

    apart, packed = filled(Apart(NAMES[1]), 1), filled(Packed(), 2)
    save_file(apart.state_dict(), tmp_path / "apart.safetensors")
    layoutx.port(tmp_path / "apart.safetensors", packed, compare=False)
    x = torch.from_numpy(tokens())
    torch.testing.assert_close(packed(x), apart(x), rtol=0, atol=1e-10)


def test_from_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from layoutx.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "both.py").write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_packed_attention import NAMES, Apart, Packed, filled\n"
        "apart = lambda: filled(Apart(NAMES[1]), 1)\npacked = lambda: filled(Packed(), 2)\n",
        encoding="utf-8",
    )
    np.save("x.npy", tokens())
    assert main(["match", "both:apart", "both:packed"]) == 0
    assert "4 of 4 layers paired" in capsys.readouterr().out
    assert main(["port", "both:apart", "both:packed", "-o", "new.pt", "--inputs", "x.npy"]) == 0
    assert main(["validate", "both:apart", "both:packed", "--inputs", "x.npy"]) == 1
