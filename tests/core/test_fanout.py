"""What a chunk has left: each item on its own, and the same after a restart."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.core.fanout import ItemsLeft

NOW_MS = 1_000


@dataclass
class Model:
    """The same, item by item, without a thought for size."""

    size: int
    ended: set[int] = field(default_factory=set)
    attempts: dict[int, int] = field(default_factory=dict)
    due: dict[int, int] = field(default_factory=dict)

    def runnable(self, now_ms: int) -> list[int]:
        return [i for i in range(self.size) if i not in self.ended and self.due.get(i, 0) <= now_ms]

    def next_due_ms(self) -> int | None:
        waiting = [self.due.get(i) for i in range(self.size) if i not in self.ended]
        return min((at for at in waiting if at is not None), default=None) if None not in waiting else None


@st.composite
def chunks(draw: st.DrawFn) -> tuple[ItemsLeft, Model]:
    """A chunk in the middle of its life, and what it ought to say."""
    size = draw(st.integers(1, 70))
    left, model = ItemsLeft(size), Model(size)
    for index in draw(st.lists(st.integers(0, size - 1), max_size=100)):
        if index in model.ended:
            continue
        match draw(st.sampled_from(["end", "retry", "put off"])):
            case "end":
                left.end(index)
                model.ended.add(index)
                model.attempts.pop(index, None)
                model.due.pop(index, None)
            case kind:
                due_at_ms = draw(st.integers(0, 2 * NOW_MS))
                left.retry(index, due_at_ms=due_at_ms, burn=kind == "retry")
                model.due[index] = due_at_ms
                if kind == "retry":
                    model.attempts[index] = model.attempts.get(index, 0) + 1
    return left, model


@given(chunks())
def test_it_agrees_with_a_plain_model(chunk: tuple[ItemsLeft, Model]) -> None:
    """A bit too many is an item that never ran; a bit too few is one that ran twice."""
    left, model = chunk

    assert model.runnable(NOW_MS) == left.runnable(now_ms=NOW_MS)
    assert model.size - len(model.ended) == left.count
    assert model.next_due_ms() == left.next_due_ms()
    assert model.attempts == left.attempts


@given(chunks())
def test_it_is_the_same_after_a_restart(chunk: tuple[ItemsLeft, Model]) -> None:
    """What is stored is all the next generation knows of the items that are done."""
    left, _ = chunk

    for spelled in (left.encode(), left.encode().encode()):
        again = ItemsLeft.decode(left.size, spelled)
        assert [left.ended, left.attempts, left.due] == [again.ended, again.attempts, again.due]


@given(chunks())
def test_what_is_stored_is_json_that_grows_with_what_failed_only(chunk: tuple[ItemsLeft, Model]) -> None:
    """It is written with every commit: 50 done items must not take more room than their bits."""
    left, model = chunk
    spelled = left.encode()

    if spelled:
        msgspec.json.decode(spelled)
    assert len(spelled) <= 20 + model.size // 4 + 30 * len(model.due)


def test_a_chunk_nothing_happened_to_stores_nothing() -> None:
    """A million fresh chunks need no rows for their progress."""
    assert ItemsLeft(5).encode() == ""
    assert ItemsLeft.decode(5, None).count == 5
    assert ItemsLeft.decode(5, "").runnable(now_ms=0) == [0, 1, 2, 3, 4]


def test_a_chunk_whose_items_all_wait_is_due_with_the_first() -> None:
    """It sleeps as one delayed row, and not a moment longer than its first item has to."""
    left = ItemsLeft(3)
    left.end(1)
    left.retry(0, due_at_ms=700)

    assert left.next_due_ms() is None  # item 2 can run at once
    left.retry(2, due_at_ms=500)
    assert [left.next_due_ms(), left.runnable(now_ms=499), left.runnable(now_ms=500)] == [500, [], [2]]


def test_an_item_that_was_put_off_keeps_its_attempts() -> None:
    """Waiting for a rate limit is not failing."""
    left = ItemsLeft(1)
    left.retry(0, due_at_ms=5)
    left.retry(0, due_at_ms=9, burn=False)

    assert [left.attempts, left.due] == [{0: 1}, {0: 9}]


@pytest.mark.parametrize("stored", ['["zz",{},{}]', '["1"]', "[1,{},{}]", "{}", "nonsense"])
def test_what_was_never_written_is_refused(stored: str) -> None:
    """Progress that does not read back must not pass for an empty one: every item would run again."""
    with pytest.raises((msgspec.MsgspecError, ValueError)):
        ItemsLeft.decode(3, stored)
