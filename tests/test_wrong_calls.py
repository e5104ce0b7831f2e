"""Calls as people mistype them in Python: each is refused with what to write, and none ends in an error of Python's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import UsageError

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
DIGITS, ROWS = EXAMPLES / "digits.keras", EXAMPLES / "rows.h5"
SIZES = {"input": 3, "output": 2}


def converted(**wrong: Any) -> Any:
    return lx.convert(DIGITS, to="torch", live=False, **wrong)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: converted(dtype=np.float16), "there is no dtype .*float16.*(.|\n)*one of bf16, f16"),
        (lambda: converted(jobs="2"), "'2' threads cannot do anything"),
        (lambda: converted(max_shard_size=-1), "a shard of -1 bytes holds nothing"),
        (lambda: converted(forms=["conv1"]), "forms is a mapping, not a list"),
        (lambda: converted(values="eps=1"), "values is a mapping, not a str"),
        (lambda: converted(specs="my_specs"), r"specs is a list of folders(.|\n)*specs=\['my_specs'\]"),
        (lambda: converted(input_shape=28), r"the input shape is one number(.|\n)*input_shape=\(28,\)"),
        (lambda: lx.inspect(ROWS)[0], r"a layer has a name(.|\n)*\.layers\[0\]"),
        (lambda: lx.plan("keras.Dense", "torch.Linear", sizes=SIZES)([np.zeros((3, 2))]), "not a mapping of names"),
        (lambda: lx.forward("keras.Dense", [np.zeros((3, 2))], np.zeros((1, 3))), "not a mapping of names to arrays"),
    ],
)
def test_refused_with_what_to_write(call: Callable[[], Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        call()


def test_a_class_is_no_model() -> None:
    torch = pytest.importorskip("torch", reason="the class is one of torch")

    class Net(torch.nn.Module):
        pass

    calls: list[Callable[[], Any]] = [
        lambda: lx.convert(DIGITS, to="torch", like=Net),
        lambda: lx.port(DIGITS, Net),
        lambda: lx.port(Net, torch.nn.Linear(3, 2)),
        lambda: lx.match(DIGITS, Net),
        lambda: lx.validate(DIGITS, Net),
        lambda: lx.inspect(Net),
        lambda: lx.blend(Net, torch.nn.Linear(3, 2), 0.5),
    ]
    for call in calls:
        with pytest.raises(UsageError, match=r"Net is a class, not a model(.|\n)*give one of it: Net\(\.\.\.\)"):
            call()


def test_port_takes_a_file_of_inputs_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch by the names of the inputs, in another order than the model has them."""
    pytest.importorskip("torch", reason="the target is a torch module")
    pytest.importorskip("tensorflow", reason="the source is run by Keras")
    from layoutx.cli import main

    monkeypatch.syspath_prepend(str(EXAMPLES))
    batch, turned = dict(np.load(EXAMPLES / "rows.npz")), tmp_path / "turned.npz"
    np.savez(turned, **{name: batch[name] for name in reversed(list(batch))})
    from rows_torch import Rows

    found = lx.port(ROWS, Rows(), turned)
    assert found.end_to_end is not None
    assert found.end_to_end.agrees
    said = ["port", str(ROWS), "rows_torch:Rows", "-o", str(tmp_path / "out.pt"), "--inputs", str(turned)]
    assert main(said) == 0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (["--to", "torch", "--like", "mine.py:build"], "a module has dots and no ending: mine:build"),
        (["--to", "torch", "--like", "./mine.py:build"], "a module has dots and no ending: mine:build"),
        (["--to", "torch", "--like", "mine.build"], "what builds a model has a colon: mine:build"),
        (["--to", "torch", "--skip", "conv1", "conv2"], "is given again for each (--skip A --skip B)"),
        (["--to", "tensorflow"], "--from and --to name one of them: keras, tf1"),
    ],
)
def test_the_command_line_says_what_to_write(
    call: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from layoutx.cli import main

    (tmp_path / "mine.py").write_text("def build():\n    return None\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["convert", str(DIGITS), "-o", "out.pt", *call]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
