"""The process in which mutated inputs are opened: it may crash, hang or be ended without taking anything with it.

Called with a JSON object: `folder` (its own, for the input at hand), `seed`, `jobs` ([reader, first, inputs, seconds]).
It prints one JSON line for each finding and each finished job, and leaves the number of its input in `folder`/at.
"""

from __future__ import annotations

import base64
import json
import os
import random
import resource
import shutil
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from scripts.fuzzing.corpus import CORPUS, Case, cases
from scripts.fuzzing.cover import Lines
from scripts.fuzzing.shaped import changed
from scripts.fuzzing.smaller import smaller
from scripts.fuzzing.verdict import SECONDS, Verdict, armed, verdict

DEEP = 0.2  # of the inputs are inspected too, which takes longer than reading
POOL = 300  # inputs that reached something new, beside the corpus
PARENT = os.getppid()
AGAIN = ("hang", "slow", "memory")
HEADROOM = 4 << 30  # bytes of address space beyond what the frameworks take


def main(task: dict[str, Any]) -> None:
    folder = Path(task["folder"])
    warnings.simplefilter("ignore")
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    armed()
    for reader, first, inputs, seconds in task["jobs"]:
        job = Job(reader, task["seed"], folder, said)
        job.run(first, inputs, seconds)
        job.say(done=reader, first=first, reached=job.lines.reached, **job.counts)


class Job:
    """One reader's inputs."""

    def __init__(self, reader: str, seed: int, folder: Path, said: Any) -> None:
        self.reader, self.seed, self.folder, self.said = reader, seed, folder, said
        self.lines, self.known = Lines(), set[tuple[str, str]]()
        self.pool = cases(reader)
        self.sound = len(self.pool)
        self.counts = {"inputs": 0, "refused": 0, "opened": 0, "found": 0}
        (folder / "at").write_text(f"{reader} -1")
        for case in self.pool[:20]:  # frameworks are imported, and the lines of sound files are not new
            self.tried(case, deep=True, patience=0)
            found = self.tried(case, deep=reader != "paddle")  # bare pickles do not say whose names they hold
            if found.found or (found.kind == "refused" and (CORPUS / reader / case.name).is_dir()):
                self.report(-1, case, case, found if found.found else Verdict("unread", case.name, found.text))
        _limited()

    def run(self, first: int, inputs: int, seconds: float) -> None:
        """Inputs number `first` to `inputs`, or until the time is over."""
        ends = time.monotonic() + seconds
        for number in range(first, inputs):
            if time.monotonic() > ends or os.getppid() != PARENT:  # whoever started it may have been ended
                break
            rng = random.Random(f"{self.seed} {self.reader} {number}")
            # What was damaged on its way to new lines leads nowhere else as a rule: half begin with a sound file.
            parent = rng.choice(self.pool[: self.sound] if rng.random() < 0.5 else self.pool)
            other = rng.choice(self.pool)
            case = changed(rng, parent, other)
            (self.folder / "at").write_text(f"{self.reader} {number}")
            deep = rng.random() < DEEP
            found = self.tried(case, deep)
            if found.kind in AGAIN:  # an import may have been in it; an attack takes as much every time
                found = self.tried(case, deep)
            self.counts["inputs"] += 1
            self.counts[found.kind if not found.found else "found"] += 1
            if found.found:
                self.report(number, case, parent, found)
            elif self.lines.fresh and case.size() < 4 * parent.size() + 1000:
                self.pool.append(case)
                if len(self.pool) > self.sound + POOL:
                    del self.pool[self.sound + POOL // 2]

    def tried(self, case: Case, deep: bool, patience: float = SECONDS) -> Verdict:
        """What comes of a case; what it reached is in `lines`."""
        place = self.folder / "input"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        path = case.laid(place)
        self.lines.fresh = False
        if patience == 0:
            return verdict(self.reader, path, deep, patience)
        sys.settrace(self.lines.call)
        try:
            return verdict(self.reader, path, deep, patience)
        finally:
            sys.settrace(None)

    def report(self, number: int, case: Case, parent: Case, found: Verdict) -> None:
        """Say what was found, once for each place, as small as it gets."""
        if (found.kind, found.where) in self.known:
            return
        self.known.add((found.kind, found.where))

        def same(one: Case) -> bool:
            again = self.tried(one, deep=True)
            return (again.kind, again.where) == (found.kind, found.where)

        small = smaller(case, parent, same, patience=5.0)
        files = {name: base64.b64encode(content).decode() for name, content in small.files.items()}
        about = {"kind": found.kind, "where": found.where, "text": found.text[-3000:]}
        self.say(finding=self.reader, number=number, seed=self.seed, opened=case.opened, files=files, **about)

    def say(self, **what: Any) -> None:
        print(json.dumps(what), file=self.said, flush=True)


def _limited() -> None:
    """No more address space than now and HEADROOM."""
    status = Path("/proc/self/status")
    if status.exists():
        size = int(status.read_text().partition("VmSize:")[2].split()[0]) << 10
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (size + HEADROOM, hard))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
