"""Calls of torch modules seen by hooks, and torch tensors as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from layoutx.model.keyed import torch_tensor
from layoutx.plan.plan import Array
from layoutx.verify.running.events import Event
from layoutx.verify.running.nested import Arguments, arguments, flattened
from layoutx.verify.running.untouched import same_random

Seen = tuple[Any, int]  # a tensor and its version counter when it was seen


@dataclass(slots=True)
class Hooked:
    """One call of one module, while it is recorded."""

    layer: str
    class_name: str
    given: Arguments
    inputs: list[Seen]
    outputs: list[Seen] = field(default_factory=list)


def is_tensor(value: Any) -> bool:
    """Whether a value is a torch tensor that NumPy can hold."""
    import torch

    return isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_quantized


def tensor(array: Array, dtype: Any, device: Any) -> Any:
    """An array as a tensor of its own; floats take the model's dtype."""
    import torch

    found = torch.from_numpy(np.array(array, order="C"))
    return found.to(device, dtype) if found.is_floating_point() and dtype is not None else found.to(device)


def tensor_array(value: Any) -> Array:
    """A tensor as an array, without a copy where it lies on the CPU row by row."""
    found: Array = torch_tensor("a value", value.resolve_conj().resolve_neg()).read()
    return found


class Arrays:
    """Tensors as arrays, one array for each tensor."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[Any, Array]] = {}

    def of(self, value: Any) -> Array:
        """The tensor as an array."""
        if id(value) not in self.known:
            self.known[id(value)] = (value, tensor_array(value))
        return self.known[id(value)][1]

    def event(self, seen: Hooked) -> Event:
        """The call with arrays."""
        inputs, outputs = (tuple(self.of(t) for t, _ in side) for side in (seen.inputs, seen.outputs))
        return Event(seen.layer, seen.class_name, seen.given.form(), inputs, outputs)


@contextmanager
def calm(double: bool) -> Iterator[None]:
    """No gradients, no fused paths that go round the submodules, random states kept; new tensors are float64 too."""
    import torch

    with ExitStack() as stack:
        stack.enter_context(same_random())
        fast = torch.backends.mha.get_fastpath_enabled()
        default = torch.get_default_dtype()
        stack.enter_context(torch.no_grad())
        try:
            torch.backends.mha.set_fastpath_enabled(False)
            if double:
                torch.set_default_dtype(torch.float64)
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            torch.set_default_dtype(default)


def hooked(
    model: Any, names: Mapping[str, str], args: Sequence[Any], kwargs: Mapping[str, Any], double: bool, keep: bool
) -> tuple[list[Hooked], Any]:
    """Every call of every module in the order in which they ended, and the result.

    What a module with `inplace` is given is copied before it writes there.

    Args:
        keep: copy each tensor as soon as it is seen.
    """
    events: list[Hooked] = []
    open_: list[Hooked] = []

    copies: dict[tuple[int, int], tuple[Any, Any]] = {}

    def seen(value: Any) -> Seen:
        if keep:
            kept = copies.setdefault((id(value), value._version), (value, value.clone()))
            value = kept[1]
        return value, value._version

    def before(path: str) -> Any:
        def hook(module: Any, given: Any, named: Any) -> None:
            found = arguments(*unpacked(module, given, named), is_tensor)
            if getattr(module, "inplace", False) is True and not keep:
                copies.update({(id(t), t._version): (t, t.clone()) for t in found.tensors})
            open_.append(Hooked(path, type(module).__name__, found, [seen(t) for t in found.tensors]))

        return hook

    def after(module: Any, given: Any, named: Any, result: Any) -> None:
        event = open_.pop()
        shown = [_padded(module, value)[0] for value in result] if isinstance(result, tuple) else result
        event.outputs = [seen(t) for t in flattened(shown, is_tensor)]
        events.append(event)

    handles = []
    try:
        for path, module in model.named_modules():
            if path in names and not scripted(module):
                handles.append(module.register_forward_pre_hook(before(path), with_kwargs=True))
                handles.append(module.register_forward_hook(after, with_kwargs=True))
        with calm(double):
            result = model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    for event in events:
        event.inputs, event.outputs = ([as_seen(one, copies) for one in side] for side in (event.inputs, event.outputs))
    return events, result


def as_seen(one: Seen, copies: Mapping[tuple[int, int], tuple[Any, Any]]) -> Seen:
    """A tensor as it was when it was seen, where something wrote into it since and there is a copy."""
    value, version = one
    if value._version == version or (id(value), version) not in copies:
        return one
    kept = copies[id(value), version][1]
    return kept, kept._version


def unpacked(module: Any, given: Sequence[Any], named: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with packed sequences padded, and the steps that count as `mask` (batch, time)."""
    masks: dict[str, Any] = {}
    found = []
    for value in given:
        padded, mask = _padded(module, value)
        found.append(padded)
        masks = {"mask": mask} if mask is not None else masks
    return tuple(found), {**named, **masks}


def _padded(module: Any, value: Any) -> tuple[Any, Any]:
    """A packed sequence with zeros behind each end, in the module's order of axes, and its mask; else value, None."""
    import torch

    if not isinstance(value, torch.nn.utils.rnn.PackedSequence):
        return value, None
    first = bool(getattr(module, "batch_first", False))
    found, lengths = torch.nn.utils.rnn.pad_packed_sequence(value, batch_first=first)
    steps = torch.arange(found.shape[1 if first else 0])
    return found, steps[None, :] < lengths[:, None]


def scripted(module: Any) -> bool:
    """A compiled submodule is called from compiled code: its hooks never run."""
    import torch

    return isinstance(module, torch.jit.ScriptModule)
