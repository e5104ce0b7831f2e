"""Shards made by other processes: the same bytes as made here, whatever dies on the way."""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from threading import Event

import h5py
import numpy as np
import pytest
from cluster import BF16, checkpoint, converted, files, same

import layoutx as lx
from layoutx.errors import ConversionError, FileError, LayoutxError, Problems, UsageError, WorkerError
from layoutx.files import hashes
from layoutx.job import executors, shards, split
from layoutx.move import pieces, pool

ROOT = Path(__file__).resolve().parents[2]
spawned = partial(ProcessPoolExecutor, 2, mp_context=get_context("spawn"))
forked = partial(ProcessPoolExecutor, 2, mp_context=get_context("fork"))


class Unreliable(Executor):
    """Does calls at once; `fails` says for each call, by its number, what happens instead."""

    def __init__(self, fails):
        self.fails, self.calls = fails, 0

    def submit(self, fn, /, *args, **kwargs):
        self.calls += 1
        future: Future = Future()
        fail = self.fails(self.calls)
        if fail == "cancelled":
            future.cancel()
            future.set_running_or_notify_cancel()
        elif isinstance(fail, Exception):
            future.set_exception(fail)
        else:
            try:
                future.set_result(pickle.loads(pickle.dumps(fn))(*args, **kwargs))
            except Exception as error:
                future.set_exception(pickle.loads(pickle.dumps(error)))
        return future


def test_shards_are_made_one_by_one_in_several_files(wanted):
    assert len([name for name in wanted if name.endswith(".safetensors")]) >= 5


@pytest.mark.parametrize("workers", [1, 2])
def test_processes(source, wanted, tmp_path, workers):
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
        same(converted(source, tmp_path / "out", executor=executor), wanted)


def test_threads(source, wanted, tmp_path):
    with ThreadPoolExecutor(3) as executor:
        same(converted(source, tmp_path / "out", executor=executor), wanted)


def test_loky(source, wanted, tmp_path):
    loky = pytest.importorskip("loky")
    executor = loky.get_reusable_executor(max_workers=2)
    same(converted(source, tmp_path / "out", executor=executor), wanted)
    executor.shutdown()


def test_loky_made_by_a_function(source, wanted, tmp_path):
    """Its shutdown cancels nothing, and took no cancel_futures: all shards were made, and then a TypeError."""
    loky = pytest.importorskip("loky")
    same(converted(source, tmp_path / "out", executor=lambda: loky.ProcessPoolExecutor(2)), wanted)


def test_a_relative_path_means_the_same_for_workers_elsewhere(source, wanted, tmp_path, monkeypatch):
    """Workers that were started in another folder."""
    monkeypatch.chdir(tmp_path)
    with spawned() as executor:
        executor.submit(int).result()  # workers start here
        monkeypatch.chdir(source.parent)
        (source.parent / "relative").mkdir()
        lx.convert(
            source.name,
            "relative/m.safetensors",
            to="torch",
            from_="flax",
            max_shard_size=3000,
            verify="bytes",
            executor=executor,
        )
    same(files(source.parent / "relative"), wanted)


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_another_dtype_is_told_in_the_same_way(source, tmp_path, dtype):
    alone = converted(source, tmp_path / "alone", dtype=dtype)
    with forked() as executor:
        same(converted(source, tmp_path / "out", dtype=dtype, executor=executor), alone)
    with ThreadPoolExecutor(2) as executor:
        same(converted(source, tmp_path / "out2", dtype=dtype, executor=executor), alone)


def test_bfloat16_sources_travel(tmp_path):
    path = checkpoint(tmp_path / "b.safetensors", dtype=BF16)
    alone = converted(path, tmp_path / "alone")
    with spawned() as executor:
        same(converted(path, tmp_path / "out", executor=executor), alone)


@pytest.mark.parametrize("how", [{}, {"compression": "gzip", "chunks": True}])
def test_hdf5_sources_travel(tmp_path, how):
    """Datasets that lie plainly are mapped by the workers, others unpacked by them."""
    import json

    layers = [{"class_name": "InputLayer", "config": {"batch_shape": [None, 13], "name": "input"}}]
    rng = np.random.default_rng(2)
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        file.create_group("vars")
        for number, (inputs, units) in enumerate([(13, 17), (17, 17), (17, 29)]):
            name = "dense" + f"_{number}" * bool(number)
            file.create_dataset(f"layers/{name}/vars/0", data=rng.normal(size=(inputs, units)).astype("f4"), **how)
            file.create_dataset(f"layers/{name}/vars/1", data=rng.normal(size=units).astype("f4"), **how)
            layers.append({"class_name": "Dense", "config": {"name": name, "units": units, "use_bias": True}})
    model = {"class_name": "Sequential", "config": {"name": "model", "layers": layers}}
    (tmp_path / "m.json").write_text(json.dumps(model))
    given = {"config": tmp_path / "m.json", "from_": "", "max_shard_size": 2000}
    alone = converted(tmp_path / "m.weights.h5", tmp_path / "alone", **given)
    with spawned() as executor:
        same(converted(tmp_path / "m.weights.h5", tmp_path / "out", executor=executor, **given), alone)


class Live:
    """A live tree of arrays, as flax has it."""

    def __init__(self, inputs=601):
        rng = np.random.default_rng(1)
        self.tree = {"params": {f"Dense_{n}": {"kernel": rng.normal(size=(inputs, 607))} for n in range(3)}}


def test_numbers_in_memory_are_refused_by_name_for_processes(tmp_path):
    tree = Live().tree
    with spawned() as executor, pytest.raises(UsageError) as caught:
        converted(tree, tmp_path / "out", executor=executor)
    assert "Dense_0" in str(caught.value)
    assert "ThreadPoolExecutor" in str(caught.value)
    assert files(tmp_path / "out") == {}


def test_threads_take_numbers_in_memory_and_processes_take_a_few(tmp_path):
    for inputs, kind in ((601, ThreadPoolExecutor), (7, partial(spawned))):
        tree = Live(inputs).tree
        alone = converted(tree, tmp_path / f"alone{inputs}", max_shard_size=8000)
        with kind() as executor:
            same(converted(tree, tmp_path / f"out{inputs}", executor=executor, max_shard_size=8000), alone)


def test_what_fails_is_done_again(source, wanted, tmp_path):
    fails = {1: OSError("lost"), 3: "cancelled", 4: FileError("disk"), 5: BrokenExecutor("died")}
    executor = Unreliable(lambda number: fails.get(number))
    same(converted(source, tmp_path / "out", executor=executor), wanted)
    assert executor.calls > len(fails)


def test_what_always_fails_is_told_and_can_be_gone_on_from(source, wanted, tmp_path):
    executor = Unreliable(lambda number: OSError("lost") if number > 2 else None)
    with pytest.raises(WorkerError, match="was not made") as caught:
        converted(source, tmp_path / "out", executor=executor)
    assert "OSError: lost" in str(caught.value)
    assert list(files(tmp_path / "out")) == [".m.safetensors.parts/"]
    executor = Unreliable(lambda number: None)
    same(converted(source, tmp_path / "out", executor=executor, resume=True), wanted)
    assert executor.calls == len(wanted) - 1 - 2  # all but the index and the two that were finished


def test_what_layoutx_refuses_is_not_tried_again(source, tmp_path):
    error = Problems([ConversionError("no", where="here"), ConversionError("never")], "two problems")
    executor = Unreliable(lambda number: error)
    with pytest.raises(Problems, match="two problems"):
        converted(source, tmp_path / "out", executor=executor)
    assert files(tmp_path / "out") == {}


def test_problems_reach_another_process():
    error = Problems([ConversionError("no", where="here", do="that"), UsageError("never")], "two problems")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.exit_code, type(again.problems[1])) == (str(error), 2, UsageError)


def die_once(flag, real, part):
    """What a worker does in the place of `make`: the first one dies in the middle of a shard, as if killed."""
    if not Path(flag).exists():
        Path(flag).touch()
        (part.path.parent / f".{part.path.name}.half.tmp").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    return real(part)


@pytest.fixture
def deadly(tmp_path, monkeypatch):
    """The first worker that makes a shard dies."""
    monkeypatch.setattr(executors, "make", partial(die_once, str(tmp_path / "died"), shards.make))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), str(ROOT)]))
    return tmp_path / "died"


def test_a_pool_that_broke_is_told_and_finished_shards_are_kept(source, wanted, tmp_path, deadly):
    with forked() as executor, pytest.raises(WorkerError) as caught:
        converted(source, tmp_path / "out", executor=executor)
    assert deadly.exists()
    assert "resume" in str(caught.value)
    with forked() as executor:
        same(converted(source, tmp_path / "out", executor=executor, resume=True), wanted)


def test_a_function_that_makes_pools_outlives_them(source, wanted, tmp_path, deadly):
    same(converted(source, tmp_path / "out", executor=forked), wanted)
    assert deadly.exists()


def test_loky_outlives_a_worker(source, wanted, tmp_path, deadly):
    loky = pytest.importorskip("loky")
    executor = loky.get_reusable_executor(max_workers=2, reuse=False)
    same(converted(source, tmp_path / "out", executor=executor), wanted)
    assert deadly.exists()
    loky.get_reusable_executor().shutdown()


@pytest.fixture(scope="module")
def dask():
    """A cluster of separate processes: a scheduler and two workers, with nannies that replace who dies."""
    distributed = pytest.importorskip("distributed")
    path = os.pathsep.join([str(Path(__file__).parent), str(ROOT)])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = path  # the workers import this module too
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", host="127.0.0.1"
    )
    with cluster, closing(distributed.Client(cluster)) as client:
        yield client
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


def test_dask(source, wanted, tmp_path, dask):
    same(converted(source, tmp_path / "out", executor=dask.get_executor()), wanted)


def test_dask_outlives_a_worker(source, wanted, tmp_path, dask, deadly):
    same(converted(source, tmp_path / "out", executor=dask.get_executor()), wanted)
    assert deadly.exists()


def test_dask_from_the_command_line(source, wanted, tmp_path, dask):
    from layoutx.cli import main

    (tmp_path / "out").mkdir()
    call = ["convert", str(source), "-o", str(tmp_path / "out" / "m.safetensors"), "--to", "torch", "--from", "flax"]
    more = ["--max-shard-size", "3KB", "--verify", "bytes", "--dask", dask.scheduler.address]
    assert main([*call, *more]) == 0
    same(files(tmp_path / "out"), wanted)


def test_a_scheduler_that_does_not_answer(source, tmp_path, monkeypatch, capsys):
    pytest.importorskip("distributed")
    from layoutx.cli import main
    from layoutx.job import engines

    monkeypatch.setattr(engines, "TIMEOUT", 1)
    out = str(tmp_path / "m.safetensors")
    assert main(["convert", str(source), "-o", out, "--to", "torch", "--dask", "tcp://127.0.0.1:9"]) == 2
    assert "no Dask scheduler answers" in capsys.readouterr().err


@pytest.mark.parametrize(("engine", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_an_engine_that_is_not_installed(source, tmp_path, monkeypatch, capsys, engine, package):
    from layoutx.cli import main

    monkeypatch.setitem(sys.modules, package, None)
    call = ["convert", str(source), "-o", str(tmp_path / "m.safetensors"), "--to", "torch", "--from", "flax"]
    assert main([*call, f"--{engine}", "tcp://127.0.0.1:9"]) == 2
    assert f'pip install "layoutx[{engine}]"' in capsys.readouterr().err
    assert main([*call, "--dask", "x", "--ray", "y"]) == 2
    assert "exclude each other" in capsys.readouterr().err
    assert files(tmp_path) == {}


@pytest.fixture
def small_pieces(monkeypatch):
    """A giant tensor in many pieces, though it is small; workers that are forked see it too."""
    monkeypatch.setattr(pieces.cut_of, "__defaults__", (512,))
    monkeypatch.setattr(pieces, "SPAN", 16)
    monkeypatch.setattr(split, "PIECE", 512)
    monkeypatch.setattr(hashes, "LEAF", 64)  # what one worker makes ends where a leaf of the hash ends


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, forked])
@pytest.mark.parametrize("dtype", [None, "bf16"])
def test_one_giant_tensor_is_made_by_several_workers(tmp_path, small_pieces, kind, dtype, monkeypatch):
    path = checkpoint(tmp_path / "g.safetensors", giant=211)
    alone = converted(path, tmp_path / "alone", dtype=dtype)
    asked = []
    monkeypatch.setattr(executors, "slabs", lambda part, most: asked.append(slabs(part, most)) or asked[-1])
    with kind() as executor:
        same(converted(path, tmp_path / "out", dtype=dtype, executor=executor), alone)
    assert [len(one) > 1 for one in asked] == [True, True]
    for one in asked:
        assert [n for slab in one for n in slab.pieces] == list(range(one[-1].pieces.stop))


slabs = executors.slabs


def test_a_giant_tensor_outlives_failures(tmp_path, small_pieces):
    path = checkpoint(tmp_path / "g.safetensors", giant=211)
    alone = converted(path, tmp_path / "alone", verify="layers", live=False)
    executor = Unreliable(lambda number: OSError("lost") if number in (2, 3, 5, 9, 11, 14) else None)
    same(converted(path, tmp_path / "out", verify="layers", live=False, executor=executor), alone)


@pytest.mark.parametrize("seed", range(3))
def test_a_disk_that_fails_at_random(tmp_path, small_pieces, monkeypatch, seed):
    """A fifth of the places that are written refuse, once or twice; every shard has a few of them."""
    path = checkpoint(tmp_path / "g.safetensors", giant=211)
    alone = converted(path, tmp_path / "alone")
    real, left, failed = pool.write_all, {}, []

    def write(file, data, offset):
        key = f"{seed} {offset} {len(data)}"
        left.setdefault(key, random.Random(key).choices((0, 1, 2), (80, 15, 5))[0])
        if left[key]:
            left[key] -= 1
            failed.append(key)
            raise OSError(5, "Input/output error")
        return real(file, data, offset)

    monkeypatch.setattr(pool, "write_all", write)
    monkeypatch.setattr(executors, "TRIES", 40)
    with ThreadPoolExecutor(2) as executor:
        same(converted(path, tmp_path / "out", executor=executor), alone)
    assert len(failed) > 3


def test_an_output_that_fits_one_shard_is_one_file_with_its_certificate(source, tmp_path):
    converted(source, tmp_path / "alone", max_shard_size=None)
    with ThreadPoolExecutor(2) as executor:
        found = converted(source, tmp_path / "out", executor=executor, max_shard_size=None)
    assert found == files(tmp_path / "alone")
    assert list(found) == ["m.safetensors"]


def test_what_is_no_executor_and_what_needs_no_shards(source, tmp_path):
    with pytest.raises(UsageError, match="executor is a str"):
        converted(source, tmp_path / "out", executor="dask")
    with ThreadPoolExecutor(2) as executor, pytest.raises(UsageError, match="shards"):
        lx.convert(source, tmp_path / "m.npz", to="torch", from_="flax", executor=executor)
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(WorkerError, match="takes no more work"):
        converted(source, tmp_path / "out", executor=executor)


def test_a_worker_of_another_process_says_what_layoutx_says(source, tmp_path):
    """A folder that only the caller has."""
    with spawned() as executor:
        part = shards.Part(tmp_path / "nowhere" / "m.safetensors", (), {})
        with pytest.raises(LayoutxError, match="there is no folder"):
            executor.submit(shards.make, part).result()


def test_plain_paths_load_neither_fsspec_nor_an_engine(source, tmp_path):
    code = (
        "import sys, layoutx as lx\n"
        f"lx.convert({str(source)!r}, {str(tmp_path / 'm.safetensors')!r}, to='torch', from_='flax', "
        "max_shard_size=3000, verify='bytes')\n"
        "print(sorted({n.split('.')[0] for n in sys.modules} & {'fsspec', 'distributed', 'dask', 'ray', 'loky'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


def test_waiting_for_the_end_of_what_runs(source, tmp_path):
    """A folder that is given up is not written to any more when `convert` returns."""

    at_work, began = [], Event()

    class Slow(ThreadPoolExecutor):
        def submit(self, fn, /, *args, **kwargs):
            refuse = not hasattr(self, "asked")
            self.asked = True
            return super().submit(refused if refuse else slowly, fn)

    def refused(fn):
        assert began.wait(60)
        raise ConversionError("no")

    def slowly(fn):
        at_work.append(fn)
        began.set()
        time.sleep(0.3)
        at_work.remove(fn)

    with Slow(2) as executor:
        with pytest.raises(ConversionError):
            converted(source, tmp_path / "out", executor=executor)
        assert at_work == []
    assert files(tmp_path / "out") == {}
