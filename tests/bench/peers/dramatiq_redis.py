"""dramatiq on Redis: its defaults on two cores, 2 processes of 8 threads."""

from __future__ import annotations

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from tests.bench.peers import tally
from tests.bench.peers.peer import nothing, produce, where

broker = RedisBroker(url=where())  # type: ignore[no-untyped-call, unused-ignore]
dramatiq.set_broker(broker)


def noop(n: int) -> None:
    tally.count()


actor = dramatiq.actor(queue_name="bench")(noop)


async def one(_: None, number: int) -> None:
    for n in range(number):
        actor.send(n)  # the only interface it has is synchronous


if __name__ == "__main__":
    produce(nothing, one)
