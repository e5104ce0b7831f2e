"""A Keras layer and a module of layoutx.torch with its weights: the same function, to the last digits of float64."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import torch

from layoutx.model.bindings import bind_record
from layoutx.model.load import live_model
from layoutx.plan.fit import fit
from layoutx.spec.registry import registry

Array = np.ndarray[Any, Any]
CLOSE = 1e-12


def filled(model: Any, seed: int = 0) -> Any:
    """The model with weights that are nothing's initial values; variances stay positive."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        low = 0.5 if "variance" in weight.name or "var" in weight.name.split("_") else -0.6
        weight.assign(rng.uniform(low, 0.9, tuple(weight.shape)))
    return model


def data(*shape: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def carried(model: Any, module: torch.nn.Module) -> torch.nn.Module:
    """The module with the weights of the model's one layer, moved by the two forms."""
    known = registry()
    (record,) = (r for r in live_model(model, known).layers if r.tensors)
    there = live_model(module, known)
    shapes = {name: tensor.shape for name, tensor in there.tensors.items()}
    found = there.modules[""]
    plan = fit(bind_record(record, known), known.form(found.form), found.config, shapes=shapes)
    arrays = plan({name: tensor.read() for name, tensor in record.tensors.items()}, allow={"rounds"})
    module.double().load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})
    return module.eval()


def outputs(module: Any, x: Array) -> list[Array]:
    """Everything that a module gives, flat."""
    return [tensor.detach().numpy() for tensor in _flat(module(torch.from_numpy(np.ascontiguousarray(x))))]


def _flat(value: Any) -> list[torch.Tensor]:
    return [value] if isinstance(value, torch.Tensor) else [tensor for part in value for tensor in _flat(part)]


def scripted(module: torch.nn.Module) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is about to retire its scripts
        return torch.jit.script(module)


def sound(module: torch.nn.Module, x: Array) -> None:
    """Scripted it gives the same; gradients reach every parameter; its state dict is all that it is."""
    plain = outputs(module, x)
    for a, b in zip(plain, outputs(scripted(module), x), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=CLOSE)
    twin = copy.deepcopy(module)
    for weight in twin.state_dict().values():
        weight.zero_()
    twin.load_state_dict(module.state_dict(), strict=True)
    for a, b in zip(plain, outputs(twin, x), strict=True):
        np.testing.assert_array_equal(a, b)
    given = torch.from_numpy(np.ascontiguousarray(x)).requires_grad_()
    sum((tensor**2).sum() for tensor in _flat(module(given))).backward()
    for name, weight in [("x", given), *module.named_parameters()]:
        assert weight.grad is not None, name
        assert torch.isfinite(weight.grad).all(), name
        assert weight.grad.abs().max() > 0, name


def close(wanted: Any, got: Array, bound: float = CLOSE) -> None:
    wanted = np.asarray(wanted)
    assert wanted.shape == got.shape
    np.testing.assert_allclose(got, wanted, rtol=0, atol=bound * max(1.0, float(np.abs(wanted).max())))


def first(x: Any) -> Array:
    """Channels-last data with the channels behind the batch."""
    return np.moveaxis(np.asarray(x), -1, 1)
