"""Whole models: trained once a process, saved once a session, the frameworks' precision left as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("keras", reason="whole models need keras")
pytest.importorskip("tensorflow", reason="whole models need TensorFlow")
pytest.importorskip("torch", reason="whole models need torch")

Saved = Callable[..., Path]


@pytest.fixture(autouse=True)
def _floatx() -> Iterator[None]:
    """No test leaves another default precision behind."""
    import keras

    before = keras.config.floatx()
    yield
    assert keras.config.floatx() == before
    keras.config.set_floatx(before)


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """`saved(model, framework, ending, dtype)`: the trained model's file, written once."""
    from keras_models import trained

    folder = tmp_path_factory.mktemp("trained")

    def path_of(name: str, framework: str = "keras", ending: str = ".keras", dtype: str = "float64") -> Path:
        path = folder / f"{name}-{framework}-{dtype}{ending}"
        if not path.exists():
            model = trained(name, framework, dtype)
            if ending == ".weights.h5":
                model.save_weights(path)
            else:
                model.save(path)
        return path

    return path_of
