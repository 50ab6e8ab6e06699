"""shoestring: a durable task queue in one process and one SQLite file.

    from shoestring import Shoestring

    app = Shoestring()

    @app.task
    async def send_mail(to: str, template: str) -> None: ...

    await send_mail.enqueue("a@b.example", "welcome")

Names are loaded when they are first used, so that importing the package, and starting the command line, costs next
to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from shoestring.app import BatchHandler, Call, Handler, Job, Pages, Receipt, Shoestring, Source
    from shoestring.config import Config
    from shoestring.core.errors import (
        AlreadyOwned,
        ArgumentError,
        ConfigError,
        Conflict,
        DatabaseDamaged,
        DatabaseNewer,
        DiskFull,
        LimitExceeded,
        LocalProtocolError,
        NotFound,
        PartlyStored,
        PayloadTooLarge,
        ProtocolError,
        QueueFull,
        Refused,
        RemoteProtocolError,
        ShoestringError,
        SourceFailed,
        StorageError,
        Unavailable,
        UnknownHandler,
        UnknownVerb,
        UsageError,
    )
    from shoestring.core.model import (
        Charge,
        Delivery,
        Durability,
        JobState,
        Limit,
        Page,
        Progress,
        QueueConfig,
        TaskState,
        TaskView,
        Timeout,
    )
    from shoestring.core.retry import RetryPolicy
    from shoestring.core.signals import Discard, ItemsFailed, RateLimited, RetryLater, Signal, Snooze, SoftTimeout

__version__: Final = "0.1.0"

__all__ = [
    "AlreadyOwned",
    "ArgumentError",
    "BatchHandler",
    "Call",
    "Charge",
    "Config",
    "ConfigError",
    "Conflict",
    "DatabaseDamaged",
    "DatabaseNewer",
    "Delivery",
    "Discard",
    "DiskFull",
    "Durability",
    "Handler",
    "ItemsFailed",
    "Job",
    "JobState",
    "Limit",
    "LimitExceeded",
    "LocalProtocolError",
    "NotFound",
    "Page",
    "Pages",
    "PartlyStored",
    "PayloadTooLarge",
    "Progress",
    "ProtocolError",
    "QueueConfig",
    "QueueFull",
    "RateLimited",
    "Receipt",
    "Refused",
    "RemoteProtocolError",
    "RetryLater",
    "RetryPolicy",
    "Shoestring",
    "ShoestringError",
    "Signal",
    "Snooze",
    "SoftTimeout",
    "Source",
    "SourceFailed",
    "StorageError",
    "TaskState",
    "TaskView",
    "Timeout",
    "Unavailable",
    "UnknownHandler",
    "UnknownVerb",
    "UsageError",
]

#: Where each public name is kept.
_HOMES: Final = {
    "shoestring.app": "BatchHandler Call Handler Job Pages Receipt Shoestring Source",
    "shoestring.config": "Config",
    "shoestring.core.errors": (
        "AlreadyOwned ArgumentError ConfigError Conflict DatabaseDamaged DatabaseNewer DiskFull LimitExceeded "
        "LocalProtocolError NotFound PartlyStored PayloadTooLarge ProtocolError QueueFull Refused "
        "RemoteProtocolError ShoestringError SourceFailed StorageError Unavailable UnknownHandler UnknownVerb "
        "UsageError"
    ),
    "shoestring.core.model": (
        "Charge Delivery Durability JobState Limit Page Progress QueueConfig TaskState TaskView Timeout"
    ),
    "shoestring.core.retry": "RetryPolicy",
    "shoestring.core.signals": "Discard ItemsFailed RateLimited RetryLater Signal Snooze SoftTimeout",
}
_HOME_OF: Final = {name: module for module, names in _HOMES.items() for name in names.split()}


if not TYPE_CHECKING:  # a type checker would take `__getattr__` for a promise that every name exists

    def __getattr__(name: str) -> object:
        module = _HOME_OF.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(module), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
