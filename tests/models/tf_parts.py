"""What tests of TensorFlow models share: weights as training leaves them, and torch modules filled by layer name."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

RNG = np.random.default_rng(13)


def nonzero(model: Any) -> Any:
    """The model with statistics and biases as training leaves them."""
    for weight in model.weights:
        weight.assign(np.asarray(weight) + RNG.uniform(0.1, 0.4, weight.shape).astype("float32"))
    return model


def parts(weights: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}


def filled(module: torch.nn.Module, weights: dict[str, torch.Tensor], name: str) -> torch.nn.Module:
    """A torch module with the weights of one layer, in inference."""
    module.load_state_dict(parts(weights, name), strict=isinstance(module, torch.nn.BatchNorm2d) is False)
    return module.eval()
