"""A listing of an HDF5 file made elsewhere: the same as h5py sees, and nothing less refused."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from layoutx.errors import FileError
from layoutx.files import hdf5_numbers
from layoutx.files.blob import Blob, whole
from layoutx.files.hdf5 import Listing, listing, skeleton, tensor
from layoutx.files.hdf5_notes import natural
from layoutx.files.store import Tensor


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Groups in an order that is neither by name nor by creation, a group under two names, and types of every sort."""
    place = tmp_path / "x.h5"
    with h5py.File(place, "w") as file:
        for n in (10, 2, 0):
            own = file.create_group(f"layers/dense_{n}/vars")
            own.attrs["name"] = f"d{n}é"
            own.create_dataset("0", data=np.arange(6.0).reshape(2, 3) + n)
            own.create_dataset("1", data=np.arange(3, dtype=np.int64))
        file["layers/again"] = file["layers/dense_2"]
        file["layers/dense_0/up"] = file["layers"]  # would never end
        file["big"] = np.arange(3.0).astype(">f4")
        file["half"] = np.arange(4).astype(np.float16)
        raw = file.create_dataset("raw", data=np.zeros(3, "V2"))
        raw.attrs["dtype"] = "bfloat16"
        file["scalar"] = np.float32(3.5)
        file.create_dataset("chunked", data=np.arange(12.0), chunks=(5,), compression="gzip")
        file.create_dataset("none", shape=(0, 3), dtype="f4")
    return place


def test_every_object_once_in_natural_order_children_after_parents(path: Path) -> None:
    found = listing(whole(path))
    order = [name for name, _, _ in skeleton(whole(path))]
    assert sorted(order) == sorted([*found.groups, *found.datasets])
    assert len(order) == len(set(order))
    assert [name for name in order if name.endswith("vars")] == [
        "layers/again/vars",  # its first name in this order; the other is the same group
        "layers/dense_0/vars",
        "layers/dense_10/vars",
    ]
    for number, name in enumerate(order[1:], 1):
        assert name.rpartition("/")[0] in order[:number]
    assert [name for name, _ in found.below("layers")] == [
        name for name in found.datasets if name.startswith("layers/")
    ]
    assert sorted(["vars/10", "vars/2"], key=natural) == ["vars/2", "vars/10"]


def test_an_object_is_found_under_each_of_its_names(path: Path) -> None:
    found = listing(whole(path))
    assert found.again == {"layers/dense_2": "layers/again", "layers/dense_0/up": "layers"}
    assert found.at("layers/dense_2/vars/0") == "layers/again/vars/0"
    assert found.at("/layers/dense_0/up/dense_0/up/dense_10/") == "layers/dense_10"
    with pytest.raises(FileError, match="has no 'layers/dense_2/other'"):
        found.at("layers/dense_2/other")
    with pytest.raises(FileError, match="not a group"):
        found.group("half")


def same_as_h5py(blob: Blob, path: Path) -> None:
    found = listing(blob)
    with h5py.File(path) as file:
        for name in found.datasets:
            own = tensor(found, name)
            if name != "raw":
                want = file[name][()]
                assert own.shape == want.shape
                np.testing.assert_array_equal(own.read(), want)
    assert tensor(found, "raw").dtype.name == "bfloat16"
    assert [notes["name"] for notes in found.groups.values() if notes.get("name")] == ["d2é", "d0é", "d10é"]


def test_tensors_are_those_that_h5py_reads(path: Path) -> None:
    same_as_h5py(whole(path), path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_inside_an_archive(path: Path, tmp_path: Path, compression: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At an odd offset of a file, and in bytes that only this process has."""
    from layoutx.files.blob import member

    with zipfile.ZipFile(tmp_path / "x.zip", "w", compression) as archive:
        archive.writestr("before", b"odd")
        archive.write(path, "x.h5")
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        blob = member(archive.getinfo("x.h5"), tmp_path / "x.zip")
    assert (blob.packed is None) == (compression == zipfile.ZIP_STORED)
    same_as_h5py(blob, path)
    monkeypatch.setattr(hdf5_numbers, "BLOCK", 7)  # where it runs in this process
    monkeypatch.setenv("LAYOUTX_ISOLATE", "0")
    same_as_h5py(blob, path)


@pytest.mark.parametrize("kind", ["soft", "external", "virtual", "kept", "text"])
def test_what_leads_out_of_the_file_is_refused(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "x.h5"
    with h5py.File(place, "w") as file:
        group = file.create_group("layers/dense/vars")
        group["0"] = np.arange(3.0)
        if kind == "soft":
            group["1"] = h5py.SoftLink("/layers/dense/vars/0")
        elif kind == "external":
            group["1"] = h5py.ExternalLink("other.h5", "/x")
        elif kind == "virtual":
            layout = h5py.VirtualLayout((3,), "f8")
            layout[:] = h5py.VirtualSource("other.h5", "x", (3,))
            group.create_virtual_dataset("1", layout)
        elif kind == "kept":
            group.create_dataset("1", shape=(3,), dtype="f8", external=[("other.raw", 0, 24)])
        else:
            group["1"] = ["a", "b"]
    found = listing(whole(place))
    with pytest.raises(FileError, match=r"link|no data of its own|not hold numbers"):
        all_of(found)


def all_of(found: Listing) -> list[Tensor]:
    return [tensor(found, name) for name, _ in found.below()]


def test_a_chunk_that_skipped_a_filter_is_read(tmp_path: Path) -> None:
    """libhdf5 leaves gzip out where it would make a chunk larger: of random numbers, nearly always."""
    rng = np.random.default_rng(3)
    made: dict[str, Any] = {"random": rng.integers(0, 256, (40, 30), np.uint8), "zeros": np.zeros((40, 30), np.uint8)}
    made["one"] = np.array([5], np.uint8)
    place = tmp_path / "x.h5"
    with h5py.File(place, "w") as file:
        for name, array in made.items():
            chunks = tuple(min(size, 7) for size in array.shape)
            for more in ({}, {"shuffle": True}, {"fletcher32": True}, {"shuffle": True, "fletcher32": True}):
                own = f"{name}{''.join(more)}"
                file.create_dataset(own, data=array, chunks=chunks, compression="gzip", **more)
        assert file["one"].id.get_chunk_info(0).filter_mask or file["random"].id.get_chunk_info(0).size
    found = listing(whole(place))
    for path in found.datasets:
        want = next(array for name, array in made.items() if path.startswith(name))
        np.testing.assert_array_equal(tensor(found, path).read(), want)


def test_a_file_that_changes_between_is_refused(path: Path) -> None:
    found = listing(whole(path))
    with h5py.File(path, "a") as file:
        del file["chunked"]
        file.create_dataset("chunked", data=np.arange(11.0), chunks=(5,), compression="gzip")
    with pytest.raises(FileError, match="changed"):
        tensor(found, "chunked").read()
