"""Does the converted digits model predict what the Keras model predicted? On digits that it was never trained on.

    python scripts/demo_check.py build/digits.safetensors

Reads the converted weights and `examples/digits_heldback.npz` (images, labels, and the outputs that Keras computed in
float64), nothing of the conversion. Where torch is installed, a torch module written by hand loads the weights
strictly; without torch the same network runs in NumPy. Both compute in float64, where rounding hides no mistake.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from layoutx.verify.forward import forward

HELD_BACK = Path(__file__).resolve().parent.parent / "examples" / "digits_heldback.npz"
TOLERANCE = 1e-9
Array = np.ndarray[Any, Any]


def main(path: str) -> int:
    """Print what was compared; 0 where every prediction and every output agrees."""
    weights = load_file(path)
    with np.load(HELD_BACK) as held_back:
        images, labels, expected = held_back["images"], held_back["labels"], held_back["outputs"]
    run, runner = (by_torch, "torch") if importlib.util.find_spec("torch") else (by_numpy, "NumPy")
    outputs = run(weights, images.astype(np.float64))

    equal = int((outputs.argmax(axis=1) == expected.argmax(axis=1)).sum())
    right = int((outputs.argmax(axis=1) == labels).sum())
    largest = float(np.abs(outputs - expected).max())
    agrees = equal == len(labels) and largest <= TOLERANCE
    print(f"{path} in {runner}, against what Keras computed, on {len(labels)} digits held back from training:")
    print(f"  {equal} of {len(labels)} predictions equal, largest difference {largest:.1e} (allowed {TOLERANCE:.0e})")
    print(f"  {right} of {len(labels)} digits recognised")
    print("The converted model computes the same." if agrees else "The converted model computes SOMETHING ELSE.")
    return 0 if agrees else 1


def by_torch(weights: dict[str, Array], images: Array) -> Array:
    """The network as a torch user would write it. Images (digit, h, w, channel) -> outputs (digit, class)."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Digits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(1, 12, 3, padding=1)
            self.bn1 = nn.BatchNorm2d(12, eps=1e-3)  # Keras's epsilon: torch's own default is 1e-5
            self.conv2 = nn.Conv2d(12, 20, 3, stride=2)
            self.dense1 = nn.Linear(80, 48)
            self.output = nn.Linear(48, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
            x = F.relu(self.conv2(F.pad(x, (0, 1, 0, 1))))  # "same" at stride 2 pads the end only
            x = F.relu(self.dense1(x.flatten(1)))
            return F.softmax(self.output(x), dim=1)

    model = Digits()
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()}, strict=True)
    with torch.no_grad():
        outputs: Array = model.double().eval()(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    return outputs


def by_numpy(weights: dict[str, Array], images: Array) -> Array:
    """The same network by the published equations, reading the tensors as torch lays them out."""
    unused = dict(weights)
    unused.pop("bn1.num_batches_tracked", None)

    def take(name: str) -> Array:
        return unused.pop(name).astype(np.float64)

    def conv(name: str, x: Array, stride: int) -> Array:
        roles = {"kernel": take(f"{name}.weight")[None], "bias": take(f"{name}.bias")[None]}  # one group
        return forward("conv", roles, {"x": x}, settings={"strides": (stride,) * 2, "padding": "same"})["y"]

    def dense(name: str, x: Array) -> Array:
        return forward("dense", {"kernel": take(f"{name}.weight").T, "bias": take(f"{name}.bias")}, {"x": x})["y"]

    norm = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "variance": "running_var"}
    x = conv("conv1", images, 1)
    roles = {role: take(f"bn1.{name}") for role, name in norm.items()}
    x = np.maximum(forward("batch_norm", roles, {"x": x}, {"statistics": "running"}, {"eps": 1e-3})["y"], 0)
    digit, h, w, channel = x.shape
    x = x.reshape(digit, h // 2, 2, w // 2, 2, channel).max(axis=(2, 4))
    x = np.maximum(conv("conv2", x, 2), 0)
    x = x.transpose(0, 3, 1, 2).reshape(digit, -1)  # channels first, as torch flattens
    logits = dense("output", np.maximum(dense("dense1", x), 0))
    if unused:
        raise SystemExit(f"tensors that no layer uses: {', '.join(unused)}")
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: demo_check.py CONVERTED.safetensors")
    raise SystemExit(main(sys.argv[1]))
