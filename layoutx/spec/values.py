"""How stored numbers become those of the kind: a closed list of maps of values, beside the sign that layouts show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

OPERATIONS = ("add", "times", "power")


@dataclass(frozen=True, slots=True)
class ValueMap:
    """meaning = times * stored ** power + add.

    `add`: what a framework adds while it runs (the forget bias of TensorFlow 1). `power` 2: a standard deviation
    that stands for a variance; the stored numbers are then never negative.
    """

    power: int = 1
    times: float = 1.0
    add: float = 0.0

    @property
    def shifts_only(self) -> bool:
        """Whether it adds and does nothing else."""
        return self.power == 1 and self.times == 1.0

    def stored(self, meaning: float) -> float:
        """The number to store for one number of the kind. Raises ZeroDivisionError where `times` is zero."""
        found = (meaning - self.add) / self.times
        return float(found ** (1.0 / self.power)) if self.power != 1 else found


SAME = ValueMap()


@dataclass(frozen=True, slots=True)
class MapSpec:
    """One map as a spec says it: the operation, and a number or the config key that holds it."""

    operation: str
    amount: float | str

    def bound(self, config: Any) -> ValueMap:
        """The map of one layer. Raises KeyError where its config has no number under the key."""
        amount = self.amount
        if isinstance(amount, str):
            amount = config.get(amount)
            if isinstance(amount, bool) or not isinstance(amount, (int, float)):
                raise KeyError(self.amount)
        match self.operation:
            case "add":
                return ValueMap(add=float(amount))
            case "times":
                return ValueMap(times=float(amount))
            case _:
                return ValueMap(power=int(amount))
