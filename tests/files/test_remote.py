"""Files that fsspec reaches: the same bytes as of local ones, only what is needed read, nothing half-written."""

from __future__ import annotations

import json
import logging
import os
import random
import subprocess
import sys
import uuid
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import layoutx as lx
from layoutx.errors import FileError, LayoutxError, UsageError
from layoutx.files import remote, remote_write
from layoutx.files.open import open_store
from layoutx.files.remote import located, url_of
from layoutx.job import near, shards

fsspec = pytest.importorskip("fsspec")
ROOT = Path(__file__).resolve().parents[2]
MOST = 3000


@pytest.fixture(scope="module")
def server():
    """An S3 server on the loopback, and what the environment has to say for it."""
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    said = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in said}
    os.environ.update(said)
    yield said
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    running.stop()


@pytest.fixture(params=["memory", "s3"])
def place(request):
    """The address of an empty folder of a store."""
    if request.param == "memory":
        fs = fsspec.filesystem("memory")
        yield "memory://bucket"
        fs.store.clear()
        return
    yield request.getfixturevalue("bucket")


@pytest.fixture
def bucket(server):
    """An S3 bucket of its own."""
    fs = fsspec.filesystem("s3", use_listings_cache=False)
    name = f"bucket-{uuid.uuid4().hex}"
    fs.mkdir(name)
    yield f"s3://{name}"
    assert unfinished(f"s3://{name}") == []
    fs.rm(name, recursive=True)


def unfinished(address):
    """Multipart uploads that were neither finished nor given up."""
    fs, name = fsspec.core.url_to_fs(address)
    return fs.call_s3("list_multipart_uploads", Bucket=name).get("Uploads", [])


def there(address):
    """Name -> bytes of everything below an address."""
    fs, name = fsspec.core.url_to_fs(address, use_listings_cache=False)
    root = name.rstrip("/") + "/"
    return {file.removeprefix(root): fs.cat_file(file) for file in fs.find(name)} if fs.exists(name) else {}


def write(folder, giant=()):
    rng = np.random.default_rng(5)
    sizes = [(13, 17), (17, 17), (17, 29), (29, 11), (11, 19)] * 2
    arrays = {}
    for number, (inputs, outputs) in enumerate([*sizes, *giant]):
        arrays[f"params.Dense_{number}.kernel"] = rng.normal(size=(inputs, outputs)).astype("f4")
        arrays[f"params.Dense_{number}.bias"] = rng.normal(size=outputs).astype("f4")
    save_file(arrays, folder / "m.safetensors")
    return folder / "m.safetensors"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write(tmp_path_factory.mktemp("source"))


def converted(source, out, **how):
    given = {"to": "torch", "from_": "flax", "max_shard_size": MOST, "verify": "bytes", **how}
    return lx.convert(source, out, **given)


@pytest.fixture(scope="module")
def wanted(source, tmp_path_factory):
    """What a local conversion gives."""
    folder = tmp_path_factory.mktemp("wanted")
    converted(source, folder / "o.safetensors")
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def wanted_one(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("one") / "o.safetensors"
    converted(source, out, max_shard_size=None)
    return out.read_bytes()


def put(local, address):
    fs, name = fsspec.core.url_to_fs(address)
    fs.put_file(str(local), name)
    return address


def test_a_remote_path_keeps_its_name_and_its_folder():
    path = located("s3://bucket/folder/m.safetensors")
    assert (path.name, url_of(path), url_of(path.parent)) == (
        "m.safetensors",
        "s3://bucket/folder/m.safetensors",
        "s3://bucket/folder",
    )
    assert url_of(path.with_name("x") / "y") == "s3://bucket/folder/x/y"
    assert url_of(located("memory://x/y")) == "memory://x/y"


@pytest.mark.parametrize("text", ["a/b", "/a/b", "C:/a/b", "C:\\a", "a.b", "./x:y", "x:y/z"])
def test_a_plain_path_is_none(text):
    assert url_of(located(text)) is None


def test_file_urls_are_plain_paths(source, wanted_one, tmp_path):
    assert located("file:///a/b c") == Path("/a/b c")
    assert located("file://localhost/a/b") == Path("/a/b")
    with pytest.raises(UsageError, match="another machine"):
        located("file://elsewhere/a")
    converted(f"file://{source}", f"file://{tmp_path}/o.safetensors", max_shard_size=None)
    assert (tmp_path / "o.safetensors").read_bytes() == wanted_one


def test_a_source_is_read_where_it_lies(place, source, wanted, wanted_one, tmp_path):
    address = put(source, f"{place}/m.safetensors")
    converted(address, tmp_path / "o.safetensors", max_shard_size=None)
    assert (tmp_path / "o.safetensors").read_bytes() == wanted_one
    (tmp_path / "shards").mkdir()
    converted(address, tmp_path / "shards" / "o.safetensors")
    assert {file.name: file.read_bytes() for file in (tmp_path / "shards").iterdir()} == wanted


def test_an_output_is_uploaded(place, source, wanted, wanted_one):
    converted(source, f"{place}/one/o.safetensors", max_shard_size=None)
    assert there(f"{place}/one") == {"o.safetensors": wanted_one}
    converted(source, f"{place}/shards/o.safetensors")
    assert there(f"{place}/shards") == wanted


def test_from_shards_of_a_store_into_shards_of_it(place, source, wanted, tmp_path):
    """The way back of what was sharded, and there again: an index and its shards are a source too."""
    converted(source, f"{place}/o.safetensors")
    store = open_store(f"{place}/o.safetensors.index.json")
    here = open_store(source).tensors
    kernel = store.tensors["params.Dense_3.weight"].read()
    np.testing.assert_array_equal(kernel, here["params.Dense_3.kernel"].read().T)
    assert not store.tensors["params.Dense_3.weight"].mapped


def test_all_layers_are_proved_from_ranges(place, source, tmp_path):
    address = put(source, f"{place}/m.safetensors")
    report = converted(address, f"{place}/o.safetensors", verify="layers", max_shard_size=None, live=False)
    assert report.source["file"] == "m.safetensors"


@pytest.mark.parametrize("name", ["m.npz", "m.h5"])
def test_other_formats_are_downloaded_first(bucket, source, tmp_path, name):
    if name == "m.npz":
        np.savez(tmp_path / name, **{n: t.read() for n, t in open_store(source).tensors.items()})
        told = []
        address = put(tmp_path / name, f"{bucket}/{name}")
        converted(address, tmp_path / "o.safetensors", max_shard_size=None, progress=lambda *said: told.append(said))
        assert any("downloaded" in what for _, _, what in told)
        converted(tmp_path / name, tmp_path / "p.safetensors", max_shard_size=None)
        assert (tmp_path / "o.safetensors").read_bytes() == (tmp_path / "p.safetensors").read_bytes()
    else:
        (tmp_path / name).write_bytes(b"\x89HDF\r\n\x1a\n" + b"x" * 99)
        with pytest.raises(FileError, match=r"m\.h5"):
            converted(put(tmp_path / name, f"{bucket}/{name}"), tmp_path / "o.safetensors")


def test_formats_that_are_written_whole_are_uploaded_too(place, source, tmp_path):
    converted(source, f"{place}/o.npz", max_shard_size=None)
    converted(source, tmp_path / "o.npz", max_shard_size=None)
    (found,) = there(place).values()
    (tmp_path / "found.npz").write_bytes(found)
    a, b = np.load(tmp_path / "found.npz"), np.load(tmp_path / "o.npz")
    assert set(a) == set(b)
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_a_shard_reads_only_what_it_needs(bucket, tmp_path, monkeypatch):
    """Of a file of 8 MB, one shard needs a twentieth; the whole is read once by all together."""
    path = write(tmp_path, giant=[(401, 499)] * 10)
    address = put(path, f"{bucket}/m.safetensors")
    read = []
    whole = remote.fetch

    def counted(far, ranges, put):
        read.append(sum(end - begin for begin, end in ranges))
        return whole(far, ranges, put)

    monkeypatch.setattr(near, "fetch", counted)
    monkeypatch.setattr(near, "GAP", 0)
    converted(address, tmp_path / "o.safetensors", max_shard_size=900_000, verify="none")
    size = path.stat().st_size
    assert len(read) >= 10
    assert max(read) < size / 5
    assert sum(read) < size * 1.01


def test_ranges_that_nearly_touch_are_one_request():
    assert near.together([(50, 60), (0, 10), (12, 20), (10, 11)], 2) == [(0, 20), (50, 60)]
    assert near.together([(0, 100), (10, 20)], 0) == [(0, 100)]


def test_processes_read_and_write_a_store(bucket, source, wanted):
    address = put(source, f"{bucket}/m.safetensors")
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        converted(address, f"{bucket}/out/o.safetensors", executor=executor)
    assert there(f"{bucket}/out") == wanted


def test_dask_reads_and_writes_a_store(bucket, source, wanted, server):
    distributed = pytest.importorskip("distributed")
    address = put(source, f"{bucket}/m.safetensors")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", host="127.0.0.1"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        converted(address, f"{bucket}/out/o.safetensors", executor=client.get_executor())
    assert there(f"{bucket}/out") == wanted


class Failing:
    """A store that fails at random, up to two times for each thing it is asked: before it, or in the middle of it."""

    def __init__(self, monkeypatch, system, seed):
        self.seed, self.count, self.left = seed, 0, {}
        for name in ("put_file", "cat_ranges", "cp_file", "rm_file", "pipe_file", "open"):
            self.wrap(monkeypatch, system, name)

    def wrap(self, monkeypatch, system, name):
        real, write = getattr(system, name), system.pipe_file

        def call(*args, **kwargs):
            key = f"{self.seed} {name} {args[1:]}"  # not in the order of the threads
            self.left.setdefault(key, random.Random(key).choices((0, 1, 2), (6, 2, 2))[0])
            if self.left[key]:
                self.left[key] -= 1
                self.count += 1
                if name == "put_file":
                    write(args[1], b"half")
                raise OSError(f"{name} failed")
            return real(*args, **kwargs)

        monkeypatch.setattr(system, name, call)


@pytest.mark.parametrize("seed", range(3))
def test_a_store_that_fails_at_random(bucket, source, wanted, monkeypatch, seed):
    address = put(source, f"{bucket}/m.safetensors")
    monkeypatch.setattr(remote, "PAUSE", 0.0)
    fs, _ = remote.system_of(located(address))
    failing = Failing(monkeypatch, fs, seed)
    with ThreadPoolExecutor(2) as executor:
        converted(address, f"{bucket}/out/o.safetensors", executor=executor)
    assert failing.count > 3
    monkeypatch.undo()
    assert there(f"{bucket}/out") == wanted


def test_a_store_that_always_fails_leaves_nothing(bucket, source, monkeypatch):
    monkeypatch.setattr(remote, "PAUSE", 0.0)
    address = put(source, f"{bucket}/m.safetensors")
    before = there(bucket)
    fs, _ = remote.system_of(located(address))
    real = fs.put_file

    def put_file(local, name, **how):
        real(local, name, **how)
        raise OSError("the line broke")

    monkeypatch.setattr(fs, "put_file", put_file)
    for most in (None, MOST):
        with pytest.raises(FileError, match="cannot write"):
            converted(address, f"{bucket}/out/o.safetensors", max_shard_size=most)
        monkeypatch.setattr(fs, "put_file", put_file)
        assert there(bucket) == before


def test_an_upload_that_changed_on_its_way_is_not_kept(place, source, monkeypatch):
    monkeypatch.setattr(remote, "PAUSE", 0.0)
    converted(source, f"{place}/o.safetensors", max_shard_size=None)
    before = there(place)
    fs, _ = remote.system_of(located(place) / "o.safetensors")

    def put_file(local, name, **how):
        data = bytearray(Path(local).read_bytes())
        data[-3] ^= 4
        fs.pipe_file(name, bytes(data))

    monkeypatch.setattr(fs, "put_file", put_file)
    with pytest.raises(FileError, match="not those that were sent"):
        converted(source, f"{place}/o.safetensors", max_shard_size=None)
    assert there(place) == before, "the old output stays"


def test_a_large_upload_comes_in_parts_and_is_given_up_as_a_whole(bucket, source, tmp_path, monkeypatch):
    """s3fs sends more than 100 MB in parts; of a failed upload none stays (the bucket's fixture looks)."""
    path = tmp_path / "large.safetensors"
    save_file({"params.Dense_0.kernel": np.ones((6000, 5000), "f4")}, path)
    fs, _ = remote.system_of(located(bucket) / "x")
    parts = []
    real = fs._call_s3

    async def call(method, *args, **kwargs):
        parts.append(method)
        if method == "upload_part" and parts.count("upload_part") == 2:
            raise OSError("the line broke")
        return await real(method, *args, **kwargs)

    monkeypatch.setattr(fs, "_call_s3", call)
    remote_write.upload(path, located(bucket) / "large.safetensors", again=False)
    assert parts.count("create_multipart_upload") == 2
    assert parts.count("abort_multipart_upload") == 1
    assert fs.info(f"{bucket}/large.safetensors")["size"] == path.stat().st_size


def test_a_stopped_job_goes_on_from_what_is_in_the_store(bucket, source, wanted, monkeypatch):
    real, done = shards.make, []

    def stop(part):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(part)
        return real(part)

    monkeypatch.setattr(shards, "make", stop)
    with pytest.raises(KeyboardInterrupt):
        converted(source, f"{bucket}/out/o.safetensors")
    assert not any("index" in name for name in there(f"{bucket}/out"))
    made = []
    monkeypatch.setattr(shards, "make", lambda part: made.append(part) or real(part))
    converted(source, f"{bucket}/out/o.safetensors", resume=True)
    assert there(f"{bucket}/out") == wanted
    assert len(made) == len(wanted) - 1 - 2


def test_a_refused_job_leaves_nothing_in_the_store(bucket, tmp_path):
    save_file(
        {"params.Dense_0.kernel": np.full((700, 3), 1e30, "f4"), "params.Dense_0.bias": np.ones(3, "f4")},
        p := tmp_path / "m.safetensors",
    )
    with pytest.raises(LayoutxError, match="infinite"):
        converted(p, f"{bucket}/o.safetensors", dtype="f16", max_shard_size=9000)
    with pytest.raises(LayoutxError, match="infinite"):
        converted(p, f"{bucket}/o.safetensors", dtype="f16", max_shard_size=3000)
    assert there(bucket) == {}


def test_what_is_not_there(bucket, source, tmp_path):
    with pytest.raises(UsageError, match=r"no file x\.safetensors"):
        converted(f"{bucket}/x.safetensors", tmp_path / "o.safetensors")
    with pytest.raises(UsageError, match="make the bucket first"):
        converted(source, "s3://no-such-bucket-here/o.safetensors")
    with pytest.raises(UsageError, match="is a folder"):
        converted(source, f"{bucket}/o.orbax", max_shard_size=None)
    address = put(source, f"{bucket}/in/m.safetensors")
    with pytest.raises(UsageError, match=r"in is a folder[^?]*name a file in it: m\.safetensors"):
        converted(f"{bucket}/in", tmp_path / "o.safetensors")
    with pytest.raises(UsageError, match="source itself"):
        converted(address, address)
    with pytest.raises(UsageError, match="remote"):
        converted("nothing://x/m.safetensors", tmp_path / "o.safetensors")


def test_names_of_a_target_come_from_a_store_too(source, tmp_path):
    fs = fsspec.filesystem("memory")
    converted(source, "memory://b/t.safetensors", max_shard_size=None)
    report = converted(source, tmp_path / "o.safetensors", max_shard_size=None, like="memory://b/t.safetensors")
    assert len(report.layers) == 10
    assert lx.inspect("memory://b/t.safetensors").to_dict()
    fs.store.clear()


def test_an_index_without_its_shards(bucket, tmp_path):
    index = {"metadata": {}, "weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps(index))
    address = put(tmp_path / "m.safetensors.index.json", f"{bucket}/m.safetensors.index.json")
    with pytest.raises(FileError, match="2 of the 2 shards"):
        open_store(address)


def test_a_file_that_became_shorter(bucket, source):
    address = put(source, f"{bucket}/m.safetensors")
    tensor = list(open_store(address).tensors.values())[-1]
    fs, name = fsspec.core.url_to_fs(address)
    fs.pipe_file(name, source.read_bytes()[:2000])
    with pytest.raises(FileError, match=r"m\.safetensors"):
        tensor.read()


def test_a_reading_that_gives_less_than_was_asked_for():
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/b/x", b"x" * 50)
    with pytest.raises(FileError, match="cannot read x") as caught:
        remote.fetch(located("memory://b/x"), [(10, 100)], lambda at, data: None)
    assert "40 came" in str(caught.value)
    fs.store.clear()


def test_without_fsspec_it_says_what_to_install(tmp_path):
    code = (
        "import sys; sys.modules['fsspec'] = None\n"
        "from layoutx.cli import main\n"
        "sys.exit(main(['convert', 's3://b/m.safetensors', '-o', 'o.safetensors', '--to', 'torch']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert 'pip install "layoutx[remote]"' in done.stderr


def test_uploads_in_parts_of_dead_runs_are_given_up(bucket, tmp_path, monkeypatch):
    """Nobody sees them, and they are paid for; those of a day may be alive."""
    fs, name = remote.system_of(located(bucket) / "m.npz")
    for key in ("m.npz", "n.npz"):
        fs.call_s3("create_multipart_upload", Bucket=name.split("/")[0], Key=key)
    (tmp_path / "m.npz").write_bytes(b"new")
    with monkeypatch.context() as patch:
        patch.setattr(remote_write, "DAY", 10**9)  # moto says that every upload began in 2010
        remote_write.upload(tmp_path / "m.npz", located(bucket) / "m.npz", again=False)
    assert len(unfinished(bucket)) == 2
    remote_write.upload(tmp_path / "m.npz", located(bucket) / "m.npz", again=False)
    (other,) = unfinished(bucket)
    assert other["Key"] == "n.npz"
    fs.call_s3("abort_multipart_upload", Bucket=name.split("/")[0], Key="n.npz", UploadId=other["UploadId"])


def test_the_record_of_a_publication_is_asked_for_again(tmp_path, monkeypatch):
    """A store that fails once is asked again what a stopped run left, and which shards an old index names."""
    save_file({"w": np.ones((30, 7), "f4"), "v": np.ones((29, 7), "f4")}, tmp_path / "m.safetensors", {"format": "pt"})
    system, failed = type(fsspec.filesystem("memory")), list[str]()
    plain = system._open

    def once(self, path, *args, **kwargs):
        if path.endswith(".json") and path not in failed:
            failed.append(path)
            raise OSError("the store failed")
        return plain(self, path, *args, **kwargs)

    monkeypatch.setattr(system, "_open", once)
    for dtype in ("f16", "bf16"):  # the second one replaces the first one's shards
        failed.clear()
        how = {"to": "torch", "dtype": dtype, "max_shard_size": "0.5KB"}
        lx.convert(tmp_path / "m.safetensors", "memory://again/m.safetensors", **how)
        assert len(fsspec.filesystem("memory").ls("/again")) == 3
        assert any(path.endswith("publish.json") for path in failed)
