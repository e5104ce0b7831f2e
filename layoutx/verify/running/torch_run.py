"""A live torch module: run on a float64 copy of itself, every submodule's inputs and outputs recorded by hooks."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import signature
from typing import Any

import numpy as np

from layoutx.errors import LayoutxError, ModelError
from layoutx.plan.plan import Array
from layoutx.verify.recording import Recording
from layoutx.verify.running.events import Event, calls_of, seen_form
from layoutx.verify.running.given import Inputs, no_layer, only_one, resolved, said, widest, widest_layer
from layoutx.verify.running.nested import arguments, flattened
from layoutx.verify.running.torch_watch import Arrays, calm, hooked, is_tensor, scripted, tensor, tensor_array
from layoutx.verify.running.untouched import same_random
from layoutx.version import public


@dataclass
class TorchRunner:
    """Runs copies of a torch module; the module itself is never called and never changed."""

    model: Any
    framework: str = "torch"
    copies: dict[bool, Any] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    def layers(self) -> Mapping[str, str]:
        """Module path -> class name, "" the model itself; a shared module under its first path."""
        return {path: type(module).__name__ for path, module in self.model.named_modules()}

    def inputs(self, long: bool = False) -> tuple[Array, ...]:
        """A torch module does not know the shapes of its inputs."""
        return ()

    def record(self, inputs: Inputs, double: bool = True) -> Recording:
        """One run at inference, in float64 where the model can (`note` says why not).

        Raises:
            UsageError: the model does not run on these inputs.
        """

        def noted(wide: bool, note: str) -> Recording:
            found = self._recorded(inputs, wide)
            return replace(found, note="; ".join(n for n in (note, found.note) if n))

        return widest(noted, double)

    def layer(self, name: str, inputs: Sequence[Array], names: Sequence[str] = ()) -> tuple[Array, ...]:
        """What one module of the float64 copy gives alone; in the model's own dtype where float64 fails.

        Raises:
            UsageError: there is no module of this path. ModelError: it does not run on these inputs.
        """
        name = resolved(name, self.layers())
        if name not in self.layers():
            raise no_layer(name, self.layers())

        def run(double: bool) -> tuple[Array, ...]:
            module = dict(self.copy(double).named_modules())[name]
            args, kwargs = self._call_of(name, module, inputs, names, double)
            with calm(double):
                return tuple(tensor_array(t) for t in flattened(module(*args, **kwargs), is_tensor))

        return widest_layer(run, name)

    def repeat(self, inputs: Inputs) -> tuple[tuple[Array, ...], tuple[Array, ...], tuple[Array, ...]] | None:
        """Outputs in the model's own mode, twice, and at inference: they differ where it was left in training mode."""
        try:
            own = copied(self.model)
            args, kwargs = self._arguments(own, inputs)
            with calm(False):
                first = _outputs(own(*args, **kwargs))
                second = _outputs(own(*args, **kwargs))
                settled = _outputs(self.copy(False)(*args, **kwargs))
        except LayoutxError:
            raise
        except Exception:
            return None
        return first, second, settled

    def copy(self, double: bool) -> Any:
        """The model at inference, in float64 or in its own dtype; made once.

        Raises:
            ModelError: parameters without values.
        """
        if double not in self.copies:
            with same_random():
                found = copied(self.model).eval()
                self.copies[double] = doubled(found) if double else found
        return self.copies[double]

    def _recorded(self, inputs: Inputs, double: bool) -> Recording:
        import torch

        model = self.copy(double)
        args, kwargs = self._arguments(model, inputs)
        given = arguments(args, kwargs, is_tensor).tensors
        before = [(t, t._version) for t in given]
        events, result = hooked(model, self.layers(), args, kwargs, double, False)
        seen = [*before, *(one for event in events for one in (*event.inputs, *event.outputs))]
        if any(tensor._version != version for tensor, version in seen):
            # a function wrote into what a module gave: once more, with copies of all, in the memory of the first run
            del events, result, seen
            args, kwargs = self._arguments(model, inputs)
            given = tuple(t.clone() for t in arguments(args, kwargs, is_tensor).tensors)
            events, result = hooked(model, self.layers(), args, kwargs, double, True)
        arrays = Arrays()
        self.events = [arrays.event(event) for event in events]
        outputs = tuple(arrays.of(t) for t in flattened(result, is_tensor))
        dtype = next((a.dtype.name for a in outputs if a.dtype.kind == "f"), "float64" if double else "float32")
        whole = tuple(arrays.of(t) for t in given)
        compiled = sorted(path for path, module in model.named_modules() if scripted(module))
        note = f"compiled, their calls are not recorded: {', '.join(compiled) or 'the model'}" if compiled else ""
        return Recording("torch", public(torch.__version__), dtype, whole, outputs, calls_of(self.events), {}, note)

    def _arguments(self, model: Any, inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The call's arguments as tensors; a mapping is given by keyword."""
        dtype, device = _kind(model)
        inputs = only_one(inputs, _keywords(model))
        if isinstance(inputs, Mapping):
            return (), {str(key): tensor(np.asarray(value), dtype, device) for key, value in inputs.items()}
        several = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        return tuple(tensor(np.asarray(value), dtype, device) for value in several), {}

    def _call_of(
        self, name: str, module: Any, inputs: Sequence[Array], names: Sequence[str], double: bool
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments as the last run gave them to this module, where it was given as many, by the same keywords."""
        dtype, device = _kind(self.copy(double))
        tensors = [tensor(np.asarray(a), dtype, device) for a in inputs]
        names = tuple(names) or ("",) * len(tensors)
        form = seen_form(self.events, name, names)
        if form is not None:
            return form.filled(tensors)
        plain = [t for t, key in zip(tensors, names, strict=True) if not key]
        if hasattr(module, "num_layers") and hasattr(module, "batch_first") and len(plain) > 1:
            plain = [plain[0], plain[1] if len(plain) == 2 else tuple(plain[1:])]  # torch.nn.LSTM: x, (h, c)
        return tuple(plain), {key: t for t, key in zip(tensors, names, strict=True) if key}


def copied(model: Any) -> Any:
    """A copy with the same modes.

    Raises:
        ModelError: parameters without shape or values; a module that cannot be copied.
    """
    import torch

    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if torch.nn.parameter.is_lazy(value):
            raise ModelError(f"{name} has no shape yet", why="the module is lazy", do="call it on an input first")
        if value.is_meta:
            raise ModelError(f"{name} has no values", why="it is on the meta device", do="load the weights first")
    try:
        return copy.deepcopy(model, _computed(model))
    except Exception as error:
        raise ModelError(
            f"the {type(model).__name__} cannot be copied", why=said(error), do="remove what copy.deepcopy refuses"
        ) from error


def _computed(model: Any) -> dict[int, Any]:
    """Tensors that modules keep as the result of a computation, each with its copy: torch copies leaves alone.

    torch.nn.utils.weight_norm and spectral_norm keep the weight so, and compute it anew at every call.
    """
    import torch

    held = [value for module in model.modules() for value in vars(module).values() if isinstance(value, torch.Tensor)]
    return {id(value): value.detach().clone() for value in held if not value.is_leaf}


def doubled(model: Any) -> Any:
    """The copy with float64 parameters, buffers, and tensors kept as plain attributes.

    An eps of None means the machine epsilon of the dtype (torch 2.13 RMSNorm): that of the model's own is kept.
    """
    import torch

    for module in model.modules():
        weight = getattr(module, "weight", None)
        if getattr(module, "eps", 0.0) is None and isinstance(weight, torch.Tensor) and weight.is_floating_point():
            module.eps = torch.finfo(weight.dtype).eps
    model = model.double()
    for module in model.modules():
        for key, value in vars(module).items():
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                vars(module)[key] = value.double()
    return model


def _keywords(model: Any) -> list[str]:
    """The arguments that a model's forward takes by name."""
    try:
        return list(signature(model.forward).parameters)
    except (TypeError, ValueError):  # compiled
        return []


def _kind(model: Any) -> tuple[Any, Any]:
    """The dtype that float inputs take, and the device."""
    import torch

    tensors = [*model.parameters(), *model.buffers()]
    floats = [t.dtype for t in tensors if t.is_floating_point()]
    device = tensors[0].device if tensors else torch.device("cpu")
    return (floats[0] if floats else None), device


def _outputs(result: Any) -> tuple[Array, ...]:
    return tuple(tensor_array(t) for t in flattened(result, is_tensor))
