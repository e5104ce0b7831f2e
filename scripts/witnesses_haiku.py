"""Which dm-haiku modules are captured as witnesses: real constructor keywords and input shapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from witness_cases import EPS, PAIR, SHORT, SIZE, SMALL, SPACE, WHERE, Plan, Shape

BOTH = {"create_scale": True, "create_offset": True}
SCALE, OFFSET = {**BOTH, "create_offset": False}, {**BOTH, "create_scale": False}
FIRST = (["NCW"], ["channels_first", "NC...", "NCHW"], ["NCDHW"])  # the words for channels first, by rank


def cases() -> Iterator[Plan]:
    """All of them, kind by kind."""
    yield from plain()
    yield from convs()
    yield from transposed()
    yield from norms()
    yield from batch_norms()
    yield from recurrent()
    for bias in (True, False):
        heads = {"num_heads": 3, "key_size": 5, "with_bias": bias}
        yield Plan("haiku.MultiHeadAttention", {**heads, "value_size": 7, "model_size": 11}, WHERE)
        yield Plan("haiku.MultiHeadAttention", heads, WHERE)
        yield Plan("haiku.MultiHeadAttention", heads, PAIR)
        yield Plan("haiku.MultiHeadAttention", heads, {"query": (2, 4, 15), "key": (2, 5, 15), "value": (2, 5, 15)})


def haiku(form: str, x: Shape, refine: Mapping[str, str] | None = None, vocab: int = 0, **config: Any) -> Plan:
    return Plan(f"haiku.{form}", config, {"x": x}, None, refine or {}, vocab)


def plain() -> Iterator[Plan]:
    yield haiku("Linear", (2, 7), output_size=5)
    yield haiku("Linear", (2, 7), output_size=5, with_bias=False)
    yield haiku("Embed", (5,), vocab=11, vocab_size=11, embed_dim=3)
    yield haiku("Embed", (5,), vocab=11, vocab_size=11, embed_dim=3, lookup_style="ONE_HOT")


def convs() -> Iterator[Plan]:
    for rank in (1, 2, 3):
        space, size, small = SPACE[rank], list(SIZE[rank]), list(SMALL[rank])
        letters = ["NCW", "NCHW", "NCDHW"][rank - 1]
        name, x = f"Conv{rank}D", (2, *space, 3)
        yield haiku(name, x, output_channels=7, kernel_shape=size)
        yield haiku(name, x, output_channels=7, kernel_shape=size, with_bias=False, stride=2)
        yield haiku(name, x, output_channels=7, kernel_shape=size, padding="VALID", stride=[2] * rank)
        yield haiku(name, x, output_channels=7, kernel_shape=small, padding="VALID", rate=2)
        yield haiku(name, x, output_channels=7, kernel_shape=size, padding=[[2, 1], [0, 1], [1, 0]][:rank])
        grouped = {"output_channels": 10, "kernel_shape": small, "feature_group_count": 2}
        yield haiku(name, (2, *space, 6), **grouped)
        yield haiku(name, (2, 6, *space), **grouped, data_format="channels_first")
        yield haiku(name, (2, *space, 6), **grouped, with_bias=False, padding="VALID")
        yield haiku(name, x, output_channels=6, kernel_shape=small, feature_group_count=3)
        for order in ("channels_first", "NC...", letters):
            yield haiku(name, (2, 3, *space), output_channels=7, kernel_shape=size, data_format=order)
        name = f"DepthwiseConv{rank}D"
        yield haiku(name, x, channel_multiplier=2, kernel_shape=size)
        yield haiku(name, x, channel_multiplier=1, kernel_shape=size, padding="VALID", stride=2)
        yield haiku(name, x, channel_multiplier=2, kernel_shape=small, rate=2, with_bias=False)
        yield haiku(name, (2, *space, 1), channel_multiplier=7, kernel_shape=small)
        if rank == 2:
            for order in ("channels_first", "NC...", letters):
                yield haiku(name, (2, 3, *space), channel_multiplier=2, kernel_shape=size, data_format=order)


def transposed() -> Iterator[Plan]:
    for rank in (1, 2, 3):
        short, size, small = SHORT[rank], list(SIZE[rank]), list(SMALL[rank])
        letters = ["NCW", "NCHW", "NCDHW"][rank - 1]
        name, x, kernel = f"Conv{rank}DTranspose", (2, *short, 3), {"output_channels": 7, "kernel_shape": size}
        yield haiku(name, x, **kernel)
        yield haiku(name, x, **kernel, with_bias=False, padding="VALID")
        yield haiku(name, x, **kernel, stride=2)
        yield haiku(name, x, **kernel, stride=[2] * rank, padding="VALID")
        yield haiku(name, x, output_channels=7, kernel_shape=small, stride=4)
        yield haiku(name, x, output_channels=7, kernel_shape=small, stride=4, padding="VALID")
        for order in ("channels_first", "NC...", letters):
            yield haiku(name, (2, 3, *short), **kernel, data_format=order)


def norms() -> Iterator[Plan]:
    for rank in (1, 2, 3):
        space = (7, 3, 2)[:rank]
        for given in (BOTH, SCALE, OFFSET):
            yield haiku("InstanceNorm", (2, *space, 5), **given, eps=EPS)
            yield haiku("GroupNorm", (2, *space, 6), groups=2, **given, eps=EPS)
        yield haiku("GroupNorm", (2, *space, 6), groups=3)
        yield haiku("GroupNorm", (2, *space, 5), groups=5)
        for order in FIRST[rank - 1]:
            yield haiku("InstanceNorm", (2, 5, *space), **BOTH, data_format=order)
            yield haiku("GroupNorm", (2, 6, *space), groups=2, data_format=order)
    two, three = {"features": "h c"}, {"features": "d h c"}
    for name, affine in (("LayerNorm", (BOTH, SCALE, OFFSET)), ("RMSNorm", ({},))):
        for given in affine:
            yield haiku(name, (2, 7), axis=-1, **given, eps=EPS)
        given = affine[0]
        yield haiku(name, (2, 7), axis=[-1], param_axis=-1, **given)
        yield haiku(name, (2, 7, 5), two, axis=[-2, -1], param_axis=[-2, -1], **given)
        yield haiku(name, (2, 7, 5), two, axis=[1, 2], param_axis=[1, 2], **given)
        yield haiku(name, (2, 3, 7, 5), three, axis=[-3, -2, -1], param_axis=[-3, -2, -1], **given)
        yield haiku(name, (2, 3, 7, 5), three, axis=[1, 2, 3], param_axis=[1, 2, 3], **given)


def batch_norms() -> Iterator[Plan]:
    for rank in (1, 2, 3):
        space = (7, 3, 2)[:rank]
        for given in (BOTH, SCALE, OFFSET):
            yield haiku("BatchNorm", (2, *space, 5), **given, decay_rate=0.75, eps=EPS)
        for order in FIRST[rank - 1]:
            yield haiku("BatchNorm", (2, 5, *space), **BOTH, decay_rate=0.75, data_format=order)
    yield haiku("BatchNorm", (2, 5), **BOTH, decay_rate=0.75)


def recurrent() -> Iterator[Plan]:
    for double in (True, False):
        yield haiku("VanillaRNN", (2, 5, 7), hidden_size=3, double_bias=double)
    for name in ("LSTM", "GRU"):
        yield haiku(name, (2, 5, 7), hidden_size=3)
        yield haiku(name, (3, 2, 5), hidden_size=11)
    for rank in (1, 2, 3):
        space, size, small = SHORT[rank], list(SIZE[rank]), list(SMALL[rank])
        for kernel in (size, small):
            x = (2, 3, *space, 7)
            yield haiku(f"Conv{rank}DLSTM", x, input_shape=list(space), output_channels=5, kernel_shape=kernel)
