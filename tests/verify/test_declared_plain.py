"""Declared forms without a state (dense, convolution, embedding, norms) against torch's functions.

torch's convolution is a correlation and its transposed convolution the gradient of one, as those of MXNet, CNTK,
Core ML and Caffe are; Theano's flips (filter_flip). Weights are brought to torch by hand here, not by a spec.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from layoutx.spec.registry import registry
from layoutx.verify.witness import Case, check

Array = np.ndarray
RNG = np.random.default_rng(20261121)


def r(*shape: int) -> Array:
    return RNG.normal(0, 0.8, shape)


def t(array: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def case(form: str, config: Mapping[str, Any], w: Mapping[str, Array], x: Array, y: Tensor | Array) -> Case:
    return Case(form, config, {}, w, {"x": x}, {"y": np.asarray(y)}, form.partition(".")[0], "replayed", "float64")


def dense() -> Iterator[Case]:
    x, w, b = r(2, 5), r(7, 5), r(7)
    y = F.linear(t(x), t(w), t(b))
    yield case("mxnet.Dense", {"units": 7}, {"weight": w, "bias": b}, x, y)
    yield case("mxnet.Dense", {"use_bias": False}, {"weight": w}, x, F.linear(t(x), t(w)))
    yield case("mxnet.Dense", {"activation": "softrelu"}, {"weight": w, "bias": b}, x, F.softplus(y))
    yield case("cntk.Dense", {"shape": 7}, {"W": w.T, "b": b}, x, y)
    yield case("coreml.linear", {}, {"weight": w, "bias": b}, x, y)
    yield case("coreml.innerProduct", {"hasBias": True}, {"weights": w, "bias": b}, x, y)
    yield case("caffe.InnerProduct", {}, {"0": w, "1": b}, x, y)
    yield case("caffe.InnerProduct", {"transpose": True}, {"0": w.T, "1": b}, x, y)
    yield case("matlab.fullyConnectedLayer", {}, {"Weights": w, "Bias": b[:, None]}, x, y)
    yield case("gguf.Linear", {}, {"weight": w, "bias": b}, x, y)
    yield from by_hand()


def by_hand() -> Iterator[Case]:
    """What torch has no class for, written with its modules as the spec's `about` says."""
    x = r(2, 5)
    for bias in (True, False):
        one, two, linear = (torch.nn.Linear(5, out, bias, dtype=torch.float64) for out in (5, 5, 3 * 7))
        for p in (*one.parameters(), *two.parameters(), *linear.parameters()):
            p.data = t(r(*p.shape))
        gate = torch.sigmoid(two(t(x)))
        y = (gate * torch.tanh(one(t(x))) + (1 - gate) * t(x)).detach()
        parts = (("transform", one), ("gate", two))
        w = {f"{part}.{name}": p.detach().numpy() for part, module in parts for name, p in module.named_parameters()}
        yield case("torch.Highway", {"bias": bias, "activation": "tanh"}, w, x, y)
        w = {f"linear.{name}": p.detach().numpy() for name, p in linear.named_parameters()}
        y = linear(t(x)).view(-1, 3, 7).amax(1).detach()
        yield case("torch.MaxoutDense", {"features": 3, "bias": bias}, w, x, y)


def embedding() -> Iterator[Case]:
    table, x = r(7, 5), np.array([3, 0, 6, 6, 1])
    y = F.embedding(t(x), t(table))
    yield case("mxnet.Embedding", {"input_dim": 7}, {"weight": table}, x, y)
    yield case("cntk.Embedding", {"shape": 5}, {"E": table}, x, np.eye(7)[x] @ table)
    yield case("coreml.embedding", {"inputDim": 7}, {"weights": table.T}, x, y)
    yield case("caffe.Embed", {"bias_term": False}, {"0": table}, x, y)
    yield case("gguf.Embedding", {}, {"weight": table}, x, y)


def last(array: Array | Tensor) -> Array:
    """Channels from the second place to the last."""
    return np.moveaxis(np.asarray(array), 1, -1)


def conv() -> Iterator[Case]:
    for rank, run, plain, channels_last in (
        (1, F.conv1d, "NCW", "NWC"),
        (2, F.conv2d, "NCHW", "NHWC"),
        (3, F.conv3d, "NCDHW", "NDHWC"),
    ):
        size, space = (2, 3, 5)[:rank], (7, 11, 5)[:rank]
        for g in (1, 2):
            x, w, b = r(2, 3 * g, *space), r(5 * g, 3, *size), r(5 * g)
            y = run(t(x), t(w), t(b), stride=2, groups=g)
            config = {"channels": 5 * g, "strides": 2, "groups": g}
            yield case(f"mxnet.Conv{rank}D", {**config, "layout": plain}, {"weight": w, "bias": b}, x, y)
            held = {"weight": last(w), "bias": b}
            yield case(f"mxnet.Conv{rank}D", {**config, "layout": channels_last}, held, last(x), last(y))
            yield case("coreml.conv", {"groups": g, "strides": [2] * rank}, {"weight": w, "bias": b}, x, y)
            yield case("caffe.Convolution", {"group": g, "stride": 2}, {"0": w, "1": b}, x, y)
            if g == 1 and rank == 1:
                yield case("cntk.Convolution1D", {"strides": 2}, {"W": w[:, :, None], "b": b[:, None, None]}, x, y)
            elif g == 1:
                held = {"W": w, "b": b.reshape(-1, *[1] * rank)}
                yield case(f"cntk.Convolution{rank}D", {"strides": [2] * rank}, held, x, y)
            if rank == 2:
                held, config = {"filters": w}, {"subsample": 2, "num_groups": g}
                yield case(
                    "theano.conv2d", {**config, "filter_flip": False}, held, x, run(t(x), t(w), stride=2, groups=g)
                )
                flipped = w[..., ::-1, ::-1]
                yield case("theano.conv2d", config, held, x, run(t(x), t(flipped), stride=2, groups=g))
    x, w, b = r(2, 3, 5, 7, 11), r(7, 3, 2, 3, 5), r(7)
    for backend, kernel in (("tensorflow", w), ("theano", w[..., ::-1, ::-1, ::-1])):
        y, config = F.conv3d(t(x), t(kernel), t(b)), {"backend": backend}
        yield case("keras1.Convolution3D", {**config, "dim_ordering": "th"}, {"W": w, "b": b}, x, y)
        held = {"W": w.transpose(2, 3, 4, 1, 0), "b": b}
        yield case("keras1.Convolution3D", {**config, "dim_ordering": "tf"}, held, last(x), last(y))
    x, w, b = r(2, 3, 7, 11), r(5, 3, 2, 3), r(5)
    held = {"Weights": w.transpose(2, 3, 1, 0), "Bias": b[None, None]}
    yield case("matlab.convolution2dLayer", {"NumFilters": 5}, held, last(x), last(F.conv2d(t(x), t(w), t(b))))
    y = F.conv2d(F.pad(t(x), (0, 2, 1, 1)), t(w), t(b))
    yield case("coreml.conv", {"pad_type": "custom", "pad": [[1, 1], [0, 2]]}, {"weight": w, "bias": b}, x, y)


def conv_transpose() -> Iterator[Case]:
    runs = ((1, F.conv_transpose1d, "NWC"), (2, F.conv_transpose2d, "NHWC"), (3, F.conv_transpose3d, "NDHWC"))
    for rank, run, channels_last in runs:
        size, space = (2, 3, 5)[:rank], (5, 7, 3)[:rank]
        for g in (1, 2):
            x, w, b = r(2, 3 * g, *space), r(3 * g, 5, *size), r(5 * g)
            y = run(t(x), t(w), t(b), stride=2, groups=g)
            config = {"channels": 5 * g, "strides": 2, "groups": g}
            yield case(f"mxnet.Conv{rank}DTranspose", config, {"weight": w, "bias": b}, x, y)
            held = {"weight": last(w), "bias": b}
            yield case(f"mxnet.Conv{rank}DTranspose", {**config, "layout": channels_last}, held, last(x), last(y))
            yield case("coreml.conv_transpose", {"groups": g, "strides": 2}, {"weight": w, "bias": b}, x, y)
            yield case("caffe.Deconvolution", {"group": g, "stride": 2}, {"0": w, "1": b}, x, y)
            if rank == 2 and g == 1:
                y, config = run(t(x), t(w[..., ::-1, ::-1]), stride=2), {"input_dilation": 2}
                yield case("theano.conv2d_transpose", config, {"filters": w}, x, y)
                y = run(t(x), t(w), stride=2)
                yield case("theano.conv2d_transpose", {**config, "filter_flip": False}, {"filters": w}, x, y)


def norms() -> Iterator[Case]:
    x, gamma, beta, mean, var = r(2, 6, 5, 7), r(6), r(6), r(6), np.abs(r(6)) + 0.1
    y = F.batch_norm(t(x), t(mean), t(var), t(gamma), t(beta), eps=1e-3)
    held = {"gamma": gamma, "beta": beta, "running_mean": mean, "running_var": var}
    yield case("mxnet.BatchNorm", {"epsilon": 1e-3}, held, x, y)
    held = {"mean": mean, "variance": var, "gamma": gamma, "beta": beta}
    yield case("coreml.batch_norm", {"epsilon": 1e-3}, held, x, y)
    yield case("coreml.batchnorm", {"epsilon": 1e-3}, held, x, y)
    held = {"gamma": gamma, "beta": beta, "mean": mean, "var": var}
    yield case("theano.batch_normalization_test", {"epsilon": 1e-3}, held, x, y)
    bare = F.batch_norm(t(x), t(mean), t(var), eps=1e-3)
    sums, config = (mean * 37.5, var * 37.5), {"eps": 1e-3, "inverse_scale_factor": 1 / 37.5}
    yield case("caffe.BatchNorm", config, {"0": sums[0], "1": sums[1]}, x, bare)
    held = {"bn.0": sums[0], "bn.1": sums[1], "scale.0": gamma, "scale.1": beta}
    yield case("caffe.BatchNormScale", {**config, "bias_term": True}, held, x, y)
    names = {"TrainedMean": mean, "TrainedVariance": var, "Offset": beta, "Scale": gamma}
    held = {name: array[None, None] for name, array in names.items()}
    yield case("matlab.batchNormalizationLayer", {"Epsilon": 1e-3}, held, last(x), last(y))
    y = F.group_norm(t(x), 3, t(gamma), t(beta))
    yield case("mxnet.GroupNorm", {"num_groups": 3}, {"gamma": gamma, "beta": beta}, x, y)
    y = F.instance_norm(t(x), weight=t(gamma), bias=t(beta))
    for form in ("mxnet.InstanceNorm", "coreml.instance_norm"):
        yield case(form, {}, {"gamma": gamma, "beta": beta}, x, y)
    x = r(5, 6)
    for form in ("mxnet.LayerNorm", "coreml.layer_norm"):
        yield case(form, {}, {"gamma": gamma, "beta": beta}, x, F.layer_norm(t(x), (6,), t(gamma), t(beta)))
    y = F.rms_norm(t(x), (6,), t(gamma), eps=1e-5)
    yield case("gguf.RMSNorm", {}, {"weight": gamma}, x, y)
    yield case("llama.RMSNorm", {"eps": 1e-5}, {"weight": gamma}, x, y)
    x, alpha = r(2, 6, 5), r(6)
    y = F.prelu(t(x), t(alpha))
    for form, name in (("mxnet.PReLU", "alpha"), ("coreml.prelu", "alpha"), ("caffe.PReLU", "0")):
        yield case(form, {"rank": 1}, {name: alpha}, x, y)
    yield case(
        "caffe.PReLU", {"rank": 1, "channel_shared": True}, {"0": np.array(0.3)}, x, F.prelu(t(x), t(np.array([0.3])))
    )


def theano() -> Iterator[Case]:
    """Keras 2.3.1 on Theano, channels last: sums over kernel positions, by hand."""
    for rank in (1, 2, 3):
        x, w, b = r(2, *(7, 11, 5)[:rank], 3), r(*(2, 3, 5)[:rank], 3, 7), r(7)
        config = {"filters": 7, "kernel_size": w.shape[:-2], "version": 2}
        yield case(f"keras.theano.Conv{rank}D", config, {"kernel": w, "bias": b}, x, truly(x, w) + b)
        y = truly(x, w)[(slice(None), *[slice(None, None, 2)] * rank)]
        config = {**config, "use_bias": False, "strides": 2}
        yield case(f"keras.theano.Conv{rank}D", config, {"kernel": w}, x, y)
        y = np.moveaxis(y, -1, 1)
        config = {**config, "data_format": "channels_first"}
        yield case(f"keras.theano.Conv{rank}D", config, {"kernel": w}, np.moveaxis(x, -1, 1), y)
    x, w, b = r(2, 5, 7, 3), r(2, 3, 5, 3), r(5)
    y = np.zeros((2, 4 * 2 + 2, 6 * 2 + 3, 5))
    for row, column in np.ndindex(2, 3):  # what the gradient of a true convolution adds where
        y[:, 1 - row :: 2, 2 - column :: 2][:, :5, :7] += x @ w[row, column].T
    config = {"filters": 5, "kernel_size": (2, 3), "strides": 2, "version": 2}
    yield case("keras.theano.Conv2DTranspose", config, {"kernel": w, "bias": b}, x, y + b)
    config = {**config, "use_bias": False, "data_format": "channels_first"}
    first = np.moveaxis(x, -1, 1)
    yield case("keras.theano.Conv2DTranspose", config, {"kernel": w}, first, np.moveaxis(y, -1, 1))
    for function, gate in (("tanh", None), ("relu", "hard_sigmoid"), ("tanh", "sigmoid")):
        yield conv_lstm(function, gate)


def truly(x: Array, w: Array) -> Array:
    """x (batch, ..., in), w (*sizes, in, out): y[p] = sum over k of x[p + size - 1 - k] w[k]."""
    size = w.shape[:-2]
    space = [n - k + 1 for n, k in zip(x.shape[1:-1], size, strict=True)]
    y = np.zeros((len(x), *space, w.shape[-1]))
    for at in np.ndindex(*size):
        starts = [k - 1 - n for n, k in zip(at, size, strict=True)]
        y += x[(slice(None), *(slice(a, a + n) for a, n in zip(starts, space, strict=True)))] @ w[at]
    return y


def conv_lstm(function: str, gate: str | None) -> Case:
    """Keras 2.3.1 layers/convolutional_recurrent.py ConvLSTM2DCell.call; its gates are hard sigmoids by default."""
    x, w, u, b = r(2, 4, 5, 7, 3), r(3, 5, 3, 4 * 2), r(3, 5, 2, 4 * 2), r(4 * 2)
    act = {"tanh": np.tanh, "relu": lambda v: np.maximum(v, 0.0)}[function]
    smooth = gate == "sigmoid"
    squash = (lambda v: 1 / (1 + np.exp(-v))) if smooth else (lambda v: np.clip(0.2 * v + 0.5, 0.0, 1.0))
    h = c = np.zeros((2, 3, 3, 2))
    outs = []
    for step in np.moveaxis(x, 1, 0):
        around = np.pad(h, ((0, 0), (1, 1), (2, 2), (0, 0)))
        i, f, g, o = np.split(truly(step, w) + b + truly(around, u), 4, -1)
        c = squash(f) * c + squash(i) * act(g)
        h = squash(o) * act(c)
        outs.append(h)
    config = {"filters": 2, "kernel_size": (3, 5), "activation": function, "recurrent_activation": gate, "version": 2}
    held, outputs = {"kernel": w, "recurrent_kernel": u, "bias": b}, {"y": np.stack(outs, 1), "h": h, "c": c}
    return Case("keras.theano.ConvLSTM2D", config, {}, held, {"x": x}, outputs, "keras", "replayed", "float64")


CASES = [*dense(), *embedding(), *conv(), *conv_transpose(), *norms(), *theano()]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_spec_computes_what_torch_computes(case: Case) -> None:
    assert check(case, registry()) <= 1e-12


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_mistake_in_any_array_is_seen(case: Case) -> None:
    """Each array back to front along each axis."""
    held = dict(case.tensors)
    wrong = {
        (name, axis): replace(case, tensors={**held, name: np.flip(array, axis)})
        for name, array in held.items()
        for axis in range(array.ndim)
        if array.shape[axis] > 1
    }
    assert [what for what, other in wrong.items() if check(other, registry()) < 1e-9] == []


def test_every_declared_form_has_been_replayed() -> None:
    """Those of the helper modules too; what is missing is named here, with its reason."""
    import test_declared_replay
    import test_keras1_replay
    import test_language_models

    replayed = {c.form for m in (test_declared_replay, test_keras1_replay, test_language_models) for c in m.CASES}
    replayed |= {c.form for c in CASES}
    mine = {"theano", "cntk", "mxnet", "coreml", "caffe", "cudnn", "matlab", "openvino", "opencv", "webnn", "gguf"}
    mine |= {"gpt2", "llama", "meta", "neox", "phi3", "megatron", "keras1"}
    left = {
        "matlab.transposedConv2dLayer",  # nothing published says whether its kernel is back to front
    }
    forms = registry().forms
    assert {name for name in forms if forms[name].framework in mine or "keras.theano." in name} - replayed == left
