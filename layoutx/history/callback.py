"""What Keras asks of a callback, without importing Keras: the hooks of Keras 3 and of tf_keras, most of them idle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def _idle(*_: Any, **__: Any) -> None:
    """A hook that does nothing."""


_idle._is_default = True  # type: ignore[attr-defined]  # Keras calls hooks without this mark in step with training

_HOOKS = ("batch", "train_batch", "test_batch", "predict_batch", "epoch", "train", "test", "predict")


class Callback:
    """The base of History: it has every hook, calls `_training_begins` and `_training_goes_on`, and needs no Keras."""

    by: str
    params: Mapping[str, Any] | None = None
    model: Any = None
    _supports_tf_logs = False
    _chief_worker_only = None
    _offset = 0

    def __getattr__(self, name: str) -> Any:
        kind, _, end = name.removeprefix("on_").rpartition("_")
        if name.startswith("on_") and kind in _HOOKS and end in ("begin", "end"):
            return _idle
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _look_at_steps(self) -> None:
        """Each batch is looked at; said before Keras sees the callback, which else calls the hook in another thread."""
        self.on_train_batch_end: Callable[..., None] = self._batch_ends

    def set_params(self, params: Mapping[str, Any] | None) -> None:
        """What Keras says of the training: epochs, steps."""
        self.params = params

    def set_model(self, model: Any) -> None:
        """The model that will be trained."""
        self.model = model.module if type(model).__name__ == "DistributedDataParallel" else model

    def _implements_train_batch_hooks(self) -> bool:
        return self.by == "step"

    def _implements_test_batch_hooks(self) -> bool:
        return False

    def _implements_predict_batch_hooks(self) -> bool:
        return False

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """The moment before training."""
        self._training_begins(self._synced())
        done = self._done()
        self._offset = max(0, self.steps - done)  # a model that was compiled again counts from zero
        self._first(done + self._offset)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """A moment, where epochs are counted."""
        self._training_goes_on(self._synced(), self._done() + self._offset, logs or {}, epoch=True)

    def _batch_ends(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        done = self._done() + self._offset
        self._training_goes_on(self._synced(), done, logs or {}, epoch=False)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """The file is closed."""
        self.close()

    def _synced(self) -> Any:
        """The model; on jax its variables get their values only when asked."""
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        return self.model

    def _done(self) -> int:
        """How many steps the model's optimizer has done."""
        self._synced()
        count = getattr(getattr(self.model, "optimizer", None), "iterations", None)
        return 0 if count is None else int(count)

    # History has these

    steps: int

    def _training_begins(self, model: Any) -> None:
        raise NotImplementedError

    def _first(self, steps: int) -> None:
        raise NotImplementedError

    def _training_goes_on(self, model: Any, steps: int, logs: Mapping[str, Any], *, epoch: bool) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """End the recording."""
        raise NotImplementedError
