"""Self-attention whose queries and keys are turned by an angle that grows with the position (rotary embedding)."""

from __future__ import annotations

import numpy as np

from layoutx.verify.forward.activations import softmax
from layoutx.verify.forward.shapes import Array, Arrays, Facts, biased, need, sizes_of

AXES = {
    "w_q": "kv rep half pair embed",
    "w_q_rest": "kv rep rest embed",
    "w_k": "kv half pair embed",
    "w_k_rest": "kv rest embed",
    "w_v": "kv value embed",
    "w_o": "kv rep value out",
    "b_q": "kv rep half pair",
    "b_q_rest": "kv rep rest",
    "b_k": "kv half pair",
    "b_k_rest": "kv rest",
    "b_v": "kv value",
    "b_o": "out",
}


def rotary_attention(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, Array]:
    """y = softmax(q k / sqrt(2 pair + rest)) v, projected by w_o; pair i of q and k at position t is a complex number
    (first half + i second half) turned by t * theta ** (-i / pairs); `rest` is not turned.

    Axes of the roles as in `AXES`; `half` has two labels; roles with `rest` and biases may be absent.
    x (batch, time, embed) -> y (batch, time, out). Facts `theta`, `causal` (no position sees a later one).
    Sources: Su et al., RoFormer; meta-llama llama/model.py apply_rotary_emb; transformers modeling_llama.py.
    """
    need("rotary_attention", roles, "w_q", "w_k", "w_v", "w_o")
    (data,) = need("rotary_attention", x, "x")
    held = {name: (roles.get(name), axes) for name, axes in AXES.items()}
    sizes = sizes_of("rotary_attention", {**held, "x": (data, "batch time embed")})
    turn = _angles(sizes["time"], sizes["pair"], float(facts.get("theta", 10000.0)))
    q = _turned(_project(data, roles, "q", "grhp"), turn[:, None, None])
    k = _turned(_project(data, roles, "k", "ghp"), turn[:, None])
    scores = np.einsum("btgrhp,bsghp->bgrts", q, k)
    if roles.get("w_q_rest") is not None and roles.get("w_k_rest") is not None:
        rest = _project(data, roles, "q", "gre", "_rest"), _project(data, roles, "k", "ge", "_rest")
        scores = scores + np.einsum("btgre,bsge->bgrts", *rest)
    scores = scores / np.sqrt(2 * sizes["pair"] + sizes.get("rest", 0))
    if facts.get("causal", True):
        scores = np.where(np.tri(sizes["time"], dtype=bool), scores, -np.inf)
    mixed = np.einsum("bgrts,bsgv->btgrv", softmax(scores), _project(data, roles, "v", "gv"))
    y = np.einsum("btgrv,grvo->bto", mixed, roles["w_o"])
    return {"y": y if roles.get("b_o") is None else y + roles["b_o"]}


def _angles(time: int, pairs: int, theta: float) -> Array:
    """How far each pair is turned at each position: (time, pair)."""
    return np.asarray(np.arange(time)[:, None] * theta ** (-np.arange(pairs) / pairs))


def _turned(states: Array, angles: Array) -> Array:
    """(batch, time, ..., half, pair) turned by angles (time, ..., pair)."""
    first, second = states[..., 0, :], states[..., 1, :]
    cos, sin = np.cos(angles).astype(states.dtype), np.sin(angles).astype(states.dtype)
    return np.stack([first * cos - second * sin, second * cos + first * sin], axis=-2)


def _project(data: Array, roles: Arrays, which: str, axes: str, suffix: str = "") -> Array:
    y = np.einsum(f"bti,{axes}i->bt{axes}", data, roles[f"w_{which}{suffix}"])
    bias = roles.get(f"b_{which}{suffix}")
    return np.asarray(biased(y, bias))
