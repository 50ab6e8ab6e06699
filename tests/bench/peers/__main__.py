"""Compare with other queues on this box: `python -m tests.bench.peers [NAME ...] [--repeat N] [--scale X]`.

Same work for all: a no-op task, enqueued one awaited after the other by one producer, in bulk where there is a way,
and drained by one worker that starts when all are enqueued. What cannot run here is left out and said to be.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence

from shoestring.bench.device import Counters, Device, open_device
from shoestring.bench.outcome import Spread
from shoestring.bench.table import draw, machine, span
from tests.bench.peers.catalog import PEERS
from tests.bench.peers.harness import Round, missing, play
from tests.bench.peers.peer import Peer

HEADS = (
    "peer", "tasks", "one by one /s", "producer us", "writes/1000", "bulk /s", "drain /s", "CPU us", "PSS MB",
    "writes/1000", "flushes/1000", "repeated", "settings",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers", description="Compare with other queues.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(peer.name for peer in PEERS)}")
    parser.add_argument("--repeat", type=int, default=3, help="rounds, interleaved (default 3)")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the number of tasks")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - {peer.name for peer in PEERS}:
        parser.error(f"no peer is called {', '.join(sorted(unknown))}")
    chosen = [peer for peer in PEERS if not options.names or peer.name in options.names]
    absent = {peer.name: reason for peer in chosen if (reason := missing(peer)) is not None}
    present = [peer for peer in chosen if peer.name not in absent]
    with open_device(None) as device:
        # Servers that run under a user of their own must get to their folder.
        device.folder.parent.chmod(0o711)
        rounds = _rounds(present, device, repeat=options.repeat, scale=options.scale)
        where = device.describe()
    print(f"{machine()}\ndisk: {where}\nmedian (least-greatest) of {options.repeat} rounds\n")
    print(draw(HEADS, [_row(peer, rounds[peer.name]) for peer in present if rounds[peer.name]]))
    for name, reason in absent.items():
        print(f"left out: {name}: {reason}")
    return 0 if all(rounds.values()) else 1


def _rounds(peers: Sequence[Peer], device: Device, *, repeat: int, scale: float) -> dict[str, list[Round]]:
    found: dict[str, list[Round]] = {peer.name: [] for peer in peers}
    for number in range(1, repeat + 1):
        for peer in peers:
            sys.stderr.write(f"round {number}/{repeat}: {peer.name}\n")
            try:
                found[peer.name].append(play(peer, device, tasks=max(200, int(peer.tasks * scale))))
            except (RuntimeError, subprocess.CalledProcessError) as error:
                sys.stderr.write(f"{peer.name} was not measured: {error}\n")  # the others still are
    return found


def _row(peer: Peer, rounds: Sequence[Round]) -> list[str]:
    def over(figure: Callable[[Round], float | None], *, wide: bool = False) -> str:
        return span(Spread.of(figure(each) for each in rounds), wide=wide)

    return [
        peer.name,
        f"{rounds[0].tasks:,}",
        over(lambda each: each.one.per_second, wide=True),
        over(lambda each: each.one.producer_cpu_us),
        over(lambda each: _per_1000(each.one.disk, each.tasks)),
        over(lambda each: each.bulk.per_second if each.bulk else None, wide=True),
        over(lambda each: each.drained.per_second, wide=True),
        over(lambda each: each.drained.cpu_us),
        over(lambda each: each.drained.pss_peak_mb),
        over(lambda each: _per_1000(each.drained.disk, each.tasks)),
        over(lambda each: each.drained.disk.flushes / each.tasks * 1000 if each.drained.disk else None),
        over(lambda each: each.drained.runs - each.tasks),
        peer.settings,
    ]


def _per_1000(disk: Counters | None, tasks: int) -> float | None:
    return disk.data_writes / tasks * 1000 if disk else None


if __name__ == "__main__":
    sys.exit(main())
