"""docs/torch-modules.md lists every module and nothing else; every module has its form, unless it has no weights."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import layoutx.torch as lt
from layoutx.spec.registry import registry
from layoutx.verify.witnesses import witnessed

PAGE = Path(__file__).resolve().parents[2] / "docs" / "torch-modules.md"
OWN = "torch.layoutx."  # Keras 2 on Theano has forms by_class as well


def test_the_table_is_complete() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(rows) == sorted(lt.__all__)


def test_each_has_a_form_a_witness_and_a_docstring() -> None:
    forms = {name.rpartition(".")[2] for name, form in registry().forms.items() if form.by_class and OWN in name}
    assert forms == {name for name in lt.__all__ if "Pool" not in name}
    for name in forms:
        assert witnessed(f"torch.layoutx.{name}").startswith("witnessed torch ")
    for name in lt.__all__:
        assert "x (" in (inspect.getdoc(getattr(lt, name)) or "") or name == "BatchNorm", name


def test_a_form_reads_the_arguments_of_its_constructor() -> None:
    for name, form in registry().forms.items():
        if form.by_class and OWN in name:
            own = inspect.signature(getattr(lt, form.class_name.rpartition(".")[2])).parameters
            assert list(form.config) == list(own), name
            given = {key: value.default for key, value in own.items() if value.default is not inspect.Parameter.empty}
            assert {key: form.config[key] for key in given} == given, name
