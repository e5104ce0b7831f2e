"""Pairs by pattern: a checkpoint of other names, whatever its size, takes a line for each kind of layer."""

from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch

import layoutx as lx
from layoutx.cli import main
from layoutx.errors import LayoutxError, MatchError, UsageError
from layoutx.files.open import open_store
from layoutx.files.save import save
from layoutx.model import match as matching
from layoutx.model.said import pair_option, pairs_said

LAYERS, EXPERTS, DIM, HIDDEN = 3, 5, 7, 11
PAIRS = {
    "layers.*.attention.w*": "model.layers.*.self_attn.*_proj",
    "layers.*.attention_norm": "model.layers.*.input_layernorm",
    "layers.*.ffn_norm": "model.layers.*.post_attention_layernorm",
    "layers.*.experts.*.w1": "model.layers.*.mlp.experts.*.gate_proj",
    "layers.*.experts.*.w3": "model.layers.*.mlp.experts.*.up_proj",
}
FORMS = {"*norm": "torch.RMSNorm", "*.w?": "torch.Linear"}


def named() -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Names as a model's authors wrote them, as another library calls them, and shapes."""
    for i in range(LAYERS):
        here, there = f"layers.{i}", f"model.layers.{i}"
        yield f"{here}.attention_norm.weight", f"{there}.input_layernorm.weight", (DIM,)
        for part in "qkvo":
            yield f"{here}.attention.w{part}.weight", f"{there}.self_attn.{part}_proj.weight", (DIM, DIM)
        yield f"{here}.ffn_norm.weight", f"{there}.post_attention_layernorm.weight", (DIM,)
        for e in range(EXPERTS):
            for one, other in (("w1", "gate_proj"), ("w3", "up_proj")):
                yield f"{here}.experts.{e}.{one}.weight", f"{there}.mlp.experts.{e}.{other}.weight", (HIDDEN, DIM)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, np.ndarray]]:
    """A checkpoint in bfloat16, one of the other names (in another order), and what the first must become."""
    folder, rng = tmp_path_factory.mktemp("patterns"), np.random.default_rng(11)
    rows = [(here, there, rng.normal(size=shape).astype(ml_dtypes.bfloat16)) for here, there, shape in named()]
    save(folder / "own.safetensors", {here: value for here, _, value in rows}, {})
    turned = sorted(rows, key=lambda row: row[1])
    save(folder / "other.safetensors", {there: np.zeros_like(value) for _, there, value in turned}, {})
    return folder / "own.safetensors", folder / "other.safetensors", {there: value for _, there, value in rows}


def same(path: Path, wanted: dict[str, np.ndarray]) -> bool:
    found = {name: tensor.read() for name, tensor in open_store(path).tensors.items()}
    return found.keys() == wanted.keys() and all(found[n].tobytes() == wanted[n].tobytes() for n in wanted)


def test_a_checkpoint_gets_the_names_of_another_model(
    files: tuple[Path, Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    own, other, wanted = files
    report = lx.convert(own, tmp_path / "x.safetensors", to="torch", like=other, pairs=PAIRS, forms=FORMS)
    assert same(tmp_path / "x.safetensors", wanted)
    assert not report.alike  # the user said all of them
    assert all("NumPy" not in layer.proof.method for layer in report.layers)  # bfloat16 runs in torch as well
    back = {place: name for name, place in PAIRS.items()}  # either side may stand first
    lx.convert(own, tmp_path / "y.safetensors", to="torch", like=other, pairs=back, forms=FORMS)
    assert same(tmp_path / "y.safetensors", wanted)


def test_norms_that_only_a_person_can_tell_are_named_with_the_pattern(
    files: tuple[Path, Path, dict[str, np.ndarray]],
) -> None:
    own, other, _ = files
    with pytest.raises(LayoutxError) as caught:
        lx.convert(own, to="torch", like=other, forms=FORMS)
    text = str(caught.value)
    assert "layers.0.attention_norm fits several places" in text
    assert "--pair 'layers.*.attention_norm=model.layers.*." in text
    assert "wq fits" not in text  # what the names do tell is not asked


def test_patterns_are_lines_of_a_mapping_file(files: tuple[Path, Path, dict[str, np.ndarray]], tmp_path: Path) -> None:
    own, other, wanted = files
    rows = "".join(f'  "{one}": "{place}"\n' for one, place in PAIRS.items())
    kinds = "".join(f'  "{one}": {form}\n' for one, form in FORMS.items())
    (tmp_path / "map.yaml").write_text(f"pairs:\n{rows}forms:\n{kinds}")
    before = (tmp_path / "map.yaml").read_text()
    paths = [str(own), str(other), "--map", str(tmp_path / "map.yaml"), "-o", str(tmp_path / "map.yaml")]
    assert main(["match", *paths]) == 0
    assert (tmp_path / "map.yaml").read_text() == before  # the patterns stand for every layer
    lx.convert(own, tmp_path / "x.safetensors", to="torch", like=other, map=tmp_path / "map.yaml")
    assert same(tmp_path / "x.safetensors", wanted)


def test_patterns_that_say_nothing_or_too_much_are_refused_together(
    files: tuple[Path, Path, dict[str, np.ndarray]],
) -> None:
    own, other, _ = files
    wrong = {
        "blocks.*.wq": "model.layers.*.q",
        "layers.*.attention.wq": "model.layers.0.self_attn.q_proj",
        "layers.*.attention_norm": "model.layers.*.input_layernorm",
        "layers.*_norm": "model.layers.*_layernorm",
    }
    with pytest.raises(UsageError) as caught:
        lx.convert(own, to="torch", like=other, forms=FORMS, pairs=wrong)
    text = " ".join(str(caught.value).split())
    assert "no layer has a name like blocks.*.wq" in text
    assert "has 1 * on one side and 0 on the other" in text
    assert "layers.2.attention_norm is given several places" in text
    with pytest.raises(
        UsageError, match=r"3 layers a place that is not there, the first model\.layers\.0\.attention\.query"
    ):
        lx.convert(own, to="torch", like=other, forms=FORMS, pairs={"layers.*.wq": "model.layers.*.query"})
    with pytest.raises(MatchError, match=r"there is no module model\.query"):
        lx.convert(own, to="torch", like=other, forms=FORMS, pairs={"layers.1.attention.wq": "model.query"})


def test_a_layers_own_name_counts_before_a_pattern() -> None:
    here = ["a.0.q", "a.1.q", "a.2.q"]
    pairs = {"a.*.q": "b.*.query", "a.1.q": "b.2.query"}
    there = ["b.0.query", "b.1.query", "b.2.query"]
    assert pairs_said(pairs, here, there) == {"a.0.q": "b.0.query", "a.1.q": "b.2.query"}  # a.2.q: its place is taken
    assert pairs_said({"b.*.query": "a.*.q"}, here, there[1:]) == {"b.1.query": "a.1.q", "b.2.query": "a.2.q"}
    assert pairs_said({"a.*": "b.*"}, ["a.{x}"], ["b.{x}"]) == {"a.{x}": "b.{x}"}  # no format of Python's


@pytest.mark.parametrize(
    ("name", "place", "option"),
    [
        ("layers.3.wq", "blocks.3.q", "--pair 'layers.*.wq=blocks.*.q'"),
        ("enc/3/7", "e.3.l.7", "--pair 'enc/*/*=e.*.l.*'"),
        ("layers.3.wq", "blocks.4.q", "--pair layers.3.wq=blocks.4.q"),
        ("dense_1", "fc1", "--pair dense_1=fc1"),
    ],
)
def test_the_option_that_an_error_proposes(name: str, place: str, option: str) -> None:
    assert pair_option(name, place) == option


def test_more_layers_of_one_shape_than_can_be_compared(
    files: tuple[Path, Path, dict[str, np.ndarray]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other, wanted = files
    monkeypatch.setattr(matching, "MOST_PAIRS", 100)
    with pytest.raises(MatchError) as caught:
        lx.convert(own, to="torch", like=other, forms=FORMS)
    text = " ".join(str(caught.value).split())
    assert "30 layers of one shape fit 30 places" in text
    assert "--pair 'layers.*.experts.*.w1=model.layers.*.mlp.experts.*." in text
    lx.convert(own, tmp_path / "x.safetensors", to="torch", like=other, pairs=PAIRS, forms=FORMS)  # no comparison
    assert same(tmp_path / "x.safetensors", wanted)


def test_a_live_model_of_many_layers_takes_patterns() -> None:
    def stack(name: str) -> torch.nn.Module:
        blocks = torch.nn.ModuleList([torch.nn.ModuleDict({name: torch.nn.Linear(7, 7)}) for _ in range(70)])
        return torch.nn.ModuleDict({f"{name}s": blocks})

    source, target = stack("one"), stack("other")
    pairs = {"ones.*.one": "others.*.other", "ones.1.one": "others.2.other", "ones.2.one": "others.1.other"}
    report = lx.port(source, target, pairs=pairs, compare=False)
    assert not report.alike
    for i in range(70):
        place = {1: 2, 2: 1}.get(i, i)
        held = source["ones"][i]["one"].weight
        assert torch.equal(target["others"][place]["other"].weight, held)


def test_the_same_framework_without_another_model_is_still_refused(
    files: tuple[Path, Path, dict[str, np.ndarray]],
) -> None:
    with pytest.raises(UsageError, match="--like TARGET gives it the names of another model"):
        lx.convert(files[0], to="torch", forms=FORMS)
