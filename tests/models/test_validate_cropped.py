"""Convolutions of sequences: padded at both ends and cut again, of weights in parts, longer than what is made up."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import layoutx as lx

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
L, nn, F = keras.layers, torch.nn, torch.nn.functional
WIDTH, STEPS, NAMES = 7, 23, ("c0a", "c0b", "c1a", "c1b")


class Chomp1d(nn.Module):
    def __init__(self, cut):
        super().__init__()
        self.cut = cut

    def forward(self, x):
        return x[:, :, : -self.cut].contiguous()


class Block(nn.Module):
    """As in the first TCN: the layers are named, and held in a Sequential as well."""

    def __init__(self, wide, dilation):
        super().__init__()
        pad = 2 * dilation
        self.conv1 = nn.Conv1d(wide, WIDTH, 3, padding=pad, dilation=dilation)
        self.conv2 = nn.Conv1d(WIDTH, WIDTH, 3, padding=pad, dilation=dilation)
        self.net = nn.Sequential(self.conv1, Chomp1d(pad), nn.ReLU(), self.conv2, Chomp1d(pad), nn.ReLU())
        self.down = nn.Conv1d(wide, WIDTH, 1) if wide != WIDTH else nn.Identity()

    def forward(self, x):
        return torch.relu(self.net(x) + self.down(x))


class Tcn(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.out = Block(3, 1), Block(WIDTH, 2), nn.Linear(WIDTH, 5)

    def forward(self, x):
        return self.out(self.second(self.first(x))[:, :, -1])


class Gates(nn.Module):
    """WaveNet's: what is cut is a slice in the code, of both halves of a product."""

    def __init__(self, deep=5):
        super().__init__()
        both = [nn.ModuleList(nn.Conv1d(6, 6, 2, padding=2**n, dilation=2**n) for n in range(deep)) for _ in range(2)]
        self.filter, self.gate = both
        self.rest = nn.ModuleList(nn.Conv1d(6, 6, 1) for _ in range(deep))

    def forward(self, x):
        for filtered, gate, rest in zip(self.filter, self.gate, self.rest, strict=True):
            many = x.shape[2]
            x = x + rest(torch.tanh(filtered(x)[:, :, :many]) * torch.sigmoid(gate(x)[:, :, :many]))
        return x


def drawn(model):
    random = np.random.default_rng(7)
    model.set_weights([random.normal(0, 0.4, w.shape) for w in model.get_weights()])
    return model


def causal(x, name, dilation, activation="relu", width=WIDTH, kernel=3):
    made = L.Conv1D(width, kernel, padding="causal", dilation_rate=dilation, activation=activation, name=name)
    return made(x)


def tcn():
    x = inputs = keras.Input((STEPS, 3))
    for number, dilation in enumerate((1, 2)):
        y = causal(causal(x, f"c{number}a", dilation), f"c{number}b", dilation)
        x = L.ReLU()(L.Add()([y, x if number else L.Conv1D(WIDTH, 1, name="d0")(x)]))
    return drawn(keras.Model(inputs, L.Dense(5, name="out")(L.Flatten()(L.Cropping1D((STEPS - 1, 0))(x)))))


def gates(deep=5):
    x = inputs = keras.Input((None, 6))
    for n in range(deep):
        both = [causal(x, f"{name}{n}", 2**n, act, 6, 2) for name, act in (("f", "tanh"), ("g", "sigmoid"))]
        x = L.Add()([x, L.Conv1D(6, 1, name=f"r{n}")(L.Multiply()(both))])
    return drawn(keras.Model(inputs, x))


@pytest.fixture(scope="module")
def pair():
    source, target = tcn(), Tcn().eval()
    lx.port(source, target)
    return source, target


def test_a_convolution_whose_end_is_cut_is_right(pair) -> None:
    source, target = pair
    found = lx.validate(source, target)
    assert found.ok, str(found)
    assert found.compared == 6
    notes = {check.layer: check.note for check in found.checks}
    assert "the target crops its output outside the layer: (0, 2)" in notes["c0a"]
    assert "crops" not in notes["d0"]
    x = np.random.default_rng(3).normal(size=(2, 3, STEPS)).astype("float32")
    back = lx.validate(target, source, x)
    assert back.ok, str(back)
    assert (
        "the source crops its output outside the layer: (0, 4)"
        in {c.layer: c.note for c in back.checks}["second.conv1"]
    )


def test_slices_in_the_code_are_seen_too() -> None:
    source, target = gates(), Gates().eval()
    lx.port(source, target)
    assert lx.validate(source, target).ok


def test_a_kernel_that_is_transposed_is_found_there_and_nothing_else(pair) -> None:
    source, target = pair[0], copy.deepcopy(pair[1])
    with torch.no_grad():
        target.second.conv1.weight.copy_(target.second.conv1.weight.permute(1, 0, 2).clone())
    found = lx.diagnose(source, target)
    assert [one.suspect.name for one in found.layers] == ["c1a"]
    assert found.layers[0].explanations[0].edits[0].mode == "F2"
    assert not found.gaps
    assert "inf away" not in str(found)


def test_padding_that_is_not_cut_is_wrong(pair) -> None:
    """`same` in the place of causal keeps the size; numbers at both ends that nobody cuts do not."""
    source, target = pair[0], copy.deepcopy(pair[1])
    target.second.net[1], target.second.conv1.padding = nn.Identity(), (2,)
    found = lx.diagnose(source, target)
    assert [one.suspect.name for one in found.layers] == ["c1a"]
    assert found.layers[0].explanations[0].edits[0].mode == "F7"
    inputs = keras.Input((STEPS, 3))
    wide = drawn(keras.Model(inputs, L.GlobalAveragePooling1D()(L.Conv1D(WIDTH, 3, name="c")(inputs))))

    class Wider(nn.Module):
        def __init__(self):
            super().__init__()
            self.c = nn.Conv1d(3, WIDTH, 3, padding=1)

        def forward(self, x):
            return self.c(x).mean(-1)

    target = Wider().eval()
    lx.port(wide, target, compare=False)
    found = lx.validate(wide, target)
    assert [check.verdict for check in found.checks] == ["FAIL"], str(found)


@pytest.mark.parametrize("old", [True, False], ids=["hooks", "parametrizations"])
def test_weights_in_parts_are_compared_as_they_are_computed(pair, old) -> None:
    """A TCN of torch has weight_norm: nothing is written where models are compared, so nobody has to ask for it."""
    source, target = pair[0], copy.deepcopy(pair[1])
    norm = nn.utils.weight_norm if old else nn.utils.parametrizations.weight_norm
    for module in [
        module for module in target.modules() if isinstance(module, nn.Conv1d) and module.kernel_size[0] > 1
    ]:
        norm(module)
    assert lx.match(source, target).complete
    found = lx.validate(source, target)
    assert found.ok, str(found)
    assert found.compared == 6
    moved = lx.diff(target, source)
    assert {one.name for one in moved.layers} >= {"first.conv1", "second.conv2"}
    x = np.random.default_rng(3).normal(size=(2, 3, STEPS)).astype("float32")
    assert lx.validate(target, source, x).ok  # the source is copied, hooks and all
    lx.port(target, source, materialise=True)  # shared by two names, computed once
    with torch.no_grad():
        part = target.second.conv1.weight_v if old else target.second.conv1.parametrizations.weight.original1
        part.copy_(part.permute(1, 0, 2).clone())
    wrong = lx.validate(source, target)
    assert [check.layer for check in wrong.checks if not check.ok] == ["c1a"]


def test_made_inputs_are_as_long_as_the_windows_need() -> None:
    """Of 7 steps a pool of 4 behind a kernel of 7 leaves nothing: made inputs are long ones then, as in `port`."""
    inputs = keras.Input((None, 3))
    x = L.MaxPooling1D(4)(L.Conv1D(5, 7, activation="relu", name="c1")(inputs))
    source = drawn(keras.Model(inputs, L.GlobalAveragePooling1D()(L.Conv1D(5, 9, strides=2, name="c2")(x))))

    class Sound(nn.Module):
        def __init__(self):
            super().__init__()
            self.c1, self.c2 = nn.Conv1d(3, 5, 7), nn.Conv1d(5, 5, 9, stride=2)

        def forward(self, x):
            return self.c2(F.max_pool1d(torch.relu(self.c1(x)), 4)).mean(-1)

    target = Sound().eval()
    lx.port(source, target)
    found = lx.validate(source, target)
    assert found.ok, str(found)
    assert any("since the models do not run on 3×7×3" in note for note in found.notes)
    for module in (target.c2, target.c1):
        module.forward = lambda x: x.nosuch  # a model that runs on nothing says so, whatever was made
    refused = lx.validate(source, target)
    assert not refused.ok
    assert "the target does not run on these inputs" in str(refused)


def test_branches_that_are_joined_in_another_order_are_named_in_the_source_s() -> None:
    inputs = keras.Input((8, 8, 3))
    a, b = (L.Conv2D(5, 3, name=name)(inputs) for name in ("near", "far"))
    source = drawn(keras.Model(inputs, L.Conv2D(4, 1, name="out")(L.Concatenate()([b, a]))))

    class Joined(nn.Module):
        def __init__(self, turned):
            super().__init__()
            self.near, self.far, self.out = nn.Conv2d(3, 5, 3), nn.Conv2d(3, 5, 3), nn.Conv2d(10, 4, 1)
            self.turned = turned

        def forward(self, x):
            both = [self.near(x), self.far(x)]
            return self.out(torch.cat(both if self.turned else both[::-1], 1))

    right, wrong = Joined(False).eval(), Joined(True).eval()
    lx.port(source, right)
    assert lx.validate(source, right).ok
    wrong.load_state_dict(right.state_dict())
    (gap,) = lx.diagnose(source, wrong).gaps
    assert "the source does: far, near side by side; the target does: near, far side by side" in gap.what
    assert gap.code.startswith("x = torch.cat([far, near], dim)")
