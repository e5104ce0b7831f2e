"""A listing of an HDF5 file in h5py's low-level objects: the same as by its groups, and nothing less refused."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from layoutx.errors import FileError
from layoutx.files.blob import whole
from layoutx.files.hdf5 import listed, natural, note_at, opened, tensor, walk


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
    with opened(whole(path)) as file:
        low = [name for name, _ in listed(file, whole(path))]
        assert low == [found.name.strip("/") for found in walk(file, whole(path))]
        below = [name for name, _ in listed(file["layers"], whole(path))]
    assert [name for name in low if name.endswith("vars")] == [
        "layers/again/vars",  # its first name in this order; the other is the same group
        "layers/dense_0/vars",
        "layers/dense_10/vars",
    ]
    assert len(low) == len(set(low))
    assert below == [name for name in low if name.startswith("layers/")]
    assert sorted(["vars/10", "vars/2"], key=natural) == ["vars/2", "vars/10"]


def test_tensors_are_those_that_h5py_reads(path: Path) -> None:
    with opened(whole(path)) as file:
        types: list[object] = []
        found = {
            name: tensor(one, name, whole(path), types)  # type: ignore[arg-type]
            for name, one in listed(file, whole(path))
            if isinstance(one, h5py.h5d.DatasetID)
        }
        for name, own in found.items():
            if name != "raw":
                want = file[name][()]
                assert own.shape == want.shape
                np.testing.assert_array_equal(own.read(), want)
        assert found["raw"].dtype.name == "bfloat16"
        assert [note_at(one, "name") for name, one in listed(file, whole(path)) if name.endswith("0/vars")] == [
            "d0é",
            "d10é",
        ]
    assert 4 <= len(types) <= 6  # float64, int64, big float32, float16, raw, float32: each looked at once


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
    with opened(whole(place)) as file, pytest.raises(FileError, match=r"link|no data of its own|not hold numbers"):
        _all(file, place)


def _all(file: h5py.File, place: Path) -> None:
    for name, one in listed(file, whole(place)):
        if isinstance(one, h5py.h5d.DatasetID):
            tensor(one, name, whole(place))
