"""What `lx.History` costs: the digits CNN trained with and without it, each epoch recorded; prints the ratio.

python scripts/bench_history.py [--epochs 10] [--repeat 5] [--sync]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
MOST = 0.02


def main() -> int:
    """Print epochs, records and their ratio; 1 where recording costs two per cent of an epoch or more."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--sync", action="store_true", help="wait for the disk at each moment")
    args = parser.parse_args()
    import keras
    from train_digits import build, digits

    keras.utils.set_random_seed(20)
    images, _, labels, _ = digits()
    model = build()
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(images, labels, batch_size=32, epochs=2, verbose=0)  # compiled and warm
    epochs, records, sizes = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for run in range(args.repeat):
            path = Path(folder) / f"{run}.lxh"
            history = _Timed(path, args.sync)
            model.fit(images, labels, batch_size=32, epochs=args.epochs, verbose=0, callbacks=[history.callback])
            epochs += history.epochs[1:]
            records += history.records[1:]
            sizes.append(path.stat().st_size)
    epoch, record = statistics.median(epochs), statistics.median(records)
    print(f"an epoch without its record   {1e3 * epoch:8.2f} ms  (median of {len(epochs)})")
    print(f"recording it                  {1e3 * record:8.2f} ms  (90 % below {1e3 * _high(records):.2f} ms)")
    print(f"ratio                         {100 * record / epoch:8.2f} %")
    print(f"a moment on disk              {sizes[0] / (args.epochs + 1) / 1e3:8.1f} kB")
    return int(record / epoch >= MOST)


def _high(values: list[float]) -> float:
    return sorted(values)[int(0.9 * (len(values) - 1))]


class _Timed:
    """A History whose hook at the end of an epoch is timed, and the epochs between."""

    def __init__(self, path: Path, sync: bool) -> None:
        import layoutx as lx

        self.epochs: list[float] = []
        self.records: list[float] = []
        self._ended = time.perf_counter()
        self.callback: Any = lx.History(path, sync=sync)
        ends = self.callback.on_epoch_end

        def timed(epoch: int, logs: Any = None) -> None:
            started = time.perf_counter()
            ends(epoch, logs)
            now = time.perf_counter()
            self.epochs.append(started - self._ended)
            self.records.append(now - started)
            self._ended = now

        self.callback.on_epoch_end = timed


if __name__ == "__main__":
    sys.exit(main())
