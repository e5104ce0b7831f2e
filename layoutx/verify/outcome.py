"""What was measured on one layer, and on two whole models: results alone, without what measures."""

from __future__ import annotations

from layoutx.frozen import frozen

UNASKED = "not asked for"  # the note of a comparison that nobody wanted


@frozen
class Proof:
    """What was measured on one layer.

    Attributes:
        round_trip: "bit-exact", or why the way back is another.
        method: what computed the target's output: "torch 2.13.0", "NumPy reference"; "" where nothing could.
        largest: largest absolute difference of the outputs; None where nothing was computed.
        scale: largest absolute output.
        dtype: what was computed in.
        note: why something was not done.
    """

    round_trip: str
    method: str = ""
    largest: float | None = None
    scale: float = 0.0
    dtype: str = ""
    note: str = ""


@frozen
class EndToEnd:
    """How the outputs of two models compare.

    Attributes:
        largest: largest absolute difference; None where the models were not run.
        scale: largest absolute output.
        dtype: what the models computed in.
        agrees: whether the difference is rounding; None where the models were not run.
        note: how axes were turned, or why the models were not run.
        late: the other model was given time before batch.
        mixed: in which order the other model was given the inputs, where that is not their own; () where it is.
        only: which of the outputs agree, where not all were compared or not everywhere; "" for all of them.
    """

    largest: float | None = None
    scale: float = 0.0
    dtype: str = ""
    agrees: bool | None = None
    note: str = ""
    late: bool = False
    mixed: tuple[int, ...] = ()
    only: str = ""
