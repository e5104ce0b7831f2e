"""The target's config follows the source; what no config can hold is refused in words that help."""

from __future__ import annotations

import pytest

from layoutx.errors import ConversionError, LayoutxError
from layoutx.plan.fit import fit, switches
from layoutx.plan.plan import Plan
from layoutx.plan.steps import Exactness, Fill, Guard
from scripts import golden_plans

SPECS = golden_plans.specs()
LSTM = {"input": 7, "hidden": 5}
DENSE = {"input": 7, "output": 5}


def fitted(source: str, target: str, sizes: dict, config: dict | None = None, known: dict | None = None) -> Plan:
    return fit(SPECS.bind(source, config or {}, sizes=sizes), SPECS.form(target), known or {})


def refusal(*args, **kwargs) -> list[str]:
    with pytest.raises(LayoutxError) as caught:
        fitted(*args, **kwargs)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("source", "config", "target", "key", "value"),
    [
        ("keras.Dense", {"use_bias": False}, "torch.Linear", "bias", False),
        ("keras.Dense", {"use_bias": True}, "torch.Linear", "bias", True),
        ("torch.Linear", {"bias": False}, "keras.Dense", "use_bias", False),
    ],
)
def test_a_bias_is_mirrored(source: str, config: dict, target: str, key: str, value: bool) -> None:
    made = fitted(source, target, DENSE, config)
    assert made.target.config[key] is value
    assert made.exactness is Exactness.MOVES


@pytest.mark.parametrize(
    ("source", "config", "target", "known"),
    [
        ("keras.LSTM", {"use_bias": False}, "torch.LSTM", {"bias": False}),
        ("keras.Bidirectional.LSTM", {}, "torch.LSTM", {"bidirectional": True, "bias": True}),
        ("keras.Bidirectional.LSTM", {}, "onnx.LSTM", {"direction": "bidirectional"}),
        ("torch.LSTM", {}, "keras.LSTM", {"use_bias": True}),  # a sum rather than a guard that would fail
        ("keras.GRU", {"reset_after": False}, "onnx.GRU", {"linear_before_reset": 0}),
        ("keras.GRU", {"reset_after": True}, "onnx.GRU", {"linear_before_reset": 1}),
        ("torch.GRU", {}, "keras.GRU", {"use_bias": True}),
    ],
)
def test_the_config_that_holds_most_is_chosen(source: str, config: dict, target: str, known: dict) -> None:
    made = fitted(source, target, LSTM, config)
    assert {key: made.target.config[key] for key in known} == known
    assert not any(isinstance(step, Guard) for step in made.steps)


def test_what_is_given_stays() -> None:
    made = fitted("keras.Dense", "torch.Linear", DENSE, {"use_bias": False}, {"bias": True})
    assert made.target.config["bias"] is True
    assert [step.value for step in made.steps if isinstance(step, Fill)] == [0.0]
    made = fitted("keras.Dense", "torch.Linear", DENSE, {"use_bias": True}, {"bias": False})
    assert made.exactness is Exactness.CONDITIONAL


def test_default_sizes_do_not_overrule_the_source() -> None:
    """keras.GroupNormalization has groups=32 unless told otherwise; the source has 7."""
    assert (
        fitted("torch.GroupNorm", "keras.GroupNormalization", {"group": 7, "channel": 3}).exactness is Exactness.MOVES
    )


def test_the_target_takes_over_a_fact_that_its_config_decides() -> None:
    made = fitted("torch.RNN", "keras.SimpleRNN", LSTM, {"nonlinearity": "relu"})
    assert made.target.config["activation"] == "relu"


@pytest.mark.parametrize(("version", "meaning"), [(3, "hard_sigmoid_1/6"), (2, "hard_sigmoid_0.2")])
def test_a_gate_function_that_torch_has_not_is_refused(version: int, meaning: str) -> None:
    config = {"recurrent_activation": "hard_sigmoid", "version": version}
    assert refusal("keras.LSTM", "torch.LSTM", LSTM, config) == [
        f"torch.LSTM cannot hold this keras.LSTM: gate_activation is {meaning}, the target's is sigmoid",
        "  the gates use another function: another function, not another layout",
        f'  build the target with layoutx.torch.LSTM(gate_activation="{meaning}")',
    ]


def test_a_reset_before_the_product_has_no_layer_of_torch() -> None:
    assert refusal("keras.GRU", "torch.GRU", LSTM, {"reset_after": False}) == [
        "torch.GRU cannot hold this keras.GRU: reset is before, the target's is after",
        "  one applies the reset gate after the recurrent product, the other before: "
        "another function, not another layout",
        "  build the target with layoutx.torch.GRU",
    ]


@pytest.mark.parametrize(
    ("source", "target", "known", "remedy"),
    [
        ("torch.GRU", "keras.GRU", {"reset_after": False}, "  use another reset_after than False on the target layer"),
        ("torch.GRU", "onnx.GRU", {"linear_before_reset": 0}, "  use linear_before_reset=1 on the target layer"),
        ("torch.RNN", "keras.SimpleRNN", {"activation": "relu"}, "  use activation='tanh' on the target layer"),
    ],
)
def test_a_refusal_says_what_the_target_should_have(source: str, target: str, known: dict, remedy: str) -> None:
    assert refusal(source, target, LSTM, known=known)[-1] == remedy


def test_sizes_of_a_real_target_are_compared() -> None:
    source = SPECS.bind("keras.Dense", sizes=DENSE)
    with pytest.raises(ConversionError) as caught:
        fit(source, SPECS.form("torch.Linear"), shapes={"weight": (5, 11), "bias": (5,)})
    assert str(caught.value).splitlines() == [
        "input is 7 in keras.Dense and 11 in torch.Linear",
        "  keras.Dense: kernel (7, 5) = input output",
        "  torch.Linear: weight (5, 11) = output input",
        "  give both layers the same input",
    ]


def test_an_axis_that_the_target_has_not_is_refused() -> None:
    sizes = {"group": 2, "in": 11, "out": 3, "kh": 5, "kw": 7}
    assert refusal("keras.Conv2D", "keras.DepthwiseConv2D", sizes)[0] == "in is 11, not 1"


def test_switches_start_with_the_default() -> None:
    assert switches(SPECS.form("torch.Linear")) == {"bias": (True, False)}
    assert switches(SPECS.form("onnx.Gemm"))["transB"][0] == 0
