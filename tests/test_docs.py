"""The documents are true: links lead somewhere, the spec that a reader copies works, every command is described."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from layoutx.api import plan
from layoutx.spec.check import check_registry
from layoutx.spec.registry import load_registry, spec_folders

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    missing = [link for link in links if not (page.parent / link).exists()]
    assert missing == []


def test_the_readme_fits_two_screens():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 80


@pytest.mark.parametrize("command", ["convert", "inspect", "plan", "specs"])
def test_every_command_is_in_the_readme(command):
    assert f"layoutx {command}" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_spec_of_the_guide_works(tmp_path):
    text = (ROOT / "docs" / "writing-a-spec.md").read_text(encoding="utf-8")
    yaml = re.search(r"```yaml\n(.*?)```", text, re.S)
    assert yaml is not None
    (tmp_path / "gated_dense.yaml").write_text(yaml[1], encoding="utf-8")
    assert check_registry(load_registry(spec_folders([tmp_path]))) == []
    made = plan("keras.GatedDense", "torch.GatedDense", sizes={"input": 7, "output": 5}, specs=[tmp_path])
    rng = np.random.default_rng(1)
    source = {t.name: rng.normal(size=t.shape) for t in made.source.tensors}
    target = made(source)
    np.testing.assert_array_equal(target["linear.weight"], np.concatenate([source["kernel"].T, source["gate"].T]))
    np.testing.assert_array_equal(target["linear.bias"], source["bias"])
