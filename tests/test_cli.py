"""The command line: what it prints, how it ends, and that nothing is left behind when it refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edited import DIGITS, edited, layer, renamed
from safetensors.numpy import load_file, save_file

from layoutx.cli import main
from layoutx.cli.options import parser

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = [["inspect"], ["convert"], ["plan"], ["specs"], ["specs", "show"], ["specs", "check"]]
# test_explain.py, test_diff.py, history/, page/, test_verify_file.py
LOOK = [["explain"], ["diff"], ["history"], ["report"], ["verify"]]
MODELS = [["match"], ["port"], ["transfer"], ["record"], ["relate"], ["validate"], ["diagnose"]]  # test_cli_models.py
Out = pytest.CaptureFixture[str]


def run(capsys: Out, *arguments: object, status: int = 0) -> tuple[str, str]:
    """stdout and stderr of a command that has to end with `status`."""
    found = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    assert found == status, f"{out}\n{err}"
    return out, err


def convert(capsys: Out, source: Path, *more: object, status: int = 0, folder: Path) -> tuple[str, str]:
    """A conversion to torch in NumPy; where it fails, the folder holds what it held before."""
    before = sorted(folder.iterdir())
    call = ["convert", source, "-o", folder / "out.safetensors", "--to", "torch", "--no-live", *more]
    out, err = run(capsys, *call, status=status)
    if status:
        assert sorted(folder.iterdir()) == before
        assert out == ""
    return out, err


def test_version_is_one_line(capsys: Out) -> None:
    assert run(capsys, "--version") == ("layoutx 0.1.0\n", "")


def test_version_loads_no_numpy() -> None:
    code = "import sys; from layoutx.cli import main; main(['--version']); print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["layoutx 0.1.0", "False"]


def test_python_m_layoutx_is_the_command_line() -> None:
    call = [sys.executable, "-m", "layoutx", "bogus"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("UsageError: there is no command 'bogus'")


@pytest.mark.parametrize("command", COMMANDS + LOOK + MODELS, ids=" ".join)
def test_every_command_has_help_with_an_example(command: list[str], capsys: Out) -> None:
    out, _ = run(capsys, *command, "--help")
    assert "example:\n  layoutx " in out
    assert "--json" in out


def test_the_commands_are_those_that_are_tested() -> None:
    """A new command has to be added to COMMANDS, and so to the tests of help."""

    def inner(found: Any) -> dict[str, Any]:
        return next((a.choices for a in found._actions if a.choices and isinstance(a.choices, dict)), {})

    names = [[name, *more] for name, sub in inner(parser()).items() for more in ([], *([n] for n in inner(sub)))]
    assert sorted(names) == sorted(COMMANDS + LOOK + MODELS)


def test_a_misspelt_option_is_told_what_it_may_mean(capsys: Out) -> None:
    _, said = run(capsys, "convert", "a.keras", "--to", "torch", "--materialize", status=2)
    assert said.splitlines()[:2] == ["UsageError: unrecognized arguments: --materialize", "  near it is --materialise"]
    assert "see layoutx convert --help" in said


def test_without_a_word_the_help_is_shown_and_nothing_was_done(capsys: Out) -> None:
    out, said = run(capsys, status=2)
    assert "diagnose" in out
    assert said == ""


def test_every_example_of_the_help_runs(capsys: Out, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(DIGITS, tmp_path)
    (tmp_path / "my_specs").mkdir()
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        out, _ = run(capsys, *command, "--help")
        example = out.split("example:\n  layoutx ")[1].split("\n")[0]
        run(capsys, *example.split())


def test_every_option_says_what_it_is_for(capsys: Out) -> None:
    for command in COMMANDS + LOOK + MODELS:
        out, _ = run(capsys, *command, "--help")
        assert not re.search(r"^  -\S+( \S+)?$\n(?!  {10})", out, re.M), out


def test_convert_says_the_answer_first(capsys: Out, tmp_path: Path) -> None:
    out, err = convert(capsys, DIGITS, folder=tmp_path)
    assert err == ""
    first = out.split("\n")[0]
    assert first == "digits.keras → out.safetensors: every layer computes the same; bit for bit, 1 tensor filled in."
    assert "its inputs come from flatten(conv2): rows h w c reordered to c h w" in out
    assert "num_batches_tracked does not exist in keras.BatchNormalization: set to 0" in out
    assert "12 of 12 source tensors used, 13 of 13 target keys written. Round trip bit-exact." in out
    assert "eps=0.001" in out
    assert max(map(len, out.split("\n"))) < 100
    assert "\x1b" not in out
    assert load_file(tmp_path / "out.safetensors")["dense1.weight"].shape == (48, 80)


def test_convert_keeps_the_order_on_demand(capsys: Out, tmp_path: Path) -> None:
    out, _ = convert(capsys, DIGITS, "--keep-order", folder=tmp_path)
    assert "its inputs come from flatten(conv2): h w c, order kept" in out


def test_a_dry_run_writes_nothing(capsys: Out, tmp_path: Path) -> None:
    out, _ = run(capsys, "convert", DIGITS, "--to", "torch", "--dry-run", "--no-live")
    assert "nothing written (dry run)" in out
    assert list(tmp_path.iterdir()) == []


def test_quiet_is_quiet(capsys: Out, tmp_path: Path) -> None:
    assert convert(capsys, DIGITS, "--quiet", folder=tmp_path) == ("", "")
    assert (tmp_path / "out.safetensors").is_file()


def test_convert_as_json(capsys: Out, tmp_path: Path) -> None:
    out, _ = convert(capsys, DIGITS, "--json", "--skip", "output", folder=tmp_path)
    found = json.loads(out)
    assert found["exactness"] == "fills"
    assert found["skipped"] == {"output": "left out by --skip"}
    assert found["tensors"] == {"used": 10, "of": 12}
    assert found["keys"] == {"written": 11, "of": 11, "unwritten": []}
    assert [x["name"] for x in found["layers"]] == ["conv1", "bn1", "conv2", "dense1"]
    assert found["layers"][0]["tensors"][0]["sources"] == {"kernel": "kh kw in out"}


def test_what_is_left_out_is_listed(capsys: Out, tmp_path: Path) -> None:
    out, _ = convert(capsys, DIGITS, "--only", "conv*", folder=tmp_path)
    assert "not in --only" in out
    assert "4 of 12 source tensors used" in out


def _rank(file: Any) -> None:
    del file["layers/dense/vars/0"]
    file["layers/dense/vars/0"] = np.ones((80, 48, 2), np.float32)


def _no_bias(file: Any) -> None:
    del file["layers/dense/vars/1"]


def _hidden(file: Any) -> None:
    del file["layers/dense/vars/1"]
    file["layers/dense/vars/1"] = np.ones(47, np.float32)


def _unknown(config: dict[str, Any]) -> None:
    for name in ("dense1", "conv1"):
        layer(config, name).update(class_name="Mystery", module="pkg", registered_name="pkg>Mystery")


def _mystery(file: Any) -> None:
    """The groups as Keras names them where conv1 and dense1 are of the class Mystery."""
    moves = {"conv2d": "mystery", "dense": "mystery_1", "conv2d_1": "conv2d", "dense_1": "dense"}
    for old, new in moves.items():
        file.move(f"layers/{old}", f"layers/{new}")


def _same(config: dict[str, Any]) -> None:
    return


@pytest.mark.parametrize(
    ("config", "weights", "texts"),
    [
        (_same, _rank, ["SizeError: ", "dense1", "(80, 48, 2)"]),
        (_same, _no_bias, ["Error: ", "dense1", "bias"]),
        (_same, _hidden, ["Error: ", "dense1", "47", "48"]),
        (_unknown, _mystery, ["3 layers cannot", "layer conv1", "--skip dense1", "--keep-order output"]),
    ],
    ids=["wrong rank", "missing bias", "mismatched size", "unknown layers"],
)
def test_a_bad_model_is_refused(config: Any, weights: Any, texts: list[str], capsys: Out, tmp_path: Path) -> None:
    source = edited(tmp_path / "bad.keras", config, weights)
    _, err = convert(capsys, source, status=1, folder=tmp_path)
    for text in texts:
        assert text in err


def test_unknown_layers_can_be_skipped(capsys: Out, tmp_path: Path) -> None:
    source = edited(tmp_path / "bad.keras", _unknown, _mystery)
    out, _ = convert(capsys, source, "--skip", "dense1", "--skip", "conv1", "--keep-order", "output", folder=tmp_path)
    assert "left out by --skip" in out


def test_an_unknown_layer_can_be_named(capsys: Out, tmp_path: Path) -> None:
    source = edited(tmp_path / "bad.keras", _unknown, _mystery)
    out, _ = convert(
        capsys, source, "--form", "dense1=keras.Dense", "--form", "conv1=keras.Conv2D", "--keep-order", folder=tmp_path
    )
    assert "12 of 12 source tensors used" in out


def test_a_truncated_file_is_refused(capsys: Out, tmp_path: Path) -> None:
    source = tmp_path / "cut.keras"
    source.write_bytes(DIGITS.read_bytes()[:5000])
    _, err = convert(capsys, source, status=1, folder=tmp_path)
    assert err.startswith("FileError: cut.keras is truncated\n  ")


def test_a_target_of_another_size_is_refused(capsys: Out, tmp_path: Path) -> None:
    convert(capsys, DIGITS, folder=tmp_path)
    tensors = load_file(tmp_path / "out.safetensors")
    tensors["dense1.weight"] = np.ones((47, 80), np.float32)
    tensors["dense1.bias"] = np.ones(47, np.float32)
    (tmp_path / "out.safetensors").unlink()
    save_file(tensors, tmp_path / "like.safetensors")
    _, err = convert(capsys, DIGITS, "--like", tmp_path / "like.safetensors", status=1, folder=tmp_path)
    assert "no place in the torch model fits dense1 (Dense)" in err
    assert "47" in err


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (
            ["--form", "conv1=keras.Conv2DD"],
            "no form is called 'keras.Conv2DD'\n  near it are keras.Conv2D",
        ),
        (["--form", "convx=keras.Conv2D"], "UsageError: --form names no layer: convx\n  the layers are conv1, bn1"),
        (["--form", "conv1"], "UsageError: --form takes NAME=VALUE, not 'conv1'"),
        (["--form", "a=b", "--form", "a=c"], "UsageError: --form a is given twice"),
        (["--to", "torchh"], "UsageError: no framework is called 'torchh'\n  near it is torch"),
        (["--to", "keras"], "UsageError: a conversion to keras needs the target model"),
        (["--skip", "nothing*"], "UsageError: no layer is called 'nothing*'"),
        (
            ["--allow", "everything"],
            "UsageError: everything cannot be allowed\n  allow rounds, conditional, modules or",
        ),
        (["--input-shape", "8,x"], "UsageError: whole numbers are meant, as in 28,28,1, not '8,x'"),
        (["--like", "no.such.module:build"], "UsageError: no.such.module:build cannot be imported"),
        (["--specs", "no/such/folder"], "UsageError: no/such/folder is not a folder of spec files"),
        (["--bogus"], "UsageError: unrecognized arguments: --bogus\n  see layoutx convert --help"),
        (["-o", "no/such/folder/x.safetensors"], "Error: "),
        (["-o", "x.unknown"], "UsageError: cannot tell from its ending what x.unknown should be"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_a_wrong_call_ends_with_2(more: list[str], text: str, capsys: Out, tmp_path: Path) -> None:
    _, err = convert(capsys, DIGITS, *more, status=2, folder=tmp_path)
    assert text in err


def test_no_output_is_a_wrong_call(capsys: Out) -> None:
    _, err = run(capsys, "convert", DIGITS, "--to", "torch", status=2)
    assert err == "UsageError: there is no output\n  name it with -o OUT, or use --dry-run to write nothing\n"


def test_an_output_without_a_name_is_a_wrong_call(capsys: Out) -> None:
    _, err = run(capsys, "convert", DIGITS, "--to", "torch", "-o", ".", status=2)
    assert "UsageError: " in err


def test_the_output_is_not_the_source(capsys: Out, tmp_path: Path) -> None:
    source = tmp_path / "out.safetensors"
    shutil.copy(DIGITS, source)
    before = source.read_bytes()
    _, err = convert(capsys, source, status=2, folder=tmp_path)
    assert "the output is the source itself" in err
    assert source.read_bytes() == before


def test_a_converted_file_is_not_converted_again(capsys: Out, tmp_path: Path) -> None:
    convert(capsys, DIGITS, folder=tmp_path)
    (tmp_path / "out.safetensors").rename(tmp_path / "once.safetensors")
    _, err = convert(capsys, tmp_path / "once.safetensors", status=1, folder=tmp_path)
    assert " ".join(err.split()).startswith(
        "ConversionError: once.safetensors already holds torch weights, made by layoutx from digits.keras (keras) "
        "it would become the same file again "
    )


def test_two_spec_files_for_one_kind_are_refused(capsys: Out, tmp_path: Path) -> None:
    specs = tmp_path / "specs"
    specs.mkdir()
    shutil.copy(ROOT / "specs" / "dense.yaml", specs / "mine.yaml")
    _, err = convert(capsys, DIGITS, "--specs", specs, status=1, folder=tmp_path)
    assert "two spec files describe the kind 'dense'" in err
    assert "mine.yaml" in err
    run(capsys, "specs", "check", specs, status=1)


def test_errors_are_json_where_json_is_asked(capsys: Out, tmp_path: Path) -> None:
    _, err = convert(capsys, DIGITS, "--form", "conv1=keras.Conv2DD", "--json", status=2, folder=tmp_path)
    assert json.loads(err)["error"]["type"] == "UsageError"
    source = edited(tmp_path / "bad.keras", _unknown, _mystery)
    _, err = convert(capsys, source, "--json", status=1, folder=tmp_path)
    found = json.loads(err)["error"]
    assert [p["type"] for p in found["problems"]] == ["ConversionError", "ConversionError", "ConversionError"]
    _, err = run(capsys, "convert", "--json", status=2)
    assert "required" in json.loads(err)["error"]["what"]


HOSTILE = [
    "\x1b[31mevil\x1b]0;title\x07",
    "[bold red]x[/]",
    "a\nb\rc",
    "\u202egnp.exe",
    "name \u001f",
    "é" * 300,
    ":smile:",
]


@pytest.mark.parametrize("name", HOSTILE, ids=[repr(name)[:12] for name in HOSTILE])
def test_a_hostile_name_steers_no_terminal(name: str, capsys: Out, tmp_path: Path) -> None:
    source = renamed(tmp_path / "hostile.keras", "conv1", "conv2d", name)
    refuses = not name.isprintable()  # a name of which something cannot be seen
    texts = [run(capsys, "inspect", source, status=int(refuses))]
    assert ("is refused" in texts[0][1]) is refuses
    found = main(["convert", str(source), "--to", "torch", "--dry-run", "--no-live"])
    assert found in (0, 1)
    texts.append(capsys.readouterr())
    unknown = {"class_name": name, "registered_name": f"p>{name}"}
    refused = edited(tmp_path / "unknown.keras", lambda c: layer(c, "conv1").update(unknown))
    texts.append(run(capsys, "convert", refused, "--to", "torch", "--dry-run", status=1))
    for out, err in texts:
        assert all(c.isprintable() or c == "\n" for c in out + err)
        assert max(map(len, out.split("\n"))) < 100
    if name == "[bold red]x[/]":
        assert name in texts[0][0]


def test_inspect(capsys: Out) -> None:
    out, _ = run(capsys, "inspect", DIGITS)
    assert re.search(r"^ +8  kernel \(h×w×c 80, output 48\) +3,840 +layers/dense/vars/0$", out, re.M)
    found = json.loads(run(capsys, "inspect", DIGITS, "--json")[0])
    assert found["parameters"] == 6726
    assert [x["name"] for x in found["layers"] if x["tensors"]] == ["conv1", "bn1", "conv2", "dense1", "output"]


def test_plan(capsys: Out) -> None:
    call = ["plan", "keras.LSTM", "torch.LSTM", "--size", "input=7", "--size", "hidden=5"]
    out, _ = run(capsys, *call)
    assert "kernel (input 7, gate×hidden 20)" in out
    assert "def convert(source):" in run(capsys, *call, "--code")[0]
    found = json.loads(run(capsys, *call, "--json")[0])
    assert found["exactness"] == "fills"
    assert found["target"]["tensors"]["weight_ih_l0"] == {"shape": [20, 7], "axes": ["gate×hidden", "input"]}


@pytest.mark.parametrize(
    ("call", "status", "text"),
    [
        ("keras.LSTM torch.LSTM --size inputt=7", 2, "did you mean input?"),
        ("keras.LSTM torch.LSTM --size input=x", 2, "--size input=x is no whole number"),
        ("keras.LSTM torch.LSTM --size hidden=5", 1, "nothing determines the size of input"),
        ("keras.LSTN torch.LSTM", 2, "near it are keras.LSTM"),
        ("keras.LSTM torch.GRU --size input=7 --size hidden=5", 1, "keras.LSTM is a lstm, torch.GRU a gru"),
        ("keras.GRU torch.GRU --size input=7 --size hidden=5 --config reset_after=false", 1, "reset is before"),
    ],
)
def test_a_plan_that_cannot_be(call: str, status: int, text: str, capsys: Out) -> None:
    out, err = run(capsys, "plan", *call.split(), status=status)
    assert out == ""
    assert text in err


def test_specs(capsys: Out, tmp_path: Path) -> None:
    out, _ = run(capsys, "specs")
    assert "keras.LSTM" in out
    assert "torch.LSTM" in out
    out, _ = run(capsys, "specs", "show", "lstm")
    assert "recurrent_kernel" in out
    assert "i f c o" in out
    assert "witnessed torch 2.13.0" in out
    assert max(map(len, out.split("\n"))) < 100
    assert json.loads(run(capsys, "specs", "--json")[0])["lstm"]["torch"][:2] == ["torch.LSTM", "torch.LSTMCell"]
    assert json.loads(run(capsys, "specs", "show", "keras.LSTM", "--json")[0])["kind"] == "lstm"
    assert "near it are lstm" in run(capsys, "specs", "show", "lstmm", status=2)[1]
    out, _ = run(capsys, "specs", "check", tmp_path)
    assert re.fullmatch(r"\d+ kinds, \d+ forms: no problems\n", out)


def test_a_gone_reader_is_no_error() -> None:
    code = "from layoutx.cli import main; import sys; sys.exit(main(['specs', 'show', 'lstm']))"
    done = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert done.stdout is not None
    done.stdout.close()
    _, err = done.communicate(timeout=300)
    assert err == b""
    assert done.returncode == 141


def test_an_interrupt_is_quiet(capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(sys.modules["layoutx.cli.options"].commands, "inspect", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs behind it
    try:
        assert run(capsys, "inspect", DIGITS, status=130) == ("", "")
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_plain_encoding_is_no_error() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    call = ["plan", "keras.Dense", "torch.Linear", "--size", "input=3", "--size", "output=2"]
    call = [sys.executable, "-m", "layoutx", *call]
    done = subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, check=True)
    assert b"\\u2192" in done.stdout


@pytest.mark.parametrize(("variables", "colour"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colour_is_for_terminals(variables: dict[str, str], colour: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from layoutx.cli import commands

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert commands._terminal()[1] is colour


@pytest.mark.parametrize(("call", "status"), [("specs show lstm", 0), ("--help", 0), ("specs show lstmm", 2)])
@pytest.mark.parametrize("streams", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(call: str, status: int, streams: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m layoutx {call} {streams}"], cwd=ROOT, capture_output=True
    )
    assert done.returncode == status
    assert b"Traceback" not in done.stderr


def test_wrong_calls_are_told_with_what_is_near_and_end_with_2(capsys: Out, tmp_path: Path) -> None:
    _, err = run(capsys, "conver", DIGITS, status=2)
    assert "there is no command 'conver'" in err
    assert "near it is convert" in err
    for jobs in ("0", "-3"):
        _, err = run(capsys, "verify", DIGITS, "--jobs", jobs, status=2)
        assert f"{jobs} threads cannot do anything" in err
    _, err = run(capsys, "convert", DIGITS, "--to", "jax", "--dry-run", status=2)
    assert "flax, nnx, haiku, equinox" in " ".join(err.split())
    _, err = run(capsys, "inspect", tmp_path, status=2)
    assert "is a folder" in err
    _, err = run(capsys, "convert", DIGITS, "--to", "torch", "--dry-run", "--map", tmp_path, status=2)
    assert "is no file" in err


def test_an_input_shape_that_contradicts_the_file_is_refused(capsys: Out) -> None:
    """The file's own was replaced by it, and all axes that are followed with it."""
    run(capsys, "inspect", DIGITS, "--input-shape", "8,8,1")
    for wrong in ("9,8,1", "8,8"):
        for command in (["inspect"], ["convert", "--to", "torch", "--dry-run"]):
            _, err = run(capsys, *command, DIGITS, "--input-shape", wrong, status=2)
            assert "contradicts the file" in err
            assert "(8, 8, 1)" in err
