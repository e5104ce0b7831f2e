"""What each format can hold: dtypes, shapes and names; what it cannot is refused before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from layoutx.errors import LayoutxError, UsageError
from layoutx.files.dtypes import EXTRA, Array, DType, bits
from layoutx.files.names import as_paths, shown
from layoutx.files.notes import KEY
from layoutx.frozen import frozen

Names = Iterable[str]
Bad = Iterator[tuple[str, str]]  # a name, and why the format cannot hold it

_INTS = ("int8", "int16", "int32", "int64", "uint8")
_WIDE = ("uint16", "uint32", "uint64")
_COMMON = frozenset(("bool", "float16", "float32", "float64", "bfloat16", "complex64", *_INTS))
_TORCH = _COMMON | {"complex128", *_WIDE, *EXTRA}
# tensorstore 0.1.86 has no float8_e4m3, float6, uint4, uint2 and no long double
_ORBAX = _TORCH | {"float8_e3m4", "float8_e4m3b11fnuz", "float4_e2m1fn", "int4", "int2"}
# no long double: its width, and the bytes of it that mean nothing, are the machine's own
_ALL = _ORBAX | {"float8_e4m3", "float6_e2m3fn", "float6_e3m2fn", "uint4", "uint2"}


@frozen
class Held:
    """What one format holds.

    Attributes:
        format: what errors call it.
        dtypes: their names.
        empty: whether it holds tensors without elements.
        bools: whether a bool that is stored as another byte than 0 or 1 keeps its byte.
        names: the names that it cannot hold, each with the reason.
    """

    format: str
    dtypes: frozenset[str] = _ALL
    empty: bool = True
    bools: bool = True
    names: Callable[[Names], Bad] = lambda _: iter(())


def _npz(names: Names) -> Bad:
    yield from as_paths(names)
    known = set(names)
    for name in known:
        if f"{name}.npy" in known:
            yield f"{name}.npy", f"numpy.load would give '{name}' in its place"


def _msgpack(names: Names) -> Bad:
    for name in names:
        if name == f"{KEY}/json":
            yield name, "layoutx keeps its notes under this name"
        elif "__msgpack_chunked_array__" in name.split("/"):
            yield name, "flax marks large arrays with this name"


def _paddle(names: Names) -> Bad:
    yield from ((name, "paddle ends its notes with @@") for name in names if name.endswith("@@"))


def _orbax(names: Names) -> Bad:
    yield from as_paths(names)
    first: dict[str, str] = {}
    for name in names:
        if not all(part not in ("", ".") for part in name.split("/")):
            yield name, "a level of its tree would have no name"
        other = first.setdefault(name.replace("/", "."), name)
        if other != name:
            yield name, f"it would lie where {shown(other)} does: orbax joins levels with dots"


def _dcp(names: Names) -> Bad:
    from layoutx.files.dcp_dir import reason_of

    yield from ((name, f"it would be taken for {why}") for name in names if (why := reason_of(name)))


# by the ending of the output; HDF5 and ONNX files have the names of their template
HELD: Mapping[str, Held] = {
    ".safetensors": Held("safetensors", _COMMON | {*_WIDE, *EXTRA}),
    ".npz": Held("npz", names=_npz),
    ".pt": Held("torch", _TORCH),
    ".pth": Held("torch", _TORCH),
    ".dcp": Held("torch", _TORCH, bools=False, names=_dcp),  # torch copies each tensor while it reads: True is then 1
    ".msgpack": Held("msgpack", names=_msgpack),
    ".pdparams": Held("paddle", _COMMON | {"complex128"}, names=_paddle),  # its uint16 is bfloat16
    ".orbax": Held("orbax", _ORBAX, empty=False, bools=False, names=_orbax),
    **dict.fromkeys((".keras", ".h5", ".hdf5"), Held("HDF5")),
}


def _held_by(path: Path) -> Held | None:
    """What the format of an output holds; None for one that is asked elsewhere."""
    return next((held for ending, held in HELD.items() if path.name.endswith(ending)), None)


def unheld(path: Path, entries: Iterable[tuple[str, DType, tuple[int, ...]]]) -> list[LayoutxError]:
    """One complaint for each tensor (name, dtype, shape) that the format of an output cannot hold."""
    found = _held_by(path)
    if found is None:
        return []
    entries = list(entries)
    problems: list[LayoutxError] = []
    unknown = {dtype for dtype in {dtype for _, dtype, _ in entries} if dtype.name not in found.dtypes}
    for name, dtype, shape in entries:
        if dtype in unknown:
            problems.append(_refusal(found, name, f"dtype {dtype}", "", "convert it to another dtype or"))
        elif not found.empty and 0 in shape:
            problems.append(_refusal(found, name, f"dtype {dtype}, shape {shape}", "it has no elements"))
    names = [name for name, _, _ in entries]
    return problems + [_refusal(found, name, "", why) for name, why in dict(found.names(names)).items()]


def odd_bools(path: Path, arrays: Mapping[str, Array]) -> list[LayoutxError]:
    """One complaint for each C-contiguous bool array with other bytes than 0 and 1, where the format loses them."""
    found = _held_by(path)
    if found is None or found.bools:
        return []
    odd = [name for name, array in arrays.items() if array.dtype == bool and array.size and bits(array).max() > 1]
    return [_refusal(found, name, "dtype bool", "some of its bytes are neither 0 nor 1") for name in odd]


def _refusal(held: Held, name: str, where: str, why: str, do: str = "") -> UsageError:
    return UsageError(
        f"{held.format} cannot hold '{name}'", where=where, why=why, do=f"{do} choose another format".strip()
    )
