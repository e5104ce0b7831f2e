"""Which forms are witnessed: borne out by captured outputs of a real framework; the others are only declared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from layoutx.spec.registry import builtin_folder

DECLARED = "declared"


def witnessed(form: str) -> str:
    """The witness state of a form: "witnessed keras 3.15.1, tf_keras 2.21.0", or "declared".

    Read from `specs/witnesses.json`, which `scripts/capture_witnesses.py` writes.
    """
    entry = index().get(form)
    if not entry:
        return DECLARED
    versions = [f"{framework} {version}" for framework, version in entry["frameworks"].items()]
    return f"witnessed {', '.join(versions)}"


@cache
def index() -> Mapping[str, Any]:
    """Form -> frameworks (name -> version), number of cases, largest error for each dtype; empty without the file."""
    path = builtin_folder() / "witnesses.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
