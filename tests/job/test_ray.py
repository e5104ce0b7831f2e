"""Shards made by a real Ray cluster on loopback: processes of its own, which ask for a token."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import wait
from functools import partial
from pathlib import Path

import pytest
from cluster import converted, files, same

from layoutx.errors import ConversionError, UsageError
from layoutx.job import executors, shards

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def head():
    """The address of a cluster's head; this process is connected to it."""
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # sockets lie in it, whose names may have 107 bytes
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), str(ROOT)]))
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", "a" * 64)
        ray = pytest.importorskip("ray")  # which looks at these when it is imported
        ray.init(
            address="local",
            num_cpus=2,
            object_store_memory=100 << 20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
        )
        try:
            yield ray.get_runtime_context().gcs_address
        finally:
            ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def workers(head):
    from layoutx.job.engines import ray_executor

    with ray_executor(head) as executor:
        yield executor


def command(source, out, address, **environment):
    """`layoutx convert` to torch by a cluster, in a process of its own."""
    more = ["--to", "torch", "--from", "flax", "--max-shard-size", "3KB", "--verify", "bytes", "--ray", address]
    return subprocess.run(
        [sys.executable, "-m", "layoutx", "convert", str(source), "-o", str(out), *more],
        capture_output=True,
        text=True,
        timeout=120,
        env={key: value for key, value in (os.environ | environment).items() if value is not None},
    )


def test_ray(source, wanted, tmp_path, workers):
    same(converted(source, tmp_path / "out", executor=workers), wanted)


def test_ray_from_the_command_line(source, wanted, tmp_path, head):
    (tmp_path / "out").mkdir()
    done = command(source, tmp_path / "out" / "m.safetensors", head)
    assert done.returncode == 0, done.stderr
    same(files(tmp_path / "out"), wanted)


def die_once(flag, real, part):
    """What a worker does in the place of `make`: it dies in the middle of a shard, until Ray gives up; then no more."""
    with Path(flag).open("a") as file:
        file.write("x")
    if Path(flag).stat().st_size <= 4:  # more than Ray itself tries
        (part.path.parent / f".{part.path.name}.half.tmp").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    return real(part)


def test_ray_outlives_workers(source, wanted, tmp_path, workers, monkeypatch):
    flag = tmp_path / "died"
    monkeypatch.setattr(executors, "make", partial(die_once, str(flag), shards.make))
    same(converted(source, tmp_path / "out", executor=workers), wanted)
    assert flag.stat().st_size > 4


def refused(part):
    raise ConversionError(f"no {part.path.name}", where="here", why="a test", do="that")


def test_what_a_worker_refuses_is_said_as_layoutx_says_it(source, tmp_path, workers, monkeypatch):
    monkeypatch.setattr(executors, "make", refused)
    with pytest.raises(ConversionError) as caught:
        converted(source, tmp_path / "out", executor=workers)
    assert str(caught.value).splitlines()[0].startswith("no m-")
    assert "ray" not in str(caught.value)
    assert files(tmp_path / "out") == {}


def noted(folder):
    """A call that leaves a file, half a second after it began."""
    time.sleep(0.5)
    Path(tempfile.mkstemp(dir=folder)[1]).touch()


def test_what_is_not_given_to_ray_yet_can_be_given_up(tmp_path, workers):
    given = [workers.submit(noted, str(tmp_path)) for _ in range(20)]
    cancelled = sum(future.cancel() for future in given)
    assert not wait(given, timeout=60).not_done
    assert cancelled == 12
    assert len(list(tmp_path.iterdir())) == 20 - cancelled


def test_a_cluster_that_asks_for_a_token(source, tmp_path, head):
    done = command(source, tmp_path / "m.safetensors", head, RAY_AUTH_MODE=None, RAY_AUTH_TOKEN=None)
    assert done.returncode == 2, done.stderr
    assert f"the Ray cluster at {head} asks for a token" in done.stderr
    assert "RAY_AUTH_MODE=token" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_nobody_listens(monkeypatch):
    ray = pytest.importorskip("ray")
    from layoutx.job.engines import ray_executor

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    began = time.monotonic()
    with pytest.raises(UsageError, match="no Ray cluster answers at 127"), ray_executor("127.0.0.1:9"):
        pass
    assert time.monotonic() - began < 20
