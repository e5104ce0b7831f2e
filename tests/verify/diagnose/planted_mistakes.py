"""Mistakes as people make them, each in NumPy on the stored tensors of one layer, with the mode that names it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
from planted import rewritten

from layoutx.verify.diagnose.suspect import Suspect

Break = Callable[[Suspect], Suspect]
Key = tuple[str | int, ...]


@dataclass(frozen=True)
class Mistake:
    """A mistake in one layer; `modes`: the names that are right; `needs`: only with the source's weights."""

    layer: Key
    name: str
    modes: tuple[str, ...]
    make: Break
    needs: bool = False

    def __str__(self) -> str:
        return f"{'-'.join(map(str, self.layer))}-{self.name}".replace(" ", "_")


def reordered(gates: int, order: list[int]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda w: w.reshape(gates, -1, *w.shape[1:])[order].reshape(w.shape)


def gates(order: list[int], *only: str) -> Break:
    def apply(s: Suspect) -> Suspect:
        names = only or tuple(s.stored)
        return rewritten(**{name.replace(".", "DOT"): reordered(len(order), order) for name in names})(s)

    return apply


def copied(s: Suspect) -> Suspect:
    """One bias in both places."""
    more = {name: s.stored[name.replace("_hh_", "_ih_")] for name in s.stored if name.startswith("bias_hh")}
    return replace(s, stored={**s.stored, **more})


def taken(name: str, value: float) -> Break:
    return rewritten(**{name.replace(".", "DOT"): lambda w: np.full_like(w, value)})


def configured(**settings: Any) -> Break:
    return lambda s: replace(s, settings={**s.settings, **settings})


def told(**facts: Any) -> Break:
    return lambda s: replace(s, facts={**s.facts, **facts})


def halves(s: Suspect) -> Suspect:
    """Forward and backward weights exchanged."""
    names = {n: (n.removesuffix("_reverse") if n.endswith("_reverse") else n + "_reverse") for n in s.stored}
    return replace(s, stored={n: s.stored[other] for n, other in names.items()})


def listed(*order: str) -> Break:
    """The four vectors of a batch norm in another order."""
    names = ("weight", "bias", "running_mean", "running_var")
    return lambda s: replace(s, stored={**s.stored, **{n: s.stored[o] for n, o in zip(names, order, strict=True)}})


def narrow(dtype: Any) -> Break:
    return lambda s: replace(s, stored={n: a.astype(dtype).astype(a.dtype) for n, a in s.stored.items()})


def per_gate(many: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda w: w.reshape(many, -1, w.shape[1]).transpose(0, 2, 1).reshape(w.shape)


def packed(many: int) -> Callable[[np.ndarray], np.ndarray]:
    """Each gate's transpose written as its bytes."""
    return lambda w: np.stack([b.T.reshape(b.shape) for b in w.reshape(many, -1, w.shape[1])]).reshape(w.shape)


def flattened(h: int, w: int, c: int) -> Callable[[np.ndarray], np.ndarray]:
    """Rows left in the order h w c where c h w is read."""
    return lambda a: a.reshape(-1, c, h, w).transpose(0, 2, 3, 1).reshape(a.shape)


def twice(h: int, w: int, c: int) -> Callable[[np.ndarray], np.ndarray]:
    """Rows turned from h w c to c h w, once more."""
    return lambda a: a.reshape(-1, h, w, c).transpose(0, 3, 1, 2).reshape(a.shape)


def bytes_of(*order: int) -> Callable[[np.ndarray], np.ndarray]:
    """The bytes of a transposed view under the old shape."""
    return lambda w: np.ascontiguousarray(w.transpose(order)).reshape(w.shape)


def flip(*axes: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda w: np.flip(w, axes)


def heads(kv: int, parts: int = 3) -> Callable[[np.ndarray], np.ndarray]:
    """Per head q k v (Megatron) where all q, all k, all v are read."""

    def apply(w: np.ndarray) -> np.ndarray:
        more = w.shape[1:]
        return w.reshape(parts, kv, -1, *more).swapaxes(0, 1).reshape(w.shape)

    return apply


def scaled(name: str, many: float) -> Break:
    return rewritten(**{name.replace(".", "DOT"): lambda w: w * many})


def queries(many: float) -> Break:
    def apply(w: np.ndarray) -> np.ndarray:
        w[: len(w) // 3] *= many
        return w

    return rewritten(in_proj_weight=apply, in_proj_bias=apply)


def forget(by: float) -> Break:
    def apply(w: np.ndarray) -> np.ndarray:
        n = len(w) // 4
        w[n : 2 * n] += by
        return w

    return rewritten(bias_ih_l0=apply)


def halved_rows(s: Suspect) -> Suspect:
    """Meta's interleaved pairs where halves are read, in q and k."""

    def apply(w: np.ndarray, head: int = 6) -> np.ndarray:
        return w.reshape(-1, 2, head // 2, w.shape[1]).transpose(0, 2, 1, 3).reshape(w.shape)

    return rewritten(q_projDOTweight=apply, k_projDOTweight=apply)(s)


def padded(s: Suspect) -> Suspect:
    def apply(w: np.ndarray) -> np.ndarray:
        w[int(s.inputs["x"].flat[0])] = 0
        return w

    return rewritten(weight=apply)(s)


LSTM, SQUARE, BI, GRU, RNN = ("lstm", 5, 7), ("lstm", 6, 6), ("bilstm", 3, 5), ("gru", 5, 7), ("rnn", 6, 6)
BN, LN, RMS = ("batch_norm", 11), ("layer_norm", 11), ("rms_norm", 11)
WIDE, EVEN, FLAT = ("dense", 7, 11), ("dense", 8, 8), ("flat", 2, 3, 5, 7)
CONV, CUBE, GROUPED = ("conv", 2, 3, 5, 7), ("conv", 3, 3, 3, 3), ("grouped", 2, 3, 2, 6, 3)
DEEP, THREES, UP, UPSQUARE = ("depthwise", 2, 3, 3, 2), ("depthwise", 3, 3, 3, 3), ("transposed", 2, 3, 5, 7), ("transposed", 3, 3, 4, 4)  # fmt: skip  # noqa: E501
MHA, MHA4, GQA, ROPE, TABLE = ("attention", 2, 3), ("attention", 4, 4), ("projections", 2, 3, 5), ("rotary", 2, 2, 3), ("embedding", 13, 7)  # fmt: skip  # noqa: E501
IH, HH = "weight_ih_l0", "weight_hh_l0"

MISTAKES: tuple[Mistake, ...] = (
    Mistake(FLAT, "rows", ("F1",), rewritten(weight=flattened(2, 3, 5))),
    Mistake(FLAT, "rows twice", ("F1", "F11"), rewritten(weight=twice(2, 3, 5))),
    Mistake(("flat", 3, 3, 3, 27), "rows of a cube", ("F1",), rewritten(weight=flattened(3, 3, 3))),
    Mistake(("flat", 3, 3, 3, 27), "transposed", ("F2",), rewritten(weight=np.transpose)),
    Mistake(("flat", 2, 2, 3, 12), "rows", ("F1",), rewritten(weight=flattened(2, 2, 3))),
    Mistake(EVEN, "transposed", ("F2",), rewritten(weight=np.transpose)),
    Mistake(RNN, "kernel transposed", ("F2",), rewritten(weight_ih_l0=np.transpose)),
    Mistake(RNN, "recurrent transposed", ("F2",), rewritten(weight_hh_l0=np.transpose)),
    Mistake(RNN, "both transposed", ("F2",), rewritten(weight_ih_l0=np.transpose, weight_hh_l0=np.transpose)),
    Mistake(SQUARE, "recurrent transposed", ("F2",), rewritten(weight_hh_l0=per_gate(4))),
    Mistake(SQUARE, "kernel transposed", ("F2",), rewritten(weight_ih_l0=per_gate(4))),
    Mistake(CUBE, "in and out", ("F2",), rewritten(weight=lambda w: w.swapaxes(0, 1))),
    Mistake(CUBE, "all axes", ("F2", "F12"), rewritten(weight=np.transpose)),
    Mistake(MHA, "out transposed", ("F2",), rewritten(out_projDOTweight=np.transpose)),
    Mistake(LSTM, "i c f o", ("F3",), gates([0, 2, 1, 3])),
    Mistake(LSTM, "ONNX", ("F3",), gates([0, 3, 1, 2])),
    Mistake(LSTM, "kernel's gates", ("F3",), gates([0, 2, 1, 3], IH)),
    Mistake(LSTM, "recurrent gates", ("F3",), gates([3, 2, 1, 0], HH)),
    Mistake(LSTM, "biases' gates", ("F3",), gates([0, 1, 3, 2], "bias_ih_l0", "bias_hh_l0")),
    Mistake(SQUARE, "i c f o", ("F3",), gates([0, 2, 1, 3])),
    Mistake(("bilstm", 4, 4), "i c f o", ("F3",), gates([0, 2, 1, 3])),
    Mistake(GRU, "z r", ("F4",), gates([1, 0, 2])),
    Mistake(("gru", 6, 6), "n first", ("F4",), gates([2, 0, 1])),
    Mistake(GRU, "reset before", ("F5",), told(reset="before")),
    Mistake(GRU, "recurrent bias lost", ("F5", "F6"), taken("bias_hh_l0", 0.0), needs=True),
    Mistake(LSTM, "copied", ("F6",), copied),
    Mistake(SQUARE, "copied", ("F6",), copied),
    Mistake(("bilstm", 4, 4), "copied", ("F6",), copied),
    Mistake(WIDE, "bias doubled", ("F6",), scaled("bias", 2.0)),
    Mistake(CONV, "bias doubled", ("F6",), scaled("bias", 2.0)),
    Mistake(RNN, "copied", ("F6",), copied),
    Mistake(BN, "eps 1e-5", ("F8",), configured(eps=1e-5)),
    Mistake(BN, "eps 2.7e-4", ("F8",), configured(eps=2.7e-4)),
    Mistake(LN, "eps 1e-6", ("F8",), configured(eps=1e-6)),
    Mistake(RMS, "eps 1e-12", ("F8",), configured(eps=1e-12)),
    Mistake(CUBE, "twice", ("F2", "F11"), rewritten(weight=lambda w: w.transpose(3, 2, 0, 1))),
    Mistake(WIDE, "bytes", ("F12",), rewritten(weight=bytes_of(1, 0))),
    Mistake(CONV, "bytes", ("F12",), rewritten(weight=bytes_of(2, 3, 1, 0))),
    Mistake(LSTM, "bytes", ("F12",), rewritten(weight_ih_l0=bytes_of(1, 0))),
    Mistake(MHA, "bytes", ("F12", "F2"), rewritten(in_proj_weight=bytes_of(1, 0))),
    Mistake(GQA, "bytes", ("F12",), rewritten(k_projDOTweight=bytes_of(1, 0))),
    Mistake(LN, "gamma not loaded", ("F13",), taken("weight", 1.0)),
    Mistake(BN, "gamma not loaded", ("F13",), taken("weight", 1.0)),
    Mistake(
        LSTM,
        "kernel not loaded",
        ("F13",),
        rewritten(weight_ih_l0=lambda w: np.random.default_rng(3).normal(size=w.shape)),
        needs=True,
    ),
    Mistake(WIDE, "bias missing", ("F14",), taken("bias", 0.0)),
    Mistake(CONV, "bias missing", ("F14",), taken("bias", 0.0)),
    Mistake(BN, "beta missing", ("F14",), taken("bias", 0.0)),
    Mistake(MHA, "bias missing", ("F14",), taken("out_proj.bias", 0.0)),
    Mistake(LSTM, "bias missing", ("F14",), taken("bias_ih_l0", 0.0), needs=True),
    Mistake(
        DEEP,
        "group out",
        ("F15",),
        rewritten(weight=lambda w: w.reshape(3, 2, 1, 2, 3).swapaxes(0, 1).reshape(w.shape)),
    ),
    Mistake(
        THREES,
        "group out",
        ("F15",),
        rewritten(weight=lambda w: w.reshape(3, 3, 1, 3, 3).swapaxes(0, 1).reshape(w.shape)),
    ),
    Mistake(
        DEEP,
        "group out everywhere",
        ("F15",),
        rewritten(
            weight=lambda w: w.reshape(3, 2, 1, 2, 3).swapaxes(0, 1).reshape(w.shape),
            bias=lambda w: w.reshape(3, 2).T.reshape(-1),
        ),
    ),
    Mistake(
        GROUPED,
        "out group",
        ("F15",),
        rewritten(weight=lambda w: w.reshape(3, 2, 2, 2, 3).swapaxes(0, 1).reshape(w.shape)),
    ),
    Mistake(UPSQUARE, "in and out", ("F16",), rewritten(weight=lambda w: w.swapaxes(0, 1))),
    Mistake(UP, "flip", ("F16",), rewritten(weight=flip(2, 3))),
    Mistake(CONV, "flip", ("F17",), rewritten(weight=flip(2, 3))),
    Mistake(CUBE, "flip", ("F17",), rewritten(weight=flip(2, 3))),
    Mistake(CUBE, "height and width", ("F17",), rewritten(weight=lambda w: w.swapaxes(2, 3))),
    Mistake(BI, "directions", ("F18",), halves),
    Mistake(LSTM, "backward", ("F18",), told(direction="backward")),
    Mistake(LSTM, "gates hard", ("F19",), told(gate_activation="hard_sigmoid_0.2")),
    Mistake(GRU, "gates hard", ("F19",), told(gate_activation="hard_sigmoid_1/6")),
    Mistake(WIDE, "relu forgotten", ("F19",), configured(activation="relu")),
    Mistake(WIDE, "leaky", ("F31",), configured(activation="leaky_relu_0.3")),
    Mistake(LSTM, "forget bias added", ("F21",), forget(1.0)),
    Mistake(SQUARE, "forget bias missing", ("F21",), forget(-1.0)),
    Mistake(LSTM, "packed", ("F22",), rewritten(weight_ih_l0=packed(4), weight_hh_l0=packed(4))),
    Mistake(GRU, "packed kernel", ("F22",), rewritten(weight_ih_l0=packed(3))),
    Mistake(
        MHA,
        "k q v",
        ("F23",),
        rewritten(
            **{
                n: (lambda w: w.reshape(3, -1, *w.shape[1:])[[1, 0, 2]].reshape(w.shape))
                for n in ("in_proj_weight", "in_proj_bias")
            }
        ),
    ),
    Mistake(MHA, "interleaved", ("F23",), rewritten(in_proj_weight=heads(2), in_proj_bias=heads(2))),
    Mistake(MHA4, "interleaved", ("F23",), rewritten(in_proj_weight=heads(4), in_proj_bias=heads(4))),
    Mistake(
        MHA,
        "out heads",
        ("F23",),
        rewritten(out_projDOTweight=lambda w: w.reshape(6, 2, 3).swapaxes(1, 2).reshape(6, 6)),
    ),
    Mistake(
        GQA,
        "groups",
        ("F23",),
        rewritten(
            q_projDOTweight=lambda w: w.reshape(2, 3, 5, -1).swapaxes(0, 1).reshape(w.shape),
            q_projDOTbias=lambda w: w.reshape(2, 3, 5).swapaxes(0, 1).reshape(w.shape),
        ),
    ),
    Mistake(ROPE, "pairs", ("F24",), halved_rows),
    Mistake(BN, "list order", ("F26",), listed("bias", "weight", "running_mean", "running_var")),
    Mistake(BN, "list rotated", ("F26",), listed("running_mean", "running_var", "weight", "bias")),
    Mistake(BN, "deviation", ("F26",), rewritten(running_var=np.sqrt)),
    Mistake(BN, "inverse deviation", ("F26",), rewritten(running_var=lambda v: 1 / np.sqrt(v + 1e-3))),
    Mistake(CONV, "float16", ("F30",), narrow(np.float16), needs=True),
    Mistake(LSTM, "bfloat16", ("F30",), narrow(ml_dtypes.bfloat16), needs=True),
    Mistake(RMS, "less one", ("F32",), rewritten(weight=lambda w: w - 1)),
    Mistake(TABLE, "root", ("F32",), rewritten(weight=lambda w: w * np.sqrt(7))),
    Mistake(MHA, "query scale", ("F32",), queries(3**-0.5)),
    Mistake(WIDE, "weight norm", ("F32",), rewritten(weight=lambda w: w / np.linalg.norm(w, axis=1, keepdims=True))),
    Mistake(CUBE, "B G R", ("F34",), rewritten(weight=flip(1))),
    Mistake(TABLE, "rows moved", ("F37",), rewritten(weight=lambda w: np.roll(w, 2, 0))),
    Mistake(TABLE, "padding row", ("F37",), padded, needs=True),
)

PAIRS: tuple[tuple[int | str, str, str, tuple[str, str]], ...] = ()
