"""How modules of nnx, equinox, flax, mlx and paddle are copied, turned to float64, called and looked into."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from layoutx.errors import UsageError
from layoutx.frozen import frozen
from layoutx.model.tree import family, head
from layoutx.plan.plan import Array
from layoutx.verify.running.events import Event, watched
from layoutx.verify.running.nested import Arguments, Place, flattened
from layoutx.verify.running.tree_calls import Result, ready_haiku, run_flax, run_haiku
from layoutx.verify.running.tree_jax import (
    is_jax,
    jax_tensor,
    modules_equinox,
    modules_in_calls,
    modules_nnx,
    ready_equinox,
    ready_flax,
    ready_nnx,
)

READY = {"nnx": ready_nnx, "equinox": ready_equinox, "flax": ready_flax, "haiku": ready_haiku}


@frozen
class Family:
    """One framework.

    Attributes:
        doubles: whether it computes in float64.
        ready: (model, double) -> a context with the model at inference, a copy where possible.
        modules: model -> module path with dots -> module; "" the model itself.
        run: (model, inputs) -> outputs and calls.
        convert: an array as the framework's; array: the other way; is_tensor: whether it is one with numbers in it.
    """

    name: str
    doubles: bool
    ready: Callable[[Any, bool], AbstractContextManager[Any]]
    modules: Callable[[Any], Mapping[str, Any]]
    convert: Callable[[Array], Any]
    array: Callable[[Any], Array]
    is_tensor: Callable[[Any], bool]

    def version(self) -> str:
        """Of the framework's package."""
        from importlib.metadata import version

        return version({"nnx": "flax", "paddle": "paddlepaddle", "haiku": "dm-haiku"}.get(self.name, self.name))

    def run(self, model: Any, inputs: Sequence[Array]) -> Result:
        """The whole model on these inputs: its outputs, the calls, and modules that only the run knows."""
        if self.name == "equinox":
            return _run_equinox(self, model, inputs)
        if self.name == "flax":
            return run_flax(self, model, inputs)
        if self.name == "haiku":
            return run_haiku(self, model, inputs)
        with watched(self.modules(model), self.is_tensor, self.array) as events:
            result = model(*map(self.convert, inputs))
        return self.flat(result), events, {}

    def alone(
        self, model: Any, module: Any, inputs: Sequence[Array], names: tuple[str, ...], form: Arguments | None
    ) -> tuple[Array, ...]:
        """One module called as the last run called it; of equinox sample by sample."""
        form = form or Arguments((), names, tuple(_places(names)), {})

        def called(tensors: Sequence[Array]) -> tuple[Array, ...]:
            args, kwargs = form.filled([self.convert(a) for a in tensors])
            return self.flat(module(*args, **kwargs))

        if self.name != "equinox":
            return called(inputs)
        rows = [called(row) for row in zip(*inputs, strict=True)]
        return tuple(np.stack(column) for column in zip(*rows, strict=True))

    def flat(self, result: Any) -> tuple[Array, ...]:
        """All arrays in a result."""
        return tuple(self.array(t) for t in flattened(result, self.is_tensor))


def family_of(model: Any) -> Family:
    """The family of a live module, an equinox (module, state), a flax (module, variables) or a bound flax module.

    Raises:
        UsageError: none of these.
    """
    name = family(head(model))
    if name in READY:
        ready, modules = READY[name], {"nnx": modules_nnx, "equinox": modules_equinox}.get(name, modules_in_calls)
        return Family(name, True, ready, modules, jax_tensor, np.asarray, is_jax)
    if name == "mlx":
        return Family(name, False, _ready_mlx, _modules_mlx, _mlx_tensor, _mlx_array, _is_mlx)
    if name == "paddle":
        return Family(name, True, _ready_paddle, _modules_paddle, _paddle_tensor, np.asarray, _is_paddle)
    raise UsageError(f"a {type(model).__name__} cannot be run", do="give the live module")


def _places(names: Sequence[str]) -> Iterator[Any]:
    yield from (Place(i) for i, name in enumerate(names) if not name)


def _run_equinox(kind: Family, model: Any, inputs: Sequence[Array]) -> Result:
    """equinox modules take one sample: one after the other, or the whole batch where only that runs."""
    module, state = model if isinstance(model, tuple) else (model, None)

    def call(arrays: Sequence[Array]) -> Result:
        with watched(kind.modules(model), kind.is_tensor, kind.array) as events:
            given = [kind.convert(a) for a in arrays]
            result = module(*given) if state is None else module(*given, state)[0]
        return kind.flat(result), events, {}

    try:
        rows = [call(row) for row in zip(*inputs, strict=True)]
        outputs = tuple(np.stack(column) for column in zip(*(row for row, *_ in rows), strict=True))
        return outputs, [_stacked(same) for same in zip(*(seen for _, seen, _ in rows), strict=True)], {}
    except Exception as error:  # a module written for a batch; else the first error says more
        try:
            return call(inputs)
        except Exception:
            raise error from None


def _stacked(events: Sequence[Event]) -> Event:
    first = events[0]
    inputs, outputs = (
        tuple(np.stack(column) for column in zip(*(getattr(e, side) for e in events), strict=True))
        for side in ("inputs", "outputs")
    )
    return Event(first.layer, first.class_name, first.given, inputs, outputs)


@contextmanager
def _ready_mlx(model: Any, double: bool) -> Iterator[Any]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield model
    finally:
        for module in training:
            module._training = True  # train() would reach the modules below it too


def _modules_mlx(model: Any) -> dict[str, Any]:
    return dict(reversed(list(model.named_modules())))


def _mlx_tensor(array: Array) -> Any:
    import mlx.core as mx

    return mx.array(array.astype(np.float32) if array.dtype == np.float64 else array)


def _mlx_array(value: Any) -> Array:
    import mlx.core as mx

    return np.array(value.astype(mx.float32) if value.dtype == mx.bfloat16 else value)


def _is_mlx(value: Any) -> bool:
    import mlx.core as mx

    return isinstance(value, mx.array)


@contextmanager
def _ready_paddle(model: Any, double: bool) -> Iterator[Any]:
    import copy

    import paddle

    found = copy.deepcopy(model)
    found.eval()
    default = paddle.get_default_dtype()
    try:
        if double:  # new tensors, and what goes in
            paddle.set_default_dtype("float64")
        with paddle.no_grad():
            yield found.to(dtype="float64") if double else found
    finally:
        paddle.set_default_dtype(default)


def _modules_paddle(model: Any) -> dict[str, Any]:
    return dict(model.named_sublayers(include_self=True))


def _paddle_tensor(array: Array) -> Any:
    import paddle

    return paddle.to_tensor(array.astype(paddle.get_default_dtype()) if array.dtype.kind == "f" else array)


def _is_paddle(value: Any) -> bool:
    import paddle

    return isinstance(value, paddle.Tensor)
