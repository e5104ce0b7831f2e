"""`@frozen` beside `@dataclass(frozen=True, slots=True)`: the same class body, made by both, behaves alike."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict, astuple, dataclass, field, fields, replace
from functools import partial
from itertools import product
from typing import Any, ClassVar, Generic, TypeVar

import pytest

from layoutx.frozen import frozen

T = TypeVar("T")
WAYS = (frozen, dataclass(frozen=True, slots=True))


def both(make: Callable[[Any], type]) -> tuple[type, type]:
    """The class that each of the two makes."""
    ours, theirs = map(make, WAYS)
    return ours, theirs


def many(way: Any) -> type:
    @way
    class Many:
        """Of every kind of field."""

        first: int
        second: Any
        third: str = "c"
        items: list[int] = field(default_factory=list)
        hidden: int = field(default=0, repr=False)
        beside: Any = field(default=None, compare=False)
        sized: int = field(init=False)
        fixed: int = field(default=7, init=False)
        fresh: list[int] = field(default_factory=list, init=False)
        unhashed: Any = field(default=1, hash=False)
        named: int = field(default=3, kw_only=True)
        shared: ClassVar[int] = 5

        def __post_init__(self) -> None:
            object.__setattr__(self, "sized", self.first * 2)

        @property
        def doubled(self) -> int:
            return self.first * 2

    return Many


def small(way: Any) -> type:
    @way
    class Small:
        one: Any

    return Small


def nothing(way: Any) -> type:
    @way
    class Nothing:
        """No field."""

    return Nothing


def pair(way: Any) -> type:
    @way
    class Base:
        """Below another."""

        one: int
        two: int = 2

        def total(self) -> int:
            return self.one + self.two

    @way
    class Pair(Base, Generic[T]):
        """With a base."""

        two: int = 5
        three: int = 3

    return Pair


def own(way: Any) -> type:
    @way
    class Own:
        """Methods of its own."""

        one: int

        def __eq__(self, other: object) -> bool:
            return isinstance(other, type(self))

        def __repr__(self) -> str:
            return f"<{self.one}>"

        def __hash__(self) -> int:
            return 4

    return Own


@frozen
class Sent:
    """Where pickle finds it."""

    name: str
    shape: tuple[int, ...] = ()
    made: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "made", len(self.shape))


CALLS: list[tuple[Callable[[Any], type], tuple[Any, ...], dict[str, Any]]] = [
    (many, (1, 2), {}),
    (many, (1, (2, 3), "x", [4], 5, 6, 8), {"named": 9}),
    (many, (), {"first": 1, "second": [2]}),
    (many, (1, 2), {"hidden": 1}),
    (many, (1, 2), {"beside": 1}),
    (many, (1, 2), {"unhashed": [2]}),
    (many, (1,), {}),
    (many, (1, 2, 3, 4, 5, 6, 7, 8), {}),
    (many, (1, 2), {"sized": 3}),
    (many, (1, 2), {"unknown": 3}),
    (small, (float("nan"),), {}),
    (small, ([1],), {}),
    (small, ((1, 2),), {}),
    (nothing, (), {}),
    (pair, (1,), {}),
    (pair, (1, 4, 9), {}),
    (own, (3,), {}),
]


def outcome(do: Callable[[], Any]) -> Any:
    """What comes of it, an error as its class and text."""
    try:
        return do()
    except Exception as error:
        return type(error), str(error)


@pytest.mark.parametrize("number", range(len(CALLS)))
def test_instances_are_alike(number: int) -> None:
    make, args, kwargs = CALLS[number]
    seen = []
    both_made = both(make)
    for made in both_made:
        value = outcome(partial(made, *args, **kwargs))
        if not isinstance(value, made):
            seen.append([value])
            continue
        seen.append([repr(value), outcome(partial(hash, value)), repr(asdict(value)), repr(astuple(value))])
        assert not hasattr(value, "__dict__") or make is pair  # Generic has one
        for twin in (made(*args, **kwargs), copy.copy(value), copy.deepcopy(value), replace(value)):
            assert repr(twin) == repr(value)
            seen[-1].append(twin == value)
        others = ("unknown",) if made is both_made[0] else ()  # dataclasses fails with slots and a TypeError of super
        for name in (*(each.name for each in fields(made)), *others):
            for change in (partial(setattr, value, name, 1), partial(delattr, value, name)):
                with pytest.raises(FrozenInstanceError, match=f"'{name}'"):
                    change()
    assert seen[0] == seen[1]


def test_equality_and_hash_are_alike() -> None:
    values = [[outcome(partial(made, *args, **kwargs)) for made in both(make)] for make, args, kwargs in CALLS]
    values = [[ours, theirs] for ours, theirs in values if not isinstance(ours, tuple)]
    for (ours, theirs), (other, another) in product(values, values):
        if type(ours).__qualname__ == type(other).__qualname__:
            made, stock = type(ours), type(theirs)
            one = outcome(lambda a=ours, b=other, m=made: a == rebuilt(m, b))
            two = outcome(lambda a=theirs, b=another, m=stock: a == rebuilt(m, b))
            assert one == two


def rebuilt(made: type, value: Any) -> Any:
    """The same value as an instance of another making of its class."""
    return made(**{each.name: getattr(value, each.name) for each in fields(value) if each.init})


def test_another_class_is_never_equal() -> None:
    ours, theirs = both(small)
    assert ours(1) != theirs(1)
    assert ours(1) != (1,)
    assert ours(1).__eq__(1) is NotImplemented


@pytest.mark.parametrize("make", [many, small, nothing, pair, own])
def test_classes_are_alike(make: Callable[[Any], type]) -> None:
    ours, theirs = both(make)
    assert str(inspect.signature(ours)) == str(inspect.signature(theirs))
    assert ours.__match_args__ == theirs.__match_args__  # type: ignore[attr-defined]
    assert ours.__slots__ == theirs.__slots__  # type: ignore[attr-defined]
    assert [(each.name, each.type) for each in fields(ours)] == [(each.name, each.type) for each in fields(theirs)]  # type: ignore[arg-type]
    assert ours.__qualname__ == theirs.__qualname__
    assert ours.__module__ == theirs.__module__


def test_an_instance_that_holds_itself_is_shown() -> None:
    shown = []
    for made in both(small):
        held: list[Any] = []
        value = made(held)
        held.append(value)
        shown.append(repr(value))
    assert shown[0] == shown[1]


def test_patterns_take_it_apart() -> None:
    match Sent("kernel", (3, 5)):
        case Sent(name, (rows, columns)):
            assert (name, rows, columns) == ("kernel", 3, 5)
        case _:
            pytest.fail("no pattern fits")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_come_back(protocol: int) -> None:
    sent = Sent("kernel", (3, 5))
    back = pickle.loads(pickle.dumps(sent, protocol))
    assert back == sent
    assert back.made == 2
    with pytest.raises(FrozenInstanceError):
        back.name = "bias"


def test_default_factories_are_called_for_each_instance() -> None:
    made, _ = both(many)
    assert made(1, 2).items is not made(1, 2).items
    given: list[int] = []
    assert made(1, 2, items=given).items is given


def test_a_field_without_default_after_one_with_default_is_an_error() -> None:
    class Wrong:
        one: int = 1
        two: int

    for way in WAYS:
        with pytest.raises((TypeError, SyntaxError), match="default"):
            way(Wrong)
