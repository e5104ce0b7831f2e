"""Live models of jax, mlx and paddle as named tensors: trees flattened, what is no weight left out with its reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from layoutx.empty import NOTHING
from layoutx.errors import ModelError, UsageError
from layoutx.files.dtypes import Array, is_numeric, named, settled
from layoutx.files.store import Store, Tensor
from layoutx.frozen import frozen
from layoutx.model.keyed import Keyed, Module, keyed_store
from layoutx.model.tree_config import Known, module_of

Leaf = tuple[str, Any]
HAIKU = frozenset(["w", "b", "scale", "offset", "embeddings", "w_i", "w_h", "average", "hidden", "counter"])
COUNTERS = ("first_time_index", "batch_counter")  # of an equinox BatchNorm
DEEPEST = 100


@frozen
class Flat:
    """A live model, flattened: its leaves by name, those left out, its modules, and names of one tensor."""

    framework: str
    leaves: Mapping[str, Any]
    leftover: Mapping[str, str] = NOTHING
    modules: Mapping[str, Module] = NOTHING
    tied: Mapping[str, str] = NOTHING


def is_tree(model: Any) -> bool:
    """Whether something is a mapping of arrays, a live model of jax, mlx or paddle, or such a module with its state."""
    return isinstance(head(model), Mapping) or bool(family(head(model)))


def head(model: Any) -> Any:
    """The module of a pair: equinox' (model, state), linen's (module, variables), haiku's (transformed, params)."""
    return model[0] if isinstance(model, tuple) and len(model) in (2, 3) and not family(model) else model


def name_of(model: Any) -> str:
    """What a model that was given is called: its file's name, else its class."""
    return Path(model).name if isinstance(model, (str, Path)) else type(head(model)).__name__


def runs(model: Any) -> bool:
    """Whether a tree is a model with its weights, and not these alone."""
    return callable(head(model)) or family(head(model)) == "haiku"


def tree_keyed(model: Any, known: Known, framework: str = "", inputs: Any = None) -> Keyed:
    """A live model as names; nothing is copied before it is read.

    Args:
        model: linen variables or haiku parameters (nested mappings; `(params, state)`), a linen module that is bound
            or `(module, variables)`, haiku's `(transformed, params)` or `(transformed, params, state)`,
            nnx.Module, nnx.State, equinox.Module or `(module, state)`, mlx.nn.Module, paddle.nn.Layer.
        known: form name -> the config keys that its spec reads, with defaults; None for no such form.
        framework: whose names a nested mapping holds, where it does not show.
        inputs: what the model is run on, in any framework's axis order: a module of jax is traced on their shapes.

    Raises:
        UsageError: a mapping that does not show whose it is, a linen module without its variables.
        ModelError: leaves that are no arrays of numbers.
    """
    flat = _flat(model, known, framework)
    tensors: dict[str, Tensor] = {}
    leftover = dict(flat.leftover)
    for name, value in flat.leaves.items():
        if "key<" in str(getattr(value, "dtype", "")):
            leftover[name] = "random state"
        elif flat.framework == "equinox" and name.endswith(COUNTERS):
            leftover[name] = "a count of updates, told as the layer's config"
        else:
            tensors[name] = tensor_of(name, value)
    if not tensors:
        raise ModelError(f"the {type(model).__name__} holds no arrays")
    store = Store(Path("<live model>"), "live" if flat.framework in ("equinox", "mlx", "paddle") else "tree", tensors)
    found = keyed_store(store, flat.framework)
    modules = {path.replace("/", "."): module for path, module in flat.modules.items()}
    left = {**found.leftover, **leftover}
    found = dataclasses.replace(found, modules=modules, tied=dict(flat.tied), leftover=left)
    if flat.framework in ("nnx", "equinox", "flax", "haiku") and runs(model):
        from layoutx.model.jax_live import with_program

        return with_program(found, model, flat.leaves, known, inputs)
    return found


def leaves_of(model: Any, framework: str = "") -> Mapping[str, Any]:
    """The arrays of a live model by their full names, `params/dense/kernel`, as its tensors have them."""
    return _flat(model, lambda form: None, framework).leaves


def _flat(model: Any, known: Known, framework: str) -> Flat:
    if family(head(model)) == "flax":
        model = unbound(model)
    if _of_haiku(model):
        trees = model if isinstance(model[0], Mapping) else model[1:]
        if not framework and not _haikus(trees[0]):
            say = 'linen variables are one tree: {"params": params, "batch_stats": batch_stats}'
            raise UsageError("these two trees have not the names of haiku's parameters and state", do=say)
        return Flat("haiku", dict(_mapping(dict(zip(("params", "state"), trees, strict=False)), "", 0)))
    model, state = model if isinstance(model, tuple) else (model, None)
    own = family(model)
    if framework and own and framework != own:
        raise UsageError(f"a {type(model).__name__} is of {own}, not of {framework}")
    if own == "flax":
        return Flat("flax", dict(_mapping(state, "", 0)))
    if own == "nnx":
        return _nnx(model, known)
    if own == "equinox":
        modules: dict[str, Module] = {}
        return Flat("equinox", dict(_equinox(model, state, "", modules, known)), modules=modules)
    if own == "mlx":
        return _mlx(model, known)
    if own == "paddle":
        return _paddle(model, known)
    return Flat(framework or _mapping_of(model), dict(_mapping(model, "", 0)))


def family(model: Any) -> str:
    """The framework of a live module, told by the classes that it is made of; nothing is imported for it."""
    homes = {f"{c.__module__}.{c.__name__}" for c in type(model).__mro__}
    if homes & {"flax.nnx.pytreelib.Pytree", "flax.nnx.module.Module", "flax.nnx.statelib.State"}:
        return "nnx"
    if "equinox._module._module.Module" in homes or "equinox._module.Module" in homes:
        return "equinox"
    if "mlx.nn.layers.base.Module" in homes:
        return "mlx"
    if "flax.linen.module.Module" in homes:
        return "flax"
    if homes & {"haiku._src.transform.Transformed", "haiku._src.transform.TransformedWithState"}:
        return "haiku"
    return "paddle" if any(home.startswith("paddle.nn.layer.layers.Layer") for home in homes) else ""


def unbound(model: Any) -> tuple[Any, Mapping[str, Any]]:
    """A linen module and its variables: of a bound one, or as they are.

    Raises:
        UsageError: a module without variables.
    """
    if isinstance(model, tuple) and isinstance(model[1], Mapping):
        return model
    module = head(model)
    if isinstance(model, tuple) or module.scope is None:
        raise UsageError(
            f"the flax module {type(module).__name__} has no variables",
            do="give (module, variables), or module.bind(variables)",
        )
    found: tuple[Any, Mapping[str, Any]] = module.unbind()
    return found


def _of_haiku(model: Any) -> bool:
    """Whether a tuple is haiku's: a transformed function with its trees, or its two trees alone."""
    held = isinstance(model, tuple) and isinstance(model[-1], Mapping)
    return held and (family(head(model)) == "haiku" or (len(model) == 2 and isinstance(model[0], Mapping)))


def _mapping_of(tree: Mapping[str, Any]) -> str:
    """linen variables have the collection params; haiku's trees are two levels deep with names of its own."""
    params = tree.get("params")
    if isinstance(params, Mapping):
        return "haiku" if "state" in tree and _haikus(params) else "flax"
    if _haikus(tree):
        return "haiku"
    raise UsageError(
        "this mapping does not say whose names it holds",
        where="its names: " + ", ".join(map(str, list(tree)[:6])),
        why="linen variables have a key params, haiku's parameters are {module: {w, b}}",
        do='say it: from_="flax" ("nnx", "haiku", "equinox", ...)',
    )


def _haikus(tree: Mapping[str, Any]) -> bool:
    """Whether modules hold arrays under haiku's names; "~" and some others may hold parameters of the user's own."""
    modules = [v for v in tree.values() if isinstance(v, Mapping) and v]
    deep = any(isinstance(leaf, Mapping) for module in modules for leaf in module.values())
    named = sum(set(module) <= HAIKU for module in modules)
    return len(modules) == len(tree) and not deep and 2 * named > len(tree)


def _mapping(tree: Any, prefix: str, depth: int) -> Iterator[Leaf]:
    if depth > DEEPEST:
        raise ModelError("the tree is deeper than any model", why="it may hold itself")
    items = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
    for key, value in items:
        name = f"{prefix}{key}"
        if isinstance(value, (Mapping, list, tuple)):
            yield from _mapping(value, f"{name}/", depth + 1)
        elif value is not None:
            yield name, value


def _nnx(model: Any, known: Known) -> Flat:
    """flax 0.12.8 nnx: paths are attribute names and indices; RNG leaves are typed RngState."""
    from flax import nnx

    live = not isinstance(model, nnx.State)
    leaves, leftover = {}, {}
    for path, variable in nnx.to_flat_state(nnx.state(model) if live else model):
        name = "/".join(_part(part) for part in path)
        if isinstance(variable, nnx.RngState):
            leftover[name] = "random state"
        else:
            leaves[name] = variable.get_value() if isinstance(variable, nnx.Variable) else variable
    modules = {}
    for path, node in nnx.iter_graph(model) if live else ():
        if isinstance(node, nnx.Module):
            modules["/".join(_part(part) for part in path)] = module_of("nnx", "flax.nnx", node, known)
    return Flat("nnx", leaves, leftover, modules)


def _part(part: Any) -> str:
    return "/".join(map(str, part)) if isinstance(part, tuple) else str(part)


def _equinox(node: Any, state: Any, prefix: str, modules: dict[str, Module], known: Known) -> Iterator[Leaf]:
    """equinox 0.13.8: fields in their order; static fields and functions are no weights, state is looked up."""
    if type(node).__name__ == "StateIndex" and type(node).__module__.startswith("equinox"):
        node = node.init if state is None else state.get(node)
        if isinstance(node, tuple) and len(node) == 2 and prefix.endswith("_state_index"):
            node = dict(zip(("mean", "var"), node, strict=True))  # equinox/nn/_batch_norm.py BatchNorm.__call__
    if hasattr(node, "dtype") and hasattr(node, "shape"):
        yield prefix, node
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _equinox(value, state, f"{prefix}.{index}".lstrip("."), modules, known)
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield from _equinox(value, state, f"{prefix}.{key}".lstrip("."), modules, known)
    elif family(node) == "equinox":
        modules[prefix] = _debiased(module_of("equinox", "equinox.nn", node, known), node, state)
        for field in dataclasses.fields(node):
            if not field.metadata.get("static", False) and hasattr(node, field.name):
                yield from _equinox(
                    getattr(node, field.name), state, f"{prefix}.{field.name}".lstrip("."), modules, known
                )


def _debiased(module: Module, node: Any, state: Any) -> Module:
    """equinox 0.13.8 nn/_batch_norm.py, mode "batch": inference divides by 1 - momentum ** batch_counter."""
    if module.config.get("mode") != "batch" or state is None:
        return module
    counter = int(state.get(node.batch_counter))
    debias = 1.0 / (1.0 - float(node.momentum) ** counter) if counter else 1.0
    return dataclasses.replace(module, config={**module.config, "batch_counter": counter, "_debias": debias})


def _mlx(model: Any, known: Known) -> Flat:
    """mlx 0.32 mlx.nn.Module.parameters: dotted names, running statistics among them."""
    from mlx.utils import tree_flatten

    modules = {path: module_of("mlx", "mlx.nn", m, known) for path, m in model.named_modules()}
    return Flat("mlx", dict(tree_flatten(model.parameters())), modules=modules)


def _paddle(model: Any, known: Known) -> Flat:
    """paddle 3.3 paddle.nn.Layer.state_dict: names of one parameter share its `name`."""
    from layoutx.files.paddle_file import tied_by

    leaves = dict(model.state_dict())
    tied = tied_by({name: str(value.name) for name, value in leaves.items()})
    modules = {p: module_of("paddle", "paddle.nn", m, known) for p, m in model.named_sublayers(include_self=True)}
    return Flat("paddle", leaves, modules=modules, tied=tied)


def tensor_of(name: str, value: Any) -> Tensor:
    """A leaf as a lazy tensor.

    Raises:
        ModelError: it is no array of numbers.
    """
    if not hasattr(value, "shape") and not isinstance(value, (int, float)):
        raise ModelError(f"{name} is no array", where=type(value).__name__)
    kind = value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype
    text = str(kind).rpartition(".")[2]  # paddle.float32, mlx.core.float32
    dtype = named(text)
    if dtype is None or not is_numeric(dtype):
        raise ModelError(f"{name} does not hold plain numbers", where=f"dtype {text}")

    def read() -> Array:
        try:
            array = np.asarray(value)
        except (RuntimeError, TypeError, ValueError):  # mlx has no bfloat16 in NumPy's buffer protocol
            import mlx.core as mx

            array = np.asarray(value.view(mx.uint16))
        return settled(array.view(dtype) if array.dtype != dtype and array.dtype.itemsize == dtype.itemsize else array)

    return Tensor(name, dtype, tuple(getattr(value, "shape", ())), read)
