"""Old Keras files that were written in one age and are used in another, into torch modules with the same outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import LayoutxError

torch = pytest.importorskip("torch")
Arrays = Mapping[str, Any]


def written(path: Path, layers: Mapping[str, Arrays], config: Any = None, version: str = "") -> Path:
    """A file of `save_model`, or of `save_weights` where it has no config."""
    with h5py.File(path, "w") as file:
        group = file
        if config is not None:
            file.attrs["model_config"] = json.dumps(config).encode()
            file.attrs["keras_version"] = version.encode()
            group = file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for name in layers]
        for layer, arrays in layers.items():
            inner = group.create_group(layer)
            inner.attrs["weight_names"] = [name.encode() for name in arrays]
            for name, array in arrays.items():
                inner[name] = array
    return path


def drawn(module: Any, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.from_numpy(rng.standard_normal(tuple(parameter.shape)) * 0.3))
    return module.eval()


def kernel(layer: Any, order: Sequence[int] = ()) -> Any:
    """A weight as Keras on TensorFlow stores it; `order`: the sides (c, h, w) of the map that a Dense flattens."""
    weight = layer.weight.detach().numpy()
    if weight.ndim == 4:
        return weight.transpose(2, 3, 1, 0)
    if order:
        size = int(np.prod(order))
        rows = weight[:, :size].reshape(-1, *order).transpose(0, 2, 3, 1).reshape(len(weight), size)
        weight = np.concatenate([rows, weight[:, size:]], 1)
    return weight.T


def named(layers: Mapping[str, Any], tail: str, maps: Mapping[str, Sequence[int]]) -> dict[str, Arrays]:
    """The arrays of these layers under the names of Keras 1: `fc1_W_1:0`."""
    return {
        name: {f"{name}_W{tail}": kernel(layer, maps.get(name, ())), f"{name}_b{tail}": layer.bias.detach().numpy()}
        for name, layer in layers.items()
    }


class Merged(torch.nn.Module):
    """Two branches laid end to end, one of them a flattened map; two more are added."""

    def __init__(self) -> None:
        super().__init__()
        nn = torch.nn
        self.picture, self.side = nn.Conv2d(2, 4, 3), nn.Linear(3, 5)
        self.left, self.right, self.out = nn.Linear(4 * 3 * 2 + 5, 4), nn.Linear(4 * 3 * 2 + 5, 4), nn.Linear(4, 2)

    def forward(self, image: Any, vector: Any) -> Any:
        both = torch.cat([torch.relu(self.picture(image)).flatten(1), torch.relu(self.side(vector))], 1)
        return self.out(torch.tanh(self.left(both)) + torch.sigmoid(self.right(both)))


def merged_config(mode: str) -> dict[str, Any]:
    """What Keras 1.2 wrote of it; `mode` is how the branches come together."""

    def layer(kind: str, name: str, *before: str, **config: Any) -> dict[str, Any]:
        inbound = [[[one, 0, 0] for one in before]] if before else []
        return {"class_name": kind, "name": name, "config": {"name": name, **config}, "inbound_nodes": inbound}

    def dense(name: str, before: str, size: int, activation: str) -> dict[str, Any]:
        return layer("Dense", name, before, output_dim=size, activation=activation, bias=True)

    conv = {"nb_filter": 4, "nb_row": 3, "nb_col": 3, "activation": "relu", "border_mode": "valid"}
    conv |= {"subsample": [1, 1], "dim_ordering": "tf", "bias": True}
    layers = [
        layer("InputLayer", "image", batch_input_shape=[None, 5, 4, 2], input_dtype="float32"),
        layer("InputLayer", "vector", batch_input_shape=[None, 3], input_dtype="float32"),
        layer("Convolution2D", "picture", "image", **conv),
        layer("Flatten", "flat", "picture"),
        dense("side", "vector", 5, "relu"),
        layer("Merge", "both", "flat", "side", mode=mode, concat_axis=-1, dot_axes=-1, arguments={}),
        dense("left", "both", 4, "tanh"),
        dense("right", "both", 4, "sigmoid"),
        layer("Merge", "sum", "left", "right", mode="sum", concat_axis=-1),
        dense("out", "sum", 2, "linear"),
    ]
    ends = {"input_layers": [["image", 0, 0], ["vector", 0, 0]], "output_layers": [["out", 0, 0]]}
    return {"class_name": "Model", "config": {"name": "m", "layers": layers, **ends}}


def test_the_branches_of_a_keras_1_merge_are_followed(tmp_path: Path) -> None:
    """`Merge` was the one layer for all that is joined; behind it rows of a flattened map were refused."""
    true, found = drawn(Merged()), Merged().eval()
    layers = {name: getattr(true, name) for name in ("picture", "side", "left", "right", "out")}
    arrays = named(layers, ":0", {"left": (4, 3, 2), "right": (4, 3, 2)})
    lx.port(written(tmp_path / "m.h5", arrays, merged_config("concat"), "1.2.2"), found)
    image, vector = torch.randn(2, 2, 5, 4), torch.randn(2, 3)
    with torch.no_grad():
        torch.testing.assert_close(found(image, vector), true(image, vector))
    other = written(tmp_path / "dot.h5", arrays, merged_config("dot"), "1.2.2")
    with pytest.raises(LayoutxError, match='could not be followed through Merge "both"'):
        lx.port(other, Merged())


class Small(torch.nn.Module):
    """A network of the names of keras.applications' VGG."""

    def __init__(self) -> None:
        super().__init__()
        self.features = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2))
        self.fc, self.head = torch.nn.Linear(4 * 3 * 2, 6), torch.nn.Linear(6, 2)

    def forward(self, x: Any) -> Any:
        return self.head(torch.relu(self.fc(self.features(x).flatten(1)))).softmax(-1)


def small_config() -> dict[str, Any]:
    """The same network as a user of Keras 2 or 3 has it."""

    def layer(kind: str, name: str, **config: Any) -> dict[str, Any]:
        return {"class_name": kind, "config": {"name": name, **config}}

    conv = {"filters": 4, "kernel_size": [3, 3], "padding": "same", "activation": "relu", "strides": [1, 1]}
    conv |= {"data_format": "channels_last", "use_bias": True, "batch_input_shape": [None, 6, 4, 3]}
    layers = [
        layer("Conv2D", "block1_conv1", **conv),
        layer("MaxPooling2D", "block1_pool", pool_size=[2, 2], strides=[2, 2], padding="valid"),
        layer("Flatten", "flatten"),
        layer("Dense", "fc1", units=6, activation="relu", use_bias=True),
        layer("Dense", "predictions", units=2, activation="softmax", use_bias=True),
    ]
    return {"class_name": "Sequential", "config": {"name": "small", "layers": layers}}


@pytest.mark.parametrize("tail", ["_1:0", ""], ids=["TensorFlow", "Theano"])
def test_the_weights_of_keras_applications_with_todays_config(tail: str, tmp_path: Path) -> None:
    """`block1_conv1_W_1:0` is Keras 1's name; later ones load such files by position. Theano turns kernels."""
    true, found = drawn(Small()), Small().eval()
    layers = {"block1_conv1": true.features[0], "fc1": true.fc, "predictions": true.head}
    source = written(tmp_path / "weights.h5", named(layers, tail, {"fc1": (4, 3, 2)}))
    if not tail:
        with pytest.raises(LayoutxError, match="block1_conv1"):
            lx.port(source, found, config=small_config())
        return
    lx.port(source, found, config=small_config())
    x = torch.randn(2, 3, 6, 4)
    with torch.no_grad():
        torch.testing.assert_close(found(x), true(x))


def test_keras_2_into_keras_2_by_its_own_names(tmp_path: Path) -> None:
    """tf_keras calls the kernel of a DepthwiseConv2D depthwise_kernel, Keras 3 kernel: it had no place in itself."""
    keras = pytest.importorskip("tf_keras")
    layers = [keras.Input((7, 7, 3)), keras.layers.DepthwiseConv2D(3, depth_multiplier=2), keras.layers.Conv2D(5, 1)]
    model, other = keras.Sequential(layers), tmp_path / "other.h5"
    model.save(tmp_path / "model.h5", save_format="h5")
    rng = np.random.default_rng(3)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    model.save(other, save_format="h5")
    lx.convert(other, tmp_path / "out.h5", to="keras", like=tmp_path / "model.h5")
    made = keras.models.load_model(tmp_path / "out.h5")
    for one, two in zip(made.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_an_architecture_says_that_it_holds_no_weights(tmp_path: Path) -> None:
    (tmp_path / "arch.json").write_text(json.dumps({"class_name": "Sequential", "config": {"layers": []}}))
    with pytest.raises(LayoutxError, match=r"arch.json holds no weights(.|\n)*--config arch.json"):
        lx.inspect(tmp_path / "arch.json")
