"""A file checked later: from itself alone, against its source, and where certificate or file were meddled with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import layoutx as lx
from layoutx.cli import main
from layoutx.errors import ConversionError, FileError, UsageError
from layoutx.files import certified as certificates
from layoutx.files.certificate import KEY, certificate_of
from layoutx.files.open import open_store
from layoutx.files.save import save

DIGITS = Path(__file__).parents[1] / "examples" / "digits.keras"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("made") / "d.safetensors"
    lx.convert(DIGITS, path, to="torch", live=False)
    return path


def again(source: Path, output: Path, *, change=None, drop=(), metadata=None) -> Path:
    """The same file with other numbers, without tensors, or with another certificate."""
    store = open_store(source)
    arrays = {name: tensor.read().copy() for name, tensor in store.tensors.items() if name not in drop}
    for name, array in (change or {}).items():
        arrays[name] = array
    save(output, arrays, dict(store.metadata) if metadata is None else metadata)
    return output


def test_a_whole_file_is_whole_and_is_what_its_source_gives(made):
    alone = lx.verify_file(made)
    assert alone.ok
    assert set(alone.tensors.values()) == {"OK"}
    assert (alone.sources, alone.derived, alone.kind) == (None, None, "xxh3-128")
    found = lx.verify_file(made, DIGITS)
    assert found.ok
    assert (len(found.tensors), len(found.sources), len(found.derived)) == (13, 12, 13)
    assert "byte for byte" in str(found)


@pytest.mark.parametrize("ending", [".npz", ".pt", ".msgpack", ".pdparams"])
def test_any_format_is_checked_and_derived_again(ending, tmp_path):
    if ending == ".pt":
        pytest.importorskip("torch")
    lx.convert(DIGITS, tmp_path / f"d{ending}", to="torch", live=False)
    found = lx.verify_file(tmp_path / f"d{ending}", DIGITS)
    assert found.ok
    assert set(found.derived.values()) == {"OK"}


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "bf16", "allow": ["rounds"]},
        {"skip": ["dense1"]},
        {"only": ["conv*"]},
        {"keep_order": True},
        {"max_shard_size": "9kB"},
        {"checksum": "sha256"},
        {"verify": "none"},
    ],
    ids=str,
)
def test_what_the_user_said_is_said_again(options, tmp_path):
    lx.convert(DIGITS, tmp_path / "d.safetensors", to="torch", live=False, **options)
    found = lx.verify_file(tmp_path / "d.safetensors", DIGITS)
    assert found.ok, str(found)
    assert set(found.derived.values()) == {"OK"}


def test_every_other_way_to_lose_a_tensor_is_told_apart(made, tmp_path):
    bias = open_store(made).tensors["output.bias"].read().copy()
    bias.view(np.uint32)[3] ^= 1
    bad = again(made, tmp_path / "bad.safetensors", drop=["dense1.bias"],
                change={"output.bias": bias, "more": np.ones(3)})  # fmt: skip
    found = lx.verify_file(bad)
    assert not found.ok
    assert {name: one for name, one in found.tensors.items() if one != "OK"} == {
        "output.bias": "differs", "dense1.bias": "missing", "more": "extra",
    }  # fmt: skip
    assert "3 of 14 tensors differ from what was written" in str(found)


def test_another_dtype_or_shape_of_the_same_numbers_differs(made, tmp_path):
    array = open_store(made).tensors["dense1.weight"].read()
    for number, other in enumerate((array.astype("f8"), array.reshape(1, *array.shape))):
        bad = again(made, tmp_path / f"{number}.safetensors", change={"dense1.weight": other})
        assert lx.verify_file(bad).tensors["dense1.weight"] == "differs"


def test_another_source_is_told_apart(made, tmp_path):
    keras = pytest.importorskip("keras")
    model = keras.saving.load_model(DIGITS)
    weights = model.get_weights()
    weights[-1] = weights[-1] + 1
    model.set_weights(weights)
    model.save(tmp_path / "other.keras")
    found = lx.verify_file(made, tmp_path / "other.keras")
    assert not found.ok
    assert list(found.sources.values()).count("differs") == 1
    assert found.derived is None
    assert "not what it was made from" in str(found)


def test_a_forged_certificate_passes_alone_and_fails_against_the_source(made, tmp_path):
    """Whoever changes a number can write its hash into the certificate: that is why it is no signature."""
    from layoutx.files.hashes import hash_of

    bias = open_store(made).tensors["output.bias"].read() + 1
    about = certificate_of(open_store(made))
    about["hashes"]["tensors"]["output.bias"] = hash_of(bias)
    forged = again(made, tmp_path / "f.safetensors", change={"output.bias": bias},
                   metadata={KEY: json.dumps(about)})  # fmt: skip
    assert lx.verify_file(forged).ok
    found = lx.verify_file(forged, DIGITS)
    assert not found.ok
    assert found.derived["output.bias"] == "differs"
    assert set(found.sources.values()) == {"OK"}


def test_a_file_without_certificate_is_proved_by_its_source(made, tmp_path):
    bare = again(made, tmp_path / "bare.safetensors", metadata={})
    with pytest.raises(UsageError, match="has no certificate"):
        lx.verify_file(bare)
    with pytest.raises(UsageError, match="nothing says"):
        lx.verify_file(bare, DIGITS)
    found = lx.verify_file(bare, DIGITS, to="torch")
    assert found.ok
    assert (found.tensors, found.kind) == ({}, "")
    bad = again(bare, tmp_path / "bad.safetensors", change={"output.bias": np.ones(10, "f4")})
    assert [n for n, one in lx.verify_file(bad, DIGITS, to="torch").derived.items() if one != "OK"] == ["output.bias"]


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "7", nested(100_000), '{"hashes": 7}', '{"hashes": {"kind": []}}',
        '{"hashes": {"kind": "md5"}}', '{"hashes": {"kind": "xxh3-128", "tensors": 3}}',
        '{"hashes": {"kind": "xxh3-128", "tensors": {"a": NaN}}}',
        '{"hashes": {"kind": "xxh3-128", "tensors": {"a": "0"}}}',
        '{"hashes": {"kind": "xxh3-128", "tensors": {"\\u001b[31m": {"b": {}}}}}',
        '{"hashes": {"kind": "xxh3-128", "tensors": {"many": 99999999999, "names": "", "packed": "00"}}}',
        '{"hashes": {"kind": "xxh3-128", "tensors": {"many": 1, "names": 3, "packed": "' + "0" * 32 + '"}}}',
        '{"hashes": {"kind": "xxh3-128", "tensors": {}, "sources": []}}',
        '{"x": ' + "9" * 5000 + "}",
    ],
    ids=lambda text: text[:60].replace("/", "_"),
)  # fmt: skip
def test_a_malformed_certificate_is_one_clear_error(text, tmp_path, capsys):
    save(tmp_path / "m.safetensors", {"a": np.arange(3.0)}, {KEY: text})
    with pytest.raises((FileError, UsageError), match=r"certificate of m\.safetensors"):
        lx.verify_file(tmp_path / "m.safetensors")
    assert main(["verify", str(tmp_path / "m.safetensors")]) in (1, 2)
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        7, [], {"skip": "x"}, {"skip": [3]}, {"forms": []}, {"forms": {"a": 3}}, {"allow": ["everything"]},
        {"input_shape": [-1]}, {"input_shape": 3}, {"dtype": 3}, {"dtype": "f3"}, {"from": ["x"]}, {"from": "nobody"},
        {"values": 3},
    ],
    ids=str,
)  # fmt: skip
def test_malformed_options_are_one_clear_error(made, options, tmp_path):
    about = {**certificate_of(open_store(made)), "options": options}
    bad = again(made, tmp_path / "m.safetensors", metadata={KEY: json.dumps(about)})
    assert main(["verify", str(bad), "--source", str(DIGITS)]) in (1, 2)


def test_names_and_texts_of_a_stranger_cannot_steer_the_terminal(tmp_path):
    about = {"layoutx": "\x1b[2J", "source": {"file": "\x1b[31m" * 9, "framework": ["x"]}, "target": {"a": 1}}
    hashes = certificates.hashed("xxh3-128", {"\x1b]0;x\x07": "0" * 32, "a": "1" * 32})
    save(tmp_path / "m.safetensors", {"a": np.arange(3.0)}, {KEY: json.dumps({**about, **hashes})})
    found = lx.verify_file(tmp_path / "m.safetensors")
    assert not found.ok
    assert "\x1b" not in found.text(99, False)
    assert max(map(len, found.text(99).splitlines())) <= 99


def test_the_same_conversion_again_is_recognised_and_gives_the_same_bytes(tmp_path):
    out = tmp_path / "d.safetensors"
    first = lx.convert(DIGITS, out, to="torch", live=False)
    before = out.read_bytes()
    second = lx.convert(DIGITS, out, to="torch", live=False)
    assert (first.again, second.again) == (False, True)
    assert out.read_bytes() == before
    assert "was this very conversion already" in str(second)
    assert second.to_dict()["again"] is True
    third = lx.convert(DIGITS, out, to="torch", live=False, dtype="f64")
    assert not third.again


def test_the_way_back_is_recognised_and_compared_with_the_original(made, tmp_path):
    report = lx.convert(made, tmp_path / "b.keras", to="keras", like=DIGITS, live=False)
    assert (report.back.file, report.back.same, report.back.many) == ("digits.keras", 12, 12)
    assert "its own again, bit for bit" in " ".join(str(report).split())
    assert report.to_dict()["back"]["same"] == 12


def test_a_way_back_that_lost_digits_names_what_is_not_the_same(tmp_path):
    lx.convert(DIGITS, tmp_path / "h.safetensors", to="torch", live=False, dtype="bf16", allow=["rounds"])
    report = lx.convert(tmp_path / "h.safetensors", tmp_path / "b.keras", to="keras", like=DIGITS, live=False)
    assert report.back.many == 12
    assert 0 < len(report.back.differ) == 12 - report.back.same
    assert set(report.back.differ) <= set(open_store(DIGITS).tensors)
    assert "are not its own again" in " ".join(str(report).split())


def test_what_the_certificate_says_is_not_read_as_something_else(made, tmp_path):
    with pytest.raises(ConversionError, match="already holds torch"):
        lx.convert(made, tmp_path / "x.safetensors", to="torch")
    for source in (made, str(made)):
        with pytest.raises(ConversionError, match="not flax"):
            lx.convert(source, tmp_path / "x.keras", to="keras", like=DIGITS, from_="flax")
    with pytest.raises(ConversionError, match="not mlx"):
        lx.transfer(made, made, tmp_path / "x.safetensors", from_="mlx")


def test_a_transfer_says_its_hashes(made, tmp_path):
    lx.transfer(DIGITS, made, tmp_path / "t.safetensors")
    found = lx.verify_file(tmp_path / "t.safetensors")
    assert found.ok
    other = lx.verify_file(tmp_path / "t.safetensors", DIGITS)
    assert set(other.sources.values()) == {"OK"}
    assert "transfer" in other.underived
    assert not other.ok


def test_the_command(made, tmp_path, capsys):
    assert main(["verify", str(made), "--source", str(DIGITS), "--json", "--jobs", "1"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["ok"], set(said["tensors"].values()), said["made"]["target"]) == (True, {"OK"}, "torch")
    bad = again(made, tmp_path / "bad.safetensors", drop=["dense1.bias"])
    assert main(["verify", str(bad)]) == 1
    assert "missing" in capsys.readouterr().out
    assert main(["verify", str(DIGITS)]) == 2
    assert "--source" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a process's memory so")
def test_memory_does_not_grow_with_the_file(tmp_path):
    """140 MB in two tensors; what a Python with NumPy takes is no part of the question."""
    from layoutx.files.certified import of_arrays

    arrays = {"a": np.arange(25 << 20, dtype=np.float32), "b": np.ones((2, 5 << 20), np.float32)}
    save(tmp_path / "big.safetensors", arrays, {KEY: json.dumps(of_arrays(arrays))})
    script = (
        "import sys; from layoutx.cli import main; status = main(['verify', sys.argv[1]]);"
        "print(*[line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')]); sys.exit(status)"
    )
    call = [sys.executable, "-c", script, str(tmp_path / "big.safetensors")]
    done = subprocess.run(call, capture_output=True, text=True, check=True, cwd=DIGITS.parents[1])
    assert int(done.stdout.split()[-1]) <= 80 << 10
