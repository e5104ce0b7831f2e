"""Mutations that know a format's outside: what is inside is changed, lengths and checksums are made right again."""

from __future__ import annotations

import io
import json
import random
import struct
import warnings
import zipfile
import zlib

import yaml

from scripts.fuzzing import texts
from scripts.fuzzing.bytewise import LARGE, mutated
from scripts.fuzzing.corpus import Case

NAMES = (*("../a", "/a", "", "a/../b", "C:\\a", "config.json", "model.weights.h5", "x.npy", "a" * 3000, "a\0b"),)


def changed(rng: random.Random, case: Case, other: Case) -> Case:
    """A case with one or two of its files mutated; rarely one is missing or stands in another's place."""
    files = dict(case.files)
    for _ in range(1 if len(files) == 1 or rng.random() < 0.7 else 2):
        name = rng.choice(sorted(files))
        theirs = other.files[rng.choice(sorted(other.files))]
        if len(files) > 1 and rng.random() < 0.04:
            del files[name]
            if not files:
                files[name] = b""
        elif rng.random() < 0.02:
            files[name] = theirs
        else:
            files[name] = content(rng, files[name], theirs, case.reader)
    return Case(case.reader, case.name, files, case.opened)


def content(rng: random.Random, data: bytes, other: bytes, reader: str = "", depth: int = 2) -> bytes:
    """Bytes changed in the way that suits what they are, or in any way."""
    if reader == "layout":
        text = texts.layout(rng) if rng.random() < 0.4 else data.decode(errors="replace")
        return _encoded(texts.edited(rng, text, other.decode(errors="replace")))
    if rng.random() < (0.05 if reader in ("spec", "mapping") else 0.35) or depth == 0:
        return mutated(rng, data, other)
    try:
        if data.startswith(b"PK\x03\x04"):
            return _zip(rng, data, other, depth)
        if data[8:9] == b"{":
            return _safetensors(rng, data)
        if data.startswith(b"lxhf"):
            return _history(rng, data)
        if reader in ("spec", "mapping"):
            return _yaml(rng, data, other)
        if data.lstrip()[:1] in (b"{", b"["):
            return _json(rng, data)
    except Exception:  # an input that is damaged already has no outside any more
        pass
    return mutated(rng, data, other)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", errors="surrogatepass")


def _json(rng: random.Random, data: bytes) -> bytes:
    if rng.random() < 0.3:
        return _encoded(texts.edited(rng, data.decode()))
    return json.dumps(texts.tree(rng, json.loads(data))).encode()


def _yaml(rng: random.Random, data: bytes, other: bytes) -> bytes:
    if rng.random() < 0.6:
        return _encoded(texts.edited(rng, data.decode(), other.decode(errors="replace")))
    return yaml.safe_dump(texts.tree(rng, yaml.safe_load(data)), allow_unicode=True, sort_keys=False).encode()


def _safetensors(rng: random.Random, data: bytes) -> bytes:
    size = int.from_bytes(data[:8], "little")
    header = _json(rng, data[8 : 8 + size])
    body = data[8 + size :] if rng.random() < 0.8 else mutated(rng, data[8 + size :] or b"\0")
    return len(header).to_bytes(8, "little") + header + body


def _history(rng: random.Random, data: bytes) -> bytes:
    """One frame's text changed, its checksums right."""
    frames, at = [], 0
    while at + 32 <= len(data):
        _, kind, length, size, _ = struct.unpack_from("<4s4sIQI", data, at)
        frames.append((kind, data[at + 32 : at + 32 + length], data[at + 32 + length : at + 32 + length + size]))
        at += 32 + length + size
    number = rng.randrange(len(frames))
    out = []
    for at, (kind, text, body) in enumerate(frames):
        size = len(body)
        if at == number:
            text = _json(rng, text)
            kind = rng.choice((kind, kind, kind, b"step", b"head", b"note", b"\xff\xfe\0\0"))
            size = rng.choice((size, size, size, 0, size + 1, *LARGE)) % (1 << 63)
        header = struct.pack("<4s4sIQI", b"lxhf", kind, len(text), size, zlib.crc32(text))
        out.append(header + struct.pack("<I", zlib.crc32(header)) + text + body)
    if rng.random() < 0.1:
        rng.shuffle(out)
    return b"".join(out)


def _zip(rng: random.Random, data: bytes, other: bytes, depth: int) -> bytes:
    """A member changed and the archive written anew, or its directory changed behind its back."""
    with zipfile.ZipFile(io.BytesIO(data)) as old:
        members = [(info, old.read(info)) for info in old.infolist()]
    chosen, out = rng.randrange(len(members)), io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as new:
        warnings.simplefilter("ignore")  # of names that stand there twice
        for at, (info, inside) in enumerate(members):
            name, way = info.filename, info.compress_type
            if at == chosen:
                match rng.randrange(12):
                    case 0:
                        continue
                    case 1:
                        new.writestr(name, inside)
                    case 2:
                        name = rng.choice((*NAMES, members[rng.randrange(len(members))][0].filename))
                    case 3:
                        way = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
                    case _:
                        inside = content(rng, inside, other, depth=depth - 1)
            new.writestr(zipfile.ZipInfo(name.replace("\0", "") or "a"), inside, way)
    return _forged(rng, bytearray(out.getvalue())) if rng.random() < 0.2 else out.getvalue()


def _forged(rng: random.Random, data: bytearray) -> bytes:
    """A field of a local header or of the directory made another number."""
    at = rng.choice([n for n in range(len(data) - 3) if data[n : n + 4] in (b"PK\1\2", b"PK\3\4", b"PK\5\6")])
    offset, code = rng.choice(
        ((6, "H"), (8, "H"), (10, "H"), (14, "I"), (18, "I"), (22, "I"), (26, "H"), (42, "I"), (20, "I"))
    )
    width = struct.calcsize(code)
    if at + offset + width <= len(data):
        struct.pack_into("<" + code, data, at + offset, rng.choice(LARGE) % (1 << 8 * width))
    return bytes(data)
