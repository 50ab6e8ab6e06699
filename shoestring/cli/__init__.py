"""The command line.

Theory of operation. `main` loads click and the table of commands (`group`), nothing else; a command's module is
imported when it is called, and what it needs (the daemon, the app, rich) when it gets there. A command is given a
`Session`, which reads the configuration and asks the daemon; it prints data on stdout, as a table (`table`,
`figures`) or as JSON, and raises what goes wrong. A test holds the list of modules that `--help` and `status` may not
load.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and end the process with its exit code."""
    from shoestring.cli.root import root

    for stream in (sys.stdout, sys.stderr):
        # A terminal that is not UTF-8 shows a question mark for "…" instead of a traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    root.main(args=None if arguments is None else list(arguments), prog_name="shoestring")
