"""Rounds of scenarios, interleaved, each scenario in a child process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from shoestring.bench import BenchOptions, process
from shoestring.bench.device import Device, open_device
from shoestring.bench.outcome import Outcome
from shoestring.bench.record import Run
from shoestring.bench.scenarios import SCENARIOS
from shoestring.bench.setting import Scenario, Setting
from shoestring.bench.table import as_json, as_text
from shoestring.core.errors import ShoestringError, UsageError

#: How often the memory of the watched process is read: a reading stops it for about a millisecond.
SAMPLE_S = 0.2
#: A scenario takes seconds; one that hangs must not hold up the others for ever.
SCENARIO_S_MAX = 600.0


class NotMeasured(ShoestringError):  # noqa: N818 - says what happened, as the errors of the core do
    """The child process of a scenario ended without a record, or did not end."""


def run(options: BenchOptions) -> int:
    """Run the chosen scenarios and print what they came to; 1 if one failed."""
    outcomes = [Outcome(scenario) for scenario in choose(options.only)]
    rounds = 1 if options.quick else max(1, options.repeat)
    with open_device(options.folder) as device, _ended_politely():
        for number in range(1, rounds + 1):
            for place, outcome in enumerate(outcomes, 1):
                scenario = outcome.scenario
                _say(f"round {number}/{rounds}, {place}/{len(outcomes)}: {scenario.title}")
                tasks = scenario.size(scale=options.scale, quick=options.quick)
                try:
                    outcome.runs.append(measure(scenario, device, tasks=tasks, window_s=10 if options.quick else 30))
                except NotMeasured as error:
                    outcome.failures.append(str(error))
                    # An empty place, so that the n-th run of a scenario and of its limit are of the same round.
                    outcome.runs.append(None)
        where = device.describe()
    _say("")
    sys.stdout.write((as_json if options.json else as_text)(outcomes, where=where) + "\n")
    failed = [outcome for outcome in outcomes if outcome.failures]
    for outcome in failed:
        sys.stderr.write(f"{outcome.scenario.name} was not measured: {outcome.failures[0]}\n")
    return 1 if failed else 0


def choose(only: Iterable[str]) -> list[Scenario]:
    """Return the scenarios whose names begin with one of `only`, and the limits they are compared with."""
    wanted = tuple(only)
    for name in wanted:
        if not any(known.startswith(name) for known in SCENARIOS):
            raise UsageError(
                f"no scenario is called {name!r}; nothing was measured. There are: {', '.join(SCENARIOS)}."
            )
    chosen = {name for name in SCENARIOS if not wanted or name.startswith(wanted)}
    chosen |= {limit for name in chosen if (limit := SCENARIOS[name].limit) is not None}
    return [scenario for name, scenario in SCENARIOS.items() if name in chosen]


def measure(scenario: Scenario, device: Device, *, tasks: int, window_s: float, settle_s: float = 3.0) -> Run:
    """Run one scenario in a child process and return its record; NotMeasured says why there is none."""
    with tempfile.TemporaryFile() as complaints, _folder_on(device, scenario.name) as folder:
        order = Setting(
            scenario=scenario.name,
            folder=str(folder),
            device_folder=str(device.folder),
            device_number=device.number,
            dedicated=device.dedicated,
            tasks=tasks,
            window_s=window_s,
            settle_s=settle_s,
        )
        began, machine, own = time.monotonic(), process.machine_cpu_seconds(), process.own_cpu_seconds()
        # A process group of its own, so that what the child starts is ended with it.
        child = subprocess.Popen(
            [sys.executable, "-m", "shoestring.bench.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            process_group=0,
            env=environment(),
        )
        try:
            assert child.stdin is not None
            child.stdin.write(msgspec.json.encode(order))
            child.stdin.close()
            run, pss_peak_kib = _listen(child)
        finally:
            _end(child)
        if run is None:
            complaints.seek(0)
            said = complaints.read().decode(errors="replace").strip()[-1_500:]
            raise NotMeasured(f"its process ended with {child.returncode}; it said: {said or 'nothing'}")
        others = process.machine_cpu_seconds() - machine - (process.own_cpu_seconds() - own)
        others_cores = max(0.0, others / (time.monotonic() - began))
    return msgspec.structs.replace(run, pss_peak_kib=pss_peak_kib, others_cores=others_cores)


def environment() -> dict[str, str]:
    """Return the environment of a child: this very package, installed or not, and no settings of the caller's."""
    found = {name: value for name, value in os.environ.items() if not name.startswith("SHOESTRING_")}
    here = str(Path(__file__).parents[2])
    found["PYTHONPATH"] = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    return found


def _listen(child: subprocess.Popen[bytes]) -> tuple[Run | None, int]:
    """Read the child's messages until it closes its stdout, sampling the memory of the process it names."""
    assert child.stdout is not None
    deadline = time.monotonic() + SCENARIO_S_MAX
    watched, pss_peak_kib, run, buffer = 0, 0, None, b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            if time.monotonic() > deadline:
                raise NotMeasured(f"it took longer than {SCENARIO_S_MAX:g} s and was ended")
            if selector.select(timeout=SAMPLE_S):
                data = os.read(child.stdout.fileno(), 65_536)
                if not data:
                    return run, pss_peak_kib
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    message = json.loads(line)
                    if "watch" in message:
                        watched, pss_peak_kib = message["watch"], 0
                    else:
                        run = msgspec.convert(message["run"], Run)
            else:
                with contextlib.suppress(OSError, ValueError):  # it ended meanwhile
                    pss_peak_kib = max(pss_peak_kib, process.pss_kib(watched))


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the child and everything in its group: politely, and after three seconds not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if child.poll() is not None:
            break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=3)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)  # what outlived it
    assert child.stdout is not None
    child.stdout.close()


@contextlib.contextmanager
def _folder_on(device: Device, name: str) -> Iterator[Path]:
    """Make an empty folder on the device, and empty the device again: a run starts as the first one did."""
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=device.folder))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        device.settle()


@contextlib.contextmanager
def _ended_politely() -> Iterator[None]:
    """Turn SIGTERM into an ordinary end, so that the child is ended and the device given back."""
    try:
        before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    except ValueError:  # not the main thread: whoever started us as a thread handles signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(what: str) -> None:
    """Say on stderr what is being done, on one line where that is a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{what}")
    elif what:
        sys.stderr.write(what + "\n")
    sys.stderr.flush()
