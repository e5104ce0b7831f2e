"""The empty mapping, frozen and hashable, as a default of frozen dataclasses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


class _Empty(Mapping[Any, Any]):
    def __getitem__(self, key: Any) -> Any:
        raise KeyError(key)

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "{}"


NOTHING: Mapping[Any, Any] = _Empty()
