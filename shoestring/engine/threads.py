"""Threads for handlers that are plain functions.

A thread cannot be ended from outside. A call that outlives its hard limit is abandoned: its slot and its place here
are given back, its thread goes on until the function returns and then ends instead of taking more work. Threads are
daemon threads, so that an abandoned one does not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from shoestring.core.signals import SoftTimeout


class _Call:
    __slots__ = ("abandoned", "context", "fn", "future", "loop", "thread_id")

    def __init__(self, fn: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        self.fn = fn
        self.future = future
        self.loop = future.get_loop()
        self.context = contextvars.copy_context()
        self.thread_id: int | None = None
        self.abandoned = False

    def is_abandoned(self) -> bool:
        """Ask again each time: the loop may say so at any moment."""
        return self.abandoned


class Threads:
    """A pool of at most `limit` threads, started when first needed. All its counting happens on the loop."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._queue: SimpleQueue[_Call | None] = SimpleQueue()
        self._threads = 0
        self._busy = 0

    def run(self, fn: Callable[[], Any]) -> ThreadCall:
        """Run `fn()` in a thread; await the call's `future` for what it returns or raises."""
        call = _Call(fn, asyncio.get_running_loop().create_future())
        self._busy += 1
        if self._busy > self._threads and self._threads < self._limit:
            self._threads += 1
            threading.Thread(target=self._work, daemon=True, name=f"handler-{self._threads}").start()
        self._queue.put(call)
        return ThreadCall(self, call)

    def _work(self) -> None:
        while (call := self._queue.get()) is not None and not call.is_abandoned():
            result, failure = _run(call)
            try:
                call.loop.call_soon_threadsafe(self._settle, call, result, failure)
            except RuntimeError:
                return  # the loop is closed: this call was abandoned at a stop and nobody waits for it
            if call.is_abandoned():
                return

    def _settle(self, call: _Call, result: object, failure: BaseException | None) -> None:
        if call.abandoned:
            return
        self._busy -= 1
        if not call.future.done():
            _deliver(call.future, result, failure)

    def give_up(self, call: _Call) -> None:
        if not call.abandoned:
            call.abandoned = True
            self._busy -= 1
            self._threads -= 1

    def close(self) -> None:
        """Let idle threads end."""
        for _ in range(self._threads):
            self._queue.put(None)


def _run(call: _Call) -> tuple[object, BaseException | None]:
    """Return what the function returned or raised."""
    result: object = None
    failure: BaseException | None = None
    try:
        call.thread_id = threading.get_ident()
        try:
            result = call.context.run(call.fn)
        except BaseException as error:  # noqa: BLE001 - whatever it was, it belongs to the caller
            failure = error
        call.thread_id = None
        for _ in range(2):
            pass  # an interrupt sent until just now is raised at a turn of a loop at the latest: in here
    except SoftTimeout:
        call.thread_id = None  # it came when the function had ended: its result stands
    return result, failure


def _deliver(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):
        future.set_exception(RuntimeError("the handler raised StopIteration"))  # a future cannot carry it
    else:
        future.set_exception(error)


class ThreadCall:
    """One call in a thread."""

    __slots__ = ("_call", "_threads", "future")

    def __init__(self, threads: Threads, call: _Call) -> None:
        self._threads = threads
        self._call = call
        self.future = call.future

    def interrupt(self, error: type[BaseException]) -> None:
        """Have `error` raised in the function at its next bytecode; one that waits inside C code notices later."""
        if (thread_id := self._call.thread_id) is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), ctypes.py_object(error))

    def abandon(self) -> None:
        """Give the thread up: it ends with the function, and another may be started in its place."""
        self._threads.give_up(self._call)
