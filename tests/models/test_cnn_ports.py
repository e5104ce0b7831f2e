"""Convolutional models with unhelpful names: layers of one shape defined in another order than they are called."""

import os

import numpy as np
import pytest

import layoutx as lx

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
torch = pytest.importorskip("torch")
keras = pytest.importorskip("keras")
L = keras.layers
nn = torch.nn
F = torch.nn.functional


def filled(model):
    """Every weight its own number, variances positive."""
    rng = np.random.default_rng(7)
    for weight in model.weights:
        wide = any(word in weight.path for word in ("variance", "gamma"))
        weight.assign(rng.uniform(0.5, 1.5, weight.shape) if wide else rng.normal(0, 0.3, weight.shape))
    return model


def vgg_keras():
    """Two equal square convolutions; the flattened map is as wide as the square Dense after it."""
    x = given = L.Input((8, 12, 3))
    for pools in (False, True, True):
        x = L.Conv2D(8, 3, padding="same", activation="relu")(x)
        x = L.MaxPooling2D()(x) if pools else x
    x = L.Dense(48, activation="relu")(L.Flatten()(x))
    return filled(keras.Model(given, L.Dense(5)(L.Dense(48, activation="relu")(x))))


class VGG(nn.Module):
    """The same as torchvision spells it; `mean` pools otherwise."""

    def __init__(self, mean=False):
        super().__init__()
        convs = [nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)]
        pool = nn.AvgPool2d(2) if mean else nn.MaxPool2d(2)
        self.features = nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.ReLU(), pool, convs[2], nn.ReLU(), pool)
        ends = [nn.Linear(48, 48), nn.Linear(48, 48), nn.Linear(48, 5)]
        self.classifier = nn.Sequential(ends[0], nn.ReLU(), nn.Dropout(), ends[1], nn.ReLU(), ends[2])

    def forward(self, x):
        return self.classifier(torch.flatten(self.features(x), 1))


class UNet(nn.Module):
    """A decoder whose layers are numbered by the level they belong to: the last that is called is number 1."""

    def __init__(self):
        super().__init__()
        self.out = nn.Conv2d(8, 2, 1)
        self.up1, self.up2 = (nn.ConvTranspose2d(8, 8, 2, stride=2) for _ in "ab")
        self.dec1, self.dec2 = (nn.Conv2d(16, 8, 3, padding=1) for _ in "ab")
        self.enc1 = nn.Conv2d(3, 8, 3, padding=1)
        self.enc3, self.enc2 = (nn.Conv2d(8, 8, 3, padding=1) for _ in "ab")

    def forward(self, x):
        one = self.enc1(x).relu()
        two = self.enc2(F.max_pool2d(one, 2)).relu()
        x = self.enc3(F.max_pool2d(two, 2)).relu()
        x = self.dec2(torch.cat([self.up2(x), two], 1)).relu()
        return self.out(self.dec1(torch.cat([self.up1(x), one], 1)).relu())


def unet_keras():
    def conv(x):
        return L.Conv2D(8, 3, padding="same", activation="relu")(x)

    given = L.Input((8, 8, 3))
    one = conv(given)
    two = conv(L.MaxPooling2D()(one))
    x = conv(L.MaxPooling2D()(two))
    x = conv(L.Concatenate()([L.Conv2DTranspose(8, 2, strides=2)(x), two]))
    x = conv(L.Concatenate()([L.Conv2DTranspose(8, 2, strides=2)(x), one]))
    return filled(keras.Model(given, L.Conv2D(2, 1)(x)))


@pytest.mark.parametrize(("model", "module"), [(vgg_keras, VGG), (unet_keras, UNet)], ids=["vgg", "unet"])
def test_wiring_counts_before_numbers(model, module):
    """features.0, .2, .5 are not conv2d, _1, _2 plus a constant; up1 may be the last of the decoder."""
    assert lx.port(model(), module()).end_to_end.agrees is True


def test_a_file_is_run_by_its_framework(tmp_path):
    vgg_keras().save(tmp_path / "vgg.keras")
    assert lx.port(tmp_path / "vgg.keras", VGG()).end_to_end.agrees is True
    target = VGG(mean=True)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(lx.LayoutxError, match="do not compute the same"):
        lx.port(tmp_path / "vgg.keras", target)
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_a_checkpoint_goes_into_the_module_that_knows_its_classes(tmp_path):
    """A square kernel fits Conv2d and ConvTranspose2d; `module.` and other entries are another person's nesting."""
    source, target = UNet(), UNet()
    state = {f"module.{name}": value for name, value in source.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "last.pt")
    lx.port(tmp_path / "last.pt", target)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(source(x), target(x))


def test_tied_weights_go_into_tied_weights():
    def tied():
        module = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Tanh(), nn.Linear(4, 4, bias=False), nn.Linear(4, 3))
        module[2].weight = module[0].weight
        return module

    source, target = tied(), tied()
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    assert lx.port(source, target, x).end_to_end.agrees is True
    assert target[2].weight is target[0].weight
    assert not lx.match(source, target).joint.lost


def test_a_convolution_without_bias_is_proved_in_torch():
    """A live module's `bias` is None where it was built without: that is bias=False."""
    model = filled(keras.Sequential([L.Input((6, 6, 3)), L.Conv2D(5, 3, use_bias=False)]))
    report = lx.port(model, nn.Conv2d(3, 5, 3, bias=False))
    assert report.layers[0].proof.method.startswith("torch")


def test_more_layers_than_places_are_not_called_several_places():
    model = filled(keras.Sequential([L.Input((4,)), L.Dense(4), L.Dense(4)]))
    with pytest.raises(lx.LayoutxError, match="and so do other layers"):
        lx.port(model, nn.Linear(4, 4))


@pytest.mark.parametrize("writable", [True, False])
def test_inputs_may_be_read_only(writable, recwarn):
    x = np.ones((2, 8, 12, 3), np.float32)
    x.setflags(write=writable)
    assert lx.port(vgg_keras(), VGG(), x).end_to_end.agrees is True
    assert not [w for w in recwarn if "writable" in str(w.message)]


def test_a_map_flattened_to_the_width_of_a_dense_is_not_taken_for_its_output(tmp_path):
    """Weights alone: the 48 rows of the first Dense are 2 x 3 x 8, and also the width of the one before the last."""
    vgg_keras().save_weights(tmp_path / "vgg.weights.h5")
    with pytest.raises(lx.LayoutxError, match="order of the 48 input rows"):
        lx.port(tmp_path / "vgg.weights.h5", VGG())


class Skips(nn.Module):
    """Names that count backwards, and a layer that two others read: wiring tells them apart."""

    def __init__(self):
        super().__init__()
        self.layer5 = nn.BatchNorm2d(4, eps=1e-3)
        self.layer3, self.layer4 = (nn.Conv2d(4, 4, 3, padding=1) for _ in "ab")
        self.layer2 = nn.BatchNorm2d(4, eps=1e-3)
        self.layer1 = nn.Linear(4, 4)

    def forward(self, x):
        x = x + self.layer5(x)
        x = x + self.layer4(x)
        x = x + self.layer3(x)
        return self.layer1(self.layer2(x).mean((2, 3)))


def test_a_neighbour_too_many_speaks_against_a_pair():
    x = given = L.Input((6, 6, 4))
    x = L.Add()([x, L.BatchNormalization(name="a")(x)])
    x = L.Add()([x, L.Conv2D(4, 3, padding="same", name="conv_1")(x)])
    x = L.Add()([x, L.Conv2D(4, 3, padding="same", name="conv_2")(x)])
    x = L.GlobalAveragePooling2D()(L.BatchNormalization(name="b")(x))
    model = filled(keras.Model(given, L.Dense(4, name="last")(x)))
    found = {pair.source.name: pair.target.name for pair in lx.match(model, Skips()).joint.pairs}
    assert found == {"a": "layer5", "conv_1": "layer4", "conv_2": "layer3", "b": "layer2", "last": "layer1"}
