"""Along the layers: gains whose product explodes or vanishes, and layers whose norm stands out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from statistics import median

from layoutx.frozen import frozen
from layoutx.verify.stats.finding import NOTE, SUSPECT, Finding

CHAIN = 4  # layers in a row without a normalisation between them
FAR = 1e3
OUTLIER = 100.0


@frozen
class Gain:
    """One layer with a kernel, or a normalisation (`gain` None).

    Attributes:
        gain: how much larger the outputs are than the inputs, in the mean square, for inputs that are not correlated.
        spectral: the largest singular value; None where it was not computed.
    """

    layer: str
    gain: float | None
    spectral: float | None


def depth_findings(gains: Sequence[Gain]) -> Iterator[Finding]:
    """What shows only between layers; in the file's order, skip connections are not looked at."""
    for chain in _chains(gains):
        product = prod(one.gain or 1.0 for one in chain)
        if product > FAR or product < 1 / FAR:
            grows = product > 1
            yield Finding(
                "exploding candidates" if grows else "vanishing candidates",
                NOTE,
                chain[0].layer,
                f"from {chain[0].layer} to {chain[-1].layer}, {len(chain)} layers, the gains multiply to {product:.2g}",
                ", ".join(f"{one.layer} {one.gain:.2g}" for one in chain[:6]) + (" ..." if len(chain) > 6 else ""),
                f"a signal and its gradient {'grow' if grows else 'fade'} by about that on the way, "
                "if the layers follow each other and nothing normalises between them",
                "look at the scale of the outputs of a batch (lx.record), at the initialiser, or normalise between",
            )
    norms = [one.spectral for one in gains if one.spectral]
    middle = median(norms) if len(norms) >= CHAIN else 0.0
    for one in gains:
        if one.spectral and middle and one.spectral > OUTLIER * middle:
            yield Finding(
                "norm stands out",
                SUSPECT,
                one.layer,
                f"its spectral norm is {one.spectral:.3g}, {one.spectral / middle:.0f} times the median of the layers",
                one.layer,
                "a small change of its input is multiplied by up to that",
                "look at the layer's learning rate, its inputs' scale, and whether weight decay reaches it",
            )


def _chains(gains: Sequence[Gain]) -> Iterator[list[Gain]]:
    chain: list[Gain] = []
    for one in gains:
        if one.gain is None:
            if len(chain) >= CHAIN:
                yield chain
            chain = []
        elif one.gain > 0:
            chain.append(one)
    if len(chain) >= CHAIN:
        yield chain
