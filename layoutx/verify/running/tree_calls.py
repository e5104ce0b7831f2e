"""Runs of flax and haiku, which make their modules while a model is called: each call seen as it is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from layoutx.model.jax_program import at_inference, transformed
from layoutx.plan.plan import Array
from layoutx.verify.running.events import Event
from layoutx.verify.running.nested import arguments
from layoutx.verify.running.tree_jax import widened, x64

Result = tuple[tuple[Array, ...], list[Event], dict[str, Any]]  # outputs, calls, modules that only the run knows


class Kind(Protocol):
    """What of a family is needed."""

    @property
    def convert(self) -> Callable[[Array], Any]:
        """An array as the framework's."""

    @property
    def array(self) -> Callable[[Any], Array]:
        """The other way."""

    @property
    def is_tensor(self) -> Callable[[Any], bool]:
        """Whether it is one with numbers in it."""

    def flat(self, result: Any) -> tuple[Array, ...]:
        """All arrays in a result."""


@dataclass
class _Seen:
    kind: Kind
    events: list[Event] = field(default_factory=list)
    parts: dict[str, Any] = field(default_factory=dict)  # path -> a function that gives the module to be called alone

    def call(self, named: Callable[[], str], part: Callable[[], Any], module: Any, call: Any, given: Any) -> Any:
        """One call of one module; those without numbers, inside a loop of jax, are not kept.

        Args:
            named, part: asked of calls with numbers.
        """
        args, kwargs = given
        result = call(*args, **kwargs)
        outputs = self.kind.flat(result)
        if outputs:
            name = named()
            form = arguments(args, kwargs, self.kind.is_tensor)
            inputs = tuple(self.kind.array(t) for t in form.tensors)
            self.parts.setdefault(name, part())
            self.events.append(Event(name, type(module).__name__, form.form(), inputs, outputs))
        return result


def run_flax(kind: Kind, model: Any, inputs: Sequence[Array]) -> Result:
    """A bound linen module; where it scans over layers, once more layer by layer."""
    import jax

    seen, roots = _Seen(kind), dict[str, None]()
    outputs = _flax(seen, model, inputs, str, lambda name, module: _note(roots, name, module, model.variables))
    if not roots:
        return outputs, seen.events, seen.parts
    counts = Counter[str]()

    def numbered(name: str) -> str:
        root = next((root for root in roots if name == root or name.startswith(f"{root}.")), None)
        if root is None:
            return name
        return f"{root}.{counts[root] - 1}{name[len(root) :]}"

    def entered(name: str, module: Any) -> None:
        if name in roots and all(map(kind.is_tensor, jax.tree.leaves(module.variables))):
            counts[name] += 1  # what is called from now on is called by this layer, steps of loops over time too

    again = _Seen(kind)
    with jax.disable_jit():  # a loop of jax is one of Python so, and every layer of it is called with numbers
        _flax(again, model, inputs, numbered, entered)
    known = {event.layer for event in seen.events}  # loops over time are left as they were
    events = [e for e in again.events if e.layer in known or any(e.layer.startswith(f"{root}.") for root in roots)]
    return outputs, events, {**again.parts, **seen.parts}


def _note(roots: dict[str, None], name: str, module: Any, variables: Mapping[str, Any]) -> None:
    """Note the path of a module that is called with a part of its variables: one layer of a stack."""
    inside = any(name.startswith(f"{root}.") for root in roots)
    if not inside and _shapes(module.variables) != _shapes(_below(variables, module.path)):
        roots.setdefault(name)


def _flax(
    seen: _Seen, model: Any, inputs: Sequence[Array], named: Callable[[str], str], note: Callable[[str, Any], None]
) -> tuple[Array, ...]:
    from flax import linen

    def interceptor(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        name = ".".join(module.path)
        note(name, module)
        return seen.call(partial(named, name), lambda: partial(_bound, *module.unbind()), module, call, (args, kwargs))

    with linen.intercept_methods(interceptor):
        result = model(*(seen.kind.convert(a) for a in inputs), **at_inference(model))
    return seen.kind.flat(result)


def _bound(module: Any, variables: Any) -> Any:
    return module.bind(variables)


def _below(variables: Mapping[str, Any], path: Sequence[str]) -> dict[str, Any]:
    """Collection -> what it holds for a module; nothing where it holds nothing."""
    found = {}
    for name, tree in variables.items():
        for step in path:
            tree = tree.get(step, {}) if isinstance(tree, Mapping) else {}
        if tree:
            found[name] = tree
    return found


def _shapes(variables: Mapping[str, Any]) -> Any:
    import jax

    found = jax.tree_util.tree_leaves_with_path(variables)
    return {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in found if hasattr(leaf, "shape")}


@contextmanager
def ready_haiku(model: Any, double: bool) -> Iterator[Any]:
    """The transformed function with its trees."""
    import jax

    with x64(double):
        yield (model[0], *(jax.tree.map(widened, tree) if double else tree for tree in model[1:]))


def run_haiku(kind: Kind, model: Any, inputs: Sequence[Array]) -> Result:
    """A transformed function; a module of it is called alone inside a function of its own."""
    import haiku

    seen = _Seen(kind)

    def watch(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        module = context.module
        name = partial(module.module_name.replace, "/", ".")
        return seen.call(name, lambda: partial(_part_of_haiku, module, model[1:]), module, call, (args, kwargs))

    with haiku.intercept_methods(watch):
        result = transformed(model[0], model[1:], [kind.convert(a) for a in inputs])
    return kind.flat(result), seen.events, seen.parts


def _part_of_haiku(module: Any, trees: Sequence[Any]) -> Callable[..., Any]:
    import haiku

    def called(*args: Any, **kwargs: Any) -> Any:
        whole = haiku.transform_with_state(lambda: module(*args, **kwargs))
        return whole.apply(trees[0], trees[1] if len(trees) > 1 else {}, None)[0]

    return called
