"""How a process ended that did not tell its result, in words."""

from __future__ import annotations

import signal


def how_it_ended(exitcode: int, at: str = "") -> str:
    """Gives a sentence for an exit status; a negative one is the signal that ended the process.

    Args:
        exitcode: the status.
        at: what the process had come to, in words that go on a sentence: "in building the network".
    """
    where = f" {at}" if at else ""
    if exitcode >= 0:
        return f"its process ended with status {exitcode}{where}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = str(-exitcode)
    why = ", as where memory runs out" if name == "SIGKILL" else ""
    return f"its process was ended by signal {name}{where}{why}"
