"""Become another program that dies with its parent: `python -m shoestring.demo.leash PARENT_PID PROGRAM ARGUMENT...`

The conductor ends its children in every way of ending that it can notice. `kill -9` of the conductor it cannot notice,
so the kernel is asked: PR_SET_PDEATHSIG kills this process when the parent is gone, and stays set across exec.
It is asked for here, after exec, and not between fork and exec in the parent, where running Python is not safe
once threads exist. Where there is no prctl (not Linux), the program is simply run.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Replace this process by the program; end with code 1 if the parent is gone already."""
    parent, *command = arguments
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit(1)  # it died before the request was made: nobody wants this program any more
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
