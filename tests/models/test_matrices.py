"""Matrices that no layer holds (experts, gates, graph convolutions, capsules): Keras, torch and jax, both ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import ConversionError, MatchError, VerificationError

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
nn, L, ops = torch.nn, keras.layers, keras.ops
INPUTS, WIDTH, EXPERTS, OUTPUTS = 11, 7, 3, 5
SAMPLES = 13


def seeded(model: Any) -> Any:
    """The Keras model with random numbers in every weight."""
    rng = np.random.default_rng(7)
    model.set_weights([rng.normal(0, 0.5, w.shape).astype("float32") for w in model.get_weights()])
    return model


def same(keras_model: Any, module: Any, x: Any, turned: Any = lambda x: x) -> None:
    module.eval()
    with torch.no_grad():
        made = module(torch.from_numpy(np.ascontiguousarray(turned(x)))).numpy()
    np.testing.assert_allclose(np.asarray(keras_model(x)), made, rtol=1e-4, atol=1e-5)


class Experts(L.Layer):
    def __init__(self, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width

    def build(self, shape: Any) -> None:
        self.experts = self.add_weight(shape=(EXPERTS, shape[-1], self.width), name="experts")
        self.gate = self.add_weight(shape=(shape[-1], EXPERTS), name="gate")
        self.shift = self.add_weight(shape=(self.width,), name="shift")
        self.built = True

    def call(self, x: Any) -> Any:
        return ops.einsum("bi,eio,be->bo", x, self.experts, ops.softmax(x @ self.gate)) + self.shift

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width}


def mixture(width: int) -> Any:
    x = data = keras.Input((INPUTS,))
    x = L.Dense(INPUTS, activation="relu", name="first")(x)
    x = Experts(width, name="mix")(x)
    return seeded(keras.Model(data, L.Dense(OUTPUTS, name="last")(x)))


class Mix(nn.Module):
    def __init__(self, width: int, turned: bool) -> None:
        super().__init__()
        self.turned = turned
        self.experts = nn.Parameter(torch.randn((EXPERTS, width, INPUTS) if turned else (EXPERTS, INPUTS, width)))
        self.gate = nn.Parameter(torch.randn(INPUTS, EXPERTS))
        self.shift = nn.Parameter(torch.randn(width))

    def forward(self, x: Any) -> Any:
        experts = self.experts.mT if self.turned else self.experts
        return torch.einsum("bi,eio,be->bo", x, experts, (x @ self.gate).softmax(-1)) + self.shift


class Mixture(nn.Module):
    def __init__(self, width: int, turned: bool) -> None:
        super().__init__()
        self.first, self.mix, self.last = nn.Linear(INPUTS, INPUTS), Mix(width, turned), nn.Linear(width, OUTPUTS)

    def forward(self, x: Any) -> Any:
        return self.last(self.mix(self.first(x).relu()))


def rows(*shape: int) -> Any:
    return np.random.default_rng(3).normal(size=shape).astype("float32")


@pytest.mark.parametrize("turned", [False, True])
def test_experts_go_there_and_back_whichever_way_they_lie(turned: bool) -> None:
    model, module = mixture(WIDTH), Mixture(WIDTH, turned)
    report = lx.port(model, module)
    assert report.end_to_end.agrees
    assert report.exactness == "moves"
    same(model, module, rows(SAMPLES, INPUTS))
    other = Mixture(WIDTH, turned)
    assert lx.port(other, model).end_to_end.agrees
    same(model, other, rows(SAMPLES, INPUTS))
    found = lx.validate(model, other, rows(SAMPLES, INPUTS))
    assert not found.lost
    assert not found.unused
    assert not found.gaps
    assert any(one.layer == "mix/experts" for one in found.checks)


def test_experts_of_one_length_are_asked_for_and_a_wrong_word_shows() -> None:
    model = mixture(INPUTS)
    with pytest.raises(MatchError, match=r"--set mix/experts.turned=VALUE, false or true"):
        lx.port(model, Mixture(INPUTS, True))
    with pytest.raises(VerificationError, match="do not compute the same"):
        lx.port(model, Mixture(INPUTS, True), values={"mix/experts.turned": False})
    for turned in (False, True):
        module = Mixture(INPUTS, turned)
        assert lx.port(model, module, values={"mix/experts.turned": turned}).end_to_end.agrees
        same(model, module, rows(SAMPLES, INPUTS))


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_files_into_names_and_back(name: str, tmp_path: Any) -> None:
    from safetensors.torch import load_file, save_file

    model, module = mixture(WIDTH), Mixture(WIDTH, True)
    model.save(tmp_path / name)
    save_file(module.state_dict(), tmp_path / "like.safetensors")
    lx.convert(tmp_path / name, tmp_path / "out.safetensors", to="torch", like=tmp_path / "like.safetensors")
    module.load_state_dict(load_file(tmp_path / "out.safetensors"))
    same(model, module, rows(SAMPLES, INPUTS))
    back = tmp_path / f"back.{name.rpartition('.')[2]}"
    lx.convert(tmp_path / "out.safetensors", back, to="keras", like=tmp_path / name)
    again = keras.models.load_model(back, custom_objects={"Experts": Experts})
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


class GraphConv(L.Layer):
    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    def build(self, shapes: Any) -> None:
        self.kernel = self.add_weight(shape=(shapes[0][-1], self.units), name="kernel")
        self.bias = self.add_weight(shape=(self.units,), name="bias")
        self.built = True

    def call(self, given: Any) -> Any:
        x, edges = given
        return edges @ (x @ self.kernel) + self.bias

    def compute_output_shape(self, shapes: Any) -> Any:
        return (*shapes[0][:-1], self.units)


class TorchGraphConv(nn.Module):
    """As in pygcn, with the names of a Linear; with a Linear without bias, as in PyG."""

    def __init__(self, inputs: int, units: int, linear: bool) -> None:
        super().__init__()
        if linear:
            self.lin = nn.Linear(inputs, units, bias=False)
        else:
            self.weight = nn.Parameter(torch.randn(inputs, units))
        self.bias = nn.Parameter(torch.randn(units))

    def forward(self, x: Any, edges: Any) -> Any:
        return edges @ (self.lin(x) if hasattr(self, "lin") else x @ self.weight) + self.bias


class Graph(nn.Module):
    def __init__(self, linear: bool) -> None:
        super().__init__()
        self.one, self.two = TorchGraphConv(INPUTS, WIDTH, linear), TorchGraphConv(WIDTH, OUTPUTS, linear)

    def forward(self, x: Any, edges: Any) -> Any:
        return self.two(self.one(x, edges).relu(), edges)


@pytest.mark.parametrize("linear", [False, True])
def test_graph_convolutions_by_hand(linear: bool) -> None:
    x, edges = keras.Input((SAMPLES, INPUTS)), keras.Input((SAMPLES, SAMPLES))
    hidden = L.ReLU()(GraphConv(WIDTH)([x, edges]))
    model = seeded(keras.Model([x, edges], GraphConv(OUTPUTS)([hidden, edges])))
    module, data = Graph(linear), [rows(2, SAMPLES, INPUTS), rows(2, SAMPLES, SAMPLES)]
    assert lx.port(model, module, data).end_to_end.agrees
    with torch.no_grad():
        made = module(*map(torch.from_numpy, data)).numpy()
    np.testing.assert_allclose(np.asarray(model(data)), made, rtol=1e-4, atol=1e-4)
    assert lx.port(Graph(linear), model, data).end_to_end.agrees


def test_gates_in_a_parameter_list_are_dense_layers_without_bias() -> None:
    class Gates(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gates = nn.ParameterList([torch.randn(INPUTS, EXPERTS) for _ in range(2)])
            self.heads = nn.ModuleList([nn.Linear(EXPERTS, OUTPUTS), nn.Linear(EXPERTS, OUTPUTS)])

        def forward(self, x: Any) -> Any:
            return sum(head((x @ gate).softmax(-1)) for gate, head in zip(self.gates, self.heads, strict=True))

    data = keras.Input((INPUTS,))
    made = [L.Dense(EXPERTS, use_bias=False, activation="softmax", name=f"gate_{i}")(data) for i in range(2)]
    model = seeded(keras.Model(data, L.Add()([L.Dense(OUTPUTS, name=f"head_{i}")(x) for i, x in enumerate(made)])))
    module = Gates()
    assert lx.port(model, module).end_to_end.agrees
    same(model, module, rows(SAMPLES, INPUTS))
    assert lx.port(Gates(), model).end_to_end.agrees


class Two(L.Layer):
    """Two matrices, or two that both have as many rows as a flattened map has numbers."""

    def __init__(self, both: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.both = both

    def build(self, shape: Any) -> None:
        self.a = self.add_weight(shape=(shape[-1], WIDTH), name="a")
        self.b = self.add_weight(shape=(shape[-1] if self.both else WIDTH, OUTPUTS), name="b")
        self.built = True

    def call(self, x: Any) -> Any:
        return ops.sum(x @ self.a, -1, keepdims=True) * (x @ self.b) if self.both else ops.tanh(x @ self.a) @ self.b


class TorchTwo(nn.Module):
    def __init__(self, both: bool) -> None:
        super().__init__()
        size = 3 * 4 * 5
        self.both, self.conv = both, nn.Conv2d(2, 3, 3)
        self.a = nn.Parameter(torch.randn(size, WIDTH))
        self.b = nn.Parameter(torch.randn(size if both else WIDTH, OUTPUTS))

    def forward(self, x: Any) -> Any:
        x = self.conv(x).flatten(1)
        return (x @ self.a).sum(-1, keepdim=True) * (x @ self.b) if self.both else (x @ self.a).tanh() @ self.b


def flattened(both: bool) -> Any:
    data = keras.Input((6, 7, 2))
    x = L.Flatten()(L.Conv2D(3, 3, name="conv")(data))
    return seeded(keras.Model(data, Two(both, name="two")(x)))


def test_the_one_matrix_that_reads_a_flattened_map_takes_its_order_over() -> None:
    model, module = flattened(both=False), TorchTwo(both=False)
    lx.port(model, module, compare=False)  # no run mends it
    same(model, module, rows(SAMPLES, 6, 7, 2), lambda x: x.transpose(0, 3, 1, 2))


def test_where_several_may_read_a_flattened_map_the_order_is_asked_for() -> None:
    with pytest.raises(ConversionError, match=r"no form for the class Two[^!]*--keep-order 'two/\*'"):
        lx.port(flattened(both=True), TorchTwo(both=True), compare=False)
    with pytest.raises(VerificationError):
        lx.port(flattened(both=True), TorchTwo(both=True), keep_order=["two/*"])


def test_a_class_whose_matrices_the_other_model_lacks_is_refused_as_a_whole() -> None:
    module = nn.Sequential(nn.Linear(INPUTS, INPUTS), nn.ReLU(), nn.Linear(INPUTS, OUTPUTS))
    with pytest.raises(ConversionError, match="no form for the class Experts"):
        lx.port(mixture(WIDTH), module)


def test_flax_parameters_into_torch_and_back() -> None:
    jax = pytest.importorskip("jax")
    linen = pytest.importorskip("flax.linen")

    class Own(linen.Module):  # type: ignore[misc]
        @linen.compact
        def __call__(self, x: Any) -> Any:
            experts = self.param("experts", linen.initializers.normal(), (EXPERTS, INPUTS, WIDTH))
            gate = self.param("gate", linen.initializers.normal(), (INPUTS, EXPERTS))
            shift = self.param("shift", linen.initializers.normal(), (WIDTH,))
            return jax.numpy.einsum("bi,eio,be->bo", x, experts, jax.nn.softmax(x @ gate)) + shift

    class Net(linen.Module):  # type: ignore[misc]
        @linen.compact
        def __call__(self, x: Any) -> Any:
            x = linen.relu(linen.Dense(INPUTS, name="first")(x))
            return linen.Dense(OUTPUTS, name="last")(Own(name="mix")(x))

    net, x = Net(), rows(SAMPLES, INPUTS)
    params = net.init(jax.random.key(5), x)
    module = Mixture(WIDTH, True)
    assert lx.port((net, params), module, x).end_to_end.agrees
    with torch.no_grad():
        np.testing.assert_allclose(net.apply(params, x), module(torch.from_numpy(x)).numpy(), rtol=1e-4, atol=1e-5)
    other = Mixture(WIDTH, True)
    found = lx.port(other, (net, params), x).model
    with torch.no_grad():
        np.testing.assert_allclose(
            found[0].apply(found[1], x), other(torch.from_numpy(x)).numpy(), rtol=1e-4, atol=1e-5
        )


class Stacked(L.Layer):
    """Experts of two layers each, one tensor a layer."""

    def __init__(self, bias: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bias = bias

    def build(self, shape: Any) -> None:
        self.router = self.add_weight(shape=(INPUTS, EXPERTS), name="router")
        self.w1 = self.add_weight(shape=(EXPERTS, INPUTS, WIDTH), name="w1")
        self.w2 = self.add_weight(shape=(EXPERTS, WIDTH, OUTPUTS), name="w2")
        if self.bias:
            self.b1 = self.add_weight(shape=(EXPERTS, WIDTH), name="b1")
            self.b2 = self.add_weight(shape=(EXPERTS, OUTPUTS), name="b2")
        self.built = True

    def call(self, x: Any) -> Any:
        y = ops.einsum("bi,eih->beh", x, self.w1)
        y = ops.einsum("beh,eho->beo", ops.relu(y + self.b1 if self.bias else y), self.w2)
        return ops.sum((y + self.b2 if self.bias else y) * ops.softmax(x @ self.router)[..., None], 1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bias": self.bias}


class Listed(nn.Module):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.gate = nn.Linear(INPUTS, EXPERTS, bias=False)
        layers = [(nn.Linear(INPUTS, WIDTH, bias), nn.ReLU(), nn.Linear(WIDTH, OUTPUTS, bias)) for _ in range(EXPERTS)]
        self.experts = nn.ModuleList([nn.Sequential(*one) for one in layers])

    def forward(self, x: Any) -> Any:
        share = self.gate(x).softmax(-1)[..., None]
        return (torch.stack([expert(x) for expert in self.experts], 1) * share).sum(1)


@pytest.mark.parametrize("bias", [False, True])
def test_stacked_experts_are_a_list_of_modules_elsewhere(bias: bool, tmp_path: Any) -> None:
    from safetensors.torch import save_file

    data = keras.Input((INPUTS,))
    model, module = seeded(keras.Model(data, Stacked(bias, name="moe")(data))), Listed(bias)
    assert lx.port(model, module).end_to_end.agrees
    same(model, module, rows(SAMPLES, INPUTS))
    other = Listed(bias)
    assert lx.port(other, model).end_to_end.agrees
    same(model, other, rows(SAMPLES, INPUTS))
    third = Listed(bias)
    save_file(third.state_dict(), tmp_path / "list.safetensors")
    model.save(tmp_path / "like.keras")
    lx.convert(tmp_path / "list.safetensors", tmp_path / "out.keras", to="keras", like=tmp_path / "like.keras")
    again = keras.models.load_model(tmp_path / "out.keras", custom_objects={"Stacked": Stacked})
    same(again, third, rows(SAMPLES, INPUTS))
