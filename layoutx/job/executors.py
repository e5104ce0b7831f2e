"""Shards made by the workers of an executor: any of `concurrent.futures`, Dask's, loky's, MPI's."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

from layoutx.errors import FileError, LayoutxError, UsageError, WorkerError
from layoutx.files.blob import origin
from layoutx.files.dtypes import Array
from layoutx.files.remote import url_of
from layoutx.files.store import Tensor
from layoutx.job.near import moved
from layoutx.job.observed import Told
from layoutx.job.shards import Part, Run, make
from layoutx.job.split import can_split, finish, make_slab, slabs
from layoutx.words import first

MOST = 5 * 1000**3  # bytes of a shard where nobody said; as huggingface_hub
TRIES = 4  # of each task: whatever happens to a worker, a shared disk or a store
WINDOW = 64  # tasks that are under way together: a scheduler need not hold them all
GRACE = 60  # seconds for what is running when all is over
CARRIED = 1 << 20  # bytes of a tensor in memory that is sent along
Told_ = dict[str, Told]
Source = Executor | Callable[[], Executor]


@dataclass(eq=False, slots=True)
class _Task:
    """A shard, or a range of the pieces of one (`number` of them)."""

    part: Part
    call: Callable[[], Told_]
    number: int = 0
    many: int = 1
    tries: int = 0


def over(source: Source, most: int) -> Run:
    """How shards are made by an executor; the same bytes as one by one, whatever the workers.

    A task that fails is given out again, up to TRIES times; a shard is put in its place by a rename, so that a task
    that runs twice does no harm. What layoutx itself refuses ends all at once.

    Args:
        source: an executor, or a function that makes one: then a pool that broke is replaced.
        most: bytes of a shard; a single tensor of more is split over workers.

    Raises:
        UsageError: no executor; tensors that other processes cannot read, if it has such.
        WorkerError: a pool broke, or a task failed each time.
    """
    if not isinstance(source, Executor) and not callable(source):
        raise UsageError(
            f"executor is a {type(source).__name__}",
            do="give a concurrent.futures.Executor (Dask: client.get_executor()), or a function that makes one",
        )
    return partial(_run, source, most)


def _run(source: Source, most: int, parts: Sequence[Part]) -> Iterator[tuple[Part, Told_]]:
    """Make parts, in the order in which they are finished."""
    if not parts:
        return
    pool = _Pool(source)
    waiting, again = _tasks(_portable(parts, pool.here), most), deque[_Task]()
    running: dict[Future[Any], _Task] = {}
    done: dict[Path, dict[int, Told_]] = {}
    grace = GRACE
    try:
        while True:
            while len(running) < WINDOW and (task := again.popleft() if again else next(waiting, None)) is not None:
                running[pool.submit(task.call)] = task
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task = running.pop(future)
                try:
                    told = future.result()
                except Exception as error:  # CancelledError too
                    _check_tries(task, error)
                    again.append(task)
                    continue
                own = done.setdefault(task.part.path, {})
                own[task.number] = told
                if len(own) == task.many:
                    del done[task.part.path]
                    yield task.part, told if task.many == 1 else finish(task.part, [own[n] for n in range(task.many)])
    except KeyboardInterrupt:  # the folder stays
        grace = 0
        raise
    finally:
        for future in running:
            future.cancel()
        wait(running, timeout=grace)  # nobody writes any more when the folder is removed
        pool.close()


def _tasks(parts: Sequence[Part], most: int) -> Iterator[_Task]:
    for part in parts:
        if can_split(part, most):
            own = slabs(part, most)
            yield from (_Task(part, partial(make_slab, slab), n, len(own)) for n, slab in enumerate(own))
        else:
            yield _Task(part, partial(make, part))


def _check_tries(task: _Task, error: BaseException) -> None:
    """Count a failure; what layoutx refuses is not tried again, what a file system does may pass.

    Raises:
        LayoutxError: this was the last try.
    """
    task.tries += 1
    if isinstance(error, LayoutxError) and not isinstance(error, FileError):
        raise error
    if task.tries < TRIES:
        return
    if isinstance(error, LayoutxError):
        raise error
    raise WorkerError(
        f"{task.part.path.name} was not made: its workers failed {TRIES} times",
        why=f"{type(error).__name__}: {' '.join(str(error).split())}"[:300],
        do="see that workers have memory, layoutx and the folders of source and output; then go on with resume",
    ) from error


class _Pool:
    """An executor, and the next one where it breaks and another can be had."""

    def __init__(self, source: Source) -> None:
        self._make = source if not isinstance(source, Executor) else None
        self._executor: Executor = source if isinstance(source, Executor) else self._made()
        self._tries = 0

    @property
    def here(self) -> bool:
        """Whether its workers are threads of this process."""
        return isinstance(self._executor, ThreadPoolExecutor)

    def submit(self, call: Callable[[], Told_]) -> Future[Told_]:
        """Give a task to a worker.

        Raises:
            WorkerError: the executor takes no more, and there is no other.
        """
        while True:
            try:
                return self._executor.submit(call)
            except RuntimeError as error:  # BrokenExecutor is one, and so is one that was shut down
                self._renew(error)

    def _renew(self, error: RuntimeError) -> None:
        """A new executor in the place of a broken one."""
        self._tries += 1
        kind = type(self._executor)
        if self._tries < TRIES and self._make is not None:
            self.close()
            self._executor = self._made()
        elif self._tries < TRIES and kind.__module__.startswith("loky."):
            from loky import get_reusable_executor

            self._executor = get_reusable_executor(reuse=True)  # as many workers as the broken one had
        else:
            raise WorkerError(
                f"the {kind.__name__} takes no more work",
                why=f"a worker died, and such a pool cannot be used again ({' '.join(str(error).split())[:120]})",
                do="finished shards are kept: make a new executor and convert again with resume; or give a function "
                "that makes executors, and a new one is made where one breaks",
            ) from error

    def _made(self) -> Executor:
        assert self._make is not None
        made = self._make()
        if not isinstance(made, Executor):
            raise UsageError(f"the function given as executor makes a {type(made).__name__}, no Executor")
        return made

    def close(self) -> None:
        """End an executor that was made here; a given one is its giver's."""
        if self._make is None:
            return
        takes = signature(self._executor.shutdown).parameters  # loky's cancels nothing
        self._executor.shutdown(wait=False, **({"cancel_futures": True} if "cancel_futures" in takes else {}))


def _portable(parts: Sequence[Part], here: bool) -> list[Part]:
    """Parts that another process can make, in another working folder too.

    Raises:
        UsageError: sources that it could not read.
    """
    if here:
        return list(parts)
    kept: dict[int, Tensor] = {}
    tensors = {id(t): t for part in parts for move in part.moves for t in move.tensors}
    refused = [t.name for t in tensors.values() if origin(t) is None and t.nbytes > CARRIED]
    if refused:
        raise UsageError(
            f"{len(refused)} tensors of the source cannot be read by other processes",
            where=first(refused),
            why="they are in this process's memory: a live model, or a file that is unpacked when it is opened",
            do="convert without an executor, or with a ThreadPoolExecutor; or save the source as .safetensors first",
        )
    for key, tensor in tensors.items():
        kept[key] = _settled(tensor)
    return [
        replace(
            part,
            path=absolute(part.path),
            moves=tuple(replace(m, tensors=tuple(kept[id(t)] for t in m.tensors)) for m in part.moves),
        )
        for part in parts
    ]


def _settled(tensor: Tensor) -> Tensor:
    """A tensor that any process can read: its file by its whole path, or its few numbers themselves."""
    path = origin(tensor)
    if path is None:
        return replace(tensor, read=partial(_same, tensor.read()), mapped=False)
    return moved(tensor, {path: absolute(path)})


def absolute(path: Path) -> Path:
    """A path that means the same in every folder."""
    return path if url_of(path) is not None else path.absolute()


def _same(array: Array) -> Array:
    return array
