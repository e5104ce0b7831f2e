"""How stored numbers become those of the kind: a closed list of maps of values, beside the sign that layouts show."""

from __future__ import annotations

from math import isfinite
from typing import Any

from layoutx.frozen import frozen

OPERATIONS = ("add", "times", "power")


@frozen
class ValueMap:
    """meaning = times * (stored + shift) ** power + add.

    `add`: what a framework adds while it runs (the forget bias of TensorFlow 1). `power` 2: a standard deviation
    that stands for a variance, and `shift` what the framework adds to it; the sum of both is then never negative.
    """

    power: int = 1
    times: float = 1.0
    add: float = 0.0
    shift: float = 0.0

    @property
    def shifts_only(self) -> bool:
        """Whether it adds and does nothing else."""
        return self.power == 1 and self.times == 1.0 and not self.shift

    def stored(self, meaning: float) -> float:
        """The number to store for one number of the kind. Raises ZeroDivisionError where `times` is zero."""
        found = (meaning - self.add) / self.times
        return (float(found ** (1.0 / self.power)) if self.power != 1 else found) - self.shift


SAME = ValueMap()


@frozen
class MapSpec:
    """One map as a spec says it: the operation, its number or the config key of it; a power may be shifted."""

    operation: str
    amount: float | str
    shift: float | str = 0.0

    @property
    def keys(self) -> tuple[str, ...]:
        """The config keys that it reads."""
        return tuple(key for key in (self.amount, self.shift) if isinstance(key, str))

    def bound(self, config: Any) -> ValueMap:
        """The map of one layer. Raises KeyError where its config has no finite number under the key."""
        match self.operation:
            case "add":
                return ValueMap(add=_number(self.amount, config))
            case "times":
                return ValueMap(times=_number(self.amount, config))
            case _:
                return ValueMap(power=int(_number(self.amount, config)), shift=_number(self.shift, config))


def _number(amount: float | str, config: Any) -> float:
    found = config.get(amount) if isinstance(amount, str) else amount
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not isfinite(found):
        raise KeyError(amount)
    return float(found)
