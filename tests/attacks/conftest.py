"""An attack and its asserted refusal: one of layoutx's own errors, that says where, soon, and in little memory."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SECONDS = 1.0
BYTES = 200 << 20
PATIENCE = 30.0  # seconds after which a silent victim counts as hung
IMPORT = 300.0  # seconds for imports, which are no attack: the first one reads hundreds of MB from the disk
OWN = re.compile(r"(File|Usage|Spec|Match|Conversion|Verification|Model|Bind|Size|LayoutSyntax)Error$|Problems$")

Refused = Callable[..., str]


class Victim:
    """The process that opens hostile files."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.warm = False  # it has answered before

    def ask(self, deed: str, argument: str) -> dict[str, Any]:
        """What a deed ends in; a process that died or hangs is replaced by the next call."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("victim.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
            )
        process = self.process
        assert process.stdin
        assert process.stdout
        with contextlib.suppress(BrokenPipeError):  # it died since the last answer: nothing will be read below
            print(json.dumps([deed, argument]), file=process.stdin, flush=True)
        patience = IMPORT if deed == "import" or not self.warm else PATIENCE
        if not select.select([process.stdout], [], [], patience)[0]:
            self.end()
            return {"kind": "hang", "text": f"no answer in {patience:.0f} s", "seconds": patience, "bytes": 0}
        line = process.stdout.readline()
        if not line:
            code = process.wait()
            self.end()
            return {"kind": "crash", "text": f"the process ended with {code}", "seconds": 0.0, "bytes": 0}
        self.warm = True
        return dict(json.loads(line))

    def asked(self, deed: str, argument: str) -> dict[str, Any]:
        """As `ask`, again while it takes too much: the machine may have been busy; an attack is slow every time."""
        found = self.ask(deed, argument)
        for pause in (0.2, 1.0, 3.0):
            if found["seconds"] > SECONDS or found["bytes"] > BYTES:
                time.sleep(pause)
                found = self.ask(deed, argument)
        return found

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            with contextlib.suppress(BrokenPipeError):  # what it was never sent is still in the pipe's buffer
                self.process.communicate()
        self.process, self.warm = None, False


@pytest.fixture(scope="session")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    """One process for all attacks of a worker, warm, so that imports are no attack's seconds."""
    import numpy as np
    from safetensors.numpy import save_file

    found = Victim()
    plain = tmp_path_factory.mktemp("plain") / "plain.safetensors"
    save_file({"a": np.arange(3.0)}, plain)
    assert found.ask("open", str(plain))["kind"] == "fine"
    yield found
    found.end()


@pytest.fixture
def refused(victim: Victim, request: pytest.FixtureRequest) -> Refused:
    """`refused(path, *words, deed="open")`: the error's text, after asserting that it

    is one of layoutx's own, names the file, holds each of the words, came within 1 s and 200 MB. `fine=True` asserts
    instead that the file is opened and read within the same bounds: what is odd and harmless is no attack. An error
    that names a layer of the one file that is converted does not name the file again.
    """

    def check(path: Path, *words: str, deed: str = "open", fine: bool = False) -> str:
        found = victim.asked(deed, str(path))
        assert bool(OWN.match(found["kind"])) is not fine, f"{found['kind']}: {found['text']}"
        assert fine is (found["kind"] == "fine"), f"{found['kind']}: {found['text']}"
        assert found["seconds"] <= SECONDS, f"{found['seconds']:.1f} s"
        assert found["bytes"] <= BYTES, f"{found['bytes'] >> 20} MB"
        text = str(found["text"])
        if not fine:
            assert path.name[:40] in text or (deed == "convert" and "layer " in text), text
            for word in words:
                assert word in text, f"{word!r} is not in: {text}"
            _record(request.node.nodeid, found["kind"], text)
        return text

    return check


def _record(test: str, kind: str, text: str) -> None:
    """Leave a line for the table of docs/security.md where LAYOUTX_RECORDS names a folder."""
    folder = os.environ.get("LAYOUTX_RECORDS")
    if folder:
        line = json.dumps({"test": test, "kind": kind, "said": text.splitlines()[0]})
        with (Path(folder) / f"attacks-{os.getpid()}.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
