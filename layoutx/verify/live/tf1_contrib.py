"""Layers of tf.contrib, and what scripts write by hand: the operations of TensorFlow that they call, run once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from layoutx.verify.live.arrays import Array, Arrays, options, refused

Run = Callable[[Any, dict[str, Any], dict[str, Array], Array], Any]  # tensorflow, config, weights, data -> result


def run(tf: Any, form: str, config: Mapping[str, Any], tensors: Arrays, data: Array) -> dict[str, Array]:
    """What `tf1.<class>` of CONTRIB gives, in the dtype of its data.

    Raises:
        BindError: the operations do not take the config or the tensors.
    """
    left = dict(tensors)
    try:
        found = CONTRIB[form.removeprefix("tf1.")](tf, options(config), left, data)
    except (KeyError, tf.errors.OpError, TypeError, ValueError) as error:
        raise refused(form, tensors, error) from error
    if left:
        raise refused(form, tensors, f"it has no {', '.join(left)}")
    return {"y": found.numpy()}


def _layer_norm(tf: Any, config: dict[str, Any], own: dict[str, Array], x: Array) -> Any:
    return _normalised(tf, {"epsilon": 1e-12, **config}, own, x, [x.ndim - 1])


def _instance_norm(tf: Any, config: dict[str, Any], own: dict[str, Array], x: Array) -> Any:
    return _normalised(tf, config, own, x, list(range(1, x.ndim - 1)))


def _group_norm(tf: Any, config: dict[str, Any], own: dict[str, Array], x: Array) -> Any:
    groups = config.get("groups", 32)
    split = {name: array.reshape(groups, -1) for name, array in own.items()}
    own.clear()
    apart = x.reshape(*x.shape[:-1], groups, -1)
    axes = [*range(1, x.ndim - 1), x.ndim]
    return tf.reshape(_normalised(tf, config, split, apart, axes), x.shape)


def _normalised(tf: Any, config: dict[str, Any], own: dict[str, Array], x: Array, axes: list[int]) -> Any:
    mean, variance = tf.nn.moments(tf.constant(x), axes, keepdims=True)
    beta = own.pop("beta") if config.get("center", True) else None
    gamma = own.pop("gamma") if config.get("scale", True) else None
    return tf.nn.batch_normalization(x, mean, variance, beta, gamma, config.get("epsilon", 1e-6))


def _depthwise(tf: Any, config: dict[str, Any], own: dict[str, Array], x: Array) -> Any:
    stride, rate = (_pair(config.get(key, 1)) for key in ("stride", "rate"))
    kernel, padding = own.pop("depthwise_kernel"), config.get("padding", "SAME")
    y = tf.nn.depthwise_conv2d(x, kernel, [1, *stride, 1], padding, dilations=rate)
    return tf.nn.bias_add(y, own.pop("bias")) if config.get("use_bias", True) else y


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _output(tf: Any, config: dict[str, Any], own: dict[str, Array], x: Array) -> Any:
    y = tf.matmul(x, own.pop("output_weights"), transpose_b=True)
    return tf.nn.bias_add(y, own.pop("output_bias")) if config.get("use_bias", True) else y


CONTRIB: Mapping[str, Run] = {
    "LayerNorm": _layer_norm,
    "GroupNorm": _group_norm,
    "InstanceNorm": _instance_norm,
    "DepthwiseConv2D": _depthwise,
    "Output": _output,
}
