"""Layers of every kind in several sizes, square ones too, moved rightly: what mistakes are planted in."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from planted import moved

from layoutx.verify.diagnose.suspect import Suspect


def lstm(inputs: int, units: int, **more: Any) -> Suspect:
    shapes = {"kernel": (inputs, 4 * units), "recurrent_kernel": (units, 4 * units), "bias": (4 * units,)}
    return moved("keras.LSTM", "torch.LSTM", {}, shapes, there={"batch_first": True}, **more)


def bilstm(inputs: int, units: int, **more: Any) -> Suspect:
    shapes = {
        f"{way}_layer/{name}": shape
        for way in ("forward", "backward")
        for name, shape in {
            "kernel": (inputs, 4 * units), "recurrent_kernel": (units, 4 * units), "bias": (4 * units,)
        }.items()
    }  # fmt: skip
    return moved("keras.Bidirectional.LSTM", "torch.LSTM", {}, shapes, there={"batch_first": True}, **more)


def gru(inputs: int, units: int, **more: Any) -> Suspect:
    shapes = {"kernel": (inputs, 3 * units), "recurrent_kernel": (units, 3 * units), "bias": (2, 3 * units)}
    return moved("keras.GRU", "torch.GRU", {"reset_after": True}, shapes, there={"batch_first": True}, **more)


def rnn(inputs: int, units: int, **more: Any) -> Suspect:
    shapes = {"kernel": (inputs, units), "recurrent_kernel": (units, units), "bias": (units,)}
    return moved("keras.SimpleRNN", "torch.RNN", {}, shapes, there={"batch_first": True}, **more)


def dense(inputs: int, outputs: int, **more: Any) -> Suspect:
    return moved("keras.Dense", "torch.Linear", {}, {"kernel": (inputs, outputs), "bias": (outputs,)}, **more)


def flat(h: int, w: int, c: int, outputs: int, **more: Any) -> Suspect:
    shapes = {"kernel": (h * w * c, outputs), "bias": (outputs,)}
    rows = {"here_rows": {"input": "(h w c)"}, "there_rows": {"input": "(c h w)"}}
    return moved("keras.Dense", "torch.Linear", {}, shapes, sizes={"h": h, "w": w, "c": c}, **rows, **more)


def conv(kh: int, kw: int, inputs: int, outputs: int, **more: Any) -> Suspect:
    return moved("keras.Conv2D", "torch.Conv2d", {}, {"kernel": (kh, kw, inputs, outputs), "bias": (outputs,)}, **more)


def grouped(kh: int, kw: int, inputs: int, outputs: int, groups: int, **more: Any) -> Suspect:
    shapes = {"kernel": (kh, kw, inputs, outputs), "bias": (outputs,)}
    return moved("keras.Conv2D", "torch.Conv2d", {"groups": groups}, shapes, **more)


def depthwise(kh: int, kw: int, channels: int, mult: int, **more: Any) -> Suspect:
    shapes = {"kernel": (kh, kw, channels, mult), "bias": (channels * mult,)}
    return moved("keras.DepthwiseConv2D", "torch.Conv2d", {}, shapes, **more)


def transposed(kh: int, kw: int, inputs: int, outputs: int, **more: Any) -> Suspect:
    shapes = {"kernel": (kh, kw, outputs, inputs), "bias": (outputs,)}
    return moved("keras.Conv2DTranspose", "torch.ConvTranspose2d", {}, shapes, **more)


def batch_norm(channels: int, **more: Any) -> Suspect:
    shapes = dict.fromkeys(("gamma", "beta", "moving_mean", "moving_variance"), (channels,))
    return moved("keras.BatchNormalization", "torch.BatchNorm1d", {}, shapes, **more)


def layer_norm(features: int, **more: Any) -> Suspect:
    shapes = {"gamma": (features,), "beta": (features,)}
    return moved("keras.LayerNormalization", "torch.LayerNorm", {}, shapes, **more)


def rms_norm(features: int, **more: Any) -> Suspect:
    return moved("keras.RMSNormalization", "torch.RMSNorm", {}, {"scale": (features,)}, **more)


def attention(heads: int, head: int, **more: Any) -> Suspect:
    embed = heads * head
    shapes: dict[str, tuple[int, ...]] = {}
    for name in ("query", "key", "value"):
        shapes |= {f"{name}/kernel": (embed, heads, head), f"{name}/bias": (heads, head)}
    shapes |= {"attention_output/kernel": (heads, head, embed), "attention_output/bias": (embed,)}
    config = {"num_heads": heads, "key_dim": head}
    return moved(
        "keras.MultiHeadAttention", "torch.MultiheadAttention", config, shapes, there={"batch_first": True}, **more
    )


def projections(kv: int, rep: int, head: int, **more: Any) -> Suspect:
    embed = kv * rep * head
    shapes = {
        "query/kernel": (embed, kv * rep, head), "query/bias": (kv * rep, head),
        "key/kernel": (embed, kv, head), "key/bias": (kv, head),
        "value/kernel": (embed, kv, head), "value/bias": (kv, head),
        "attention_output/kernel": (kv * rep, head, embed), "attention_output/bias": (embed,),
    }  # fmt: skip
    config = {"head_dim": head, "num_query_heads": kv * rep, "num_key_value_heads": kv}
    return moved("keras.GroupQueryAttention", "torch.AttentionProjections", config, shapes, **more)


def rotary(kv: int, rep: int, pairs: int, **more: Any) -> Suspect:
    head = 2 * pairs
    embed = kv * rep * head
    shapes = {
        "wq.weight": (kv * rep * head, embed), "wk.weight": (kv * head, embed),
        "wv.weight": (kv * head, embed), "wo.weight": (embed, kv * rep * head),
    }  # fmt: skip
    config = {"n_heads": kv * rep, "n_kv_heads": kv}
    return moved("meta.Attention", "llama.Attention", config, shapes, **more)


def embedding(rows: int, width: int, **more: Any) -> Suspect:
    return moved("keras.Embedding", "torch.Embedding", {}, {"embeddings": (rows, width)}, batch=40, **more)


Key = tuple[str | int, ...]
MAKERS: dict[str, Callable[..., Suspect]] = {
    f.__name__: f
    for f in (
        *(lstm, bilstm, gru, rnn, dense, flat, conv, grouped, depthwise, transposed, batch_norm, layer_norm, rms_norm),
        *(attention, projections, rotary, embedding),
    )
}


@cache
def made(kind: str, *sizes: int) -> Suspect:
    """A layer of a kind and sizes, made once."""
    return MAKERS[kind](*sizes)


LAYERS: tuple[Key, ...] = (
    ("lstm", 5, 7), ("lstm", 6, 6), ("bilstm", 3, 5), ("bilstm", 4, 4), ("gru", 5, 7), ("gru", 6, 6), ("rnn", 5, 7),
    ("rnn", 6, 6), ("dense", 7, 11), ("dense", 8, 8), ("flat", 2, 3, 5, 7), ("flat", 3, 3, 3, 27),
    ("flat", 2, 2, 3, 12),
    ("conv", 2, 3, 5, 7), ("conv", 3, 3, 3, 3), ("conv", 3, 3, 4, 4), ("grouped", 2, 3, 2, 6, 3),
    ("depthwise", 3, 3, 5, 1),
    ("depthwise", 2, 3, 3, 2), ("depthwise", 3, 3, 3, 3), ("transposed", 2, 3, 5, 7), ("transposed", 3, 3, 4, 4),
    ("batch_norm", 11), ("layer_norm", 11), ("rms_norm", 11), ("attention", 2, 3), ("attention", 4, 4),
    ("projections", 2, 3, 5), ("rotary", 2, 2, 3), ("embedding", 13, 7), ("embedding", 9, 9),
)  # fmt: skip
