"""Pickles (torch's zip and older formats, paddle's) that would run code, take memory, or lie about their tensors."""

from __future__ import annotations

import hashlib
import pickle
import struct
import sys
import tarfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layoutx.errors import UsageError
from layoutx.files import torch_file
from layoutx.files.open import open_store
from tests.attacks.zip_bytes import packed, plain, written, zip_bytes

MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
FLOATS = 12
STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0000X\3\0\0\0cpuK\x0ctQ"
SPELLED = b"ctorch._utils\n_rebuild_tensor_v2\n"


@pytest.fixture(scope="module", autouse=True)
def _with_torch(victim: Any) -> None:
    pytest.importorskip("torch")
    assert victim.ask("import", "torch")["kind"] == "fine"


def number(n: int) -> bytes:
    return pickle.dumps(n, 2)[2:-1]


def numbers(found: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, found)) + b"t"


def tensor(sizes: Any, strides: Any, offset: int = 0, storage: bytes = STORAGE, call: bytes = SPELLED) -> bytes:
    """A view of a storage, as torch.save spells it."""
    end = b"\x89ccollections\nOrderedDict\n)RtR"
    return call + b"(" + storage + number(offset) + numbers(sizes) + numbers(strides) + end


def state(value: bytes, key: bytes = b"X\1\0\0\0w") -> bytes:
    """A mapping of one name."""
    return b"\x80\2}" + key + value + b"s."


def pt(path: Path, data: bytes, floats: int = FLOATS, **more: bytes) -> Path:
    members = [
        plain("x/data.pkl", data),
        plain("x/version", b"3\n"),
        plain("x/byteorder", b"little"),
        plain("x/data/0", bytes(4 * floats)),
    ]
    return written(path, zip_bytes([*members, *(plain(f"x/{name}", held) for name, held in more.items())]))


def legacy(path: Path, data: bytes, floats: int = FLOATS) -> Path:
    """As torch wrote before 1.6: five pickles, then the storages."""
    system = pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, 2)
    data = data.replace(b"K\x0ctQ", b"K\x0cNtQ")  # a storage may be a part of another there
    numbers = struct.pack("<q", floats) + bytes(4 * floats)
    return written(path, MAGIC + pickle.dumps(1001, 2) + system + data + pickle.dumps(["0"], 2) + numbers)


def pdparams(path: Path, data: bytes) -> Path:
    return written(path.with_suffix(".pdparams"), data)


FORMS = {"torch": pt, "legacy": legacy, "paddle": pdparams}
SENTINEL = b"layoutx_was_here"


@pytest.mark.parametrize("form", [pt, legacy], ids=["torch", "legacy"])
def test_the_frame_of_the_attacks_is_harmless(refused: Any, tmp_path: Path, form: Any) -> None:
    assert refused(form(tmp_path / "x.pt", state(tensor((3, 4), (4, 1)))), fine=True) == "1 tensors"


def runs(tmp_path: Path) -> dict[str, bytes]:
    """Every way in which a pickle can call what it names; each would make a folder."""
    path = str(tmp_path / "made").encode()
    text = b"X" + struct.pack("<I", len(path)) + path
    made, classed = b"(" + text + b"tR", b"(" + text + b"t\x81"
    code = f"__import__('os').mkdir({str(tmp_path / 'made')!r})".encode()
    evil = b"X" + struct.pack("<I", len(code)) + code
    return {
        "global": b"cos\nsystem\n",
        "reduce": b"cos\nmkdir\n" + made,
        "posix": b"cposix\nmkdir\n" + made,
        "eval": b"cbuiltins\neval\n(" + evil + b"tR",
        "exec": b"cbuiltins\nexec\n(" + evil + b"tR",
        "old_eval": b"c__builtin__\neval\n(" + evil + b"tR",
        "getattr": b"cbuiltins\ngetattr\n(cos\nX\6\0\0\0systemtR",
        "apply": b"cfunctools\npartial\n(cos\nmkdir\n" + text + b"tR)R",
        "stack_global": b"\x8c\2os\x8c\5mkdir\x93" + made,
        "inst": b"(" + text + b"ios\nmkdir\n",
        "obj": b"(cos\nmkdir\n" + text + b"o",
        "newobj": b"cpathlib\nPath\n" + classed,
        "newobj_ex": b"cpathlib\nPath\n(" + text + b"t}\x92",
        "ext1": b"\x82\1",
        "ext2": b"\x83\1\1",
        "ext4": b"\x84\1\1\1\1",
        "persid": b"Pos.mkdir\n",
        "binpersid": b"(X\4\0\0\0evilcos\nmkdir\n" + text + b"tQ",
        "binpersid_module": b"(X\6\0\0\0modulecos\nmkdir\nX\1\0\0\0aX\1\0\0\0btQ",
        "build": b"ccollections\nOrderedDict\n)R}X\x0c\0\0\0__setstate__cos\nmkdir\nsb",
        "setstate": b"cpickle\nUnpickler\n)\x81" + text + b"b",
        "next_buffer": b"\x97",
        "load_by_type": b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nmkdir\ncbuiltins\nint\n(" + text + b"t}tR",
        "torch_load": b"ctorch\nload\n" + made,
        "module": b"ctorch.nn.modules.linear\nLinear\n)\x81}b",
        "storage_from_file": b"ctorch.storage\nUntypedStorage.from_file\n" + made,
        "nested": b"ctorch.storage\n_load_from_bytes\n(C\3\x80\2.tR",
    }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("attack", runs(Path()))
def test_a_pickle_that_would_run_code(refused: Any, tmp_path: Path, form: str, attack: str) -> None:
    path = FORMS[form](tmp_path / "x.pt", state(runs(tmp_path)[attack]))
    text = refused(path)
    assert "more than" in text or "forged" in text or "cannot read" in text
    assert not (tmp_path / "made").exists()


def growing(step: bytes, times: int, first: bytes = b"]") -> bytes:
    """A value that holds the one before it, that often."""
    return first + b"".join(
        b"r" + struct.pack("<I", i) + step.replace(b"GET", b"j" + struct.pack("<I", i)) for i in range(times)
    )


TAKES = {
    "memo_of_four_billion": b"]r\xff\xff\xff\xff0}",
    "memo_in_text": b"]p99999999999\n",
    "text_of_exabytes": b"\x8d" + struct.pack("<Q", 1 << 60),
    "text_of_gigabytes": b"X\xff\xff\xff\xff",
    "bytes_of_exabytes": b"\x8e" + struct.pack("<Q", 1 << 60),
    "bytearray_of_exabytes": b"\x96" + struct.pack("<Q", 1 << 60),
    "bytearray_of_gigabytes": b"\x96" + struct.pack("<Q", 1 << 35),
    "bytearray_called": b"cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR",
    "bytearray_called_wide": b"cbuiltins\nbytearray\n(\x8a\5\0\0\0\0\1tR",
    "number_of_gigabytes": b"\x8b\xff\xff\xff\x7f",
    "number_below_zero": b"\x8b\xff\xff\xff\xff",
    "frame_of_exabytes": b"\x95" + struct.pack("<Q", 1 << 60) + b"}",
    "tuples": b")" + b"\x85" * 100_000,
    "key_of_deep_tuples": b"})" + b"\x85" * 100_000 + b"Ns",
    "key_of_shared_tuples": b"})" + b"2\x86" * 200 + b"Ns",
    "key_of_kept_tuples": b"}" + growing(b"GET\x86", 200, b")") + b"Ns",
    "keys_of_pairs": b"ccollections\nOrderedDict\n(](" + b")" + b"\x85" * 100_000 + b"NlatR",
    "set_of_deep_tuples": b"cbuiltins\nset\n(](" + b")" + b"\x85" * 100_000 + b"etR",
    "lists_of_lists": growing(b"](GETGETe", 60),
    "mappings": b"}X\1\0\0\0a" * 10_000 + b"N" + b"s" * 10_000,
    "tensor_of_nothing": b"ctorch\nFloatTensor\n(J\xff\xff\xff\x7ftR",
    "tensor_made_new": b"ctorch\nTensor\n(J\xff\xff\xff\x7ft\x81",
    "storage_of_nothing": b"ctorch.storage\nUntypedStorage\n(\x8a\5\0\0\0\0\1tR",
    "marks": b"(" * 100_000,
    "pops_of_nothing": b"0" * 100,
    "tuple_of_nothing": b"t",
    "text_that_is_none": b"X\2\0\0\0\xff\xff",
    "recursion": b"]q\0h\0a",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("attack", TAKES)
def test_a_pickle_that_would_take_memory_or_time(refused: Any, tmp_path: Path, form: str, attack: str) -> None:
    refused(FORMS[form](tmp_path / "x.pt", state(TAKES[attack])))


def text(said: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(said)) + said


BOMBS = {
    "encode": (b"c_codecs\nencode\nq\1", text(b"a" * (1 << 18)) + text(b"latin1") + b"\x86q\2", b"h\1h\2R"),
    "mapping": (b"ccollections\nOrderedDict\nq\1", b"](" + b"]K\1aK\1a" * 19_999 + b"e\x85q\2", b"h\1h\2R"),
    "set": (b"cbuiltins\nset\nq\1", b"](" + b"K\1" * 19_999 + b"e\x85q\2", b"h\1h\2R"),
    "tuple": (b"cbuiltins\ntuple\nq\1", b"](" + b"K\1" * 19_999 + b"e\x85q\2", b"h\1h\2R"),
    "size": (b"ctorch\nSize\nq\1", b"(" + b"K\1" * 19_999 + b"t\x85q\2", b"h\1h\2R"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("attack", BOMBS)
def test_one_value_given_to_many_calls(refused: Any, tmp_path: Path, form: str, attack: str) -> None:
    """Each call copies what stands in the file once: terabytes from a megabyte."""
    function, argument, call = BOMBS[attack]
    refused(FORMS[form](tmp_path / "x.pt", state(b"](" + function + argument + call * 20_000 + b"e")))


STORAGES = {
    "larger_than_its_member": (STORAGE.replace(b"K\x0c", b"K\x0d"), "storage '0'"),
    "of_exabytes": (STORAGE.replace(b"K\x0c", number(1 << 60)), "storage '0'"),
    "past_all_numbers": (STORAGE.replace(b"K\x0c", number(1 << 200)), "storage '0'"),
    "negative": (STORAGE.replace(b"K\x0c", number(-12)), "size"),
    "of_a_text": (STORAGE.replace(b"K\x0c", text(b"12")), "size"),
    "missing": (STORAGE.replace(b"\x01\0\0\0000", b"\x01\0\0\0007"), "missing"),
    "that_climbs": (STORAGE.replace(text(b"0"), text(b"../../etc/passwd")), "missing"),
    "absolute": (STORAGE.replace(text(b"0"), text(b"/etc/passwd")), "missing"),
    "of_another_case": (STORAGE.replace(text(b"0"), text(b"../DATA/0")), "missing"),
    "wider": (STORAGE.replace(b"FloatStorage", b"DoubleStorage"), "storage '0'"),
    "of_no_type": (STORAGE.replace(b"ctorch\nFloatStorage\n", b"N"), "type"),
}


@pytest.mark.parametrize("attack", STORAGES)
def test_a_storage_that_its_member_does_not_hold(refused: Any, tmp_path: Path, attack: str) -> None:
    """torch would give the bytes behind the member, which belong to others."""
    storage, word = STORAGES[attack]
    refused(pt(tmp_path / "x.pt", state(tensor((3,), (1,), storage=storage))), word)


@pytest.mark.parametrize("numel", [1 << 31, 1 << 60, -5])
def test_a_storage_that_an_old_file_has_no_room_for(refused: Any, tmp_path: Path, numel: int) -> None:
    refused(legacy(tmp_path / "x.pt", state(tensor((3,), (1,))).replace(b"K\x0ctQ", number(numel) + b"NtQ")), "storage")


VIEWS = {
    "past_the_end": ((13,), (1,), 0),
    "offset_past_the_end": ((3,), (1,), 10),
    "giant_offset": ((3,), (1,), 1 << 62),
    "negative_offset": ((3,), (1,), -3),
    "negative_stride": ((3,), (-1,), 11),
    "negative_size": ((-3,), (1,), 0),
    "strides_past_the_end": ((3, 4), (5, 1), 0),
    "fewer_strides": ((3, 4), (1,), 0),
    "overflow": ((1 << 32, 1 << 32), (1 << 32, 1), 0),
    "overflow_to_nothing": ((1 << 33, 1 << 31, 4), (0, 0, 1 << 62), 0),
    "of_one_number": ((1000, 1000, 1000, 1000), (0, 0, 0, 0), 0),
    "many_axes": ((1,) * 40, (1,) * 40, 0),
}


@pytest.mark.parametrize("form", ["torch", "legacy"])
@pytest.mark.parametrize("call", [b"_rebuild_tensor_v2", b"_rebuild_tensor", b"_rebuild_tensor_v3"], ids=str)
@pytest.mark.parametrize("attack", VIEWS)
def test_a_view_outside_of_its_storage(refused: Any, tmp_path: Path, form: str, call: bytes, attack: str) -> None:
    """torch would make the storage larger, and show what the process has in its memory."""
    sizes, strides, offset = VIEWS[attack]
    spelled = tensor(sizes, strides, offset, call=b"ctorch._utils\n" + call + b"\n")
    if call == b"_rebuild_tensor":
        spelled = spelled.replace(b"\x89ccollections\nOrderedDict\n)RtR", b"tR")
    if call == b"_rebuild_tensor_v3":
        spelled = spelled.removesuffix(b"tR") + b"ctorch\nfloat32\ntR"
    refused(FORMS[form](tmp_path / "x.pt", state(spelled)), "storage")


def test_a_wider_dtype_over_a_storage(refused: Any, tmp_path: Path) -> None:
    spelled = tensor((12,), (1,), call=b"ctorch._utils\n_rebuild_tensor_v3\n").removesuffix(b"tR")
    refused(pt(tmp_path / "x.pt", state(spelled + b"ctorch\nfloat64\ntR")), "storage 0")


def test_an_old_tensor_that_is_set_outside_of_its_storage(refused: Any, tmp_path: Path) -> None:
    made = b"ctorch\nTensor\n)\x81(" + STORAGE + number(0) + numbers((1 << 20,)) + numbers((1,)) + b"tb"
    refused(pt(tmp_path / "x.pt", state(made)), "storage 0")


def test_a_view_called_by_another_function(refused: Any, tmp_path: Path) -> None:
    inner = b"(" + STORAGE + number(0) + numbers((1 << 20,)) + numbers((1,)) + b"\x89}t"
    call = b"ctorch._tensor\n_rebuild_from_type_v2\n(" + SPELLED + b"ctorch\nTensor\n" + inner + b"}tR"
    refused(pt(tmp_path / "x.pt", state(call)), "storage 0")


def test_a_part_of_a_storage_outside_of_it(refused: Any, tmp_path: Path) -> None:
    data = state(tensor((3,), (1,))).replace(b"K\x0ctQ", b"K\x0c(X\1\0\0\0vK\x08K\x08ttQ")
    refused(legacy(tmp_path / "x.pt", data), "storage '0'")


KINDS = {
    "meta": b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n(ctorch\nfloat32\n"
    + numbers((1 << 40,))
    + numbers((1,))
    + b"\x89tR",
    "quantized": b"ctorch._utils\n_rebuild_qtensor\n("
    + STORAGE
    + b"K\0"
    + numbers((1 << 40,))
    + numbers((1,))
    + b"(ctorch\nper_tensor_affine\nG?\xf0\0\0\0\0\0\0K\0t\x89}tR",
    "sparse_without_parts": b"ctorch._utils\n_rebuild_sparse_tensor\n(ctorch.serialization\n_get_layout\n"
    + text(b"torch.sparse_coo")
    + b"\x85R(NNN\x89ttR",
    "parameter_of_a_mapping": b"ctorch._utils\n_rebuild_parameter\n(}\x88}tR",
    "tensor_of_no_storage": SPELLED + b"(}" + number(0) + numbers((3,)) + numbers((1,)) + b"\x89}tR",
    "subclass": b"ctorch._utils\n_rebuild_wrapper_subclass\n(ctorch\nTensor\nctorch\nfloat32\n"
    + numbers((1 << 40,))
    + numbers((1,))
    + b"K\0NctorchdeviceNtR",
    "unhashable": b"ccollections\nOrderedDict\n(]]K\1aK\1aatR",
    "not_a_mapping": b"K\1",
    "only_texts": text(b"w"),
}


@pytest.mark.parametrize("form", ["torch", "legacy"])
@pytest.mark.parametrize("attack", KINDS)
def test_what_torch_makes_and_is_no_array(refused: Any, tmp_path: Path, form: str, attack: str) -> None:
    refused(FORMS[form](tmp_path / "x.pt", state(KINDS[attack])))


def test_a_sparse_tensor_with_forged_indices(refused: Any, tmp_path: Path) -> None:
    import torch

    good = torch.sparse_coo_tensor([[0, 1]], [1.0, 2.0], (4,), check_invariants=False)
    torch.save({"w": good}, tmp_path / "x.pt")
    refused(tmp_path / "x.pt", "'w'", "sparse")


def test_tensors_that_share_or_repeat_their_storage_are_read(tmp_path: Path) -> None:
    import torch

    base = torch.arange(12.0, dtype=torch.float64).reshape(3, 4)
    tied = torch.nn.Parameter(base)
    held = {"a": base, "b": base[1:], "c": base.T, "d": base[0, :1].expand(7, 5), "e": tied, "f": torch.empty(0, 3)}
    for zipped in (True, False):
        torch.save(held, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
        found = open_store(tmp_path / "x.pt").tensors
        assert {name: one.read().tobytes() for name, one in found.items()} == {
            name: one.detach().contiguous().numpy().tobytes() for name, one in held.items()
        }


def test_what_trainers_keep_beside_the_weights_is_read(tmp_path: Path) -> None:
    """An optimizer's state, sizes, dtypes, tuples as keys: the check lets through what torch does."""
    import torch

    layer = torch.nn.Linear(5, 7)
    adam = torch.optim.Adam(layer.parameters(), betas=(0.9, 0.99))
    layer(torch.ones(5)).sum().backward()
    adam.step()
    kept = {
        "state_dict": layer.state_dict(),
        "optimizer": adam.state_dict(),
        "size": torch.Size((3, 5)),
        "dtype": torch.bfloat16,
        "seen": {(1, "a"): 2, 3.5: None, True: b"raw", torch.float16: 1},
        "set": {1, 2},
        "device": torch.device("cpu"),
        "z": 1 + 2j,
        "big": 1 << 100,
        "bytes": bytearray(b"ab"),
    }
    for zipped in (True, False):
        torch.save(kept, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
        store = open_store(tmp_path / "x.pt")
        assert (list(store.tensors), store.metadata["torch:state"]) == (["weight", "bias"], "state_dict")


def test_an_expanded_tensor_that_fills_a_disk(refused: Any, tmp_path: Path) -> None:
    """One number, said to be 10^12."""
    import torch

    torch.save({"w": torch.ones(1, dtype=torch.float64).expand(10**6, 10**6)}, tmp_path / "x.pt")
    refused(tmp_path / "x.pt", "LAYOUTX_LIMIT_EXPANSION")


def test_many_views_that_fill_a_disk_together(refused: Any, tmp_path: Path) -> None:
    import torch

    base = torch.ones(1, dtype=torch.float64)
    torch.save({f"w{i}": base.expand(5000, 5000) for i in range(40)}, tmp_path / "x.pt")
    refused(tmp_path / "x.pt", "LAYOUTX_LIMIT_EXPANSION")


def test_a_compressed_checkpoint_is_checked_too(refused: Any, tmp_path: Path) -> None:
    data = state(tensor((1 << 20,), (1,)))
    members = [packed("x/data.pkl", data), plain("x/byteorder", b"little"), packed("x/data/0", bytes(48))]
    refused(written(tmp_path / "x.pt", zip_bytes(members)), "storage 0")


def test_the_pickle_of_another_folder(refused: Any, tmp_path: Path) -> None:
    """torch takes the folder of the first member; another reader would take the pickle that it finds."""
    members = [plain("a/version", b"3"), plain("b/data.pkl", state(b"}")), plain("b/data/0", bytes(48))]
    refused(written(tmp_path / "x.pt", zip_bytes(members)), "a/data.pkl")


def test_an_archive_in_an_old_checkpoint(refused: Any, tmp_path: Path) -> None:
    """A polyglot: an old checkpoint to one reader, a zip file to the next."""
    path = legacy(tmp_path / "x.pt", state(b"cos\nsystem\n"))
    written(path, path.read_bytes() + zip_bytes([plain("x/data.pkl", state(tensor((3,), (1,))))]))
    refused(path)


def test_a_checkpoint_in_a_tar_file(refused: Any, tmp_path: Path) -> None:
    """torch before 0.1.10; its loader unpacks names as they stand, and unpickles."""
    (tmp_path / "pickle").write_bytes(state(b"cos\nsystem\n"))
    with tarfile.open(tmp_path / "x.pt", "w") as archive:
        archive.add(tmp_path / "pickle", "../../pickle")
    refused(tmp_path / "x.pt", "none of the formats")


@pytest.mark.parametrize("at", [0, 1, 2, 4])
def test_code_in_another_pickle_of_an_old_checkpoint(refused: Any, tmp_path: Path, at: int) -> None:
    parts = [MAGIC, pickle.dumps(1001, 2), pickle.dumps({}, 2), state(tensor((3,), (1,))), pickle.dumps(["0"], 2)]
    parts[at] = (MAGIC[:-1] if at == 0 else b"\x80\2") + runs(tmp_path)["reduce"] + b"."
    refused(written(tmp_path / "x.pt", b"".join(parts)))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("version", ["2.5.1", "2.0.0+cpu", "1.13.1", "0.4.0"])
def test_torch_whose_loader_runs_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """CVE-2025-32434: before 2.6 torch.load(weights_only=True) can run code of the file."""
    import torch

    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("the file was given to an old torch"))
    for path in (pt(tmp_path / "x.pt", state(tensor((3,), (1,)))), legacy(tmp_path / "y.pt", state(b"}"))):
        with pytest.raises(UsageError, match="too old") as caught:
            torch_file.read_torch(path)
        assert "CVE-2025-32434" in str(caught.value)


def array(raw: bytes, shape: Any = (3,), dtype: str = "f8") -> Any:
    return np.frombuffer(raw, dtype).reshape(shape)


def pickled(tree: Any) -> bytes:
    return pickle.dumps(tree, 2)


def test_mappings_that_share_mappings(refused: Any, tmp_path: Path) -> None:
    """Forty levels of two names each for the level below: a trillion arrays in a kilobyte."""
    tree: Any = {"w": np.arange(3.0)}
    for _ in range(40):
        tree = {"a": tree, "b": tree}
    refused(written(tmp_path / "x.pdparams", pickled(tree)), "one mapping stands in")


def test_mappings_ten_thousand_deep(refused: Any, tmp_path: Path) -> None:
    deep = b"}X\1\0\0\0a" * 10_000 + b"}" + b"s" * 10_000
    refused(written(tmp_path / "x.pdparams", b"\x80\2" + deep + b"."), "LAYOUTX_LIMIT_DEPTH")


def test_a_mapping_in_itself(refused: Any, tmp_path: Path) -> None:
    tree: dict[str, Any] = {"w": np.arange(3.0)}
    tree["self"] = tree
    refused(written(tmp_path / "x.pdparams", pickled(tree)), "one mapping stands in")


def test_one_array_under_ten_thousand_names(refused: Any, tmp_path: Path) -> None:
    """Big-endian, so that each would be a copy of its own: 80 GB."""
    one = np.arange(1_000_000.0).astype(">f8")
    path = written(tmp_path / "x.pdparams", pickled({f"w{i}": one for i in range(10_000)}))
    assert refused(path, fine=True) == "10000 tensors"


def test_a_table_of_names_that_are_lists_of_lists(refused: Any, tmp_path: Path) -> None:
    """The text of it would have 2^60 letters."""
    lists: Any = []
    for _ in range(60):
        lists = [lists, lists]
    tree = {"w": np.arange(3.0), "StructuredToParameterName@@": {"w": lists}}
    refused(written(tmp_path / "x.pdparams", pickled(tree)), "names")


def test_slices_that_are_no_names(refused: Any, tmp_path: Path) -> None:
    deep: Any = ()
    for _ in range(200):
        deep = (deep, deep)
    for said in ({"slices": [deep], "OriginShape": (3,)}, {"slices": ["w"], "OriginShape": (1 << 40,)}, {}, 3):
        tree = {"w": np.arange(3.0), "UnpackBigParamInfor@@": {"x": said}}
        refused(written(tmp_path / "x.pdparams", pickled(tree)))


def test_a_name_of_a_megabyte(refused: Any, tmp_path: Path) -> None:
    refused(written(tmp_path / "x.pdparams", pickled({"a" * (1 << 20): np.arange(3.0)})), "LAYOUTX_LIMIT_NAME")


ARRAYS = {
    "overflow": (b"(K\1(" + number(1 << 62) + number(4) + b"t", b"cnumpy\ndtype\n(X\2\0\0\0f8tR"),
    "negative": (b"(K\1(" + number(-3) + number(-1) + b"t", b"cnumpy\ndtype\n(X\2\0\0\0f8tR"),
    "many_axes": (b"(K\1(" + b"K\1" * 100_000 + b"t", b"cnumpy\ndtype\n(X\2\0\0\0f8tR"),
    "objects": (b"(K\1(K\3t", b"cnumpy\ndtype\n(X\2\0\0\0O8tR"),
    "records": (b"(K\1(K\3t", b"cnumpy\ndtype\n(" + text(b"f8," * 100_000 + b"f8") + b"tR"),
    "shape_is_a_text": (b"(K\1X\3\0\0\0abc", b"cnumpy\ndtype\n(X\2\0\0\0f8tR"),
    "dtype_is_a_call": (b"(K\1(K\3t", b"c_codecs\nencode\n(X\1\0\0\0aX\6\0\0\0latin1tR"),
}


@pytest.mark.parametrize("attack", ARRAYS)
def test_a_forged_array_of_a_pickle(refused: Any, tmp_path: Path, attack: str) -> None:
    shape, dtype = ARRAYS[attack]
    raw = b"c_codecs\nencode\n(X\x18\0\0\0" + b"\0" * 24 + b"X\6\0\0\0latin1tR"
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\x85C\1btR"
    refused(written(tmp_path / "x.pdparams", state(made + shape + dtype + b"\x89" + raw + b"tb")))


def test_other_byte_orders_of_a_pickle_are_read_bit_for_bit(tmp_path: Path) -> None:
    bits = np.array([0x7FF8DEADBEEF0001, 0xFFF0000000000001, 1 << 63, 1], np.uint64).view(np.float64).reshape(2, 2)
    tree = OrderedDict(
        plain=bits, big=bits.byteswap().view(">f8"), fortran=np.asfortranarray(bits), none=np.empty((0, 3))
    )
    found = open_store(written(tmp_path / "x.pdparams", pickled(tree))).tensors
    assert all(found[name].read().tobytes() == bits.tobytes() for name in ("plain", "big", "fortran"))
    assert found["none"].read().shape == (0, 3)
    assert sys.byteorder == "little"


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722, 0o1777], ids=oct)
def test_a_kept_registry_that_others_could_put_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    """The cache is a pickle: one in a folder that others may write to is neither read nor written."""
    from layoutx.spec import kept
    from layoutx.spec.registry import builtin_folder, load_registry

    home = tmp_path / "cache"
    monkeypatch.setenv("LAYOUTX_CACHE", str(home))
    place = kept.kept([builtin_folder()])
    assert place is not None
    registry = load_registry([builtin_folder()])
    kept.keep(place, registry)
    assert kept.taken(place) is not None
    assert home.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(kept, "_loaded", lambda data: pytest.fail("it was unpickled"))
    home.chmod(mode)
    assert kept.taken(place) is None
    place.unlink()
    kept.keep(place, registry)
    assert not place.exists()


def test_a_kept_registry_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from layoutx.spec import kept

    monkeypatch.setattr(kept, "_loaded", lambda data: pytest.fail("it was unpickled"))
    monkeypatch.setattr("os.getuid", lambda: 54321)
    tmp_path.chmod(0o700)
    data = pickle.dumps(1)
    place = written(tmp_path / "registry-1.pickle", hashlib.sha256(data).digest() + data)
    assert kept.taken(place) is None
