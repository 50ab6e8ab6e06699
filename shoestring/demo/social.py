"""The social API as the stub serves it: who follows whom, what a block comes to, who must wait, and the exact count.

Pure: the time arrives as an argument and the luck from a seeded generator, so a test needs no socket and no
clock. What becomes of an account (blocked, gone, suspended) depends on the seed and its id alone: a call that is
repeated after a crash gets the same answer, and the number of each kind is known for every run of the demo.

The order inside a call is the order of a real API, and it is what makes the demo honest:

1. the window of the user is charged; an empty one answers 429 with the seconds until it opens again,
2. a share of the calls ends in a 5xx *before* anything happened: repeating them is harmless,
3. the block is done and counted, and only then
4. a share of the answers is late, after the client has given up: the client must repeat a call that was done.

The fourth kind and `kill -9` are why a queue delivers at least once. Both are counted as repeated calls, apart
from each other, because a call whose last answer was late is remembered.
"""

from __future__ import annotations

import random
from typing import Final

import msgspec

#: The followers of the n-th account have the ids n * ID_SPAN + 1 and up: an id tells its place in the bitmap.
ID_SPAN: Final = 1_000_000_000

UNSEEN, BLOCKED, GONE, SUSPENDED = range(4)

_STATUS_OF: Final = {BLOCKED: 200, GONE: 404, SUSPENDED: 403}
_BODY_OF: Final = {
    BLOCKED: b'{"blocked":true}',
    GONE: b'{"error":"no such account"}',
    SUSPENDED: b'{"error":"account suspended"}',
}


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the API is like. Shares are of 1, times in seconds unless the name says ms."""

    seed: int = 1
    users: list[str] = msgspec.field(default_factory=lambda: ["ada"])
    followers: list[int] = msgspec.field(default_factory=lambda: [10_000])  # of the n-th user's troll
    window_s: float = 900.0
    blocks_per_window: int = 1_900
    pages_per_window: int = 15
    page_size: int = 5_000
    gone: float = 0.02
    suspended: float = 0.01
    errors: float = 0.01
    late: float = 0.002
    late_s: float = 3.0  # a late answer comes after this long; longer than the client waits
    latency_ms_min: float = 5.0
    latency_ms_max: float = 50.0


class Answer(msgspec.Struct, frozen=True):
    """What a call comes to, and after how long the server says so."""

    status: int
    body: bytes
    delay_s: float
    reset_after_s: float | None = None  # of a 429: when the window opens again


class Tally(msgspec.Struct, kw_only=True):
    """One user as the API counts. `blocked`, `gone` and `suspended` are numbers of accounts, the rest of calls."""

    user: str
    account: str  # whose followers the user may read
    followers: int
    blocked: int = 0
    gone: int = 0
    suspended: int = 0
    repeated_late: int = 0  # calls for an account already settled, whose last answer came too late
    repeated: int = 0  # other calls for an account already settled
    stray: int = 0  # calls for an account nobody was asked to block
    block_calls: int = 0
    page_calls: int = 0
    limited_blocks: int = 0
    limited_pages: int = 0
    errors: int = 0
    late: int = 0
    told: int = 0  # messages that the job is done


class Window:
    """A fixed window of so many calls. Windows of different users start at different times, as theirs would."""

    __slots__ = ("_calls", "_index", "_length_s", "_offset_s", "_used")

    def __init__(self, calls: int, length_s: float, offset_s: float) -> None:
        self._calls = calls
        self._length_s = length_s
        self._offset_s = offset_s
        self._index = -1
        self._used = 0

    def take(self, now_s: float) -> float | None:
        """Charge one call; None if granted, otherwise the seconds until the next window."""
        since = now_s - self._offset_s
        index = int(since // self._length_s)
        if index != self._index:
            self._index, self._used = index, 0
        if self._used < self._calls:
            self._used += 1
            return None
        return (index + 1) * self._length_s - since


class _User:
    """One user's place: windows, the fate of each follower, the counts."""

    __slots__ = ("answered_late", "blocks", "first_id", "pages", "settled", "tally")

    def __init__(self, rules: Rules, place: int) -> None:
        count = rules.followers[place]
        offset_s = rules.window_s * place / len(rules.users)
        self.first_id = (place + 1) * ID_SPAN + 1
        self.blocks = Window(rules.blocks_per_window, rules.window_s, offset_s)
        self.pages = Window(rules.pages_per_window, rules.window_s, offset_s)
        self.settled = bytearray(count)
        self.answered_late = bytearray(count)
        self.tally = Tally(user=rules.users[place], account=troll_of(rules.users[place]), followers=count)


class SocialApi:
    """The API's state and its calls. `now_s` is any clock that only goes forward."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._luck = random.Random(rules.seed)
        self._users = {name: _User(rules, place) for place, name in enumerate(rules.users)}

    def block(self, user_name: str, target: int, now_s: float) -> Answer:
        """Block `target` for the user: 200, or 404 gone, 403 suspended, 429, 5xx; 401 for an unknown user."""
        user = self._users.get(user_name)
        if user is None:
            return self._refusal(401, "unknown user")
        if (limited := self._charge(user.blocks, now_s)) is not None:
            user.tally.limited_blocks += 1
            return limited
        user.tally.block_calls += 1
        if (error := self._bad_luck(user)) is not None:
            return error
        place = target - user.first_id
        if not 0 <= place < len(user.settled):
            user.tally.stray += 1
            return self._refusal(404, "nobody was asked to block this account")
        delay_s = self._delay_s()
        late = self._luck.random() < self._rules.late
        self._count(user, place, target)
        user.answered_late[place] = late
        if late:
            user.tally.late += 1
            delay_s = self._rules.late_s
        fate = user.settled[place]
        return Answer(_STATUS_OF[fate], _BODY_OF[fate], delay_s)

    def followers(self, user_name: str, account: str, cursor: str, now_s: float) -> Answer:
        """Return a page of follower ids and the next cursor; the first page has the cursor "" ."""
        user = self._users.get(user_name)
        if user is None:
            return self._refusal(401, "unknown user")
        if account != user.tally.account:
            return self._refusal(400, "this user may not read the followers of that account")
        if cursor and not cursor.isdecimal():
            return self._refusal(400, "no such cursor")
        if (limited := self._charge(user.pages, now_s)) is not None:
            user.tally.limited_pages += 1
            return limited
        user.tally.page_calls += 1
        if (error := self._bad_luck(user)) is not None:
            return error
        start = int(cursor or "0")
        end = min(start + self._rules.page_size, len(user.settled))
        page = {
            "ids": list(range(user.first_id + start, user.first_id + end)),
            "next_cursor": str(end) if end < len(user.settled) else None,
        }
        return Answer(200, msgspec.json.encode(page), self._delay_s())

    def tell(self, user_name: str) -> Answer:
        """Count a message to the user that the job is done."""
        user = self._users.get(user_name)
        if user is None:
            return self._refusal(401, "unknown user")
        user.tally.told += 1
        return Answer(200, b"{}", self._delay_s())

    def stats(self) -> list[Tally]:
        """Return the counts, in the order of `Rules.users`; accounts are counted from the bitmaps themselves."""
        for user in self._users.values():
            user.tally.blocked = user.settled.count(BLOCKED)
            user.tally.gone = user.settled.count(GONE)
            user.tally.suspended = user.settled.count(SUSPENDED)
        return [user.tally for user in self._users.values()]

    def _charge(self, window: Window, now_s: float) -> Answer | None:
        reset_after_s = window.take(now_s)
        if reset_after_s is None:
            return None
        # A refusal costs an API next to nothing, so it comes at the least latency.
        return Answer(429, b'{"error":"rate limit"}', self._rules.latency_ms_min / 1000, reset_after_s)

    def _bad_luck(self, user: _User) -> Answer | None:
        draw = self._luck.random()
        if draw >= self._rules.errors:
            return None
        user.tally.errors += 1
        return Answer(500 if draw < self._rules.errors / 2 else 503, b'{"error":"try again"}', self._delay_s())

    def _count(self, user: _User, place: int, target: int) -> None:
        if user.settled[place] == UNSEEN:
            user.settled[place] = fate_of(target, self._rules)
        elif user.answered_late[place]:
            user.tally.repeated_late += 1
        else:
            user.tally.repeated += 1

    def _delay_s(self) -> float:
        return self._luck.uniform(self._rules.latency_ms_min, self._rules.latency_ms_max) / 1000

    def _refusal(self, status: int, reason: str) -> Answer:
        return Answer(status, msgspec.json.encode({"error": reason}), self._rules.latency_ms_min / 1000)


def troll_of(user: str) -> str:
    """Return the account whose followers `user` wants blocked."""
    return f"troll-of-{user}"


def fate_of(target: int, rules: Rules) -> int:
    """Return BLOCKED, GONE or SUSPENDED: what a block of `target` always comes to under this seed."""
    draw = _mixed(target + rules.seed * 0x9E3779B97F4A7C15) / 2**64
    if draw < rules.gone:
        return GONE
    return SUSPENDED if draw < rules.gone + rules.suspended else BLOCKED


def _mixed(value: int) -> int:
    """Return 64 well mixed bits of `value`: the finaliser of splitmix64 (Steele, Lea, Flood 2014)."""
    mask = 0xFFFFFFFFFFFFFFFF
    value &= mask
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & mask
    value = (value ^ value >> 27) * 0x94D049BB133111EB & mask
    return value ^ value >> 31
