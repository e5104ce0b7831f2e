"""One layer in the real framework, its weights given by the framework's own names: independent of the specs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata, util
from typing import Any

from layoutx.errors import UsageError
from layoutx.verify.live.arrays import Array, Arrays

__all__ = ["available", "describe", "run"]

# what must be importable before a framework can run a layer; the first names the version
NEEDS = {
    "torch": ("torch",),
    "keras": ("keras", "tensorflow"),
    "tf_keras": ("tf_keras", "tensorflow"),
    "onnx": ("onnx", "onnxruntime"),
}


def run(form: str, config: Mapping[str, Any], tensors: Arrays, x: Arrays, dtype: str = "float64") -> dict[str, Array]:
    """What the real layer computes at inference: {"y"}, and the final states "h", "c" of recurrent layers.

    Args:
        form: `torch.<class>`, `keras.<class>`, `keras.Bidirectional.<class>` or `onnx.<operator>`.
        config: keywords of the layer's constructor, or attributes of the node; `version` picks keras 3 or tf_keras 2.
        tensors: native names -> arrays, in the layer's own order.
        x: {"x": array}, or query, key and value; axes in the framework's own order, and so are the outputs.
        dtype: what to compute in. `onnx_live.precision` says where onnx has no float64.

    Raises:
        UsageError: unknown framework or layer, a missing input. BindError: the layer does not take the weights.
    """
    framework = form.partition(".")[0]
    if framework == "torch":
        from layoutx.verify.live import torch_live

        return torch_live.run(form, config, tensors, x, dtype)
    if framework == "keras":
        from layoutx.verify.live import keras_live

        return keras_live.run(form, config, tensors, x, dtype)
    if framework == "onnx":
        from layoutx.verify.live import onnx_live

        return onnx_live.run(form, config, tensors, x, dtype)
    raise UsageError(f"no framework runs {form!r}", where="known: torch.*, keras.*, onnx.*")


def describe(
    form: str, config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]
) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the real layer's weights, in its own order, for building probes.

    `shapes` are those of the inputs; torch does not need them. Raises UsageError for onnx, whose nodes own no weights.
    """
    framework = form.partition(".")[0]
    if framework == "torch":
        from layoutx.verify.live import torch_live

        return torch_live.describe(form, config)
    if framework == "keras":
        from layoutx.verify.live import keras_live

        return keras_live.describe(form, config, shapes)
    raise UsageError(f"the weights of {form!r} cannot be listed", why="only torch and keras layers own their weights")


def available(framework: str) -> str:
    """The installed version of `torch`, `keras`, `tf_keras` or `onnx`; "" where it, or what it runs on, is missing.

    Nothing is imported. Raises UsageError for other names.
    """
    if framework not in NEEDS:
        raise UsageError(f"no framework is called {framework!r}", where=f"known: {', '.join(NEEDS)}")
    if any(util.find_spec(module) is None for module in NEEDS[framework]):
        return ""
    try:
        return metadata.version(NEEDS[framework][0])
    except metadata.PackageNotFoundError:
        return ""
