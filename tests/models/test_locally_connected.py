"""LocallyConnected of Keras 2 in its three implementations: one kernel for each place, one line of numbers, a mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import LayoutxError

keras = pytest.importorskip("tf_keras")
KERNELS: dict[str, Any] = {"1D": (3, 2, (11, 3)), "2D": ((2, 3), (2, 1), (7, 8, 3))}


def model(rank: str, **options: Any) -> Any:
    """One layer, no number of which is an initial one."""
    size, strides, shape = KERNELS[rank]
    shape = (shape[-1], *shape[:-1]) if options.get("data_format") == "channels_first" else shape
    layer = getattr(keras.layers, f"LocallyConnected{rank}")(5, size, strides=strides, name="lc", **options)
    made = keras.Sequential([keras.layers.Input(shape), layer])
    rng = np.random.default_rng(7)
    made.set_weights([rng.normal(size=w.shape).astype(np.float32) for w in made.get_weights()])
    return made


@pytest.mark.parametrize("order", ["channels_last", "channels_first"])
@pytest.mark.parametrize("rank", ["1D", "2D"])
def test_the_line_of_numbers_is_the_kernels(rank: str, order: str) -> None:
    """The same function in both implementations, bit for bit the same numbers."""
    line = model(rank, implementation=3, data_format=order, use_bias=order == "channels_last")
    like = model(rank, implementation=1, data_format=order, use_bias=order == "channels_last")
    space = line.layers[-1].compute_output_shape(line.input_shape)[1:]
    space = space[:-1] if order == "channels_last" else space[1:]
    size = KERNELS[rank][0]
    sizes = dict(zip(("kh", "kw"), size if isinstance(size, tuple) else (size,), strict=False))
    sizes |= dict(zip(("oh", "ow"), space, strict=False)) | {"in": 3, "out": 5}
    config = {"implementation": 3, "data_format": order, "use_bias": line.layers[-1].use_bias}
    form = f"keras.LocallyConnected{rank}"
    plan = lx.plan(form, form, sizes=sizes, config=config, target_config={**config, "implementation": 1})
    found = plan(dict(zip(("kernel", "bias"), line.get_weights(), strict=False)))
    like.set_weights([found[name] for name in ("kernel", "bias") if name in found])
    x = np.random.default_rng(1).normal(size=(2, *line.input_shape[1:])).astype(np.float32)
    assert np.abs(line.predict(x, verbose=0) - like.predict(x, verbose=0)).max() < 1e-5
    assert str(plan.exactness) == "moves"


@pytest.mark.parametrize("rank", ["1D", "2D"])
def test_a_file_of_implementation_3_reaches_flax(rank: str, tmp_path: Path) -> None:
    linen = pytest.importorskip("flax.linen")
    from flax import serialization

    source = model(rank, implementation=3)
    source.save(tmp_path / "x.h5")
    lx.convert(tmp_path / "x.h5", tmp_path / "x.msgpack", to="flax")
    params = serialization.msgpack_restore((tmp_path / "x.msgpack").read_bytes())["params"]["lc"]
    size, strides, shape = KERNELS[rank]
    size = size if isinstance(size, tuple) else (size,)
    x = np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)
    y = linen.ConvLocal(5, size, strides=strides, padding="VALID").apply({"params": params}, x)
    assert np.abs(np.asarray(y) - source.predict(x, verbose=0)).max() < 1e-4


@pytest.mark.parametrize("options", [{"implementation": 2}, {"implementation": 3, "padding": "same"}])
@pytest.mark.parametrize("rank", ["1D", "2D"])
def test_what_stores_other_numbers_is_refused_by_its_option(rank: str, options: dict[str, Any], tmp_path: Path) -> None:
    model(rank, **options).save(tmp_path / "x.h5")
    with pytest.raises(LayoutxError, match=r"implementation 2 (stores a matrix|and 3 only)"):
        lx.convert(tmp_path / "x.h5", to="flax")
