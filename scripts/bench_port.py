"""`lx.port` of ResNet50 against the loop that people write by hand: ratios of times, both in one process, alternating.

python scripts/bench_port.py [--repeat 7]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "models")]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

MUST, AIM = 1.2, 0.7


def main() -> int:
    """Print the table; 1 where a repeated port from Keras into torch takes more than MUST times the loop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=7)
    args = parser.parse_args()
    from keras.applications import ResNet50
    from torch_resnet import ResNet50 as Torch

    keras, other, module, twin = ResNet50(weights=None), ResNet50(weights=None), Torch(), Torch()
    ways: dict[str, tuple[Any, Any, Callable[[], None]]] = {
        "Keras into torch": (keras, module, lambda: into_torch(keras, module)),
        "torch into Keras": (module, other, lambda: into_keras(module, other)),
        "torch into torch": (module, twin, lambda: into_twin(module, twin)),
    }
    print(f"{'ResNet50, 102 MB, median of ' + str(args.repeat):<46} {'loop ms':>8} {'port ms':>8} {'ratio':>7}")
    bad = False
    for name, (source, target, loop) in ways.items():
        for called, options in CALLS.items():
            repeat = min(args.repeat, 3) if "proved" in called else args.repeat  # seconds, where the loop takes none
            by_hand, ported = measured(source, target, loop, options, "first" in called, repeat)
            ratio = ported / by_hand
            bad |= name == "Keras into torch" and called == MEASURED and ratio > MUST
            print(f"{name + ', ' + called:<46} {by_hand * 1e3:>8.0f} {ported * 1e3:>8.0f} {ratio:>7.2f}")
    print(f"must for the repeated port from Keras into torch: {MUST}, aim {AIM}")
    return int(bad)


MEASURED = "again"
PLAIN = {"compare": False, "verify": "none"}
CALLS: dict[str, dict[str, Any]] = {
    MEASURED: PLAIN,
    "again, bytes compared": {**PLAIN, "verify": "bytes"},
    "first call": PLAIN,
    "first call, layers proved": {**PLAIN, "verify": "layers"},
}


def measured(
    source: Any, target: Any, loop: Callable[[], None], options: dict[str, Any], first: bool, repeat: int
) -> tuple[float, float]:
    """Median seconds of the loop and of the port, one after the other; `first`: nothing is kept from call to call."""
    from layoutx.job.kept import forget
    from layoutx.port import port

    def ported() -> None:
        if first:
            forget()
        port(source, target, **options)

    times: tuple[list[float], list[float]] = ([], [])
    ported()
    for _ in range(repeat):
        for run, own in ((loop, times[0]), (ported, times[1])):
            started = time.perf_counter()
            run()
            own.append(time.perf_counter() - started)
    return statistics.median(times[0]), statistics.median(times[1])


NORM = ("weight", "bias", "running_mean", "running_var")


def into_torch(model: Any, module: Any) -> None:
    """Every layer's arrays, transposed where torch has another order, copied into the module."""
    import numpy as np
    import torch

    state = module.state_dict()
    with torch.no_grad():
        for layer in model.layers:
            arrays = layer.get_weights()
            if not arrays:
                continue
            path = module.counterpart(layer.name)
            if arrays[0].ndim > 1:
                arrays[0] = np.transpose(arrays[0], (3, 2, 0, 1) if arrays[0].ndim == 4 else (1, 0))
            for name, array in zip(NORM, arrays, strict=False):
                state[f"{path}.{name}"].copy_(torch.from_numpy(array))


def into_keras(module: Any, model: Any) -> None:
    """The way back, with set_weights."""
    import numpy as np

    state = {name: value.numpy() for name, value in module.state_dict().items()}
    for layer in model.layers:
        names = NORM[: len(layer.weights)]
        if not names:
            continue
        arrays = [state[f"{module.counterpart(layer.name)}.{name}"] for name in names]
        if arrays[0].ndim > 1:
            arrays[0] = np.transpose(arrays[0], (2, 3, 1, 0) if arrays[0].ndim == 4 else (1, 0))
        layer.set_weights(arrays)


def into_twin(module: Any, twin: Any) -> None:
    """Tensor by tensor, under the same names."""
    import torch

    own = module.state_dict()
    with torch.no_grad():
        for name, value in twin.state_dict().items():
            value.copy_(own[name])


if __name__ == "__main__":
    sys.exit(main())
