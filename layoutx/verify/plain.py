"""A live model called as its framework calls it, at inference: arrays in, arrays out; its own modes stay."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from layoutx.model.keras_live import is_keras
from layoutx.model.keyed import torch_tensor
from layoutx.model.tree import family, is_tree, unbound
from layoutx.plan.plan import Array


def is_torch(model: Any) -> bool:
    """Whether a model is a live torch module; a layer of paddle has a state_dict too, and so has a class."""
    if isinstance(model, type) or is_keras(model):
        return False
    return hasattr(model, "state_dict") and hasattr(model, "named_modules")


def outputs_of(model: Any, arrays: Sequence[Array], keywords: Sequence[str] = ()) -> list[Array]:
    """Outputs at inference, as arrays.

    Args:
        keywords: the argument of each array, for a torch module that is not called by position.
    """
    if is_tree(model):
        return _run_tree(model, arrays)
    if not is_torch(model):
        if not is_keras(model):
            return flat(model(packed(model, arrays), training=False))
        from layoutx.verify.running.keras_double import same_state

        with same_state(model):
            return flat(model(packed(model, arrays), training=False))
    import torch

    floats = [p.dtype for p in model.parameters() if p.dtype.is_floating_point]
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            tensors = [torch.from_numpy(np.array(a, order="C")).to(device) for a in arrays]  # its own copy
            tensors = [t.to(floats[0]) if t.dtype.is_floating_point and floats else t for t in tensors]
            return flat(model(**dict(zip(keywords, tensors, strict=True))) if keywords else model(*tensors))
    finally:
        for module in training:
            module.training = True


def packed(model: Any, arrays: Sequence[Array]) -> Any:
    """The inputs as a Keras model takes them: one, a list, or nested by name as it was built."""
    built = getattr(model, "_inputs_struct", None)
    if isinstance(built, Mapping):
        import keras

        return keras.tree.pack_sequence_as(built, list(arrays))
    return list(arrays) if len(arrays) > 1 else arrays[0]


def called(model: Any) -> Any:
    """What is called of a live tree: equinox has (module, state)."""
    return model[0] if isinstance(model, tuple) else model


def _run_tree(model: Any, arrays: Sequence[Array]) -> list[Array]:
    """Outputs at inference of a live nnx, equinox, mlx or paddle module, each called as its framework does."""
    runs: Mapping[str, Callable[[Any, Sequence[Array]], list[Array]]] = {
        "nnx": _run_nnx, "equinox": _run_equinox, "mlx": _run_mlx, "paddle": _run_paddle, "flax": _run_flax,
        "haiku": _run_haiku,
    }  # fmt: skip
    return runs[family(called(model))](model, arrays)


def _run_nnx(model: Any, arrays: Sequence[Array]) -> list[Array]:
    from flax import nnx

    copy = nnx.clone(model)  # its modules keep their modes and counts
    copy.eval()
    return flat(copy(*arrays))


def _run_flax(model: Any, arrays: Sequence[Array]) -> list[Array]:
    from layoutx.model.jax_program import at_inference

    module, variables = unbound(model)
    return flat(module.apply(variables, *arrays, **at_inference(module)))


def _run_haiku(model: Any, arrays: Sequence[Array]) -> list[Array]:
    from layoutx.model.jax_program import transformed

    return flat(transformed(model[0], model[1:], arrays))


def _run_equinox(model: Any, arrays: Sequence[Array]) -> list[Array]:
    """equinox modules take one sample: over the batch with vmap, or whole where only that runs."""
    import equinox
    import jax
    import jax.numpy as jnp

    module, state = model if isinstance(model, tuple) else (model, None)
    module = equinox.nn.inference_mode(module)

    def call(*inputs: Any) -> Any:
        return module(*inputs) if state is None else module(*inputs, state)[0]

    inputs = [jnp.asarray(array) for array in arrays]
    try:
        return flat(jax.vmap(call)(*inputs))
    except Exception as error:  # a module written for a batch; else the first error says more
        try:
            return flat(call(*inputs))
        except Exception:
            raise error from None


def _run_mlx(model: Any, arrays: Sequence[Array]) -> list[Array]:
    import mlx.core as mx
    from mlx.utils import tree_map

    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        outputs = model(*(mx.array(array) for array in arrays))
    finally:
        for module in training:
            module._training = True  # train() would reach the modules below it too
    # NumPy has no bfloat16 of mlx
    return flat(tree_map(lambda x: np.array(x.astype(mx.float32) if x.dtype == mx.bfloat16 else x), outputs))


def _run_paddle(model: Any, arrays: Sequence[Array]) -> list[Array]:
    import paddle

    training = [layer for layer in model.sublayers(include_self=True) if layer.training]
    model.eval()
    try:
        with paddle.no_grad():
            return flat(model(*(paddle.to_tensor(array) for array in arrays)))
    finally:
        for layer in training:
            layer.training = True


COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # Keras writes its errors in bold


def said(error: Exception, most: int = 120) -> str:
    return " ".join(COLOURS.sub("", str(error)).split())[:most]


class Outputs(list[Array]):
    """The arrays that a model gives, and the names that it gives them; () where it gives none."""

    names: tuple[str, ...] = ()


def flat(outputs: Any) -> list[Array]:
    """Every array in a model's outputs, in order; what is none (a cache, say) is left out."""
    if isinstance(outputs, Mapping):
        every = [(str(name), array) for name, value in outputs.items() for array in flat(value)]
        found = Outputs(array for _, array in every)
        found.names = tuple(name for name, _ in every)
        return found
    if isinstance(outputs, (list, tuple)):
        return [array for output in outputs for array in flat(output)]
    if hasattr(outputs, "detach"):
        return [torch_tensor("an output", outputs).read()]
    array = np.asarray(outputs)
    return [] if array.dtype == object else [array]
