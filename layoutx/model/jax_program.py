"""A live model of jax as a program: traced on stand-ins of its weights and inputs; nothing is computed."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from layoutx.empty import NOTHING
from layoutx.frozen import frozen
from layoutx.model.alone import alone
from layoutx.model.jax_inputs import StandIn
from layoutx.model.keyed import Module

Call = Callable[..., Any]
OFF = {"train": False, "training": False, "is_training": False, "deterministic": True, "inference": True}
Seen = Callable[[str, Any], None]  # told each module of the run: its path and itself


@frozen
class Traced:
    """A jaxpr and what goes into it.

    Attributes:
        jaxpr: jax' own `ClosedJaxpr`.
        weights: for each of its first inputs the model's name of that leaf; "" of leaves that are no weights.
        modules: path -> what the run told of a module, where the model itself does not hold its modules.
    """

    jaxpr: Any
    weights: tuple[str, ...]
    modules: Mapping[str, Module] = NOTHING


@frozen
class Function:
    """A model as a function of the leaves of its weights and of its inputs."""

    call: Call
    leaves: Sequence[Any]


@alone()
def traced(
    model: Any,
    framework: str,
    names: Mapping[int, str],
    variants: Iterable[Sequence[StandIn]],
    described: Callable[[Any], Module],
) -> Traced | None:
    """The program of a live model on the first of these inputs that it takes; None where it takes none of them.

    Args:
        model: an nnx or equinox module, or a flax or haiku model with its weights, as `model.tree` takes them.
        names: id of a leaf -> its name in the model.
        variants: shapes and dtypes of the inputs.
        described: what a module of flax or haiku says of itself.
    """
    import jax

    modules: dict[str, Module] = {}

    def seen(path: str, module: Any) -> None:
        modules.setdefault(path, described(module))

    try:
        found = CALLS[framework](model, seen)
    except Exception:  # any code of the user's may run here
        return None
    weights = tuple(names.get(id(leaf), "") for leaf in found.leaves)
    for inputs in variants:
        modules.clear()
        given = [jax.ShapeDtypeStruct(one.shape, one.dtype) for one in inputs]
        try:
            with warnings.catch_warnings():  # of sizes that are only tried
                warnings.simplefilter("ignore")
                return Traced(jax.make_jaxpr(found.call)(list(found.leaves), *given), weights, dict(modules))
        except Exception:  # inputs of another shape
            continue
    return None


def _nnx(model: Any, seen: Seen) -> Function:
    import jax
    from flax import nnx

    model = nnx.clone(model)  # its modules keep their modes and counts
    model.eval()
    graph, state = nnx.split(model)
    leaves, tree = jax.tree_util.tree_flatten(state)

    def call(values: Sequence[Any], *inputs: Any) -> Any:
        return nnx.merge(graph, jax.tree_util.tree_unflatten(tree, values))(*inputs)

    return Function(call, leaves)


def _equinox(model: Any, seen: Seen) -> Function:
    """equinox modules take one sample: over the batch, or whole where only that runs."""
    import equinox
    import jax

    module, state = model if isinstance(model, tuple) else (model, None)
    arrays, rest = equinox.partition(equinox.nn.inference_mode(module), equinox.is_array)
    leaves, tree = jax.tree_util.tree_flatten(arrays)

    def call(values: Sequence[Any], *inputs: Any) -> Any:
        own = equinox.combine(jax.tree_util.tree_unflatten(tree, values), rest)

        def one(*sample: Any) -> Any:
            return own(*sample) if state is None else own(*sample, state)[0]

        try:
            return jax.vmap(one)(*inputs)
        except Exception:
            return one(*inputs)

    return Function(call, leaves)


def _flax(model: Any, seen: Seen) -> Function:
    import jax
    from flax import linen

    from layoutx.model.tree import unbound

    module, variables = unbound(model)
    leaves, tree = jax.tree_util.tree_flatten(variables)

    def watch(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name == "__call__":
            seen(".".join(context.module.path), context.module)
        return call(*args, **kwargs)

    def call(values: Sequence[Any], *inputs: Any) -> Any:
        with linen.intercept_methods(watch):
            return module.apply(jax.tree_util.tree_unflatten(tree, values), *inputs, **at_inference(module))

    return Function(call, leaves)


def _haiku(model: Any, seen: Seen) -> Function:
    import haiku
    import jax

    leaves, tree = jax.tree_util.tree_flatten(tuple(model[1:]))

    def watch(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name == "__call__":
            seen(context.module.module_name.replace("/", "."), context.module)
        return call(*args, **kwargs)

    def call(values: Sequence[Any], *inputs: Any) -> Any:
        with haiku.intercept_methods(watch):
            return transformed(model[0], jax.tree_util.tree_unflatten(tree, values), inputs)

    return Function(call, leaves)


def transformed(model: Any, weights: Sequence[Any], inputs: Sequence[Any]) -> Any:
    """What a transformed function of haiku gives at inference; dm-haiku 0.0.17: its `apply` has the arguments of both.

    Args:
        weights: its parameters, and its state where it has one, which is not given back.
    """
    random = [None] if "rng" in inspect.signature(model.apply).parameters else []
    found = model.apply(*weights, *random, *inputs, **switches(model.apply))
    return found[0] if len(weights) > 1 else found


def at_inference(module: Any) -> dict[str, bool]:
    """The switches of a module's call, as `switches`."""
    return switches(type(module).__call__)


def switches(call: Call) -> dict[str, bool]:
    """The switches of a call that are not at inference by themselves: `train: bool`, `train: bool = True`."""
    given = inspect.signature(call).parameters.values()
    return {p.name: OFF[p.name] for p in given if p.name in OFF and p.default is not OFF[p.name]}


CALLS: Mapping[str, Callable[[Any, Seen], Function]] = {
    "nnx": _nnx, "equinox": _equinox, "flax": _flax, "haiku": _haiku
}  # fmt: skip
