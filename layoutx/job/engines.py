"""Executors of engines that run already: Dask's own, and Ray behind the same interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any

from layoutx.errors import UsageError

TIMEOUT = 20  # seconds for a scheduler to answer


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
        UsageError: ray is not installed, or nobody answers there.
    """
    try:
        import ray
    except ImportError as error:
        raise _missing("ray", "ray") from error
    mine = not ray.is_initialized()
    if mine:
        try:
            ray.init(address=address, log_to_driver=False, logging_level="error")
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise _silent("Ray cluster", address, error) from error
    try:
        yield RayExecutor()
    finally:
        if mine:
            ray.shutdown()


class RayExecutor(Executor):
    """Ray's tasks as `concurrent.futures`: one task for each call; ray itself tries again where a worker dies."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Give a call to a worker."""
        import ray

        future: Future[Any] = ray.remote(_called).options(max_retries=2).remote(fn, args, kwargs).future()
        return future


def _called(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return fn(*args, **kwargs)


def _missing(name: str, package: str) -> UsageError:
    return UsageError(f"{package} is not installed", do=f'pip install "layoutx[{name}]", here and for the workers')


def _silent(what: str, address: str, error: Exception) -> UsageError:
    said = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
    return UsageError(f"no {what} answers at {address}", why=said, do="check the address, and that it runs")
