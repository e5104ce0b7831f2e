"""A torch module as a program, seen in one real run: for modules whose forward asks for values and cannot be traced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from layoutx.model.torch_program import Op, Program, Ref, base
from layoutx.model.torch_trace import SAID, holds
from layoutx.plan.plan import Array
from layoutx.verify.plain import said
from layoutx.verify.running.nested import flattened
from layoutx.verify.running.torch_run import TorchRunner
from layoutx.verify.running.torch_watch import calm, is_tensor, tensor


@dataclass
class _Seen:
    """What ran so far: values by their identity, kept alive so that no other takes it."""

    names: dict[int, str] = field(default_factory=dict)
    kept: list[Any] = field(default_factory=list)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    inside: int = 0  # of how many of torch's own modules

    def name(self, value: Any, fresh: bool = False) -> str:
        """A value's name; `fresh`: an operation has just made it, or written into it."""
        if fresh or id(value) not in self.names:
            self.names[id(value)] = f"v{len(self.kept)}"
            self.kept.append(value)
            self.shapes[self.names[id(value)]] = tuple(value.shape)
        return self.names[id(value)]

    def value(self, given: Any) -> Any:
        """An argument of an operation, with names for tensors."""
        if is_tensor(given):
            return Ref(self.name(given))
        return [self.value(one) for one in given] if isinstance(given, (list, tuple)) else given

    def add(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], made: Any, path: str, kind: str) -> None:
        """One operation that ran; `path`: the module that it stands for, "" of none."""
        args_ = tuple(self.value(one) for one in args)
        kwargs_ = {key: self.value(one) for key, one in kwargs.items()}
        outputs = tuple(self.name(one, True) for one in flattened(made, is_tensor))
        stack = ((path, kind),) if path else ()
        if outputs:
            self.ops.append(Op(base(name), args_, kwargs_, outputs, stack, whole=bool(path)))


def seen(
    module: Any,
    inputs: Sequence[Array],
    keywords: Sequence[str] = (),
    devices: Sequence[str | None] = ("meta", None),
    refused: list[str] | None = None,
) -> Program | None:
    """What a copy of the module computes on these inputs; None where it does not run on them.

    It is run without numbers first, which takes neither time nor memory: sizes are what most modules ask for.

    Args:
        keywords: the argument of each input; () where they are given by position.
        devices: where it is tried, None being its own.
        refused: is told why it did not run where its numbers are.
    """
    for device in devices:
        try:
            return _seen(TorchRunner(module).copy(False), inputs, keywords, device)
        except Exception as error:  # any code of the user's may run here
            if refused is not None and device is None:
                refused.append(said(error, 160))
    return None


def _seen(model: Any, inputs: Sequence[Array], keywords: Sequence[str], device: str | None) -> Program:
    model = model if device is None else model.to(device)
    kind = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    device = device or next((p.device for p in model.parameters()), "cpu")
    found = _Seen()
    state = {name: one for name, one in model.state_dict(keep_vars=True).items() if is_tensor(one)}
    weights: dict[str, str] = {}
    for name, one in state.items():
        weights.setdefault(found.name(one), name)
    given = [tensor(array, kind, device) for array in inputs]
    names = tuple(found.name(one) for one in given)
    with calm(False), _watching(model, found):
        result = model(**dict(zip(keywords, given, strict=True))) if keywords else model(*given)
        made = tuple(found.name(one) for one in flattened(result, is_tensor))
    return Program(tuple(found.ops), weights, names, found.shapes, made)


@contextmanager
def _watching(model: Any, found: _Seen) -> Iterator[None]:
    """Every function of torch and every call of torch's own modules; what these do inside is theirs."""
    from torch.overrides import TorchFunctionMode

    class Watch(TorchFunctionMode):  # type: ignore[misc]  # torch is not typed here
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
        ) -> Any:
            made = func(*args, **(kwargs or {}))
            if not found.inside:
                name = getattr(func, "__name__", "")
                name = getattr(func.__self__, "__name__", "") if name == "__get__" else name
                found.add(name, args, kwargs or {}, args[0] if name == "__setitem__" else made, "", "")
            return made

    def before(module: Any, args: Any) -> None:
        found.inside += 1

    def after(path: str) -> Callable[..., None]:
        def hook(module: Any, args: Any, kwargs: Any, made: Any) -> None:
            found.inside -= 1
            if not found.inside:
                kind = type(module)
                said = {key: getattr(module, key) for key in SAID if hasattr(module, key)}
                found.add(kind.__name__, args, {**kwargs, **said}, made, path, f"{kind.__module__}.{kind.__qualname__}")

        return hook

    handles = []
    try:
        for path, module in model.named_modules():
            if path and _whole(module):
                handles.append(module.register_forward_pre_hook(before))
                handles.append(module.register_forward_hook(after(path), with_kwargs=True))
        with Watch():
            yield
    finally:
        for handle in handles:
            handle.remove()


def _whole(module: Any) -> bool:
    """Modules that torch.fx leaves whole (torch 2.13 torch/fx/_symbolic_trace.py Tracer.is_leaf_module), but for
    those that are made of layers."""
    import torch

    own = type(module).__module__.startswith("torch.nn") and not isinstance(module, torch.nn.Sequential)
    return own and not holds(module)
