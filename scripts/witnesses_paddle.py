"""Witnesses of paddle.nn (paddle 3.3.1): every layer with weights, every option that a spec reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from witness_cases import EPS, SHORT, SIZE, SMALL, SPACE, Plan, Shape

LAST = {1: "NLC", 2: "NHWC", 3: "NDHWC"}  # data formats with the channels last


def cases() -> Iterator[Plan]:
    """All of them, kind by kind."""
    yield from plain()
    yield from convs()
    yield from transposed()
    yield from norms()
    yield from recurrent()
    yield from attention()


def paddle(form: str, x: Shape, refine: Mapping[str, str] | None = None, vocab: int = 0, **config: Any) -> Plan:
    return Plan(f"paddle.{form}", config, {"x": x}, None, refine or {}, vocab)


def plain() -> Iterator[Plan]:
    yield paddle("Linear", (2, 7), in_features=7, out_features=5)
    yield paddle("Linear", (2, 7), in_features=7, out_features=5, bias_attr=False)
    yield paddle("Embedding", (5,), vocab=11, num_embeddings=11, embedding_dim=3)
    yield paddle("Embedding", (7,), vocab=13, num_embeddings=13, embedding_dim=5, scale_grad_by_freq=True)
    for rank in (0, 1, 2, 3):
        space = (7, 3, 2)[:rank]
        yield paddle("PReLU", (2, 5, *space), num_parameters=5)
        if rank:
            yield paddle("PReLU", (2, *space, 5), num_parameters=5, data_format=LAST[rank])
    yield paddle("PReLU", (2, 5, 7, 3))
    pair = {"x1": (2, 3), "x2": (2, 5)}
    for more in ({}, {"bias_attr": False}):
        yield Plan("paddle.Bilinear", {"in1_features": 3, "in2_features": 5, "out_features": 7, **more}, pair)


def convs() -> Iterator[Plan]:
    for rank in (1, 2, 3):
        space, size, small = SPACE[rank], list(SIZE[rank]), list(SMALL[rank])
        form, x = f"Conv{rank}D", (2, 3, *SPACE[rank])
        kernel = {"in_channels": 3, "out_channels": 7, "kernel_size": size}
        dilated = {**kernel, "kernel_size": small, "dilation": 2}
        grouped = {"in_channels": 6, "out_channels": 10, "kernel_size": small, "groups": 2}
        yield paddle(form, x, **kernel)
        yield paddle(form, x, **kernel, bias_attr=False, stride=2)
        yield paddle(form, x, **kernel, bias=False, padding=[2, 1, 1][:rank], stride=[2] * rank)
        yield paddle(form, x, **dilated)
        yield paddle(form, (2, 6, *space), **grouped)
        yield paddle(form, (2, 6, *space), **grouped, bias_attr=False, stride=2, padding=1)
        yield paddle(form, x, in_channels=3, out_channels=6, kernel_size=small, groups=3)
        yield paddle(form, x, **kernel, padding="VALID")
        yield paddle(form, x, **{**kernel, "kernel_size": small}, padding="SAME", stride=2)
        yield paddle(form, x, **dilated, padding="same")  # SAME forgets the dilation
        yield paddle(form, (2, *space, 3), **kernel, data_format=LAST[rank])
        yield paddle(form, (2, *space, 6), **grouped, data_format=LAST[rank], padding=1)
    yield paddle("Conv1D", (2, 3, 11), in_channels=3, out_channels=7, kernel_size=5, padding=[1, 2])


def transposed() -> Iterator[Plan]:
    for rank in (1, 2, 3):
        space, size, small = SHORT[rank], list(SIZE[rank]), list(SMALL[rank])
        form, x = f"Conv{rank}DTranspose", (2, 3, *SHORT[rank])
        kernel = {"in_channels": 3, "out_channels": 7, "kernel_size": size}
        grouped = {"in_channels": 6, "out_channels": 10, "kernel_size": small, "groups": 2}
        yield paddle(form, x, **kernel)
        yield paddle(form, x, **kernel, bias_attr=False, stride=2)
        yield paddle(form, x, **kernel, padding=[2, 1, 1][:rank], stride=[2] * rank)
        yield paddle(form, x, **{**kernel, "kernel_size": small}, dilation=2)
        yield paddle(form, x, **kernel, padding="VALID")
        yield paddle(form, x, **kernel, stride=2, padding=1, output_padding=1)
        yield paddle(form, (2, 6, *space), **grouped)
        yield paddle(form, (2, 6, *space), **grouped, bias_attr=False, stride=2, padding=1)
        yield paddle(form, (2, *space, 3), **kernel, data_format=LAST[rank])
        yield paddle(form, (2, *space, 6), **grouped, data_format=LAST[rank], stride=2)


def norms() -> Iterator[Plan]:
    for rank in (1, 2, 3):
        space = (7, 3, 2)[:rank]
        form, x = f"BatchNorm{rank}D", (2, 5, *space)
        yield paddle(form, x, num_features=5)
        yield paddle(form, x, num_features=5, epsilon=EPS, momentum=0.75, weight_attr=False)
        yield paddle(form, x, num_features=5, bias_attr=False)
        yield paddle(form, x, num_features=5, use_global_stats=False)
        yield paddle(form, (2, *space, 5), num_features=5, use_global_stats=True, data_format=LAST[rank])
        yield paddle("BatchNorm", x, num_channels=5, epsilon=EPS)
        yield paddle("BatchNorm", (2, *space, 5), num_channels=5, data_layout="NHWC", momentum=0.75)
        form = f"InstanceNorm{rank}D"
        yield paddle(form, x, num_features=5)
        yield paddle(form, x, num_features=5, epsilon=EPS, weight_attr=False, bias_attr=False)
        yield paddle(form, x, num_features=5, momentum=0.25, data_format=LAST[rank])  # neither is read
        yield paddle("GroupNorm", (2, 6, *space), num_groups=3, num_channels=6, epsilon=EPS)
        yield paddle("GroupNorm", (2, 5, *space), num_groups=5, num_channels=5)
        yield paddle("GroupNorm", (2, *space, 6), num_groups=2, num_channels=6, data_format=LAST[rank])
    yield paddle("BatchNorm1D", (2, 5), num_features=5)
    yield paddle("BatchNorm", (2, 5), num_channels=5, param_attr=False, bias_attr=False)
    yield paddle("BatchNorm", (2, 5, 7), num_channels=5, trainable_statistics=True)
    yield paddle("BatchNorm", (2, 5, 7), num_channels=5, trainable_statistics=True, use_global_stats=True)
    yield paddle("GroupNorm", (2, 6, 5), num_groups=3, num_channels=6, affine=False)
    yield paddle("GroupNorm", (2, 6, 5, 7), num_groups=2, num_channels=6, weight_attr=False)
    yield paddle("GroupNorm", (2, 6, 5, 7), num_groups=2, num_channels=6, bias_attr=False)
    yield paddle("LayerNorm", (2, 7), normalized_shape=7)
    yield paddle("LayerNorm", (2, 7), normalized_shape=[7], epsilon=2.0**-10, bias=False)  # at most 0.001
    yield paddle("LayerNorm", (2, 7), normalized_shape=7, weight_attr=False)
    yield paddle("LayerNorm", (2, 7), normalized_shape=7, bias_attr=False)
    yield paddle("LayerNorm", (2, 7), normalized_shape=7, elementwise_affine=False)


def recurrent() -> Iterator[Plan]:
    sizes = {"input_size": 7, "hidden_size": 3}
    for name in ("SimpleRNN", "LSTM", "GRU"):
        relu = [{"activation": "relu"}] if name == "SimpleRNN" else []
        proj = [{"proj_size": 2}] if name == "LSTM" else []
        yield paddle(name, (5, 2, 7), **sizes, time_major=True)
        yield paddle(name, (5, 2, 7), **sizes, time_major=True, direction="bidirect")
        for more in ({}, {"direction": "bidirect"}, {"direction": "bidirectional"}, *relu, *proj):
            yield paddle(name, (2, 5, 7), **sizes, **more)
        yield paddle(name, (2, 5, 7), **sizes, num_layers=2)
        yield paddle(name, (2, 5, 7), **sizes, num_layers=3, direction="bidirect")
        for more in proj:
            yield paddle(name, (2, 5, 7), **sizes, **more, num_layers=2)
            yield paddle(name, (5, 2, 7), **sizes, **more, num_layers=2, direction="bidirect", time_major=True)
        for more in ({}, {"bias_ih_attr": False, "bias_hh_attr": False}, *relu, *proj):
            yield paddle(f"{name}Cell", (2, 5, 7), **sizes, **more)
    for name, x in (("GRU", (2, 3, 5)), ("GRUCell", (2, 3, 5))):
        yield replace(paddle(name, x, input_size=5, hidden_size=7), zeros="*bias_hh")


def attention() -> Iterator[Plan]:
    config = {"embed_dim": 15, "num_heads": 3}
    same = {"query": (2, 4, 15), "key": (2, 5, 15), "value": (2, 5, 15)}
    other = {"query": (2, 4, 15), "key": (2, 5, 17), "value": (2, 5, 19)}
    for more in ({}, {"bias_attr": False}):
        yield Plan("paddle.MultiHeadAttention", {**config, **more}, same)
        yield Plan("paddle.MultiHeadAttention", {**config, **more, "kdim": 17, "vdim": 19}, other)
    yield Plan("paddle.MultiHeadAttention", {**config, "need_weights": True}, same)
