"""One Keras layer with given weights, run once: keras 3 on TensorFlow, or tf_keras 2."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from layoutx.errors import LayoutxError, UsageError, raise_all
from layoutx.model.keras_live import made_array
from layoutx.verify.live.arrays import Array, Arrays, cast, cast_all, inputs, options, refused
from layoutx.verify.live.keras_cudnn import PLAIN, loaded, stand_in, weights_of
from layoutx.verify.live.keras_own_live import SHIFTED, built

RECURRENT = ("SimpleRNN", "LSTM", "GRU")
CONV_LSTM = ("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
ATTENTION = ("MultiHeadAttention", "GroupQueryAttention")
SCORED = ("Attention", "AdditiveAttention")


def run(form: str, config: Mapping[str, Any], tensors: Arrays, x: Arrays, dtype: str = "float64") -> dict[str, Array]:
    """What the real layer gives at inference, its weights set by position with `set_weights`.

    `config` holds the keywords of the layer's constructor, and `version`: 2 for tf_keras, 3 (the default) for keras.
    `keras.Bidirectional.LSTM` takes {"layer": keywords of LSTM, "merge_mode": "concat"}, or all of them side by side.
    Recurrent layers return all steps and h, c as (direction, batch, hidden); with go_backwards y is in processing
    order, as Keras gives it. The states of ConvLSTM layers are (batch, ..., hidden). CuDNNLSTM and CuDNNGRU need a
    GPU: their weights are loaded into LSTM and GRU by tf_keras's own converter.

    Raises:
        UsageError: no such layer, or a missing input.
        BindError: the layer does not take the config or the tensors (number, order of names, shapes).
    """
    layer = _build(form, config, dtype)
    data = cast_all(x, dtype)
    _call(form, layer, data)
    weights = [cast(array, dtype) for array in tensors.values()]
    if form.rpartition(".")[2] in PLAIN:
        weights = loaded(layer, weights)
    else:
        _check(form, layer, tensors)
    layer.set_weights(weights)
    if hasattr(layer, "finalize_state"):  # Normalization computes with a copy of its statistics
        layer.finalize_state()
    return _call(form, layer, data)


def describe(
    form: str, config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]
) -> list[tuple[str, tuple[int, ...]]]:
    """Paths (below the layer) and shapes of the real layer's weights, in the layer's order.

    `shapes` gives the shape of every input, as {"x": (2, 5, 3)} or {"query": ..., "key": ..., "value": ...}.
    """
    wrapper, _, name = form.removeprefix("keras.").rpartition(".")
    if name in PLAIN:
        merge = {key: value for key, value in options(config).items() if key != "merge_mode"}
        names = weights_of(name, merge, shapes["x"])
        sides = ["forward_layer/", "backward_layer/"] if wrapper else [""]
        return [(f"{side}{own}", shape) for side in sides for own, shape in names]
    layer = _build(form, config, "float64")
    kind = "int64" if form.endswith("Embedding") else "float64"
    _call(form, layer, {name: np.zeros(tuple(shape), kind) for name, shape in shapes.items()})
    return [("/".join(path), tuple(weight.shape)) for path, weight in zip(_paths(layer), layer.weights, strict=True)]


def precision(form: str, config: Mapping[str, Any], dtype: str) -> str:
    """float64 on TensorFlow alone: elsewhere Keras computes products in float32, whatever it is given and gives.

    keras 3.15.1 src/backend/common/dtypes.py BIT64_TO_BIT32_DTYPE.
    """
    keras = library(config.get("version", 3))
    on = keras.config.backend() if int(config.get("version", 3)) > 2 else "tensorflow"
    return dtype if on == "tensorflow" else "float32"


def library(version: Any) -> Any:
    """The module `keras` (3) or `tf_keras` (2)."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if int(version) == 2:
        import tf_keras

        return tf_keras
    import keras

    return keras


def _build(form: str, config: Mapping[str, Any], dtype: str) -> Any:
    layers = library(config.get("version", 3)).layers
    wrapper, _, name = form.removeprefix("keras.").rpartition(".")
    plain, _ = stand_in(name, {})
    if name == SHIFTED and not wrapper:
        return built(library(config.get("version", 3)), {**options(config), "dtype": dtype, "name": name.lower()})
    if not hasattr(layers, plain) or wrapper not in ("", "Bidirectional"):
        raise UsageError(f"keras {config.get('version', 3)} has no layer {form.removeprefix('keras.')}")
    given = {key: value for key, value in options(config).items() if not key.startswith("_")}  # of a spec alone
    inner = given
    if wrapper:
        # the inner layer may stand as Keras serialises it, or its keywords beside merge_mode
        inner = options(given.pop("layer", None) or {k: given.pop(k) for k in list(given) if k != "merge_mode"})
        inner = dict(inner.get("config", inner))
    inner.update(dtype=dtype, name=name.lower())  # Keras counts the layers of a process in names of its own
    if name == "EinsumDense":
        inner.pop("use_bias", None)  # a spec's own key: the layer says it by bias_axes
    plain, inner = stand_in(name, inner)
    if plain in (*RECURRENT, *CONV_LSTM):
        inner.update(return_sequences=True, return_state=True)
    try:
        layer = getattr(layers, plain)(**inner)
        layer = layers.Bidirectional(layer, **{"merge_mode": "concat", **given, "dtype": dtype}) if wrapper else layer
    except (TypeError, ValueError) as error:
        raise refused(form, {}, error) from error
    _keep_the_scale_exact(layer)
    return layer


def _keep_the_scale_exact(layer: Any) -> None:
    """Keep 1/sqrt(head) in float64: attention of keras 3.15.1 on TensorFlow rounds it to float32 (`ops.cast` of a
    Python float), an error of 1e-8 in a float64 layer, behind which a wrong layout could hide."""
    for name in ("_inverse_sqrt_key_dim", "_inverse_sqrt_head_dim"):
        if isinstance(getattr(layer, name, None), float):
            setattr(layer, name, np.float64(getattr(layer, name)))


def _call(form: str, layer: Any, data: Mapping[str, Array]) -> dict[str, Array]:
    name, _ = stand_in(form.rpartition(".")[2], {})
    if name in SCORED:
        query, key, value = inputs(form, data, "query", "key", "value")
        return {"y": made_array(layer([query, value, key]))}
    if name in ATTENTION:
        query, key, value = inputs(form, data, "query", "key", "value")
        return {"y": made_array(layer(query, value, key=key, training=False))}
    (x,) = inputs(form, data, "x")
    if name in CONV_LSTM:
        return dict(zip(("y", "h", "c"), (made_array(output) for output in layer(x)), strict=True))
    if name not in RECURRENT:
        # few layers know `training`, and all are in inference mode without it
        return {"y": made_array(layer(x))}
    y, *states = (made_array(output) for output in layer(x))
    kinds = ("h", "c") if name == "LSTM" else ("h",)
    return {"y": y, **{kind: np.stack(states[k :: len(kinds)]) for k, kind in enumerate(kinds)}}


def _check(form: str, layer: Any, tensors: Arrays) -> None:
    """The tensors stand in the layer's own order: same number, shapes, and names where the names say something."""
    paths, shapes = _paths(layer), [tuple(w.shape) for w in layer.weights]
    if len(paths) != len(tensors):
        real = ", ".join(f"{'/'.join(p)} {s}" for p, s in zip(paths, shapes, strict=True))
        raise refused(form, tensors, f"the layer has {len(paths)} weights: {real}")
    words = {_word(part) for path in paths for part in path[:-1]}
    problems: list[LayoutxError] = []
    for (name, array), path, shape in zip(tensors.items(), paths, shapes, strict=True):
        *folder, leaf = name.split("/")
        wrong = [part for part in folder if _word(part) in words and _word(part) not in map(_word, path)]
        if array.shape != shape or wrong or (leaf != path[-1] and not leaf.isdigit()):
            problems.append(refused(form, {name: array}, f"at this position the layer has {'/'.join(path)} {shape}"))
    raise_all(problems, f"the tensors are not those of the real {form}")


def _paths(layer: Any) -> list[list[str]]:
    """Where every weight lies below the layer: keras 3 `path`, tf_keras `name` ("dense/kernel:0")."""
    paths = [getattr(w, "path", w.name).split(":")[0].split("/") for w in layer.weights]
    return [path[1:] if len(path) > 1 else path for path in paths]


def _word(part: str) -> str:
    """What distinguishes one part of a path: `forward` of forward_lstm, forward_layer and forward."""
    return part.split("_")[0]
