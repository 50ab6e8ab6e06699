"""What can be set, its true defaults, and where each value of a running daemon came from.

The structs are the whole list: `configfile` walks them to check a file, `config.example.toml` shows them to people
and a test holds the two together. A unit ends the key's name, so that a bare number in a file can be read aloud.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from shoestring.core.errors import ConfigError
from shoestring.core.model import QueueConfig

#: Where a value came from: "default", the file's path, the environment variable's or the option's name.
Origin = str
#: The place of a key: ("run", "slots").
KeyPath = tuple[str, ...]

#: Stands for "beside the database"; replaced when the config is built, never seen outside.
_BESIDE_DATABASE: Final = Path()


class RunConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much runs at once, and how it ends."""

    slots: Annotated[int, Meta(ge=1, le=10_000)] = 100
    threads: Annotated[int, Meta(ge=1, le=1_000)] = 16
    grace_s: Annotated[float, Meta(ge=0, le=86_400)] = 20.0
    abandon_after_s: Annotated[float, Meta(ge=0.01, le=3_600)] = 5.0
    prefetch: Annotated[int, Meta(ge=1, le=1_000_000)] = 2_000
    timer_heap: Annotated[int, Meta(ge=100, le=10_000_000)] = 4_000


class StoreConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the disk is used, and what is kept on it."""

    fsync_window_ms: Annotated[int, Meta(ge=10, le=60_000)] = 1_000
    volatile_window_ms: Annotated[int, Meta(ge=1, le=10_000)] = 200
    checkpoint_pages: Annotated[int, Meta(ge=100, le=1_000_000)] = 2_000
    wal_prefill_mib: Annotated[int, Meta(ge=0, le=1_024)] = 8
    reserve_mib: Annotated[int, Meta(ge=0, le=1_048_576)] = 64
    ballast_mib: Annotated[int, Meta(ge=0, le=1_024)] = 8
    discarded_max: Annotated[int, Meta(ge=0, le=100_000_000)] = 100_000
    discarded_days: Annotated[int, Meta(ge=1, le=36_500)] = 30


class LimitsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The bounds on what callers may send."""

    payload_bytes_max: Annotated[int, Meta(ge=64, le=64 << 20)] = 65_536
    frame_bytes_max: Annotated[int, Meta(ge=4_096, le=256 << 20)] = 4 << 20
    connections_max: Annotated[int, Meta(ge=1, le=100_000)] = 512
    error_chars_max: Annotated[int, Meta(ge=100, le=1_000_000)] = 8_000
    unique_chars_max: Annotated[int, Meta(ge=1, le=4_096)] = 256
    user_chars_max: Annotated[int, Meta(ge=1, le=4_096)] = 200
    submissions_max: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000


class LogConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is said on stderr, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"
    tasks: bool = False


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set. `Config()` is all defaults, relative to the current folder.

    >>> Config(database=Path("/srv/mail.db")).admin_socket
    PosixPath('/srv/mail.admin.sock')
    """

    app: str | None = None
    database: Path = Path("shoestring.db")
    socket: Path = _BESIDE_DATABASE
    admin_socket: Path = _BESIDE_DATABASE
    runtime_dir: Path | None = None
    run: RunConfig = RunConfig()
    store: StoreConfig = StoreConfig()
    limits: LimitsConfig = LimitsConfig()
    log: LogConfig = LogConfig()
    queues: dict[str, QueueConfig] = msgspec.field(default_factory=dict)

    #: Not keys: what `config show --origin` prints. The file that was read, and each set key's origin.
    file: Path | None = None
    origins: dict[KeyPath, Origin] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, suffix in (("socket", ".sock"), ("admin_socket", ".admin.sock")):
            if getattr(self, name) == _BESIDE_DATABASE:
                msgspec.structs.force_setattr(self, name, self.database.with_suffix(suffix))

    @classmethod
    def load(
        cls,
        path: Path | str | None = None,
        overrides: Mapping[str, object] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
    ) -> Config:
        """Read the configuration: `overrides` over the environment over the file over the defaults.

        `overrides` are by dotted key (`{"run.slots": 5}`); None values are skipped, text is read as in the
        environment. Without `path` the file is `$SHOESTRING_CONFIG`, else `./shoestring.toml`, else
        `/etc/shoestring/shoestring.toml`, else none. Raises ConfigError naming file, key, value and remedy.
        """
        from shoestring.configfile import load

        return load(path, overrides or {}, environ)

    def origin(self, *key: str) -> Origin:
        """Return where the value of `key` came from, as in `origin("run", "slots")`."""
        return self.origins.get(key, "default")


#: The fields of Config that are not keys of the file.
NOT_KEYS: Final = frozenset({"file", "origins"})


def check_together(config: Config) -> None:
    """Refuse values that are each allowed but not beside each other."""
    limits = config.limits
    if limits.frame_bytes_max < limits.payload_bytes_max + 1_024:
        raise ConfigError(
            f"limits.frame_bytes_max = {limits.frame_bytes_max} ({config.origin('limits', 'frame_bytes_max')}) cannot"
            f" hold one payload of limits.payload_bytes_max = {limits.payload_bytes_max}"
            f" ({config.origin('limits', 'payload_bytes_max')}). Make it at least 1,024 bytes larger."
        )
    paths: dict[Path, str] = {}
    for key, given in (("database", config.database), ("socket", config.socket), ("admin_socket", config.admin_socket)):
        path = given.absolute()
        if path in paths:
            raise ConfigError(f"{paths[path]} and {key} are both {path}. Give each its own path.")
        paths[path] = key
