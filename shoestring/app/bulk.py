"""Many calls at once: a frame and a commit for as many as fit, the next slice made while the last is on its way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from shoestring.app.gateway import Gateway
from shoestring.app.handler import Call, Receipt
from shoestring.client import SLICE_BYTES, SLICE_ENTRIES, Stored
from shoestring.core.errors import ArgumentError, PartlyStored, QueueFull, ShoestringError

if TYPE_CHECKING:
    from shoestring.app.application import Shoestring

SLICES_IN_FLIGHT: Final = 4
#: A slice that is refused because too many tasks wait for their commit is sent again this often, if it is to be
#: again within this time: a hundred producers of thousands share one disk for as long as that takes.
BUSY_TRIES: Final = 100
BUSY_S_MAX: Final = 1.0


async def enqueue_many(app: Shoestring, calls: Iterable[Call] | AsyncIterable[Call]) -> list[Receipt]:
    """Store every call; see `Shoestring.enqueue_many`."""
    bulk = Bulk(app.gateway())
    try:
        if isinstance(calls, AsyncIterable):
            async for call in calls:
                if bulk.add(call):
                    await bulk.send()
        else:
            for call in calls:
                if bulk.add(call):
                    await bulk.send()
    except Exception as error:  # noqa: BLE001 - whatever the caller's iterable raises is handed back
        await bulk.fail(error)
    return await bulk.finish()


def enqueue_many_sync(app: Shoestring, calls: Iterable[Call]) -> list[Receipt]:
    """Do as `enqueue_many`; the calls are made in the calling thread, where a database cursor may belong."""
    bulk = app.run_sync(_begun(app))
    try:
        for call in calls:
            if bulk.add(call):
                app.run_sync(bulk.send())
    except Exception as error:  # noqa: BLE001 - whatever the caller's iterable raises is handed back
        app.run_sync(bulk.fail(error))
    return app.run_sync(bulk.finish())


async def _begun(app: Shoestring) -> Bulk:
    return Bulk(app.gateway())


class Bulk:
    """Calls on their way, in slices, and what became of them."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._calls: list[Call] = []
        self._bytes = 0
        self._on_their_way: deque[tuple[list[Call], asyncio.Future[list[Stored | ShoestringError]]]] = deque()
        self._results: list[Receipt | ShoestringError] = []

    def add(self, call: Call) -> bool:
        """Take one call; True if it is time to `send`."""
        if not isinstance(call, Call):
            raise ArgumentError(f"{call!r} is no call; give handler.call(...), with the arguments it is to run with")
        self._calls.append(call)
        self._bytes += len(call.body)
        return len(self._calls) >= SLICE_ENTRIES or self._bytes >= SLICE_BYTES

    async def send(self) -> None:
        """Send what was taken; wait for an earlier slice if too many are on their way."""
        if not self._calls:
            return
        while len(self._on_their_way) >= SLICES_IN_FLIGHT:
            await self._collect()
        calls, self._calls, self._bytes = self._calls, [], 0
        self._on_their_way.append((calls, asyncio.ensure_future(self._gateway.submit_slice(calls))))

    async def finish(self) -> list[Receipt]:
        """Send the rest; return every receipt, or raise what kept calls from being stored."""
        await self.send()
        while self._on_their_way:
            await self._collect()
        receipts = [result for result in self._results if isinstance(result, Receipt)]
        if len(receipts) == len(self._results):
            return receipts
        raise self._partly(receipts, next(result for result in self._results if isinstance(result, ShoestringError)))

    async def fail(self, error: Exception) -> None:
        """Raise `error`, which came while calls were made; as PartlyStored if slices before it were sent."""
        self._calls.clear()
        while self._on_their_way:
            await self._collect()
        receipts = [result for result in self._results if isinstance(result, Receipt)]
        raise self._partly(receipts, error) from (error if receipts else None)

    def _partly(self, receipts: Sequence[Receipt], error: Exception) -> Exception:
        if not receipts:
            return error  # nothing was stored: as with a single call
        return PartlyStored(
            f"{len(receipts):,} calls are stored and will run, the others are not: {type(error).__name__}: {error}. "
            "`results` tells which; enqueue the others again",
            results=self._results,
        )

    async def _collect(self) -> None:
        calls, answer = self._on_their_way.popleft()
        try:
            results = await self._accepted(calls, answer)
        except ShoestringError as error:
            self._results += [error] * len(calls)
            return
        self._results += [_receipt(result) for result in results]

    async def _accepted(
        self, calls: list[Call], answer: Awaitable[list[Stored | ShoestringError]]
    ) -> list[Stored | ShoestringError]:
        """Return what became of a slice; send it again while too many others wait for their commit.

        That passes in tens of milliseconds, and nothing of the slice was stored: whoever enqueues thousands wants to
        go at the pace the disk allows, not to count.
        """
        for _ in range(BUSY_TRIES):
            try:
                return await answer
            except QueueFull as full:
                if full.retry_after > BUSY_S_MAX:
                    raise
                await asyncio.sleep(full.retry_after)
                answer = self._gateway.submit_slice(calls)
        return await answer


def _receipt(result: Stored | ShoestringError) -> Receipt | ShoestringError:
    if isinstance(result, int):
        return Receipt(result)
    return result if isinstance(result, ShoestringError) else Receipt(result.task_id, True)
