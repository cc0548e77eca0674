"""Processes beside this one: what makes them, and how one ended that did not tell its result."""

from __future__ import annotations

import multiprocessing
import signal
from typing import Any


def processes() -> Any:
    """Return the context of `multiprocessing` whose processes are forks of one that has imported PyTorch and no more.

    Such a process begins quickly and small, however large this one is. All callers share the one that is forked, so
    that what a process begins with does not depend on who came first. Where the system can't, processes begin empty.
    """
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context: Any = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["torch"])
    return context


def how_it_ended(exitcode: int, at: str = "") -> str:
    """Return a sentence for an exit status; a negative one is the signal that ended the process.

    Args:
        exitcode: the status.
        at: what the process had come to, in words that continue a sentence: "in building the network".
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
