"""A checkpoint and what one process makes of it, for the tests of everything that makes it elsewhere."""

from __future__ import annotations

import pytest
from cluster import checkpoint, converted


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("source") / "m.safetensors")


@pytest.fixture(scope="module")
def wanted(source, tmp_path_factory):
    """What one process gives."""
    return converted(source, tmp_path_factory.mktemp("wanted") / "out")
