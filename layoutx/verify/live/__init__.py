"""One layer in the real framework, its weights given by the framework's own names: independent of the specs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module, metadata, util
from typing import Any

from layoutx.errors import UsageError
from layoutx.verify.live.arrays import Array, Arrays
from layoutx.verify.live.bare import MATRICES, used
from layoutx.verify.live.bare import RUNNERS as BARE
from layoutx.version import public

__all__ = ["RUNNERS", "available", "describe", "precision", "run"]

# framework, as form names begin -> the module beside this one that runs its layers
RUNNERS = {
    "torch": "torch_live",
    "keras": "keras_live",
    "onnx": "onnx_live",
    "flax": "flax_live",
    "nnx": "nnx_live",
    "haiku": "haiku_live",
    "equinox": "equinox_live",
    "paddle": "paddle_live",
    "mlx": "mlx_live",
    "tf1": "tf1_live",
    "tflite": "tflite_live",
}

# what must be importable before a framework can run a layer (distribution: module); the first names the version
NEEDS = {
    "torch": {"torch": "torch"},
    "keras": {"keras": "keras", "tensorflow-cpu tensorflow": "tensorflow"},
    "tf_keras": {"tf_keras": "tf_keras", "tensorflow-cpu tensorflow": "tensorflow"},
    "onnx": {"onnx": "onnx", "onnxruntime": "onnxruntime"},
    "flax": {"flax": "flax", "jax": "jax"},
    "nnx": {"flax": "flax", "jax": "jax"},
    "haiku": {"dm-haiku": "haiku", "jax": "jax"},
    "equinox": {"equinox": "equinox", "jax": "jax"},
    "paddle": {"paddlepaddle": "paddle"},
    "mlx": {"mlx": "mlx"},
    "tf1": {"tensorflow-cpu tensorflow": "tensorflow", "tf_keras": "tf_keras"},
    "tflite": {"tensorflow-cpu tensorflow": "tensorflow"},
}


def run(form: str, config: Mapping[str, Any], tensors: Arrays, x: Arrays, dtype: str = "float64") -> dict[str, Array]:
    """What the real layer computes at inference: {"y"}, and the final states "h", "c" of recurrent layers.

    Args:
        form: `torch.<class>`, `keras.<class>`, `keras.Bidirectional.<class>`, `onnx.<operator>`, `flax.<class>`, ...
        config: keywords of the layer's constructor, or attributes of the node; `version` picks keras 3 or tf_keras 2.
        tensors: native names -> arrays, in the layer's own order.
        x: {"x": array}, or query, key and value; axes in the framework's own order, and so are the outputs.
        dtype: what to compute in; `precision` says where a framework has no float64.

    Raises:
        UsageError: unknown framework or layer, a missing input. BindError: the layer does not take the weights.
    """
    if form in BARE or form in MATRICES:
        return used(form, config, tensors, x, dtype)
    found: dict[str, Array] = _runner(form).run(form, config, tensors, x, dtype)
    return found


def describe(
    form: str, config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]
) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the real layer's weights, in its own order, for building probes.

    `shapes` are those of the inputs. Raises UsageError for onnx, whose nodes own no weights.
    """
    runner = _runner(form)
    if not hasattr(runner, "describe"):
        raise UsageError(f"the weights of {form!r} cannot be listed", why="its nodes are given their weights")
    found: list[tuple[str, tuple[int, ...]]] = runner.describe(form, config, shapes)
    return found


def precision(form: str, config: Mapping[str, Any], dtype: str = "float64") -> str:
    """The dtype that `run` computes a layer in, where `dtype` is asked for: some frameworks have no float64."""
    runner = _runner(form)
    return str(runner.precision(form, config, dtype)) if hasattr(runner, "precision") else dtype


def _runner(form: str) -> Any:
    framework = form.partition(".")[0]
    if framework not in RUNNERS:
        raise UsageError(f"no framework runs {form!r}", where=f"known: {', '.join(f'{name}.*' for name in RUNNERS)}")
    return import_module(f"{__name__}.{RUNNERS[framework]}")


def available(framework: str) -> str:
    """The installed version of a framework (`tf_keras` is one); "" where it, or what it runs on, is missing.

    Nothing is imported. Raises UsageError for other names.
    """
    if framework not in NEEDS:
        raise UsageError(f"no framework is called {framework!r}", where=f"known: {', '.join(NEEDS)}")
    if any(util.find_spec(module) is None for module in NEEDS[framework].values()):
        return ""
    return _version(next(iter(NEEDS[framework])))


def _version(distributions: str) -> str:
    """The version of the first of several distributions that bring one module (tensorflow-cpu, tensorflow)."""
    for name in distributions.split():
        try:
            return public(metadata.version(name))
        except metadata.PackageNotFoundError:
            continue
    return ""
