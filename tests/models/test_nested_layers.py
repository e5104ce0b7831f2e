"""Models of layers of one's own: every layer inside them is read, wired and ported, however deep it lies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.model.load import live_model
from layoutx.spec.registry import registry

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
nn = torch.nn
L = keras.layers
RNG = np.random.default_rng(13)
WIDTH, INNER, HEADS, VOCABULARY, STEPS = 12, 20, 3, 31, 9


def filled(model: Any) -> Any:
    for weight in model.weights:
        weight.assign(RNG.normal(size=tuple(weight.shape)) * 0.3 + 0.1)
    return model


class Mixed(L.Layer):
    """A transformer's block: the mask gets an axis more, and its class tells no config."""

    def __init__(self, secret: Any = None, **more: Any) -> None:
        super().__init__(**more)
        self.attention = L.MultiHeadAttention(HEADS, WIDTH // HEADS, name="attention")
        self.attention_norm = L.LayerNormalization(epsilon=1e-5, name="attention_norm")
        self.output_norm = L.LayerNormalization(epsilon=1e-5, name="output_norm")
        self.wide = L.Dense(INNER, activation="relu", name="wide")
        self.narrow = L.Dense(WIDTH, name="narrow")

    def build(self, shape: Any) -> None:
        self.attention.build(query_shape=shape, value_shape=shape)
        for one in (self.attention_norm, self.output_norm, self.wide):
            one.build(shape)
        self.narrow.build((*shape[:-1], INNER))
        self.built = True

    def call(self, x: Any, mask: Any = None) -> Any:
        wide = keras.ops.expand_dims(mask, 1) if mask is not None else None
        x = self.attention_norm(x + self.attention(query=x, value=x, attention_mask=wide))
        return self.output_norm(x + self.narrow(self.wide(x)))

    def compute_output_shape(self, shape: Any) -> Any:
        return shape

    def get_config(self) -> Any:
        raise NotImplementedError("nobody saves it")


class Rows(L.Layer):
    """A table of positions; it asks for the size of the batch."""

    def build(self, shape: Any) -> None:
        self.table = self.add_weight(shape=(STEPS, shape[-1]), name="position_embeddings")

    def call(self, x: Any) -> Any:
        batch, steps = keras.ops.shape(x)[0], keras.ops.shape(x)[1]
        return keras.ops.broadcast_to(self.table[:steps], (batch, steps, WIDTH))


class Backbone(keras.Model):
    """A functional model of a class of its own, whose config holds no layers."""

    def __init__(self, blocks: int) -> None:
        tokens = keras.Input((None,), dtype="int32", name="token_ids")
        mask = keras.Input((None,), dtype="int32", name="padding_mask")
        x = L.Embedding(VOCABULARY, WIDTH, name="tokens")(tokens)
        x = L.LayerNormalization(epsilon=1e-5, name="embeddings_norm")(L.Add()([x, Rows(name="rows")(x)]))
        for i in range(blocks):
            x = Mixed(name=f"block_{i}", secret=object())(x, mask=mask)
        found = {"sequence": x, "first": L.Dense(WIDTH, activation="tanh", name="pooled")(x[:, 0])}
        super().__init__(inputs={"token_ids": tokens, "padding_mask": mask}, outputs=found)
        self.blocks = blocks

    def get_config(self) -> dict[str, Any]:
        return {"blocks": self.blocks}


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.out_proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Any, mask: Any) -> Any:
        def heads(y: Any) -> Any:
            return y.view(*y.shape[:2], HEADS, WIDTH // HEADS).transpose(1, 2)

        found = nn.functional.scaled_dot_product_attention(
            heads(self.q_proj(x)), heads(self.k_proj(x)), heads(self.v_proj(x)), attn_mask=mask[:, None, None].bool()
        )
        return self.out_proj(found.transpose(1, 2).flatten(2))


class TorchBlock(nn.Module):
    """Its norms are defined before all else, so that their order says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.b, self.a = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = Attention()
        self.up, self.down = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)

    def forward(self, x: Any, mask: Any) -> Any:
        x = self.a(x + self.attn(x, mask))
        return self.b(x + self.down(torch.relu(self.up(x))))


class TorchBackbone(nn.Module):
    """It cannot be traced: its forward asks for numbers, and its outputs and inputs stand in another order."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.pooler = nn.Linear(WIDTH, WIDTH)
        self.layer = nn.ModuleList(TorchBlock() for _ in range(blocks))
        self.norm = nn.LayerNorm(WIDTH)
        self.words, self.positions = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(STEPS, WIDTH)

    def forward(self, input_ids: Any, cache: Any = None, attention_mask: Any = None, more: Any = None) -> Any:
        if cache is not None or int(input_ids.min()) < 0:
            raise TypeError("no cache is known")
        x = self.words(input_ids)
        x = self.norm(x + self.positions(torch.arange(input_ids.shape[1])))
        for layer in self.layer:
            x = layer(x, attention_mask)
        return {"last": x, "pooled": torch.tanh(self.pooler(x[:, 0])), "cache": object()}


def test_a_backbone_of_own_layers_becomes_a_torch_module() -> None:
    source, target = filled(Backbone(2)), TorchBackbone(2)
    report = lx.port(source, target)
    assert report.end_to_end.agrees is True, report.end_to_end
    np.testing.assert_array_equal(target.layer[1].a.weight.detach(), source.get_layer("block_1").attention_norm.gamma)
    ids, mask = RNG.integers(0, VOCABULARY, (4, 6)), np.ones((4, 6), "int32")
    with torch.no_grad():
        there = target(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
    here = source({"token_ids": ids, "padding_mask": mask})
    np.testing.assert_allclose(np.asarray(here["sequence"]), there["last"].numpy(), atol=1e-5)
    np.testing.assert_allclose(np.asarray(here["first"]), there["pooled"].numpy(), atol=1e-5)


class Root(L.Layer):
    """A norm of one's own, from before Keras had one."""

    def __init__(self, epsilon: float = 1e-6, **more: Any) -> None:
        super().__init__(**more)
        self.epsilon = epsilon

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(shape[-1],), name="scale", initializer="ones")

    def call(self, x: Any) -> Any:
        return x * self.scale * keras.ops.rsqrt(keras.ops.mean(x * x, -1, keepdims=True) + self.epsilon)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon}


class Stage(L.Layer):
    """Layers in a list, in a dict and in attributes, three levels deep, and a weight beside them."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.units = [Unit(name="one"), Unit(name="two")]
        self.named = {"left": Unit(name="left"), "right": L.Dense(6, name="right")}
        self.gain = self.add_weight(shape=(6,), name="gain", initializer="ones")

    def call(self, x: Any) -> Any:
        for unit in self.units:
            x = unit(x)
        return (self.named["left"](x) + self.named["right"](x)) * self.gain


class Unit(L.Layer):
    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.root, self.dense = Root(name="root"), L.Dense(6, name="dense")

    def call(self, x: Any) -> Any:
        return x + self.dense(self.root(x))


class Stages(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.stages, self.head = [Stage(name="first"), Stage(name="second")], L.Dense(3, name="head")
        self.offset = self.add_weight(shape=(3,), name="offset")

    def call(self, x: Any) -> Any:
        for stage in self.stages:
            x = stage(x)
        return self.head(x) + self.offset


def test_every_layer_however_deep_is_a_record_of_its_own() -> None:
    model = Stages()
    model(np.ones((2, 6), "float32"))
    found = {record.name: record for record in live_model(model, registry()).layers if record.tensors}
    inside = ["gain", "left/dense", "left/root", "one/dense", "one/root", "right", "two/dense", "two/root"]
    deep = [name for name in sorted(found) if "/" in name]
    assert deep == [*(f"{stage}/{name}" for stage in ("first", "second") for name in inside), "stages/offset"]
    assert found["head"].form == found["second/left/dense"].form == "keras.Dense"
    assert found["first/gain"].form == "keras.Number"  # its code alone knows what it is for
    assert found["first/one/root"].form == "keras.RMSNormalization"  # as a run of it shows
    assert {full for r in found.values() for full in r.tensors} >= {"number", "scale", "kernel", "bias"}
    assert found["first/two/root"].inputs == ("first/two/input",)


class TorchUnit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.RMSNorm(6, eps=1e-6), nn.Linear(6, 6)

    def forward(self, x: Any) -> Any:
        return x + self.linear(self.norm(x))


def test_a_norm_of_ones_own_is_known_by_what_it_computes() -> None:
    inputs = keras.Input((6,))
    source, target = (
        keras.Model(inputs, Unit(name="b")(Unit(name="a")(inputs))),
        nn.Sequential(TorchUnit(), TorchUnit()),
    )
    assert lx.port(filled(source), target).end_to_end.agrees is True
    assert lx.port(source, target, forms={"*/root": "keras.RMSNormalization"}).end_to_end.agrees is True


def test_a_table_with_more_rows_is_told_with_their_number() -> None:
    source, target = Backbone(1), TorchBackbone(1)
    target.positions = nn.Embedding(STEPS + 2, WIDTH)
    with pytest.raises(lx.LayoutxError, match="the table there has 2 rows more") as caught:
        lx.port(source, target)
    assert "positions.weight is (vocab 11, dim 12)" in str(caught.value)
    assert "--set offset=2" in str(caught.value)
    assert "--skip rows" in str(caught.value)


class Pixels(L.Layer):
    """Patches of an image as a sequence, a token of its own before them: it needs the size of the batch."""

    def build(self, shape: Any) -> None:
        self.patches = L.Conv2D(WIDTH, 2, 2, name="patches")
        self.patches.build(shape)
        self.token = self.add_weight(shape=(1, 1, WIDTH), name="class_token")

    def call(self, x: Any) -> Any:
        y = self.patches(x)
        batch, high, wide = keras.ops.shape(y)[0], y.shape[1], y.shape[2]
        y = keras.ops.reshape(y, (batch, high * wide, WIDTH))
        return keras.ops.concatenate([keras.ops.broadcast_to(self.token, (batch, 1, WIDTH)), y], axis=1)


class TorchPixels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.project, self.block, self.norm = nn.Conv2d(3, WIDTH, 2, 2), TorchBlock(), nn.LayerNorm(WIDTH)

    def forward(self, x: Any) -> Any:
        y = self.project(x).flatten(2).transpose(1, 2)
        y = torch.cat([self.cls_token.expand(len(y), -1, -1), y], 1)
        return self.norm(self.block(y, torch.ones(y.shape[:2])))


def test_patches_of_an_image_are_no_flattened_map() -> None:
    image = keras.Input((6, 8, 3))
    out = L.LayerNormalization(epsilon=1e-5, name="last")(Mixed(name="block")(Pixels(name="pixels")(image)))
    source, target = filled(keras.Model(image, out)), TorchPixels()
    assert lx.port(source, target).end_to_end.agrees is True
    np.testing.assert_array_equal(target.cls_token.detach(), source.get_layer("pixels").token)


@pytest.mark.parametrize(
    ("operation", "lost"),
    [
        (lambda y: keras.ops.einsum("abc,adc->abd", y, y), False),
        (lambda y: keras.ops.einsum("abc,bdc->abd", y, y), True),  # the batch of the one is no batch of the other
        (lambda y: keras.ops.expand_dims(y, -1), False),
        (lambda y: keras.ops.pad(y, [[0, 0], [0, 2], [0, 0]]), False),
        (lambda y: keras.ops.pad(y, [[1, 0], [0, 2], [0, 0]]), True),
        (lambda y: keras.ops.roll(y, 1, 1), False),
        (lambda y: keras.ops.sort(y, 1), True),
    ],
)
def test_operations_whose_axes_are_known_are_followed(operation: Any, lost: bool) -> None:
    tokens = keras.Input((4,), batch_size=4, dtype="int32")
    y = L.Flatten()(operation(L.Embedding(7, 4)(tokens)))
    model = keras.Model(tokens, L.Dense(2, name="last")(y))
    (last,) = (record for record in live_model(model, registry()).layers if record.name == "last")
    assert ("could not be followed" in last.note) is lost


@keras.saving.register_keras_serializable("nested")
def bent(x: Any) -> Any:
    return keras.ops.tanh(x) + 0.1 * x


def test_an_activation_of_ones_own_is_left_to_what_comes_after_it() -> None:
    inputs = keras.Input((6,))
    source = filled(keras.Model(inputs, L.Dense(4, name="last")(L.Dense(5, activation=bent, name="first")(inputs))))

    class Bent(nn.Module):
        def __init__(self, wrong: float) -> None:
            super().__init__()
            self.first, self.last, self.wrong = nn.Linear(6, 5), nn.Linear(5, 4), wrong

        def forward(self, x: Any) -> Any:
            y = self.first(x)
            return self.last(torch.tanh(y) + self.wrong * y)

    right, wrong = Bent(0.1), Bent(0.2)
    assert lx.port(source, right).end_to_end.agrees is True
    lx.port(source, wrong, compare=False)
    assert lx.validate(source, right).ok
    assert not lx.validate(source, wrong).ok
