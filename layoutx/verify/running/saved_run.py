"""A TensorFlow SavedModel: its signature run whole; its layers cannot be seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from layoutx.errors import UsageError
from layoutx.plan.plan import Array
from layoutx.verify.recording import Recording
from layoutx.verify.running.given import Inputs, cannot_run, listed, no_layer


@dataclass
class SavedRunner:
    """Runs the signature `serving_default`, or the only one."""

    model: Any
    framework: str = "tf1"
    note: str = "a SavedModel: its layers cannot be recorded, and it is run in its own dtype"

    def layers(self) -> Mapping[str, str]:
        """None: the graph has operations only."""
        return {}

    def inputs(self, long: bool = False) -> tuple[Array, ...]:
        """Random floats of the signature's own shapes; () where one of them is no float."""
        specs = self._specs()
        if any(not spec.dtype.is_floating or spec.shape.rank is None for spec in specs.values()):
            return ()
        rng = np.random.default_rng(20261121)
        shapes = [[3 if n is None else n for n in spec.shape] for spec in specs.values()]
        return tuple(rng.normal(size=shape) for shape in shapes)

    def record(self, inputs: Inputs, double: bool = True) -> Recording:
        """One run of the signature.

        Raises:
            UsageError: it does not run on these inputs.
        """
        import tensorflow as tf

        specs = self._specs()
        given = listed(inputs, tuple(specs))
        try:
            pairs = zip(specs.items(), given, strict=True)
            found = self._signature()(**{name: tf.cast(tf.constant(x), spec.dtype) for (name, spec), x in pairs})
        except Exception as error:
            raise cannot_run(error) from error
        outputs = tuple(np.asarray(value) for value in found.values())
        return Recording("tf1", tf.__version__, outputs[0].dtype.name, given, outputs, (), {}, self.note)

    def layer(self, name: str, inputs: Sequence[Array], names: Sequence[str] = ()) -> tuple[Array, ...]:
        """Nothing: there are no layers.

        Raises:
            UsageError: always.
        """
        raise no_layer(name, {})

    def repeat(self, inputs: Inputs) -> None:
        """A graph has no modes."""

    def _signature(self) -> Any:
        signatures = dict(self.model.signatures)
        if not signatures:
            raise UsageError("the SavedModel has no signature to call", do="save it with signatures=")
        return signatures.get("serving_default") or next(iter(signatures.values()))

    def _specs(self) -> dict[str, Any]:
        return dict(self._signature().structured_input_signature[1])
