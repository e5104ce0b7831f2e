"""Tables of positions whose first rows no position reads: counted from behind the padding row on."""

from __future__ import annotations

import numpy as np
import pytest

import layoutx as lx

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
L, nn, ops = keras.layers, torch.nn, keras.ops
WORDS, LENGTH, WIDTH, FRONT = 23, 9, 6, 2


class Tokens(L.Layer):
    def __init__(self, **more):
        super().__init__(**more)
        self.words, self.places = L.Embedding(WORDS, WIDTH), L.Embedding(LENGTH, WIDTH)

    def call(self, x):
        return self.words(x) + self.places(ops.arange(0, ops.shape(x)[-1]))


def reader():
    inputs = keras.Input((None,), dtype="int64")
    model = keras.Model(inputs, L.Dense(5)(L.LayerNormalization(epsilon=1e-5)(Tokens()(inputs))))
    random = np.random.default_rng(11)
    model.set_weights([w + random.normal(0, 0.3, w.shape) for w in model.get_weights()])
    return model


class Shifted(nn.Embedding):
    """A class of one's own that adds the offset itself."""

    def forward(self, x):
        return super().forward(torch.arange(x.shape[1]) + FRONT)


class Reader(nn.Module):
    """`counted`: in the forward, from a mask of padding, or in a class of one's own."""

    def __init__(self, counted, rows=LENGTH + FRONT):
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        own = Shifted if counted == "class" else nn.Embedding
        self.places = own(rows, WIDTH, padding_idx=FRONT - 1)
        self.norm, self.head, self.counted = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 5), counted

    def forward(self, x):
        if self.counted == "class":
            places = self.places(x)
        elif self.counted == "mask":
            there = x.ne(FRONT - 1).int()
            places = self.places((torch.cumsum(there, 1) * there).long() + FRONT - 1)
        elif self.counted == "forward":
            places = self.places(torch.arange(FRONT, FRONT + x.shape[1]))
        else:  # from the end on: no offset makes these the same rows
            places = self.places(torch.arange(FRONT + x.shape[1], FRONT, -1))
        return self.head(self.norm(self.words(x) + places))


@pytest.mark.parametrize("counted", ["forward", "mask", "class"])
def test_positions_lie_behind_the_rows_of_padding(counted):
    source, target = reader(), Reader(counted).eval()
    report = lx.port(source, target)
    assert report.end_to_end.agrees
    table = next(layer for layer in source.layers if isinstance(layer, Tokens)).places.get_weights()[0]
    np.testing.assert_array_equal(target.places.weight.detach().numpy(), np.vstack([np.zeros((FRONT, WIDTH)), table]))
    nn.init.normal_(target.places.weight[:FRONT].detach())  # what no position reads does not come back
    back = reader()
    assert lx.port(target, back).end_to_end.agrees
    for one, other in zip(source.get_weights(), back.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("counted", ["forward", "class"])
def test_validate_compares_what_is_looked_up(counted):
    source, target = reader(), Reader(counted).eval()
    lx.port(source, target)
    assert lx.validate(source, target).ok
    assert lx.validate(target, source).ok
    target.places.weight.data[FRONT:] = target.places.weight.data[FRONT:].flip(0)
    found = lx.validate(source, target)
    assert not found.ok
    assert [check.place for check in found.checks if not check.ok] == ["places"]
    assert "weight of places holds the source's rows in another order" in lx.diagnose(found).gaps[0].what


def test_positions_that_were_loaded_from_the_first_row_on_are_named():
    source, target = reader(), Reader("forward").eval()
    lx.port(source, target)
    target.places.weight.data[:LENGTH] = target.places.weight.data[FRONT:].clone()
    found = lx.diagnose(source, target)
    assert found.explained
    assert [(one.mode, one.layer != "") for one in found.gaps] == [("F37", True)]
    assert f"weight of places holds the source's rows {FRONT} too early" in found.gaps[0].what


def test_a_position_that_no_input_has_is_compared_too():
    source, target = reader(), Reader("forward").eval()
    lx.port(source, target)
    target.places.weight.data[-1].neg_()
    found = lx.validate(source, target, np.random.default_rng(1).integers(2, WORDS, (3, 7)))
    assert all(check.ok for check in found.end_to_end)
    assert [check.place for check in found.checks if check.verdict == "NOT REACHED"] == ["places"]
    assert "in 1 of 11 rows (10), which no input of this run reaches" in lx.diagnose(found).gaps[0].what


def test_a_table_that_is_read_otherwise_has_no_place():
    with pytest.raises(lx.LayoutxError, match=f"the table there has {FRONT} rows more"):
        lx.port(reader(), Reader("backwards").eval())


def test_rows_that_are_neither_are_no_offset():
    with pytest.raises(lx.LayoutxError, match="has 3 rows more"):
        lx.port(reader(), Reader("forward", LENGTH + 3).eval())


def test_a_file_does_not_tell_where_positions_begin_and_the_user_may(tmp_path):
    source = reader()
    torch.save(Reader("forward").state_dict(), tmp_path / "t.pt")
    source.save_weights(tmp_path / "m.weights.h5")
    said = {"to": "torch", "like": tmp_path / "t.pt", "forms": {"tokens/*": "keras.Embedding"}}
    with pytest.raises(lx.LayoutxError, match="--set offset=2"):
        lx.convert(tmp_path / "m.weights.h5", tmp_path / "o.pt", **said)
    lx.convert(tmp_path / "m.weights.h5", tmp_path / "o.pt", **said, values={"places.offset": FRONT})
    target = Reader("forward").eval()
    target.load_state_dict(torch.load(tmp_path / "o.pt"))
    x = np.random.default_rng(1).integers(2, WORDS, (3, 7))
    np.testing.assert_allclose(target(torch.from_numpy(x)).detach().numpy(), np.asarray(source(x)), atol=1e-5)
