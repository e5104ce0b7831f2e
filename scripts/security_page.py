"""The tables of docs/security.md: the limits from the code, the bits from their test, the rest from a run of the tests.

python scripts/security_page.py RECORDS            write the tables from the records of a run
python scripts/security_page.py RECORDS --check    fail where the page claims more than the run has shown

RECORDS is the folder that LAYOUTX_RECORDS named while the tests ran: files of JSON lines, one line for each attack
that was refused, each fault that was survived, each reader that was fuzzed, and each test that was skipped.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from layoutx.files.limits import LIMITS, PREFIX  # noqa: E402
from scripts.bits_table import rows as bits  # noqa: E402

PAGE = ROOT / "docs" / "security.md"
MARK = "<!-- {}: {} -->"


def read(folder: Path) -> list[dict[str, Any]]:
    """All records of a run."""
    lines = (line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text(encoding="utf-8").splitlines())
    return [json.loads(line) for line in lines]


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *([str(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def group(test: str) -> str:
    """`tests/attacks/test_zip_attacks.py::...` is of the group `zip`."""
    return Path(test.partition("::")[0]).stem.removeprefix("test_").removesuffix("_attacks").replace("_", " ")


def limits() -> str:
    """The limits, with the variables that raise them."""
    return table(
        ("limit", "usual", "why", "raised by"),
        ((name.lower(), f"{one.most:,} {one.unit}", one.why, f"`{PREFIX}{name}`") for name, one in LIMITS.items()),
    )


def attacks(records: Iterable[Mapping[str, Any]]) -> dict[str, tuple[int, ...]]:
    """Group -> hostile files tried, tests."""
    found: dict[str, list[str]] = defaultdict(list)
    for one in records:
        if "kind" in one and group(one["test"]) != "victim":
            found[group(one["test"])].append(one["test"])
    return {name: (len(tests), len(set(tests))) for name, tests in sorted(found.items())}


def faults(records: Iterable[Mapping[str, Any]]) -> dict[str, tuple[int, ...]]:
    """What was done to a conversion -> how often, how often it was survived."""
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for one in records:
        if "faults" in one:
            found[one["faults"]][0] += one["tried"]
            found[one["faults"]][1] += one["survived"]
    return {name: tuple(counts) for name, counts in sorted(found.items())}


def fuzzed(records: Iterable[Mapping[str, Any]]) -> dict[str, tuple[int, ...]]:
    """Reader -> inputs."""
    found: dict[str, int] = defaultdict(int)
    for one in records:
        if "fuzz" in one:
            found[one["fuzz"]] += one["inputs"]
    return {name: (count,) for name, count in sorted(found.items())}


def verified(records: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """What was read again -> bytes."""
    found: dict[str, int] = defaultdict(int)
    for one in records:
        if "verified" in one:
            found[one["verified"]] += one.get("bytes", 0)
    return dict(found)


def tables(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The generated parts of the page by name."""
    tried, harmed, inputs = attacks(records), faults(records), fuzzed(records)
    total = ("**all**", sum(n for n, _ in tried.values()), sum(n for _, n in tried.values()))
    every = (*((name, files, tests) for name, (files, tests) in tried.items()), total)
    return {
        "limits": limits(),
        "attacks": table(
            ("what", "hostile files", "refused with the right error", "in so many tests"),
            ((name, files, files, tests) for name, files, tests in every),
        ),
        "faults": table(("what happened", "times", "survived"), ((name, *counts) for name, counts in harmed.items())),
        "fuzz": table(
            ("reader", "inputs in CI", "not layoutx's own error"), ((name, *count, 0) for name, count in inputs.items())
        ),
        "bytes": table(
            ("bytes verified by the tests", "MB"), ((k, n // 1_000_000) for k, n in verified(records).items())
        ),
        "bits": bits_table(),
    }


def bits_table() -> str:
    """What each format keeps bit for bit."""
    head, *rest = bits()
    return table([str(cell) for cell in head], rest)


def filled(page: str, parts: Mapping[str, str]) -> str:
    """The page with its generated parts put between their marks."""
    for name, text in parts.items():
        begin, end = MARK.format("begin", name), MARK.format("end", name)
        before, _, rest = page.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise SystemExit(f"docs/security.md has no place for {name}")
        page = f"{before}{begin}\n\n{text}\n\n{end}{after}"
    return page


def numbers(text: str) -> dict[str, list[int]]:
    """A generated table: first cell -> the numbers in its row."""
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    return {row[0]: [int(cell) for cell in row[1:]] for row in rows[2:]}


def lacking(page: str, name: str, shown: str) -> list[str]:
    """The rows of one table in the page that claim more than the run has shown."""
    begin, end = MARK.format("begin", name), MARK.format("end", name)
    claimed, found = numbers(page.partition(begin)[2].partition(end)[0]), numbers(shown)
    return [
        f"{row} {counts}, here {found.get(row, 'nothing')}"
        for row, counts in claimed.items()
        if row not in found or any(here < there for here, there in zip(found[row], counts, strict=True))
    ]


def main() -> int:
    """Write the page, or compare it."""
    folder, check = Path(sys.argv[1]), "--check" in sys.argv
    records = read(folder)
    page = PAGE.read_text(encoding="utf-8")
    parts = tables(records)
    if not check:
        PAGE.write_text(filled(page, parts), encoding="utf-8")
        print("docs/security.md is written")
        return 0
    # how many calls a conversion makes, and which faults can be made, depends on the file system: no claim
    said = [name for name in ("limits", "bits") if parts[name] not in page]
    said += [f"{name}: {row}" for name in ("attacks", "fuzz") for row in lacking(page, name, parts[name])]
    skipped = sorted({f"{one['skipped']} ({one['why']})" for one in records if "skipped" in one})
    if skipped:  # what this machine cannot try says nothing against the page
        print("not tried here:", *skipped, sep="\n  ")
    if said and not skipped:
        print("docs/security.md says what this run did not show:", *said, sep="\n  ")
        print("run LAYOUTX_RECORDS=DIR scripts/test, then scripts/security_page.py DIR")
        return 1
    print("docs/security.md claims no more than this run has shown")
    return 0


if __name__ == "__main__":
    sys.exit(main())
