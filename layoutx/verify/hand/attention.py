"""One output of an attention: scores of one position with all others, their weights, and the way back."""

from __future__ import annotations

import numpy as np

from layoutx.verify.hand.layer import Hand
from layoutx.verify.hand.steps import Step, Term, summed


def attention(hand: Hand, formula: str) -> list[Step]:
    """The scores of the head that adds most, term by term, then the sum over heads."""
    b, t, out = hand.at
    w = hand.values
    query, key, value = (hand.data[name][b] for name in ("query", "key", "value"))
    q = np.einsum("e,grhe->grh", query[t], w["w_q"]) + w.get("b_q", 0.0)
    k = np.einsum("se,ghe->sgh", key, w["w_k"]) + w.get("b_k", 0.0)
    v = np.einsum("se,gve->sgv", value, w["w_v"]) + w.get("b_v", 0.0)
    scores = np.einsum("grh,sgh->grs", q, k) / q.shape[-1] ** 0.5
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    mixed = np.einsum("grs,sgv->grv", weights, v)
    terms = [
        Term(f"head{g * q.shape[1] + r}[{n}]", float(mixed[g, r, n]), *hand.weight("w_o", g, r, n, out))
        for g, r, n in np.ndindex(*mixed.shape)
    ]
    last = summed("y", "", formula, terms, hand.biases(["b_o"], out))
    return [*_head(hand, last, q, k, v, scores, weights), last]


def _head(
    hand: Hand, last: Step, q: np.ndarray, k: np.ndarray, v: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> list[Step]:
    """The largest term of the output, followed back."""
    name = last.terms[0].left
    number, n = int(name[4 : name.index("[")]), int(name[name.index("[") + 1 : -1])
    g, r = divmod(number, q.shape[1])
    t = hand.at[1]
    s = int(weights[g, r].argmax())
    size = q.shape[-1]
    products = [Term(f"q[{h}]", float(q[g, r, h]), f"k[{h}]", float(k[s, g, h])) for h in range(size)]
    score = summed("q k", f"head {number}: position {t} asks position {s}, which gets the largest weight",
                   "q k = sum of q * k", products, ())  # fmt: skip
    scaled = Step("score", f"divided by sqrt({size})", f"score = q k / sqrt({size})", float(scores[g, r, s]))
    share = Step("weight", f"its share among {scores.shape[-1]} positions", "weight = softmax(scores)",
                 float(weights[g, r, s]))  # fmt: skip
    mix = [Term(f"weight[{j}]", float(weights[g, r, j]), f"v[{j}, {n}]", float(v[j, g, n])) for j in range(len(v))]
    return [score, scaled, share, summed(name, f"head {number}, number {n}", "sum of weight * v", mix, ())]
