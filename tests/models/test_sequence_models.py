"""Sequence models between Keras and torch: masks, first states, shared layers, one direction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import LayoutxError

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
nn = torch.nn
L = keras.layers
RNG = np.random.default_rng(5)
TOKENS = np.array([[3, 4, 5, 0, 0], [1, 2, 3, 4, 5], [7, 0, 0, 0, 0]], "int32")


def filled(model: Any) -> Any:
    for weight in model.weights:
        weight.assign(RNG.normal(size=tuple(weight.shape)) * 0.4)
    return model


def packed(x: Any, tokens: Any) -> Any:
    lengths = (tokens != 0).sum(1).cpu()
    return nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)


class Reader(nn.Module):
    """Embedding, LSTM, Linear on the last state; `mask`: whether padded steps are left out."""

    def __init__(self, mask: bool, both: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(23, 7)
        self.lstm = nn.LSTM(7, 5, batch_first=True, bidirectional=both)
        self.head = nn.Linear(10 if both else 5, 2)
        self.mask = mask

    def forward(self, tokens: Any) -> Any:
        x = self.embed(tokens)
        h = self.lstm(packed(x, tokens) if self.mask else x)[1][0]
        return self.head(torch.cat([*h], -1))


def masked(both: bool) -> Any:
    lstm = L.LSTM(5)
    layers = [L.Embedding(23, 7, mask_zero=True), L.Bidirectional(lstm) if both else lstm, L.Dense(2)]
    return filled(keras.Sequential([keras.Input((None,), dtype="int32"), *layers]))


@pytest.mark.parametrize("both", [False, True])
def test_a_mask_and_a_packed_sequence(both: bool) -> None:
    source, target = masked(both), Reader(True, both)
    assert lx.port(source, target).end_to_end.agrees
    with torch.no_grad():
        assert np.allclose(target(torch.tensor(TOKENS)).numpy(), source(TOKENS), atol=1e-5)
    found = lx.validate(source, target, [TOKENS])
    assert found.ok, str(found)
    assert all(check.verdict == "OK" for check in found.checks)


@pytest.mark.parametrize("both", [False, True])
def test_a_mask_that_the_target_lacks_is_named(both: bool) -> None:
    source, target = masked(both), Reader(False, both)
    with pytest.raises(LayoutxError, match="mask_zero"):  # the probes end with what is left out
        lx.port(source, target)
    lx.port(source, target, compare=False)
    found = lx.validate(source, target, [TOKENS])
    assert not found.ok
    assert "pack_padded_sequence" in str(found).replace("\n", "")
    assert all(check.verdict == "OK" for check in found.checks if check.layer != "output")


def test_a_wrong_weight_behind_a_mask() -> None:
    source, target = masked(True), Reader(True, True)
    lx.port(source, target)
    with torch.no_grad():
        target.lstm.weight_hh_l0_reverse.mul_(1.5)
    found = lx.validate(source, target, [TOKENS])
    assert [check.layer.rpartition(".")[2] for check in found.checks if not check.ok][:1] == ["backward"]


def test_masking_of_numbers_is_probed() -> None:
    layers = [L.Masking(-1.0), L.GRU(5, return_sequences=True), L.GRU(5), L.Dense(2)]
    source = filled(keras.Sequential([keras.Input((6, 7)), *layers]))

    class Blind(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(7, 5, 2, batch_first=True)
            self.head = nn.Linear(5, 2)

        def forward(self, x: Any) -> Any:
            return self.head(self.gru(x)[1][-1])

    with pytest.raises(LayoutxError, match="masked steps"):
        lx.port(source, Blind())


class Pair(nn.Module):
    """Encoder and decoder of two layers each, their states handed on or not."""

    def __init__(self, hand_on: bool = True) -> None:
        super().__init__()
        self.encoder = nn.LSTM(7, 5, 2, batch_first=True)
        self.decoder = nn.LSTM(3, 5, 2, batch_first=True)
        self.head = nn.Linear(5, 4)
        self.hand_on = hand_on

    def forward(self, a: Any, b: Any) -> Any:
        states = self.encoder(a)[1]
        return self.head(self.decoder(b, states if self.hand_on else None)[0])


def encoder_decoder() -> Any:
    a, b = keras.Input((None, 7)), keras.Input((None, 3))
    x, h1, c1 = L.LSTM(5, return_state=True, return_sequences=True, name="e1")(a)
    _, h2, c2 = L.LSTM(5, return_state=True, name="e2")(x)
    y = L.LSTM(5, return_sequences=True, name="d1")(b, initial_state=[h1, c1])
    y = L.LSTM(5, return_sequences=True, name="d2")(y, initial_state=[h2, c2])
    return filled(keras.Model([a, b], L.Dense(4, name="head")(y)))


def test_first_states_of_stacks() -> None:
    source, target = encoder_decoder(), Pair()
    lx.port(source, target)
    inputs = [RNG.normal(size=(4, 6, 7)), RNG.normal(size=(4, 3, 3))]
    for a, b in ((source, target), (target, source)):
        found = lx.validate(a, b, inputs)
        assert found.ok, str(found)
    forgot = Pair(hand_on=False)
    forgot.load_state_dict(target.state_dict())
    found = lx.validate(source, forgot, inputs)
    assert found.first == "d1" or "d1" in str(found.first)
    assert "begins with states" in str(found)


def test_a_shared_layer_called_in_another_order() -> None:
    a, b = keras.Input((None,), dtype="int32"), keras.Input((None,), dtype="int32")
    embed = L.Embedding(23, 7, name="embed")
    _, h, c = L.LSTM(5, return_state=True, name="enc")(embed(a))
    y = L.LSTM(5, return_sequences=True, name="dec")(embed(b), initial_state=[h, c])
    source = filled(keras.Model([a, b], L.Dense(3, name="head")(y)))

    class Shared(nn.Module):
        def __init__(self, swap: bool = False) -> None:
            super().__init__()
            self.embed = nn.Embedding(23, 7)
            self.enc = nn.LSTM(7, 5, batch_first=True)
            self.dec = nn.LSTM(7, 5, batch_first=True)
            self.head = nn.Linear(5, 3)
            self.swap = swap

        def forward(self, a: Any, b: Any) -> Any:
            h, c = self.enc(self.embed(a))[1]
            return self.head(self.dec(self.embed(b), (c, h) if self.swap else (h, c))[0])

    target = Shared()
    lx.port(source, target)
    inputs = [RNG.integers(0, 23, (4, n)).astype("int32") for n in (6, 3)]
    for one, other in ((source, target), (target, source)):
        found = lx.validate(one, other, inputs)
        assert found.ok, str(found)
    wrong = Shared(swap=True)
    wrong.load_state_dict(target.state_dict())
    found = lx.validate(source, wrong, inputs)
    assert all(check.ok for check in found.checks if check.layer == "dec")  # its weights are right
    assert [gap.after for gap in found.gaps] == ["dec"]


@pytest.mark.parametrize("end", ["", "_reverse"])
def test_gates_of_one_direction_and_a_fix_that_runs(end: str) -> None:
    layers = [L.Bidirectional(L.LSTM(5, return_sequences=True), name=name) for name in ("one", "two")]
    source = filled(keras.Sequential([keras.Input((None, 7)), *layers]))

    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(7, 5, 2, batch_first=True, bidirectional=True)

        def forward(self, x: Any) -> Any:
            return self.rnn(x)[0]

    target = Stack()
    lx.port(source, target)
    with torch.no_grad():
        for name, value in target.rnn.named_parameters():
            if name.endswith(f"l1{end}"):
                i, f, g, o = value.clone().chunk(4)
                value.copy_(torch.cat([i, g, f, o]))
    x = RNG.normal(size=(4, 6, 7))
    found = lx.diagnose(source, target, [x])
    (edit,) = found.layers[0].explanations[0].edits
    assert edit.mode == "F3"
    assert ("backward" if end else "forward") in edit.what
    for line in edit.code.splitlines():
        exec(line, {"torch": torch, "model": target})
    assert lx.validate(source, target, [x]).ok


def test_maps_in_time_have_their_channels_behind_time() -> None:
    x = keras.Input((4, 8, 8, 2))
    maps = L.TimeDistributed(L.Conv2D(5, 3, padding="same"), name="conv")(x)
    source = filled(keras.Model(x, [maps, L.Dense(2, name="head")(L.GlobalAveragePooling3D()(maps))]))

    class Video(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(2, 5, 3, padding=1), nn.Linear(5, 2)

        def forward(self, x: Any) -> Any:
            y = self.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2])
            return y, self.head(y.mean((1, 3, 4)))

    target = Video()
    assert lx.port(source, target).end_to_end.agrees
    assert lx.validate(source, target).ok


def test_a_recurrent_layer_of_flattened_maps_is_proved_in_torch_itself() -> None:
    x = keras.Input((4, 5, 7))
    flat = L.TimeDistributed(L.Flatten())(L.TimeDistributed(L.Conv1D(3, 2))(x))
    source = filled(keras.Model(x, L.GRU(11, name="gru")(flat)))

    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.gru = nn.Conv1d(7, 3, 2), nn.GRU(12, 11)

        def forward(self, x: Any) -> Any:
            return self.gru(torch.stack([self.conv(step).flatten(1) for step in x.unbind(1)]))[1][0]

    report = lx.port(source, Rows())
    assert report.end_to_end.agrees
    assert "refused the probe" not in str(report)


def test_inputs_with_time_before_batch_are_said_first() -> None:
    source = filled(keras.Sequential([keras.Input((6, 7)), L.GRU(5, return_sequences=True)]))

    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(7, 5)

        def forward(self, x: Any) -> Any:
            return self.gru(x)[0]

    target = Late()
    lx.port(source, target, compare=False)
    found = lx.validate(source, target, [RNG.normal(size=(4, 6, 7))])
    assert "time before batch" in " ".join(str(found).split("\n\n")[0].split())


class Projected(nn.Module):
    """An LSTM whose hidden states are projected; what comes out of it is read by a Linear."""

    def __init__(self, hidden: int, proj: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, hidden, num_layers=2, proj_size=proj, bidirectional=True)
        self.head = nn.Linear(2 * (proj or hidden), 2)

    def forward(self, x: Any) -> Any:
        return self.head(self.rnn(x)[0])


def test_a_projected_lstm_has_a_place() -> None:
    source, target, x = Projected(7, 5), Projected(7, 5), torch.tensor(RNG.normal(size=(11, 2, 3)).astype("float32"))
    lx.port(source, target)
    with torch.no_grad():
        np.testing.assert_array_equal(target(x).numpy(), source(x).numpy())
    with pytest.raises(LayoutxError, match="no place in the torch model fits rnn"):
        lx.port(source, Projected(7, 0), skip=["head"])  # without the projection it is another function
