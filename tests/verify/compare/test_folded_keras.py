"""A Keras model with its batch norms against a torch model that has them folded: other axes, depthwise, no gamma."""

from __future__ import annotations

import os

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
torch = pytest.importorskip("torch")
keras = pytest.importorskip("keras")

from torch import nn  # noqa: E402
from torch.nn.utils.fusion import fuse_conv_bn_eval  # noqa: E402

from layoutx.port import port  # noqa: E402
from layoutx.relate import relate  # noqa: E402
from layoutx.validate import validate  # noqa: E402

PAIRS = (("c1", "b1"), ("dw", "b2"), ("pw", "b3"))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5, eps=1e-3)
        self.dw, self.b2 = nn.Conv2d(5, 10, 3, padding=1, groups=5), nn.BatchNorm2d(10, eps=1e-3)
        self.pw, self.b3 = nn.Conv2d(10, 4, 1), nn.BatchNorm2d(4, eps=1e-3)
        self.fc = nn.Linear(4, 6)

    def forward(self, x):
        x = torch.relu(self.b1(self.c1(x)))
        x = nn.functional.relu6(self.b2(self.dw(x)))
        return self.fc(self.b3(self.pw(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def pair():
    """The two models, and inputs in Keras' order."""
    rng, layers = np.random.default_rng(2), keras.layers
    given = keras.Input((9, 7, 3))
    x = layers.Conv2D(5, 3, use_bias=False, name="c1")(given)
    x = layers.ReLU()(layers.BatchNormalization(name="b1")(x))
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", name="dw")(x)
    x = layers.Activation("relu6")(layers.BatchNormalization(name="b2")(x))
    x = layers.BatchNormalization(scale=False, name="b3")(layers.Conv2D(4, 1, name="pw")(x))
    model = keras.Model(given, layers.Dense(6, name="fc")(layers.GlobalAveragePooling2D()(x)))
    for variable in model.weights:
        drawn = rng.normal(size=variable.shape) * 0.5
        positive = "variance" in variable.path or "gamma" in variable.path
        variable.assign(np.abs(drawn) + 0.3 if positive else drawn)
    inputs = rng.normal(size=(2, 9, 7, 3)).astype("float32")
    net = Net().eval()
    port(model, net, inputs)
    for conv, norm in PAIRS:
        setattr(net, conv, fuse_conv_bn_eval(getattr(net, conv), getattr(net, norm)))
        setattr(net, norm, nn.Identity())
    return model, net, inputs


def test_there_and_back(pair):
    model, net, inputs = pair
    for found in (validate(model, net, inputs), validate(net, model, inputs.transpose(0, 3, 1, 2))):
        assert found.ok, str(found)
        assert [check.layer for check in found.checks] == ["c1", "dw", "pw", "fc"]


def test_relate_names_every_norm(pair):
    model, net, _ = pair
    told = {layer.name: " ".join(layer.tensors[0].words) for layer in relate(model, net).layers}
    assert {conv: f"batch norm {norm} is folded in" in told[conv] for conv, norm in PAIRS} == dict.fromkeys(
        ("c1", "dw", "pw"), True
    )


def test_one_wrong_weight_is_found(pair):
    model, net, inputs = pair
    with torch.no_grad():
        net.dw.weight[7, 0, 1, 2] += 0.05
    found = validate(model, net, inputs)
    with torch.no_grad():
        net.dw.weight[7, 0, 1, 2] -= 0.05
    assert {check.layer for check in found.checks if check.verdict == "FAIL"} == {"dw"}
