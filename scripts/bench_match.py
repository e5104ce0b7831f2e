"""How long matching takes and how much of it is right: ResNet50 of Keras against torch modules, by evidence.

python scripts/bench_match.py [--repeat 3]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "models")]

# name -> (names in torch, whether its calls can be traced, whether it holds the same numbers)
CASES = {
    "torch's names": ("torch", False, False),
    "other words, other order of nothing": ("own", False, False),
    "torch's names and wiring": ("torch", True, False),
    "no names, order reversed: wiring alone": ("none", True, False),
    "no names, order reversed: numbers alone": ("none", False, True),
    "no names, order reversed: nothing": ("none", False, False),
    "all evidence": ("torch", True, True),
}


def main() -> int:
    """Print the table; 1 where matching takes a second or more, or a pair is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    from keras.applications import ResNet50

    source = shaken(ResNet50(weights=None))
    print(f"{'ResNet50, 107 layers, 320 tensors':<42} {'seconds':>8} {'right':>6} {'wrong':>6} {'open':>6}")
    bad = False
    for name, (names, traced, same) in CASES.items():
        seconds, right, wrong, left = measured(source, names, traced, same, args.repeat)
        bad |= seconds >= 1.0 or wrong > 0
        print(f"{name:<42} {seconds:>8.2f} {right:>6} {wrong:>6} {left:>6}")
    return int(bad)


def shaken(model: Any) -> Any:
    """Weights of which none is at its initial value."""
    import numpy as np

    rng = np.random.default_rng(5)
    model.set_weights([rng.normal(1, 0.2, w.shape).astype(w.dtype) for w in model.get_weights()])
    return model


def measured(source: Any, names: str, traced: bool, same: bool, repeat: int) -> tuple[float, int, int, int]:
    """Least CPU seconds, and how many pairs are right, wrong, open or lost."""
    from torch_resnet import ResNet50

    from layoutx.job.jobs import Options
    from layoutx.job.joint import joint
    from layoutx.model.load import live_model
    from layoutx.port import port
    from layoutx.spec.registry import registry

    known = registry()
    target = ResNet50(names=names, traced=traced)
    if same:
        pairs = {layer.name: target.counterpart(layer.name) for layer in source.layers if layer.weights}
        port(source, target, pairs=pairs, compare=False, live=False)
    here, there = live_model(source, known), live_model(target, known)
    taken = []
    for _ in range(repeat):
        started = time.process_time()  # of this process: other programs do not count
        found = joint(here, there, known, Options())
        taken.append(time.process_time() - started)
    right = sum(pair.target.name == target.counterpart(pair.source.name) for pair in found.pairs)
    left = len(found.open) + len(found.lost)
    return min(taken), right, len(found.pairs) - right, left


if __name__ == "__main__":
    sys.exit(main())
