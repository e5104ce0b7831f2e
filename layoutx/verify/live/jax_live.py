"""What the runners of JAX share: 64-bit numbers for a while, weights by path, cells over time, words of functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from importlib import import_module
from typing import Any

import numpy as np

from layoutx.errors import UsageError
from layoutx.verify.live.arrays import Array, Arrays, options, refused

OWN = ("rank", "kernel_dims", "bias_dims")  # keys that only specs read
WRAPPERS = {"RNN": ("time_major", "reverse", "keep_order"), "Bidirectional": ("merge_fn", "time_major")}


@contextmanager
def x64() -> Iterator[None]:
    """64-bit numbers inside, whatever the process has chosen; all on the CPU, where products are not rounded."""
    import jax

    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        yield


def class_named(form: str, module: str) -> str:
    """The class of a form, which has to be one of this module's: `Linear` of equinox.nn. Raises UsageError."""
    name = form.partition(".")[2]
    if not isinstance(getattr(import_module(module), name, None), type):
        raise UsageError(f"{module} has no {name}")
    return name


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"ii": {"kernel": a}} -> {"ii/kernel": a}."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        found |= flat(value, f"{prefix}{key}/") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def tree(values: Mapping[str, Any]) -> dict[str, Any]:
    """{"ii/kernel": a} -> {"ii": {"kernel": a}}."""
    nested: dict[str, Any] = {}
    for path, value in values.items():
        *folders, leaf = path.split("/")
        at = nested
        for folder in folders:
            at = at.setdefault(folder, {})
        at[leaf] = value
    return nested


def fill(form: str, shapes: Mapping[str, Sequence[int]], tensors: Arrays) -> dict[str, Array]:
    """The tensors in the order of the layer's own paths. Raises BindError: missing, unknown, or of another shape."""
    if set(shapes) != set(tensors) or any(tuple(shapes[name]) != np.shape(a) for name, a in tensors.items()):
        real = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        raise refused(form, tensors, f"the layer has {real or 'no weights'}")
    return {name: tensors[name] for name in shapes}


def activation(name: Any) -> Any:
    """The function that a config's word names, in jax.nn or as facts spell it; what is callable already stays.

    Raises UsageError for other words.
    """
    import jax
    from jax import numpy as jnp

    if callable(name):
        return name
    word, _, slope = str(name).rpartition("_")
    known = {"linear": lambda x: x, "tanh": jnp.tanh, "exponential": jnp.exp, "softsign": jax.nn.soft_sign}
    if str(name) in known:
        return known[str(name)]
    if hasattr(jax.nn, str(name)):
        return getattr(jax.nn, str(name))
    if word == "hard_sigmoid":  # a function that only a user's own lambda can be
        return lambda x: jnp.clip(float(Fraction(slope)) * x + 0.5, 0.0, 1.0)
    raise UsageError(f"jax.nn has no function {name!r}")


def merge(name: Any) -> Any:
    """What joins two directions: concatenate (along the last axis), add, multiply, average. Raises UsageError."""
    from jax import numpy as jnp

    known: dict[str, Callable[..., Any]] = {
        "concatenate": lambda a, b: jnp.concatenate([a, b], axis=-1),
        "add": jnp.add,
        "multiply": jnp.multiply,
        "average": lambda a, b: (a + b) / 2,
    }
    if callable(name) or name in known:
        return known.get(name, name)
    raise UsageError(f"no function joins two directions as {name!r}", where=f"known: {', '.join(known)}")


def built(library: Any, form: str, config: Mapping[str, Any], more: Callable[[str], Mapping[str, Any]]) -> Any:
    """A module of flax.linen or flax.nnx, alone or as the cell of its `RNN` or, made twice, of its `Bidirectional`.

    Args:
        config: keywords of all of them, functions by name. more: class name -> keywords that no config says.

    Raises:
        UsageError: no such module, no such function. BindError: it does not take the config.
    """
    whole = form.partition(".")[2]
    wrapper, _, name = whole.rpartition(".")
    name = "ConvLocal" if name in ("ConvLocal1D", "ConvLocal2D") else name
    if not hasattr(library, name) or wrapper not in ("", *WRAPPERS):
        raise UsageError(f"{library.__name__} has no module {whole}")
    given = {key: tupled(value) for key, value in options(config, *OWN).items()}
    around = {key: given.pop(key) for key in WRAPPERS.get(wrapper, ()) if key in given}
    given |= {key: activation(given[key]) for key in ("gate_fn", "activation_fn") if key in given}
    given |= {"use_running_average": True} if name == "BatchNorm" else {}
    given |= more(name)
    around |= {"merge_fn": merge(around["merge_fn"])} if "merge_fn" in around else {}
    cell = getattr(library, name)
    try:
        if wrapper == "RNN":
            return library.RNN(cell(**given), **around)
        if wrapper == "Bidirectional":
            return library.Bidirectional(library.RNN(cell(**given)), library.RNN(cell(**given)), **around)
        return cell(**given)
    except (TypeError, ValueError) as error:
        raise refused(form, {}, error) from error


def tupled(value: Any) -> Any:
    """Lists as JSON has them -> tuples, at every depth."""
    return tuple(map(tupled, value)) if isinstance(value, (list, tuple)) else value


def over_time(step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, x: Any) -> tuple[Any, Any]:
    """`step(carry, x of one time) -> (carry, y)` over x (batch, time, ...): the last carry, y (batch, time, ...)."""
    from jax import numpy as jnp

    outputs = []
    for t in range(x.shape[1]):
        carry, y = step(carry, x[:, t])
        outputs.append(y)
    return carry, jnp.stack(outputs, axis=1)


def states(*carries: Any) -> dict[str, Any]:
    """Carries of flax, one a direction, h or (c, h) -> h and c as (direction, batch, ...)."""
    from jax import numpy as jnp

    if isinstance(carries[0], tuple):
        return {"h": jnp.stack([h for _, h in carries]), "c": jnp.stack([c for c, _ in carries])}
    return {"h": jnp.stack(carries)}
