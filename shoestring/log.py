"""Log lines that are data: an event from a closed list, then keys.

`log.warning("task_discarded", task_id=7, error=error)` becomes one JSON object a line where stderr is read by a machine
and one readable line where it is a terminal. Nothing a handler or a caller sent can forge a line or steer a terminal:
control and bidirectional characters are written as escapes.

A program that embeds the package and never calls `configure` sees warnings and errors only.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal, TextIO, get_args

import msgspec

from shoestring.config import LogConfig

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger, WrappedLogger

#: Every event there is, snake_case and in the past tense. mypy refuses others; a test refuses those nobody logs.
Event = Literal[
    "daemon_started",
    "daemon_stopped",
    "daemon_failed",
    "stop_begun",
    "phase_begun",
    "stop_hurried",
    "exception_lost",
    "request_failed",
    "producer_lost",
    "job_left_open",
    "threads_left",
    "clock_stepped",
    "crash_recovered",
    "database_checked",
    "disk_filled",
    "disk_freed",
    "call_abandoned",
    "task_enqueued",
    "task_started",
    "task_completed",
    "task_retried",
    "task_released",
    "task_discarded",
    "task_cancelled",
    "task_expired",
    "item_retried",
    "item_discarded",
    "job_opened",
    "job_finished",
]
EVENTS: Final[frozenset[str]] = frozenset(get_args(Event))

#: A longer text is cut: one line of a log must not cost more than the work it tells of.
TEXT_CHARS_MAX: Final = 8_000

Keys = MutableMapping[str, object]


class Log:
    """The one front to the log; structlog is loaded behind it when the first line is due."""

    __slots__ = ("_bound",)

    def __init__(self) -> None:
        self._bound: FilteringBoundLogger | None = None

    def debug(self, event: Event, **keys: object) -> None:
        if self._bound is not None:
            self._bound.debug(event, **keys)

    def info(self, event: Event, **keys: object) -> None:
        if self._bound is not None:
            self._bound.info(event, **keys)

    def warning(self, event: Event, **keys: object) -> None:
        """Something needs an eye: say what in the keys. An exception under a key becomes its type and text."""
        (self._bound or self._unasked()).warning(event, **keys)

    def error(self, event: Event, **keys: object) -> None:
        """Something failed for good. An exception under a key is written with its traceback."""
        (self._bound or self._unasked()).error(event, **keys)

    def _unasked(self) -> FilteringBoundLogger:
        configure(LogConfig(level="warning"))
        assert self._bound is not None
        return self._bound

    def use(self, bound: FilteringBoundLogger | None) -> None:
        """Write to `bound` from now on; None: as if never configured."""
        self._bound = bound


log: Final = Log()


def configure(config: LogConfig, stream: TextIO | None = None) -> None:
    """Send what `config` asks for to `stream`, stderr if None; may be called again."""
    with _without_rich():
        import structlog
    out = sys.stderr if stream is None else stream
    console = config.format == "console" or (config.format == "auto" and out.isatty())
    bound: FilteringBoundLogger = structlog.wrap_logger(
        _Lines(out),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
            _write_exceptions,
            _as_console if console else _as_json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(config.level),
    )
    log.use(bound)


@contextmanager
def _without_rich() -> Iterator[None]:
    """Hide rich from an import.

    structlog imports rich and Pygments where they are installed, to draw tracebacks we draw ourselves: measured
    89 ms and 8.5 MB of PSS against 24 ms and 2.2 MB, in a daemon that may take 30 MB in all.
    """
    hidden = "rich" not in sys.modules
    if hidden:
        sys.modules["rich"] = None  # type: ignore[assignment] # the documented way to make an import fail
    try:
        yield
    finally:
        if hidden:
            del sys.modules["rich"]


class _Lines:
    """Where lines go. A log that cannot be written is no reason to stop working, so that is counted and left."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost = 0

    def line(self, text: str) -> None:
        try:
            self._stream.write(text + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # a full disk, a reader that left, a closed file
            self.lost += 1

    debug = info = warning = error = line


def _write_exceptions(_logger: WrappedLogger, level: str, keys: Keys) -> Keys:
    """Write exceptions as text, and at level error with their traceback."""
    for key, value in list(keys.items()):
        if isinstance(value, BaseException):
            keys[key] = f"{type(value).__name__}: {value}"
            if level == "error":
                keys["traceback"] = "".join(traceback.format_exception(value)).rstrip()[-TEXT_CHARS_MAX:]
    return keys


def _as_json(_logger: WrappedLogger, _level: str, keys: Keys) -> str:
    line = {name: keys.pop(name) for name in ("at", "level", "event")}
    line.update((name, value[:TEXT_CHARS_MAX] if isinstance(value, str) else value) for name, value in keys.items())
    try:
        text = msgspec.json.encode(line, enc_hook=str).decode()
    except (ValueError, TypeError, OverflowError):  # a lone surrogate, as in a file name that is not UTF-8
        text = msgspec.json.encode({name: escaped(str(value)) for name, value in line.items()}).decode()
    # JSON lets these stand bare, and they can only stand inside strings here, where the escape means the same.
    return _BARE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _as_console(_logger: WrappedLogger, _level: str, keys: Keys) -> str:
    at, level, event = str(keys.pop("at")), str(keys.pop("level")), str(keys.pop("event"))
    trace = keys.pop("traceback", None)
    words = [f"{at[11:19]} {level:<7} {event}", *(f"{name}={_word(value)}" for name, value in keys.items())]
    lines = [" ".join(words), *(f"    {escaped(line)}" for line in str(trace or "").splitlines())]
    return "\n".join(lines)


def _word(value: object) -> str:
    text = str(value)[:TEXT_CHARS_MAX]
    if text and text.isprintable() and not any(mark in text for mark in " =\"'"):
        return text
    return '"' + escaped(text).replace('"', '\\"') + '"'


#: DEL, the C1 controls, line separators and the characters that reorder text.
_BARE_IN_JSON: Final = re.compile("[\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


def escaped(text: str) -> str:
    """Return `text` on one line with every character a terminal might obey written as its escape.

    >>> print(escaped("red \\x1b[31m"))
    red \\x1b[31m
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
