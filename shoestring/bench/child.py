"""One scenario in a process of its own: `python -m shoestring.bench.child` with the order on stdin.

Stdout carries messages, one JSON object a line: `{"watch": pid}` and, last, `{"run": ...}`.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys

import msgspec
import uvloop

from shoestring.bench.record import Run
from shoestring.bench.scenarios import SCENARIOS
from shoestring.bench.setting import Setting, send

PR_SET_PDEATHSIG = 1


def main() -> int:
    # Whoever ends the bench, and however, ends what it started: a daemon left running would hold the folder.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    setting = msgspec.json.decode(sys.stdin.buffer.read(), type=Setting)
    setting.watch(os.getpid())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        run: Run = runner.run(_run(setting))
    send({"run": msgspec.to_builtins(run)})
    return 0


async def _run(setting: Setting) -> Run:
    return await SCENARIOS[setting.scenario].run(setting)


if __name__ == "__main__":
    sys.exit(main())
