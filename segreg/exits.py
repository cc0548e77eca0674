"""How a process ended that did not tell its result, in words."""

from __future__ import annotations

import signal


def how_it_ended(exitcode: int) -> str:
    """Gives a sentence for a process's exit status; a negative one is the signal that ended it."""
    if exitcode >= 0:
        return f"its process ended with status {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = str(-exitcode)
    why = ", as where memory runs out" if name == "SIGKILL" else ""
    return f"its process was ended by signal {name}{why}"
