"""Executors of engines that run already: Dask's own, and Ray behind the same interface."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from layoutx.errors import LayoutxError, UsageError

TIMEOUT = 20  # seconds for a scheduler to answer
LEAST = 8  # tasks that are given to Ray together, however small the cluster is just now
RETRIES = "RAY_NUM_REDIS_GET_RETRIES"


@contextmanager
def dask_executor(address: str) -> Iterator[Executor]:
    """The workers of a Dask cluster.

    Args:
        address: of its scheduler, "tcp://10.0.0.1:8786".

    Raises:
        UsageError: distributed is not installed, or nobody answers there.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise _missing("dask", "distributed") from error
    try:
        client = Client(address, timeout=TIMEOUT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise _silent("Dask scheduler", address, error) from error
    with client:
        executor: Executor = client.get_executor()
        yield executor


@contextmanager
def ray_executor(address: str) -> Iterator[Executor]:
    """The workers of a Ray cluster.

    Args:
        address: of its head, "10.0.0.1:6379", or "auto".

    Raises:
        UsageError: ray is not installed, or nobody answers there, or it asks for a token.
    """
    try:
        ray = _ray()
    except ImportError as error:
        raise _missing("ray", "ray") from error
    mine = not ray.is_initialized()
    if mine:
        try:
            _check_answers(address)
            ray.init(address=address, log_to_driver=False, logging_level="error")
        except (OSError, ValueError, RuntimeError) as error:
            said = _causes(error)
            if "Unauthenticated" in said or "AuthToken" in said:
                raise UsageError(
                    f"the Ray cluster at {address} asks for a token",
                    do="copy ~/.ray/auth_token of its head to this machine, and set RAY_AUTH_MODE=token",
                ) from error
            raise _silent("Ray cluster", address, error) from error
    executor = RayExecutor()
    try:
        yield executor
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        if mine:
            ray.shutdown()


class RayExecutor(Executor):
    """Ray's tasks as `concurrent.futures`: a thread here waits for each of them; Ray itself replaces a dead worker.

    Only twice as many are given to Ray as it has cores: what is not given yet can be cancelled. `ray.cancel` would take
    tasks back, but may end this whole process (ray 2.60: "Tried to complete task that was not pending").
    """

    def __init__(self) -> None:
        """Of the cluster that this process is connected to."""
        import ray

        self._task = ray.remote(_called).options(max_retries=2)
        cores = int(ray.cluster_resources().get("CPU", 1))
        self._threads = ThreadPoolExecutor(max(LEAST, 2 * cores), "layoutx-ray")

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Give a call to a worker."""
        return self._threads.submit(_answer, self._task, fn, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls."""
        self._threads.shutdown(wait, cancel_futures=cancel_futures)


def _answer(task: Any, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a task gives; an error of layoutx as it was raised, without Ray's traceback in its text."""
    import ray

    try:
        return ray.get(task.remote(fn, args, kwargs))
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, LayoutxError) else error) from None


def _called(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return fn(*args, **kwargs)


def _ray() -> Any:
    """Ray; where its head does not answer it asks anew a few times only, not for twelve minutes.

    ray 2.60 ray_constants.NUM_REDIS_GET_RETRIES, read when it is imported: 20 times 36 s.
    """
    before = os.environ.get(RETRIES)
    os.environ.setdefault(RETRIES, "2")
    try:
        import ray
    finally:
        if before is None:
            del os.environ[RETRIES]
    return ray


def _check_answers(address: str) -> None:
    """See that somebody listens at an address with a port.

    Raises:
        OSError: nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=TIMEOUT).close()


def _causes(error: BaseException | None) -> str:
    """What an error says, and all that caused it."""
    return f"{type(error).__name__}: {error} {_causes(error.__cause__)}" if error is not None else ""


def _missing(name: str, package: str) -> UsageError:
    return UsageError(f"{package} is not installed", do=f'pip install "layoutx[{name}]", here and for the workers')


def _silent(what: str, address: str, error: Exception) -> UsageError:
    said = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
    return UsageError(f"no {what} answers at {address}", why=said, do="check the address, and that it runs")
