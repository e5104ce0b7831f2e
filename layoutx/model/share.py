"""What one layer has of the outputs of a fused one: the queries of a qkv."""

from __future__ import annotations

import numpy as np

from layoutx.files.dtypes import Array
from layoutx.frozen import frozen


@frozen
class Share:
    """The outputs of a fused layer that belong to one: the same run in each of `groups` equal groups of them."""

    name: str
    groups: int
    start: int
    stop: int

    def of(self, size: int) -> Array:
        """Which they are of `size` outputs, in order."""
        found: Array = np.arange(size).reshape(self.groups, -1)[:, self.start : self.stop].reshape(-1)
        return found

    def at(self, path: str) -> str:
        """What the layer is called that has them: beside the fused one, where they are known to be its queries."""
        return f"{path}.{self.name}" if self.name.isdigit() else path[: path.rfind(".") + 1] + self.name
