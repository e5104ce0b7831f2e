"""Maps of files that lose bytes while they are read: the reader gets zeros, and then an error instead of its end.

Who touches a mapped page whose file became shorter, or whose disk cannot read it, is sent SIGBUS, and ends. Reading
by calls instead is as fast where bytes lie together, and twelve times slower for a column of a large matrix. So a
handler of SIGBUS puts zeros in the place of what is gone, and notes it; `intact` raises the error when its block ends.

Outside of `intact`, for addresses that are none of ours, and where no handler can be installed (Windows does not let
a mapped file be cut), all is as it was: the handler that was there before takes over.
"""

from __future__ import annotations

import errno
import mmap
import os
import signal
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from layoutx.errors import FileError
from layoutx.frozen import frozen

PAGE = mmap.PAGESIZE
FIXED = 0x10  # MAP_FIXED of Linux and macOS, which the mmap module does not name
DO = "wait until nobody writes to it, then try again"


class SourceError(FileError):
    """A file that was fine when it was opened, and became another one, or shorter, while it was read."""


class Map(mmap.mmap):
    """A map that can be watched: a plain one tells of its end too late, when its addresses may be another's.

    `broken` says that it lost bytes, and nobody shall be given it again.
    """

    broken = False


@frozen
class _Range:
    """Addresses where bytes of a file lie: the address behind the last, and the file's size when it was mapped.

    `spooled` ones lie in a temporary file with what was unpacked from the file.
    """

    end: int
    path: Path
    size: int
    owner: weakref.ref[Any]
    spooled: bool


_known: dict[int, _Range] = {}  # by first address
_broken: list[SourceError] = []
_blocks: list[object] = []  # one for each `intact` that is being carried out, in any thread
_hook: _Hook | None = None


def guarded(handle: int, path: Path, spool: int = 0) -> Map:
    """A map of all of an open file.

    Args:
        path: what an error names. spool: bytes of a temporary file for what is unpacked from there, to be written to.

    Raises:
        OSError, ValueError: the system's, where it cannot be mapped.
    """
    import numpy as np  # here, for the command's --help needs none of this

    made = Map(handle, spool, access=mmap.ACCESS_WRITE if spool else mmap.ACCESS_READ)
    begin = np.frombuffer(made, np.uint8).ctypes.data
    watch(made, begin, len(made), path, len(made), bool(spool))
    return made


def watch(owner: Any, begin: int, nbytes: int, path: Path, size: int, spooled: bool = False) -> None:
    """Guard what somebody else mapped.

    Args:
        owner: whose end is that of the map; begin: its first address. size: of the file.
    """
    if nbytes:
        gone = weakref.ref(owner, lambda _: _known.pop(begin, None))
        _known[begin] = _Range(begin + nbytes, path, size, gone, spooled)
        _install()


@contextmanager
def intact() -> Iterator[None]:
    """Refuse, when the block ends, what was made of a file that lost bytes inside it; also a decorator.

    Raises:
        SourceError: a file became shorter, or its disk could not read it.
    """
    seen, block = len(_broken), object()
    _blocks.append(block)
    _install()
    try:
        yield
    except Exception as error:
        if _bad_address(error):  # a call of the system met the hole first, and is told so without a signal
            _look()
        if not isinstance(error, SourceError):  # what zeros led to
            check_since(seen, error)
        raise
    finally:
        _blocks.remove(block)
    check_since(seen)


def broken() -> int:
    """How many maps lost bytes so far: what `check_since` counts from."""
    return len(_broken)


def check_since(seen: int, error: Exception | None = None) -> None:
    """Refuse to go on after a map lost bytes.

    Raises:
        SourceError: from `error`, what came of it.
    """
    if len(_broken) > seen:
        found = _broken[seen]
        raise SourceError(found.what, where=found.where, why=found.why, do=found.do) from error


def _bad_address(error: BaseException | None) -> bool:
    while error is not None and getattr(error, "errno", None) != errno.EFAULT:
        error = error.__cause__ or error.__context__
    return error is not None


def _look() -> None:
    """Note the maps whose files are shorter by now."""
    for found in tuple(_known.values()):
        if not found.spooled and _size(found.path) < found.size:
            _note(found)


def _note(found: _Range) -> None:
    made, name, size = found.owner(), found.path.name, _size(found.path)
    if isinstance(made, Map):
        made.broken = True
    if found.spooled:
        what, why = (
            f"there was no room to unpack {name}",
            "the disk of the temporary file filled up meanwhile, or failed",
        )
        do = "make room, or name a folder with room in TMPDIR"
    elif size < found.size:
        what, why, do = f"{name} became shorter while it was read", f"it has {size} bytes now, and had {found.size}", DO
    else:
        what, why, do = f"{name} could not be read to its end", "its disk reported an error", "check the disk"
    _broken.append(SourceError(what, where=str(found.path), why=why, do=do))


def _size(path: Path) -> int:
    """The bytes of a file now; none where there is no such file any more."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _install() -> None:
    """Have SIGBUS come here first; again after others (faulthandler, TensorFlow) took it."""
    global _hook
    if _hook is None and sys.platform in ("linux", "darwin") and os.uname().machine in ("x86_64", "aarch64", "arm64"):
        try:
            _hook = _Hook()
        except (ImportError, OSError, AttributeError):  # no ctypes, or another C library
            return
    if _hook is not None:
        _hook.install()


class _Hook:
    """The handler, through ctypes: SIGBUS comes in the middle of NumPy's loops, where no handler of Python's runs.

    It comes in the thread that touched the page, at once: running Python there is as safe as in any call back from C,
    for what it interrupts copies or adds numbers, with the interpreter's lock or without.
    """

    def __init__(self) -> None:
        import ctypes

        linux = sys.platform == "linux"

        class Info(ctypes.Structure):  # siginfo_t: Linux has the address behind 3 numbers, macOS behind 6
            _fields_ = (("numbers", ctypes.c_int * (3 if linux else 6)), ("address", ctypes.c_void_p))

        class Action(ctypes.Structure):  # struct sigaction of glibc, musl and macOS, on machines of 64 bits
            _fields_ = (
                ("handler", ctypes.c_void_p),
                ("mask", ctypes.c_ulong * 16 if linux else ctypes.c_uint32),
                ("flags", ctypes.c_int),
                ("restorer", ctypes.c_void_p),
            )

        libc = ctypes.PyDLL(None)  # keeps the interpreter's lock, so that nobody unmaps anything meanwhile
        kind = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.POINTER(Info), ctypes.c_void_p)
        self._handler = kind(self._caught)
        self._own, self._before, found = Action(), Action(), Action()
        self._own.handler = ctypes.cast(self._handler, ctypes.c_void_p).value
        self._own.flags = 4 if linux else 0x40  # SA_SIGINFO
        self._mmap, self._sigaction, self._at, self._found = libc.mmap, libc.sigaction, ctypes.byref, found
        self._mmap.restype = ctypes.c_void_p
        self._mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64]
        self._failed = ctypes.c_void_p(-1).value

    def install(self) -> None:
        """Put the handler before whatever there is now."""
        self._sigaction(signal.SIGBUS, None, self._at(self._found))
        if self._found.handler != self._own.handler:
            self._sigaction(signal.SIGBUS, self._at(self._own), self._at(self._before))

    def _caught(self, number: int, info: Any, _: Any) -> None:
        """Cover what is gone; what is not ours goes to the handler before: the access is repeated when this returns."""
        sent = info.contents.numbers[2] <= 0  # by another process; then there is no address
        if sent or not _blocks or not self._covered(info.contents.address or 0):
            self._sigaction(signal.SIGBUS, self._at(self._before), None)
            if sent:
                signal.raise_signal(signal.SIGBUS)

    def _covered(self, address: int) -> bool:
        """Put zeros where a map has nothing any more, and note it."""
        # what is known stays mapped meanwhile, for the interpreter's lock is ours
        begin = next((begin for begin, one in tuple(_known.items()) if begin <= address < one.end), None)
        if begin is None:
            return False
        found, here = _known[begin], address // PAGE * PAGE
        if (
            found.end - begin == found.size and not found.spooled
        ):  # the whole file; all at once, since copies may run backwards
            here = min(here, begin + -(-_size(found.path) // PAGE) * PAGE)
        rights = mmap.PROT_READ | mmap.PROT_WRITE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | FIXED
        if self._mmap(here, found.end - here, rights, flags, -1, 0) == self._failed:
            return False
        _note(found)
        return True
