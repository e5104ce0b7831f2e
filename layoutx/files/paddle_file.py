"""paddle `.pdparams` and other pickled trees of arrays: read opcode by opcode, so that nothing in them can run."""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from layoutx.errors import FileError
from layoutx.files.blob import DO_AGAIN, reading
from layoutx.files.dtypes import Array, DType, is_numeric, named, native, settled
from layoutx.files.store import Store, tensor_of

NAMES = "StructuredToParameterName@@"  # paddle 3.3 python/paddle/framework/io.py: structured name -> parameter name
SLICED = "UnpackBigParamInfor@@"  # the same file, protocols 2 and 3: parameters beyond 1 GiB are cut in flat slices
# all that a pickled mapping of names to arrays is made of; whatever else stands in a file is refused unread
PLAIN = frozenset(
    pickle.PROTO
    + pickle.FRAME
    + pickle.STOP
    + pickle.MARK
    + pickle.NONE
    + pickle.NEWTRUE
    + pickle.NEWFALSE
    + pickle.BININT
    + pickle.BININT1
    + pickle.BININT2
    + pickle.LONG1
    + pickle.BINFLOAT
    + pickle.SHORT_BINUNICODE
    + pickle.BINUNICODE
    + pickle.BINUNICODE8
    + pickle.SHORT_BINBYTES
    + pickle.BINBYTES
    + pickle.BINBYTES8
    + pickle.EMPTY_DICT
    + pickle.EMPTY_LIST
    + pickle.EMPTY_TUPLE
    + pickle.TUPLE
    + pickle.TUPLE1
    + pickle.TUPLE2
    + pickle.TUPLE3
    + pickle.APPEND
    + pickle.APPENDS
    + pickle.MEMOIZE
    + pickle.BINPUT
    + pickle.LONG_BINPUT
    + pickle.BINGET
    + pickle.LONG_BINGET
    + pickle.GLOBAL
    + pickle.STACK_GLOBAL
)
NOTE = "@@"  # how paddle ends the keys that are no names of tensors
DEEPEST = 50


class _Made:
    """An array or a dtype as the file describes it: arguments and state, and nothing made of them yet."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None


@dataclass(frozen=True, slots=True)
class _Name:
    """A global that a file names and that stands for a harmless function of our own."""

    call: Callable[..., Any]


def _bytes_of(text: str, encoding: str) -> bytes:
    if encoding != "latin1":  # pickle's own way to keep bytes in protocol 2
        raise ValueError(f"bytes as {encoding}")
    return text.encode("latin1")


def _jax_array(_: Any, arguments: tuple[Any, ...], state: Any, aval: Any) -> _Made:
    """jax 0.10.2 jax/_src/array.py _reconstruct_array: the reduced NumPy array, and a state of flags."""
    made = _Made(*arguments)
    made.state = state
    return made


_RECONSTRUCT, _KIND = _Name(_Made), _Name(dict)
NAMED = {
    "numpy.core.multiarray _reconstruct": _RECONSTRUCT,
    "numpy._core.multiarray _reconstruct": _RECONSTRUCT,
    "numpy ndarray": _KIND,
    "numpy dtype": _Name(_Made),
    "_codecs encode": _Name(_bytes_of),
    "collections OrderedDict": _KIND,
    "builtins tuple": _Name(tuple),
    "__builtin__ tuple": _Name(tuple),
    "jax._src.array _reconstruct_array": _Name(_jax_array),
}


def read_pickle(path: Path) -> Store:
    """A `.pdparams`, or any pickled mapping of names to arrays (a haiku tree); nested names are joined with "/".

    Tied tensors keep all their names; the metadata `paddle:tied` says which name of each is the one to use.
    uint16 is bfloat16 in paddle, which NumPy has no name for.

    Raises:
        FileError: the file is damaged, or holds more than names, numbers and arrays.
    """
    with reading(path, "a pickle of arrays"):
        tree = _load(path)
        if not isinstance(tree, dict):
            raise _more(path, f"a {type(tree).__name__} at its top")
        own, sliced = tree.pop(NAMES, None), tree.pop(SLICED, {})
        paddle = own is not None or path.suffix in (".pdparams", ".pdopt")
        said = [key for key, value in tree.items() if str(key).endswith(NOTE) and isinstance(value, str)]
        notes = {key.removesuffix(NOTE): tree.pop(key) for key in said}
        found: dict[str, Any] = {}
        skipped = []
        for name, value in _leaves(tree, "", 0):
            if isinstance(value, _Made):
                found[name] = _array(value, name, path, paddle)
            else:
                skipped.append(f"{name} ({type(value).__name__})")
        for name, about in sliced.items():
            parts = [found.pop(part) for part in about["slices"]]
            found[name] = np.concatenate(parts).reshape(about["OriginShape"])
        if not found:
            raise _more(path, "no arrays")
        if skipped:
            notes["pickle:skipped"] = ", ".join(skipped)
        if paddle and (tied := _tied(own or {}, found)):
            notes["paddle:tied"] = "\n".join(f"{name}\t{first}" for name, first in tied.items())
        tensors = {name: tensor_of(name, array) for name, array in found.items()}
        return Store(path, "paddle" if paddle else "pickle", tensors, notes)


def tied_names(store: Store) -> dict[str, str]:
    """Name -> the name to use of the same tensor, as the file's own table of parameters says."""
    lines = store.metadata.get("paddle:tied", "").splitlines()
    return {line.split("\t")[0]: line.split("\t")[1] for line in lines}


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
    return tied_by({name: str(own.get(name, name)) for name in found})


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


def _leaves(tree: Mapping[Any, Any], prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    if depth > DEEPEST:
        raise ValueError("its mappings lie too deep inside each other")
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _leaves(value, f"{name}/", depth + 1)
        elif isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], _Made):
            yield name, value[1]  # paddle: (parameter name, array) outside of a state dict
        else:
            yield name, value


def _array(made: _Made, name: str, path: Path, paddle: bool) -> Array:
    """ndarray.__setstate__ by hand: (version, shape, dtype, Fortran order, bytes)."""
    state = made.state
    if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[4], bytes):
        raise _more(path, f"'{name}', which is no array of plain numbers")
    _, shape, kind, fortran, raw = state
    dtype = _dtype(kind)
    if dtype is None or not is_numeric(dtype) or any(type(n) is not int or n < 0 for n in shape):
        raise _more(path, f"'{name}', which is no array of plain numbers")
    if math.prod(shape) * dtype.itemsize != len(raw):
        raise FileError(f"{path.name}: '{name}' has not the size of its shape", where=str(path), do=DO_AGAIN)
    array = settled(np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C"))
    return array.view(named("bfloat16")) if paddle and native(dtype) == np.uint16 else array


def _dtype(made: Any) -> DType | None:
    """numpy.dtype("f4", ...) and its state (version, byte order, ...)."""
    if not isinstance(made, _Made) or not made.arguments or not isinstance(made.arguments[0], str):
        return None
    found = named(made.arguments[0])
    order = made.state[1] if isinstance(made.state, tuple) and len(made.state) > 1 else "|"
    if found is None or order not in ("<", ">") or found.itemsize == 1:
        return found
    return found.newbyteorder(">" if order == ">" else "<")


def _load(path: Path) -> Any:
    """What the file holds, by the machine of pickle with the opcodes of `PLAIN` alone, and our own functions.

    Raises:
        FileError: an opcode or a name that no mapping of arrays needs.
    """
    base: Any = cast(Any, pickle)._Unpickler  # in Python: its memo is a dict, which no forged index can blow up
    own = {pickle.REDUCE: _reduce, pickle.BUILD: _build, pickle.SETITEM: _setitem, pickle.SETITEMS: _setitems}

    class Plain(base):  # type: ignore[misc]
        dispatch: ClassVar[dict[int, Any]] = {
            **{code: base.dispatch[code] for code in PLAIN},
            **{code[0]: call for code, call in own.items()},
        }

        def find_class(self, module: str, name: str) -> Any:
            if f"{module} {name}" not in NAMED:
                raise _more(path, f"{module}.{name}")
            return NAMED[f"{module} {name}"]

    try:
        return Plain(io.BytesIO(path.read_bytes())).load()
    except KeyError as error:
        raise _more(path, f"the opcode {error}") from error


def _reduce(machine: Any) -> None:
    arguments = machine.stack.pop()
    name = machine.stack[-1]
    if not isinstance(name, _Name):
        raise ValueError("it calls what is no function")
    machine.stack[-1] = name.call(*arguments)


def _build(machine: Any) -> None:
    state = machine.stack.pop()
    if not isinstance(machine.stack[-1], _Made):
        raise ValueError("it sets the state of what is no array")
    machine.stack[-1].state = state


def _setitem(machine: Any) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    _put(machine.stack[-1], key, value)


def _setitems(machine: Any) -> None:
    items = machine.pop_mark()
    for key, value in zip(items[::2], items[1::2], strict=True):
        _put(machine.stack[-1], key, value)


def _put(target: Any, key: Any, value: Any) -> None:
    """Names are texts: the hash of a forged tuple could overflow the stack."""
    if type(target) is not dict or type(key) not in (str, int):
        raise ValueError("a mapping whose names are no texts")
    target[key] = value


def _more(path: Path, what: str) -> FileError:
    return FileError(
        f"{path.name} holds more than names and arrays",
        where=[str(path), f"it holds {what}"],
        why="it is a bare pickle, which can run code when it is read",
        do="save the plain mapping of names to arrays: paddle.save(layer.state_dict(), ...), np.savez, safetensors",
    )
