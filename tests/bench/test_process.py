"""What a process used is read by another one, from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from shoestring.bench import process


def test_cpu_time_of_a_thread_that_ended_is_kept() -> None:
    """An engine's disk threads come and go; their work is part of the cost of a task."""
    before = process.cpu_seconds(os.getpid())
    thread = threading.Thread(target=lambda: sum(range(300_000)))
    thread.start()
    thread.join()

    assert process.cpu_seconds(os.getpid()) > before


def test_memory_and_switches_are_read_as_positive_numbers() -> None:
    """A field that is misread as 0 would pass for a very small daemon."""
    me = os.getpid()

    assert process.pss_kib(me) > 0
    assert process.rss_peak_kib(me) >= process.pss_kib(me) // 2
    assert process.usage(me).switches > 0


def test_a_process_that_is_gone_is_said_to_be_gone() -> None:
    """The sampler looks at processes that end when they like."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()

    with pytest.raises(ProcessLookupError):
        process.cpu_seconds(child.pid)


def test_children_are_found_under_their_parent() -> None:
    """A broker or a worker pool is counted with what it starts."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert child.pid in process.descendants(os.getpid())
    finally:
        child.communicate(b"\n")


def test_the_machine_spends_no_less_than_we_do() -> None:
    """What others used is the difference of the two; of the wrong sign, a busy machine would look idle."""
    assert process.machine_cpu_seconds() > process.own_cpu_seconds() > 0
