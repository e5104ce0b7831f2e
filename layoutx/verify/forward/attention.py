"""Multi-head attention with grouped key/value heads: project, score, weigh, project back."""

from __future__ import annotations

import numpy as np

from layoutx.verify.forward.activations import softmax
from layoutx.verify.forward.shapes import Array, Arrays, Facts, biased, need, sizes_of


def attention(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, Array]:
    """y = softmax(q k / sqrt(head)) v, projected by w_o; no dropout.

    w_q (kv, rep, head, embed_q), w_k (kv, head, embed_k), w_v (kv, value, embed_v), w_o (kv, rep, value, out);
    b_q (kv, rep, head), b_k (kv, head), b_v (kv, value), b_o (out), any bias may be absent.
    query (batch, tq, embed_q), key (batch, tk, embed_k), value (batch, tk, embed_v) -> y (batch, tq, out).
    x may hold mask (batch, tq or 1, tk), False where a query does not see a key.
    """
    w_q, w_k, w_v, w_o = need("attention", roles, "w_q", "w_k", "w_v", "w_o")
    query, key, value = need("attention", x, "query", "key", "value")
    b_q, b_k, b_v, b_o = (roles.get(name) for name in ("b_q", "b_k", "b_v", "b_o"))
    sizes = sizes_of(
        "attention",
        {
            "w_q": (w_q, "kv rep head embed_q"),
            "w_k": (w_k, "kv head embed_k"),
            "w_v": (w_v, "kv value embed_v"),
            "w_o": (w_o, "kv rep value out"),
            "b_q": (b_q, "kv rep head"),
            "b_k": (b_k, "kv head"),
            "b_v": (b_v, "kv value"),
            "b_o": (b_o, "out"),
            "query": (query, "batch tq embed_q"),
            "key": (key, "batch tk embed_k"),
            "value": (value, "batch tk embed_v"),
        },
    )
    q = biased(np.einsum("bte,grhe->btgrh", query, w_q), b_q)
    k = biased(np.einsum("bse,ghe->bsgh", key, w_k), b_k)
    v = biased(np.einsum("bse,gve->bsgv", value, w_v), b_v)
    scores = np.einsum("btgrh,bsgh->bgrts", q, k) / sizes["head"] ** 0.5
    mixed = np.einsum("bgrts,bsgv->btgrv", softmax(masked(scores, x.get("mask"))), v)
    return {"y": biased(np.einsum("btgrv,grvo->bto", mixed, w_o), b_o)}


def masked(scores: Array, mask: Array | None) -> Array:
    """Scores (batch, ..., tq, tk), so low where the mask (batch, tq or 1, tk) is False that they weigh nothing."""
    if mask is None:
        return scores
    return np.where(mask.reshape(len(mask), *[1] * (scores.ndim - 3), *mask.shape[1:]), scores, -1e30)
