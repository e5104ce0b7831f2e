"""Where the time of one run goes: the imports of a process, and the calls of a conversion with one thread."""

from __future__ import annotations

import pstats
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

from benching import contenders as who
from benching.made import Files
from benching.measured import taken

IMPORT = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \| ( *)(\S+)")
MOST = 14


def imports() -> list[list[str]]:
    """The packages that `import layoutx.convert` waits for: milliseconds of each, its own modules together."""
    call = [sys.executable, "-X", "importtime", "-c", "import layoutx.convert"]
    done = subprocess.run(call, capture_output=True, text=True, check=True, cwd=who.HERE.parent.parent)
    own: dict[str, int] = {}
    for mine, _, _, name in IMPORT.findall(done.stderr):
        top = name.split(".")[0]
        known = top if top in ("layoutx", "numpy", "yaml", "ml_dtypes", "rich", "safetensors") else "Python's"
        own[known] = own.get(known, 0) + int(mine)
    return [[name, f"{value / 1e3:.0f}"] for name, value in sorted(own.items(), key=lambda pair: -pair[1])]


def calls(files: Files, folder: Path) -> list[list[str]]:
    """The functions of layoutx in which one conversion spends most, with all that they call: share and function."""
    kept = folder / "profile"
    out = folder / "profiled.safetensors"
    taken(who.profiled(files, kept).command(files.weights, out))
    out.unlink(missing_ok=True)
    stats = pstats.Stats(str(kept), stream=StringIO())
    total = stats.total_tt  # type: ignore[attr-defined]
    found = []
    for (file, _, name), (_, many, own, whole, _) in stats.stats.items():  # type: ignore[attr-defined]
        place = Path(file)
        where = (
            ".".join(place.with_suffix("").parts[place.parts.index("layoutx") :]) if "layoutx" in place.parts else ""
        )
        heavy = own > 0.02 * total
        if (where and ".cli" not in where and whole > 0.02 * total) or heavy:
            found.append((whole, own, many, f"{where or file.rsplit('/', 1)[-1]}.{name}".lstrip("~.")))
    kept.unlink()
    found.sort(reverse=True)
    return [[name, f"{whole / total:.0%}", f"{own / total:.0%}", str(many)] for whole, own, many, name in found[:MOST]]


IMPORTS, CALLS = ["package", "ms"], ["function", "with what it calls", "itself", "calls"]
