"""Layers of several inputs and few weights: bilinear, and attention that only weighs its scores."""

from __future__ import annotations

import numpy as np

from layoutx.errors import UsageError
from layoutx.verify.forward.activations import softmax
from layoutx.verify.forward.attention import masked
from layoutx.verify.forward.shapes import Array, Arrays, Facts, biased, need, sizes_of


def bilinear(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, Array]:
    """y = x1 weight x2 + bias for each output.

    weight (out, in1, in2), bias (out) or absent; x1 (batch..., in1), x2 (batch..., in2) -> y (batch..., out).
    """
    (weight,), (x1, x2) = need("bilinear", roles, "weight"), need("bilinear", x, "x1", "x2")
    bias = roles.get("bias")
    sizes_of(
        "bilinear",
        {
            "weight": (weight, "out in1 in2"),
            "bias": (bias, "out"),
            "x1": (x1, "batch... in1"),
            "x2": (x2, "batch... in2"),
        },
    )
    y = np.einsum("...i,oij,...j->...o", x1, weight, x2)
    return {"y": biased(y, bias)}


def additive_attention(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, Array]:
    """y = softmax(s) value, s = sum over dim of scale * tanh(query + key).

    scale (dim) or absent (ones); query (batch, tq, dim), key (batch, tk, dim), value (batch, tk, value)
    -> y (batch, tq, value).
    x may hold mask, as `attention`.
    """
    query, key, value = _attended("additive_attention", x, {"scale": (roles.get("scale"), "dim")})
    both = np.tanh(query[:, :, np.newaxis] + key[:, np.newaxis])
    return {"y": softmax(masked((both * roles.get("scale", 1.0)).sum(axis=-1), x.get("mask"))) @ value}


def attention_scale(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, Array]:
    """y = softmax(s) value; s = scale * query key (fact `score_mode` "dot"), or
    concat_score_weight * sum over dim of tanh(scale * (query + key)) ("concat").

    scale and concat_score_weight (), absent: one; data as `additive_attention`.
    """
    numbers = {name: (roles.get(name), "") for name in ("scale", "concat_score_weight")}
    query, key, value = _attended("attention_scale", x, numbers)
    scale, weight = roles.get("scale", 1.0), roles.get("concat_score_weight", 1.0)
    mode = facts.get("score_mode", "dot")
    if mode not in ("dot", "concat"):
        raise UsageError(f"attention_scale: score_mode={mode!r} is unknown", where="known: dot, concat")
    if mode == "dot":
        scores = scale * np.einsum("bqd,bkd->bqk", query, key)
    else:
        scores = weight * np.tanh(scale * (query[:, :, np.newaxis] + key[:, np.newaxis])).sum(axis=-1)
    return {"y": softmax(masked(scores, x.get("mask"))) @ value}


def _attended(kind: str, x: Arrays, weights: dict[str, tuple[Array | None, str]]) -> tuple[Array, Array, Array]:
    query, key, value = need(kind, x, "query", "key", "value")
    data = {
        "query": (query, "batch tq dim"),
        "key": (key, "batch tk dim"),
        "value": (value, "batch tk value"),
    }
    sizes_of(kind, {**data, **weights})
    return query, key, value
