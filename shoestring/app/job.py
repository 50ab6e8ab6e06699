"""A fan-out, as its producer holds it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from shoestring.core.errors import Refused
from shoestring.core.model import JobId, Progress

if TYPE_CHECKING:
    from shoestring.app.application import Shoestring

#: How long the daemon is asked to wait at a time.
WAIT_S: Final = 50.0
#: The same for who watches: a daemon that has restarted counts versions anew, and this one's is above them all.
WATCH_S: Final = 5.0
#: No version is ever above it: only the end of the job answers a wait for it.
_NEVER: Final = 2**53


class Job:
    """A job by its id. Any process that reaches the daemon can hold one: `app.job(job_id)`."""

    __slots__ = ("_app", "id")

    def __init__(self, app: Shoestring, job_id: JobId) -> None:
        self._app = app
        self.id = job_id

    def __repr__(self) -> str:
        return f"<job {self.id}>"

    async def progress(self) -> Progress:
        """Return how far the job is, in items. Raises NotFound if there is no such job (any more)."""
        return await self._app.gateway().progress(self.id)

    async def wait(self, timeout: float | timedelta | None = None) -> Progress:  # noqa: ASYNC109 - says which job
        """Wait until every item came to an end, and return the final counts.

        Raises TimeoutError after `timeout` (seconds if a number); the job goes on.
        """
        limit_s = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        try:
            async with asyncio.timeout(limit_s):
                while not (progress := await self._changed(_NEVER)).finished:
                    pass
        except TimeoutError:
            raise TimeoutError(f"job {self.id} was not finished within {limit_s:g} s; it goes on") from None
        return progress

    async def watch(self) -> AsyncIterator[Progress]:
        """Yield the job's progress now, after changes (ten times a second at most), and at its end."""
        progress = await self.progress()
        yield progress
        while not progress.finished:
            version = progress.version
            progress = await self._changed(version, WATCH_S)
            if progress.version != version or progress.finished:
                yield progress

    async def cancel(self) -> Progress:
        """Cancel what has not run yet, and ask what is running to stop; return the counts as they are then.

        Items that are done stay done; the job's `then` task is not enqueued.
        """
        return await self._app.gateway().cancel_job(self.id)

    def progress_sync(self) -> Progress:
        """Do as `progress`, for programs without an event loop."""
        return self._app.run_sync(self.progress())

    def wait_sync(self, timeout: float | timedelta | None = None) -> Progress:
        """Do as `wait`, for programs without an event loop."""
        return self._app.run_sync(self.wait(timeout))

    def cancel_sync(self) -> Progress:
        """Do as `cancel`, for programs without an event loop."""
        return self._app.run_sync(self.cancel())

    async def _changed(self, version: int, wait_s: float = WAIT_S) -> Progress:
        """Wait for a version above `version` or the end of the job, for at most `wait_s`."""
        try:
            return await self._app.gateway().wait_job(self.id, version=version, timeout_s=wait_s)
        except Refused as refused:
            # This process waits for more jobs than one connection may; look now and then instead.
            await asyncio.sleep(refused.retry_after)
            return await self.progress()
