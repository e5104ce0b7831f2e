"""How layers are put together: residual connections, heads, batch and time, layers exchanged, two faults at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import keras
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mistakes.attention import SIZES, STEPS, Block, block
from mistakes.case import Case, Made, changed, normal, ported, shaken, shaken_torch

L = keras.layers


class Steps(nn.Module):
    """Two blocks of a residual network; `mode` makes the mistake."""

    def __init__(self, mode: str = "right") -> None:
        super().__init__()
        self.c0, self.out = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 2, 1)
        self.c1, self.c2 = (nn.Conv2d(5, 5, 3, padding=1) for _ in range(2))
        self.b1, self.b2 = (nn.BatchNorm2d(5, eps=1e-3, momentum=0.01) for _ in range(2))
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, h, w) -> (batch, 2, h, w)."""
        x = F.relu(self.c0(x))
        y = F.relu(self.b1(self.c1(x)))
        z = self.b2(self.c2(y))
        return self.out(
            {"right": F.relu(z + x), "missing": F.relu(z), "from y": F.relu(z + y), "late": F.relu(z) + x}[self.mode]
        )


def steps(mode: str) -> Made:
    """Keras is right."""
    inputs = keras.Input((7, 9, 3))
    conv = partial(L.Conv2D, 5, 3, padding="same")
    x = L.ReLU()(conv(name="c0")(inputs))
    y = L.ReLU()(L.BatchNormalization(name="b1")(conv(name="c1")(x)))
    z = L.BatchNormalization(name="b2")(conv(name="c2")(y))
    source = shaken(keras.Model(inputs, L.Conv2D(2, 1, name="out")(L.ReLU()(L.Add()([z, x])))))
    return source, ported(source, Steps(), Steps(mode)), normal(2, 7, 9, 3)


def torch_steps(mode: str) -> Made:
    """torch is right, and nobody says how its layers are wired."""
    source, target = shaken_torch(Steps()), Steps(mode)
    target.load_state_dict(source.state_dict())
    return source, target.eval(), normal(2, 3, 7, 9)


class Blocked(Block):
    """A transformer block whose second residual is not that of the source."""

    def __init__(self, heads: int, head: int, second: bool) -> None:
        super().__init__(heads, head)
        self.second = second

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, feature) -> the same."""
        n = self.ln1(x + self.attn(x, x, x)[0])
        f = self.fc2(self.act(self.fc1(n)))
        return self.ln2(x + f if self.second else f)


def transformer(size: tuple[int, int], wrong: nn.Module, batch: int = 3) -> Made:
    """Keras is right."""
    source = block(*size)
    return source, ported(source, Block(*size), wrong), normal(batch, STEPS, size[0] * size[1])


def split(size: tuple[int, int], heads: int) -> nn.Module:
    """The block with another count of heads."""
    made = Block(*size)
    made.attn = nn.MultiheadAttention(size[0] * size[1], heads, batch_first=True)
    return made


class Recurrent(nn.Module):
    """Dense, a layer that reads sequences, dense."""

    def __init__(self, first: bool = True) -> None:
        super().__init__()
        self.fc, self.out = nn.Linear(4, 6), nn.Linear(6, 3)
        self.attn = nn.MultiheadAttention(6, 2, batch_first=first)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, 4) -> (batch, time, 3)."""
        x = torch.tanh(self.fc(x))
        return self.out(self.attn(x, x, x)[0])


def inside(batch: int) -> Made:
    """Attention within a model takes the batch for time."""
    inputs = keras.Input((11, 4))
    h = L.Dense(6, activation="tanh", name="fc")(inputs)
    source = shaken(keras.Model(inputs, L.Dense(3, name="out")(L.MultiHeadAttention(2, 3, name="attn")(h, h))))
    return source, ported(source, Recurrent(), Recurrent(False)), normal(batch, 11, 4)


class Alike(nn.Module):
    """Convolutions of one shape."""

    def __init__(self, many: int) -> None:
        super().__init__()
        self.many = many
        for number in range(many):
            self.add_module(f"f{number}", nn.Conv2d(4, 4, 3))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 4, h, w) -> the same, smaller."""
        for number in range(self.many):
            x = torch.tanh(self.get_submodule(f"f{number}")(x))
        return x


def alike(places: dict[str, str], many: int = 3, only: str = "") -> Made:
    """Each place holds the numbers of another one; only: of the tensors with that name."""
    layers = [L.Conv2D(4, 3, activation="tanh", name=f"f{number}") for number in range(many)]
    source = shaken(keras.Sequential([keras.Input((13, 14, 4)), *layers]))

    def fix(model: Any) -> None:
        held = {name: value.clone() for name, value in model.state_dict().items()}
        for name, value in model.state_dict().items():
            place, _, tensor = name.partition(".")
            if place in places and only in ("", tensor):
                value.copy_(held[f"{places[place]}.{tensor}"])

    return source, ported(source, Alike(many), fix=fix), normal(2, 13, 14, 4)


Step = Callable[[Tensor], Tensor]


class Path(nn.Module):
    """Three convolutions in a row with two poolings."""

    def __init__(self, first: Step, second: Step, act: Step = torch.tanh) -> None:
        super().__init__()
        self.c1, self.c2, self.c3 = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 6, 3), nn.Conv2d(6, 4, 3)
        self.first, self.second, self.act = first, second, act

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, h, w) -> (batch, 4, h, w)."""
        return self.c3(self.act(self.second(self.c2(self.first(F.relu(self.c1(x)))))))


def path(first: Step, second: Step, act: Step = torch.tanh, fix: Callable[[Any], Any] | None = None) -> Made:
    """Keras is right: max pooling twice, relu and tanh."""
    layers = [
        *(L.Conv2D(5, 3, activation="relu", name="c1"), L.MaxPooling2D(2), L.Conv2D(6, 3, name="c2")),
        *(L.MaxPooling2D(2), L.Activation("tanh"), L.Conv2D(4, 3, name="c3")),
    ]
    source = shaken(keras.Sequential([keras.Input((33, 38, 3)), *layers]))
    return source, ported(source, Path(best, best), Path(first, second, act), fix), normal(2, 33, 38, 3)


def best(x: Tensor) -> Tensor:
    """Max pooling."""
    return F.max_pool2d(x, 2)


def mean(x: Tensor) -> Tensor:
    """Average pooling."""
    return F.avg_pool2d(x, 2)


def cases() -> Iterator[Case]:
    """All of them."""
    for mode in ("missing", "from y", "late"):
        yield Case("-", f"residual {mode}, Keras to torch", "", lambda m=mode: steps(m))
        yield Case("-", f"residual {mode}, torch to torch", "", lambda m=mode: torch_steps(m))
    for name, size in SIZES.items():
        yield Case("-", f"residual around attention missing, {name}", "", lambda s=size: transformer(s, Block(*s, residual=False)))  # fmt: skip # noqa: E501
        yield Case("-", f"second residual missing, {name}", "", lambda s=size: transformer(s, Blocked(*s, False)), limit=1e-7)  # fmt: skip # noqa: E501
        yield Case("-", f"second residual from the inputs, {name}", "", lambda s=size: transformer(s, Blocked(*s, True)), limit=1e-7)  # fmt: skip # noqa: E501
        yield Case("F36", f"attention takes the batch for time, {name}", "", lambda s=size: transformer(s, Block(*s, first=False)))  # fmt: skip # noqa: E501
        wide = size[0] * size[1]
        for heads in (n for n in (1, 2, 3, 6, 16) if wide % n == 0 and n != size[0]):
            yield Case("F23", f"{heads} heads, {name}", "attn", lambda s=size, h=heads: transformer(s, split(s, h)))
    for batch in (4, 11):
        yield Case("F36", f"within a model, {batch} by 11", "", lambda b=batch: inside(b))
    ring = {"f0": "f1", "f1": "f2", "f2": "f0"}
    yield Case("F38", "two of three exchanged", "f0|f2", lambda: alike({"f0": "f2", "f2": "f0"}), many=2)
    yield Case("F38", "three in a circle", "f0|f1|f2", lambda: alike(ring), many=3)
    yield Case("F38", "five in a circle", "f0|f1|f2|f3|f4", lambda: alike({f"f{i}": f"f{(i + 1) % 5}" for i in range(5)}, 5), many=5)  # fmt: skip # noqa: E501
    yield Case("F38", "moved on by one", "f1|f2", lambda: alike({"f1": "f0", "f2": "f1"}), many=2)
    yield Case("F38", "loaded twice", "f1", lambda: alike({"f1": "f0"}))
    yield Case("F38", "kernels alone exchanged", "f0|f2", lambda: alike({"f0": "f2", "f2": "f0"}, only="weight"), many=2)  # fmt: skip # noqa: E501
    yield Case("F27", "two poolings on one path", "", lambda: path(mean, mean), many=2)
    yield Case("F27", "a pooling and an activation behind it", "", lambda: path(mean, best, torch.sigmoid), ("F19",), many=2)  # fmt: skip # noqa: E501
    turned = changed("c1.weight", lambda w: w[:, :, ::-1, ::-1])
    yield Case("F17", "a kernel, and a pooling behind it", "c1|", lambda: path(best, mean, fix=turned), ("F27",), many=2)  # fmt: skip # noqa: E501
