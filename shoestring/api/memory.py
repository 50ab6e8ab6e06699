"""What the server remembers of each client, so that a frame sent twice is done once.

A client that loses its connection does not know which of its unanswered requests arrived. It connects again, says
`hello` with the same name, and sends those frames again, byte for byte, under the same ids. Here is kept which of
them are being done (their answers go to the client's newest connection) and what the last ones were answered.

The bounds: a client leaves at most `WINDOW` changes unanswered, so no more than that many answers can be lost with
a connection. Clients are forgotten, longest unused first, when there are more than `CLIENTS_MAX` or when the answers
kept take more than `ANSWER_BYTES_MAX`. All of it lives in memory: across a restart of the daemon a frame sent again
is done again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

WINDOW: Final = 64
CLIENTS_MAX: Final = 1_024
ANSWER_BYTES_MAX: Final = 8 * 1024 * 1024

Id = int | str
#: Whose process it is, as the kernel says, and what it calls itself.
ClientKey = tuple[int, str]


class ClientMemory:
    """What is known of one client's recent changes."""

    __slots__ = ("_answers", "_memories", "_pending", "bytes_kept", "key", "send")

    def __init__(self, key: ClientKey, memories: Memories) -> None:
        self.key = key
        self.bytes_kept = 0
        #: Writes to the client's newest connection; None while it has none.
        self.send: Callable[[bytes], None] | None = None
        self._memories = memories
        self._pending: set[Id] = set()
        self._answers: OrderedDict[Id, bytes] = OrderedDict()

    def begin(self, request_id: Id) -> bool:
        """Note that `request_id` is being done; False if it already is or was, and needs no second doing.

        Then its answer has been sent again, or will go to the newest connection once it is there.
        """
        if request_id in self._pending:
            return False
        if (answer := self._answers.get(request_id)) is not None:
            if self.send is not None:
                self.send(answer)
            return False
        self._pending.add(request_id)
        return True

    def settle(self, request_id: Id, answer: bytes, *, keep: bool) -> None:
        """Send the answer to where the client is now, and keep it unless asking again may bring another."""
        self._pending.discard(request_id)
        if keep:
            self._answers[request_id] = answer
            kept = len(answer)
            if len(self._answers) > WINDOW:
                kept -= len(self._answers.popitem(last=False)[1])
            self._memories.grow(self, kept)
        if self.send is not None:
            self.send(answer)

    def forget(self) -> None:
        self._answers.clear()
        self.bytes_kept = 0


class Memories:
    """The clients' memories, the longest unused first."""

    def __init__(self) -> None:
        self._clients: OrderedDict[ClientKey, ClientMemory] = OrderedDict()
        self.bytes_kept = 0

    def __len__(self) -> int:
        return len(self._clients)

    def of(self, uid: int, client: str) -> ClientMemory:
        """Return the memory of the client that calls itself `client`; a new one if it is not known."""
        key = (uid, client)
        memory = self._clients.get(key) or ClientMemory(key, self)
        self.grow(memory, 0)
        return memory

    def grow(self, memory: ClientMemory, count: int) -> None:
        """Count `count` more bytes for `memory`, as the one used last; forget others as the bounds ask."""
        self._clients[memory.key] = memory
        self._clients.move_to_end(memory.key)
        memory.bytes_kept += count
        self.bytes_kept += count
        while len(self._clients) > CLIENTS_MAX or (self.bytes_kept > ANSWER_BYTES_MAX and len(self._clients) > 1):
            _, unused = self._clients.popitem(last=False)
            self.bytes_kept -= unused.bytes_kept
            unused.forget()
