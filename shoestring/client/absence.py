"""What a producer is told when its daemon cannot be reached: what happened, whether data is safe, what to do next."""

from __future__ import annotations

from pathlib import Path

from shoestring.core.errors import PayloadTooLarge, ShoestringError, Unavailable


def away(path: Path, error: Exception, *, was_reached: bool) -> Unavailable:
    """Return what to raise when `error` has ended the attempts to connect to `path`."""
    if isinstance(error, PermissionError):
        remedy = "This user may not connect to it: ask for membership in the socket's group."
        return Unavailable(f"no permission to connect to the shoestring daemon at {path}. {remedy}")
    if isinstance(error, ShoestringError):
        return Unavailable(f"the shoestring daemon at {path} takes no connection: {error}")
    told = "What was sent and not answered may have been stored." if was_reached else "Nothing was sent."
    remedy = "Start it with `shoestring run`, or set `socket` in shoestring.toml to where it listens."
    return Unavailable(f"no shoestring daemon answers at {path.absolute()} ({_why(error)}). {told} {remedy}")


def closed(path: Path) -> Unavailable:
    return Unavailable(f"this client of {path} is closed; what was sent and not answered may have been stored")


def hung_up(path: Path, times: int) -> Unavailable:
    return Unavailable(
        f"the shoestring daemon at {path} closed the connection {times} times in a row without an answer. What was "
        "sent may have been stored. Its log says why it ended; what was sent last may be the reason"
    )


def too_large(frame: bytes, most: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"a message of {len(frame):,} bytes is more than the daemon reads in one frame ({most:,}, its "
        "limits.frame_bytes_max). It was not sent. Store large data elsewhere and pass its key"
    )


def _why(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such socket"
    if isinstance(error, ConnectionRefusedError):
        return "the socket is there, but nobody listens"
    if isinstance(error, BlockingIOError):
        return "its backlog is full"
    if isinstance(error, TimeoutError):
        return "it took the connection and said nothing"
    return str(error) or type(error).__name__
