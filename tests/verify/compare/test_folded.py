"""Batch norms that one model has folded into its convolutions, compared after the norm; weights in half precision."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the models compared here are torch's")

from torch import nn  # noqa: E402
from torch.nn.utils.fusion import fuse_conv_bn_eval  # noqa: E402

from layoutx.diagnose import diagnose  # noqa: E402
from layoutx.match import match  # noqa: E402
from layoutx.relate import relate  # noqa: E402
from layoutx.validate import validate  # noqa: E402

X = np.random.default_rng(20261121).normal(size=(2, 3, 9, 7))
PAIRS = (("c1", "b1"), ("c2", "b2"), ("dw", "b3"))


class Net(nn.Module):
    """A convolution without a bias, a square one with it, a depthwise one; each with a norm of its own."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.c1, self.b1 = nn.Conv2d(3, 5, (3, 2), bias=False), nn.BatchNorm2d(5, eps=1e-3)
        self.c2, self.b2 = nn.Conv2d(5, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.dw, self.b3 = nn.Conv2d(5, 10, 3, groups=5), nn.BatchNorm2d(10)
        self.fc = nn.Linear(10, 7)
        for norm in (self.b1, self.b2, self.b3):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias)
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)

    def forward(self, x):
        x = torch.relu(self.b1(self.c1(x)))
        x = torch.relu(self.b3(self.dw(torch.relu(self.b2(self.c2(x))))))
        return self.fc(x.mean((2, 3)))


def net():
    return Net().eval()


def folded(eps: float | None = None, only=PAIRS):
    made = net()
    if eps is not None:
        made.b1.eps = eps
    for conv, norm in only:
        setattr(made, conv, fuse_conv_bn_eval(getattr(made, conv), getattr(made, norm)))
        setattr(made, norm, nn.Identity())
    return made


def verdicts(found):
    return {check.layer: check.verdict for check in found.checks}


@pytest.mark.parametrize("back", [False, True])
def test_folded_norms_are_compared_with_their_convolutions(back):
    pair = (folded(), net()) if back else (net(), folded())
    found = validate(*pair, X)
    assert found.ok, str(found)
    assert set(verdicts(found)) == {"c1", "c2", "dw", "fc"}
    assert not found.lost
    assert not found.unused
    whose = "source" if back else "target"
    assert f"3 batch norms are folded into the convolution before them in the {whose} (b1 into c1" in found.notes[0]


@pytest.mark.parametrize("back", [False, True])
def test_an_eps_that_is_not_the_norms_own_is_named(back):
    found = validate(*((folded(eps=1e-5), net()) if back else (net(), folded(eps=1e-5))), X)
    assert not found.ok
    assert found.notes[1] == "b1 is folded with eps=1e-05, its own is 0.001"
    assert not any("eps" in note for note in validate(net(), folded(), X).notes)


@pytest.mark.parametrize(("back", "mode"), [(False, "F2"), (True, "F17")])
def test_a_kernel_that_lies_otherwise_is_found_below_a_folded_norm(back, mode):
    """The bias tells that the norm is in it; then the kernel is searched as any other, up to what folding rounds."""
    right, wrong = (folded(), net()) if back else (net(), folded())
    with torch.no_grad():
        kernel = wrong.c2.weight
        kernel.copy_((kernel.transpose(0, 1) if mode == "F2" else kernel.flip(2, 3)).clone())
    found = diagnose(right, wrong, X)
    assert [one.suspect.name for one in found.layers] == ["c2"]
    assert found.layers[0].explanations[0].edits[0].mode == mode


@pytest.mark.parametrize("back", [False, True])
def test_another_eps_of_a_folded_norm_is_told_where_it_is_asked_why(back):
    pair = (folded(eps=1e-5), net()) if back else (net(), folded(eps=1e-5))
    (told,) = [one for one in diagnose(*pair, X).remarks if one.mode == "F8"]
    assert told.what == "the norm b1 is folded with eps=1e-05, its own is 0.001"
    assert told.do == "b1.eps = 1e-05, or fold it again with 0.001"


def test_no_eps_is_named_for_other_numbers():
    other = folded()
    with torch.no_grad():
        other.c1.weight[2] *= 1.01
    found = validate(net(), other, X)
    assert not found.ok
    assert not any("eps" in note for note in found.notes)


def test_torch_ao_fuses_the_same():
    made = torch.ao.quantization.fuse_modules(net(), [list(pair) for pair in PAIRS])
    assert validate(net(), made, X).ok


def test_some_norms_folded_and_others_not():
    found = validate(net(), folded(only=PAIRS[1:2]), X)
    assert found.ok
    assert verdicts(found)["b1"] == "OK"
    assert "b2" not in verdicts(found)


def test_a_norm_folded_with_another_eps_fails_at_its_convolution():
    found = validate(net(), folded(eps=0.3), X)
    assert not found.ok
    assert found.first.layer == "c1"
    assert found.first.verdict == "FAIL"
    assert verdicts(found)["c2"] == "OK"


def test_a_norm_that_was_forgotten_is_not_taken_for_folded():
    made = net()
    made.b2 = nn.Identity()
    found = validate(net(), made, X)
    assert not found.ok
    assert not any("folded into" in note for note in found.notes)
    assert found.lost["b2"] == "the target has no batch norm here; c2: is the convolution alone"


def test_a_norm_folded_with_unknown_numbers_says_so():
    made = folded(only=PAIRS[:1])
    with torch.no_grad():
        for tensor in (made.c1.weight, made.c1.bias):
            tensor.copy_(torch.randn_like(tensor))
    found = validate(net(), made, X)
    assert not found.ok
    assert "if it is folded in, then with other numbers" in found.lost["b1"]


@pytest.mark.parametrize(("dtype", "unit"), [("float16", "0.0005"), ("bfloat16", "0.004")])
@pytest.mark.parametrize("make", [net, folded])
def test_weights_in_half_precision_are_inaccurate_for_that_reason(dtype, unit, make):
    found = validate(net(), make().to(getattr(torch, dtype)), X)
    assert not found.ok
    assert {check.verdict for check in (*found.checks, *found.end_to_end)} == {"INACCURATE"}, str(found)
    assert {check.narrow for check in found.checks} == {dtype}
    text = " ".join(str(found).split())
    assert f"rounding of weights to {dtype}, and by nothing else" in text
    assert f"the target's weights are {dtype} (all layers), which rounds each by up to {unit}" in text


def test_half_precision_on_the_first_side():
    found = validate(net().half(), net(), X)
    assert {check.narrow for check in found.checks} == {"float16"}
    assert "source's weights are float16" in str(found)


@pytest.mark.parametrize("what", ["weight", "eps"])
def test_half_precision_hides_no_mistake(what):
    made = net().half()
    with torch.no_grad():
        if what == "weight":
            made.c2.weight[3, 2, 1, 0] += 0.02
        else:
            made.b2.eps = 0.02
    found = validate(net(), made, X)
    layer = "c2" if what == "weight" else "b2"
    wrong = {check.layer for check in found.checks if not check.narrow}
    assert wrong == {layer}
    assert verdicts(found)[layer] == "FAIL"
    assert "and by nothing else" not in str(found)
    assert f"{layer}: more than that" in " ".join(str(found).split())


def words(found):
    return {layer.names[t.name]: " ".join(t.words) for layer in found.layers for t in layer.tensors if not t.fine}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("back", [False, True])
def test_relate_names_the_norm_either_way_and_rounded(dtype, back):
    made = folded().to(getattr(torch, dtype))
    found = relate(*((made, net()) if back else (net(), made)))
    told = words(found)
    where = "is folded into it in the first file, not here" if back else "is folded in:"
    for conv, norm in PAIRS:
        assert f"batch norm {norm} {where}" in told[f"{conv}.weight"], told
        if not (back and conv == "c1"):  # c1 has no bias before the norm is folded in
            assert f"batch norm {norm} {where}" in told[f"{conv}.bias"], told
        if dtype != "float32":
            assert f"in {dtype}" in told[f"{conv}.weight"]
    assert not found.extra
    assert all(status == "folded into" for status in (w[:11] for w in found.lost.values()))


def test_relate_takes_no_other_numbers_for_a_fold():
    made = folded().half()
    with torch.no_grad():
        made.c2.weight[1] = made.c2.weight[1].flip(0)
    assert "is folded in" not in words(relate(net(), made)).get("c2.weight", "")


def test_match_tells_what_is_folded(tmp_path):
    found = match(net(), folded())
    assert found.complete
    assert dict(found.joint.folded) == {"b1": "c1", "b2": "c2", "b3": "dw"}
    assert "has folded into the convolution before" in str(found)
    found.save(tmp_path / "map.yaml")
    assert validate(net(), folded(), X, map=tmp_path / "map.yaml").ok
