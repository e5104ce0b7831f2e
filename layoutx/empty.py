"""The empty mapping, frozen and hashable, as a default of frozen dataclasses."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping
from typing import Any

_NONE: dict[Any, Any] = {}


class _Empty(Mapping[Any, Any]):
    def keys(self) -> KeysView[Any]:  # the Mapping's own keys, items and get take ten times as long
        return _NONE.keys()

    def items(self) -> ItemsView[Any, Any]:
        return _NONE.items()

    def get(self, key: Any, default: Any = None) -> Any:
        return default

    def __contains__(self, key: object) -> bool:
        return False

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
