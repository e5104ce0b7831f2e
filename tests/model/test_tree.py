"""Live trees of jax, mlx and paddle: every array under its name, what is no weight left out with its reason."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layoutx.errors import ModelError, UsageError
from layoutx.files.store import Store, tensor_of
from layoutx.inspect import inspect
from layoutx.model.keyed import Keyed, keyed_store
from layoutx.model.state import state_records
from layoutx.model.tree import is_tree, tree_keyed
from layoutx.spec.registry import registry

KNOWN = registry()
jax = pytest.importorskip("jax")


def keys(form: str) -> Any:
    return KNOWN.forms[form].config if form in KNOWN.forms else None


def keyed(model: Any, framework: str = "") -> Keyed:
    assert is_tree(model)
    return tree_keyed(model, keys, framework)


def forms(found: Keyed) -> dict[str, str]:
    return {record.name: record.form for record in state_records(found, KNOWN).layers}


def test_linen_collections_meet_in_the_module() -> None:
    tree = {
        "batch_stats": {"Block_0": {"BatchNorm_0": {"mean": np.ones(5), "var": np.ones(5)}}},
        "params": {
            "Block_0": {"BatchNorm_0": {"scale": np.ones(5), "bias": np.ones(5)}},
            "LSTMCell_0": {
                **{f"i{gate}": {"kernel": np.ones((3, 7))} for gate in "ifgo"},
                **{f"h{gate}": {"kernel": np.ones((7, 7)), "bias": np.ones(7)} for gate in "ifgo"},
            },
            "Dense_0": {"kernel": np.ones((7, 2)), "bias": np.ones(2)},
        },
        "opt_state": {"0": {"count": np.ones(())}},
        "cache": {"x": np.ones(2)},
    }
    found = keyed(tree)
    assert found.framework == "flax"
    assert found.leftover == {
        "opt_state/0/count": "optimizer state",
        "cache/x": "the flax collection cache, which holds no layer's weights",
    }
    assert forms(found) == {
        "Block_0.BatchNorm_0": "flax.BatchNorm",
        "LSTMCell_0": "flax.LSTMCell",
        "Dense_0": "flax.Dense",
    }
    assert found.tensors["Block_0.BatchNorm_0.mean"].name == "batch_stats/Block_0/BatchNorm_0/mean"
    variables = {name: tree[name] for name in ("params", "batch_stats")}
    assert forms(keyed({"params": variables, "step": np.ones(())})) == forms(found)  # a train state around it


def test_what_no_form_explains_is_told_for_each_module() -> None:
    tree = {"params": {"Mine_0": {"theta": np.ones((3, 5))}, "Dense_0": {"kernel": np.ones((7, 2))}}}
    records = {record.name: record for record in state_records(keyed(tree), KNOWN).layers}
    assert records["Dense_0"].form == "flax.Dense"
    assert (records["Mine_0"].form, records["Mine_0"].note) == ("", "no form fits its tensors")


def test_haiku_is_told_by_its_names() -> None:
    found = keyed({"mlp/~/linear_0": {"w": np.ones((3, 5)), "b": np.ones(5)}, "linear": {"w": np.ones((5, 2))}})
    assert found.framework == "haiku"
    assert forms(found) == {"mlp.~.linear_0": "haiku.Linear", "linear": "haiku.Linear"}


def test_a_mapping_that_says_nothing_is_asked_about() -> None:
    tree = {"dense": {"kernel": np.ones((3, 5)), "bias": np.ones(5)}}
    with pytest.raises(UsageError, match="does not say whose"):
        keyed(tree)
    assert forms(keyed(tree, "nnx"))["dense"] in ("nnx.Linear", "")
    assert inspect(tree, from_="flax").framework == "flax"


def test_leaves_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ModelError, match="is no array"):
        keyed({"params": {"d": {"kernel": "text"}}})
    with pytest.raises(ModelError, match="plain numbers"):
        keyed({"params": {"d": {"kernel": np.array(["a"])}}})
    endless: dict[str, Any] = {"params": {}}
    endless["params"]["params"] = endless["params"]
    with pytest.raises(ModelError, match="deeper"):
        keyed(endless)


def test_nnx_modules_say_their_classes_and_leave_random_state_out() -> None:
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.conv1 = nnx.Conv(3, 5, (2, 7), rngs=rngs)
            self.up = nnx.ConvTranspose(5, 7, (2, 2), rngs=rngs)
            self.drop = nnx.Dropout(0.5, rngs=rngs)
            self.layers = nnx.List([nnx.Linear(7, 11, rngs=rngs)])
            self.bn = nnx.BatchNorm(11, rngs=rngs)
            self.rnn = nnx.RNN(nnx.LSTMCell(11, 13, rngs=rngs), rngs=rngs)

    model = Net(nnx.Rngs(0))
    found = keyed(model)
    assert set(found.leftover.values()) == {"random state"}
    assert {name for name in found.leftover if "drop" in name} == {"drop/rngs/count", "drop/rngs/key"}
    own = forms(found)
    assert own["conv1"] == "nnx.Conv"
    assert own["up"] == "nnx.ConvTranspose"
    assert own["layers.0"] == "nnx.Linear"
    assert own["bn"] == "nnx.BatchNorm"
    assert "LSTMCell" in own.get("rnn", own.get("rnn.cell", ""))
    assert np.array_equal(found.tensors["up.kernel"].read(), np.asarray(model.up.kernel[...]))
    assert set(keyed(nnx.state(model)).tensors) == set(found.tensors)


def test_equinox_fields_state_and_functions() -> None:
    eqx = pytest.importorskip("equinox")
    key = jax.random.key(0)

    class Net(eqx.Module):
        cells: list[Any]
        norm: Any
        act: Any
        size: int = eqx.field(static=True)

        def __init__(self) -> None:
            self.cells = [eqx.nn.LSTMCell(3, 5, use_bias=False, key=key), None, eqx.nn.Conv2d(3, 5, 2, key=key)]
            self.norm = eqx.nn.BatchNorm(5, "b", mode="ema")
            self.act = jax.nn.relu
            self.size = 3

    model, state = eqx.nn.make_with_state(Net)()
    found = keyed((model, state))
    own = forms(found)
    assert own["cells.0"] == "equinox.LSTMCell"
    assert own["cells.2"] == "equinox.Conv2d"
    assert own["norm"] == "equinox.BatchNorm"
    assert "size" not in found.tensors
    assert any("first_time" in name for name in found.leftover)


def test_mlx_modules() -> None:
    mlx = pytest.importorskip("mlx.nn")
    import mlx.core as mx

    model = mlx.Sequential(mlx.Linear(3, 5), mlx.BatchNorm(5))
    model.set_dtype(mx.bfloat16)
    found = keyed(model)
    assert found.framework == "mlx"
    assert {"layers.0.weight", "layers.0.bias", "layers.1.running_mean"} <= set(found.tensors)
    weight = found.tensors["layers.0.weight"]
    assert str(weight.dtype) == "bfloat16"
    assert np.array_equal(weight.read().astype(np.float32), np.array(model.layers[0].weight.astype(mx.float32)))


WITH_PADDLE = """
import sys
try:
    import paddle
except ImportError:
    sys.exit(77)
import numpy as np
from layoutx.model.tree import is_tree, tree_keyed
layer = paddle.nn.Sequential(paddle.nn.Linear(5, 7), paddle.nn.LSTM(7, 3))
assert is_tree(layer)
found = tree_keyed(layer, lambda form: None)
assert found.framework == "paddle"
assert found.tied["1.weight_ih_l0"] == "1.0.cell.weight_ih", found.tied
assert np.array_equal(found.tensors["0.weight"].read(), layer[0].weight.numpy())
assert found.modules["0"].class_name == "Linear"
"""


def test_paddle_numbers_the_cells_of_a_stack() -> None:
    shapes = {"weight_ih": (28, 14), "weight_hh": (28, 7), "bias_ih": (28,), "bias_hh": (28,)}
    names = [(f"rnn.{n}.cell_{d}.{part}", s) for n in (0, 1) for d in ("fw", "bw") for part, s in shapes.items()]
    tensors = {name: tensor_of(name, np.ones(shape, np.float32)) for name, shape in names}
    found = keyed_store(Store(Path("x"), "npz", tensors), "paddle")
    assert forms(found) == {"rnn/layer_0": "paddle.LSTM", "rnn/layer_1": "paddle.LSTM"}
    last = state_records(found, KNOWN).layers[1]
    assert last.instance == {"layer": 1}
    assert next(iter(last.tensors)) == "1.cell_fw.weight_ih"


def test_paddle_layers() -> None:
    """In a process of its own: paddle 3.3.1 crashes where TensorFlow was imported first."""
    done = subprocess.run([sys.executable, "-c", WITH_PADDLE], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("paddle is not installed")
    assert done.returncode == 0, done.stderr[-2000:]


def test_attributes_of_a_live_module_are_its_forms_config() -> None:
    nnx = pytest.importorskip("flax.nnx")
    rngs = nnx.Rngs(0)

    def own(module: Any) -> dict[str, Any]:
        (record,) = state_records(keyed(nnx.List([module])), KNOWN).layers
        return {**record.config, "form": record.form}

    cell = nnx.LSTMCell(3, 5, activation_fn=jax.nn.relu, gate_fn=lambda x: x, rngs=rngs)
    found = own(nnx.RNN(cell, reverse=True, time_major=True))
    assert found["form"] == "nnx.RNN.LSTMCell"
    assert (found["activation_fn"], found["reverse"], found["keep_order"], found["time_major"]) == (
        "relu",
        True,
        False,
        True,
    )
    assert "lambda" in found["gate_fn"], "a function of the user's own is not known by its name"
    assert own(nnx.RNN(nnx.SimpleCell(5, 5, residual=True, rngs=rngs)))["residual"] is True
    one, two = (nnx.RNN(nnx.GRUCell(3, 5, activation_fn=f, rngs=rngs)) for f in (jax.nn.relu, jax.nn.tanh))
    assert own(nnx.Bidirectional(one, two))["activation_fn"] == "relu and tanh"
    assert own(nnx.BatchNorm(5, epsilon=0.1, rngs=rngs))["epsilon"] == 0.1
    assert own(nnx.Linear(3, 5, rngs=rngs))["dot_general"] == "dot_general"
    masked = nnx.Conv(3, 5, 2, mask=np.ones((2, 3, 5)), rngs=rngs)
    assert own(masked)["form"] == "", "a mask is one tensor too many"


def test_attributes_of_mlx_modules_are_read() -> None:
    mlx = pytest.importorskip("mlx.nn")
    model = mlx.Sequential(mlx.RNN(3, 5, nonlinearity=mlx.relu), mlx.LayerNorm(5, eps=0.1), mlx.RNN(5, 7, bias=False))
    first, norm, last = state_records(keyed(model), KNOWN).layers
    assert (first.form, first.config["nonlinearity"], norm.config["eps"]) == ("mlx.RNN", "relu", 0.1)
    assert (last.config["nonlinearity"], last.config["bias"]) == ("tanh", False)
