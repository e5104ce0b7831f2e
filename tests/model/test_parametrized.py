"""Weights in parts: the effective weight is that of the real module in eval mode, or the layer is refused by name."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layoutx.errors import ConversionError, LayoutxError
from layoutx.files.store import Store, tensor_of
from layoutx.model.in_parts import settled
from layoutx.model.keyed import Keyed, keyed_module, keyed_store
from layoutx.model.parametrized import sites
from layoutx.model.state import state_records
from layoutx.spec.registry import registry

torch = pytest.importorskip("torch")
nn = torch.nn
KNOWN = registry()


def keyed_of(module: Any, live: bool = False) -> Keyed:
    """A module as the names of its state dict alone, or live with its classes."""
    if live:
        return keyed_module(module, lambda form: KNOWN.forms[form].config if form in KNOWN.forms else None)
    arrays = {name: value.detach().numpy() for name, value in module.state_dict().items()}
    return named(arrays, "torch")


def named(arrays: dict[str, Any], framework: str) -> Keyed:
    tensors = {name: tensor_of(name, np.asarray(array)) for name, array in arrays.items()}
    return keyed_store(Store(Path("x"), "npz", tensors), framework)


def shaken(module: Any) -> Any:
    """The module in eval mode, after training steps moved its numbers and its power iteration."""
    torch.manual_seed(3)
    with torch.no_grad():
        for value in module.parameters():
            value.add_(torch.randn_like(value) * 0.3)
    for _ in range(3):
        assert module.weight is not None  # the new spectral_norm iterates whenever its weight is looked at
    return module.eval()


def old(make: Any, module: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(module, **options)


LAYERS = {
    "linear": lambda: nn.Linear(5, 7),
    "conv": lambda: nn.Conv2d(3, 5, (2, 7)),
    "transposed": lambda: nn.ConvTranspose1d(3, 5, 7),
}
INPUTS = {"linear": (2, 5), "conv": (1, 3, 9, 11), "transposed": (1, 3, 11)}
STYLES = {
    "old weight_norm": lambda m: old(nn.utils.weight_norm, m),
    "old weight_norm dim 1": lambda m: old(nn.utils.weight_norm, m, dim=1),
    "old weight_norm whole": lambda m: old(nn.utils.weight_norm, m, dim=None),
    "new weight_norm": nn.utils.parametrizations.weight_norm,
    "old spectral_norm": lambda m: old(nn.utils.spectral_norm, m),
    "new spectral_norm": nn.utils.parametrizations.spectral_norm,
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("live", [False, True])
def test_the_effective_weight_is_torchs_own(style: str, layer: str, live: bool) -> None:
    module = STYLES[style](LAYERS[layer]().double())
    module(torch.randn(*INPUTS[layer], dtype=torch.float64))
    module = shaken(module)
    module(torch.randn(*INPUTS[layer], dtype=torch.float64))  # the old ones compute the weight when they are called
    found = settled(keyed_of(module, live), True)
    assert sorted(found.tensors) == ["bias", "weight"]
    want = module.weight.detach().numpy()
    assert np.abs(found.tensors["weight"].read() - want).max() <= 1e-12
    raw = next(p for n, p in module.named_parameters() if n.endswith(("_v", "_orig", "original1", "original")))
    assert np.abs(raw.detach().numpy() - want).max() > 1e-2, "the parts themselves would have passed"
    assert "float64" in found.tensors["weight"].derived


def test_pruning_is_a_product() -> None:
    module = nn.Linear(5, 7)
    prune = pytest.importorskip("torch.nn.utils.prune")
    prune.random_unstructured(module, "weight", amount=0.4)
    found = settled(keyed_of(module), True)
    assert np.array_equal(found.tensors["weight"].read(), module.weight.detach().numpy())


def test_float32_is_rounded_once() -> None:
    module = nn.utils.parametrizations.weight_norm(nn.Linear(5, 7))
    g, v = (module.parametrizations.weight.original0, module.parametrizations.weight.original1)
    g, v = (x.detach().double() for x in (g, v))
    want = (v * (g / v.norm(dim=1, keepdim=True))).float().numpy()
    found = settled(keyed_of(module), True).tensors["weight"].read()
    assert found.dtype == np.float32
    assert np.array_equal(found, want)


def test_without_the_choice_all_are_refused_by_name() -> None:
    module = nn.Sequential(
        old(nn.utils.weight_norm, nn.Linear(5, 7)),
        nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(7, 3))),
    )
    with pytest.raises(LayoutxError) as caught:
        settled(keyed_of(module), False)
    assert "0.weight is stored through weight_norm" in str(caught.value)
    assert "1.0.weight is stored through spectral_norm" in str(caught.value)
    assert "--materialise" in str(caught.value)
    with pytest.raises(ConversionError) as caught:
        settled(keyed_of(module), False, ("1.0",))
    assert "1.0.weight" not in str(caught.value)


def test_a_parametrization_that_layoutx_does_not_know_is_never_computed() -> None:
    module = nn.utils.parametrizations.orthogonal(nn.Linear(5, 5))
    with pytest.raises(ConversionError, match="does not know"):
        settled(keyed_of(module), True)


def test_a_square_transposed_convolution_is_told_by_its_class_alone() -> None:
    module = nn.utils.parametrizations.spectral_norm(nn.ConvTranspose1d(5, 5, 7).double())
    module = shaken(module)
    with pytest.raises(ConversionError, match="spectral_norm"):
        settled(keyed_of(module), True)
    found = settled(keyed_of(module, live=True), True).tensors["weight"].read()
    assert np.abs(found - module.weight.detach().numpy()).max() <= 1e-12


def test_a_square_matrix_along_the_other_axis_is_refused() -> None:
    module = old(nn.utils.spectral_norm, nn.Linear(7, 7).double(), dim=1, n_power_iterations=30)
    module(torch.randn(2, 7, dtype=torch.float64))
    with pytest.raises(ConversionError, match="not the usual one"):
        settled(keyed_of(module.eval()), True).tensors["weight"].read()
    module = old(nn.utils.spectral_norm, nn.Linear(7, 7).double(), n_power_iterations=30)
    module(torch.randn(2, 7, dtype=torch.float64))
    module.eval()(torch.randn(2, 7, dtype=torch.float64))
    found = settled(keyed_of(module), True).tensors["weight"].read()
    assert np.abs(found - module.weight.detach().numpy()).max() <= 1e-12


def test_a_layer_in_parts_has_no_form() -> None:
    records = state_records(keyed_of(old(nn.utils.weight_norm, nn.Linear(5, 7))), KNOWN).layers
    assert [record.form for record in records] == [""]
    assert "stored through weight_norm" in records[0].note


def test_a_plain_weight_is_no_part() -> None:
    arrays = {"a.weight_v": np.ones((3, 5)), "a.weight": np.ones((3, 5)), "a.weight_g": np.ones(3), "b.g": np.ones(3)}
    assert sites(named(arrays, "torch")) == []


def test_paddle_takes_the_norm_of_each_input_row() -> None:
    """paddle 3.3.1 nn/utils/weight_norm_hook.py _weight_norm: dim=0 of a Linear's (in, out) matrix."""
    rng = np.random.default_rng(0)
    g, v = rng.standard_normal(5), rng.standard_normal((5, 7))
    found = settled(named({"weight_g": g, "weight_v": v}, "paddle"), True).tensors["weight"].read()
    assert np.abs(found - g[:, None] * v / np.linalg.norm(v, axis=1, keepdims=True)).max() <= 1e-15
    with pytest.raises(ConversionError, match="along which axis"):
        settled(named({"weight_g": g, "weight_v": rng.standard_normal((5, 5))}, "paddle"), True)


def test_flax_weight_norm_as_flax_computes_it() -> None:
    linen, jax = pytest.importorskip("flax.linen"), pytest.importorskip("jax")
    with jax.enable_x64(True):
        model = linen.WeightNorm(linen.Dense(3, param_dtype=np.float64), param_dtype=np.float64)
        x = np.random.default_rng(0).standard_normal((2, 5))
        variables = jax.tree.map(lambda a: a + 0.3, model.init(jax.random.key(0), x))
        want = np.asarray(model.apply(variables, x))
        flat = {f"params/{'/'.join(k.key for k in path[1:])}": np.asarray(a) for path, a in leaves(jax, variables)}
    found = settled(named(flat, "flax"), True)
    weight = next(t for name, t in found.tensors.items() if name.endswith("kernel"))
    bias = next(t for name, t in found.tensors.items() if name.endswith("bias"))
    assert len(found.tensors) == 2
    assert np.abs(x @ weight.read() + bias.read() - want).max() <= 1e-12
    assert np.abs(x @ next(a for n, a in flat.items() if n.endswith("kernel")) + bias.read() - want).max() > 1e-2


def leaves(jax: Any, tree: Any) -> Any:
    return jax.tree_util.tree_flatten_with_path(tree)[0]


def test_flax_spectral_norm_is_refused_since_it_iterates_at_every_call() -> None:
    arrays = {"params/D/kernel": np.ones((5, 3)), "batch_stats/SN/D/kernel/u": np.ones((1, 3))}
    arrays["batch_stats/SN/D/kernel/sigma"] = np.ones(())
    with pytest.raises(ConversionError, match="SpectralNorm") as caught:
        settled(named(arrays, "flax"), True)
    assert "n_steps" in str(caught.value)


def test_equinox_weight_norm() -> None:
    eqx, jax = pytest.importorskip("equinox"), pytest.importorskip("jax")
    from layoutx.model.tree import tree_keyed

    with jax.enable_x64(True):
        model = eqx.nn.WeightNorm(eqx.nn.Linear(5, 3, key=jax.random.key(0), dtype=np.float64))
        model = eqx.tree_at(lambda m: m.g, model, model.g * 1.7)
        x = np.random.default_rng(0).standard_normal(5)
        found = settled(tree_keyed(model, lambda form: None), True)
        want = np.asarray(model(x))
    assert sorted(found.tensors) == ["layer.bias", "layer.weight"]
    made = found.tensors["layer.weight"].read() @ x + found.tensors["layer.bias"].read()
    assert np.abs(made - want).max() <= 1e-12
