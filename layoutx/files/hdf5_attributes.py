"""All attributes of an HDF5 object as plain data: taken where libhdf5 may die, and written again into a new file.

An attribute is [name, type, shape, data]; the shape is null for one without a value. A type is ["text", character set,
padding] for texts of any length, else [what, bytes of one, character set, padding] for texts of one length, or
["number", NumPy's code]. Data are bytes, spelled as Latin-1; a list of them for texts of any length.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from layoutx.errors import FileError
from layoutx.files.hdf5_messages import FIXED, LOOSE, NUMBER
from layoutx.files.limits import within

Attribute = list[Any]
Low = Any  # h5py's h5g.GroupID, h5d.DatasetID or h5t.TypeID, which have no types of their own


def attributes_of(found: Low, path: Path) -> list[Attribute]:
    """Every attribute of an object; those of other types (references, records) are no part of a Keras file.

    Raises:
        FileError: more or larger ones than the limits allow, or of such a type.
    """
    count = h5py.h5a.get_num_attrs(found)
    within("TENSORS", count, path, "the attributes")
    return [_attribute(h5py.h5a.open(found, index=number), path) for number in range(count)]


def _attribute(found: Low, path: Path) -> Attribute:
    own, space = found.get_type(), found.get_space()
    name = found.name.decode() if isinstance(found.name, bytes) else found.name
    kind = _type(own, name, path)
    if space.get_simple_extent_type() == h5py.h5s.NULL:
        return [name, kind, None, ""]
    shape = [int(n) for n in found.shape]
    within("HEADER", prod(shape) * own.get_size(), path, f"the attribute {name}")
    if kind[0] == LOOSE:
        texts = np.empty(found.shape, found.dtype)
        found.read(texts)
        return [name, kind, shape, [_bytes(one).decode("latin-1") for one in texts.ravel()]]
    raw = np.empty(found.shape, f"V{own.get_size()}")
    found.read(raw, own)
    return [name, kind, shape, raw.tobytes().decode("latin-1")]


def _bytes(text: Any) -> bytes:
    return text if isinstance(text, bytes) else str(text or "").encode("utf-8", "surrogateescape")


def _type(own: Low, name: str, path: Path) -> list[Any]:
    if isinstance(own, h5py.h5t.TypeStringID):
        more = [int(own.get_cset()), int(own.get_strpad())]
        return [LOOSE, *more] if own.is_variable_str() else [FIXED, int(own.get_size()), *more]
    dtype = own.dtype
    plain = dtype.kind in "biufcV" and dtype.names is None and dtype.subdtype is None and not dtype.hasobject
    if plain and h5py.h5t.py_create(dtype, logical=True).equal(own):
        return [NUMBER, dtype.str]
    raise FileError(
        f"{path.name} has an attribute that is not copied",
        where=f"{path}, attribute {name}, {str(dtype)[:200]}",
        why="attributes of Keras files are texts and numbers",
        do="save the model again with Keras",
    )


def write_attribute(found: Low, attribute: Attribute) -> None:
    """Give an object of a new file an attribute, with the type that it had."""
    name, kind, shape, data = attribute
    own = _made(kind)
    space = h5py.h5s.create(h5py.h5s.NULL) if shape is None else _space(shape)
    made = h5py.h5a.create(found, name.encode("utf-8", "surrogateescape"), own, space)
    if shape is None:
        return
    if kind[0] == LOOSE:
        texts = np.empty(tuple(shape), own.dtype)
        texts.reshape(-1)[:] = [one.encode("latin-1") for one in data] if shape else data[0].encode("latin-1")
        made.write(texts)
    else:
        raw = np.frombuffer(data.encode("latin-1"), f"V{own.get_size()}").reshape(shape)
        made.write(raw, own)


def _space(shape: Sequence[int]) -> Low:
    return h5py.h5s.create_simple(tuple(shape)) if shape else h5py.h5s.create(h5py.h5s.SCALAR)


def _made(kind: Sequence[Any]) -> Low:
    if kind[0] == NUMBER:
        return h5py.h5t.py_create(np.dtype(kind[1]), logical=True)
    own = h5py.h5t.C_S1.copy()
    own.set_size(h5py.h5t.VARIABLE if kind[0] == LOOSE else kind[1])
    own.set_cset(kind[-2])
    own.set_strpad(kind[-1])
    return own
