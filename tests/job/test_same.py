"""A checkpoint made anew for its own framework: names and numbers stay, the dtype, the shards and the file may not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

import layoutx as lx
from layoutx.cli import main
from layoutx.errors import ConversionError, UsageError
from layoutx.files.open import open_store

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 7, 5), torch.nn.LSTM(5, 11, num_layers=2), torch.nn.Linear(13, 17))
    return {**layers.state_dict(), "nobody.knows": torch.arange(19), "head.odd": torch.randn(2, 3, 5, 7, 11)}


def unchanged(made: Path, state: dict[str, torch.Tensor], dtype: torch.dtype | None = None) -> None:
    found = open_store(made).tensors
    assert set(found) == set(state)
    for name, tensor in state.items():
        want = tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
        raw = found[name].read()
        assert raw.tobytes() == want.contiguous().view(torch.uint8).numpy().tobytes(), name
        assert raw.shape == tuple(want.shape)


@pytest.mark.parametrize("ending", [".safetensors", ".npz", ".dcp", ".pth"])
def test_every_tensor_stays_whatever_it_is(state, tmp_path: Path, ending: str) -> None:
    torch.save(state, tmp_path / "m.pt")
    report = lx.convert(tmp_path / "m.pt", tmp_path / f"out{ending}", to="torch")
    unchanged(tmp_path / f"out{ending}", state)
    assert (report.exactness, report.kept, report.keys_written) == ("moves", 14, 14)
    assert "14 tensors under their own names; every number moved bit for bit" in str(report)
    assert lx.verify_file(tmp_path / f"out{ending}", tmp_path / "m.pt").ok


def test_shards_of_another_dtype_and_back_to_one_file(state, tmp_path: Path) -> None:
    safetensors.save_file(state, tmp_path / "m.safetensors", metadata={"format": "pt"})
    options = {"to": "torch", "dtype": "bf16", "max_shard_size": "2KB"}
    report = lx.convert(tmp_path / "m.safetensors", tmp_path / "b.safetensors", **options)
    index = tmp_path / "b.safetensors.index.json"
    unchanged(index, state, torch.bfloat16)
    assert report.exactness == "rounds"
    assert report.shards == len(set(json.loads(index.read_text())["weight_map"].values())) > 2
    assert "head.odd" in report.rounded
    assert "nobody.knows" not in report.rounded
    assert "not reversible: rounded" in report.round_trip
    assert lx.verify_file(index, tmp_path / "m.safetensors").ok
    lx.convert(index, tmp_path / "one.safetensors", to="torch")
    unchanged(tmp_path / "one.safetensors", state, torch.bfloat16)


def test_a_forged_tensor_is_found(state, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "m.pt")
    lx.convert(tmp_path / "m.pt", tmp_path / "out.safetensors", to="torch")
    with torch.no_grad():
        state["2.weight"][5, 3] += 1
    torch.save(state, tmp_path / "n.pt")
    found = lx.verify_file(tmp_path / "out.safetensors", tmp_path / "n.pt")
    assert not found.ok
    assert found.sources["2.weight"] == "differs"


def test_who_does_not_say_whose_names_it_holds_is_asked(state, tmp_path: Path) -> None:
    """A file of mlx or flax looks the same, and its convolutions lie otherwise: no copy of it is one of torch."""
    safetensors.save_file(state, tmp_path / "m.safetensors")
    with pytest.raises(UsageError, match="it does not say whose they are") as error:
        lx.convert(tmp_path / "m.safetensors", tmp_path / "out.pt", to="torch")
    assert "--from torch" in str(error.value)
    lx.convert(tmp_path / "m.safetensors", tmp_path / "out.pt", to="torch", from_="torch")
    unchanged(tmp_path / "out.pt", state)


def test_a_file_of_mlx_says_so(tmp_path: Path) -> None:
    """Its label is that of mlx_lm: a convolution lies otherwise than torch's, and was read as one."""
    weight = torch.randn(7, 5, 5, 3)
    safetensors.save_file({"conv.weight": weight}, tmp_path / "m.safetensors", metadata={"format": "mlx"})
    lx.convert(tmp_path / "m.safetensors", tmp_path / "t.safetensors", to="torch", forms={"conv": "mlx.Conv2d"})
    made = safetensors.load_file(tmp_path / "t.safetensors")["conv.weight"]
    assert torch.equal(made, weight.permute(0, 3, 1, 2))


def test_the_same_file_again_is_refused(state, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "m.pt")
    with pytest.raises(UsageError, match="already holds names of torch") as error:
        lx.convert(tmp_path / "m.pt", tmp_path / "n.pt", to="torch")
    assert "--dtype" in str(error.value)
    lx.convert(tmp_path / "m.pt", tmp_path / "n.safetensors", to="torch")
    with pytest.raises(ConversionError, match="already holds torch weights"):
        lx.convert(tmp_path / "n.safetensors", tmp_path / "o.safetensors", to="torch")


def test_tensors_and_modules_are_chosen(state, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "m.pt")
    report = lx.convert(tmp_path / "m.pt", tmp_path / "o.pt", to="torch", only=["1", "head"], skip=["*_hh_*"])
    assert set(open_store(tmp_path / "o.pt").tensors) == {
        *("1.weight_ih_l0", "1.bias_ih_l0", "1.weight_ih_l1", "1.bias_ih_l1", "head.odd")
    }
    assert report.skipped["1.bias_hh_l0"] == "left out by --skip"
    assert report.skipped["2.weight"] == "not in --only"
    with pytest.raises(UsageError, match="no tensor or module is called 'tail'"):
        lx.convert(tmp_path / "m.pt", tmp_path / "o.pt", to="torch", skip=["tail"])
    with pytest.raises(UsageError, match="--form changes nothing here"):
        lx.convert(tmp_path / "m.pt", tmp_path / "o.npz", to="torch", forms={"1": "torch.LSTM"})


def test_weights_in_parts_stay_so_until_they_are_asked_for(tmp_path: Path) -> None:
    layer = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(5, 7))
    torch.save(torch.nn.Sequential(layer).state_dict(), tmp_path / "m.pt")
    lx.convert(tmp_path / "m.pt", tmp_path / "o.safetensors", to="torch")
    unchanged(tmp_path / "o.safetensors", torch.load(tmp_path / "m.pt"))
    report = lx.convert(tmp_path / "m.pt", tmp_path / "p.pt", to="torch", materialise=True)
    assert report.exactness == "rounds"
    made = torch.load(tmp_path / "p.pt")
    assert set(made) == {"0.weight", "0.bias"}
    assert torch.allclose(made["0.weight"], layer.weight, atol=1e-6)


def test_trees_of_flax_keep_their_collections(tmp_path: Path) -> None:
    serialization = pytest.importorskip("flax.serialization")
    rng = np.random.default_rng(5)
    tree = {"params": {"a": {"kernel": rng.standard_normal((5, 7))}}, "batch_stats": {"n": {"mean": np.arange(3.0)}}}
    (tmp_path / "m.msgpack").write_bytes(serialization.msgpack_serialize(tree))
    lx.convert(tmp_path / "m.msgpack", tmp_path / "o.safetensors", to="flax")
    lx.convert(tmp_path / "o.safetensors", tmp_path / "n.msgpack", to="flax")
    back = serialization.msgpack_restore((tmp_path / "n.msgpack").read_bytes())
    np.testing.assert_array_equal(back["params"]["a"]["kernel"], tree["params"]["a"]["kernel"])
    np.testing.assert_array_equal(back["batch_stats"]["n"]["mean"], tree["batch_stats"]["n"]["mean"])


def test_what_transformers_reads_first_is_in_every_file(state, tmp_path: Path) -> None:
    """transformers 4 refuses a file with metadata that lacks it: "does not contain the valid metadata"."""
    torch.save(state, tmp_path / "m.pt")
    lx.convert(tmp_path / "m.pt", tmp_path / "o.safetensors", to="torch", max_shard_size="2KB")
    lx.convert(tmp_path / "m.pt", tmp_path / "p.safetensors", to="torch")
    for path in [*tmp_path.glob("o-*.safetensors"), tmp_path / "p.safetensors"]:
        with safetensors.safe_open(path, "pt") as file:
            assert file.metadata()["format"] == "pt", path.name


def test_a_dry_run_looks_at_the_place_and_the_format(state, tmp_path: Path, capsys) -> None:
    torch.save(state, tmp_path / "m.pt")
    call = ["convert", str(tmp_path / "m.pt"), "--to", "torch", "--dtype", "bf16", "--dry-run", "-o"]
    assert main([*call, str(tmp_path / "none" / "o.safetensors")]) == 2
    assert "there is no folder for o.safetensors" in capsys.readouterr().err
    assert main([*call, str(tmp_path / "o.npz"), "--max-shard-size", "2KB"]) == 2
    assert main([*call, str(tmp_path / "o.safetensors"), "--max-shard-size", "2KB"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "nothing written (dry run)" in told
    assert "14 of 14 target keys made, none written" in told
    assert "shards" in told
    assert [one.name for one in tmp_path.iterdir()] == ["m.pt"]


def stopped_after(many: int):
    def told(done: int, of: int, what: str) -> None:
        if "is done" in what and done >= many:
            raise KeyboardInterrupt

    return told


@pytest.mark.parametrize("kind", ["pt", "npz", "bin", "live"])
def test_shards_of_a_source_that_changed_since_are_made_anew(tmp_path: Path, kind: str) -> None:
    """No tensor of these says where it lies: with the file as it is now, shards of the old one were taken over."""
    states = [{f"{i}.weight": torch.randn(29, 31) for i in range(5)} for _ in range(2)]
    source = tmp_path / {"pt": "m.pt", "npz": "m.npz", "bin": "m.bin.index.json", "live": ""}[kind]

    def saved(state: dict[str, torch.Tensor]) -> object:
        if kind == "live":
            layers = torch.nn.Sequential(*(torch.nn.Linear(31, 29, bias=False) for _ in range(5)))
            layers.load_state_dict(state)
            return layers
        if kind == "npz":
            np.savez_compressed(source, **{name: value.numpy() for name, value in state.items()})
        elif kind == "bin":
            torch.save(state, tmp_path / "m-1.bin")
            source.write_text(json.dumps({"weight_map": dict.fromkeys(state, "m-1.bin")}))
        else:
            torch.save(state, source)
        return source

    options = {"to": "flax" if kind == "live" else "torch", "from_": "torch", "max_shard_size": "5KB", "live": False}
    for state in states:
        with pytest.raises(KeyboardInterrupt):
            lx.convert(saved(state), tmp_path / "o.safetensors", progress=stopped_after(2), **options)
    report = lx.convert(saved(states[0]), tmp_path / "o.safetensors", resume=True, **options)
    made = {name: tensor.read() for name, tensor in open_store(tmp_path / "o.safetensors.index.json").tensors.items()}
    for name, (array, value) in enumerate(zip(made.values(), states[0].values(), strict=True)):
        np.testing.assert_array_equal(array.T if kind == "live" else array, value.numpy(), str(name))
    assert report.there == 0
    assert "0 of 5 shards taken over" in str(report)


def test_what_a_stopped_run_finished_is_counted(state, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "m.pt")
    options = {"to": "torch", "max_shard_size": "2KB"}
    with pytest.raises(KeyboardInterrupt):
        lx.convert(tmp_path / "m.pt", tmp_path / "o.safetensors", progress=stopped_after(2), **options)
    report = lx.convert(tmp_path / "m.pt", tmp_path / "o.safetensors", resume=True, **options)
    unchanged(tmp_path / "o.safetensors.index.json", state)
    assert report.there >= 2
    assert f"{report.there} of {report.shards} shards taken over" in str(report)


def test_shards_that_torch_saved(state, tmp_path: Path) -> None:
    """pytorch_model.bin.index.json, as transformers wrote it before safetensors; tied names within a shard are told."""
    state["1.tied"] = state["2.weight"]
    places = {name: f"m-0000{1 + (name[0] in '12')}-of-00002.pth" for name in state}
    for file in set(places.values()):
        torch.save({name: state[name] for name in state if places[name] == file}, tmp_path / file)
    (tmp_path / "m.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    report = lx.convert(tmp_path / "m.bin.index.json", tmp_path / "o.safetensors", to="torch")
    unchanged(tmp_path / "o.safetensors", state)
    assert report.source["bytes"] > sum(value.nbytes for value in state.values())
    assert "2.weight" in open_store(tmp_path).metadata["checkpoint:tied"]
    with pytest.raises(UsageError, match="the output is a file of the source itself"):
        lx.convert(tmp_path / "m.bin.index.json", tmp_path / "m-00001-of-00002.pth", to="torch")


def test_an_exported_program_is_verified_against(tmp_path: Path) -> None:
    """Its tensors lie in a zip, as views of their storages: `verify --source` ended in a ValueError."""
    layer = torch.nn.Linear(5, 7)
    torch.export.save(torch.export.export(torch.nn.Sequential(layer), (torch.ones(3, 5),)), tmp_path / "m.pt2")
    lx.convert(tmp_path / "m.pt2", tmp_path / "o.safetensors", to="torch")
    assert lx.verify_file(tmp_path / "o.safetensors", tmp_path / "m.pt2").ok


def test_the_certificate_knows_every_shard_of_the_source(state, tmp_path: Path) -> None:
    """The index alone was hashed: it names tensors and files, and none of their bytes."""
    torch.save(state, tmp_path / "m.pt")
    lx.convert(tmp_path / "m.pt", tmp_path / "a.safetensors", to="torch", max_shard_size="2KB")
    index = tmp_path / "a.safetensors.index.json"
    lx.convert(index, tmp_path / "b.safetensors", to="torch")
    about = json.loads(open_store(tmp_path / "b.safetensors").metadata["layoutx"])["source"]
    assert about["sha256"] == hashlib.sha256(index.read_bytes()).hexdigest()
    shards = sorted(tmp_path.glob("a-*.safetensors"))
    assert about["files"] == {
        one.name: {"bytes": one.stat().st_size, "sha256": hashlib.sha256(one.read_bytes()).hexdigest()}
        for one in shards
    }
    assert f"and {len(shards)} files that it names" in " ".join(str(lx.inspect(tmp_path / "b.safetensors")).split())
