"""Which equinox layers are captured as witnesses: real constructor keywords and input shapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from witness_cases import EPS, SHORT, SIZE, SMALL, SPACE, WHERE, Plan, Shape


def cases() -> Iterator[Plan]:
    """All of them, kind by kind."""
    yield from plain()
    yield from convs()
    yield from norms()
    yield from recurrent()
    yield from attention()


def equinox(form: str, x: Shape, refine: Mapping[str, str] | None = None, vocab: int = 0, **config: Any) -> Plan:
    return Plan(f"equinox.{form}", config, {"x": x}, None, refine or {}, vocab)


def plain() -> Iterator[Plan]:
    yield equinox("Linear", (2, 7), in_features=7, out_features=5)
    yield equinox("Linear", (2, 7), in_features=7, out_features=5, use_bias=False)
    yield equinox("Linear", (2,), in_features="scalar", out_features=5)
    yield equinox("Linear", (2, 7), in_features=7, out_features="scalar")
    yield equinox("Linear", (2,), in_features="scalar", out_features="scalar", use_bias=False)
    yield equinox("Embedding", (5,), vocab=11, num_embeddings=11, embedding_size=3)
    yield equinox("Embedding", (7,), vocab=5, num_embeddings=5, embedding_size=2)
    for space in ((), (3,), (7, 3), (7, 3, 2)):
        slopes = {"channel": (5,) + (1,) * len(space), "full": (5, *space), "one": ()}
        for kind, slope in slopes.items():
            yield Plan("equinox.PReLU", {"_slope": kind}, {"x": (2, 5, *space)}, {"negative_slope": slope})


def convs() -> Iterator[Plan]:
    for rank in (1, 2, 3):
        space, size, small = SPACE[rank], list(SIZE[rank]), list(SMALL[rank])
        base = {"in_channels": 3, "out_channels": 7, "kernel_size": size}
        dilated = {**base, "kernel_size": small, "dilation": 2}
        grouped = {"in_channels": 6, "out_channels": 10, "kernel_size": small, "groups": 2}
        pads, pairs = [2, 1, 1][:rank], [[2, 1], [0, 1], [1, 0]][:rank]
        for name, x in ((f"Conv{rank}d", space), (f"ConvTranspose{rank}d", SHORT[rank])):
            yield equinox(name, (2, 3, *x), **base)
            yield equinox(name, (2, 3, *x), **base, use_bias=False, stride=2)
            yield equinox(name, (2, 3, *x), **base, padding=pads, stride=[2] * rank)
            yield equinox(name, (2, 3, *x), **base, padding=pairs, stride=2)
            yield equinox(name, (2, 3, *x), **dilated)
            yield equinox(name, (2, 3, *x), **dilated, padding="SAME")
            yield equinox(name, (2, 3, *x), **base, padding="SAME", stride=2)
            yield equinox(name, (2, 3, *x), **{**base, "kernel_size": small}, padding="VALID", stride=4)
            yield equinox(name, (2, 6, *x), **grouped)
            yield equinox(name, (2, 6, *x), **grouped, use_bias=False, stride=2, padding=1)
        yield equinox(f"Conv{rank}d", (2, 3, *space), in_channels=3, out_channels=6, kernel_size=small, groups=3)
        short = (2, 3, *SHORT[rank])
        yield equinox(f"ConvTranspose{rank}d", short, **base, stride=2, padding=1, output_padding=1)
        yield equinox(f"ConvTranspose{rank}d", short, **{**base, "kernel_size": small}, padding="SAME", stride=4)


def norms() -> Iterator[Plan]:
    for rank in (1, 2, 3):
        x = (2, 5, *(7, 3, 2)[:rank])
        yield equinox("BatchNorm", x, input_size=5)
        yield equinox("BatchNorm", x, input_size=5, mode="ema", eps=EPS, momentum=0.75, channelwise_affine=False)
        yield equinox("BatchNorm", x, input_size=5, mode="batch", eps=EPS)
        debias = 1 / (1 - 0.75**3)
        yield equinox("BatchNorm", x, input_size=5, mode="batch", momentum=0.75, batch_counter=3, _debias=debias)
    yield equinox("BatchNorm", (2, 5), input_size=5, mode="ema")
    for space in ((7,), (7, 3), (7, 3, 2)):
        yield equinox("GroupNorm", (2, 5, *space), groups=5, channels=5)
    yield equinox("GroupNorm", (2, 6), groups=3, channels=6)
    yield equinox("GroupNorm", (2, 6, 5), groups=2, channels=6, eps=EPS)
    yield equinox("GroupNorm", (2, 6, 5, 7), groups=3, channels=6)
    yield equinox("GroupNorm", (2, 6, 5, 7), groups=2, channels=6, channelwise_affine=False)
    two = {"features": "h c"}
    for name in ("LayerNorm", "RMSNorm"):
        bare = {"use_bias": False}
        yield equinox(name, (2, 7), shape=7, **bare)
        yield equinox(name, (2, 7), shape=[7], eps=EPS, **bare, use_weight=False)
        yield equinox(name, (2, 7, 5), two, shape=[7, 5], **bare)
        yield equinox(name, (2, 7), shape=7, eps=EPS)
        yield equinox(name, (2, 7), shape=7, use_weight=False)
        yield equinox(name, (2, 7, 5), two, shape=[7, 5])


def recurrent() -> Iterator[Plan]:
    for name in ("LSTMCell", "GRUCell"):
        for bias in (True, False):
            yield equinox(name, (2, 5, 7), input_size=7, hidden_size=3, use_bias=bias)


def attention() -> Iterator[Plan]:
    sizes = {"num_heads": 3, "query_size": 13, "key_size": 17, "value_size": 19}
    own = {**sizes, "qk_size": 5, "vo_size": 7, "output_size": 11}
    biases = [f"use_{name}_bias" for name in ("query", "key", "value", "output")]
    for chosen in ([], biases, *([bias] for bias in biases)):
        yield Plan("equinox.MultiheadAttention", {**own, **dict.fromkeys(chosen, True)}, WHERE)
    yield Plan("equinox.MultiheadAttention", {**sizes, **dict.fromkeys(biases, True)}, WHERE)
    same = {"query": (2, 4, 15), "key": (2, 5, 15), "value": (2, 5, 15)}
    yield Plan("equinox.MultiheadAttention", {"num_heads": 3, "query_size": 15}, same)
