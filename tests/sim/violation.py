"""How the simulator says that a promise was broken."""

from __future__ import annotations


class Violation(AssertionError):
    """A promise that was broken: its name (see `invariants`), and what was seen."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(f"{name}: {detail}")
        self.name = name
