"""ONNX graphs as they are met: class tokens, tables read at fixed places, attention of one's own, masks, part of the
norms folded, one batch size, channels first into Keras."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from keras_models import precision
from onnx_runs import apart, emptied, run
from torch import Tensor, nn

import layoutx
from layoutx.errors import LayoutxError
from layoutx.files.open import open_store
from layoutx.model.onnx_model import onnx_records

pytest.importorskip("onnxruntime", reason="ONNX models are run by onnxruntime")
STEPS, WIDTH, HEADS = 6, 8, 2
BEFORE: dict[str, Any] = {"dynamo": False, "opset_version": 17}
TODAY: dict[str, Any] = {"dynamo": True, "external_data": False}
EXPORTS: dict[str, dict[str, Any]] = {
    "before": BEFORE,
    "before, not folded": {**BEFORE, "do_constant_folding": False},
    "before, any batch": {**BEFORE, "input_names": ["x"], "dynamic_axes": {"x": {0: "batch"}}},
    "today, not optimised": {**TODAY, "optimize": False},
    "today, any batch": {**TODAY, "dynamic_shapes": ({0: "batch"},)},
}


def exported(module: nn.Module, path: Path, x: Tensor, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), (x,), path, **options)
    return path


def shaken(module: nn.Module, seed: int) -> Any:
    """All of a module's floats random, variances positive."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.dtype.is_floating_point and "mask" not in name:
                fresh = torch.randn(value.shape, generator=generator)
                value.copy_(fresh.abs() + 0.5 if "var" in name else 0.5 * fresh)
    return module.eval()


def same(one: nn.Module, other: nn.Module) -> None:
    mine, yours = one.state_dict(), other.state_dict()
    for name, value in mine.items():
        torch.testing.assert_close(yours[name], value, rtol=0, atol=0, msg=name)


class Tokens(nn.Module):
    """A row that is laid before every sequence, and one behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, WIDTH), nn.Linear(WIDTH, 2)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.more_tokens = nn.Parameter(torch.zeros(1, 3, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, steps, 3)."""
        rows = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), self.first(x)], dim=1).sin()
        return self.last(torch.cat([rows, self.more_tokens.expand(x.shape[0], -1, -1)], dim=1).tanh())


@pytest.mark.parametrize("how", EXPORTS)
def test_rows_laid_before_and_behind_every_sequence(how: str, tmp_path: Path) -> None:
    x = torch.randn(2, STEPS, 3)
    module = shaken(Tokens(), 1)
    path = exported(module, tmp_path / "m.onnx", x, **EXPORTS[how])
    found = {r.name: r for r in onnx_records(open_store(path)).layers}
    assert [r.form for r in found.values()].count("onnx.Concat") == 2
    assert (found["last"].inputs, found["more_tokens"].inputs) == (("more_tokens",), ("cls_token",))
    other = shaken(Tokens(), 2)
    assert layoutx.port(path, other, x.numpy()).end_to_end.agrees is True
    same(module, other)
    third = shaken(Tokens(), 3)
    template = emptied(path)  # an untrained class token is all zeros
    layoutx.convert(third, tmp_path / "new.onnx", to="onnx", like=template)
    assert apart(run(tmp_path / "new.onnx", x), third(x).detach().numpy()) < 1e-5
    assert layoutx.validate(third, tmp_path / "new.onnx", x.numpy()).ok
    assert not layoutx.validate(third, path, x.numpy()).ok


def test_rows_that_an_exporter_has_spread_over_its_batch(tmp_path: Path) -> None:
    """They are read, since all of the batch has the same; another's do not go into them."""
    x = torch.randn(2, STEPS, 3)
    module = shaken(Tokens(), 1)
    path = exported(module, tmp_path / "m.onnx", x, **TODAY)
    spread = [r for r in onnx_records(open_store(path)).layers if "the same for each of a batch" in r.note]
    assert [next(iter(r.tensors.values())).shape for r in spread] == [(1, 1, WIDTH), (1, 3, WIDTH)]
    other = shaken(Tokens(), 2)
    assert layoutx.port(path, other, x.numpy()).end_to_end.agrees is True
    same(module, other)
    with pytest.raises(LayoutxError, match="holds the same numbers 2 times"):
        layoutx.convert(shaken(Tokens(), 3), tmp_path / "new.onnx", to="onnx", like=path)
    assert not (tmp_path / "new.onnx").exists()


class Padded(nn.Module):
    """What is laid before a sequence is nothing, or differs between the samples: no rows of a layer."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.last = nn.Linear(WIDTH, 2)
        self.register_buffer("rows", rows, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cat([self.rows, x], dim=1))


@pytest.mark.parametrize("rows", [torch.zeros(2, 1, WIDTH), torch.arange(2.0 * WIDTH).reshape(2, 1, WIDTH)])
def test_what_is_laid_before_a_sequence_and_is_no_layer(rows: Tensor, tmp_path: Path) -> None:
    path = exported(Padded(rows), tmp_path / "m.onnx", torch.randn(2, STEPS, WIDTH), **BEFORE)
    assert "onnx.Concat" not in {r.form for r in onnx_records(open_store(path)).layers}


class Text(nn.Module):
    """Words, the kind of each and its position; the last two are the same for every text of this length."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.kinds, self.places = nn.Embedding(11, WIDTH), nn.Embedding(2, WIDTH), nn.Embedding(16, WIDTH)
        self.norm, self.out = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2)
        self.register_buffer("numbers", torch.arange(16)[None], persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, steps)."""
        numbers = self.numbers[:, : ids.shape[1]]
        kinds = torch.zeros_like(numbers).expand(ids.shape[0], -1)
        return self.out(self.norm(self.words(ids) + self.kinds(kinds) + self.places(numbers)))


@pytest.mark.parametrize("how", ["before, not folded", "before, any batch", "today, not optimised"])
def test_tables_read_at_places_that_never_change(how: str, tmp_path: Path) -> None:
    ids = torch.randint(0, 11, (2, STEPS))
    module, other = shaken(Text(), 1), shaken(Text(), 2)
    path = exported(module, tmp_path / "m.onnx", ids, **EXPORTS[how])
    tables = [r.name for r in onnx_records(open_store(path)).layers if r.form == "onnx.Gather"]
    assert sorted(tables) == ["kinds", "places", "words"]
    assert layoutx.port(path, other, ids.numpy()).end_to_end.agrees is True
    same(module, other)


def test_a_table_that_an_exporter_has_cut_is_refused(tmp_path: Path) -> None:
    ids = torch.randint(0, 11, (2, STEPS))
    path = exported(shaken(Text(), 1), tmp_path / "m.onnx", ids, **EXPORTS["today, any batch"])
    other = shaken(Text(), 2)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(LayoutxError):
        layoutx.port(path, other, ids.numpy())
    same(other, type("Held", (), {"state_dict": lambda _: before})())


class Window(nn.Module):
    """Attention in one module that calls its Linears' weights itself: a bias for each distance, some scores put out."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.position_table = nn.Parameter(torch.zeros(2 * STEPS - 1, HEADS))
        places = torch.arange(STEPS)
        self.register_buffer("which", (places[:, None] - places + STEPS - 1).reshape(-1), persistent=False)
        mask = torch.zeros(STEPS, STEPS)
        mask[:2, 3:] = -100.0
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, steps, width)."""
        every = nn.functional.linear(x, self.qkv.weight, self.qkv.bias)
        q, k, v = every.reshape(x.shape[0], STEPS, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        bias = self.position_table[self.which].view(STEPS, STEPS, HEADS).permute(2, 0, 1)
        scores = q @ k.transpose(-2, -1) + bias[None] + self.mask
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape[0], STEPS, WIDTH)
        return nn.functional.linear(mixed, self.proj.weight, self.proj.bias)


class Windows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn, self.out = Window(), nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.attn(x))


@pytest.mark.parametrize("how", ["before, not folded", "today, not optimised"])
def test_attention_of_ones_own_with_a_table_of_distances_and_a_mask(how: str, tmp_path: Path) -> None:
    x = torch.randn(2, STEPS, WIDTH)
    module, other = shaken(Windows(), 1), shaken(Windows(), 2)
    path = exported(module, tmp_path / "m.onnx", x, **EXPORTS[how])
    found = {r.name: r.form for r in onnx_records(open_store(path)).layers if r.tensors}
    assert {"attn.proj", "attn.qkv", "out"} < found.keys()
    assert sorted(found.values()).count("onnx.Gather") == 1
    assert "onnx.MultiheadAttention" not in found.values()
    assert layoutx.port(path, other, x.numpy()).end_to_end.agrees is True
    same(module, other)
    third = shaken(Windows(), 3)
    layoutx.convert(third, tmp_path / "new.onnx", to="onnx", like=path)
    assert apart(run(tmp_path / "new.onnx", x), third(x).detach().numpy()) < 1e-5


class Dense(nn.Module):
    """Norms of which one follows its convolution, and one a concatenation or a pooling: exporters fold the first."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0, self.norm0 = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv1, self.norm1 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 5, 1, bias=False), nn.BatchNorm2d(5)
        self.out = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, height, width)."""
        x = self.norm0(self.conv0(x)).relu()
        x = self.norm1(torch.cat([x, self.conv1(x)], 1)).relu()
        return self.out(self.norm2(nn.functional.avg_pool2d(self.conv2(x), 2)).relu().mean((2, 3)))


@pytest.mark.parametrize("options", [TODAY, BEFORE])
def test_a_part_of_the_norms_is_folded(options: dict[str, Any], tmp_path: Path) -> None:
    x = torch.randn(2, 3, 8, 8)
    module, other = shaken(Dense(), 1), shaken(Dense(), 2)
    path = exported(module, tmp_path / "m.onnx", x, **options)
    assert [r.name for r in onnx_records(open_store(path)).layers if "Batch" in r.class_name] == ["norm1", "norm2"]
    with pytest.raises(LayoutxError, match="1 batch norms of the target are not in the ONNX model"):
        layoutx.port(path, other, x.numpy())
    with pytest.raises(LayoutxError, match="1 batch norms of the source are not in the ONNX model"):
        layoutx.convert(other, tmp_path / "new.onnx", to="onnx", like=path)
    layoutx.convert(other, tmp_path / "new.onnx", to="onnx", like=path, materialise=True)
    assert apart(run(tmp_path / "new.onnx", x), other(x).detach().numpy()) < 1e-5


class Flat(nn.Module):
    """Outputs that hardly depend on where in the map something lies, as those of a network with random weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.conv(x).mean((2, 3)))


def keras_flat(seed: int) -> Any:
    import keras

    with precision(keras, "float32"):
        x = keras.Input((8, 8, 3))
        y = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 1, name="conv")(x))
        model = keras.Model(x, keras.layers.Dense(2, name="out")(y))
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=w.shape) for w in model.weights])
    return model


def test_a_graph_of_channels_first_is_run_as_it_is(tmp_path: Path) -> None:
    """Turned maps would agree too: nothing of this network tells rows from columns."""
    x = torch.randn(2, 3, 8, 8)
    path = exported(shaken(Flat(), 1), tmp_path / "m.onnx", x, **BEFORE)
    assert onnx_records(open_store(path)).channels == "first"
    for given in (x.numpy(), None):
        end = layoutx.port(path, shaken(Flat(), 2), given).end_to_end
        assert (end.agrees, end.note) == (True, "")


def test_a_graph_of_channels_first_and_one_batch_size_into_keras(tmp_path: Path) -> None:
    x = torch.randn(2, 3, 8, 8)
    module = shaken(Flat(), 1)
    path = exported(module, tmp_path / "m.onnx", x, **BEFORE)
    for given in (x.numpy(), None):  # None: Keras' own shapes have another batch size than the graph
        model = keras_flat(2)
        end = layoutx.port(path, model, given).end_to_end
        assert (end.agrees, end.note) == (True, "channels turned to the end")
        found = np.asarray(model(np.moveaxis(x.numpy(), 1, -1)))
        assert apart(found, module(x).detach().numpy()) < 1e-5


def test_a_padded_map_says_how_it_comes(tmp_path: Path) -> None:
    """A Pad makes new positions; the channels stand where they stood in the input."""

    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            """(batch, height, width, 3)."""
            return self.conv(nn.functional.pad(x, (0, 0, 1, 1, 1, 1)).permute(0, 3, 1, 2))

    path = exported(Turned(), tmp_path / "m.onnx", torch.randn(2, 8, 8, 3), **BEFORE)
    assert onnx_records(open_store(path)).channels == "last"


def test_a_map_of_one_position_has_no_order(tmp_path: Path) -> None:
    """One graph shows a flattened map, the other what is left of it: there is nothing to turn."""

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.out = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Linear(8, 2)
            self.pool = nn.AdaptiveAvgPool2d((1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return self.out(torch.flatten(self.pool(torch.cat([self.one(x), self.two(x)], 1)), 1))

    x = torch.randn(2, 3, 8, 8)
    path = exported(shaken(Pooled(), 1), tmp_path / "m.onnx", x, **BEFORE)
    other = shaken(Pooled(), 2)
    layoutx.convert(other, tmp_path / "new.onnx", to="onnx", like=path)
    assert apart(run(tmp_path / "new.onnx", x), other(x).detach().numpy()) < 1e-5


class Half(nn.Module):
    """Half of a block as language models name it: a Linear and the norm behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.LayerNorm = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.LayerNorm(x + self.dense(y))


class Mixing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.output = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), Half()

    def forward(self, x: Tensor) -> Tensor:
        return self.output(x, self.query(x).sigmoid() * self.key(x))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.output, self.attention = Half(), Mixing()  # the order of definition tells nothing

    def forward(self, x: Tensor) -> Tensor:
        x = self.attention(x)
        return self.output(x, x.sin())


class Blocks(nn.Module):
    def __init__(self, traceable: bool) -> None:
        super().__init__()
        self.layer, self.traceable = nn.ModuleList([Block(), Block()]), traceable

    def forward(self, x: Tensor) -> Tensor:
        if not self.traceable:
            raise RuntimeError("this forward runs nowhere")
        for block in self.layer:
            x = block(x)
        return x


def test_the_same_name_is_worth_more_than_a_like_name_with_the_same_number(tmp_path: Path) -> None:
    """`layer.0.output.LayerNorm` is like `layer.0.attention.output.LayerNorm`, and both have the number 0."""
    path = exported(shaken(Blocks(True), 1), tmp_path / "m.onnx", torch.randn(2, STEPS, WIDTH), **BEFORE)
    found = layoutx.match(path, Blocks(False))
    assert found.complete
    pairs = [(entry["source"], entry["target"]) for entry in found.to_dict()["pairs"]]
    assert len(pairs) == 12
    assert all(source == target for source, target in pairs)


def test_a_quantised_table_is_no_constant(tmp_path: Path) -> None:
    """onnxruntime looks whole numbers up and makes floats of them behind the look-up: the node holds no float."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    tokens = torch.zeros((2, 3), dtype=torch.int64)
    given = exported(nn.Sequential(nn.Embedding(13, 7), nn.Tanh()), tmp_path / "m.onnx", tokens, **BEFORE)
    each = [{onnx.load(given).graph.input[0].name: tokens.numpy()}]

    class Once(quantization.CalibrationDataReader):
        def get_next(self) -> Any:
            return each.pop() if each else None

    path = tmp_path / "q.onnx"
    quantization.quantize_static(given, path, Once(), quant_format=quantization.QuantFormat.QOperator)
    with pytest.raises(LayoutxError, match="Gather holds quantised weights"):
        layoutx.convert(path, tmp_path / "o.safetensors", to="torch")
