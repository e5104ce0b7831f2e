"""Models as people write them after the examples of flax and haiku, against torch modules of their own names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import LayoutxError

jax = pytest.importorskip("jax")
linen = pytest.importorskip("flax.linen")
torch = pytest.importorskip("torch")


def trained(tree: Any, seed: int = 0) -> Any:
    """A tree of parameters or statistics with made up numbers; variances and scales are positive."""
    rng = np.random.default_rng(seed)

    def made(path: Any, leaf: Any) -> Any:
        array = rng.standard_normal(np.shape(leaf)).astype(np.float32) * 0.4
        positive = any(word in jax.tree_util.keystr(path) for word in ("var", "scale"))
        return jax.numpy.asarray(np.abs(array) + 0.5 if positive else array)

    return jax.tree_util.tree_map_with_path(made, tree)


def torch_trained(module: Any, seed: int = 1) -> Any:
    """A torch module with made up numbers, at inference."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.dtype.is_floating_point:
                array = rng.standard_normal(tuple(tensor.shape)) * 0.4
                tensor.copy_(torch.from_numpy(np.abs(array) + 0.5 if "var" in name else array))
    return module.eval()


def first(x: Any) -> Any:
    """A batch of maps with its channels in front, for torch."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


class Block(linen.Module):
    """A residual block whose call takes the norm's mode from outside, with names of its own."""

    train: bool

    def setup(self) -> None:
        self.conv_a, self.conv_b = linen.Conv(4, (3, 3), use_bias=False), linen.Conv(4, (3, 3), use_bias=False)
        self.bn_a, self.bn_b = (linen.BatchNorm(use_running_average=not self.train) for _ in range(2))

    def __call__(self, x: Any) -> Any:
        return linen.relu(x + self.bn_b(self.conv_b(linen.relu(self.bn_a(self.conv_a(x))))))


class Residual(linen.Module):
    """flax' ImageNet example in small: `train` is true unless the caller says otherwise."""

    @linen.compact
    def __call__(self, x: Any, train: bool = True) -> Any:
        x = linen.Conv(4, (3, 3), name="conv_init")(x)
        for at in range(2):
            x = Block(train, name=f"block_{at}")(x)
        return linen.Dense(3, name="head")(x.mean((1, 2)))


class TorchBlock(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        nn = torch.nn
        self.first, self.second = (nn.Conv2d(4, 4, 3, padding=1, bias=False) for _ in range(2))
        self.norm1, self.norm2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Any) -> Any:
        return torch.relu(x + self.norm2(self.second(torch.relu(self.norm1(self.first(x))))))


class TorchResidual(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(2, 4, 3, padding=1)
        self.blocks = torch.nn.Sequential(TorchBlock(), TorchBlock())
        self.fc = torch.nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))


def test_a_model_that_trains_unless_told_otherwise_is_run_at_inference() -> None:
    """Its norms would ask for batch statistics to change, so that it was neither traced nor run."""
    x = np.random.default_rng(2).standard_normal((2, 6, 6, 2)).astype(np.float32)
    module = Residual()
    variables = trained(module.init(jax.random.key(0), x))
    target = TorchResidual().eval()
    report = lx.port((module, variables), target, x)
    assert report.end_to_end.agrees
    with torch.no_grad():
        np.testing.assert_allclose(target(first(x)), module.apply(variables, x, train=False), atol=1e-4)


class Names(linen.Module):
    """Layers whose names do not tell their classes."""

    def setup(self) -> None:
        self.up, self.mix = linen.Conv(4, (3, 3), padding="VALID"), linen.Dense(4)
        self.ln, self.out = linen.LayerNorm(), linen.Dense(3)

    def __call__(self, x: Any) -> Any:
        x = self.ln(self.up(x))
        return self.out(linen.relu(self.mix(x)))


class TorchNames(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.ln = torch.nn.Conv2d(4, 4, 3), torch.nn.LayerNorm(4, eps=1e-6)
        self.mix, self.out = torch.nn.Linear(4, 4), torch.nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        x = self.ln(self.up(x).permute(0, 2, 3, 1))
        return self.out(torch.relu(self.mix(x)))


def test_the_counterpart_tells_the_class_of_a_layer_that_weights_alone_do_not() -> None:
    x = np.random.default_rng(3).standard_normal((2, 5, 5, 4)).astype(np.float32)
    module = Names()
    variables = trained(module.init(jax.random.key(0), x))
    with pytest.raises(LayoutxError, match=r"flax\.Conv, flax\.ConvTranspose"):
        lx.convert(variables, None, to="torch")
    target = TorchNames().eval()
    report = lx.port(variables, target, keep_order=True)  # a Dense of a map's channels: nothing is flattened
    assert "form from its counterpart" in " ".join(note for layer in report.layers for note in layer.notes)
    with torch.no_grad():
        np.testing.assert_allclose(target(first(x)), module.apply(variables, x), atol=1e-5)
    back = lx.port(target, variables).model
    for old, new in zip(jax.tree.leaves(variables), jax.tree.leaves(back), strict=True):
        np.testing.assert_array_equal(old, new)


def haiku_net(x: Any, is_training: bool) -> Any:
    haiku = pytest.importorskip("haiku")
    x = haiku.Conv2D(4, 3, padding="VALID")(x)
    x = jax.nn.relu(haiku.BatchNorm(True, True, 0.9)(x, is_training))
    x = haiku.Conv2D(5, (2, 3), padding="VALID", with_bias=False)(x)
    return haiku.Linear(3)(jax.nn.relu(haiku.Linear(6)(haiku.Flatten()(jax.nn.relu(x)))))


class TorchNet(torch.nn.Module):
    """The same; its flattening puts channels first."""

    def __init__(self) -> None:
        super().__init__()
        nn = torch.nn
        self.c1, self.bn, self.c2 = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, (2, 3), bias=False)
        self.f1, self.f2 = nn.Linear(5 * 5 * 3, 6), nn.Linear(6, 3)

    def forward(self, x: Any) -> Any:
        x = torch.relu(self.c2(torch.relu(self.bn(self.c1(x)))))
        return self.f2(torch.relu(self.f1(x.flatten(1))))


def test_a_transformed_function_of_haiku_is_traced_and_run() -> None:
    haiku = pytest.importorskip("haiku")
    x = np.random.default_rng(4).standard_normal((2, 8, 7, 1)).astype(np.float32)
    model = haiku.transform_with_state(haiku_net)
    params, state = map(trained, model.init(jax.random.key(0), x, True))
    with pytest.raises(LayoutxError, match="75 input rows"):
        lx.port((params, state), TorchNet())
    target = TorchNet().eval()
    report = lx.port((model, params, state), target, x)
    assert report.end_to_end.agrees
    with torch.no_grad():
        np.testing.assert_allclose(target(first(x)), model.apply(params, state, None, x, False)[0], atol=1e-5)
    other = torch_trained(TorchNet())
    back = lx.port(other, (model, params, state), np.moveaxis(x, -1, 1))
    assert back.end_to_end.agrees
    with torch.no_grad():
        np.testing.assert_allclose(other(first(x)), model.apply(*back.model[1:], None, x, False)[0], atol=1e-5)
    assert back.model[2]["batch_norm/~/mean_ema"]["counter"] == state["batch_norm/~/mean_ema"]["counter"]


@pytest.mark.parametrize("given", ["pair", "one tree", "both said"])
def test_the_trees_of_haiku_alone(given: str) -> None:
    """Parameters and statistics of one norm lie in two trees; what training alone reads is left out."""
    haiku = pytest.importorskip("haiku")

    def net(x: Any, is_training: bool) -> Any:
        mixed = haiku.get_parameter("shift", [3], init=jax.numpy.ones) * 0
        return haiku.Linear(2)(haiku.BatchNorm(True, True, 0.9, name="bn")(x, is_training)) + 0 * mixed.sum()

    x = np.random.default_rng(5).standard_normal((4, 2, 3)).astype(np.float32)
    model = haiku.without_apply_rng(haiku.transform_with_state(net))
    params, state = map(trained, model.init(jax.random.key(0), x, True))
    trees = {"pair": (params, state), "one tree": {"params": params, "state": state}, "both said": {**params, **state}}
    target = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2)).eval()
    lx.port(trees[given], target, from_="haiku" if given == "both said" else "", skip=["~"])
    with torch.no_grad():
        found = target(torch.from_numpy(x).flatten(0, 1)).unflatten(0, (4, 2))
        np.testing.assert_allclose(found, model.apply(params, state, x, False)[0], atol=1e-5)


def test_two_trees_that_are_not_haikus_are_told_so() -> None:
    variables = Residual().init(jax.random.key(0), np.ones((1, 4, 4, 2), np.float32))
    with pytest.raises(LayoutxError, match="batch_stats"):
        lx.port((variables["params"], variables["batch_stats"]), TorchResidual())


def test_the_forget_bias_of_haiku_is_taken_off_the_sum_of_two_biases() -> None:
    """torch has two biases and haiku adds one while it runs: 1 less is stored, and rounded at that size."""
    haiku = pytest.importorskip("haiku")
    x = np.random.default_rng(6).standard_normal((5, 2, 4)).astype(np.float32)

    def net(x: Any) -> Any:
        core = haiku.LSTM(16)
        return haiku.dynamic_unroll(core, x, core.initial_state(x.shape[1]))[0]

    model = haiku.without_apply_rng(haiku.transform(net))
    params = model.init(jax.random.key(0), x)
    for seed in range(3):
        source = torch_trained(torch.nn.LSTM(4, 16), seed)
        back = lx.port(source, params, allow=["rounds"]).model
        with torch.no_grad():
            np.testing.assert_allclose(model.apply(back, x), source(torch.from_numpy(x))[0], atol=1e-6)


def test_both_directions_of_torch_find_the_bidirectional_of_nnx() -> None:
    """Its cells and its two RNN hold one direction each: they are no place for both."""
    nnx = pytest.importorskip("flax.nnx")
    source, rngs = torch_trained(torch.nn.LSTM(3, 4, bidirectional=True, batch_first=True)), nnx.Rngs(0)
    ways = (nnx.RNN(nnx.LSTMCell(3, 4, rngs=rngs)) for _ in range(2))
    x = np.random.default_rng(7).standard_normal((2, 5, 3)).astype(np.float32)
    target = nnx.Sequential(nnx.Bidirectional(*ways))
    lx.port(source, target, x, allow=["rounds"], compare=False)
    with torch.no_grad():
        np.testing.assert_allclose(target(x), source(torch.from_numpy(x))[0], atol=1e-5)


class Attentive(linen.Module):
    """One block of flax' language model example: SelfAttention under its own name, and a causal mask."""

    @linen.compact
    def __call__(self, x: Any) -> Any:
        mask = linen.make_causal_mask(x[..., 0])
        y = x + linen.SelfAttention(num_heads=2, use_bias=False)(linen.LayerNorm()(x), mask)
        return linen.Dense(3, name="logits")(y)


class TorchAttentive(torch.nn.Module):
    """The same with four Linear, which do not say how many heads there are."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = torch.nn.LayerNorm(8, eps=1e-6), torch.nn.Linear(8, 3)
        self.q, self.k, self.v, self.o = (torch.nn.Linear(8, 8, bias=False) for _ in range(4))

    def forward(self, x: Any) -> Any:
        h = self.norm(x)
        q, k, v = (part(h).unflatten(-1, (2, 4)).transpose(1, 2) for part in (self.q, self.k, self.v))
        found = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head(x + self.o(found.transpose(1, 2).flatten(2)))


def test_projections_apart_become_the_attention_of_flax_and_come_back() -> None:
    x = np.random.default_rng(8).standard_normal((2, 5, 8)).astype(np.float32)
    module, source = Attentive(), torch_trained(TorchAttentive())
    target = (module, module.init(jax.random.key(0), x))
    ported = lx.port(source, target, x)
    assert ported.end_to_end.agrees
    found = TorchAttentive().eval()
    assert lx.port(ported.model, found, x).end_to_end.agrees
    for name, tensor in source.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], tensor, rtol=0, atol=0)


def test_a_class_under_another_name_keeps_its_options() -> None:
    """SelfAttention was read without its options, so that nothing asked for what they change."""

    class Own(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            def own(q: Any, k: Any, v: Any, **kwargs: Any) -> Any:
                return linen.dot_product_attention(q, k, 2 * v)

            return linen.SelfAttention(num_heads=2, attention_fn=own, name="attention")(x)

    x = np.ones((1, 3, 4), np.float32)
    model = (Own(), trained(Own().init(jax.random.key(0), x)))
    with pytest.raises(LayoutxError, match="attention_fn"):
        lx.port(model, torch.nn.MultiheadAttention(4, 2, batch_first=True), x, compare=False)


class Flattened(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = linen.relu(linen.Conv(4, (3, 3), padding="VALID")(x))
        return linen.Dense(3)(x.reshape(len(x), -1))


def test_weights_alone_go_into_a_live_keras_model_that_flattens() -> None:
    """Both keep channels last: the rows that only Keras' wiring tells stay as they are."""
    keras = pytest.importorskip("keras")
    layers = [keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.Flatten(), keras.layers.Dense(3)]
    target = keras.Sequential([keras.Input((6, 5, 2)), *layers])
    x = np.random.default_rng(9).standard_normal((2, 6, 5, 2)).astype(np.float32)
    variables = trained(Flattened().init(jax.random.key(0), x))
    lx.port(variables, target, x)
    np.testing.assert_allclose(target(x), Flattened().apply(variables, x), atol=1e-4)


def test_no_counterpart_tells_what_a_class_of_ones_own_computes() -> None:
    class Conv(linen.Module):
        """The kernel of a convolution, back to front."""

        @linen.compact
        def __call__(self, x: Any) -> Any:
            kernel = self.param("kernel", linen.initializers.normal(), (3, 3, 2, 4))
            return jax.lax.conv_general_dilated(
                x, kernel[::-1], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )

    class Own(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            return Conv(name="odd")(x)

    x = np.ones((1, 6, 5, 2), np.float32)
    model = (Own(), Own().init(jax.random.key(0), x))
    with pytest.raises(LayoutxError, match="no form for the class Conv"):
        lx.port(model, torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3, bias=False)), x, compare=False)


class Both(linen.Module):
    """A bidirectional layer made in the call: linen keeps the two cells beside it."""

    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = linen.RNN(linen.LSTMCell(6))(x)
        x = linen.Bidirectional(linen.RNN(linen.OptimizedLSTMCell(5)), linen.RNN(linen.OptimizedLSTMCell(5)))(x)
        return linen.Dense(3, name="head")(x)


class TorchBoth(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.LSTM(4, 6, batch_first=True)
        self.both = torch.nn.LSTM(6, 5, batch_first=True, bidirectional=True)
        self.head = torch.nn.Linear(10, 3)

    def forward(self, x: Any) -> Any:
        return self.head(self.both(self.one(x)[0])[0])


def test_cells_of_a_compact_call_belong_to_their_layers() -> None:
    x = np.random.default_rng(2).standard_normal((2, 7, 4)).astype(np.float32)
    module, there = Both(), TorchBoth()
    variables = trained(module.init(jax.random.key(0), x))
    report = lx.port((module, variables), there, x)
    assert [line.name for line in report.layers] == ["RNN_0", "Bidirectional_0", "head"]
    assert np.abs(np.asarray(module.apply(variables, x)) - there(torch.from_numpy(x)).detach().numpy()).max() < 1e-5
    found = lx.validate((module, variables), there, x)
    assert found.ok
    assert found.compared == 3
    back = lx.port(torch_trained(TorchBoth()), (module, variables), x, allow=["rounds"])
    assert back.model[1]["params"].keys() == variables["params"].keys()


def test_validate_runs_a_function_of_haiku() -> None:
    hk = pytest.importorskip("haiku")

    def model(x: Any) -> Any:
        return hk.Linear(3, name="head")(jax.nn.relu(hk.Linear(8, name="first")(x)))

    x = np.random.default_rng(3).standard_normal((2, 4)).astype(np.float32)
    made = hk.transform(model)
    params = trained(made.init(jax.random.key(0), x))
    there = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    lx.port((made, params), there, x)
    assert lx.validate((made, params), there, x).compared == 2
    with torch.no_grad():
        there[2].bias += 1
    found = lx.validate((made, params), there, x)
    assert [check.layer for check in found.checks if check.verdict == "FAIL"] == ["head"]


def test_norms_of_one_size_are_told_apart_without_inputs() -> None:
    """Blocks whose norms names do not tell apart: the program does, on tokens that were made up."""
    eqx = pytest.importorskip("equinox")

    class Layer(eqx.Module):
        first: Any
        last: Any
        up: Any
        down: Any

        def __init__(self, key: Any) -> None:
            self.first, self.last = eqx.nn.LayerNorm(8), eqx.nn.LayerNorm(8)
            self.up, self.down = eqx.nn.Linear(8, 16, key=key), eqx.nn.Linear(16, 8, key=key)

        def __call__(self, x: Any) -> Any:
            return self.first(x + self.down(jax.nn.relu(self.up(self.last(x)))))

    class Tokens(eqx.Module):
        table: Any
        layer: Any
        end: Any

        def __init__(self, key: Any) -> None:
            self.table, self.layer, self.end = eqx.nn.Embedding(11, 8, key=key), Layer(key), eqx.nn.LayerNorm(8)

        def __call__(self, ids: Any) -> Any:
            return jax.vmap(lambda one: self.end(self.layer(self.table(one))))(ids)

    class TorchTokens(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            nn = torch.nn
            self.a, self.b, self.c = (nn.LayerNorm(8) for _ in range(3))
            self.wide, self.narrow, self.ids = nn.Linear(8, 16), nn.Linear(16, 8), nn.Embedding(11, 8)

        def forward(self, ids: Any) -> Any:
            x = self.ids(ids)
            return self.c(self.b(x + self.narrow(torch.relu(self.wide(self.a(x))))))

    arrays, rest = eqx.partition(Tokens(jax.random.key(0)), eqx.is_array)
    model, there = eqx.combine(trained(arrays), rest), TorchTokens()
    lx.port(model, there)
    ids = np.array([[1, 5, 10], [0, 2, 3]], np.int32)
    assert np.abs(np.asarray(jax.vmap(model)(ids)) - there(torch.from_numpy(ids)).detach().numpy()).max() < 1e-5
