"""torch's MultiheadAttention in ONNX graphs: read whole, into torch and Keras, and filled from both."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from keras_models import precision
from torch import Tensor, nn

import layoutx
from layoutx.errors import LayoutxError
from layoutx.files.open import open_store
from layoutx.model.onnx_model import onnx_records

WIDTH, HEADS = 15, 3
CASES: dict[str, dict[str, Any]] = {
    "self": {},
    "self, time first": {"batch_first": False},
    "self, weights asked for, no biases": {"need": True, "bias": False},
    "self, of any length": {"dynamic": True},
    "cross": {"cross": True},
    "cross, time first, weights asked for": {"cross": True, "batch_first": False, "need": True},
    "cross, widths of their own": {"cross": True, "kdim": 7, "vdim": 7},
    "self, not folded": {"folded": False},
    "self, of any length, time first, not folded": {"folded": False, "dynamic": True, "batch_first": False},
    "cross, widths of their own, not folded": {"folded": False, "cross": True, "kdim": 7, "vdim": 7},
    "cross, any length, widths of their own": {"cross": True, "kdim": 7, "vdim": 7, "dynamic": True, "need": True},
}


class Attends(nn.Module):
    """One attention and a projection behind it."""

    def __init__(
        self, batch_first: bool = True, need: bool = False, cross: bool = False, dynamic: bool = False,
        bias: bool = True, folded: bool = True, **more: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        self.need, self.cross = need, cross
        self.mix = nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first, bias=bias, **more)
        self.out = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """(batch, time, width), or time first; `other`: what is attended to."""
        given = other if other is not None else x
        return self.out(self.mix(x, given, given, need_weights=self.need)[0])


def made(seed: int, **options: Any) -> Attends:
    """A module whose numbers are all random, biases too."""
    module = Attends(**options).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in module.parameters():
            value.copy_(torch.randn(value.shape, generator=generator))
    return module


def inputs(options: dict[str, Any], steps: int = 4) -> list[np.ndarray[Any, Any]]:
    """What the module is given, in its own axis order."""
    rng = np.random.default_rng(7)
    sizes = [(2, steps, WIDTH), (2, 6, options.get("kdim", WIDTH))][: 2 if options.get("cross") else 1]
    found = [rng.normal(size=size).astype("float32") for size in sizes]
    return found if options.get("batch_first", True) else [np.swapaxes(x, 0, 1).copy() for x in found]


def exported(module: nn.Module, options: dict[str, Any], path: Path) -> Path:
    """The module as the TorchScript exporter writes it."""
    given = inputs(options)
    names = ["x", "other"][: len(given)]
    axes = {name: {0: f"{name}0", 1: f"{name}1"} for name in names} if options.get("dynamic") else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, tuple(map(torch.from_numpy, given)), path, input_names=names, dynamo=False, opset_version=17,
            dynamic_axes=axes, do_constant_folding=options.get("folded", True),
        )  # fmt: skip
    return path


@pytest.mark.parametrize("case", CASES)
def test_into_torch(case: str, tmp_path: Path) -> None:
    options = CASES[case]
    module = made(1, **options)
    path = exported(module, options, tmp_path / "m.onnx")
    record = onnx_records(open_store(path)).layers[0]
    assert (record.form, record.config["num_heads"]) == ("onnx.MultiheadAttention", HEADS)
    other = made(2, **options)
    assert layoutx.match(path, other).complete
    assert layoutx.validate(path, other, inputs(options)).ok is False
    assert layoutx.port(path, other, inputs(options)).end_to_end.agrees is True
    for name, value in module.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=0, atol=0)
    assert layoutx.validate(path, other, inputs(options)).ok
    assert layoutx.validate(other, path, inputs(options)).ok


@pytest.mark.parametrize("case", CASES)
def test_torch_into_the_graph(case: str, tmp_path: Path) -> None:
    """New weights in the graph of an untrained module, whose equal tensors the exporter shares."""
    options = CASES[case]
    path = exported(Attends(**options).eval(), options, tmp_path / "m.onnx")
    module = made(3, **options)
    layoutx.convert(module, tmp_path / "new.onnx", to="onnx", like=path)
    with torch.no_grad():
        expected = module(*map(torch.from_numpy, inputs(options))).numpy()
    np.testing.assert_allclose(ran(tmp_path / "new.onnx", inputs(options)), expected, rtol=0, atol=2e-4)


def ran(path: Path, given: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    return session.run(None, dict(zip(names, given, strict=True)))[0]


def keras_attends(seed: int, options: dict[str, Any]) -> Any:
    """The same network in Keras, batch first."""
    import keras

    k = keras.layers
    with precision(keras, "float32"):
        x = keras.Input((None, WIDTH))
        other = keras.Input((None, options.get("kdim", WIDTH))) if options.get("cross") else x
        mix = k.MultiHeadAttention(HEADS, WIDTH // HEADS, use_bias=options.get("bias", True), name="mix")
        y = k.Dense(5, name="out")(mix(x, other))
        model = keras.Model([x, other] if options.get("cross") else x, y)
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=w.shape) for w in model.weights])
    return model


@pytest.mark.parametrize("case", [name for name, options in CASES.items() if options.get("batch_first", True)])
def test_keras_there_and_back(case: str, tmp_path: Path) -> None:
    options = CASES[case]
    path = exported(made(1, **options), options, tmp_path / "m.onnx")
    model = keras_attends(4, options)
    assert layoutx.match(path, model).complete
    assert layoutx.match(model, path).complete
    model.save(tmp_path / "m.keras")
    layoutx.convert(tmp_path / "m.keras", tmp_path / "new.onnx", to="onnx", like=path)
    given = inputs(options)
    expected = np.asarray(model(given if len(given) > 1 else given[0]))
    np.testing.assert_allclose(ran(tmp_path / "new.onnx", given), expected, rtol=0, atol=2e-4)
    other = keras_attends(5, options)
    assert layoutx.port(path, other, given).end_to_end.agrees is True
    np.testing.assert_allclose(np.asarray(other(given if len(given) > 1 else given[0])), ran(path, given), atol=2e-4)
    assert layoutx.validate(path, other, given).ok


def test_another_number_of_heads_is_refused(tmp_path: Path) -> None:
    path = exported(made(1), {}, tmp_path / "m.onnx")

    class Five(Attends):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.MultiheadAttention(WIDTH, 5, batch_first=True)

    with pytest.raises(LayoutxError, match="mix"):
        layoutx.port(path, Five(), inputs({}))


def test_parts_in_another_order_are_refused_by_name(tmp_path: Path) -> None:
    """The same nodes with queries and keys exchanged: no dense layer that happens to be as wide, and no attention."""
    import onnx

    path = exported(made(1), {}, tmp_path / "m.onnx")
    model = onnx.load(path)
    takes = [node for node in model.graph.node if node.op_type == "Gather" and "Squeeze" in node.input[0]]
    assert len(takes) == 3
    takes[0].input[1], takes[1].input[1] = takes[1].input[1], takes[0].input[1]
    onnx.save(model, path)
    record = onnx_records(open_store(path)).layers[0]
    assert record.form == ""
    assert "does not hold the query where torch has it" in record.note
    with pytest.raises(LayoutxError, match="could not be told"):
        layoutx.port(path, made(2), inputs({}))


def test_projections_of_ones_own_stay_layers(tmp_path: Path) -> None:
    """A user's attention with one Linear for q, k and v has a scope for each: it pairs with its own module."""

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
            scores = (q @ k.transpose(-1, -2)) / (WIDTH // HEADS) ** 0.5
            return self.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn = Own()

        def forward(self, x: Tensor) -> Tensor:
            return self.attn(x)

    module, other = Whole().eval(), Whole().eval()
    path = exported(module, {}, tmp_path / "m.onnx")
    assert layoutx.port(path, other, inputs({})).end_to_end.agrees is True


def test_from_the_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from layoutx.cli import main

    monkeypatch.chdir(tmp_path)
    exported(made(1), {}, Path("m.onnx"))
    keras_attends(4, {}).save("k.keras")
    np.save("x.npy", inputs({})[0])
    assert main(["match", "k.keras", "m.onnx", "-o", "map.yaml"]) == 0
    assert main(["convert", "k.keras", "-o", "new.onnx", "--to", "onnx", "--like", "m.onnx", "--map", "map.yaml"]) == 0
    assert main(["validate", "k.keras", "new.onnx", "--inputs", "x.npy"]) == 0
    capsys.readouterr()
    assert main(["validate", "k.keras", "m.onnx", "--inputs", "x.npy"]) == 1
    assert "mix" in capsys.readouterr().out
