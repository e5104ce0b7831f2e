"""Declared recurrent forms (MXNet, cuDNN, CNTK, Core ML, Caffe, OpenCV, OpenVINO, WebNN, MATLAB, TF1) replayed.

The orders of gates written here were read from the published sources anew: rnn_cell.py and initializer.py (MXNet),
blocks.py (CNTK), recurrent.py (Core ML), lstm_unit_layer.cpp (Caffe), recurrent_layers.cpp (OpenCV), the operator
specifications of OpenVINO and WebNN, tf.contrib.cudnn_rnn CudnnCompatibleGRUCell. MATLAB's are from MathWorks'
reference pages (lstmLayer, bilstmLayer, gruLayer: the orders under InputWeights, the equations under ResetGateMode),
never compared with MATLAB itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

import declared_layers as dl
import numpy as np
import pytest
from declared_layers import cut

from layoutx.spec.registry import registry
from layoutx.verify.witness import Case, check

Array = np.ndarray
RNG = np.random.default_rng(20261121)
TIME, BATCH, IN, H, P = 5, 2, 3, 7, 11
X = RNG.normal(0, 1.2, (TIME, BATCH, IN))


def r(*shape: int) -> Array:
    return RNG.normal(0, 0.6, shape)


def case(
    form: str, config: Mapping[str, Any], w: Mapping[str, Array], found: Mapping[str, Array], **order: str
) -> Case:
    """A case in the form's own axis order: `x`, `y`, `h`, `c` as einsum texts over time, batch, direction, units."""
    how = {"x": "tbi->tbi", "y": "tbu->tbu", "h": "dbu->dbu", "c": "dbu->dbu", **order}
    outputs = {name: turned(how[name], array) for name, array in found.items()}
    return Case(form, config, {}, w, {"x": turned(how["x"], X)}, outputs, form.partition(".")[0], "replayed", "float64")


def turned(text: str, array: Array) -> Array:
    """`dbu->b(du)`: transposed, and the letters in brackets laid together; `tb(du)->...`: y taken apart first."""
    source, target = text.split("->")
    if "(" in source:
        array, source = array.reshape(*array.shape[:2], -1, H), source.replace("(", "").replace(")", "")
    array = np.einsum(f"{source}->{target.replace('(', '').replace(')', '')}", array)
    return array.reshape(*array.shape[: target.index("(")], -1) if "(" in target else array


ONE = {"x": "tbi->bti", "y": "tbu->btu"}  # what a cell is run on: batch first


def mxnet() -> Iterator[Case]:
    def layer(gates: int, state: int = H) -> dict[str, Array]:
        n = gates * H
        return {"i2h_weight": r(n, IN), "h2h_weight": r(n, state), "i2h_bias": r(n), "h2h_bias": r(n)}

    def run(kind: str, w: Mapping[str, Array], backward: bool = False, **more: Any) -> dict[str, Array]:
        a, b, c, d = (w[n] for n in ("i2h_weight", "h2h_weight", "i2h_bias", "h2h_bias"))
        if kind == "LSTM":
            return dl.lstm(X, cut(a, "ifgo"), cut(b, "ifgo"), cut(c + d, "ifgo"), backward=backward, **more)
        if kind == "GRU":
            return dl.gru(X, *(cut(v, "rzn") for v in (a, b, c, d)), after=True, backward=backward)
        return dl.rnn(X, a, b, c + d, **more, backward=backward)

    for kind, gates, more in (
        ("LSTM", 4, {}),
        ("GRU", 3, {}),
        ("RNN", 1, {"function": "relu"}),
        ("RNN", 1, {"function": "tanh"}),
    ):
        config = {"activation": more["function"]} if more else {}
        left, right = layer(gates), layer(gates)
        one, two = run(kind, left, **more), run(kind, right, True, **more)
        yield case(f"mxnet.{kind}", config, {f"l0_{n}": a for n, a in left.items()}, dl.joined([one]))
        names = {f"{s}0_{n}": a for s, w in (("l", left), ("r", right)) for n, a in w.items()}
        both = {**config, "bidirectional": True, "layout": "NTC"}
        yield case(f"mxnet.{kind}", both, names, dl.joined([one, two]), x="tbi->bti", y="tbu->btu")
        whole = np.concatenate([a.ravel() for a in left.values()])  # weights, then biases
        sized = {**config, "hidden_size": H}
        yield case(f"mxnet.Fused{kind}", sized, {"rnn_param": whole}, dl.joined([one]))
        cudnn = {"hiddenSize": H, **({"mode": f"rnn_{more['function']}"} if more else {})}
        yield case(f"cudnn.{kind}", cudnn, {"weights": whole}, dl.joined([one]))
        yield case(f"mxnet.{kind}Cell", config or {}, left, dl.joined([one]), **ONE)
    left, project = layer(4, P), r(P, H)
    names = {**{f"l0_{n}": a for n, a in left.items()}, "l0_h2r_weight": project}
    yield case("mxnet.LSTM", {"projection_size": P}, names, dl.joined([run("LSTM", left, project=project)]))


def cntk() -> Iterator[Case]:
    for peep in (False, True):
        for state in (H, P):
            w = {"b": r(4 * H), "W": r(IN, 4 * H), "H": r(state, 4 * H)}
            w |= {n: r(H) for n in ("Ci", "Cf", "Co")} if peep else {}
            w |= {"Wmr": r(H, P)} if state == P else {}
            blocks = [{g.replace("c", "g"): a for g, a in cut(m, "icfo").items()} for m in (w["W"].T, w["H"].T, w["b"])]
            peeps = {g: w[f"C{g}"] for g in "ifo"} if peep else None
            found = dl.lstm(X, *blocks, peep=peeps, project=w["Wmr"].T if state == P else None)
            config = {"shape": state, "use_peepholes": peep, **({"cell_shape": H} if state == P else {})}
            yield case("cntk.LSTM", config, w, dl.joined([found]), **ONE)
    w = {"b": r(3 * H), "W": r(IN, 3 * H), "H": r(H, 2 * H), "H1": r(H, H)}
    recurrent = {**cut(w["H"].T, "zr"), "n": w["H1"].T}
    found = dl.gru(X, cut(w["W"].T, "zrn"), recurrent, cut(w["b"], "zrn"), dict.fromkeys("zrn", 0.0), after=False)
    yield case("cntk.GRU", {}, w, dl.joined([found]), **ONE)
    w = {"b": r(H), "W": r(IN, H), "H": r(H, H)}
    yield case("cntk.RNNUnit", {}, w, dl.joined([dl.rnn(X, w["W"].T, w["H"].T, w["b"], "sigmoid")]), **ONE)


def coreml() -> Iterator[Case]:
    def side(suffix: str, peep: bool) -> dict[str, Array]:
        w = {"weight_ih": r(4 * H, IN), "weight_hh": r(4 * H, H), "bias": r(4 * H)} | (
            {"peephole": r(3 * H)} if peep else {}
        )
        return {n + suffix: a for n, a in w.items()}

    def run(w: Mapping[str, Array], suffix: str, backward: bool) -> dict[str, Array]:
        parts = [cut(w[n + suffix], "ifog") for n in ("weight_ih", "weight_hh", "bias")]
        peep = cut(w["peephole" + suffix], "ifo") if "peephole" + suffix in w else None
        return dl.lstm(X, *parts, peep=peep, backward=backward)

    states = {"h": "dbu->b(du)", "c": "dbu->b(du)"}
    for peep in (False, True):
        w, back = side("", peep), side("_back", peep)
        for direction in ("forward", "reverse"):
            found = dl.joined([run(w, "", direction == "reverse")])
            yield case("coreml.lstm", {"direction": direction}, w, found, **states)
        found = dl.joined([run(w, "", False), run(back, "_back", True)])
        yield case("coreml.lstm", {"direction": "bidirectional"}, w | back, found, **states)
    for direction in ("forward", "reverse"):
        w = {"weight_ih": r(3 * H, IN), "weight_hh": r(3 * H, H), "bias": r(3 * H)}
        none = dict.fromkeys("zrn", 0.0)
        blocks = [{g.replace("o", "n"): a for g, a in cut(w[n], "roz").items()} for n in w]
        found = dl.gru(X, *blocks, none, after=True, backward=direction == "reverse")
        yield case("coreml.gru", {"direction": direction}, w, dl.joined([found]), **states)
        w = {"weight_ih": r(H, IN), "weight_hh": r(H, H), "bias": r(H)}
        found = dl.rnn(X, *w.values(), "tanh", backward=direction == "reverse")
        yield case("coreml.rnn", {"direction": direction}, w, dl.joined([found]), **states)


def stacked() -> Iterator[Case]:
    """Directions on an axis of their own, or one after the other in the rows."""
    for direction in ("forward", "reverse", "bidirectional"):
        backs = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]
        d, config = len(backs), {"direction": direction}
        y, h = {"x": "tbi->bti", "y": "tb(du)->bdtu"}, {"h": "dbu->bdu", "c": "dbu->bdu"}
        w = {"W": r(d, 4 * H, IN), "R": r(d, 4 * H, H), "B": r(d, 4 * H)}
        runs = [
            dl.lstm(
                X, *({g.replace("c", "g"): a for g, a in cut(m[k], "fico").items()} for m in w.values()), backward=b
            )
            for k, b in enumerate(backs)
        ]
        yield case("openvino.LSTMSequence", config, w, dl.joined(runs), **y, **h)
        for after in (False, True):
            w = {"W": r(d, 3 * H, IN), "R": r(d, 3 * H, H), "B": r(d, (4 if after else 3) * H)}
            runs = []
            for k, b in enumerate(backs):
                biases = cut(w["B"][k], "zrnm" if after else "zrn")  # m: the recurrent bias of n
                own = {**dict.fromkeys("zr", 0.0), "n": biases.get("m", 0.0)}
                runs.append(dl.gru(X, cut(w["W"][k], "zrn"), cut(w["R"][k], "zrn"), biases, own, after, b))
            yield case("openvino.GRUSequence", {**config, "linear_before_reset": after}, w, dl.joined(runs), **y, **h)
        said = {"direction": {"forward": "forward", "reverse": "backward", "bidirectional": "both"}[direction]}
        for layout in ("iofg", "ifgo"):
            w = {"weight": r(d, 4 * H, IN), "recurrentWeight": r(d, 4 * H, H), "bias": r(d, 4 * H)}
            w |= {"recurrentBias": r(d, 4 * H), "peepholeWeight": r(d, 3 * H)}
            runs = []
            for k, b in enumerate(backs):
                parts = [cut(w[n][k], layout) for n in ("weight", "recurrentWeight")]
                both = cut(w["bias"][k] + w["recurrentBias"][k], layout)
                runs.append(dl.lstm(X, *parts, both, peep=cut(w["peepholeWeight"][k], "iof"), backward=b))
            yield case("webnn.lstm", {**said, "layout": layout}, w, dl.joined(runs), y="tb(du)->tdbu")
        for layout, after in (("zrn", True), ("rzn", True), ("zrn", False)):
            w = {
                "weight": r(d, 3 * H, IN),
                "recurrentWeight": r(d, 3 * H, H),
                "bias": r(d, 3 * H),
                "recurrentBias": r(d, 3 * H),
            }
            runs = [dl.gru(X, *(cut(a[k], layout) for a in w.values()), after, b) for k, b in enumerate(backs)]
            yield case(
                "webnn.gru", {**said, "layout": layout, "resetAfter": after}, w, dl.joined(runs), y="tb(du)->tdbu"
            )
        w = {"0": r(d * 4 * H, H), "1": r(d * 4 * H, IN), "2": r(1, d * 4 * H)}
        rows = [slice(k * 4 * H, (k + 1) * 4 * H) for k in range(d)]
        runs = [
            dl.lstm(
                X, cut(w["1"][s], "ifog"), cut(w["0"][s], "ifog"), cut(w["2"][0, s], "ifog"), forget=0.7, backward=b
            )
            for s, b in zip(rows, backs, strict=True)
        ]
        config = {"forget_bias": 0.7, "reverse": direction == "reverse", "bidirectional": d == 2}
        yield case("opencv.LSTM", config, w, dl.joined(runs))


def others() -> Iterator[Case]:
    w = {"0": r(4 * H, IN), "1": r(4 * H), "2": r(4 * H, H)}
    yield case(
        "caffe.LSTM", {}, w, dl.joined([dl.lstm(X, cut(w["0"], "ifog"), cut(w["2"], "ifog"), cut(w["1"], "ifog"))])
    )
    w = {"InputWeights": r(4 * H, IN), "RecurrentWeights": r(4 * H, H), "Bias": r(4 * H, 1)}
    blocks = [cut(a, "ifgo") for a in (w["InputWeights"], w["RecurrentWeights"], w["Bias"][:, 0])]
    yield case("matlab.lstmLayer", {}, w, dl.joined([dl.lstm(X, *blocks)]), **ONE)
    yield from matlab()
    yield tf1()


def matlab() -> Iterator[Case]:
    names = ("InputWeights", "RecurrentWeights", "Bias")
    sides = [(r(4 * H, IN), r(4 * H, H), r(4 * H, 1)) for _ in range(2)]
    found = [
        dl.lstm(X, *(cut(a, "ifgo") for a in (w, u, b[:, 0])), backward=back)
        for (w, u, b), back in zip(sides, (False, True), strict=True)
    ]
    whole = {name: np.concatenate(pair) for name, pair in zip(names, zip(*sides, strict=True), strict=True)}
    yield case("matlab.bilstmLayer", {}, whole, dl.joined(found), **ONE)
    nothing = dict.fromkeys("rzn", np.zeros(H))
    for mode in ("after-multiplication", "before-multiplication", "recurrent-bias-after-multiplication"):
        own = mode.startswith("recurrent-bias")
        w, u, b = r(3 * H, IN), r(3 * H, H), r(3 * H * (1 + own), 1)
        first, second = (cut(part, "rzn") for part in np.split(b[:, 0], 2)) if own else (cut(b[:, 0], "rzn"), nothing)
        ran = dl.gru(X, cut(w, "rzn"), cut(u, "rzn"), first, second, after=not mode.startswith("before"))
        held = dict(zip(names, (w, u, b), strict=True))
        yield case("matlab.gruLayer", {"ResetGateMode": mode}, held, dl.joined([ran]), **ONE)


def tf1() -> Case:
    """The gates' kernel over x and h side by side, the candidate's two apart, each (in, out)."""
    w = {"gates/kernel": r(IN + H, 2 * H), "gates/bias": r(2 * H)}
    for name, rows in (("input", IN), ("hidden", H)):
        w |= {f"candidate/{name}_projection/kernel": r(rows, H), f"candidate/{name}_projection/bias": r(H)}
    new = {
        n: (w[f"candidate/{n}_projection/kernel"].T, w[f"candidate/{n}_projection/bias"]) for n in ("input", "hidden")
    }
    gates, bias = w["gates/kernel"].T, cut(w["gates/bias"], "rz")
    ins, states = cut(gates[:, :IN], "rz"), cut(gates[:, IN:], "rz")
    nothing = dict.fromkeys("rz", np.zeros(H))
    blocks = ({**ins, "n": new["input"][0]}, {**states, "n": new["hidden"][0]})
    biases = ({**bias, "n": new["input"][1]}, {**nothing, "n": new["hidden"][1]})
    return case("tf1.CudnnCompatibleGRUCell", {}, w, dl.joined([dl.gru(X, *blocks, *biases, after=True)]), **ONE)


CASES = [*mxnet(), *cntk(), *coreml(), *stacked(), *others()]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_spec_computes_the_published_equations(case: Case) -> None:
    assert check(case, registry()) <= 1e-12


def only_added(one: str, two: str) -> bool:
    """Two biases of one direction that most cells add up before anything else."""
    return {one, two} == {"bias", "recurrentBias"} or ("bias" in one and one == two.replace("h2h", "i2h"))


def planted(case: Case) -> Iterator[tuple[str, Case]]:
    """Two arrays of one shape exchanged, or one moved on by one along an axis."""
    held = dict(case.tensors)
    for one, two in combinations(held, 2):
        if held[one].shape == held[two].shape and not only_added(one, two):
            yield f"{one} and {two} exchanged", replace(case, tensors={**held, one: held[two], two: held[one]})
    for name, array in held.items():
        for axis in range(array.ndim):
            if array.shape[axis] > 1:
                yield f"{name} axis {axis} rolled", replace(case, tensors={**held, name: np.roll(array, 1, axis)})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_mistake_in_any_array_is_seen(case: Case) -> None:
    missed = [what for what, wrong in planted(case) if check(wrong, registry()) < 1e-9]
    assert not missed
