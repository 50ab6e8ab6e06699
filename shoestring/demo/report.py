"""What came out of one run of the demo, as a record and as figures for machines."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import msgspec

from shoestring.demo.books import Books


@dataclass(frozen=True, slots=True)
class Kill:
    """One `kill -9` of the daemon."""

    at_items: int  # settled when it was killed
    away_s: float  # until it answered again


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of a run. Rates are over `seconds`: from the first job opened to the last item and message done."""

    items: int
    seconds: float
    seed: int
    time_scale: float
    blocks_per_window: int
    books: Books
    kills: list[Kill]
    kills_planned: int
    disk_written: int  # in disk_unit
    disk_unit: str
    disk_source: str
    daemon_written_bytes: int
    rss_bytes_max: int
    daemon_cpu_s: float
    daemon_exit: int
    folder: str | None  # if it is kept

    @property
    def good(self) -> bool:
        """Whether the books balance and the daemon ended in order when it was told to."""
        return self.books.balanced and self.daemon_exit == 0

    @property
    def items_per_s(self) -> float:
        return self.items / self.seconds

    @property
    def disk_per_s(self) -> float:
        return self.disk_written / self.seconds

    def as_json(self) -> str:
        """Return the figures as one JSON object; `balanced` is the verdict, `users` and `total` are the books."""
        figures = asdict(self)
        books = figures.pop("books")
        return msgspec.json.encode(
            {
                "balanced": self.books.balanced,
                "problems": books["problems"],
                **figures,
                "seconds": round(self.seconds, 3),
                "items_per_s": round(self.items_per_s, 1),
                "disk_per_s": round(self.disk_per_s, 3),
                "total": books["total"],
                "users": books["rows"],
            }
        ).decode()
