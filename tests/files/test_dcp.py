"""Torch distributed checkpoints: chunks of all ranks put together, nothing of a file run, folders replaced whole."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tricky import same_bits, tricky_arrays

import layoutx as lx
import layoutx.files.save as save_module
from layoutx.cli import main
from layoutx.errors import FileError, LayoutxError, UsageError
from layoutx.files import atomic
from layoutx.files.dcp_dir import SKIPPED
from layoutx.files.dcp_metadata import KNOWN, METADATA
from layoutx.files.open import open_store
from layoutx.files.save import can_write, save

torch = pytest.importorskip("torch")
dcp = pytest.importorskip("torch.distributed.checkpoint")

ROOT = Path(__file__).resolve().parents[2]
FORGED: list[str] = []


def saved(folder: Path, state: dict) -> Path:
    """A checkpoint as torch itself saves it in one process."""
    with pytest.warns(UserWarning, match="single process"):
        dcp.save(state, checkpoint_id=folder, no_dist=True)
    return folder


def trained():
    """A model and an optimizer that took a step; biases and statistics are no longer what they began as."""
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.BatchNorm1d(7), torch.nn.Linear(7, 7)).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model(torch.randn(11, 5, dtype=torch.float64)).square().sum().backward()
    optimizer.step()
    return model, optimizer


def told(folder: Path) -> tuple[list[str], dict[str, str]]:
    """The names of a checkpoint's tensors, and what is left out of it."""
    store = open_store(folder)
    return list(store.tensors), json.loads(store.metadata.get(SKIPPED, "{}"))


def test_a_trainers_checkpoint_is_its_model(tmp_path):
    from torch.distributed.checkpoint.state_dict import get_state_dict

    model, optimizer = trained()
    weights, moments = get_state_dict(model, optimizer)
    saved(tmp_path / "c", {"model": weights, "optim": moments, "step": 3, "seen": torch.tensor(17)})
    store = open_store(tmp_path / "c")
    assert (store.format, store.metadata["torch:state"]) == ("dcp", "model")
    assert list(store.tensors) == list(model.state_dict())
    for name, value in model.state_dict().items():
        same_bits(store.tensors[name].read(), value.numpy())
    _, left_out = told(tmp_path / "c")
    assert left_out["optim.state.0.weight.exp_avg"] == left_out["optim.param_groups.0.lr"] == "optimizer state"
    assert left_out["step"] == "no numbers: pickled bytes"
    assert left_out["seen"].startswith("not in the model's state")
    seen = lx.inspect(tmp_path / "c")
    assert seen.leftover["optim.state.0.weight.exp_avg"] == "optimizer state"


@pytest.mark.parametrize(
    ("state", "names"),
    [
        (
            {"model.0.weight": 1, "model.0.bias": 1, "lm_head.weight": 1},
            ["model.0.weight", "model.0.bias", "lm_head.weight"],
        ),
        ({"net": {"0.weight": 1}, "head": {"weight": 1}}, ["net.0.weight", "head.weight"]),
        ({"state_dict": {"a": {"weight": 1}}, "ema": {"a": {"weight": 1}}}, ["a.weight"]),
        ({"a.weight": 1, "optimizer": {"state": {"a.weight": {"exp_avg": 1}}}}, ["a.weight"]),
        ({"a.weight": 1, "optimizer.state.exp_avg.a.weight": 1}, ["a.weight"]),
        ({"a.weight": 1, "lr_scheduler": {"base": 1}}, ["a.weight"]),
        ({"blocks": [{"weight": 1}, {"weight": 1}]}, ["blocks.0.weight", "blocks.1.weight"]),
    ],
)
def test_where_the_model_is(tmp_path, state, names):
    def filled(tree):
        if isinstance(tree, dict):
            return {key: filled(value) for key, value in tree.items()}
        return [filled(value) for value in tree] if isinstance(tree, list) else torch.randn(3)

    found, left_out = told(saved(tmp_path / "c", filled(state)))
    assert found == names
    assert all(
        why in ("optimizer state", "state of the training") or "under state_dict" in why for why in left_out.values()
    )


def test_an_optimizer_alone_holds_no_weights(tmp_path):
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    saved(tmp_path / "c", get_optimizer_state_dict(*trained()))
    with pytest.raises(FileError, match="no weights") as caught:
        open_store(tmp_path / "c")
    assert "optimizer state" in str(caught.value)


def test_every_bit_and_the_metadata_survive(tmp_path):
    arrays, notes = tricky_arrays(), {"layoutx": '{"source": "snö"}', "author": "näme"}
    save(tmp_path / "x.dcp", arrays, notes)
    store = open_store(tmp_path / "x.dcp")
    assert list(store.tensors) == list(arrays)
    for name, want in arrays.items():
        same_bits(store.tensors[name].read(), want)
    assert dict(store.metadata) == notes
    assert os.listdir(tmp_path) == ["x.dcp"]
    save(tmp_path / "y.dcp", arrays, notes)
    assert {p.name: p.read_bytes() for p in (tmp_path / "x.dcp").iterdir()} == {
        p.name: p.read_bytes() for p in (tmp_path / "y.dcp").iterdir()
    }


def test_torch_loads_what_is_written(tmp_path):
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    model, _ = trained()
    arrays = {name: value.numpy() for name, value in model.state_dict().items()}
    save(tmp_path / "x.dcp", arrays, {})
    other = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.BatchNorm1d(7), torch.nn.Linear(7, 7)).double()
    state = other.state_dict()
    with pytest.warns(UserWarning, match="single process"):
        dcp.load(state, checkpoint_id=tmp_path / "x.dcp", no_dist=True)
    x = torch.randn(3, 5, dtype=torch.float64)
    assert not torch.equal(model.eval()(x), torch.zeros(3, 7, dtype=torch.float64))
    assert torch.equal(model(x), other.eval()(x))
    dcp_to_torch_save(tmp_path / "x.dcp", tmp_path / "x.pt")
    assert list(torch.load(tmp_path / "x.pt", weights_only=True)) == list(arrays)


def test_names_are_read_without_torch(tmp_path):
    save(tmp_path / "x.dcp", {"a.weight": np.ones((3, 5))}, {})
    code = f"""
import sys
sys.modules["torch"] = None
from layoutx.files.open import open_store
print(open_store({str(tmp_path / "x.dcp")!r}).tensors["a.weight"].shape)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(3, 5)"


# ── what a forged file may try ──


def forge():
    FORGED.append("ran")


class Runs:
    """Code in a pickle: torch's own reader would run it."""

    def __reduce__(self):
        return forge, ()


def rewritten(folder: Path, change) -> Path:
    """A checkpoint whose metadata was changed after it was saved."""
    path = saved(folder, {"w": torch.randn(5, 7)}) / METADATA
    about = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps(change(about) or about))
    return folder


def place_of(about):
    return next(iter(about.storage_data.values()))


def chunk_of(about):
    return about.state_dict_metadata["w"].chunks[0]


def test_code_in_the_metadata_does_not_run(tmp_path):
    def hidden(about):
        about.planner_data = {"w": ("w",), "evil": Runs()}

    for change in (hidden, lambda about: Runs()):
        folder = rewritten(tmp_path / change.__name__.strip("<>"), change)
        FORGED.clear()
        with pytest.raises(FileError, match="more than descriptions"):
            open_store(folder)
        assert FORGED == []
        pickle.loads((folder / METADATA).read_bytes())
        assert FORGED == ["ran"], "the file is harmless: the test shows nothing"
    (folder / METADATA).write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    with pytest.raises(FileError, match="more than descriptions"):
        open_store(folder)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda m: setattr(place_of(m), "relative_path", "../secret"), "outside of the folder"),
        (lambda m: setattr(place_of(m), "relative_path", "__7_0.distcp"), "1 of the 1 data files"),
        (lambda m: setattr(place_of(m), "length", 10**9), "truncated"),
        (lambda m: setattr(place_of(m), "relative_path", ["x"]), "a list where a text"),
        (lambda m: setattr(place_of(m), "offset", -1), "no numbers"),
        (lambda m: setattr(chunk_of(m), "sizes", torch.Size([5, 8])), "outside of its shape"),
        (lambda m: setattr(chunk_of(m), "sizes", torch.Size([5, 3])), "do not fill"),
        (lambda m: setattr(m, "storage_data", {}), "no file holds"),
        (lambda m: setattr(m, "state_dict_metadata", None), "cannot read"),
        (lambda m: {"w": 1}, "no Metadata"),
    ],
)
def test_metadata_that_does_not_fit_says_so(tmp_path, change, word):
    (tmp_path / "secret").write_bytes(b"x" * 10_000)
    folder = rewritten(tmp_path / "c", change)
    with pytest.raises(FileError, match=word):
        open_store(folder)


def test_code_in_a_chunk_does_not_run(tmp_path):
    folder = saved(tmp_path / "c", {"w": torch.randn(5, 7)})
    data = io.BytesIO()
    torch.save(Runs(), data)
    size = (folder / "__0_0.distcp").stat().st_size
    FORGED.clear()
    assert len(data.getvalue()) <= size
    rewrite = data.getvalue()
    about = pickle.loads((folder / METADATA).read_bytes())
    place_of(about).length = len(rewrite)
    (folder / METADATA).write_bytes(pickle.dumps(about))
    (folder / "__0_0.distcp").write_bytes(rewrite)
    with pytest.raises(FileError):
        open_store(folder).tensors["w"].read()
    assert FORGED == []


def test_fuzz_gives_file_errors_only(tmp_path):
    folder = saved(tmp_path / "c", {"model": {"w": torch.randn(5, 7), "b": torch.randn(7)}, "step": 3})
    raw, rng, failed = (folder / METADATA).read_bytes(), np.random.default_rng(0), 0
    for _ in range(400):
        damaged = bytearray(raw[: rng.integers(1, len(raw))] if rng.random() < 0.3 else raw)
        for _ in range(rng.choice([1, 1, 3, 10])):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        (folder / METADATA).write_bytes(damaged)
        try:
            for tensor in open_store(folder).tensors.values():
                found = tensor.read()
                assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
        except FileError:
            failed += 1
        except LayoutxError as error:
            pytest.fail(f"{type(error).__name__}: {error}")
    assert failed > 100


def test_metadata_of_each_rank_alone_is_refused(tmp_path):
    folder = saved(tmp_path / "c", {"w": torch.randn(5, 7)})
    (folder / METADATA).rename(folder / f"__0{METADATA}")
    with pytest.raises(FileError, match="metadata for each rank"):
        open_store(folder)


# ── a folder as an output ──


def test_only_a_checkpoint_of_ours_is_replaced(tmp_path):
    path = tmp_path / "x.dcp"
    save(path, {"w": np.arange(3.0)}, {})
    save(path, {"w": np.arange(5.0)}, {})
    assert open_store(path).tensors["w"].shape == (5,)
    foreign = saved(tmp_path / "foreign.dcp", {"w": torch.randn(3)})
    with pytest.raises(UsageError, match="something else"):
        can_write(foreign)
    (tmp_path / "full.dcp").mkdir()
    (tmp_path / "full.dcp" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="something else"):
        save(tmp_path / "full.dcp", {"w": np.arange(3.0)}, {})
    (tmp_path / "file.dcp").write_text("mine")
    with pytest.raises(UsageError, match="is a file"):
        save(tmp_path / "file.dcp", {"w": np.arange(3.0)}, {})
    (tmp_path / "empty.dcp").mkdir()
    save(tmp_path / "empty.dcp", {"w": np.arange(3.0)}, {})
    assert open_store(tmp_path / "empty.dcp").tensors["w"].shape == (3,)


@pytest.mark.parametrize("moment", ["verify", "swap", "rename"])
def test_a_failure_leaves_the_old_checkpoint(tmp_path, monkeypatch, moment):
    path = tmp_path / "x.dcp"
    save(path, {"w": np.arange(3.0)}, {})
    before = {p.name: p.read_bytes() for p in path.iterdir()}

    def stopped(*_):
        raise KeyboardInterrupt

    if moment == "verify":
        monkeypatch.setattr(save_module, "verify", stopped)
    elif moment == "swap":
        monkeypatch.setattr(atomic, "swap", stopped)
    else:
        rename, failed = os.rename, []
        monkeypatch.setattr(atomic, "swap", lambda *_: False)  # the old one is moved aside, as where nothing swaps
        monkeypatch.setattr(
            os, "rename", lambda a, b: rename(a, b) if failed or Path(b) != path else failed.append(b) or stopped()
        )
    with pytest.raises(KeyboardInterrupt):
        save(path, {"w": np.arange(5.0)}, {})
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in path.iterdir()} == before
    assert os.listdir(tmp_path) == ["x.dcp"]


def test_a_damaged_result_does_not_appear(tmp_path, monkeypatch):
    from layoutx.files import dcp_dir

    write = dcp_dir.write_dcp
    monkeypatch.setattr(
        dcp_dir, "write_dcp", lambda at, arrays, notes: write(at, {n: a + 1 for n, a in arrays.items()}, notes)
    )
    with pytest.raises(LayoutxError, match="did not keep"):
        save(tmp_path / "x.dcp", {"w": np.arange(3.0)}, {})
    assert os.listdir(tmp_path) == []


# ── several processes ──

RANKS = """
import sys
import torch
import torch.distributed as dist
import torch._dynamo  # which distribute_tensor imports: once, before the ranks are forked
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor


def rank(at, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=at, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    state = torch.load(f"{folder}/whole.pt")
    places = {name: [Shard(0)] if value.ndim else [Replicate()] for name, value in state.items()}
    sharded = {name: distribute_tensor(value, mesh, places[name]) for name, value in state.items()}
    dcp.save({"model": sharded, "step": 7}, checkpoint_id=f"{folder}/ckpt")
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.multiprocessing.start_processes(rank, (sys.argv[1],), nprocs=2, start_method="fork")
"""


def test_chunks_of_two_ranks_become_a_keras_model(tmp_path, capsys):
    """Sharded over rows as FSDP does, by two real processes; then the outputs of the models are the same."""
    torch.manual_seed(2)
    model = torch.nn.Sequential()
    for name, layer in {"first": torch.nn.Linear(5, 7), "norm": torch.nn.BatchNorm1d(7, eps=1e-3)}.items():
        model.add_module(name, layer)
    model.add_module("last", torch.nn.Linear(7, 7))
    model = model.double()
    for _ in range(3):
        model(torch.randn(11, 5, dtype=torch.float64) * 2 + 1)
    for value in model.parameters():
        torch.nn.init.normal_(value, 0.3)
    torch.save(model.state_dict(), tmp_path / "whole.pt")
    (tmp_path / "ranks.py").write_text(RANKS)
    keras = pytest.importorskip("keras")
    alone = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}  # whatever this machine's name leads to
    call = [sys.executable, tmp_path / "ranks.py", str(tmp_path)]
    subprocess.run(call, env={**os.environ, **alone}, check=True, timeout=600)
    folder = tmp_path / "ckpt"
    assert len(list(folder.glob("*.distcp"))) == 2
    about = pickle.loads((folder / METADATA).read_bytes())
    assert len(about.state_dict_metadata["model.first.weight"].chunks) == 2
    store = open_store(folder)
    for name, value in model.state_dict().items():
        same_bits(store.tensors[name].read(), value.numpy())

    layers = keras.layers
    twin = keras.Sequential(
        [
            layers.Input((5,), dtype="float64"),
            layers.Dense(7, name="first", dtype="float64"),
            layers.BatchNormalization(name="norm", dtype="float64"),
            layers.Dense(7, name="last", dtype="float64"),
        ]
    )
    twin.save(tmp_path / "twin.keras")
    made = tmp_path / "made.keras"
    call = ["convert", str(folder), "-o", str(made), "--to", "keras", "--like", str(tmp_path / "twin.keras")]
    assert main(call) == 0, capsys.readouterr()
    x = np.random.default_rng(3).normal(size=(3, 5))
    want = model.eval()(torch.from_numpy(x)).detach().numpy()
    got = np.asarray(keras.models.load_model(made)(x))
    assert np.abs(got - np.asarray(twin(x))).max() > 0.1
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)

    back = tmp_path / "back.dcp"
    assert main(["convert", str(made), "-o", str(back), "--to", "torch"]) == 0, capsys.readouterr()
    for name, value in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            same_bits(open_store(back).tensors[name].read(), value.numpy())
    assert main(["inspect", str(back)]) == 0
    assert "made.keras" in capsys.readouterr().out


def test_an_enumeration_as_early_releases_of_python_311_pickle_it():
    """Python 3.11.0 to 3.11.3: Enum.__reduce_ex__ gives getattr(class, name); only a described class is taken."""
    take = KNOWN["builtins getattr"].call
    made = take(KNOWN["torch.distributed.checkpoint.metadata _MEM_FORMAT_ENCODING"], "TORCH_CHANNELS_LAST")
    assert made.arguments == ("_MEM_FORMAT_ENCODING", "TORCH_CHANNELS_LAST")
    for thing, name in ((KNOWN["torch Size"], "__class__"), ("a text", "format"), (KNOWN["torch float32"], "__init__")):
        with pytest.raises(ValueError, match="no class"):
            take(thing, name)
