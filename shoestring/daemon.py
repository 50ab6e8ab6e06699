"""The composition root: one process that owns a database, runs its tasks and answers on two sockets.

Start: the log, the app, the lock, the loop, the service (which opens the database and recovers), the sockets, READY.
Nothing is opened before the lock is held, and nobody is answered before the recovery is done.

Stop, on SIGTERM or SIGINT: quiet (nothing new starts), drain (what runs may end within the grace), release (the rest
goes back and burns no attempt), flush, close. Producers are answered until the flush. The second signal cuts the drain
short. What is unexpected ends the process at once, without any of this: the database is made to be recovered, and a
half-dead process that looks alive is worse than a restart.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Final, TypeVar

import uvloop

from shoestring import listening
from shoestring.api.server import Server
from shoestring.app import Shoestring
from shoestring.config import Config
from shoestring.core.errors import ShoestringError, StorageError
from shoestring.loading import load_app
from shoestring.lock import Holder, OwnerLock
from shoestring.log import configure, log
from shoestring.notify import Notifier
from shoestring.service import Service

#: sqlite3 gives the interpreter lock up around every step, and gets it back from a busy loop only after this long: an
#: executemany of 1,000 rows took 8.3 s at Python's 5 ms, measured beside a loop that never waits.
SWITCH_INTERVAL_S: Final = 0.000_5

#: How long flushing and closing may take after the drain, or after the second signal. A disk that is full, or gone,
#: would keep the process for ever.
CLOSE_S: Final = 10.0

#: How long what handlers left behind, coroutines and threads, may take to notice that the process ends.
LEAVE_S: Final = 1.0

#: The exit code of an end nobody planned that is no error of ours by name: a bug.
UNEXPECTED: Final = 1

T = TypeVar("T")


def run(config: Config, burst: bool = False) -> int:
    """Run the daemon until it is told to stop and return the exit code; with `burst`, until nothing is left to do.

    What keeps it from starting is raised: ConfigError, AlreadyOwned (exit code 4), StorageError (74). What ends it
    later is logged, and only its exit code returned.
    """
    configure(config.log)
    app = load_app(config)
    started_at_ms = time.time_ns() // 1_000_000
    holder = Holder(pid=os.getpid(), started_at_ms=started_at_ms, socket=str(config.socket.absolute()))
    lock = OwnerLock.acquire(config.database, holder)
    try:
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        code = _run_loop(_Life(config, app, lock, burst).run())
    except KeyboardInterrupt as error:
        # Ctrl-C is a signal the loop handles, so a handler raised this itself, and it goes through everything. The
        # threads of the database are still there: Python's own end would wait for them with the lock released.
        log.error("daemon_failed", error=error, advice="a handler raised KeyboardInterrupt; what is stored is safe")
        code = UNEXPECTED
    finally:
        lock.release()
    _leave_threads_behind(code)
    return code


class _Life:
    """One life of the daemon, inside its loop."""

    def __init__(self, config: Config, app: Shoestring, lock: OwnerLock, burst: bool) -> None:
        self._config = config
        self._lock = lock
        self._app = app
        self._burst = burst
        self._notifier = Notifier(os.environ)
        self._service = Service(config=config, registry=app.registry)
        self._servers: list[Server] = []
        self._told_to_stop = asyncio.Event()
        self._patience_ended = asyncio.Event()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_log_lost_exception)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, signal.Signals(number).name)
        try:
            await self._start()
        except BaseException:
            await self._service.stop(0)
            raise
        failed = asyncio.ensure_future(self._service.wait_failed())
        try:
            with self._app.attached(self._service.engine):
                why = await self._first(failed, self._wait_for_end())
                await self._first(failed, self._stop(why))
        except ShoestringError as error:
            log.error("daemon_failed", error=error)
            return await self._abandon(error.exit_code)
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends the process, and is told
            log.error("daemon_failed", error=error, advice="a bug; what was answered as stored is safe, start again")
            return await self._abandon(UNEXPECTED)
        return 0

    async def _abandon(self, code: int) -> int:
        """Let go of what is open as a crash would: nothing is drained, and the next start finds out what ran."""
        self._notifier.stopping("failed, see the log")
        closing = asyncio.ensure_future(self._service.close(clean=False))
        await asyncio.wait((closing,), timeout=LEAVE_S)
        if closing.done() and (error := closing.exception()) is not None:
            log.warning("exception_lost", error=error, message="while closing after the failure")
        return code

    async def _first(self, failed: asyncio.Future[None], work: Coroutine[None, None, T]) -> T:
        """Return what `work` comes to; raise at once what killed a permanent coroutine meanwhile."""
        working = asyncio.ensure_future(work)
        await asyncio.wait((working, failed), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            working.cancel()
            failed.result()
        return await working

    async def _start(self) -> None:
        begun = time.monotonic()
        config = self._config
        passed = listening.inherited(config, os.environ, os.getpid())
        await self._service.start()
        status = self._service.engine.status()
        self._lock.describe(generation=status.generation)
        for path, admin in ((config.socket, False), (config.admin_socket, True)):
            await self._listen(path, admin, passed.get(path))
        # What is alive now stays: the collector need not look at it again, and forked children share its pages.
        gc.collect()
        gc.freeze()
        log.info(
            "daemon_started",
            generation=status.generation,
            pid=status.pid,
            database=config.database,
            socket=config.socket,
            pending=status.pending,
            duration_ms=round((time.monotonic() - begun) * 1_000),
        )
        self._notifier.ready(f"generation {status.generation}, listening on {config.socket}")

    async def _listen(self, path: Path, admin: bool, passed: socket.socket | None) -> None:
        server = Server(engine=self._service.engine, config=self._config, admin=admin)
        if passed is None:
            listening.refuse_if_answered(path)
        await server.start(path if passed is None else passed)
        self._servers.append(server)

    async def _wait_for_end(self) -> str:
        """Return why to stop."""
        told = asyncio.ensure_future(self._told_to_stop.wait())
        if not self._burst:
            await told
            return "told to stop"
        idle = asyncio.ensure_future(self._service.wait_idle())
        done, pending = await asyncio.wait((told, idle), return_when=asyncio.FIRST_COMPLETED)
        for waiting in pending:
            waiting.cancel()
        return "told to stop" if told in done else "nothing left to do"

    async def _stop(self, why: str) -> None:
        begun = time.monotonic()
        grace_s = self._config.run.grace_s

        def say(phase: str) -> None:
            log.info("phase_begun", phase=phase, after_ms=round((time.monotonic() - begun) * 1_000))
            self._notifier.status(f"stopping: {phase}")

        log.info("stop_begun", reason=why, grace_s=grace_s)
        self._notifier.stopping(f"draining, up to {grace_s:g} s")
        asyncio.get_running_loop().call_later(grace_s + CLOSE_S, self._patience_ended.set)
        giving_up = asyncio.ensure_future(self._give_up())
        released = await self._first(giving_up, self._service.stop(grace_s, say))
        giving_up.cancel()
        for server in self._servers:
            await server.close()
        log.info("daemon_stopped", released=released, duration_ms=round((time.monotonic() - begun) * 1_000))

    async def _give_up(self) -> None:
        await self._patience_ended.wait()
        raise StorageError(
            f"Closing took longer than {CLOSE_S:g} s, so it was given up: the disk does not take what is left to write."
            " What was answered as stored is safe; what ended since the last commit runs again. Free some space on the"
            " disk, or look at its health (dmesg), and start again."
        )

    def _on_signal(self, name: str) -> None:
        if not self._told_to_stop.is_set():
            self._told_to_stop.set()
            return
        log.warning("stop_hurried", signal=name)
        self._service.hurry()
        asyncio.get_running_loop().call_later(CLOSE_S, self._patience_ended.set)


def _run_loop(work: Coroutine[None, None, int]) -> int:
    """Run `work` and close the loop, whatever else is still in it.

    Not asyncio.run: it waits without limit for asyncio tasks that swallow their cancellation and for threads that do
    not end, and a handler may leave either behind.
    """
    loop = uvloop.new_event_loop()
    stuck: list[str] = []
    try:
        code = loop.run_until_complete(work)
        stuck = loop.run_until_complete(_cancel_rest())
        if stuck:
            # A coroutine that swallows whatever is thrown at it would swallow its destruction, too, and spin for ever.
            _end_now(code, stuck)
        return code
    finally:
        if not stuck:
            loop.run_until_complete(_cancel_rest())
            loop.close()


async def _cancel_rest() -> list[str]:
    """Cancel what is left in the loop; return the names of what does not end."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for one in rest:
        one.cancel()
    if rest:
        _, rest = await asyncio.wait(rest, timeout=LEAVE_S)
    return [one.get_name() for one in rest]


def _log_lost_exception(_loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """Log what a callback or a forgotten asyncio.Task raised: a handler's own doing, no reason to end."""
    log.error("exception_lost", error=context.get("exception"), message=context.get("message"))


def _leave_threads_behind(code: int) -> None:
    """End the process now if a thread of a handler does not end: Python itself would wait for it for ever."""
    deadline = time.monotonic() + LEAVE_S
    left = [one for one in threading.enumerate() if one is not threading.main_thread() and not one.daemon]
    for one in left:
        one.join(max(0.0, deadline - time.monotonic()))
    stuck = [one.name for one in left if one.is_alive()]
    if stuck:
        _end_now(code, stuck)


def _end_now(code: int, stuck: list[str]) -> None:
    """End the process without Python's own end, which would wait for what a handler left behind."""
    log.warning("threads_left", threads=stuck)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
