"""Made models of each kind and any size: a Keras config, the tensors of its file, and where each belongs in torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

WIDTH = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class Stored:
    """One dataset of the Keras file: its path there, its shape and dtype."""

    path: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers."""
        return math.prod(self.shape) * WIDTH[self.dtype]


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of the torch file: what a script written by hand does for it (see `by_hand.moved`)."""

    name: str
    how: str
    layer: str
    parts: tuple[int, ...]  # positions in the layer's get_weights(), which are those of `Layer.stored`
    shape: tuple[int, ...]
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class Layer:
    """One Keras layer: its config, the shape of what comes out of it, its tensors."""

    kind: str
    name: str
    config: dict[str, Any]
    out: tuple[int, ...]
    stored: tuple[Stored, ...] = ()
    entries: tuple[Entry, ...] = ()
    calls: int = 1  # how often its input is given to it (attention: query and value)


@dataclass(frozen=True, slots=True)
class Model:
    """A chain of layers."""

    name: str
    input: tuple[int, ...]
    layers: tuple[Layer, ...]
    fused: bool = field(default=False)  # the torch names are not those that layoutx chooses: a template says them

    @property
    def stored(self) -> tuple[Stored, ...]:
        """All datasets of the Keras file, in the layers' order."""
        return tuple(one for layer in self.layers for one in layer.stored)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All tensors of the torch file."""
        return tuple(one for layer in self.layers for one in layer.entries)

    @property
    def nbytes(self) -> int:
        """Bytes of all weights."""
        return sum(one.nbytes for one in self.stored)


def dense(name: str, wide: int, units: int, dtype: str = "float32", lead: tuple[int, ...] = ()) -> Layer:
    """Dense: kernel (in, out) -> weight (out, in)."""
    stored = (Stored(f"layers/{name}/vars/0", (wide, units), dtype), Stored(f"layers/{name}/vars/1", (units,), dtype))
    entries = (
        Entry(f"{name}.weight", "matrix", name, (0,), (units, wide), dtype),
        Entry(f"{name}.bias", "copy", name, (1,), (units,), dtype),
    )
    return Layer("Dense", name, {"units": units, "dtype": dtype}, (*lead, units), stored, entries)


def conv(name: str, side: int, wide: int, filters: int, kernel: int, dtype: str = "float32") -> Layer:
    """Conv2D, padding same: kernel (kh, kw, in, out) -> weight (out, in, kh, kw)."""
    shape = (kernel, kernel, wide, filters)
    stored = (Stored(f"layers/{name}/vars/0", shape, dtype), Stored(f"layers/{name}/vars/1", (filters,), dtype))
    entries = (
        Entry(f"{name}.weight", "conv", name, (0,), (filters, wide, kernel, kernel), dtype),
        Entry(f"{name}.bias", "copy", name, (1,), (filters,), dtype),
    )
    config = {"filters": filters, "kernel_size": [kernel, kernel], "padding": "same", "dtype": dtype}
    return Layer("Conv2D", name, config, (side, side, filters), stored, entries)


def batch_norm(name: str, side: int, wide: int) -> Layer:
    """BatchNormalization: four vectors, and torch's counter of batches."""
    stored = tuple(Stored(f"layers/{name}/vars/{i}", (wide,)) for i in range(4))
    words = ("weight", "bias", "running_mean", "running_var")
    entries = tuple(Entry(f"{name}.{word}", "copy", name, (i,), (wide,)) for i, word in enumerate(words))
    counter = Entry(f"{name}.num_batches_tracked", "count", name, (), (), "int64")
    return Layer("BatchNormalization", name, {}, (side, side, wide), stored, (*entries, counter))


def lstm(name: str, steps: int, wide: int, hidden: int) -> Layer:
    """LSTM: kernel (in, gate i f c o × hidden) -> weight_ih_l0 (gate i f g o × hidden, in); bias -> that and zeros."""
    group = f"layers/{name}/cell/vars"
    shapes = ((wide, 4 * hidden), (hidden, 4 * hidden), (4 * hidden,))
    stored = tuple(Stored(f"{group}/{i}", shape) for i, shape in enumerate(shapes))
    entries = (
        Entry(f"{name}.weight_ih_l0", "matrix", name, (0,), (4 * hidden, wide)),
        Entry(f"{name}.weight_hh_l0", "matrix", name, (1,), (4 * hidden, hidden)),
        Entry(f"{name}.bias_ih_l0", "copy", name, (2,), (4 * hidden,)),
        Entry(f"{name}.bias_hh_l0", "zeros", name, (), (4 * hidden,)),
    )
    return Layer("LSTM", name, {"units": hidden, "return_sequences": True}, (steps, hidden), stored, entries)


def attention(name: str, steps: int, wide: int, heads: int) -> Layer:
    """MultiHeadAttention: three kernels (wide, head, size) -> in_proj_weight (query key value × head × size, wide)."""
    size = wide // heads
    stored = []
    for part in ("query", "key", "value"):
        group = f"layers/{name}/{part}_dense/vars"
        stored += [Stored(f"{group}/0", (wide, heads, size)), Stored(f"{group}/1", (heads, size))]
    group = f"layers/{name}/output_dense/vars"
    stored += [Stored(f"{group}/0", (heads, size, wide)), Stored(f"{group}/1", (wide,))]
    entries = (
        Entry(f"{name}.in_proj_weight", "fused", name, (0, 2, 4), (3 * wide, wide)),
        Entry(f"{name}.in_proj_bias", "fused bias", name, (1, 3, 5), (3 * wide,)),
        Entry(f"{name}.out_proj.weight", "heads", name, (6,), (wide, wide)),
        Entry(f"{name}.out_proj.bias", "copy", name, (7,), (wide,)),
    )
    config = {"num_heads": heads, "key_dim": size}
    return Layer("MultiHeadAttention", name, config, (steps, wide), tuple(stored), entries, calls=2)


def layer_norm(name: str, steps: int, wide: int) -> Layer:
    """LayerNormalization: gamma and beta."""
    stored = tuple(Stored(f"layers/{name}/vars/{i}", (wide,)) for i in range(2))
    entries = tuple(Entry(f"{name}.{word}", "copy", name, (i,), (wide,)) for i, word in enumerate(("weight", "bias")))
    return Layer("LayerNormalization", name, {}, (steps, wide), stored, entries)


def numbered() -> Callable[[str], str]:
    """Names as Keras gives them, which are also the names of the groups in the file: dense, dense_1, ..."""
    counts: dict[str, int] = {}

    def name(stem: str) -> str:
        counts[stem] = counts.get(stem, -1) + 1
        return f"{stem}_{counts[stem]}" if counts[stem] else stem

    return name


def _width(number: float, least: int) -> int:
    """The nearest power of two, as real layers are wide: where a plain transpose is at its slowest."""
    return int(max(least, 2 ** round(math.log2(number))))


def _until(layers: Iterator[list[Layer]], nbytes: float) -> list[Layer]:
    """Layers until they hold so many bytes."""
    found: list[Layer] = []
    held = 0
    for some in layers:
        found += some
        held += sum(one.nbytes for layer in some for one in layer.stored)
        if held >= nbytes:
            return found
    return found


def _convs(name: Callable[[str], str], wide: int, nbytes: float, dtype: str, norms: bool = False) -> list[Layer]:
    """Convolutions 3×3 and 1×1 of changing width, odd ones among them."""

    def some() -> Iterator[list[Layer]]:
        last = 3
        while True:
            for kernel, filters in ((3, wide), (3, wide), (1, 2 * wide), (3, wide - 3)):
                found = [conv(name("conv2d"), 8, last, filters, kernel, dtype)]
                yield [*found, *([batch_norm(name("batch_normalization"), 8, filters)] if norms else [])]
                last = filters

    return _until(some(), nbytes)


def _denses(name: Callable[[str], str], last: int, wide: int, nbytes: float, dtype: str) -> list[Layer]:
    def some() -> Iterator[list[Layer]]:
        wides = last
        while True:
            for units in (wide, 2 * wide, 2 * wide, wide - 3, wide, wide, wide // 2):
                yield [dense(name("dense"), wides, units, dtype)]
                wides = units

    return _until(some(), nbytes)


def dense_heavy(nbytes: int, kernels: str = "float32", matrices: str = "float32") -> Model:
    """A fifth of the bytes in convolutions, the rest in matrices; the largest is 8192 × 8192 at 2 GB."""
    name = numbered()
    wide = _width(math.sqrt(nbytes / 120), 16)
    convs = _convs(name, max(wide // 8, 8), 0.2 * nbytes, kernels)
    pool = Layer("GlobalAveragePooling2D", "global_average_pooling2d", {}, convs[-1].out[-1:])
    return Model("dense", (8, 8, 3), (*convs, pool, *_denses(name, pool.out[0], wide, 0.8 * nbytes, matrices)))


def conv_heavy(nbytes: int) -> Model:
    """Convolutions, each with a batch norm; then one matrix."""
    name = numbered()
    convs = _convs(name, _width(math.sqrt(nbytes / 36 / 40), 8), nbytes, "float32", norms=True)
    wide = convs[-1].out[-1]
    pool = Layer("GlobalAveragePooling2D", "global_average_pooling2d", {}, (wide,))
    return Model("conv", (8, 8, 3), (*convs, pool, dense(name("dense"), wide, 10)))


def recurrent(nbytes: int) -> Model:
    """LSTMs of alternating width, one after the other."""
    name = numbered()
    hidden = _width(math.sqrt(nbytes / 32 / 15), 8)

    def some() -> Iterator[list[Layer]]:
        last = hidden // 2
        while True:
            for units in (hidden, hidden, hidden - 3):
                yield [lstm(name("lstm"), 5, last, units)]
                last = units

    return Model("recurrent", (5, hidden // 2), tuple(_until(some(), nbytes)))


def attentive(nbytes: int) -> Model:
    """Attention, layer norm and two matrices, again and again; torch's file has query, key and value in one tensor."""
    name = numbered()
    wide = _width(math.sqrt(nbytes / 48 / 10), 64)

    def some() -> Iterator[list[Layer]]:
        while True:
            yield [
                attention(name("multi_head_attention"), 5, wide, wide // 32),
                layer_norm(name("layer_normalization"), 5, wide),
                dense(name("dense"), wide, 4 * wide, lead=(5,)),
                dense(name("dense"), 4 * wide, wide, lead=(5,)),
            ]

    return Model("attention", (5, wide), tuple(_until(some(), nbytes)), fused=True)


def many_small(tensors: int) -> Model:
    """So many tensors, each of at most a few kB."""
    name = numbered()
    layers: list[Layer] = []
    last = 17
    for i in range(tensors // 2):
        units = 12 + 5 * i % 23
        layers.append(dense(name("dense"), last, units))
        last = units
    return Model("small", (17,), tuple(layers))


def half(nbytes: int) -> Model:
    """The dense-heavy model with bfloat16 convolutions and float16 matrices."""
    made = dense_heavy(nbytes, "bfloat16", "float16")
    return Model("16-bit", made.input, made.layers)


KINDS: dict[str, Callable[[int], Model]] = {
    "dense": dense_heavy,
    "conv": conv_heavy,
    "recurrent": recurrent,
    "attention": attentive,
    "small": many_small,
    "16-bit": half,
}
