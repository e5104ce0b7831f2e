"""What a torch checkpoint's pickle would make, gone through without making it, before torch's own loader sees it.

torch's weights-only loader runs no code, but it believes sizes: a storage may be declared larger than its member of the
zip file, a view may reach outside of its storage, a tuple may nest so deeply that its hash ends the process.
Source: torch 2.13 torch/_weights_only_unpickler.py Unpickler.load, torch/serialization.py _load and _legacy_load.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, cast

from layoutx.errors import FileError
from layoutx.files import zips
from layoutx.files.blob import DO_AGAIN
from layoutx.files.limits import limit
from layoutx.files.plain_pickle import PLAIN, Made, charged
from layoutx.files.views import View, check_view

PICKLE = "data.pkl"
LEGACY = 5  # pickles at the begin of a file that is no zip: magic number, protocol, system, object, keys of storages
_VIEWS = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_qtensor")
_BYTES = {
    **dict.fromkeys(("Double", "Long", "ComplexFloat", "float64", "int64", "uint64", "complex64"), 8),
    **dict.fromkeys(("Float", "Int", "QInt32", "float32", "int32", "uint32", "complex32", "qint32"), 4),
    **dict.fromkeys(("Half", "BFloat16", "Short", "float16", "bfloat16", "int16", "uint16"), 2),
    **dict.fromkeys(("ComplexDouble", "complex128"), 16),
}
_ATOMS = (str, int, float, bool, bytes, complex, type(None))


class Global:
    """A name of the file that torch may make something of."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def itemsize(self) -> int:
        """Bytes of an element of a storage's class or of a dtype; one for all that are not listed."""
        return _BYTES.get(self.name.rpartition(" ")[2].removesuffix("Storage"), 1)


class Stored:
    """A storage as a file declares it, in bytes."""

    __slots__ = ("itemsize", "key", "nbytes")

    def __init__(self, key: str, nbytes: int, itemsize: int) -> None:
        self.key, self.nbytes, self.itemsize = key, nbytes, itemsize


def check_zip(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse a checkpoint whose storages or views are not what its members hold; inside of `reading`.

    Raises:
        FileError: with the storage.
    """
    root = archive.namelist()[0].partition("/")[0]  # as torch takes it, from the first member
    sizes = {info.filename: info.file_size for info in archive.infolist()}
    if f"{root}/{PICKLE}" not in sizes:
        raise _bad(path, f"it has no member {root}/{PICKLE}")

    def stored(key: str, nbytes: int) -> None:
        held = sizes.get(f"{root}/data/{key}")
        if held is None:
            raise _bad(path, "the member with its numbers is missing", f"storage {key[:80]!r}")
        if held != nbytes:
            raise _bad(path, f"it is said to have {nbytes} bytes, and its member has {held}", f"storage {key[:80]!r}")

    data = zips.content(archive, f"{root}/{PICKLE}", path)
    _machine(io.BytesIO(data), len(data), path, stored).load()


def check_legacy(path: Path) -> None:
    """Refuse a checkpoint of torch before 1.6 whose storages or views are not what the file has room for.

    Raises:
        FileError: with the storage.
    """
    size, seen, left = path.stat().st_size, dict[str, int](), path.stat().st_size

    def stored(key: str, nbytes: int) -> None:
        nonlocal left
        left -= 0 if key in seen else nbytes
        if seen.setdefault(key, nbytes) != nbytes or left < 0:
            raise _bad(path, f"it is said to have {nbytes} bytes, in a file of {size}", f"storage {key[:80]!r}")

    with path.open("rb") as file:
        begin = io.BytesIO(file.read(limit("HEADER")))
    for _ in range(LEGACY):
        found = _machine(begin, size, path, stored).load()
    if not isinstance(found, list) or any(type(key) is not str for key in found):
        raise _bad(path, "the keys of its storages are no texts")


def _machine(file: io.BytesIO, size: int, path: Path, stored: Callable[[str, int], None]) -> Any:
    """pickle's machine, with the opcodes that torch's loader knows, and calls that are checked and not made."""
    base: Any = cast(Any, pickle)._Unpickler  # in Python: its memo is a dict, which no forged index can blow up
    own: dict[bytes, Callable[[Any], None]] = {
        pickle.GLOBAL: _global,
        pickle.REDUCE: _reduce,
        pickle.NEWOBJ: _reduce,
        pickle.BUILD: _build,
        pickle.SETITEM: _setitem,
        pickle.SETITEMS: _setitems,
        pickle.BINPERSID: _persistent,
        pickle.EMPTY_SET: base.load_empty_set,
        pickle.SHORT_BINSTRING: base.load_short_binbytes,
    }
    codes = PLAIN - set(pickle.FRAME + pickle.STACK_GLOBAL)

    class Checked(base):  # type: ignore[misc]
        dispatch: ClassVar[dict[int, Any]] = {
            **{code: base.dispatch[code] for code in codes},
            **{code[0]: call for code, call in own.items()},
        }

    made = Checked(file)
    made.about = (path, stored)
    made.budget = charged(size)
    made.foreign = ""
    return _Loading(made, path)


class _Loading:
    def __init__(self, machine: Any, path: Path) -> None:
        self.machine, self.path = machine, path

    def load(self) -> Any:
        try:
            return self.machine.load()
        except KeyError as error:
            named = self.machine.foreign
            why = f"its pickle has the opcode {error}" + (f", and names {named[:200]}" if named else "")
            raise _more(self.path, why) from error


def _bad(path: Path, why: str, *where: str) -> FileError:
    return FileError(f"{path.name} is a damaged or forged checkpoint", where=[str(path), *where], why=why, do=DO_AGAIN)


def _more(path: Path, why: str) -> FileError:
    do = "save model.state_dict() and convert that file"
    return FileError(f"{path.name} holds more than weights", where=str(path), why=why, do=do)


def _global(machine: Any) -> None:
    module, name = (machine.readline()[:-1].decode("utf-8") for _ in range(2))
    if not module.startswith(("torch", "collections", "builtins", "__builtin__", "_codecs")):
        machine.foreign = machine.foreign or f"{module}.{name}"
    machine.append(Global(f"{module} {name}"))


def _reduce(machine: Any) -> None:
    arguments, function = machine.stack.pop(), machine.stack[-1]
    path, _ = machine.about
    if not isinstance(function, Global) or not isinstance(arguments, tuple):
        raise _bad(path, "its pickle calls what is no function")
    machine.budget(arguments)
    _check_call(path, function.name, arguments)
    machine.stack[-1] = Made(function.name, *arguments)


def _check_call(path: Path, called: str, arguments: tuple[Any, ...]) -> None:
    """Refuse a call of torch's that would take memory, reach outside of a storage, or hash what it must not."""
    name = called.rpartition(" ")[2]
    if called == "torch._tensor _rebuild_from_type_v2" and len(arguments) > 2 and isinstance(arguments[0], Global):
        if not isinstance(arguments[2], tuple):
            raise _bad(path, "its pickle calls a function with no arguments")
        _check_call(path, arguments[0].name, arguments[2])
    elif name in _VIEWS:
        _check_tensor(path, arguments, name)
    elif called.startswith("torch") and name.endswith(("Tensor", "Storage")) and arguments:
        raise _bad(path, f"its pickle makes a {name} of nothing")
    elif called == "builtins bytearray" and any(isinstance(one, int) for one in arguments):
        raise _bad(path, "its pickle makes a bytearray of nothing")
    elif name in ("OrderedDict", "Counter", "set", "dict"):
        for one in arguments:
            if not isinstance(one, (list, tuple, dict)):
                raise _bad(path, f"its pickle makes a {name} of a {type(one).__name__}")
            for item in one:
                _check_key(path, item[0] if name == "OrderedDict" and isinstance(item, (list, tuple)) else item)


def _check_tensor(path: Path, arguments: tuple[Any, ...], what: str) -> None:
    if len(arguments) < 4 or not isinstance(arguments[0], Stored):
        raise _bad(path, f"its pickle makes a tensor ({what}) without a storage")
    storage, offset, sizes, strides = arguments[:4]
    found = [one.arguments[1] if _is_size(one) else one for one in (sizes, strides)]
    numbers = [offset, *(n for one in found if isinstance(one, tuple) for n in one)]
    if not all(isinstance(one, tuple) for one in found) or any(type(n) is not int for n in numbers):
        raise _bad(path, "a tensor's sizes, strides or offset are no whole numbers", f"storage {storage.key[:80]!r}")
    dtype = arguments[6] if what == "_rebuild_tensor_v3" and len(arguments) > 6 else None
    itemsize = dtype.itemsize if isinstance(dtype, Global) else storage.itemsize
    check_view(View(found[0], found[1], offset, itemsize), storage.nbytes, path, f"storage {storage.key[:80]}")


def _is_size(found: Any) -> bool:
    return isinstance(found, Made) and len(found.arguments) == 2 and found.arguments[0] == "torch Size"


def _build(machine: Any) -> None:
    state = machine.stack.pop()
    machine.budget((state,))
    made = machine.stack[-1]
    if isinstance(made, Made) and made.arguments[0].endswith("Tensor"):  # torch before 0.4 set what it had made empty
        _check_tensor(machine.about[0], state if isinstance(state, tuple) else (), "an old tensor")


def _persistent(machine: Any) -> None:
    path, stored = machine.about
    said = machine.stack.pop()
    if not isinstance(said, tuple) or len(said) not in (5, 6) or said[0] not in ("storage", b"storage"):
        named = [
            one.name.replace(" ", ".") for one in (said if isinstance(said, tuple) else ()) if isinstance(one, Global)
        ]
        raise _more(path, f"its pickle refers to what is no storage: {', '.join(named)[:200] or 'something forged'}")
    kind, key, _, numel = said[1:5]
    if not isinstance(kind, Global) or type(key) is not str or type(numel) is not int or numel < 0:
        raise _bad(path, "its pickle refers to a storage without a type, a name or a size")
    stored(key, numel * kind.itemsize)
    storage = Stored(key, numel * kind.itemsize, kind.itemsize)
    if len(said) == 6 and said[5] is not None:
        storage = _part(path, storage, said[5])
    machine.append(storage)


def _part(path: Path, whole: Stored, view: Any) -> Stored:
    """A storage that is a part of another: (key, offset, size), in elements."""
    if (
        not isinstance(view, tuple)
        or len(view) != 3
        or type(view[0]) is not str
        or any(type(n) is not int or n < 0 for n in view[1:])
    ):
        raise _bad(path, "its pickle refers to a part of a storage without a name or a size")
    if (view[1] + view[2]) * whole.itemsize > whole.nbytes:
        raise _bad(path, "a part of it lies outside of it", f"storage {whole.key[:80]!r}")
    return Stored(whole.key, view[2] * whole.itemsize, whole.itemsize)


def _setitem(machine: Any) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    _put(machine, [key, value])


def _setitems(machine: Any) -> None:
    _put(machine, machine.pop_mark())


def _put(machine: Any, items: list[Any]) -> None:
    path, target = machine.about[0], machine.stack[-1]
    if len(items) % 2 or not isinstance(target, (dict, Made)):
        raise _bad(path, "its pickle fills what is no mapping")
    for key, value in zip(items[::2], items[1::2], strict=True):
        _check_key(path, key)
        if isinstance(target, dict):
            target[key] = value


def _check_key(path: Path, key: Any) -> None:
    """Nothing that nests: the hash of a deep tuple overflows the stack, that of a tuple of shared tuples never ends."""
    if type(key) in _ATOMS or isinstance(key, (Global, Made)):
        return
    if type(key) is not tuple or len(key) > 1000 or any(type(one) not in _ATOMS for one in key):
        raise _bad(path, f"its pickle has a key that is no name ({type(key).__name__})")
