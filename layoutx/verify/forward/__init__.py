"""What every kind computes, by its published equations, on role arrays: slow, plain, NumPy only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from layoutx.errors import UsageError
from layoutx.verify.forward.attention import attention
from layoutx.verify.forward.conv import conv, conv_transpose, separable_conv
from layoutx.verify.forward.conv_lstm import conv_lstm
from layoutx.verify.forward.gated import gated_mlp
from layoutx.verify.forward.keras1 import highway, maxout_dense, parametric_softplus, srelu
from layoutx.verify.forward.local import locally_connected_1d, locally_connected_2d
from layoutx.verify.forward.norm import batch_norm, group_norm, layer_norm, normalization, rms_norm
from layoutx.verify.forward.pairs import additive_attention, attention_scale, bilinear
from layoutx.verify.forward.plain import dense, embedding, layer_scale, matrices, prelu
from layoutx.verify.forward.recurrent import gru, lstm, mgu, simple_rnn
from layoutx.verify.forward.rotary import rotary_attention
from layoutx.verify.forward.shapes import Array, Arrays, Facts

__all__ = ["KINDS", "forward"]

KINDS: Mapping[str, Callable[[Arrays, Arrays, Facts, Facts], dict[str, Array]]] = MappingProxyType(
    {
        "dense": dense,
        "conv": conv,
        "conv_transpose": conv_transpose,
        "separable_conv": separable_conv,
        "embedding": embedding,
        "batch_norm": batch_norm,
        "layer_norm": layer_norm,
        "rms_norm": rms_norm,
        "group_norm": group_norm,
        "prelu": prelu,
        "layer_scale": layer_scale,
        "matrices": matrices,
        "simple_rnn": simple_rnn,
        "lstm": lstm,
        "gru": gru,
        "mgu": mgu,
        "attention": attention,
        "rotary_attention": rotary_attention,
        "partial_rotary_attention": rotary_attention,
        "gated_mlp": gated_mlp,
        "highway": highway,
        "maxout_dense": maxout_dense,
        "srelu": srelu,
        "parametric_softplus": parametric_softplus,
        "conv_lstm": conv_lstm,
        "bilinear": bilinear,
        "locally_connected_1d": locally_connected_1d,
        "locally_connected_2d": locally_connected_2d,
        "normalization": normalization,
        "additive_attention": additive_attention,
        "attention_scale": attention_scale,
    }
)


def forward(
    kind: str,
    roles: Mapping[str, Array],
    x: Mapping[str, Array],
    facts: Mapping[str, Any] = MappingProxyType({}),
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Array]:
    """What a layer of this kind computes at inference, in the dtype that its inputs promote to.

    `roles` and `x` hold arrays in the canonical axis order that each kind's own function states; optional roles
    (biases, scales) may be absent. `x` is {"x"}, or {"query", "key", "value"} for attention. The result holds "y", and
    the final states "h", "c" of recurrent kinds. Facts and settings that a kind does not read are ignored:
    momentum, for one, matters only while training.

    Raises:
        UsageError: unknown kind, activation or padding; a missing role or setting.
        SizeError: arrays that do not fit together, with axis names.
    """
    if kind not in KINDS:
        raise UsageError(f"no kind is called {kind!r}", where=f"known: {', '.join(KINDS)}")
    return KINDS[kind](roles, x, facts, settings)
