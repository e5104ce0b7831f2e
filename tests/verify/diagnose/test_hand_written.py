"""Mistakes in a port's own code that no layer shows alone: what the target does there is told by what its run held."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layoutx.diagnose import diagnose
from layoutx.diagnosis import WholeDiagnosis

WIDTH, STEPS, ROWS = 12, 7, 23


class Block(nn.Module):
    """An encoder block; `way` is what its author does wrong."""

    def __init__(self, way: str, heads: int = 3) -> None:
        super().__init__()
        self.way = way
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = nn.MultiheadAttention(WIDTH, heads, batch_first=True)
        self.up, self.down = nn.Linear(WIDTH, 17), nn.Linear(17, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        later = torch.triu(torch.ones(STEPS, STEPS, dtype=torch.bool), 1)
        mask = later.T if self.way == "inverted mask" else later
        if self.way == "post":
            x = self.norm1(x + self.attn(x, x, x, attn_mask=mask)[0])
            return self.norm2(x + self.mlp(x))
        h = self.norm1(x)
        x = x + self.attn(h, h, x if self.way == "raw values" else h, attn_mask=mask)[0]
        return x + self.mlp(self.norm2(x))

    def mlp(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(F.relu(self.up(x)))


class Encoder(nn.Module):
    def __init__(self, way: str = "", heads: int = 3) -> None:
        super().__init__()
        self.way = way
        self.tok, self.pos = nn.Embedding(ROWS, WIDTH), nn.Embedding(STEPS, WIDTH)
        self.block = Block(way, heads)
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 5)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tok(ids) * (WIDTH**0.5 if self.way == "scaled" else 1.0)
        x = x if self.way == "no positions" else x + self.pos(torch.arange(STEPS))
        x = self.block(x)
        return self.head(x if self.way == "no last norm" else self.norm(x))


def pair(make: Callable[..., nn.Module], wrong: nn.Module, inputs: torch.Tensor) -> WholeDiagnosis:
    torch.manual_seed(3)
    right = make().eval()
    for name, held in right.named_parameters():
        held.data.copy_(torch.randn_like(held) * 0.4 + ("norm" in name and name.endswith("weight")))
    wrong.load_state_dict(right.state_dict())
    return diagnose(right, wrong.eval(), inputs.numpy())


IDS = torch.arange(5 * STEPS).reshape(5, STEPS) * 5 % ROWS


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("scaled", "the target does: the 3.4641-fold (the root of 12) of what tok gives added to what pos gives"),
        ("no positions", "the source does: what tok gives added to what pos gives; the target does: what tok gives"),
        ("no last norm", "the source does: what norm gives; the target does:"),
        ("raw values", "the source does: what block.norm1 gives; the target does: what block.norm1 is given"),
        ("post", "block.attn comes before block.norm1 there, and behind it in the source"),
    ],
)
def test_what_the_target_does_in_its_own_code(way: str, words: str) -> None:
    found = pair(Encoder, Encoder(way), IDS)
    assert not found.validation.ok
    assert not found.layers
    assert words in found.gaps[0].what
    assert found.gaps[0].after == pytest.approx(0.0, abs=1e-9)
    assert found.explained


def test_the_order_of_norm_and_attention_is_the_fix() -> None:
    assert pair(Encoder, Encoder("post"), IDS).gaps[0].code.startswith("call block.norm1 before block.attn")


def test_another_count_of_heads_under_a_mask_that_the_call_gives() -> None:
    (found,) = pair(Encoder, Encoder(heads=4), IDS).layers
    (edit,) = found.explanations[0].edits
    assert (edit.mode, edit.family) == ("F23", "num_heads")
    assert "num_heads=3" in edit.code


def test_a_mask_that_is_inverted() -> None:
    (found,) = pair(Encoder, Encoder("inverted mask"), IDS).layers
    (edit,) = found.explanations[0].edits
    assert edit.mode == "F37"
    assert "leaves out earlier positions, where the source leaves out later positions" in edit.what
    assert "the mask is inverted" in edit.what


class Causal(nn.Module):
    """A convolution that pads both ends, and what its author cuts off again."""

    def __init__(self, chomp: str = "end") -> None:
        super().__init__()
        self.chomp = chomp
        self.one, self.two = nn.Conv1d(3, 5, 3, padding=2), nn.Conv1d(5, 7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.one(x)
        x = x[..., :-2] if self.chomp == "end" else x[..., 2:] if self.chomp == "start" else x[..., 1:-1]
        return self.two(F.relu(x))


@pytest.mark.parametrize("chomp", ["start", "middle"])
def test_a_chomp_at_the_wrong_end(chomp: str) -> None:
    torch.manual_seed(4)
    (gap,) = pair(Causal, Causal(chomp), torch.randn(2, 3, 19)).gaps
    assert gap.mode == "F7"
    assert "cropped by (0, 2)" in gap.what
    assert "x[..., 0:-2]" in gap.code
    assert gap.after < 1e-9


def test_no_recorded_array_names_what_the_source_has() -> None:
    """A class token beside patches, and positions of its own: nothing is a layer there, and nothing breaks."""

    class Patches(nn.Module):
        def __init__(self, way: str = "") -> None:
            super().__init__()
            self.patch, self.block, self.head = nn.Conv1d(3, WIDTH, 1), Block(way), nn.Linear(WIDTH, 5)
            self.cls, self.pos = nn.Parameter(torch.zeros(1, 1, WIDTH)), nn.Parameter(torch.zeros(1, STEPS, WIDTH))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.cat([self.cls.expand(len(x), -1, -1), self.patch(x).transpose(1, 2)], 1) + self.pos
            return self.head(self.block(x)[:, 0])

    torch.manual_seed(5)
    found = pair(Patches, Patches("post"), torch.randn(2, 3, STEPS - 1))
    assert not found.validation.ok
    assert "what block.attn gives itself added to what block.attn is given" in found.gaps[0].what


@pytest.mark.parametrize(("at", "names"), [((0,), "w_q"), ((2,), "w_v"), ((0, 1), "w_q, w_k")])
def test_one_projection_of_a_packed_matrix_that_is_transposed(at: tuple[int, ...], names: str) -> None:
    """Edited back by the very line that is shown."""
    wrong = Encoder()
    right = Encoder().eval()
    wrong.load_state_dict(right.state_dict())
    held = wrong.block.attn.in_proj_weight.data
    for one in at:
        rows = slice(one * WIDTH, (one + 1) * WIDTH)
        held[rows] = held[rows].T.clone()
    (found,) = diagnose(right, wrong.eval(), IDS.numpy()).layers
    best = found.explanations[0]
    assert best.edits[0].mode == "F2"
    assert f"{names} in in_proj_weight" in best.edits[0].what
    assert best.certain
    exec(best.edits[0].code, {"model": wrong, "torch": torch})
    assert torch.equal(held, right.block.attn.in_proj_weight.data)


def test_one_number_that_is_not_the_sources() -> None:
    wrong, right = Encoder(), Encoder().eval()
    wrong.load_state_dict(right.state_dict())
    wrong.block.up.weight.data[5, 3] += 0.5
    (found,) = diagnose(right, wrong.eval(), IDS.numpy()).layers
    best = found.explanations[0]
    assert "weight holds 1 of 204 numbers that are not the source's, the first at [5, 3]" in best.edits[0].what
    assert best.certain
