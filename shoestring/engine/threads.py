"""Threads for handlers that are plain functions.

A thread cannot be ended from outside. A call that outlives its hard limit is abandoned: its slot and its place here
are given back, its thread goes on until the function returns and then ends instead of taking more work. Threads are
daemon threads, so that an abandoned one does not keep the process from ending.

Between the loop and a thread stands the lock of their call: whether it runs is decided under it. So a call that is
given up before it began is never begun, and an exception that is raised in a call from outside is not raised in
whatever its thread does next.
"""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import enum
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any


class _State(enum.Enum):
    WAITS = "waits"
    RUNS = "runs"
    OVER = "over"  # its answer is on its way to the loop, or there
    WITHDRAWN = "withdrawn"  # given up before it began
    ABANDONED = "abandoned"  # given up while it ran


class _Call:
    """One call, from the loop to a thread and back."""

    __slots__ = ("begun", "context", "fn", "future", "lock", "loop", "state", "thread_id")

    def __init__(self, fn: Callable[[], Any], *, waits: bool) -> None:
        self.loop = asyncio.get_running_loop()
        self.fn = fn
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.begun: asyncio.Future[None] | None = self.loop.create_future() if waits else None
        self.context = contextvars.copy_context()
        self.lock = threading.Lock()
        self.state = _State.WAITS
        self.thread_id = 0

    # -- in the thread --------------------------------------------------------------------------------------------

    def begin(self) -> bool:
        with self.lock:
            if self.state is _State.WITHDRAWN:
                return False
            self.state, self.thread_id = _State.RUNS, threading.get_ident()
        if self.begun is not None:
            self._tell(_done, self.begun)
        return True

    def run(self) -> tuple[object, BaseException | None]:
        """Call the function; return what it returned and what it raised."""
        try:
            try:
                return self.context.run(self.fn), None
            finally:
                self._leave()
        except BaseException as failure:  # noqa: BLE001 - whatever it was, it belongs to the caller
            return None, failure

    def _leave(self) -> None:
        with self.lock:
            _raise_in(self.thread_id, None)  # what was to be raised in the function is not raised behind it
            if self.state is _State.RUNS:
                self.state = _State.OVER

    def _tell(self, callback: Callable[..., object], *args: object) -> bool:
        try:
            self.loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            return False  # the loop is closed: this call was abandoned at a stop and nobody waits for it
        return True

    def settle(self, pool: Threads, result: object, failure: BaseException | None) -> bool:
        return self._tell(pool.settle, self, result, failure)

    # -- on the loop ----------------------------------------------------------------------------------------------

    def give_up(self) -> _State:
        """Tell the thread that nobody waits any more; return how far the call was."""
        with self.lock:
            was = self.state
            if was is _State.WAITS:
                self.state = _State.WITHDRAWN
            elif was is _State.RUNS:
                self.state = _State.ABANDONED
            return was

    def interrupt(self, error: type[BaseException]) -> None:
        with self.lock:
            if self.state is _State.RUNS:
                _raise_in(self.thread_id, error)


class Threads:
    """A pool of at most `limit` threads, started when first needed. All its counting happens on the loop."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._queue: SimpleQueue[_Call | None] = SimpleQueue()
        self._threads = 0
        self._busy = 0

    def run(self, fn: Callable[[], Any]) -> ThreadCall:
        """Run `fn()` in a thread; await the call's `future` for what it returns or raises."""
        self._busy += 1
        call = _Call(fn, waits=self._busy > self._limit)
        if self._busy > self._threads and self._threads < self._limit:
            self._threads += 1
            threading.Thread(target=self._work, daemon=True, name=f"handler-{self._threads}").start()
        self._queue.put(call)
        return ThreadCall(self, call)

    def _work(self) -> None:
        while (call := self._queue.get()) is not None:
            if not call.begin():
                continue
            result, failure = call.run()
            if not call.settle(self, result, failure) or call.state is _State.ABANDONED:
                return
            del call, result, failure  # until the next call comes, nothing of this one is kept alive

    def settle(self, call: _Call, result: object, failure: BaseException | None) -> None:
        if call.state is _State.ABANDONED:
            return
        self._busy -= 1
        if not call.future.done():
            _deliver(call.future, result, failure)

    def give_up(self, call: _Call) -> bool:
        """Take back a call's place; True if a thread is left behind with it."""
        was = call.give_up()
        if was in (_State.WAITS, _State.RUNS):
            self._busy -= 1
        if was is _State.RUNS:
            self._threads -= 1
        return was is _State.RUNS

    def close(self) -> None:
        """Let idle threads end."""
        for _ in range(self._threads):
            self._queue.put(None)


def _raise_in(thread_id: int, error: type[BaseException] | None) -> None:
    """Have `error` raised in a thread at its next bytecode; None takes back what was not raised yet."""
    what = ctypes.py_object(error) if error is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), what)


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _deliver(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):
        future.set_exception(RuntimeError("the handler raised StopIteration"))  # a future cannot carry it
    else:
        future.set_exception(error)


class ThreadCall:
    """One call in a thread."""

    __slots__ = ("_call", "_threads", "begun", "future")

    def __init__(self, threads: Threads, call: _Call) -> None:
        self._threads = threads
        self._call = call
        self.future = call.future
        #: Done when the function is called; None where a thread is free for it.
        self.begun = call.begun

    def interrupt(self, error: type[BaseException]) -> None:
        """Have `error` raised in the function at its next bytecode; one that waits inside C code notices later."""
        self._call.interrupt(error)

    def abandon(self) -> bool:
        """Give the call up. A thread that runs it ends with the function, and another may be started in its place.

        Returns False if it had not begun: it never will then, and no thread is left behind.
        """
        return self._threads.give_up(self._call)
