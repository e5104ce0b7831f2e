"""Plans in words: each framework's own letters, copies counted, what is filled, added and left out."""

from __future__ import annotations

from layoutx.plan.fit import fit
from scripts import golden_plans

SPECS = golden_plans.specs()
LSTM = {"input": 7, "hidden": 5}


def said(source: str, target: str, sizes: dict, config: dict | None = None, known: dict | None = None) -> list[str]:
    return str(fit(SPECS.bind(source, config or {}, sizes=sizes), SPECS.form(target), known or {})).splitlines()


def test_an_lstm_shows_the_gate_letters_of_both_frameworks() -> None:
    assert said("keras.LSTM", "onnx.LSTM", LSTM) == [
        "keras.LSTM → onnx.LSTM: fills, bit-exact and reversible; "
        "the target has numbers that the source need not store",
        "kernel (input 7, gate×hidden 20)  →  W (direction 1, gate×hidden 20, input 7)",
        "  gate  i f c o  →  i o f c   2 copies: {i o} {f c}   moves",
        "recurrent_kernel (hidden_prev 5, gate×hidden 20)  →  R (direction 1, gate×hidden 20, hidden_prev 5)",
        "  gate  i f c o  →  i o f c   2 copies: {i o} {f c}   moves",
        "bias (gate×hidden 20)  →  B (direction 1, b_input+b_recurrent×gate×hidden 40)",
        "  gate  i f c o  →  i o f c   2 copies: {i o} {f c}",
        "  filled with 0: b_recurrent.i, b_recurrent.o, b_recurrent.f, b_recurrent.g   fills",
    ]


def test_sums_say_that_they_round() -> None:
    lines = said("torch.LSTM", "keras.LSTM", LSTM)
    assert lines[0] == "torch.LSTM → keras.LSTM: rounds, computed from stored numbers, rounded once: not bit-reversible"
    assert lines[2] == "  1 copy   moves"  # Keras calls c what torch calls g: no change of order
    assert "  bias_ih_l0 + bias_hh_l0: computed in float64, rounded once (b_input.i + b_recurrent.i)" in lines
    assert lines[-1].endswith("   rounds")


def test_what_is_left_out_is_said() -> None:
    guarded = said("keras.Dense", "torch.Linear", {"input": 7, "output": 5}, known={"bias": False})
    assert guarded == [
        "keras.Dense → torch.Linear: conditional, exact because the values happened to allow it",
        "kernel (input 7, output 5)  →  weight (output 5, input 7)",
        "  1 copy   moves",
        "left out: bias bias, only if it is 0 everywhere",
    ]
    dropped = said("torch.BatchNorm2d", "keras.BatchNormalization", {"channel": 3})
    assert dropped[-1] == "left out: num_batches_tracked (counts training batches; inference does not read it)"


def test_convolutions_name_their_dimensions() -> None:
    sizes = {"group": 2, "in": 3, "out": 5, "kh": 7, "kw": 11}
    assert said("keras.Conv2D", "torch.Conv2d", sizes)[1] == (
        "kernel (kh 7, kw 11, in 3, group×out 10)  →  weight (group×out 10, in 3, kh 7, kw 11)"
    )
