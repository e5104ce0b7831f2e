"""Which layers of flax.linen are captured as witnesses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from witness_cases import EPS, SHORT, SIZE, SMALL, SPACE, WHERE, Plan, Shape

ACTIVATIONS = ("relu", "hard_sigmoid", "gelu", "leaky_relu", "soft_sign", "swish", "identity", "softplus", "elu")


def cases() -> Iterator[Plan]:
    """All of them, kind by kind."""
    yield from plain()
    for rank in (1, 2, 3):
        yield from convs(rank)
    yield from local()
    yield from norms()
    yield from recurrent()
    yield from conv_lstm()
    yield from attention()


def flax(form: str, x: Shape, refine: Mapping[str, str] | None = None, vocab: int = 0, **config: Any) -> Plan:
    return Plan(f"flax.{form}", config, {"x": x}, None, refine or {}, vocab)


def plain() -> Iterator[Plan]:
    yield flax("Dense", (2, 7), features=5)
    yield flax("Dense", (2, 7), features=5, use_bias=False)
    yield flax("Dense.Pointwise", (2, 7), features=5)
    yield flax("Dense.Pointwise", (2, 5, 3, 7), features=5, use_bias=False)
    yield flax("DenseGeneral", (2, 7), features=5)
    yield flax("DenseGeneral", (2, 7), {"output": "out_0 out_1"}, features=[3, 11])
    both = {"input": "in_0 in_1", "output": "out_0 out_1"}
    yield flax("DenseGeneral", (2, 7, 5), both, features=[3, 11], axis=[-2, -1], use_bias=False)
    yield flax("DenseGeneral", (2, 7, 5), both, features=[3, 11], axis=[-1, -2])  # flax sorts the axes
    yield flax("DenseGeneral", (2, 7, 5), both, features=[3, 11], axis=[1, 2], batch_dims=[])
    yield flax("Einsum", (2, 7), einsum_str="ab,bc->ac", shape=[7, 5])
    yield flax("Einsum", (2, 7), einsum_str="ab,cb->ac", shape=[5, 7], use_bias=False, kernel_dims="output input")
    letters = {"input": "in_b in_c", "output": "out_e out_d"}
    equation = {"einsum_str": "abc,dcbe->aed", "shape": [11, 5, 7, 3]}
    dims = {"kernel_dims": "out_d in_c in_b out_e", "bias_dims": "out_e out_d"}
    yield flax("Einsum", (2, 7, 5), letters, **equation, **dims)
    yield flax("Embed", (5,), vocab=11, num_embeddings=11, features=3)
    yield flax("Embed", (2,), vocab=7, num_embeddings=7, features=5)
    yield flax("PReLU", (2, 5))
    yield flax("PReLU", (2, 7, 5))
    yield flax("PReLU", (2, 7, 3, 5))


def convs(rank: int) -> Iterator[Plan]:
    x, short = (2, *SPACE[rank], 3), (2, *SHORT[rank], 3)
    size, small = list(SIZE[rank]), list(SMALL[rank])
    pairs = [[2, 1], [0, 1], [1, 0]][:rank]
    yield flax("Conv", x, features=7, kernel_size=size)
    yield flax("Conv", x, features=7, kernel_size=size, use_bias=False, strides=[2] * rank, padding="VALID")
    yield flax("Conv", x, features=7, kernel_size=small, strides=2, kernel_dilation=2, padding=pairs)
    if rank < 3:
        yield flax("Conv", x, features=7, kernel_size=size, strides=2)
        yield flax("Conv", x, features=7, kernel_size=size, padding=1)
        yield flax("Conv", x, features=7, kernel_size=size, padding=[2, 1][:rank])
    yield flax("Conv", (*x[:-1], 6), features=10, kernel_size=small, feature_group_count=2)
    yield flax("Conv", x, features=6, kernel_size=small, feature_group_count=3, use_bias=False)
    if rank == 1:
        yield flax("Conv", x, features=7, kernel_size=size, padding="CAUSAL", kernel_dilation=2)
    for turned in (False, True):
        more = {"features": 7, "kernel_size": size, "transpose_kernel": turned}
        less = {**more, "kernel_size": small}
        yield flax("ConvTranspose", short, **more)
        yield flax("ConvTranspose", short, **less, strides=[2] * rank, use_bias=False)
        if rank == 1:
            yield flax("ConvTranspose", short, **more, strides=[7])
        if rank < 3:
            yield flax("ConvTranspose", short, **more, strides=[2] * rank, padding="VALID")
            yield flax("ConvTranspose", short, **less, kernel_dilation=[2] * rank, padding="VALID")


def local() -> Iterator[Plan]:
    for rank in (1, 2):
        x, more = (2, *SPACE[rank], 3), {"features": 7, "kernel_size": list(SMALL[rank]), "padding": "VALID"}
        yield flax(f"ConvLocal{rank}D", x, **more)
        yield flax(f"ConvLocal{rank}D", x, **more, use_bias=False, strides=2)


def norms() -> Iterator[Plan]:
    for name, x in (("BatchNorm", (2, 3, 5)), ("LayerNorm", (2, 5))):
        yield flax(name, (2, 7))
        yield flax(name, x, epsilon=EPS, use_bias=False)
        yield flax(name, x, epsilon=EPS, use_scale=False)
    yield flax("BatchNorm", (2, 5), use_scale=False, use_bias=False)
    yield flax("BatchNorm", (2, 7, 3, 5), momentum=0.75)
    yield flax("BatchNorm", (2, 7, 5, 3), axis=1)
    yield flax("BatchNorm", (2, 7, 3, 2, 5))
    yield flax("RMSNorm", (2, 7))
    yield flax("RMSNorm", (2, 7), epsilon=EPS)
    yield flax("GroupNorm", (2, 6), num_groups=3)
    yield flax("GroupNorm", (2, 5, 64), epsilon=EPS)
    yield flax("GroupNorm", (2, 5, 6), num_groups=3, epsilon=EPS, use_bias=False)
    yield flax("GroupNorm", (2, 5, 7, 6), num_groups=2, use_scale=False)
    yield flax("InstanceNorm", (2, 5, 3))
    yield flax("InstanceNorm", (2, 5, 7, 3), epsilon=EPS, use_bias=False)
    yield flax("InstanceNorm", (2, 5, 7, 3), use_scale=False)
    yield flax("InstanceNorm", (2, 5, 7, 2, 3))
    for space in ((7,), (7, 3), (7, 3, 2)):
        yield flax("GroupNorm", (2, *space, 5), num_groups=5)


def recurrent() -> Iterator[Plan]:
    x = (2, 5, 7)
    for name in ("SimpleCell", "LSTMCell", "OptimizedLSTMCell", "GRUCell", "MGUCell"):
        gates = [] if name == "SimpleCell" else [{"gate_fn": "hard_sigmoid"}, {"gate_fn": "relu"}]
        resets = [{"reset_gate": False}] if name == "MGUCell" else []
        for more in ({}, *({"activation_fn": word} for word in ACTIVATIONS[:2]), *gates, *resets):
            yield flax(name, x, features=3, **more)
        for more in ({}, {"reverse": True}, {"keep_order": True}, {"reverse": True, "keep_order": True}, *resets):
            yield flax(f"RNN.{name}", x, features=3, **more)
        yield flax(f"RNN.{name}", (5, 2, 7), features=3, time_major=True, reverse=True)
        for more in ({}, {"merge_fn": "add"}, {"merge_fn": "multiply"}, *gates[:1], *resets):
            yield flax(f"Bidirectional.{name}", x, features=3, **more)
        yield flax(f"Bidirectional.{name}", (5, 2, 7), features=3, time_major=True, activation_fn="relu")
    for name in ("GRUCell", "RNN.GRUCell", "Bidirectional.GRUCell"):
        yield replace(flax(name, (2, 3, 5), features=7), zeros="*hn/bias")
    for word in ACTIVATIONS[2:]:
        yield flax("SimpleCell", x, features=3, activation_fn=word)


def conv_lstm() -> Iterator[Plan]:
    for rank in (1, 2, 3):
        x, more = (2, 4, *SHORT[rank], 3), {"features": 5, "kernel_size": list(SMALL[rank])}
        yield flax("ConvLSTMCell", x, **more)
        yield flax("RNN.ConvLSTMCell", x, **more, reverse=rank == 2)
    yield flax("RNN.ConvLSTMCell", (4, 2, 5, 3), features=5, kernel_size=[3], time_major=True)


def attention() -> Iterator[Plan]:
    form, same = "flax.MultiHeadDotProductAttention", {"query": (2, 4, 15), "key": (2, 5, 15), "value": (2, 5, 15)}
    for bias in (True, False):
        yield Plan(form, {"num_heads": 3, "use_bias": bias}, same)
        yield Plan(form, {"num_heads": 3, "qkv_features": 21, "use_bias": bias}, WHERE)
        yield Plan(form, {"num_heads": 3, "qkv_features": 21, "out_features": 11, "use_bias": bias}, WHERE)
