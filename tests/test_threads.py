"""layoutx in several threads at once: each gets its own answer, and the process is afterwards what it was."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="live models need torch")
keras = pytest.importorskip("keras", reason="live models need keras")
pytest.importorskip("tensorflow")

import layoutx as lx  # noqa: E402

nn = torch.nn


class Net(nn.Module):
    """Makes a tensor of the default dtype, and holds what only a run tells."""

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.first = nn.Linear(5, wide)
        self.reads = nn.GRU(wide, 7, batch_first=True)
        self.last = nn.Linear(7, 3)

    def forward(self, x: Any) -> Any:
        y = self.reads(self.first(x))[0]
        return self.last(y + torch.ones(y.shape))


def keras_net(wide: int) -> Any:
    k = keras.layers
    return keras.Sequential([keras.Input((4, 5)), k.Dense(wide), k.Conv1D(7, 3), k.Flatten(), k.Dense(3)])


def at_once(works: list[Callable[[], None]]) -> None:
    """Carry them out in a thread each; the first error of any is raised."""
    errors: list[BaseException] = []

    def carried_out(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # told below
            errors.append(error)

    threads = [threading.Thread(target=carried_out, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_torch_models_are_compared_and_ported_in_several_threads() -> None:
    """torch.fx changes `Module.__call__` for all threads, a run in float64 the default dtype: neither stays behind."""
    x = np.random.default_rng(3).normal(size=(2, 4, 5)).astype(np.float32)
    sets = [(Net(wide), Net(wide), Net(wide)) for wide in (11, 13, 17)]

    def work(source: Any, same: Any, other: Any) -> None:
        same.load_state_dict(source.state_dict())
        for _ in range(2):
            assert lx.validate(source, same, x).ok
            lx.port(source, other)
            for name, value in source.state_dict().items():
                np.testing.assert_array_equal(other.state_dict()[name], value)

    call, plain = nn.Module.__call__, torch.get_default_dtype()
    at_once([lambda one=one: work(*one) for one in sets])
    assert nn.Module.__call__ is call
    assert torch.get_default_dtype() is plain
    assert sets[0][0](torch.from_numpy(x)).dtype == torch.float32


def test_a_model_that_another_thread_runs_is_not_disturbed() -> None:
    """Somebody's server answers while a model of its classes is read."""
    served, asked, over = Net(11), [Net(wide) for wide in range(20, 32)], threading.Event()
    x = torch.ones((2, 4, 5))
    expected = served(x)

    def serve() -> None:
        while not over.is_set():
            torch.testing.assert_close(served.reads(served.first(x))[0], served.reads(served.first(x))[0])
            torch.testing.assert_close(served(x), expected)

    def read() -> None:
        try:
            time.sleep(0.05)
            for one in asked:
                lx.match(one, one)
        finally:
            over.set()

    at_once([serve, read])


def test_keras_models_are_compared_in_several_threads() -> None:
    sets = [(keras_net(wide), keras_net(wide)) for wide in (11, 13, 17)]
    for first, second in sets:
        second.set_weights(first.get_weights())
    x = np.random.default_rng(3).normal(size=(2, 4, 5)).astype(np.float32)
    call = keras.layers.Layer.__call__

    def work(first: Any, second: Any) -> None:
        found = lx.validate(first, second, x)
        assert found.ok
        assert len(found.checks) == 3

    at_once([lambda one=one: work(*one) for one in sets])
    assert keras.layers.Layer.__call__ is call


def test_a_keras_run_records_no_call_of_another_thread() -> None:
    first, served, over = keras_net(11), keras_net(13), threading.Event()
    x = np.random.default_rng(3).normal(size=(2, 4, 5)).astype(np.float32)
    expected = np.asarray(served(x))

    def serve() -> None:
        while not over.is_set():
            np.testing.assert_allclose(np.asarray(served(x)), expected, rtol=1e-6)

    def look() -> None:
        try:
            for _ in range(20):
                calls = [call.layer for call in lx.record(first, x).calls]
                assert calls == [layer.name for layer in first.layers if layer.name != "input"]
        finally:
            over.set()

    at_once([serve, look])
