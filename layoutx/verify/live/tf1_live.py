"""One TensorFlow 1 layer or cell with given weights, run once in a graph of its own (tf_keras 2.21 legacy, TF 2.21)."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from layoutx.errors import UsageError
from layoutx.verify.live import tf1_contrib
from layoutx.verify.live.arrays import Array, Arrays, cast_all, inputs, options, refused
from layoutx.verify.live.tf1_contrib import CONTRIB

LAYERS = {  # tf.layers class -> its module under tf_keras.src.legacy_tf_layers
    "Dense": "core",
    "Conv1D": "convolutional",
    "Conv2D": "convolutional",
    "Conv3D": "convolutional",
    "Conv2DTranspose": "convolutional",
    "Conv3DTranspose": "convolutional",
    "SeparableConv1D": "convolutional",
    "SeparableConv2D": "convolutional",
    "BatchNormalization": "normalization",
}
CELLS = ("BasicRNNCell", "BasicLSTMCell", "LSTMCell", "GRUCell")
SCOPE = "the_layer"  # its name here, and so the scope of its variables
# classes of tf.contrib, which is gone; the operators that they called are still there
BLOCKS = ("LSTMBlockCell", "CudnnCompatibleLSTMCell", "LSTMBlockFusedCell", "BlockLSTMV2")
GRU_BLOCKS = {  # class -> the names of what the operator calls w_ru, w_c, b_ru, b_c
    "GRUBlockCell": ("w_c", "w_ru", "b_ru", "b_c"),
    "GRUBlockCellV2": ("gates/kernel", "candidate/kernel", "gates/bias", "candidate/bias"),
}


def run(form: str, config: Mapping[str, Any], tensors: Arrays, x: Arrays, dtype: str = "float64") -> dict[str, Array]:
    """What the real layer gives at inference, its variables set by their names below the layer.

    `tf1.<class of tf.layers>`; `tf1.<cell>` run over all steps by `tf.compat.v1.nn.dynamic_rnn`;
    `tf1.Bidirectional.<cell>` by `bidirectional_dynamic_rnn`, names behind `fw/` and `bw/`, outputs joined on the last
    axis; layers and block cells of tf.contrib by the operations that they called (cells: float32 only). `config`
    holds the keywords of the constructor, and `time_major` of dynamic_rnn. h, c are (direction, batch, hidden).

    Raises:
        UsageError: no such layer, or a missing input.
        BindError: the layer does not take the config or the tensors.
    """
    dtype = precision(form, config, dtype)
    (data,) = inputs(form, cast_all(x, dtype), "x")
    name, given = form.removeprefix("tf1."), cast_all(tensors, dtype)
    if name in CONTRIB:
        return tf1_contrib.run(_tensorflow(), form, config, given, data)
    if name in (*BLOCKS, *GRU_BLOCKS):
        return _over_time(form, name, options(config, "time_major"), given, data, bool(config.get("time_major")))
    with _built(form, config, data.shape, dtype) as (tf, placeholder, outputs, variables):
        shapes = {key: tuple(variable.shape) for key, variable in variables.items()}
        if {key: array.shape for key, array in given.items()} != shapes:
            raise refused(form, tensors, f"it has {', '.join(f'{k} {s}' for k, s in shapes.items())}")
        with tf.compat.v1.Session() as session:
            session.run([variable.assign(given[key]) for key, variable in variables.items()])
            return dict(session.run(outputs, {placeholder: data}))


def describe(
    form: str, config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]
) -> list[tuple[str, tuple[int, ...]]]:
    """Names (below the layer) and shapes of the real layer's variables, as it creates them.

    Raises:
        UsageError: no such layer, or one of tf.contrib, whose classes are gone.
    """
    if form.removeprefix("tf1.") in (*BLOCKS, *GRU_BLOCKS, *CONTRIB):
        raise UsageError(f"the weights of {form} cannot be listed", why="tf.contrib is gone; its operators own none")
    with _built(form, config, tuple(shapes["x"]), "float64") as (_, _, _, variables):
        return [(name, tuple(variable.shape)) for name, variable in variables.items()]


def precision(form: str, config: Mapping[str, Any], dtype: str = "float64") -> str:
    """The block operators have no float64."""
    return "float32" if form.removeprefix("tf1.") in (*BLOCKS, *GRU_BLOCKS) else dtype


@contextmanager
def _built(form: str, config: Mapping[str, Any], shape: Sequence[int], dtype: str) -> Iterator[tuple[Any, ...]]:
    """The module tensorflow, the input, the outputs and the variables by name, in a graph that is current."""
    tf = _tensorflow()
    with tf.Graph().as_default(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # every class says that it is deprecated
        placeholder = tf.compat.v1.placeholder(dtype, shape)
        try:
            outputs, owners = _outputs(tf, form, config, placeholder, dtype)
        except (TypeError, ValueError) as error:
            raise refused(form, {}, error) from error
        variables = {}
        for prefix, layer in owners.items():
            for variable in layer.weights:
                scoped = variable.op.name
                variables[prefix + scoped.partition(f"{SCOPE}/")[2]] = variable
        yield tf, placeholder, outputs, variables


def _outputs(tf: Any, form: str, config: Mapping[str, Any], x: Any, dtype: str) -> tuple[Any, dict[str, Any]]:
    """The outputs, and the layers whose variables count, by the prefix of their names."""
    wrapper, _, name = form.removeprefix("tf1.").rpartition(".")
    given = {**options(config, "time_major"), "dtype": dtype, "name": SCOPE}
    if name in LAYERS and not wrapper:
        layer = _class(LAYERS[name], name)(**given)
        more = {"training": False} if name == "BatchNormalization" else {}
        return {"y": layer(x, **more)}, {"": layer}
    if name not in CELLS or wrapper not in ("", "Bidirectional"):
        raise UsageError(f"TensorFlow 1 has no layer {form.removeprefix('tf1.')} that runs here")
    time = {"time_major": bool(config.get("time_major", False)), "dtype": x.dtype}
    if not wrapper:
        cell = _class("cells", name)(**given)
        y, state = tf.compat.v1.nn.dynamic_rnn(cell, x, **time)
        return {"y": y, **_states(tf, [state])}, {"": cell}
    cells = {f"{way}/": _class("cells", name)(**given) for way in ("fw", "bw")}
    ys, states = tf.compat.v1.nn.bidirectional_dynamic_rnn(*cells.values(), x, **time)
    return {"y": tf.concat(ys, -1), **_states(tf, states)}, cells


def _states(tf: Any, states: Sequence[Any]) -> dict[str, Any]:
    """Final states of each direction: those of an LSTM are the pair (c, h), in this order."""
    if isinstance(states[0], tuple):
        return {"h": tf.stack([h for _, h in states]), "c": tf.stack([c for c, _ in states])}
    return {"h": tf.stack(list(states))}


def _over_time(
    form: str, name: str, config: dict[str, Any], tensors: Mapping[str, Array], x: Array, time_major: bool
) -> dict[str, Array]:
    """A block operator on every step, eagerly; a fused one on all steps at once (those want time first)."""
    tf = _tensorflow()
    units = int(config.pop("num_units"))
    fused = name in ("LSTMBlockFusedCell", "BlockLSTMV2")
    steps = x if fused or time_major else np.swapaxes(x, 0, 1)
    zero = np.zeros((steps.shape[1], units), x.dtype)
    try:
        if name in GRU_BLOCKS:
            weights = dict(zip(("w_ru", "w_c", "b_ru", "b_c"), (tensors[n] for n in GRU_BLOCKS[name]), strict=True))
            hs = [zero]
            for step in steps:
                hs.append(tf.raw_ops.GRUBlockCell(x=step, h_prev=hs[-1], **weights).h.numpy())
            found = {"y": np.stack(hs[1:]), "h": hs[-1][None]}
        else:
            found = _lstm_block(tf, name, config, tensors, steps, zero)
    except (KeyError, tf.errors.OpError, TypeError, ValueError) as error:
        raise refused(form, tensors, error) from error
    y = found["y"] if fused or time_major else np.swapaxes(found["y"], 0, 1)
    return {**found, "y": np.ascontiguousarray(y)}


def _lstm_block(
    tf: Any, name: str, config: dict[str, Any], tensors: Mapping[str, Array], steps: Array, zero: Array
) -> dict[str, Array]:
    peephole = bool(config.pop("use_peephole", False))
    clip = config.pop("cell_clip", None)
    none = 0.0 if name == "BlockLSTMV2" else -1.0  # what each operator takes for no clipping
    words = {"use_peephole": peephole, "cell_clip": none if clip is None else clip}
    if name != "BlockLSTMV2":
        words["forget_bias"] = 0.0 if name == "CudnnCompatibleLSTMCell" else config.pop("forget_bias", 1.0)
    if config:
        raise ValueError(f"it takes no {', '.join(config)}")
    diagonal = {f"wc{g}": tensors[f"w_{g}_diag"] if peephole else np.zeros(zero.shape[1], zero.dtype) for g in "ifo"}
    weights = {"w": tensors["kernel"], "b": tensors["bias"], **diagonal, **words}
    if name in ("LSTMBlockFusedCell", "BlockLSTMV2"):
        op = tf.raw_ops.BlockLSTMV2 if name == "BlockLSTMV2" else tf.raw_ops.BlockLSTM
        out = op(seq_len_max=np.int64(len(steps)), x=steps, cs_prev=zero, h_prev=zero, **weights)
        return {"y": out.h.numpy(), "h": out.h.numpy()[-1:], "c": out.cs.numpy()[-1:]}
    hs, c = [zero], zero
    for step in steps:
        out = tf.raw_ops.LSTMBlockCell(x=step, cs_prev=c, h_prev=hs[-1], **weights)
        hs.append(out.h.numpy())
        c = out.cs.numpy()
    return {"y": np.stack(hs[1:]), "h": hs[-1][None], "c": c[None]}


def _tensorflow() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow

    return tensorflow


def _class(module: str, name: str) -> Any:
    """tf.compat.v1.layers and nn.rnn_cell lead to Keras 3, which has neither, unless a switch of the whole process
    says otherwise; the classes themselves are in tf_keras."""
    from importlib import import_module

    where = "layers.rnn.legacy_cells" if module == "cells" else f"legacy_tf_layers.{module}"
    return getattr(import_module(f"tf_keras.src.{where}"), name)
