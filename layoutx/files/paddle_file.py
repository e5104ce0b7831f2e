"""paddle `.pdparams` and other pickled trees of arrays: read opcode by opcode, so that nothing in them can run."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from layoutx.errors import FileError
from layoutx.files.blob import DO_AGAIN, reading
from layoutx.files.dtypes import Array, DType, is_numeric, named, native, settled
from layoutx.files.limits import within
from layoutx.files.notes import TIED
from layoutx.files.plain_pickle import Made, Name, load, pairs
from layoutx.files.store import Store, tensor_of

NAMES = "StructuredToParameterName@@"  # paddle 3.3 python/paddle/framework/io.py: structured name -> parameter name
SLICED = "UnpackBigParamInfor@@"  # the same file, protocols 2 and 3: parameters beyond 1 GiB are cut in flat slices
NOTE = "@@"  # how paddle ends the keys that are no names of tensors
MOST_PLACES = 16


def _bytes_of(text: str, encoding: str) -> bytes:
    if encoding != "latin1":  # pickle's own way to keep bytes in protocol 2
        raise ValueError(f"bytes as {encoding}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


def _jax_array(_: Any, arguments: tuple[Any, ...], state: Any, aval: Any) -> Made:
    """jax 0.10.2 jax/_src/array.py _reconstruct_array: the reduced NumPy array, and a state of flags."""
    made = Made(*arguments)
    made.state = state
    return made


_RECONSTRUCT, _KIND = Name(Made), Name(pairs)
NAMED = {
    "numpy.core.multiarray _reconstruct": _RECONSTRUCT,
    "numpy._core.multiarray _reconstruct": _RECONSTRUCT,
    "numpy ndarray": _KIND,
    "numpy dtype": Name(Made),
    "_codecs encode": Name(_bytes_of),
    "collections OrderedDict": _KIND,
    "builtins bytes": Name(_no_bytes),  # of an empty array, in protocol 2
    "__builtin__ bytes": Name(_no_bytes),
    "builtins tuple": Name(tuple),
    "__builtin__ tuple": Name(tuple),
    "jax._src.array _reconstruct_array": Name(_jax_array),
}


def read_pickle(path: Path) -> Store:
    """A `.pdparams`, or any pickled mapping of names to arrays (a haiku tree); nested names are joined with "/".

    Tied tensors keep all their names; the metadata `checkpoint:tied` says which name of each is the one to use.
    uint16 is bfloat16 in paddle, which NumPy has no name for.

    Raises:
        FileError: the file is damaged, or holds more than names, numbers and arrays.
    """
    with reading(path, "a pickle of arrays"):
        tree = load(path, NAMED, _more)
        if not isinstance(tree, dict):
            raise _more(path, f"a {type(tree).__name__} at its top")
        own, sliced = tree.pop(NAMES, None), tree.pop(SLICED, {})
        if any(type(one) is not str for one in (own or {}).values()):  # the text of a forged list may have any length
            raise _more(path, "a table of parameters that are no names")
        paddle = own is not None or path.suffix in (".pdparams", ".pdopt")
        said = [key for key, value in tree.items() if str(key).endswith(NOTE) and isinstance(value, str)]
        notes = {key.removesuffix(NOTE): tree.pop(key) for key in said}
        found: dict[str, Any] = {}
        skipped = []
        arrays: dict[int, Array] = {}  # one that stands in many places is made once
        for name, value in _leaves(tree, path):
            if isinstance(value, Made):
                if id(value) not in arrays:
                    arrays[id(value)] = _array(value, name, path, paddle)
                found[name] = arrays[id(value)]
            else:
                skipped.append(f"{name} ({type(value).__name__})")
        for name, about in sliced.items():
            parts = [found.pop(part) for part in about["slices"] if type(part) is str]
            found[name] = np.concatenate(parts).reshape(about["OriginShape"])
        if not found:
            raise _more(path, "no arrays")
        if skipped:
            notes["pickle:skipped"] = ", ".join(skipped)
        if paddle and (tied := _tied(own or {}, found)):
            notes[TIED] = "\n".join(f"{name}\t{first}" for name, first in tied.items())
        tensors = {name: tensor_of(name, array) for name, array in found.items()}
        return Store(path, "paddle" if paddle else "pickle", tensors, notes)


def write_paddle(path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """Write a mapping that `paddle.load` gives back as tensors; metadata is one more text in it.

    Source: paddle 3.3.1 python/paddle/framework/io.py _pickle_save (protocol 4) and _parse_load_result.
    """
    plain = {name: array.view(np.uint16) if array.dtype.name == "bfloat16" else array for name, array in arrays.items()}
    with path.open("wb") as file:
        pickle.dump(
            {**plain, NAMES: {name: name for name in plain}, **{f"{k}{NOTE}": v for k, v in metadata.items()}},
            file,
            protocol=4,
        )


def _tied(own: Any, found: Mapping[str, Any]) -> dict[str, str]:
    return tied_by({name: own.get(name, name) for name in found})


def tied_by(parameters: Mapping[str, str]) -> dict[str, str]:
    """Names of one parameter -> the deepest of them: paddle lists an LSTM's arrays as `weight_ih_l0` too, beside
    `0.cell.weight_ih`, where its cells have them.

    Args:
        parameters: name -> the name that paddle gives the parameter itself.
    """
    kept: dict[str, str] = {}
    for name, parameter in parameters.items():
        if name.count(".") > kept.get(parameter, name).count(".") or parameter not in kept:
            kept[parameter] = name
    return {name: kept[parameter] for name, parameter in parameters.items() if kept[parameter] != name}


def _leaves(tree: Mapping[Any, Any], path: Path) -> Iterator[tuple[str, Any]]:
    """Full name -> value of all that is no mapping, in order; a mapping may stand in MOST_PLACES places."""
    places: dict[int, int] = {}
    waiting: list[Iterator[tuple[Any, Any]]] = [iter([("", tree)])]
    prefixes = [""]
    while waiting:
        found = next(waiting[-1], None)
        if found is None:
            waiting.pop()
            prefixes.pop()
            continue
        key, value = found
        name = f"{prefixes[-1]}{key}"
        within("NAME", len(name), path, "the name of an array", f"name {name[:80]!r}")
        if isinstance(value, dict):
            places[id(value)] = places.get(id(value), 0) + 1
            if places[id(value)] > MOST_PLACES:
                raise ValueError(f"one mapping stands in more than {MOST_PLACES} places: it is a bomb")
            within("DEPTH", len(waiting), path, "a mapping in it", f"name {name[:80]!r}")
            waiting.append(iter(value.items()))
            prefixes.append(f"{name}/" if len(waiting) > 2 else "")
        elif isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], Made):
            yield name, value[1]  # paddle: (parameter name, array) outside of a state dict
        else:
            yield name, value


def _array(made: Made, name: str, path: Path, paddle: bool) -> Array:
    """ndarray.__setstate__ by hand: (version, shape, dtype, Fortran order, bytes)."""
    state = made.state
    if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[4], bytes):
        raise _more(path, f"'{name}', which is no array of plain numbers")
    _, shape, kind, fortran, raw = state
    dtype = _dtype(kind)
    if isinstance(shape, tuple):
        within("RANK", len(shape), path, f"'{name}'", f"array {name}")
    if (
        dtype is None
        or not is_numeric(dtype)
        or not isinstance(shape, tuple)
        or any(type(n) is not int or n < 0 for n in shape)
    ):
        raise _more(path, f"'{name}', which is no array of plain numbers")
    if math.prod(shape) * dtype.itemsize != len(raw):
        raise FileError(f"{path.name}: '{name}' has not the size of its shape", where=str(path), do=DO_AGAIN)
    array = settled(np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C"))
    return array.view(named("bfloat16")) if paddle and native(dtype) == np.uint16 else array


def _dtype(made: Any) -> DType | None:
    """numpy.dtype("f4", ...) and its state (version, byte order, ...)."""
    if not isinstance(made, Made) or not made.arguments or type(made.arguments[0]) is not str:
        return None
    if len(made.arguments[0]) > 32:  # "f4,f4,f4,...": NumPy reads records out of a text
        return None
    found = named(made.arguments[0])
    order = made.state[1] if isinstance(made.state, tuple) and len(made.state) > 1 else "|"
    if found is None or order not in ("<", ">") or found.itemsize == 1:
        return found
    return found.newbyteorder(">" if order == ">" else "<")


def _more(path: Path, what: str) -> FileError:
    return FileError(
        f"{path.name} holds more than names and arrays",
        where=[str(path), f"it holds {what}"],
        why="it is a bare pickle, which can run code when it is read",
        do="save the plain mapping of names to arrays: paddle.save(layer.state_dict(), ...), np.savez, safetensors",
    )
