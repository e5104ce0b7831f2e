"""Live models of jax as users give them: traced, paired, compared and ported like those of other frameworks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.cli import main
from layoutx.errors import UsageError, VerificationError
from layoutx.model import jax_inputs
from layoutx.model.load import live_model
from layoutx.spec.registry import registry

jax = pytest.importorskip("jax")
nnx = pytest.importorskip("flax.nnx")
linen = pytest.importorskip("flax.linen")
torch = pytest.importorskip("torch")

Array = np.ndarray[Any, Any]
SHAPES = [(3, 5, 8, 6, 7), (3, 4, 8, 8, 4)]  # channels in, channels, height, width, outputs; the second one is square


def images(shape: tuple[int, ...], first: bool = False) -> Array:
    depth, _, height, width, _ = shape
    x = np.random.default_rng(5).normal(size=(2, height, width, depth)).astype("float32")
    return np.ascontiguousarray(np.moveaxis(x, -1, 1)) if first else x


def shaken(tree: Any) -> Any:
    """No bias and no statistic at its initial value."""
    rng = np.random.default_rng(7)
    return jax.tree.map(
        lambda a: a + np.abs(rng.normal(size=a.shape)).astype(a.dtype) * 0.3 if a.dtype == np.float32 else a, tree
    )


def agrees(report: Any) -> bool:
    return bool(report.end_to_end.agrees)


def nnx_model(shape: tuple[int, ...], turned: bool = False) -> Any:
    depth, wide, height, width, out = shape

    class Net(nnx.Module):  # type: ignore[misc, name-defined]
        def __init__(self, rngs: Any) -> None:
            self.conv = nnx.Conv(depth, wide, (3, 3), rngs=rngs)
            self.bn = nnx.BatchNorm(wide, rngs=rngs)
            self.fc = nnx.Linear(wide * (height // 2) * (width // 2), out, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            x = nnx.max_pool(nnx.relu(self.bn(self.conv(x))), (2, 2), (2, 2))
            x = x.transpose(0, 3, 1, 2) if turned else x
            return self.fc(x.reshape(x.shape[0], -1))

    model = Net(nnx.Rngs(0))
    nnx.update(model, shaken(nnx.state(model)))
    return model


def torch_model(shape: tuple[int, ...], seed: int = 0) -> Any:
    depth, wide, height, width, out = shape

    class Net(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(depth, wide, 3, padding=1)
            self.bn = torch.nn.BatchNorm2d(wide)
            self.fc = torch.nn.Linear(wide * (height // 2) * (width // 2), out)

        def forward(self, x: Any) -> Any:
            x = torch.nn.functional.max_pool2d(torch.relu(self.bn(self.conv(x))), 2)
            return self.fc(x.flatten(1))

    torch.manual_seed(seed)
    model = Net().eval()
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.add_(torch.rand_like(value) * 0.3)
    return model


class Linen(linen.Module):  # type: ignore[misc, name-defined]
    """A switch without a default, as many have it."""

    wide: int
    out: int

    @linen.compact
    def __call__(self, x: Any, train: bool) -> Any:
        x = linen.Conv(self.wide, (3, 3), name="conv")(x)
        x = linen.relu(linen.BatchNorm(use_running_average=not train, epsilon=0.003, name="bn")(x))
        x = linen.max_pool(x, (2, 2), (2, 2))
        return linen.Dense(self.out, name="fc")(x.reshape(x.shape[0], -1))


def linen_model(shape: tuple[int, ...]) -> Any:
    module = Linen(shape[1], shape[-1])
    return module, shaken(module.init(jax.random.key(0), images(shape), train=False))


def equinox_model(shape: tuple[int, ...]) -> Any:
    eqx = pytest.importorskip("equinox")
    depth, wide, height, width, out = shape

    class Net(eqx.Module):  # type: ignore[misc, name-defined]
        conv: Any
        fc: Any

        def __init__(self, key: Any) -> None:
            self.conv = eqx.nn.Conv2d(depth, wide, 3, padding=1, key=key)
            self.fc = eqx.nn.Linear(wide * (height // 2) * (width // 2), out, key=key)

        def __call__(self, x: Any) -> Any:
            return self.fc(eqx.nn.MaxPool2d(2, 2)(jax.nn.relu(self.conv(x))).ravel())

    return shaken(Net(jax.random.key(1)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("turned", [False, True])
def test_an_nnx_model_that_flattens_its_map_ports_to_torch_and_agrees_layer_by_layer(
    shape: tuple[int, ...], turned: bool
) -> None:
    source, target = nnx_model(shape, turned), torch_model(shape)
    assert not lx.validate(source, target, images(shape)).ok  # other weights: the comparison can fail
    report = lx.port(source, target, images(shape))
    assert agrees(report)
    assert report.model is target
    found = lx.validate(source, target, images(shape))
    assert found.ok, found.text()
    assert found.compared == 3
    back = lx.validate(target, source, images(shape, first=True))
    assert back.ok, back.text()
    assert back.compared == 3


@pytest.mark.parametrize("turned", [False, True])
def test_rows_in_the_other_order_are_found_at_the_dense_layer_alone(turned: bool) -> None:
    shape = SHAPES[1]
    source, target = nnx_model(shape, turned), torch_model(shape)
    lx.port(source, target, images(shape))
    with torch.no_grad():  # as somebody would who forgets, or does twice, the order of the flattened map
        rows = target.fc.weight.reshape(4, 4, 4, 4)
        target.fc.weight.copy_((rows.permute(0, 2, 3, 1)).reshape(4, 64))
    found = lx.validate(source, target, images(shape))
    assert [check.layer for check in found.checks if not check.ok] == ["fc"]


def test_without_inputs_a_shape_that_fits_the_weights_tells_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax_inputs, "SECONDS", 60.0)  # it is found after 1.5 of the 3 seconds, on a fast processor
    for shape in SHAPES:
        keyed: Any = live_model(nnx_model(shape), registry(()))
        refine = keyed.axes()["fc"].refine["input"]
        assert (refine.last, refine.first, refine.own) == ("(h w c)", "(c h w)", "")
        assert lx.port(nnx_model(shape), torch_model(shape), compare=False).keys_written == 9
    turned: Any = live_model(nnx_model(SHAPES[0], True), registry(()), inputs=images(SHAPES[0], first=True))
    assert turned.axes()["fc"].refine["input"].own == "first"


@pytest.mark.parametrize("turned", [False, True])
def test_port_writes_into_a_live_nnx_module(turned: bool, tmp_path: Path) -> None:
    shape = SHAPES[0]
    source, target = torch_model(shape), nnx_model(shape, turned)
    report = lx.port(source, target, images(shape, first=True))
    assert report.model is target
    assert agrees(report)
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    again = nnx_model(shape, turned)
    lx.port(tmp_path / "weights.pt", again, images(shape, first=True))  # only the target knows how it flattens
    for (_, a), (_, b) in zip(nnx.to_flat_state(nnx.state(target)), nnx.to_flat_state(nnx.state(again)), strict=True):
        assert np.array_equal(a.get_value(), b.get_value())


def test_a_port_that_fails_leaves_an_nnx_module_as_it_was() -> None:
    shape = SHAPES[0]
    source, target = torch_model(shape), nnx_model(shape)
    target.bn.epsilon = 0.7  # another function
    before = [np.array(v.get_value()) for _, v in nnx.to_flat_state(nnx.state(target))]
    with pytest.raises(VerificationError):
        lx.port(source, target, images(shape, first=True))
    after = [np.array(v.get_value()) for _, v in nnx.to_flat_state(nnx.state(target))]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("bound", [False, True])
def test_a_linen_module_with_its_variables_is_a_live_model(bound: bool) -> None:
    shape = SHAPES[0]
    pair = linen_model(shape)
    model = pair if not bound else Outer(pair[0]).bind({k: {"inner": v} for k, v in pair[1].items()})
    target = torch_model(shape)
    target.bn.eps = 0.003
    report = lx.port(model, target, images(shape))
    assert agrees(report)
    assert "Linen" in str(report) or "Outer" in str(report)
    found = lx.validate(model, target, images(shape))
    assert found.ok, found.text()
    assert found.compared == 3
    assert lx.match(model, target).complete
    assert "compute the same" in str(lx.diagnose(model, target, images(shape)))
    assert len(lx.record(model, images(shape)).calls) >= 4
    assert "fc" in lx.inspect(model).text()


class Outer(linen.Module):  # type: ignore[misc, name-defined]
    """Calls the other one at inference."""

    inner: Any

    def __call__(self, x: Any) -> Any:
        return self.inner(x, train=False)


def test_the_epsilon_of_a_linen_norm_is_the_modules_own() -> None:
    shape = SHAPES[0]
    keyed: Any = live_model(linen_model(shape), registry(()), inputs=images(shape))
    assert keyed.modules["bn"].config["epsilon"] == 0.003


def test_port_gives_a_new_linen_model_and_leaves_the_given_one() -> None:
    shape = SHAPES[0]
    source, (module, variables) = nnx_model(shape), linen_model(shape)
    module = module.clone()
    before = jax.tree.map(np.array, variables)
    source.bn.epsilon = 0.003
    report = lx.port(source, (module, variables), images(shape))
    assert jax.tree.all(jax.tree.map(np.array_equal, before, variables))
    new_module, new = report.model
    assert new_module is module
    assert np.array_equal(new["params"]["fc"]["kernel"], source.fc.kernel.get_value())
    found = lx.port(source, module.bind(variables), images(shape), compare=False).model
    assert np.array_equal(found.variables["params"]["conv"]["bias"], source.conv.bias.get_value())


def test_an_equinox_module_is_traced_and_ported_into() -> None:
    shape = SHAPES[1]
    nnx_source = nnx_model(shape)
    keyed: Any = live_model(equinox_model(shape), registry(()), inputs=images(shape))
    assert keyed.axes()["fc"].refine["input"].first == "(c h w)"
    del nnx_source.bn
    type(nnx_source).__call__ = lambda self, x: self.fc(  # type: ignore[method-assign]
        nnx.max_pool(nnx.relu(self.conv(x)), (2, 2), (2, 2)).reshape(x.shape[0], -1)
    )
    report = lx.port(nnx_source, equinox_model(shape), images(shape))
    assert agrees(report)
    found = lx.validate(nnx_source, report.model, images(shape))
    assert found.ok, found.text()
    assert found.compared == 2


def test_a_linen_module_alone_is_refused_with_what_to_give() -> None:
    with pytest.raises(UsageError, match=r"\(module, variables\)"):
        lx.match(Linen(5, 7), torch_model(SHAPES[0]))


def test_the_commands_take_a_callable_that_builds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import types

    shape = SHAPES[0]
    built: Any = types.ModuleType("built_jax")
    source = torch_model(shape)
    source.bn.eps = 0.003
    built.model, built.source = lambda: linen_model(shape), lambda: source
    monkeypatch.setitem(sys.modules, "built_jax", built)
    np.save(tmp_path / "x.npy", images(shape, first=True))
    out = str(tmp_path / "new.safetensors")
    inputs = ["--inputs", str(tmp_path / "x.npy")]
    assert main(["port", "built_jax:source", "built_jax:model", "-o", out, *inputs]) == 0
    assert main(["inspect", out]) == 0
    assert "params/fc/kernel" in capsys.readouterr().out
    assert main(["validate", "built_jax:source", "built_jax:model", *inputs]) == 1
    assert main(["match", "built_jax:source", "built_jax:model", "-o", str(tmp_path / "map.yaml")]) == 0
