"""All families of edits of one layer, in the order in which names are preferred where two make the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from layoutx.verify.diagnose.axes import orders, rows, together
from layoutx.verify.diagnose.blocks import blocks
from layoutx.verify.diagnose.both_lost import both_lost
from layoutx.verify.diagnose.flips import flips
from layoutx.verify.diagnose.gates import exchanged, gate_orders
from layoutx.verify.diagnose.heads import heads
from layoutx.verify.diagnose.loaded import left, repeated
from layoutx.verify.diagnose.masks import masks
from layoutx.verify.diagnose.settings import epsilons, functions
from layoutx.verify.diagnose.solved import solved
from layoutx.verify.diagnose.suspect import Edit, Suspect
from layoutx.verify.diagnose.turns import turned
from layoutx.verify.diagnose.values import biases, norms, packed, scales
from layoutx.verify.diagnose.windows import borders

Family = Callable[[Suspect], Iterable[Edit]]

LAYER: tuple[Family, ...] = (
    epsilons,
    functions,
    heads,
    masks,
    borders,
    gate_orders,
    orders,
    together,
    blocks,
    flips,
    biases,
    norms,
    scales,
    exchanged,
    packed,
    turned,
    repeated,
    left,
    solved,
    both_lost,
    rows,
)


def edits(suspect: Suspect, families: Iterable[Family] = LAYER) -> Iterator[Edit]:
    """Every edit that applies to a layer."""
    for family in families:
        yield from family(suspect)
