"""A file is read again before it appears, whatever its format; and what its certificate says of each tensor is true."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import LayoutxError
from layoutx.files import save as saving
from layoutx.files.certificate import KEY, certificate_of
from layoutx.files.hashes import LEAF, SHA256, XXH3, hash_of
from layoutx.files.open import open_store
from layoutx.files.save import save
from layoutx.job import stream as streaming
from layoutx.move import again

DIGITS = Path(__file__).parents[2] / "examples" / "digits.keras"
WAYS = [".safetensors", ".npz", ".msgpack", ".pdparams", ".pt", ".keras", ".weights.h5", ".dcp", ".orbax"]


@pytest.fixture(scope="module")
def torch_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("made") / "t.safetensors"
    lx.convert(DIGITS, path, to="torch", live=False)
    return path


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """The structure of the example as weights alone."""
    keras = pytest.importorskip("keras")
    path = tmp_path_factory.mktemp("made") / "t.weights.h5"
    keras.saving.load_model(DIGITS).save_weights(path)
    return path


def arguments(ending: str, torch_file: Path, request) -> tuple[Path, dict]:
    if ending in (".keras", ".weights.h5"):
        like = DIGITS if ending == ".keras" else request.getfixturevalue("template")
        return torch_file, {"to": "keras", "like": like, "keep_order": ending == ".weights.h5"}
    if ending in (".pt", ".dcp"):
        pytest.importorskip("torch")
    if ending == ".orbax":
        pytest.importorskip("orbax.checkpoint")
    return DIGITS, {"to": "torch"}


def flipped(place: Path, needle: bytes) -> None:
    """One bit of a tensor changes, wherever in a file or folder its bytes lie."""
    files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    for path in files:
        data = bytearray(path.read_bytes())
        at = data.find(needle)
        if at >= 0:
            data[at + len(needle) // 2] ^= 1
            path.write_bytes(data)
            return
    raise AssertionError("the tensor was not found in the file")


@pytest.mark.parametrize("ending", WAYS)
def test_a_bit_that_flips_before_the_rename_is_found(ending, torch_file, tmp_path, monkeypatch, request):
    source, call = arguments(ending, torch_file, request)
    output = tmp_path / f"out{ending}"
    lx.convert(source, output, live=False, **call)
    store = open_store(output)
    tensor = max(store.tensors.values(), key=lambda one: one.nbytes)
    needle = tensor.read().tobytes()[:512]
    before = {path: path.read_bytes() for path in [output, *output.rglob("*")] if path.is_file()}
    done = []

    def hit(place: Path) -> None:
        try:
            flipped(place, needle)
        except AssertionError:  # orbax compresses: any byte of its data will do
            path = max((p for p in place.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
        done.append(place)

    own, check = saving.verify, streaming.check_again
    monkeypatch.setattr(saving, "verify", lambda written, *rest: (hit(written), own(written, *rest)))
    monkeypatch.setattr(streaming, "check_again", lambda places, *rest: (hit(places[0].path), check(places, *rest)))
    with pytest.raises(LayoutxError):
        lx.convert(source, output, live=False, **call)
    assert len(done) == 1
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [output.name]


def test_a_bit_that_flips_in_an_onnx_model_is_found(tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx")
    kernel = np.random.default_rng(0).normal(size=(53, 31)).astype("f4")
    node = onnx.helper.make_node("Gemm", ["x", "w"], ["y"])
    io = [onnx.helper.make_tensor_value_info(n, 1, [1, s]) for n, s in (("x", 53), ("y", 31))]
    held = onnx.numpy_helper.from_array(kernel, "w")
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", io[:1], io[1:], [held]))
    like = tmp_path / "like.onnx"
    onnx.save(model, like)
    own = saving.verify
    monkeypatch.setattr(
        saving, "verify", lambda written, *rest: (flipped(written, (kernel + 1).tobytes()[:64]), own(written, *rest))
    )
    with pytest.raises(LayoutxError, match="its bytes changed"):
        save(tmp_path / "out.onnx", {"w": kernel + 1}, {}, open_store(like))
    assert [path.name for path in tmp_path.iterdir()] == ["like.onnx"]


def test_shards_are_read_again_each(torch_file, tmp_path, monkeypatch):
    own = streaming.check_again
    hits = []

    def hit(places, *rest):
        hits.append(places[0].path)
        if len(hits) == 2:
            data = bytearray(places[0].path.read_bytes())
            data[-3] ^= 4
            places[0].path.write_bytes(data)
        own(places, *rest)

    monkeypatch.setattr(streaming, "check_again", hit)
    with pytest.raises(LayoutxError, match="its bytes changed"):
        lx.convert(DIGITS, tmp_path / "s.safetensors", to="torch", live=False, max_shard_size="10kB")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [XXH3, SHA256])
@pytest.mark.parametrize("more", [{}, {"max_shard_size": "10kB"}, {"dtype": "bf16", "allow": ["rounds"]}])
def test_the_hashes_are_those_of_both_files(kind, more, tmp_path):
    checksum = "sha256" if kind == SHA256 else ""
    lx.convert(DIGITS, tmp_path / "t.safetensors", to="torch", live=False, checksum=checksum, **more)
    index = tmp_path / "t.safetensors.index.json"
    store = open_store(index if index.exists() else tmp_path / "t.safetensors")
    said = certificate_of(store)["hashes"]
    assert said["kind"] == kind
    assert said["tensors"] == {name: hash_of(t.read(), kind) for name, t in store.tensors.items()}
    source = open_store(DIGITS).tensors
    assert len(said["sources"]) == 12
    assert said["sources"] == {name: hash_of(source[name].read(), kind) for name in said["sources"]}


def test_large_tensors_are_hashed_alike_whatever_the_cut_and_the_threads(tmp_path, monkeypatch):
    """Pieces that end inside a leaf, and pieces of many runs: a convolution's way back is cut across its window."""
    rng = np.random.default_rng(1)
    size = (257, 511, 3, 3)
    save(tmp_path / "a.safetensors", {
        "conv.weight": rng.normal(size=size).astype("f4"), "conv.bias": rng.normal(size=257).astype("f4"),
        "dense.weight": rng.normal(size=(1031, 1301)).astype("f4"), "dense.bias": rng.normal(size=1031).astype("f4"),
    }, {})  # fmt: skip
    said = []
    for jobs in (1, 3):
        out = tmp_path / f"out{jobs}.safetensors"
        lx.convert(tmp_path / "a.safetensors", out, to="flax", from_="torch", live=False, verify="bytes", jobs=jobs,
                   keep_order=True)  # fmt: skip
        store = open_store(out)
        said.append(store.metadata[KEY])
        own = json.loads(said[-1])["hashes"]
        assert own["tensors"] == {name: hash_of(t.read()) for name, t in store.tensors.items()}
        source = open_store(tmp_path / "a.safetensors").tensors
        assert own["sources"] == {name: hash_of(t.read()) for name, t in source.items()}
    assert said[0] == said[1]
    assert max(t.nbytes for t in store.tensors.values()) > 32 * LEAF


def test_a_file_that_changed_between_is_not_taken_by_resume(tmp_path):
    from layoutx.move.moves import kept

    save(tmp_path / "a.safetensors", {"w": np.arange(7.0), "b": np.arange(3.0)}, {})
    store = open_store(tmp_path / "a.safetensors")
    moves = [kept(name, tensor) for name, tensor in store.tensors.items()]
    hashes = {name: hash_of(t.read()) for name, t in store.tensors.items()}
    assert again.same_again(store.path, moves, hashes)
    save(tmp_path / "a.safetensors", {"w": np.arange(7.0), "b": -np.arange(3.0)}, {})
    assert not again.same_again(store.path, moves, hashes)


def test_verify_none_hashes_the_output_and_not_the_source(tmp_path):
    lx.convert(DIGITS, tmp_path / "t.safetensors", to="torch", live=False, verify="none")
    said = certificate_of(open_store(tmp_path / "t.safetensors"))["hashes"]
    assert len(said["tensors"]) == 13
    assert said["sources"] == {}


@pytest.mark.parametrize("ending", [".keras", ".weights.h5", ".pt2"])
def test_what_a_framework_saves_is_read_again_too(ending, tmp_path, monkeypatch):
    import shutil

    from layoutx import ported

    output = tmp_path / f"out{ending}"
    if ending == ".pt2":
        torch = pytest.importorskip("torch")
        target = torch.export.export(torch.nn.Linear(7, 5).double(), (torch.ones(1, 7, dtype=torch.double),))
        needle = next(iter(target.state_dict.values())).detach().numpy().tobytes()[:64]
    else:
        keras = pytest.importorskip("keras")
        target = keras.Sequential([keras.Input((7,)), keras.layers.Dense(5)])
        needle = target.get_weights()[0].tobytes()[:64]
    report = lx.convert(DIGITS, to="torch", live=False)
    assert ported.saved(target, str(output), report).output == str(output)
    before, own = output.read_bytes(), shutil.copyfile
    monkeypatch.setattr(shutil, "copyfile", lambda one, two: (own(one, two), flipped(Path(two), needle)))
    with pytest.raises(LayoutxError, match=r"did not keep|checksum"):
        ported.saved(target, str(output), report)
    assert output.read_bytes() == before


def test_a_recording_and_a_mapping_are_read_again(tmp_path, monkeypatch):
    from layoutx.model import mapwrite
    from layoutx.verify.recording import Call, Recording
    from layoutx.verify.running import recorded

    write = recorded.write_safetensors
    inputs = np.arange(37.0)
    call = Call("a", "torch.nn.ReLU", (inputs,), (inputs + 1,))
    run = Recording("torch", "2.13", "float64", (inputs,), (inputs + 2,), (call,))
    monkeypatch.setattr(
        recorded, "write_safetensors", lambda at, *rest: (write(at, *rest), flipped(at, (inputs + 1).tobytes()))
    )
    with pytest.raises(LayoutxError, match="its bytes changed"):
        recorded.write_recording(run, tmp_path / "run.safetensors")
    own = Path.write_text
    monkeypatch.setattr(Path, "write_text", lambda at, text, **more: own(at, text.replace("a", "b", 1), **more))
    with pytest.raises(LayoutxError, match="did not keep"):
        mapwrite.write_map(tmp_path / "map.yaml", "a.keras", "b.keras", [])
    assert list(tmp_path.iterdir()) == []
