"""One paddle.nn layer with given weights, run in a worker process: paddle and TensorFlow cannot share one."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import layoutx
from layoutx.empty import NOTHING
from layoutx.errors import LayoutxError, UsageError
from layoutx.frozen import frozen
from layoutx.verify.live.arrays import Array, Arrays, cast_all, options, refused
from layoutx.verify.live.paddle_worker import Message, receive, send

START = 180.0  # seconds until paddle is imported
CALL = 60.0  # seconds a layer may take
TAIL, WIDTH = 2000, 200  # bytes of the worker's stderr that an error shows, and of one line of it


@frozen
class Worker:
    """A running child and the file that keeps its stderr."""

    process: subprocess.Popen[bytes]
    log: IO[bytes]


_running: list[Worker] = []
_one_at_a_time = threading.Lock()


def run(form: str, config: Mapping[str, Any], tensors: Arrays, x: Arrays, dtype: str = "float64") -> dict[str, Array]:
    """What the real layer gives in evaluation mode. `config` holds the keywords of its constructor.

    A tensor that the state dict lists under several names (`weight_ih_l0`, `0.cell.weight_ih`) is given by any of them.
    SimpleRNN, LSTM, GRU give h, c as (layers*directions, batch, hidden). A cell is run over x (batch, time, input),
    its h, c are (1, batch, hidden). Bilinear takes x1, x2; MultiHeadAttention query, key, value, batch first.

    Raises:
        UsageError: no such layer, or a missing input.
        BindError: the layer does not take the config or the tensors.
        LayoutxError: the worker died or did not answer; the next call starts another.
    """
    arrays = {f"tensors {name}": array for name, array in cast_all(tensors, dtype).items()}
    arrays |= {f"x {name}": array for name, array in cast_all(x, dtype).items()}
    return _asked("run", form, config, tensors, arrays, dtype)[1]


def describe(
    form: str, config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]] = NOTHING
) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the real layer's tensors, each once: under the name of the sublayer that owns it."""
    message, _ = _asked("describe", form, config, {}, {}, "float64")
    return [(name, tuple(shape)) for name, shape in message["tensors"]]


def _asked(do: str, form: str, config: Mapping[str, Any], tensors: Arrays, arrays: Arrays, dtype: str) -> Message:
    name = form.removeprefix("paddle.")
    message, results = ask({"do": do, "name": name, "config": options(config, "rank"), "dtype": dtype}, arrays)
    if "usage" in message:
        raise UsageError(message["usage"])
    if "refused" in message:
        raise refused(form, tensors, message["refused"])
    return message, results


def ask(message: Mapping[str, Any], arrays: Arrays) -> Message:
    """The worker's answer; it is started where none runs. Raises LayoutxError where it dies or is too slow."""
    with _one_at_a_time:
        if not _running:
            _start()
        return _exchange(CALL, message, arrays)


def stop() -> None:
    """End the worker, if one runs."""
    while _running:
        worker = _running.pop()
        worker.process.kill()
        worker.process.wait()
        for stream in (worker.process.stdin, worker.process.stdout, worker.log):
            if stream:
                with suppress(BrokenPipeError):  # what it was never sent is still in the pipe's buffer
                    stream.close()


atexit.register(stop)


def _start() -> None:
    home = str(Path(layoutx.__file__).parent.parent)
    path = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
    log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
    process = subprocess.Popen(
        [sys.executable, "-m", "layoutx.verify.live.paddle_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env={**os.environ, "PYTHONPATH": path},
    )
    _running.append(Worker(process, log))
    _exchange(START)


def _exchange(limit: float, message: Mapping[str, Any] | None = None, arrays: Arrays = NOTHING) -> Message:
    """Send a message, if there is one, and wait for the next; a worker that takes too long is killed."""
    process = _running[-1].process
    assert process.stdin is not None
    assert process.stdout is not None
    late = threading.Event()

    def give_up() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(limit, give_up)
    timer.start()
    answer: Message | None = None
    try:
        if message is not None:
            send(process.stdin, message, arrays)
        answer = receive(process.stdout)
    except OSError:  # the pipe broke: it died while it was written to
        answer = None
    except BaseException:  # an interrupt: an answer that is read later would be taken for another's
        stop()
        raise
    finally:
        timer.cancel()
    if answer is None:
        raise _lost(f"it gave no answer in {limit:g} s" if late.is_set() else "")
    if late.is_set():  # it answered and was killed in the same moment
        stop()
    return answer


def _lost(why: str) -> LayoutxError:
    """The error of a worker that is gone, with the end of its stderr; nothing of it is left."""
    worker = _running[-1]
    worker.process.kill()
    code = worker.process.wait()
    size = worker.log.seek(0, os.SEEK_END)
    worker.log.seek(max(0, size - TAIL))
    said = worker.log.read().decode(errors="replace").strip().splitlines()
    stop()
    return LayoutxError(
        "the process that runs paddle is gone",
        where=[line[:WIDTH] for line in said if line.strip()] or "it wrote nothing to stderr",
        why=why or f"it ended with code {code}",
        do="the next call starts another; if that ends too, this layer cannot be run here",
    )
