"""The victim itself: what it must tell apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def test_a_refusal_names_the_file(refused: Any, tmp_path: Path) -> None:
    path = tmp_path / "empty.safetensors"
    path.write_bytes(b"")
    refused(path, "is empty")


def test_what_opens_is_no_refusal(refused: Any, tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    path = tmp_path / "fine.safetensors"
    save_file({"a": np.arange(3.0)}, path)
    assert refused(path, fine=True) == "1 tensors"
    with pytest.raises(AssertionError, match="fine"):
        refused(path, "anything")


def test_a_crash_is_seen(victim: Any) -> None:
    assert victim.ask("import", "layoutx.nowhere")["kind"].startswith("ModuleNotFoundError, not")
    victim.process.kill()
    assert victim.ask("import", "json")["kind"] == "crash"
    assert victim.ask("import", "json")["kind"] == "fine"


def test_a_crash_between_two_questions_is_seen(victim: Any) -> None:
    assert victim.ask("import", "json")["kind"] == "fine"
    victim.process.kill()
    victim.process.wait()
    assert victim.ask("import", "json")["kind"] == "crash"
    assert victim.ask("import", "json")["kind"] == "fine"
