"""A port between models of the structure of an earlier call is not planned again; a change of anything else is seen."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch modules are filled")
from torch import nn  # noqa: E402

from layoutx.job import between, kept  # noqa: E402
from layoutx.job.jobs import Options  # noqa: E402
from layoutx.job.structure import structure  # noqa: E402
from layoutx.port import port  # noqa: E402
from layoutx.spec.registry import registry  # noqa: E402


class Net(nn.Module):
    """Two layers of one shape, and a norm."""

    def __init__(self, names: str = "ab", calm: bool = True) -> None:
        super().__init__()
        self.names, self.calm = names, calm
        for name in names:
            self.add_module(name, nn.Linear(5, 5))
        self.norm = nn.BatchNorm1d(5)

    def forward(self, x: Any) -> Any:
        """(batch, 5) -> the same."""
        if not self.calm and bool(x.isnan().any()):  # nobody can trace this
            return x
        for name in self.names:
            x = torch.relu(self.get_submodule(name)(x))
        return self.norm(x)


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Grows by one with each job that is planned."""
    found: list[int] = []
    own = between.plan_pair

    def counted(*args: Any) -> Any:
        found.append(1)
        return own(*args)

    monkeypatch.setattr(between, "plan_pair", counted)
    kept.forget()
    yield found
    kept.forget()


def test_planning_looks_for_no_garbage(planned: list[int]) -> None:
    """What is planned stays, and a full collection among a framework's objects takes longer than the plan."""
    during: list[str] = []

    def seen(phase: str, info: Any) -> None:
        during.append(phase)

    known, key_of = registry(), between.key_of
    limits = gc.get_threshold()
    gc.set_threshold(1)
    gc.callbacks.append(seen)
    try:
        assert gc.isenabled()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(between, "key_of", lambda *args: (during.clear(), key_of(*args))[1])
            patch.setattr(between, "keep", lambda *args: (during.append("kept"), None)[1])
            between.planned_between(Net(), Net(), known, Options())
        assert during[0] == "kept"
        assert gc.isenabled()
    finally:
        gc.callbacks.remove(seen)
        gc.set_threshold(*limits)


def ported(source: Any, target: Any, **options: Any) -> Any:
    """Port, and see that the numbers are there."""
    report = port(source, target, compare=False, verify="none", **options)
    for name, value in source.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(value, target.state_dict()[name])
    return report


def test_planned_once(planned: list[int]) -> None:
    source, target = Net(), Net()
    first = ported(source, target)
    with torch.no_grad():
        source.a.weight.fill_(3.0)
    target.requires_grad_(False)
    assert ported(source, target).to_dict() == first.to_dict()
    assert torch.equal(target.a.weight, torch.full((5, 5), 3.0))
    ported(Net(), Net())
    assert len(planned) == 1


def _relu(module: Net) -> None:
    module.forward = lambda x: module.norm(x)


CHANGES: dict[str, Callable[[Net], Any]] = {
    "a setting": lambda module: setattr(module.norm, "eps", 0.25),
    "a bias less": lambda module: setattr(module, "b", nn.Linear(5, 5, bias=False)),
    "a layer of another class": lambda module: setattr(module, "norm", nn.InstanceNorm1d(5, affine=True)),
    "a layer more": lambda module: module.add_module("c", nn.Linear(5, 5)),
    "another attribute": lambda module: setattr(module, "names", "ba"),
    "another forward": _relu,
    "a tied weight": lambda module: setattr(module.b, "weight", module.a.weight),
    "another dtype": lambda module: module.double(),
    "a small table": lambda module: setattr(module, "table", torch.ones(3)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_structure_is_noticed(name: str) -> None:
    base, changed = Net(), Net()
    assert structure(base) == structure(Net()) is not None
    CHANGES[name](changed)
    assert structure(changed) != structure(base)
    assert structure(changed) is not None


def test_a_table_by_its_numbers() -> None:
    one, other = Net(), Net()
    one.table, other.table = torch.ones(3), torch.zeros(3)
    assert structure(one) != structure(other)
    one.table = torch.ones(300)
    assert structure(one) is None


def test_what_nobody_can_tell_is_planned_anew(planned: list[int]) -> None:
    source, target = Net(), Net()
    target.table = torch.ones(300)
    for _ in range(2):
        ported(source, target)
    assert len(planned) == 2


def test_a_changed_setting_is_in_the_report(planned: list[int]) -> None:
    source, target = Net(), Net()
    before = ported(source, target).text()
    source.norm.eps = 0.25
    after = ported(source, target).text()
    assert "0.25" in after
    assert "0.25" not in before
    assert len(planned) == 2


def test_other_options_are_another_job(planned: list[int]) -> None:
    source, target = Net(), Net()
    ported(source, target)
    report = port(source, target, compare=False, verify="none", skip=["a"])
    assert [line.name for line in report.layers] == ["b", "norm"]
    port(source, target, compare=False, verify="none", pairs={"a": "b", "b": "a"})
    assert torch.equal(target.a.weight, source.b.weight)
    assert len(planned) == 3
    ported(source, target)
    assert len(planned) == 3


def test_pairs_that_numbers_decided_hold_for_these_alone(planned: list[int]) -> None:
    """Names say nothing, nothing is traced, the order is another one: the numbers tell that x is `two`, then `one`."""
    source = nn.ModuleDict({"one": nn.Linear(5, 5), "two": nn.Linear(5, 5), "end": nn.Linear(5, 3)})
    target = nn.ModuleDict({"z": nn.Linear(5, 3), "x": nn.Linear(5, 5), "y": nn.Linear(5, 5)})
    for x, y in (("two", "one"), ("one", "two")):
        for place, name in (("x", x), ("y", y)):
            target[place].load_state_dict(source[name].state_dict())
        lines = port(source, target, compare=False, verify="none").layers
        assert {line.name: line.reason.partition(" ")[0] for line in lines} == {x: "x", y: "y", "end": "z"}
    assert len(planned) == 2
    assert not kept._jobs


def test_no_weight_is_kept_alive(planned: list[int]) -> None:
    source, target = Net(), Net()
    ported(source, target)
    alive = [weakref.ref(model) for model in (source, target)] + [weakref.ref(source.a.weight)]
    del source, target
    gc.collect()
    assert [ref() for ref in alive] == [None, None, None]
    ported(Net(), Net())
    assert len(planned) == 1


def test_a_bounded_number(planned: list[int]) -> None:
    for size in range(2, 2 + kept.MOST + 3):
        port(nn.Linear(size, 3), nn.Linear(size, 3), compare=False, verify="none")
    assert len(kept._jobs) == kept.MOST


def test_threads_and_cells_of_functions() -> None:
    """What a function closes over counts; a lock has no structure."""

    def with_activation(slope: float) -> Net:
        net = Net()
        net.activation = lambda x: slope * x
        return net

    assert structure(with_activation(0.5)) == structure(with_activation(0.5)) is not None
    assert structure(with_activation(0.5)) != structure(with_activation(0.25))
    import threading

    net = Net()
    net.lock = threading.Lock()
    assert structure(net) is None


def test_keras_models(planned: list[int]) -> None:
    pytest.importorskip("tensorflow", reason="Keras models are built on TensorFlow")
    keras = pytest.importorskip("keras")

    def model(activation: str = "relu", crossed: bool = False) -> Any:
        x = keras.Input((5,), name="x")
        first, second = keras.layers.Dense(5, activation, name="a"), keras.layers.Dense(5, name="b")
        y = first(second(x)) if crossed else second(first(x))
        return keras.Model(x, keras.layers.BatchNormalization(name="norm")(y), name="net")

    source, target = model(), Net()
    for _ in range(2):
        port(source, target, compare=False, verify="none")
        source.set_weights([w + 1 for w in source.get_weights()])
    np.testing.assert_array_equal(target.a.weight.detach().numpy().T + 1, source.get_layer("a").get_weights()[0])
    port(model(), Net(), compare=False, verify="none")
    assert len(planned) == 1
    assert structure(source) != structure(model("tanh"))
    assert structure(source) != structure(model(crossed=True))
    source.get_layer("norm").epsilon = 0.25
    assert "0.25" in port(source, target, compare=False, verify="none").text()
    assert len(planned) == 2
    source.compile("sgd", "mse")
    source.fit(np.ones((4, 5), "float32"), np.ones((4, 5), "float32"), verbose=0)
    port(source, target, compare=False, verify="none")
    assert len(planned) == 2
    back = model()
    for _ in range(2):
        port(target, back, compare=False, verify="none")
    assert len(planned) == 3
