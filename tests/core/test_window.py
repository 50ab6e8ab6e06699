"""The window against a plain model of the disk: whatever is interleaved, no key is lost and none comes twice."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shoestring.core.window import Window

KEYS = st.integers(0, 40)
LIMIT = 4


class WindowBesideADisk(RuleBasedStateMachine):
    """A window as the dispatcher uses it: one thread does the disk's work in order, the loop hears of it in order.

    What is asked of the thread is in `asked`; what it did and the loop has not heard of yet is in `done`. `owned` is
    what is in memory or taken out, `taken` what runs.
    """

    @initialize(capacity=st.integers(1, 6), stored=st.sets(KEYS, max_size=12))
    def start(self, capacity: int, stored: set[int]) -> None:
        self.window: Window[int, int] = Window(capacity)
        self.disk = set(stored)
        self.known = set(stored)  # keys in use: on disk or on their way to it
        self.owned: set[int] = set()
        self.taken: list[int] = []
        self.asked: deque[Callable[[], Callable[[], None]]] = deque()
        self.done: deque[Callable[[], None]] = deque()

    # -- the thread and the loop ----------------------------------------------------------------------------------

    @precondition(lambda self: self.asked)
    @rule()
    def thread_works(self) -> None:
        self.done.append(self.asked.popleft()())

    @precondition(lambda self: self.done)
    @rule()
    def loop_hears(self) -> None:
        self.done.popleft()()

    def store(self, key: int, heard: Callable[[], None]) -> None:
        def work() -> Callable[[], None]:
            self.disk.add(key)
            return heard

        self.known.add(key)
        self.asked.append(work)

    def offer(self, key: int) -> bool:
        if not self.window.accepts(key):
            return False
        self.owned.add(key)
        self.window.push(key, key)
        return True

    # -- what happens to tasks ------------------------------------------------------------------------------------

    @rule(key=KEYS)
    def a_new_key_is_stored(self, key: int) -> None:
        if key not in self.known:
            self.store(key, lambda: None if key in self.owned else self.offer_again(key))

    def offer_again(self, key: int) -> None:
        self.offer(key)
        self.trim()

    @rule(key=KEYS)
    def a_key_may_run_before_it_is_stored(self, key: int) -> None:
        """As what is volatile, or just came due."""
        if key not in self.known:
            self.offer(key)
            self.store(key, lambda: None if key in self.owned else self.offer_again(key))

    @rule(key=KEYS)
    def a_chunk_is_stored(self, key: int) -> None:
        """Its items are read with it, so it is not held but read again."""

        def heard() -> None:
            if self.window.accepts(key):
                self.window.rewind(key - 1)

        if key not in self.known:
            self.store(key, heard)

    @precondition(lambda self: len(self.window) > 0)
    @rule()
    def the_first_is_taken(self) -> None:
        first = min(key for key, _ in self.window.heap)
        assert first == self.window.pop()
        self.taken.append(first)

    @precondition(lambda self: self.taken)
    @rule()
    def it_ends(self) -> None:
        self.ends(self.taken.pop())

    def ends(self, key: int) -> None:
        def work() -> Callable[[], None]:
            self.disk.discard(key)
            return heard

        def heard() -> None:
            self.owned.discard(key)
            self.known.discard(key)

        self.asked.append(work)

    @precondition(lambda self: self.taken)
    @rule()
    def it_is_put_back(self) -> None:
        key = self.taken.pop()
        self.window.hold(key, key)

    @precondition(lambda self: len(self.window) > 0)
    @rule(data=st.data())
    def some_are_cancelled(self, data: st.DataObject) -> None:
        held = [key for key, _ in self.window.heap]
        wanted = data.draw(st.sets(st.sampled_from(held), min_size=1))
        self.window.remove(wanted)
        for key in wanted:
            self.ends(key)

    @rule()
    def trim(self) -> None:
        self.owned.difference_update(self.window.trim())

    @precondition(lambda self: self.window.wants_load(self.window.capacity))
    @rule(limit=st.integers(1, LIMIT))
    def a_load_begins(self, limit: int) -> None:
        after = self.window.begin_load()

        def work() -> Callable[[], None]:
            found = sorted(key for key in self.disk if after is None or key > after)[:limit]
            return lambda: heard(found)

        def heard(found: list[int]) -> None:
            new = [key for key in found if key not in self.owned]
            self.owned.update(new)
            last = found[-1] if found else None
            self.window.end_load([(key, key) for key in new], last=last, more=len(found) == limit)

        self.asked.append(work)

    # -- what must hold -------------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_held_twice(self) -> None:
        held = [key for key, _ in self.window.heap]
        assert len(held) == len(set(held))
        assert not set(held) & set(self.taken)
        assert set(held) <= self.owned

    @invariant()
    def what_is_not_held_is_found_by_a_later_load(self) -> None:
        if self.window.loading or self.asked or self.done:
            return  # the present load may bring it
        for key in self.disk - self.owned:
            assert not self.window.complete, f"{key} is forgotten: nothing will be read any more"
            assert self.window.cursor is None or key > self.window.cursor, (
                f"{key} is forgotten: it is behind the cursor"
            )

    def teardown(self) -> None:
        """In the end everything that is stored can be had, once."""
        while self.asked or self.done or self.window.wants_load(self.window.capacity):
            if self.asked:
                self.thread_works()
            elif self.done:
                self.loop_hears()
            else:
                self.a_load_begins(LIMIT)
            while len(self.window):
                self.taken.append(self.window.pop())
        assert sorted(self.taken) == sorted(self.disk)


TestWindowBesideADisk = WindowBesideADisk.TestCase
TestWindowBesideADisk.settings = settings(max_examples=200, stateful_step_count=40)


def loaded(capacity: int, *keys: int) -> Window[int, int]:
    window: Window[int, int] = Window(capacity)
    window.begin_load()
    window.end_load([(key, key) for key in keys], last=keys[-1] if keys else None, more=False)
    return window


def test_a_window_that_knows_everything_takes_what_comes() -> None:
    """A short queue is served from memory: what was just stored is not read back."""
    window = loaded(3)

    assert [window.accepts(5), window.cursor] == [True, None]


def test_what_comes_beyond_a_full_window_is_left_to_the_disk_and_found_again() -> None:
    """Memory is bounded, and what it does not hold is not forgotten."""
    window = loaded(2, 1, 2)

    refused = window.accepts(3)
    window.pop()
    window.pop()

    assert [refused, window.complete, window.wants_load(0), window.begin_load()] == [False, False, True, 2]


def test_what_comes_before_the_cursor_of_a_full_window_is_held_all_the_same() -> None:
    """No later load would look there: a task of a higher priority would wait for the next restart."""
    window = loaded(2, 10, 20)

    assert window.accepts(5)


def test_a_key_that_comes_during_a_load_keeps_the_window_incomplete() -> None:
    """Whether that load brings it nobody knows; forgetting to look again is a lost task."""
    window: Window[int, int] = Window(4)
    window.begin_load()

    assert not window.accepts(7)
    window.end_load([], last=None, more=False)

    assert window.wants_load(0)


@pytest.mark.parametrize("found", [[], [11, 12]])
def test_a_rewind_during_a_load_outlives_the_load(found: list[int]) -> None:
    """A chunk of a higher priority that was stored meanwhile is behind what the load reads: the next has to go back."""
    window = loaded(2, 10)
    window.accepts(11)
    window.accepts(12)
    window.push(11, 11)
    assert not window.accepts(13)  # from here on the disk has more than the window
    window.pop()
    window.pop()
    window.begin_load()

    assert window.accepts(5)
    window.rewind(4)
    window.end_load([(key, key) for key in found], last=found[-1] if found else None, more=False)

    assert [window.complete, window.begin_load()] == [False, 4]


def test_a_trimmed_window_gives_back_its_last_and_reads_them_again() -> None:
    """A burst of high priorities must not pile up in memory."""
    window = loaded(2, 10, 20)
    for key in (1, 2, 3):
        assert window.accepts(key)
        window.push(key, key)

    assert [window.trim(), window.cursor, window.complete] == [[3, 10, 20], 2, False]
    assert [window.pop(), window.pop()] == [1, 2]


def test_removing_leaves_the_order_of_the_others() -> None:
    """Cancelling one task must not shuffle those around it."""
    window = loaded(9, 1, 2, 3, 4, 5)

    window.remove({1, 3, 99})

    assert [window.pop() for _ in range(3)] == [2, 4, 5]
