"""Modules of jax frameworks: copied, turned to float64, looked into; nothing of jax is imported before it is needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import numpy as np

from layoutx.model.tree import family, unbound
from layoutx.plan.plan import Array


def is_jax(value: Any) -> bool:
    """Whether a value is an array with numbers in it: no tracer, no random key."""
    import jax

    if isinstance(value, jax.core.Tracer) or not isinstance(value, (jax.Array, np.ndarray)):
        return False
    return not jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)


def jax_tensor(array: Array) -> Any:
    """An array as jax', floats in float64 where that is on."""
    import jax
    import jax.numpy as jnp

    wide = jax.dtypes.canonicalize_dtype(np.float64) == np.float64
    return jnp.asarray(widened(array) if wide else array)


def widened(value: Any) -> Any:
    """An array of floats in float64; anything else as it is."""
    return value.astype("float64") if hasattr(value, "dtype") and "float" in str(value.dtype) else value


def _is_float(dtype: Any) -> bool:
    import jax.numpy as jnp

    return dtype is not None and jnp.issubdtype(dtype, jnp.floating)


@contextmanager
def x64(double: bool) -> Iterator[None]:
    """float64 inside, where it is wanted."""
    import jax

    if not double:
        yield
        return
    enable = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
    with enable(True):
        yield


@contextmanager
def ready_nnx(model: Any, double: bool) -> Iterator[Any]:
    """A clone at inference."""
    import jax
    from flax import nnx

    with x64(double):
        found = nnx.clone(model)  # its modules keep their modes and counts
        found.eval()
        if double:
            nnx.update(found, jax.tree.map(widened, nnx.state(found)))
            for _, node in nnx.iter_graph(found):
                for name in ("dtype", "param_dtype"):  # in which cells make their first states
                    if isinstance(node, nnx.Module) and _is_float(getattr(node, name, None)):
                        setattr(node, name, jax.numpy.float64)
        yield found


def modules_nnx(model: Any) -> dict[str, Any]:
    """Path -> module."""
    from flax import nnx

    return {
        ".".join(map(str, path)): node
        for path, node in nnx.iter_graph(model)
        if isinstance(node, nnx.Module) and callable(node)
    }


@contextmanager
def ready_equinox(model: Any, double: bool) -> Iterator[Any]:
    """The module (and state) at inference."""
    import equinox
    import jax

    module, state = model if isinstance(model, tuple) else (model, None)
    with x64(double):
        module = equinox.nn.inference_mode(module)
        if double:
            module, state = jax.tree.map(lambda x: widened(x) if equinox.is_array(x) else x, (module, state))
        yield module if state is None else (module, state)


def modules_equinox(model: Any) -> dict[str, Any]:
    """Path -> module that can be called."""
    found: dict[str, Any] = {}

    def walk(node: Any, path: str) -> None:
        if isinstance(node, (list, tuple)):
            below = [(str(i), value) for i, value in enumerate(node)]
        elif isinstance(node, Mapping):
            below = [(str(key), value) for key, value in node.items()]
        elif family(node) == "equinox":
            if callable(node):
                found[path] = node
            below = [(f.name, getattr(node, f.name)) for f in fields(node) if hasattr(node, f.name)]
        else:
            return
        for name, value in below:
            walk(value, f"{path}.{name}".lstrip("."))

    walk(model[0] if isinstance(model, tuple) else model, "")
    return found


@contextmanager
def ready_flax(model: Any, double: bool) -> Iterator[Any]:
    """The module bound to its variables."""
    import jax

    module, variables = unbound(model)
    with x64(double):
        yield module.bind(jax.tree.map(widened, variables) if double else variables)


def modules_in_calls(model: Any) -> dict[str, Any]:
    """None: flax and haiku make modules while the model is called."""
    return {}
