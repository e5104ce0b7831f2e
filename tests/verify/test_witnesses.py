"""Suite 4: what real frameworks computed, found again from weights and specs with NumPy alone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest

from layoutx.errors import LayoutxError, VerificationError
from layoutx.spec.registry import Registry, builtin_folder, load_registry
from layoutx.verify import live
from layoutx.verify.witness import TOLERANCE, Case, check, read, write
from layoutx.verify.witnesses import index, witnessed
from scripts.matrix_runs import NEVER_RUN, ONLY_KERAS_3, ONLY_TF_KERAS

FOLDER = Path(__file__).resolve().parent.parent / "witnesses"
FILES = sorted(FOLDER.glob("*.npz"))

BOTH = {"keras", "tf_keras"}
# forms of frameworks that run here which cannot bear witness, and why
NOT_WITNESSED: dict[str, str] = {
    "tf1.CudnnCompatibleGRUCell": "gone from TensorFlow 2; its gate order is that of tf1.GRUBlockCell, which is run",
    **dict.fromkeys(
        [name for name in NEVER_RUN if name.startswith("keras.theano.")],
        "Keras 2 on Theano, which nobody can run any more; replayed in test_declared_plain.py",
    ),
    "torch.GatedMLP": "a module that users write by hand; replayed in test_language_models.py",
    "torch.Highway": "a module that users write by hand; its kind comes from Keras 1, which nobody can run",
    "torch.MaxoutDense": "a module that users write by hand; its kind comes from Keras 1, which nobody can run",
}


@pytest.fixture(scope="module")
def reg() -> Registry:
    return load_registry([builtin_folder()])


def case_of(file: str, name: str) -> Case:
    """The one case of a file whose name ends so."""
    (found,) = [case for case in read(FOLDER / f"{file}.npz") if case.name.endswith(name)]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_specs_compute_what_the_frameworks_did(path: Path, reg: Registry) -> None:
    cases = read(path)
    assert cases
    kind, _, framework = path.stem.partition(".")
    for case in cases:
        assert (reg.form(case.form).kind, case.framework) == (kind, framework)
        assert check(case, reg) <= TOLERANCE[case.dtype], case.name


# one case of each is captured with biases that targets of a conditional plan have no place for: zeros, as they must be
ZEROED = {
    **dict.fromkeys(("flax.GRUCell", "flax.RNN.GRUCell", "flax.Bidirectional.GRUCell"), "*hn/bias"),
    **dict.fromkeys(("keras.CuDNNGRU", "keras.Bidirectional.CuDNNGRU"), "*bias"),
    **dict.fromkeys(("paddle.GRU", "paddle.GRUCell"), "*bias_hh*"),
}


def zeroed(case: Case) -> set[str]:
    """The tensors of a case that are zero throughout, where all that `ZEROED` names of its form are."""
    named = {name for name in case.tensors if fnmatch(name, ZEROED.get(case.form, ""))}
    return named if all((case.tensors[name] == 0).all() for name in named) else set()


def test_zeroed_biases_are_captured_as_numbers_too() -> None:
    cases = [case for path in FILES for case in read(path) if case.form in ZEROED]
    for form in ZEROED:
        mine = [case for case in cases if case.form == form]
        assert [len(mine), sum(bool(zeroed(case)) for case in mine)] == [max(len(mine), 3), 1], form


def test_case_names_are_unique_and_probes_hide_nothing() -> None:
    for path in FILES:
        cases = read(path)
        assert len({case.name for case in cases}) == len(cases)
        for case in cases:
            for name, array in {**case.tensors, **case.inputs}.items():
                if name in zeroed(case):
                    continue
                assert array.dtype == np.int64 or (array != 0).all(), (case.name, name)
                assert array.dtype == np.int64 or array.size < 4 or len(np.unique(array)) > 2, (case.name, name)


def test_every_form_is_witnessed(reg: Registry) -> None:
    mine = [name for name in reg.forms if reg.form(name).framework in live.RUNNERS]
    silent = {name for name in mine if witnessed(name) == "declared"}
    assert silent == set(NOT_WITNESSED)
    assert len(mine) > 250
    for name in mine:
        if name.startswith("keras.") and name not in NOT_WITNESSED:
            versions = {"keras"} if name in ONLY_KERAS_3 else {"tf_keras"} if name in ONLY_TF_KERAS else BOTH
            assert set(index()[name]["frameworks"]) == versions, name


def test_the_index_is_current() -> None:
    cases = [case for path in FILES for case in read(path)]
    counted = {form: sum(case.form == form for case in cases) for form in {case.form for case in cases}}
    assert {form: entry["cases"] for form, entry in index().items()} == counted
    for case in cases:
        assert index()[case.form]["frameworks"][case.framework] == case.version
    assert witnessed("torch.LSTM") == f"witnessed torch {index()['torch.LSTM']['frameworks']['torch']}"
    assert witnessed("keras1.LSTM") == witnessed("my.Layer") == "declared"


def test_the_folder_is_small() -> None:
    assert sum(path.stat().st_size for path in FILES) < 5_000_000


def test_no_framework_is_imported() -> None:
    code = (
        "import sys; from pathlib import Path; from layoutx.spec.registry import registry\n"
        "from layoutx.verify.witness import check, read\n"
        f"print(check(read(Path({str(FOLDER / 'lstm.torch.npz')!r}))[0], registry()) < 1e-10); print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert loaded[0] == "True"
    assert not {"torch", "keras", "tf_keras", "tensorflow", "onnx", "onnxruntime"} & set(loaded)


# Plants: a mistake in one line of a spec -> a case that must not fit any more.
# (spec file, the line as it is, the line with a mistake, witness file, how the case's name ends)
PLANTS = [
    (
        "lstm",
        "w_input: input (gate[i f c o] hidden)",
        "w_input: input (gate[f i c o] hidden)",
        "lstm.keras",
        "units=3 version=3",
    ),
    (
        "lstm",
        "b_input: (gate[i f c o] hidden)",
        "b_input: (gate[i f o c] hidden)",
        "lstm.tf_keras",
        "units=3 version=2",
    ),
    ("lstm", "(gate[i f g o] hidden) hidden_prev", "(gate[i f o g] hidden) hidden_prev", "lstm.torch", "num_layers=2"),
    (
        "lstm",
        'R: "w_recurrent: direction[forward backward]',
        'R: "w_recurrent: direction[backward forward]',
        "lstm.onnx",
        'direction="bidirectional"',
    ),
    (
        "gru",
        "w_recurrent: hidden_prev (gate[z r h] hidden)",
        "w_recurrent: hidden_prev (gate[r z h] hidden)",
        "gru.keras",
        "reset_after=false version=3",
    ),
    (
        "gru",
        "{b_input | b_recurrent} (gate[z r h] hidden)",
        "{b_recurrent | b_input} (gate[z r h] hidden)",
        "gru.keras",
        "units=3 version=3",
    ),
    (
        "gru",
        "reset: [{is: after, when: {linear_before_reset: 1}}, {is: before}]",
        "reset: before",
        "gru.onnx",
        "hidden_size=3 linear_before_reset=1",
    ),
    (
        "gru",
        "- {is: before, when: {reset_after: false}}",
        "- {is: after, when: {reset_after: false}}",
        "gru.keras",
        "reset_after=false use_bias=false version=3",
    ),
    (
        "lstm",
        "hard_sigmoid_0.2, when: {recurrent_activation: hard_sigmoid, version: 2}",
        "hard_sigmoid_1/6, when: {recurrent_activation: hard_sigmoid, version: 2}",
        "lstm.tf_keras",
        'units=3 recurrent_activation="hard_sigmoid" version=2',
    ),
    (
        "simple_rnn",
        "w_recurrent: hidden_prev hidden",
        "w_recurrent: hidden hidden_prev",
        "simple_rnn.keras",
        "units=3 version=3",
    ),
    (
        "conv",
        "kernel: (group out) in ...",
        "kernel: (out group) in ...",
        "conv.torch",
        "in_channels=6 out_channels=10 kernel_size=[3, 2] groups=2",
    ),
    ("conv", "kernel: (group out) in ...", "kernel: (group out) in -...", "conv.onnx", 'auto_pad="VALID"'),
    (
        "conv",
        "kernel: ... group out",
        "kernel: ... out group",
        "conv.keras",
        'kernel_size=[5, 3] depth_multiplier=2 padding="same" version=3',
    ),
    (
        "conv_transpose",
        "kernel: ... out in",
        "kernel: -... out in",
        "conv_transpose.keras",
        "filters=7 kernel_size=[5, 3] version=3",
    ),
    (
        "conv_transpose",
        "- {is: same, when: {auto_pad: SAME_UPPER",
        "- {is: valid, when: {auto_pad: SAME_UPPER",
        "conv_transpose.onnx",
        'auto_pad="SAME_UPPER" strides=[2, 2]',
    ),
    (
        "separable_conv",
        "pointwise: 1... (channel mult) out",
        "pointwise: 1... (mult channel) out",
        "separable_conv.keras",
        "filters=7 kernel_size=[5, 3] depth_multiplier=2 use_bias=false version=3",
    ),
    (
        "batch_norm",
        'gamma: {is: "gamma: channel"',
        'gamma: {is: "beta: channel"',
        "batch_norm.keras",
        "center=false version=3",
    ),
    (
        "batch_norm",
        "eps: {config: epsilon}",
        "eps: 0.001",
        "batch_norm.tf_keras",
        "epsilon=0.0078125 momentum=0.75 version=2",
    ),
    (
        "batch_norm",
        'running_mean: {is: "mean: channel"',
        'running_mean: {is: "variance: channel"',
        "batch_norm.torch",
        "num_features=5",
    ),
    (
        "group_norm",
        "gamma: (group channel)",
        "gamma: (channel group)",
        "group_norm.torch",
        "num_groups=2 num_channels=6 bias=false",
    ),
    (
        "dense",
        'kernel: output input", when: {transB: 1}',
        'kernel: output input", when: {transB: 0}',
        "dense.onnx",
        "transB=1",
    ),
    (
        "attention",
        "({w_q | w_k | w_v} kv head) embed_q",
        "({w_k | w_q | w_v} kv head) embed_q",
        "attention.torch",
        "batch_first=false _qkv_same_embed_dim=true",
    ),
    (
        "attention",
        "w_q: embed_q (kv rep) head",
        "w_q: embed_q (rep kv) head",
        "attention.keras",
        "num_key_value_heads=3 version=3 use_bias=false",
    ),
    ("attention", "w_o: (kv rep value) out", "w_o: (kv value rep) out", "attention.onnx", "num_kv_heads=3"),
]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: f"{plant[3]}: {plant[2][:40]}")
def test_a_mistake_in_a_spec_is_found(plant: tuple[str, str, str, str, str], tmp_path: Path, reg: Registry) -> None:
    name, right, wrong, file, ending = plant
    folder = tmp_path / "specs"
    folder.mkdir()
    text = (builtin_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    assert right in text
    (folder / f"{name}.yaml").write_text(text.replace(right, wrong), encoding="utf-8")
    for other in builtin_folder().glob("*.yaml"):
        if other.read_text(encoding="utf-8").startswith("framework:"):
            shutil.copy(other, folder)
    planted = load_registry([folder])
    cases = [case for case in read(FOLDER / f"{file}.npz") if case.name.endswith(ending)]
    assert cases, ending
    assert all(check(case, reg) <= TOLERANCE[case.dtype] for case in cases)
    for case in cases[:1]:
        try:
            error = check(case, planted)
        except LayoutxError:
            continue  # a refusal is as good: the spec does not fit the weights any more
        assert error > 1e-3, f"{case.name}: {error}"


def test_a_beta_in_the_place_of_gamma_is_found(tmp_path: Path) -> None:
    text = (builtin_folder() / "layer_norm.yaml").read_text(encoding="utf-8")
    swapped = re.sub(
        "gamma: features|beta: features", lambda m: "beta: features" if "gamma" in m[0] else "gamma: features", text
    )
    assert swapped != text
    (tmp_path / "layer_norm.yaml").write_text(swapped, encoding="utf-8")
    planted = load_registry([tmp_path])
    for file, ending in (("layer_norm.keras", "(2, 7) version=3"), ("layer_norm.torch", "normalized_shape=7")):
        assert check(case_of(file, ending), planted) > 1e-3


def test_changed_names_order_and_outputs_are_found(reg: Registry) -> None:
    case = case_of("lstm.torch", "batch_first=true num_layers=2")
    turned = dict(reversed(case.tensors.items()))
    with pytest.raises(VerificationError, match=r"torch \d.* stores bias_hh_l1"):
        check(replace(case, tensors=turned), reg)
    off = {name: array + (1e-6 if name == "c" else 0) for name, array in case.outputs.items()}
    assert check(replace(case, outputs=off), reg) > TOLERANCE["float64"]
    with pytest.raises(VerificationError, match="y has shape"):
        check(replace(case, outputs={**case.outputs, "y": case.outputs["y"][:, 1:]}), reg)
    with pytest.raises(VerificationError, match="torch gave y, h; by the spec there are y, h, c"):
        check(replace(case, outputs={k: v for k, v in case.outputs.items() if k != "c"}), reg)


def test_files_are_read_as_written(tmp_path: Path) -> None:
    cases = read(FOLDER / "batch_norm.torch.npz")
    write(tmp_path / "x.npz", cases)
    for old, new in zip(cases, read(tmp_path / "x.npz"), strict=True):
        assert (old.name, json.dumps(old.config)) == (new.name, json.dumps(new.config))
        for group in ("tensors", "inputs", "outputs"):
            for (a, left), (b, right) in zip(getattr(old, group).items(), getattr(new, group).items(), strict=True):
                assert a == b
                assert left.dtype == right.dtype
                np.testing.assert_array_equal(left, right)
