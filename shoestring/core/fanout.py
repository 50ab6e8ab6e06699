"""What a chunk still has to do, item by item.

A chunk is one stored row that carries many items. Each item is tried, retried and given up on its own; the row goes
only when every item came to an end. What happened so far is small and is stored apart from the items: a bit per
finished item, and for the few items that failed and will be tried again their attempts and the instant they are due.
"""

from __future__ import annotations

import msgspec


class _Stored(msgspec.Struct, array_like=True):
    ended: str  # hexadecimal: bit i is set when item i came to its end
    attempts: dict[int, int]
    due: dict[int, int]


class ItemsLeft:
    """The items of one chunk that have not come to their end.

    >>> left = ItemsLeft(3)
    >>> left.end(0); left.retry(1, due_at_ms=500)
    >>> left.runnable(now_ms=100), left.next_due_ms(), left.count
    ([2], None, 2)
    >>> left.end(2); left.next_due_ms()
    500
    """

    __slots__ = ("attempts", "due", "ended", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.ended = 0
        self.attempts: dict[int, int] = {}
        self.due: dict[int, int] = {}

    @property
    def count(self) -> int:
        return self.size - self.ended.bit_count()

    def runnable(self, *, now_ms: int) -> list[int]:
        """Return the positions of the items that may run now, in order."""
        ended, due = self.ended, self.due
        return [i for i in range(self.size) if not ended >> i & 1 and due.get(i, 0) <= now_ms]

    def next_due_ms(self) -> int | None:
        """Return when the first of the waiting items is due; None if an item can run at once or none is left."""
        if self.count == 0 or len(self.due) < self.count:
            return None
        return min(self.due.values())

    def end(self, index: int) -> None:
        """Note that an item is done or given up."""
        self.ended |= 1 << index
        self.attempts.pop(index, None)
        self.due.pop(index, None)

    def retry(self, index: int, *, due_at_ms: int, burn: bool = True) -> None:
        """Note that an item failed (`burn`) or was put off, and when it is due again."""
        if burn:
            self.attempts[index] = self.attempts.get(index, 0) + 1
        self.due[index] = due_at_ms

    def encode(self) -> str:
        """Return what `decode` needs besides the size; empty while nothing happened."""
        if not self.ended and not self.attempts and not self.due:
            return ""
        return msgspec.json.encode(_Stored(f"{self.ended:x}", self.attempts, self.due)).decode()

    @classmethod
    def decode(cls, size: int, stored: str | bytes | None) -> ItemsLeft:
        left = cls(size)
        if stored:
            found = _DECODER.decode(stored)
            left.ended, left.attempts, left.due = int(found.ended, 16), found.attempts, found.due
        return left


_DECODER = msgspec.json.Decoder(_Stored)
