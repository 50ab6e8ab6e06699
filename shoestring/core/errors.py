"""Every error a caller can meet, in one tree.

    ShoestringError
    ├── UsageError                 the caller's mistake: change the call, nothing was stored
    │   ├── ArgumentError          an argument does not fit the handler's annotations
    │   ├── PayloadTooLarge        the arguments are over the size limit
    │   ├── UnknownHandler         no handler of that name is declared here
    │   └── ConfigError            the configuration cannot be used
    ├── NotFound                   no task, job or queue of that name
    ├── Conflict                   the state forbids it (a finished job, an owned file)
    │   └── AlreadyOwned           another daemon owns the database file
    ├── Refused                    valid, but not now: `retry_after` says when to come back
    │   ├── LimitExceeded          the user's token bucket is empty
    │   └── QueueFull              the queue or lane is at its bound
    ├── StorageError               the disk or the file said no
    │   ├── DiskFull               below the reserve: nothing new is accepted
    │   ├── DatabaseDamaged        the file does not read back as it was written
    │   └── DatabaseNewer          a later version wrote the file
    ├── ProtocolError              the two ends of a connection disagree
    │   ├── LocalProtocolError     this end broke the protocol: a bug in the caller
    │   ├── RemoteProtocolError    the other end sent what is not a message
    │   └── UnknownVerb            a message this end has no verb for: one of the two is older
    ├── SourceFailed               the items of a fan-out could not all be read
    ├── PartlyStored               of many calls some were stored and some were not
    └── Unavailable                the daemon cannot be reached

A message says what happened, whether data is safe and what to do next. `code` is the JSON-RPC error code the
error travels under, `exit_code` what the command line ends with; `data()` is what lets the other end build
the same error again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class ShoestringError(Exception):
    """Anything this package raises on purpose, other than signals."""

    code: ClassVar[int] = -32000
    exit_code: ClassVar[int] = 1

    def data(self) -> dict[str, object]:
        """Return the fields besides the message, JSON-ready, for the wire."""
        return {}


class UsageError(ShoestringError):
    code = -32602
    exit_code = 2


class ArgumentError(UsageError):
    """An argument does not fit; the message carries its path, as in `$.to`.

    Among the items of a fan-out, `index` is the place of the one that does not fit.
    """

    code = -32010

    def __init__(self, message: str, *, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index

    def data(self) -> dict[str, object]:
        return {} if self.index is None else {"index": self.index}


class PayloadTooLarge(UsageError):
    code = -32011


class UnknownHandler(UsageError):
    code = -32012


class ConfigError(UsageError):
    code = -32013
    exit_code = 78


class NotFound(ShoestringError):
    code = -32020
    exit_code = 5


class Conflict(ShoestringError):
    code = -32021


class AlreadyOwned(Conflict):
    code = -32022
    exit_code = 4


class Refused(ShoestringError):
    """Not now. `retry_after` is in seconds."""

    code = -32030

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    def data(self) -> dict[str, object]:
        return {"retry_after": self.retry_after}


class LimitExceeded(Refused):
    """The bucket holds `tokens` of `capacity`; enough will be there after `retry_after` seconds."""

    code = -32031

    def __init__(self, message: str, *, retry_after: float, tokens: float, capacity: float) -> None:
        super().__init__(message, retry_after=retry_after)
        self.tokens = tokens
        self.capacity = capacity

    def data(self) -> dict[str, object]:
        return {"retry_after": self.retry_after, "tokens": self.tokens, "capacity": self.capacity}


class QueueFull(Refused):
    """The queue or lane holds `depth` items and takes at most `limit`."""

    code = -32032

    def __init__(self, message: str, *, retry_after: float, depth: int, limit: int) -> None:
        super().__init__(message, retry_after=retry_after)
        self.depth = depth
        self.limit = limit

    def data(self) -> dict[str, object]:
        return {"retry_after": self.retry_after, "depth": self.depth, "limit": self.limit}


class StorageError(ShoestringError):
    code = -32040
    exit_code = 74


class DiskFull(StorageError):
    code = -32041


class DatabaseDamaged(StorageError):
    code = -32042


class DatabaseNewer(StorageError):
    code = -32043
    exit_code = 78


class ProtocolError(ShoestringError):
    code = -32600


class LocalProtocolError(ProtocolError):
    code = -32600


class RemoteProtocolError(ProtocolError):
    code = -32700


class UnknownVerb(ProtocolError):
    code = -32601


class SourceFailed(ShoestringError):
    """A fan-out stopped in the middle: `stored` items of job `job_id` are kept and will run."""

    code = -32050

    def __init__(self, message: str, *, job_id: int, stored: int) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.stored = stored

    def data(self) -> dict[str, object]:
        return {"job_id": self.job_id, "stored": self.stored}


class PartlyStored(ShoestringError):
    """Of many calls enqueued at once some were stored. `results` has, in their order, a receipt or an error each."""

    code = -32051

    def __init__(self, message: str, *, results: Sequence[object] = ()) -> None:
        super().__init__(message)
        self.results = results


class Unavailable(ShoestringError):
    code = -32060
    exit_code = 3


def _tree(root: type[ShoestringError]) -> dict[int, type[ShoestringError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        # A base keeps its code if a subclass shares it: -32600 means ProtocolError's local kind.
        found = {**found, **_tree(child)}
    return found


BY_CODE: dict[int, type[ShoestringError]] = _tree(ShoestringError)


def rebuild(code: int, message: str, data: dict[str, object]) -> ShoestringError:
    """Build again the error that travelled as `code`; an unknown code becomes a plain ShoestringError."""
    kind = BY_CODE.get(code, ShoestringError)
    try:
        return kind(message, **data)
    except TypeError:
        return ShoestringError(message)
