"""A pickle read opcode by opcode: texts, numbers, lists and mappings, and nothing in it can run."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

from layoutx.errors import FileError
from layoutx.frozen import frozen

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


SIZED = (str, bytes, list, tuple, dict)


class Made:
    """An object as the file describes it: arguments and state, and nothing made of them yet."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None


@frozen
class Name:
    """A global that a file names and that stands for a harmless function of our own."""

    call: Callable[..., Any]


def load(
    path: Path,
    known: Mapping[str, Any],
    more: Callable[[Path, str], FileError],
    keys: tuple[type, ...] = (str, int),
) -> Any:
    """What a file holds, by the machine of pickle with the opcodes of `PLAIN` alone, and our own functions.

    Args:
        known: "module name" of a global -> what stands for it: a `Name` that may be called, or a plain value.
        more: the error about something that is not known.
        keys: the types that the keys of a mapping may have.

    Raises:
        FileError: an opcode or a name that is not known.
    """
    base: Any = cast(Any, pickle)._Unpickler  # in Python: its memo is a dict, which no forged index can blow up
    own = {
        pickle.REDUCE: _reduce,
        pickle.NEWOBJ: _reduce,
        pickle.BUILD: _build,
        pickle.SETITEM: _setitem,
        pickle.SETITEMS: _setitems,
    }

    class Plain(base):  # type: ignore[misc]
        dispatch: ClassVar[dict[int, Any]] = {
            **{code: base.dispatch[code] for code in PLAIN},
            **{code[0]: call for code, call in own.items()},
        }
        allowed: ClassVar[tuple[type, ...]] = keys

        def find_class(self, module: str, name: str) -> Any:
            if f"{module} {name}" not in known:
                raise more(path, f"{module}.{name}"[:200])
            return known[f"{module} {name}"]

    data = path.read_bytes()
    machine = Plain(io.BytesIO(data))
    machine.budget = charged(len(data))
    try:
        return machine.load()
    except KeyError as error:
        raise more(path, f"the opcode {error}") from error


def charged(size: int) -> Callable[[tuple[Any, ...]], None]:
    """What counts the values that calls are given, and refuses more than a file of `size` bytes can hold.

    A value may stand in a file once and be given to every call: each copies it, a megabyte for five bytes.

    Raises:
        ValueError: that is so.
    """
    left = 2 * size + (1 << 16)

    def charge(arguments: tuple[Any, ...]) -> None:
        nonlocal left
        left -= len(arguments) + sum(len(one) for one in arguments if isinstance(one, SIZED))
        if left < 0:
            raise ValueError("its calls are given more values than it can hold: it is a bomb")

    return charge


def pairs(found: Any = ()) -> dict[Any, Any]:
    """A mapping of pairs whose names are texts: the hash of a forged tuple could overflow the stack.

    Raises:
        ValueError: other names.
    """
    if any(type(name) not in (str, int) for name, _ in found):
        raise ValueError("a mapping whose names are no texts")
    return dict(found)


def _reduce(machine: Any) -> None:
    arguments = machine.stack.pop()
    name = machine.stack[-1]
    if not isinstance(name, Name) or not isinstance(arguments, tuple):
        raise ValueError("it calls what is no function")
    machine.budget(arguments)
    machine.stack[-1] = name.call(*arguments)


def _build(machine: Any) -> None:
    state = machine.stack.pop()
    if not isinstance(machine.stack[-1], Made):
        raise ValueError("it sets the state of what has none")
    machine.stack[-1].state = state


def _setitem(machine: Any) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    _put(machine, machine.stack[-1], key, value)


def _setitems(machine: Any) -> None:
    items = machine.pop_mark()
    for key, value in zip(items[::2], items[1::2], strict=True):
        _put(machine, machine.stack[-1], key, value)


def _put(machine: Any, target: Any, key: Any, value: Any) -> None:
    """Names are texts: the hash of a forged tuple could overflow the stack."""
    if type(target) is not dict or type(key) not in machine.allowed:
        raise ValueError("a mapping whose names are no texts")
    target[key] = value
