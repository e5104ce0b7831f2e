"""What a computation by hand consists of: terms, sums of terms, and the steps that lead from one to the next."""

from __future__ import annotations

from collections.abc import Iterable
from math import fsum

from layoutx.frozen import frozen


@frozen
class Term:
    """One product: `x[0, 3] * kernel[3, 5]`."""

    left: str
    left_value: float
    right: str
    right_value: float

    @property
    def value(self) -> float:
        """The product."""
        return self.left_value * self.right_value


@frozen
class Step:
    """One number on the way.

    Attributes:
        name: what it is called further on: `i`, `pre`, `y`. about: "the input gate".
        formula: how it is made, with the names of the arrays.
        terms: products that are summed, the largest first. plain: further summands (`bias[5]`) and operands.
        value: the number.
    """

    name: str
    about: str
    formula: str
    value: float
    terms: tuple[Term, ...] = ()
    plain: tuple[tuple[str, float], ...] = ()


def summed(name: str, about: str, formula: str, terms: Iterable[Term], plain: Iterable[tuple[str, float]]) -> Step:
    """A step that is the sum of terms and plain numbers."""
    ordered = tuple(sorted(terms, key=lambda t: -abs(t.value)))
    added = tuple(plain)
    return Step(name, about, formula, fsum([*(t.value for t in ordered), *(v for _, v in added)]), ordered, added)
