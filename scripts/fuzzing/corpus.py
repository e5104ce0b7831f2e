"""What the fuzzer begins with: real files by reader, texts of layouts and specs."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "tests" / "corpus"
TEXTS = ("layout", "spec")  # readers whose input is one text
LARGEST = 300_000  # bytes of a real file that is worth mutating
SUFFIXES = {".onnx": "onnx", ".h5": "h5", ".keras": "keras", ".safetensors": "safetensors"}
OPENED = {"tf_checkpoint": "a.index", "index": "a.*json"}  # where it is not the first name
_LAYOUT = re.compile(r'"([^"\n]*:[^"\n]*|[^"\n]*[({|][^"\n]*)"')


@dataclass(frozen=True)
class Case:
    """Files that belong together.

    Attributes:
        files: path inside the case's folder -> content.
        opened: the path that is opened, a file's or a folder's.
    """

    reader: str
    name: str
    files: dict[str, bytes]
    opened: str

    def laid(self, folder: Path) -> Path:
        """Written into an empty folder; the path to open."""
        for name, content in self.files.items():
            path = folder / name
            if "/" in name:
                path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return folder / self.opened

    def size(self) -> int:
        return sum(map(len, self.files.values()))


def case_of(folder: Path, reader: str) -> Case:
    """The case that a folder of the corpus holds."""
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "finding.json"
    }
    first = sorted(folder.glob(OPENED.get(reader, "a*")))[0].name
    return Case(reader, folder.name, files, first)


def readers() -> list[str]:
    """All that can be fuzzed."""
    return [*sorted(path.name for path in CORPUS.iterdir() if path.is_dir()), *TEXTS]


def cases(reader: str) -> list[Case]:
    """What a reader's mutations begin with; with LAYOUTX_MODELS set, real files too."""
    if reader == "layout":
        return [Case(reader, f"text {n}", {"a.txt": t.encode()}, "a.txt") for n, t in enumerate(layouts())]
    if reader == "spec":
        paths = sorted((ROOT / "specs").glob("*.yaml"))
        return [Case(reader, p.stem, {"a.yaml": p.read_bytes()}, "a.yaml") for p in paths]
    found = [case_of(path, reader) for path in sorted((CORPUS / reader).iterdir())]
    real = os.environ.get("LAYOUTX_MODELS")
    for path in sorted(Path(real).rglob("*")) if real else ():
        if SUFFIXES.get(path.suffix) == reader and path.stat().st_size <= LARGEST:
            found.append(Case(reader, path.name, {f"a{path.suffix}": path.read_bytes()}, f"a{path.suffix}"))
    return found


def layouts() -> list[str]:
    """Layout texts of the specs, each once."""
    texts = (path.read_text(encoding="utf-8") for path in sorted((ROOT / "specs").glob("*.yaml")))
    return sorted({one for text in texts for one in _LAYOUT.findall(text) if len(one) < 200})
