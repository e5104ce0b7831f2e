"""Attention and gated feed-forward blocks of language models, replayed in torch from their published code.

Sources: transformers gpt2, llama, gpt_neox, phi3 `modeling_*.py`, pytorch_utils.py Conv1D; meta-llama llama/model.py;
Megatron-LM megatron/core/transformer/attention.py and mlp.py. Written anew, in the order of their own `forward`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = Mapping[str, Tensor]


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """(batch, heads, time, head): keys and values serve as many query heads in a row as there are too few of them."""
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
    scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
    if causal:
        scores = scores.masked_fill(torch.ones(q.shape[2], q.shape[2]).triu(1).bool(), float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def split(x: Tensor, heads: int) -> Tensor:
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


def rotate_half(x: Tensor) -> Tensor:
    x1, x2 = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return torch.cat((-x2, x1), dim=-1)


def rope_half(x: Tensor, theta: float) -> Tensor:
    """Hugging Face and GPT-NeoX: x (batch, heads, time, head)."""
    inv = 1.0 / theta ** (torch.arange(0, x.shape[-1], 2, dtype=x.dtype) / x.shape[-1])
    freqs = torch.outer(torch.arange(x.shape[2], dtype=x.dtype), inv)
    emb = torch.cat((freqs, freqs), dim=-1)
    return x * emb.cos() + rotate_half(x) * emb.sin()


def rope_complex(x: Tensor, theta: float) -> Tensor:
    """Meta: neighbours are the parts of one complex number; x (batch, heads, time, head)."""
    freqs = 1.0 / theta ** (torch.arange(0, x.shape[-1], 2, dtype=x.dtype) / x.shape[-1])
    angles = torch.outer(torch.arange(x.shape[2], dtype=x.dtype), freqs)
    turned = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2)) * torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(turned).flatten(3)


def gpt2_conv1d(w: Weights, x: Tensor) -> Tensor:
    return torch.addmm(w["bias"], x, w["weight"])


def gpt2_attention(w: Weights, x: Tensor, heads: int, causal: bool = False) -> Tensor:
    """The real layer is causal; the kind leaves the mask to the call of a layer."""
    q, k, v = (x @ w["c_attn.weight"] + w["c_attn.bias"]).split(x.shape[-1], dim=2)
    y = attend(split(q, heads), split(k, heads), split(v, heads), causal)
    return y @ w["c_proj.weight"] + w["c_proj.bias"]


def llama_attention(w: Weights, x: Tensor, heads: int, kv: int, theta: float) -> Tensor:
    q, k, v = (F.linear(x, w[f"{n}_proj.weight"], w.get(f"{n}_proj.bias")) for n in "qkv")
    q, k = rope_half(split(q, heads), theta), rope_half(split(k, kv), theta)
    return F.linear(attend(q, k, split(v, kv), causal=True), w["o_proj.weight"], w.get("o_proj.bias"))


def meta_attention(w: Weights, x: Tensor, heads: int, kv: int, theta: float, names: str = "w{}.weight") -> Tensor:
    q, k, v = (F.linear(x, w[names.format(n)]) for n in "qkv")
    q, k = rope_complex(split(q, heads), theta), rope_complex(split(k, kv), theta)
    last = "wo.weight" if "wo.weight" in w else "attn_output.weight"
    return F.linear(attend(q, k, split(v, kv), causal=True), w[last])


def phi3_attention(w: Weights, x: Tensor, heads: int, kv: int, head: int, theta: float) -> Tensor:
    qkv = F.linear(x, w["qkv_proj.weight"])
    at = heads * head
    q, k, v = qkv[..., :at], qkv[..., at : at + kv * head], qkv[..., at + kv * head :]
    q, k = rope_half(split(q, heads), theta), rope_half(split(k, kv), theta)
    return F.linear(attend(q, k, split(v, kv), causal=True), w["o_proj.weight"])


def neox_attention(w: Weights, x: Tensor, heads: int, rotary_ndims: int, theta: float) -> Tensor:
    qkv = F.linear(x, w["query_key_value.weight"], w.get("query_key_value.bias"))
    head = qkv.shape[-1] // heads // 3
    qkv = qkv.view(*x.shape[:2], heads, 3 * head)
    q = qkv[..., :head].permute(0, 2, 1, 3)
    k = qkv[..., head : 2 * head].permute(0, 2, 1, 3)
    v = qkv[..., 2 * head :].permute(0, 2, 1, 3)
    q, k = (torch.cat((rope_half(t[..., :rotary_ndims], theta), t[..., rotary_ndims:]), -1) for t in (q, k))
    return F.linear(attend(q, k, v, causal=True), w["dense.weight"], w.get("dense.bias"))


def megatron_attention(w: Weights, x: Tensor, heads: int, groups: int, theta: float, rotary: str) -> Tensor:
    """[.., h] -> [.., ng, (np/ng + 2) * hn] -> queries, key and value of each group."""
    mixed = F.linear(x, w["linear_qkv.weight"], w.get("linear_qkv.bias"))
    each = heads // groups
    head = mixed.shape[-1] // groups // (each + 2)
    mixed = mixed.view(*x.shape[:2], groups, (each + 2) * head)
    q, k, v = torch.split(mixed, [each * head, head, head], dim=3)
    q = q.reshape(*x.shape[:2], -1, head)
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    if rotary:
        q, k = ((rope_complex if rotary == "interleaved" else rope_half)(t, theta) for t in (q, k))
    y = attend(q, k, v, causal=bool(rotary))
    return F.linear(y, w["linear_proj.weight"], w.get("linear_proj.bias"))


def llama_mlp(w: Weights, x: Tensor) -> Tensor:
    gate, up = (F.linear(x, w[f"{n}_proj.weight"], w.get(f"{n}_proj.bias")) for n in ("gate", "up"))
    return F.linear(F.silu(gate) * up, w["down_proj.weight"], w.get("down_proj.bias"))


def meta_feed_forward(w: Weights, x: Tensor) -> Tensor:
    return F.linear(F.silu(F.linear(x, w["w1.weight"])) * F.linear(x, w["w3.weight"]), w["w2.weight"])


def phi3_mlp(w: Weights, x: Tensor) -> Tensor:
    gate, up = F.linear(x, w["gate_up_proj.weight"]).chunk(2, dim=-1)
    return F.linear(up * F.gelu(gate), w["down_proj.weight"])


def megatron_mlp(w: Weights, x: Tensor) -> Tensor:
    x_glu, x_linear = torch.chunk(F.linear(x, w["linear_fc1.weight"], w.get("linear_fc1.bias")), 2, dim=-1)
    return F.linear(F.silu(x_glu) * x_linear, w["linear_fc2.weight"], w.get("linear_fc2.bias"))


def gguf_ffn(w: Weights, x: Tensor) -> Tensor:
    gate, up = (F.linear(x, w[f"ffn_{n}.weight"], w.get(f"ffn_{n}.bias")) for n in ("gate", "up"))
    return F.linear(F.silu(gate) * up, w["ffn_down.weight"], w.get("ffn_down.bias"))
