"""Saving: every bit comes back, or no file appears."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from tricky import same_bits, tricky_arrays

import layoutx.files.save as save_module
from layoutx.errors import FileError, LayoutxError, Problems, UsageError, VerificationError
from layoutx.files.atomic import replacing
from layoutx.files.open import open_store
from layoutx.files.save import can_write, save

FLAT = (".safetensors", ".npz", ".pt", ".pth")


@pytest.mark.parametrize("ending", FLAT)
@pytest.mark.parametrize("certificate", ["{}", '{"source": "snö ☃"}' + "x" * 100_000])
def test_every_bit_and_the_metadata_survive(tmp_path, ending, certificate):
    if ending.startswith(".pt"):
        pytest.importorskip("torch")
    arrays = tricky_arrays()
    before = {name: array.copy() for name, array in arrays.items()}
    path = tmp_path / f"x{ending}"
    save(path, arrays, {"layoutx": certificate, "author": "näme"})
    store = open_store(path)
    assert list(store.tensors) == list(arrays)
    for name, want in arrays.items():
        same_bits(store.tensors[name].read(), want)
        assert want.tobytes() == before[name].tobytes()
    assert dict(store.metadata) == {"layoutx": certificate, "author": "näme"}
    assert os.listdir(tmp_path) == [path.name]


def test_the_libraries_themselves_read_what_is_written(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors import safe_open

    arrays = tricky_arrays()
    save(tmp_path / "x.safetensors", arrays, {"layoutx": "c"})
    save(tmp_path / "x.pt", arrays, {"layoutx": "c"})
    save(tmp_path / "x.npz", arrays, {"layoutx": "c"})
    state = torch.load(tmp_path / "x.pt", weights_only=True, mmap=True)
    plain = {name: array for name, array in arrays.items() if array.dtype.isbuiltin != 2}
    with safe_open(tmp_path / "x.safetensors", "np") as numpy_view, np.load(tmp_path / "x.npz") as npz:
        assert numpy_view.metadata() == {"layoutx": "c"}
        for name, want in plain.items():
            np.testing.assert_array_equal(numpy_view.get_tensor(name), want)
            np.testing.assert_array_equal(npz[name], want)
            np.testing.assert_array_equal(state[name].numpy(), want)
    with safe_open(tmp_path / "x.safetensors", "pt") as torch_view:
        for name, value in state.items():
            got = torch_view.get_tensor(name)
            assert (got.dtype, got.shape) == (value.dtype, value.shape)
            assert torch.equal(got.reshape(-1).view(torch.uint8), value.reshape(-1).view(torch.uint8))


def test_unknown_endings_and_places(tmp_path):
    with pytest.raises(UsageError, match=r"cannot tell from its ending what x\.bin should be") as caught:
        can_write(tmp_path / "x.bin")
    assert ".safetensors, .npz, .pt, .pth, .keras, .weights.h5, .h5" in str(caught.value)
    with pytest.raises(UsageError, match="there is no folder"):
        can_write(tmp_path / "no" / "x.npz")
    (tmp_path / "d.npz").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        can_write(tmp_path / "d.npz")
    with pytest.raises(UsageError, match="needs a Keras file to be like"):
        can_write(tmp_path / "x.weights.h5")


def test_bad_input_is_named_all_together(tmp_path):
    arrays = {"text": np.array(["a"]), "objects": np.array([None]), "": np.ones(2)}
    with pytest.raises(Problems) as caught:
        save(tmp_path / "x.npz", arrays, {"n": 3})  # type: ignore[dict-item]
    text = str(caught.value)
    assert all(
        part in text for part in ("'text' does not hold", "'objects' does not hold", "no name", "'n' is not text")
    )
    with pytest.raises(UsageError, match="nothing to save"):
        save(tmp_path / "x.npz", {}, {})
    with pytest.raises(UsageError, match="safetensors cannot hold 'c'"):
        save(tmp_path / "x.safetensors", {"c": np.ones(2, np.complex128)}, {})
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("damage", ["bits", "metadata", "missing", "extra"])
def test_a_wrong_result_is_never_kept(tmp_path, monkeypatch, damage):
    """The check can fail: a writer that loses one bit, one key, one tensor."""
    from layoutx.files import npz

    honest = npz.write_npz

    def lying(path, arrays, metadata):
        arrays, metadata = dict(arrays), dict(metadata)
        if damage == "bits":
            arrays["a"] = np.array([0.0, 1.0])
        elif damage == "metadata":
            metadata = {}
        elif damage == "missing":
            del arrays["a"]
        else:
            arrays["more"] = np.ones(1)
        honest(path, arrays, metadata)

    path = tmp_path / "x.npz"
    path.write_bytes(b"old")
    monkeypatch.setattr(npz, "write_npz", lying)
    with pytest.raises(VerificationError):
        save(path, {"a": np.array([-0.0, 1.0]), "b": np.ones(3)}, {"layoutx": "c"})
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.npz"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, SystemExit])
def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch, error):
    path = tmp_path / "x.npz"
    path.write_bytes(b"old")

    def stop(*_):
        raise error

    monkeypatch.setattr(save_module, "verify", stop)
    with pytest.raises(FileError if error is OSError else error):
        save(path, {"a": np.ones(3)}, {})
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.npz"]


def test_replacing_keeps_links_and_permissions(tmp_path):
    real, link = tmp_path / "real.txt", tmp_path / "link.txt"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    with replacing(link) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".real.txt.")
        assert temporary.name.endswith(".tmp")
        temporary.write_text("new")
        assert real.read_text() == "old"
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert real.stat().st_mode & 0o777 == 0o640
    assert len(os.listdir(tmp_path)) == 2


def test_output_over_its_own_source(tmp_path):
    path = tmp_path / "x.safetensors"
    save(path, {"w": np.arange(10.0)}, {})
    arrays = {"w": open_store(path).tensors["w"].read()}
    save(path, {"w": arrays["w"].reshape(2, 5).T, "v": arrays["w"]}, {})
    same_bits(open_store(path).tensors["w"].read(), np.arange(10.0).reshape(2, 5).T)


@pytest.mark.parametrize("name", ["a\0b", "layoutx.json".removesuffix(".npy")])
def test_names_that_a_zip_cannot_hold(tmp_path, name):
    if "\0" in name:
        with pytest.raises(LayoutxError, match="a name that is refused"):
            save(tmp_path / "x.npz", {name: np.ones(2)}, {})
    else:
        save(tmp_path / "x.npz", {name: np.ones(2)}, {"layoutx": "x" * 70_000})
        assert zipfile.is_zipfile(tmp_path / "x.npz")


def test_a_full_disk_is_a_file_error_and_leaves_nothing(keras3, tmp_path):
    """The limit on file sizes stands in for the disk; in a process of its own, which it would otherwise break."""
    code = (
        "import resource, signal, sys, numpy as np\n"
        "from layoutx.errors import FileError\n"
        "from layoutx.files.open import open_store\n"
        "from layoutx.files.save import save\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "like = open_store(sys.argv[1])\n"
        "values = {n: t.read() for n, t in like.tensors.items() if not n.startswith('optimizer')}\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "big = {'w': np.ones(9999)}\n"
        "for name, arrays in (('x.npz', big), ('x.safetensors', big), ('x.keras', values), ('x.weights.h5', values)):\n"
        "    try:\n"
        "        save(sys.argv[2] + '/' + name, arrays, {}, like)\n"
        "    except FileError as error:\n"
        "        print(error.what)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, keras3[0] / "m.keras", tmp_path], capture_output=True, text=True)
    names = ("x.npz", "x.safetensors", "x.keras", "x.weights.h5")
    assert done.stdout.splitlines() == [f"cannot write {name}" for name in names], done.stderr
    assert done.returncode == 0
    assert not os.listdir(tmp_path)
