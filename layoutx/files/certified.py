"""The hashes of tensors in a certificate: written so that it stays bounded, and read as a stranger's text.

Up to NAMED tensors a side is `{name: hash}`. Of more it is `{"many": count, "names": digest, "packed": text}`: the
hashes end to end, in the order of the sorted names, and the digest of those names; 100,000 tensors take 3 MB so, where
it would be 8.6 MB with the names.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from layoutx.empty import NOTHING
from layoutx.errors import FileError
from layoutx.files.dtypes import Array, settled
from layoutx.files.hashes import KINDS, WIDTHS, XXH3, hash_of
from layoutx.files.store import Tensor
from layoutx.frozen import frozen

NAMED = 4096
OK, DIFFERS, MISSING, EXTRA = "OK", "differs", "missing", "extra"
_HEX = re.compile(r"(?:[0-9a-f]{2})*")


@frozen
class Side:
    """What a certificate says of the tensors of one file.

    Attributes:
        named: name -> hash. packed: of many tensors, the hashes alone; names: the digest of their names.
    """

    kind: str
    named: Mapping[str, str] = NOTHING
    packed: tuple[str, ...] = ()
    names: str = ""

    @property
    def many(self) -> int:
        """Number of tensors."""
        return len(self.packed) or len(self.named)

    def of(self, names: Iterable[str]) -> Mapping[str, str] | None:
        """Name -> hash, for a file with these names; None where the names are others than those of the certificate."""
        if not self.packed:
            return self.named
        ordered = sorted(names)
        if len(ordered) != len(self.packed) or names_digest(ordered, self.kind) != self.names:
            return None
        return dict(zip(ordered, self.packed, strict=True))

    def compared(self, found: Mapping[str, str]) -> dict[str, str]:
        """Name -> OK, DIFFERS, MISSING or EXTRA, for the hashes of a file's tensors.

        Of many tensors under other names than the certificate's, those count as OK whose numbers it knows.
        """
        wanted = self.of(found)
        if wanted is None:
            left = Counter(self.packed)
            result = {}
            for name, one in found.items():
                result[name] = OK if left[one] > 0 else EXTRA
                left[one] -= 1
            gone = sum(count for count in left.values() if count > 0)
            return {**result, **({f"{gone} tensors that the certificate knows": MISSING} if gone else {})}
        names = dict.fromkeys((*found, *wanted))
        return {
            name: EXTRA if name not in wanted else MISSING if name not in found else _same(wanted[name], found[name])
            for name in names
        }


def _same(one: str, other: str) -> str:
    return OK if one == other else DIFFERS


@frozen
class Certified:
    """The hashes of a certificate: of the file's tensors, and of the tensors that they were made from."""

    tensors: Side
    sources: Side


def hashed(kind: str, tensors: Mapping[str, str], sources: Mapping[str, str] = NOTHING) -> dict[str, Any]:
    """The hashes as a part of a certificate."""
    return {"hashes": {"kind": kind, "tensors": _side(kind, tensors), "sources": _side(kind, sources)}}


def of_arrays(arrays: Mapping[str, Array], sources: Iterable[Tensor] = ()) -> dict[str, Any]:
    """The same for arrays in memory, and the stored tensors that they were made from."""
    own = {name: hash_of(settled(array)) for name, array in arrays.items()}
    return hashed(XXH3, own, {t.name: hash_of(t.read()) for t in sources if not t.derived})


def _side(kind: str, found: Mapping[str, str]) -> dict[str, Any]:
    if len(found) <= NAMED:
        return dict(found)
    names = sorted(found)
    packed = "".join(found[name] for name in names)
    return {"many": len(names), "names": names_digest(names, kind), "packed": packed}


def names_digest(names: Iterable[str], kind: str) -> str:
    """The digest of names in their order."""
    return KINDS[kind](json.dumps(list(names), separators=(",", ":")).encode()).hex()


def certified(certificate: Mapping[str, Any], file: str) -> Certified | None:
    """The hashes of a certificate; None where it has none (an earlier layoutx wrote it).

    Raises:
        FileError: they are malformed.
    """
    found = certificate.get("hashes")
    if found is None:
        return None
    if not isinstance(found, dict) or not isinstance(found.get("kind"), str) or found["kind"] not in KINDS:
        raise _malformed(file, "no hashes of a kind that is known", f"known: {', '.join(KINDS)}")
    kind = found["kind"]
    return Certified(_read(found.get("tensors"), kind, file), _read(found.get("sources", {}), kind, file))


def _read(side: object, kind: str, file: str) -> Side:
    width = 2 * WIDTHS[kind]
    if not isinstance(side, dict):
        raise _malformed(file, "its hashes are no object", f"a {type(side).__name__}")
    packed, many = side.get("packed"), side.get("many")
    if isinstance(packed, str) and isinstance(many, int):
        if not _HEX.fullmatch(packed) or len(packed) != many * width or not isinstance(side.get("names"), str):
            raise _malformed(file, "its packed hashes do not fit their number", f"{many} of {width} digits")
        own = tuple(packed[at : at + width] for at in range(0, len(packed), width))
        return Side(kind, packed=own, names=side["names"])
    for name, one in side.items():
        if not isinstance(one, str) or len(one) != width or not _HEX.fullmatch(one):
            raise _malformed(file, f"the hash of {name[:80]!r} is none", f"{kind} has {width} digits")
    return Side(kind, dict(side))


def _malformed(file: str, why: str, more: str) -> FileError:
    return FileError(
        f"the certificate of {file} is malformed",
        why=f"{why} ({more})",
        do="convert the original again, or check it against that with --source",
    )
