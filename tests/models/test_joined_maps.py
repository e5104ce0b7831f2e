"""Speech and text in pictures: a map becomes a sequence whose features are channels and positions, in either order."""

from __future__ import annotations

import numpy as np
import pytest

import layoutx as lx

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
L, nn = keras.layers, torch.nn


def listened(middle, shape=(32, 16, 1), head=None):
    """Two convolutions, then the features of each step of the first axis of the map."""
    x = inputs = keras.Input(shape)
    x = L.MaxPooling2D()(L.Conv2D(6, 3, padding="same", activation="relu")(x))
    x = L.MaxPooling2D()(L.ReLU()(L.BatchNormalization()(L.Conv2D(5, 3, padding="same")(x))))
    x = (head or L.Bidirectional(L.LSTM(7, return_sequences=True)))(middle(x))
    model = keras.Model(inputs, L.Dense(11)(x))
    random = np.random.default_rng(7)
    model.set_weights([np.abs(w + random.normal(0, 0.1, w.shape)) if w.ndim == 1 else w for w in model.get_weights()])
    return model


class Reader(nn.Module):
    """The same; `joined` says how the map (batch, 5, time 8, 4) becomes a sequence."""

    def __init__(self, joined, kind="lstm"):
        super().__init__()
        self.low, self.high, self.norm = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.norm.eps = 1e-3
        self.steps = nn.LSTM(20, 7, bidirectional=True, batch_first=kind == "lstm") if kind != "conv" else None
        self.steps = self.steps or nn.Conv1d(20, 14, 3, padding=1)
        self.head, self.joined, self.kind = nn.Linear(14, 11), joined, kind

    def forward(self, x):
        x = torch.max_pool2d(self.low(x).relu(), 2)
        x = self.joined(torch.max_pool2d(self.norm(self.high(x)).relu(), 2))
        if self.kind == "conv":
            return self.head(self.steps(x.transpose(1, 2)).transpose(1, 2))
        if self.kind == "time first":
            return self.head(self.steps(x.transpose(0, 1))[0].transpose(0, 1))
        return self.head(self.steps(x)[0])


def channels_first(x):
    return x.permute(0, 2, 1, 3).flatten(2)


def channels_last(x):
    return x.permute(0, 2, 3, 1).flatten(2)


def computed_sizes(x):
    batch, channels, time, rest = x.shape
    return x.permute(0, 2, 1, 3).reshape(batch, time, channels * rest)


def turned(x):
    return x.permute(0, 3, 1, 2).flatten(2)


def cut_across(x):
    batch, channels, time, rest = x.shape
    return x.reshape(batch, time, channels * rest)


CASES = {
    "channels first": (lambda: listened(L.Reshape((8, 20))), lambda: Reader(channels_first)),
    "channels last": (lambda: listened(L.Reshape((8, 20))), lambda: Reader(channels_last)),
    "sizes computed": (lambda: listened(L.Reshape((8, 20))), lambda: Reader(computed_sizes)),
    "of any length": (lambda: listened(L.Reshape((-1, 20)), (None, 16, 1)), lambda: Reader(channels_first)),
    "an operation": (lambda: listened(lambda x: keras.ops.reshape(x, (-1, 8, 20))), lambda: Reader(channels_first)),
    "turned before": (
        lambda: listened(lambda x: L.Reshape((8, 20))(L.Permute((2, 1, 3))(x)), (16, 32, 1)),
        lambda: Reader(turned),
    ),
    "time first": (lambda: listened(L.Reshape((8, 20))), lambda: Reader(channels_first, "time first")),
    "convolved": (
        lambda: listened(L.Reshape((8, 20)), head=L.Conv1D(14, 3, padding="same")),
        lambda: Reader(channels_first, "conv"),
    ),
    "convolved, last": (
        lambda: listened(L.Reshape((8, 20)), head=L.Conv1D(14, 3, padding="same")),
        lambda: Reader(channels_last, "conv"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_features_of_a_step_are_ordered_as_the_target_joins_them(case):
    source, target = (build() for build in CASES[case])
    target.eval()
    assert lx.port(source, target).end_to_end.agrees
    back = CASES[case][0]()
    assert lx.port(target, back).end_to_end.agrees
    for one, other in zip(source.get_weights(), back.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_target_that_cuts_the_map_across_is_refused():
    with pytest.raises(lx.LayoutxError, match="could not be followed") as caught:
        lx.port(listened(L.Reshape((8, 20))), Reader(cut_across))
    assert 'Reshape "' in str(caught.value)
    assert "--like" not in str(caught.value)


@pytest.mark.parametrize("head", [L.LSTM, L.Conv1D], ids=["steps", "convolved"])
def test_names_and_shapes_alone_do_not_tell_the_order(head, tmp_path):
    layer = head(14, name="read") if head is L.LSTM else head(14, 3, name="read")
    if head is L.LSTM:
        layer = L.LSTM(14, return_sequences=True, name="read")
    listened(L.Reshape((8, 20)), head=layer).save(tmp_path / "m.keras")
    with pytest.raises(lx.LayoutxError, match=r"axis of read is not known") as caught:
        lx.convert(tmp_path / "m.keras", tmp_path / "o.safetensors", to="torch")
    assert "--keep-order read" in str(caught.value)
    assert "--like" in str(caught.value)
    lx.convert(tmp_path / "m.keras", tmp_path / "o.safetensors", to="torch", keep_order=["read"])


def test_groups_that_mix_channels_and_positions_are_refused(tmp_path):
    grouped = L.Conv1D(14, 3, groups=2, name="read")
    listened(L.Reshape((8, 20)), head=grouped).save(tmp_path / "m.keras")
    with pytest.raises(lx.LayoutxError, match="groups mix channels and positions"):
        lx.convert(tmp_path / "m.keras", tmp_path / "o.safetensors", to="torch")


@pytest.mark.parametrize("first", [True, False])
def test_lengths_that_nobody_knows_before_a_run(first):
    """DeepSpeech 2: of a spectrogram of any length, of which the convolutions leave nothing where it is short."""
    given = keras.Input((None, 20))
    x = L.Reshape((-1, 20, 1))(given)
    x = L.ReLU()(L.Conv2D(4, (11, 7), strides=(2, 2))(x))
    x = L.ReLU()(L.Conv2D(6, (5, 3), strides=(1, 2))(x))
    x = L.Reshape((-1, 18))(x)
    source = keras.Model(given, L.Dense(11)(L.Bidirectional(L.GRU(5, return_sequences=True))(x)))
    random = np.random.default_rng(7)
    source.set_weights([random.normal(0, 0.3, w.shape) for w in source.get_weights()])

    class Speech(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.steps = nn.Linear(10, 11), nn.GRU(18, 5, bidirectional=True, batch_first=True)
            self.high, self.low = nn.Conv2d(4, 6, (5, 3), (1, 2)), nn.Conv2d(1, 4, (11, 7), (2, 2))

        def forward(self, x):
            x = self.high(self.low(x.unsqueeze(1)).relu()).relu()
            b, c, t, f = x.shape
            x = x.permute(0, 2, 1, 3).reshape(b, t, c * f) if first else x.permute(0, 2, 3, 1).reshape(b, t, f * c)
            return self.head(self.steps(x)[0])

    target = Speech()
    assert lx.port(source, target).end_to_end.agrees
    data = random.normal(size=(2, 41, 20)).astype("float32")
    np.testing.assert_allclose(np.asarray(source(data)), target(torch.from_numpy(data)).detach().numpy(), atol=1e-5)


def test_operations_are_followed_as_layers_are():
    inputs = keras.Input((12, 8, 3))
    x = keras.ops.transpose(L.Conv2D(5, 3, padding="same")(inputs), (0, 2, 1, 3))
    x = L.Dense(7)(keras.ops.reshape(x, (-1, 8, 60)))
    source = keras.Model(inputs, x)

    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.low, self.head = nn.Conv2d(3, 5, 3, padding=1), nn.Linear(60, 7)

        def forward(self, x):
            return self.head(self.low(x).permute(0, 3, 1, 2).flatten(2))

    assert lx.port(source, Turned()).end_to_end.agrees


def test_errors_of_keras_come_without_its_colours():
    """Keras writes them in bold, which a terminal would obey and a note in a certificate would keep."""
    from layoutx.verify.plain import said as briefly
    from layoutx.verify.running.given import said

    model = keras.Sequential([keras.Input((5,)), L.Dense(3)])
    with pytest.raises(ValueError, match="incompatible") as problem:
        model(np.zeros((2, 7), "float32"))
    assert "\x1b" not in said(problem.value) + briefly(ValueError("\x1b[1mbold\x1b[0m"))
    assert said(ValueError("\x1b[1mbold\x1b[0m words")) == "bold words"
