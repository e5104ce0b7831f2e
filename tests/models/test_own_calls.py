"""What a user's own Keras class does in its `call` is followed: a Dense behind a Flatten gets its rows in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import LayoutxError

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
nn = torch.nn
L = keras.layers
RNG = np.random.default_rng(8)
UNTRACED = "of which only its code tells what it makes"


def filled(model: Any) -> Any:
    for weight in model.weights:
        weight.assign(abs(RNG.normal(size=tuple(weight.shape))) * 0.4 + 0.1)
    return model


@keras.saving.register_keras_serializable("own")
class Block(L.Layer):
    """A residual block of one convolution."""

    def __init__(self, channels: int, rank: int = 2, untold: bool = False, **more: Any) -> None:
        super().__init__(**more)
        kind = {1: L.Conv1D, 2: L.Conv2D}[rank]
        self.channels, self.rank, self.untold = channels, rank, untold
        self.conv, self.norm = kind(channels, 3, padding="same", name="conv"), L.BatchNormalization(name="norm")

    def call(self, x: Any) -> Any:
        y = keras.ops.relu(x + self.norm(self.conv(x)))
        if self.untold and isinstance(y, keras.KerasTensor):
            raise ValueError("numbers are needed")
        return y

    def build(self, shape: Any) -> None:
        self.conv.build(shape)
        self.norm.build(shape)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "channels": self.channels, "rank": self.rank, "untold": self.untold}


class Untold(Block):
    """A block whose `call` cannot be run on symbolic tensors by hand."""

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor(x.shape, x.dtype)


class Around(L.Layer):
    """A block that holds a block and a model."""

    def __init__(self, channels: int, **more: Any) -> None:
        super().__init__(**more)
        self.first = Block(channels, name="first")
        self.second = keras.Sequential([L.Conv2D(channels, 1, name="point"), L.LeakyReLU()], name="second")

    def call(self, x: Any) -> Any:
        return 0.5 * self.second(self.first(x)) + x


class TorchBlock(nn.Module):
    def __init__(self, channels: int, rank: int = 2) -> None:
        super().__init__()
        conv, norm = {1: (nn.Conv1d, nn.BatchNorm1d), 2: (nn.Conv2d, nn.BatchNorm2d)}[rank]
        self.conv, self.norm = conv(channels, channels, 3, padding=1), norm(channels, eps=1e-3)

    def forward(self, x: Any) -> Any:
        return torch.relu(x + self.norm(self.conv(x)))


class TorchAround(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = TorchBlock(channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.LeakyReLU(0.3))

    def forward(self, x: Any) -> Any:
        return 0.5 * self.second(self.first(x)) + x


class Whole(nn.Module):
    """A convolution, blocks and a Dense; `last`: the map is flattened with its channels last."""

    def __init__(self, blocks: list[Any], rows: int, channels: int, last: bool, rank: int = 2) -> None:
        super().__init__()
        self.stem = {1: nn.Conv1d, 2: nn.Conv2d}[rank](2, channels, 1)
        self.blocks, self.head, self.last = nn.Sequential(*blocks), nn.Linear(rows, 4), last

    def forward(self, x: Any) -> Any:
        y = self.blocks(self.stem(x))
        return self.head((torch.movedim(y, 1, -1) if self.last else y).flatten(1))


def images(blocks: list[Any], size: tuple[int, ...] = (5, 5), channels: int = 5) -> Any:
    """A Keras model of a convolution, blocks, Flatten and Dense; a square map, and as many channels as rows."""
    inputs = keras.Input((*size, 2))
    x = (L.Conv1D if len(size) == 1 else L.Conv2D)(channels, 1, name="stem")(inputs)
    for block in blocks:
        x = block(x)
    return filled(keras.Model(inputs, L.Dense(4, name="head")(L.Flatten()(x))))


@pytest.mark.parametrize("last", [False, True])
def test_a_residual_block_is_followed(last: bool) -> None:
    source = images([Block(5, name="a")])
    target = Whole([TorchBlock(5)], 125, 5, last)
    assert lx.port(source, target).end_to_end.agrees
    rows = np.asarray(source.layers[-1].kernel).T
    moved = rows if last else rows.reshape(4, 5, 5, 5).transpose(0, 3, 1, 2).reshape(4, 125)
    np.testing.assert_array_equal(target.head.weight.detach().numpy(), moved)


@pytest.mark.parametrize("last", [False, True])
def test_two_blocks_in_a_row(last: bool) -> None:
    source = images([Block(7, name="a"), Block(7, name="b")], (3, 5), 7)
    assert lx.port(source, Whole([TorchBlock(7), TorchBlock(7)], 105, 7, last)).end_to_end.agrees


@pytest.mark.parametrize("last", [False, True])
def test_a_block_of_a_sequence(last: bool) -> None:
    source = images([Block(7, 1, name="a")], (11,), 7)
    assert lx.port(source, Whole([TorchBlock(7, 1)], 77, 7, last, 1)).end_to_end.agrees


@pytest.mark.parametrize("last", [False, True])
def test_a_block_of_blocks_and_models(last: bool) -> None:
    source = images([Around(7, name="a")], (3, 5), 7)
    assert lx.port(source, Whole([TorchAround(7)], 105, 7, last)).end_to_end.agrees


class Images(keras.Model):
    """A model whose config names no layers."""

    def __init__(self, ending: Any) -> None:
        super().__init__()
        self.stem, self.head, self.ending = L.Conv2D(5, 1, name="stem"), L.Dense(4, name="head"), ending
        self.block = Block(5, name="block")

    def call(self, x: Any) -> Any:
        return self.head(self.ending(self.block(self.stem(x))))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("ending", [L.Flatten(), lambda y: keras.ops.reshape(y, (-1, 125))])
def test_a_flatten_inside_a_subclassed_model(ending: Any, last: bool) -> None:
    source = Images(ending)
    x = RNG.normal(size=(3, 5, 5, 2)).astype("float32")
    source(x)
    assert lx.port(filled(source), Whole([TorchBlock(5)], 125, 5, last), inputs=x).end_to_end.agrees


def test_a_mean_over_the_map_needs_no_order() -> None:
    source = Images(lambda y: keras.ops.mean(y, axis=(1, 2)))
    x = RNG.normal(size=(3, 5, 5, 2)).astype("float32")
    source(x)

    class Mean(Whole):
        def forward(self, x: Any) -> Any:
            return self.head(self.blocks(self.stem(x)).mean((2, 3)))

    assert lx.port(filled(source), Mean([TorchBlock(5)], 5, 5, False), inputs=x).end_to_end.agrees


@pytest.mark.parametrize("last", [False, True])
def test_a_lambda_before_a_flatten(last: bool) -> None:
    source = images([L.Lambda(lambda y: y * 2.0), Block(5, name="a"), L.Lambda(lambda y: y / 3.0)])
    target = Whole([TorchBlock(5)], 125, 5, last)
    stem, head = target.stem.forward, target.head.forward
    target.stem.forward, target.head.forward = (lambda y: 2 * stem(y)), (lambda y: head(y / 3))
    lx.port(source, target, compare=False, keep_order=["head"] if last else False)
    assert lx.port(source, target, keep_order=["head"] if last else False).end_to_end.agrees


@pytest.mark.parametrize(
    ("here", "there"),
    [
        (lambda t: keras.ops.abs(t[0] - t[1]), lambda a, b: torch.abs(a - b)),
        (lambda t: keras.ops.sort(t[0] * t[1], axis=1), lambda a, b: torch.sort(a * b, 1)[0]),
    ],
    ids=["absolute difference", "an operation that nobody follows"],
)
def test_a_lambda_between_the_vectors_of_siamese_encoders(here: Any, there: Any) -> None:
    left, right = L.Input((9, 9, 2)), L.Input((9, 9, 2))
    encoder = keras.Sequential([L.Input((9, 9, 2)), L.Conv2D(5, 3, activation="relu"), L.Flatten(), L.Dense(7)])
    merged = L.Lambda(here, output_shape=(7,))([encoder(left), encoder(right)])
    source = filled(keras.Model([left, right], L.Dense(3)(merged)))

    class Siamese(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out, self.dense, self.conv = nn.Linear(7, 3), nn.Linear(245, 7), nn.Conv2d(2, 5, 3)

        def encoded(self, x: Any) -> Any:
            return self.dense(self.conv(x).relu().flatten(1))

        def forward(self, a: Any, b: Any) -> Any:
            return self.out(there(self.encoded(a), self.encoded(b)))

    target = Siamese()
    assert lx.port(source, target).end_to_end.agrees
    x, y = (RNG.normal(size=(3, 9, 9, 2)).astype("float32") for _ in range(2))
    made = target(*(torch.from_numpy(one).movedim(-1, 1) for one in (x, y))).detach().numpy()
    np.testing.assert_allclose(made, source([x, y], training=False), rtol=1e-4, atol=1e-4)


def test_a_lambda_that_may_hand_on_a_flattened_map_is_refused() -> None:
    source = images([L.Flatten(), L.Lambda(lambda y: keras.ops.sort(y, axis=0))])
    with pytest.raises(LayoutxError, match=UNTRACED):
        lx.port(source, Whole([], 125, 5, False))


def test_the_users_layers_keep_no_trace() -> None:
    source = images([Around(5, name="a")])
    layers = source._flatten_layers()
    before = [(len(one._inbound_nodes), len(one._outbound_nodes)) for one in layers]
    first = L.LeakyReLU().name
    lx.port(source, Whole([TorchAround(5)], 125, 5, False))
    assert before == [(len(one._inbound_nodes), len(one._outbound_nodes)) for one in layers]
    number = int(first.rpartition("_")[2]) if first != "leaky_re_lu" else 0
    assert L.LeakyReLU().name == f"leaky_re_lu_{number + 1}"


def test_a_call_that_cannot_be_run_says_what_to_pass_in_both_cases() -> None:
    source = images([Untold(5, untold=True, name="a")])
    turned, kept = (Whole([TorchBlock(5)], 125, 5, last) for last in (False, True))
    with pytest.raises(LayoutxError, match=UNTRACED) as caught:
        lx.port(source, turned)
    assert "channels last as well: --keep-order head" in str(caught.value)
    assert 'set data_format = "channels_last" on the layer a,' in str(caught.value)
    assert lx.port(source, kept, keep_order=["head"]).end_to_end.agrees
    with pytest.raises(LayoutxError):  # which is why it must not be the only advice
        lx.port(source, turned, keep_order=["head"])
    source.get_layer("a").data_format = "channels_last"
    assert lx.port(source, turned).end_to_end.agrees


def test_a_file_with_such_a_class_says_so_too(tmp_path: Path) -> None:
    source = images([Block(5, name="a")])
    source.save(tmp_path / "m.keras")
    with pytest.raises(LayoutxError, match="channels last as well: --keep-order head") as caught:
        lx.convert(tmp_path / "m.keras", to="torch", skip=["a"])
    assert "give the live model" in str(caught.value)
    live = keras.models.load_model(tmp_path / "m.keras")
    assert lx.port(live, Whole([TorchBlock(5)], 125, 5, False)).end_to_end.agrees


def test_what_layoutx_notes_of_such_a_layer_is_no_config_of_it() -> None:
    found = lx.inspect(images([Block(5, name="a")]))
    assert any(layer.name.startswith("a/") for layer in found.layers)
    assert "live " not in str(found)
