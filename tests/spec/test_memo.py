"""Values kept by identity and by key: none is taken for another that only looks equal, and none grow for ever."""

from __future__ import annotations

import gc
import weakref

import pytest

from layoutx.spec.memo import Memo, key_of, uncollected


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, True), (1, 1.0), (0.0, -0.0), ("1", 1), ([1, 2], (1, 2)), (None, ...), ({"a": 1}, {"a": True}), ([], {})],
)
def test_values_that_python_calls_equal_have_keys_of_their_own(one: object, other: object) -> None:
    assert key_of(one) != key_of(other)
    assert key_of("a", one) == key_of("a", one) is not None


def test_a_key_does_not_depend_on_who_else_holds_a_value() -> None:
    name = "".join(["ker", "nel"])
    assert key_of([name, name]) == key_of(["kernel", "".join(["kern", "el"])])


def test_what_is_no_plain_value_is_never_kept() -> None:
    class Odd:
        pass

    assert key_of({"a": Odd()}) is None
    memo: Memo[object] = Memo()
    assert memo.get((Odd,), None, object) is not memo.get((Odd,), None, object)


def test_a_value_is_made_once_for_each_owner_and_key() -> None:
    memo: Memo[object] = Memo()
    owners = [["same"], ["same"]]  # equal, and two objects
    made = [memo.get((owner,), key, object) for owner in owners for key in (b"a", b"b")]
    assert len(set(map(id, made))) == 4
    assert made == [memo.get((owner,), key, object) for owner in owners for key in (b"a", b"b")]


def test_no_other_object_takes_the_place_of_an_owner_that_nobody_else_holds() -> None:
    memo: Memo[int] = Memo()
    for number in range(100):
        assert memo.get(([number],), b"", lambda n=number: n) == number  # type: ignore[misc]


def test_at_most_so_many_are_kept() -> None:
    memo: Memo[int] = Memo(3)
    for number in range(10):
        memo.get((), key_of(number), lambda: 1)
    assert len(memo._found) <= 3


def test_garbage_is_looked_for_again_whatever_happens() -> None:
    assert gc.isenabled()
    with uncollected():
        with uncollected():
            assert not gc.isenabled()
        assert not gc.isenabled()
    with pytest.raises(ValueError, match="no"), uncollected():
        raise ValueError("no")
    assert gc.isenabled()


def test_what_was_made_is_not_looked_through_at_once() -> None:
    collected: list[int] = []

    def noted(phase: str, info: dict[str, int]) -> None:
        collected.append(info["generation"])

    gc.callbacks.append(noted)
    try:
        with uncollected():
            kept = [[] for _ in range(50_000)]  # type: ignore[var-annotated]
        more = [[] for _ in range(10)]  # type: ignore[var-annotated]
    finally:
        gc.callbacks.remove(noted)
    assert collected == []
    assert len(kept) + len(more) == 50_010
    gone = weakref.ref(_in_a_circle())
    with uncollected():
        pass
    gc.collect()
    assert gone() is None


class _Circle:
    me: object = None


def _in_a_circle() -> _Circle:
    made = _Circle()
    made.me = made
    return made


def test_what_somebody_froze_stays_frozen() -> None:
    gc.freeze()
    try:
        before = gc.get_freeze_count()
        with uncollected():
            assert before
        assert gc.get_freeze_count() == before
    finally:
        gc.unfreeze()
