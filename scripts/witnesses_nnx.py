"""Which layers of flax.nnx are captured as witnesses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from witness_cases import EPS, SHORT, SIZE, SMALL, SPACE, Plan, Shape
from witnesses_flax import ACTIVATIONS


def cases() -> Iterator[Plan]:
    """All of them, kind by kind."""
    yield from plain()
    for rank in (1, 2, 3):
        yield from convs(rank)
    yield from norms()
    yield from recurrent()
    yield from attention()


def nnx(form: str, x: Shape, refine: Mapping[str, str] | None = None, vocab: int = 0, **config: Any) -> Plan:
    return Plan(f"nnx.{form}", config, {"x": x}, None, refine or {}, vocab)


def plain() -> Iterator[Plan]:
    yield nnx("Linear", (2, 7), in_features=7, out_features=5)
    yield nnx("Linear", (2, 7), in_features=7, out_features=5, use_bias=False)
    yield nnx("Linear.Pointwise", (2, 7), in_features=7, out_features=5)
    yield nnx("Linear.Pointwise", (2, 5, 3, 7), in_features=7, out_features=5, use_bias=False)
    yield nnx("LinearGeneral", (2, 7), in_features=7, out_features=5)
    yield nnx("LinearGeneral", (2, 7), {"output": "out_0 out_1"}, in_features=7, out_features=[3, 11])
    both = {"input": "in_0 in_1", "output": "out_0 out_1"}
    sizes = {"in_features": [7, 5], "out_features": [3, 11]}
    yield nnx("LinearGeneral", (2, 7, 5), both, **sizes, axis=[-2, -1], use_bias=False)
    yield nnx("LinearGeneral", (2, 7, 5), both, **sizes, axis=[-1, -2])  # flax sorts the axes
    yield nnx("Einsum", (2, 7), einsum_str="ab,bc->ac", kernel_shape=[7, 5], bias_shape=[5])
    bare = {"kernel_shape": [5, 7], "use_bias": False, "kernel_dims": "output input"}
    yield nnx("Einsum", (2, 7), einsum_str="ab,cb->ac", **bare)
    letters = {"input": "in_b in_c", "output": "out_e out_d"}
    equation = {"einsum_str": "abc,dcbe->aed", "kernel_shape": [11, 5, 7, 3], "bias_shape": [3, 11]}
    dims = {"kernel_dims": "out_d in_c in_b out_e", "bias_dims": "out_e out_d"}
    yield nnx("Einsum", (2, 7, 5), letters, **equation, **dims)
    yield nnx("Embed", (5,), vocab=11, num_embeddings=11, features=3)
    yield nnx("Embed", (2,), vocab=7, num_embeddings=7, features=5)
    yield nnx("PReLU", (2, 5))
    yield nnx("PReLU", (2, 7, 5))
    yield nnx("PReLU", (2, 7, 3, 5))


def convs(rank: int) -> Iterator[Plan]:
    x, short = (2, *SPACE[rank], 3), (2, *SHORT[rank], 3)
    size, small = list(SIZE[rank]), list(SMALL[rank])
    plain = {"in_features": 3, "out_features": 7, "kernel_size": size}
    pairs = [[2, 1], [0, 1], [1, 0]][:rank]
    yield nnx("Conv", x, **plain)
    yield nnx("Conv", x, **plain, use_bias=False, strides=[2] * rank, padding="VALID")
    yield nnx("Conv", x, **{**plain, "kernel_size": small}, strides=2, kernel_dilation=2, padding=pairs)
    if rank < 3:
        yield nnx("Conv", x, **plain, strides=2)
        yield nnx("Conv", x, **plain, padding=1)
    grouped = {"kernel_size": small, "in_features": 6, "out_features": 10, "feature_group_count": 2}
    yield nnx("Conv", (*x[:-1], 6), **grouped)
    yield nnx("Conv", x, **{**plain, "out_features": 6}, feature_group_count=3, use_bias=False)
    if rank == 1:
        yield nnx("Conv", x, **plain, padding="CAUSAL", kernel_dilation=2)
    for turned in (False, True):
        more = {**plain, "transpose_kernel": turned}
        less = {**more, "kernel_size": small}
        yield nnx("ConvTranspose", short, **more, use_bias=False)
        yield nnx("ConvTranspose", short, **less, strides=[2] * rank)
        if rank < 3:
            yield nnx("ConvTranspose", short, **more, strides=[2] * rank, padding="VALID")
            yield nnx("ConvTranspose", short, **less, kernel_dilation=[2] * rank, padding="VALID")


def norms() -> Iterator[Plan]:
    for name, x in (("BatchNorm", (2, 3, 5)), ("LayerNorm", (2, 5))):
        yield nnx(name, (2, 7), num_features=7)
        yield nnx(name, x, num_features=5, epsilon=EPS, use_bias=False)
        yield nnx(name, x, num_features=5, epsilon=EPS, use_scale=False)
        yield nnx(name, x, num_features=5, use_scale=False, use_bias=False)
    yield nnx("BatchNorm", (2, 7, 3, 5), num_features=5, momentum=0.75)
    yield nnx("BatchNorm", (2, 7, 5, 3), num_features=7, axis=1)
    yield nnx("BatchNorm", (2, 7, 3, 2, 5), num_features=5)
    yield nnx("RMSNorm", (2, 7), num_features=7)
    yield nnx("RMSNorm", (2, 7), num_features=7, epsilon=EPS)
    yield nnx("RMSNorm", (2, 7), num_features=7, use_scale=False)
    yield nnx("GroupNorm", (2, 6), num_features=6, num_groups=3)
    yield nnx("GroupNorm", (2, 5, 64), num_features=64, epsilon=EPS)
    yield nnx("GroupNorm", (2, 5, 6), num_features=6, num_groups=3, epsilon=EPS, use_bias=False)
    yield nnx("GroupNorm", (2, 5, 7, 6), num_features=6, num_groups=2, use_scale=False)
    yield nnx("InstanceNorm", (2, 5, 3), num_features=3)
    yield nnx("InstanceNorm", (2, 5, 7, 3), num_features=3, epsilon=EPS, use_bias=False)
    yield nnx("InstanceNorm", (2, 5, 7, 3), num_features=3, use_scale=False)
    yield nnx("InstanceNorm", (2, 5, 7, 2, 3), num_features=3)
    for space in ((7,), (7, 3), (7, 3, 2)):
        yield nnx("GroupNorm", (2, *space, 5), num_features=5, num_groups=5)


def recurrent() -> Iterator[Plan]:
    x, sizes = (2, 5, 7), {"in_features": 7, "hidden_features": 3}
    for name in ("SimpleCell", "LSTMCell", "OptimizedLSTMCell", "GRUCell"):
        gates = [] if name == "SimpleCell" else [{"gate_fn": "hard_sigmoid"}]
        for more in ({}, {"activation_fn": "relu"}, {"activation_fn": "hard_sigmoid"}, *gates):
            yield nnx(name, x, **sizes, **more)
        for more in ({}, {"reverse": True}, {"reverse": True, "keep_order": True}):
            yield nnx(f"RNN.{name}", x, **sizes, **more)
        yield nnx(f"RNN.{name}", (5, 2, 7), **sizes, time_major=True, reverse=True)
        for more in ({}, {"merge_fn": "add"}, {"merge_fn": "multiply"}, *gates):
            yield nnx(f"Bidirectional.{name}", x, **sizes, **more)
        yield nnx(f"Bidirectional.{name}", (5, 2, 7), **sizes, time_major=True, activation_fn="relu")
    for word in ACTIVATIONS[2:]:
        yield nnx("SimpleCell", x, **sizes, activation_fn=word)


def attention() -> Iterator[Plan]:
    form = "nnx.MultiHeadAttention"
    same = {"query": (2, 4, 15), "key": (2, 5, 15), "value": (2, 5, 15)}
    other = {"query": (2, 4, 13), "key": (2, 5, 17), "value": (2, 5, 17)}
    sizes = {"in_features": 13, "in_kv_features": 17, "qkv_features": 30, "num_heads": 6}
    yield Plan(form, {**sizes, "num_kv_heads": 3}, other, dtype="float32")
    for bias in (True, False):
        yield Plan(form, {"num_heads": 3, "in_features": 15, "use_bias": bias}, same)
        yield Plan(form, {**sizes, "use_bias": bias}, other)
        yield Plan(form, {**sizes, "num_kv_heads": 3, "use_bias": bias}, other)
        yield Plan(form, {**sizes, "num_kv_heads": 2, "out_features": 11, "use_bias": bias}, other)
