"""How much of the machine's memory this process has had, and how much is left for others."""

from __future__ import annotations

import sys
from pathlib import Path

MIB = 2**20


def peak_rss_mib() -> float | None:
    """Return the largest resident memory that this process has had in MiB, None where it isn't known (Windows).

    It never shrinks. A process that was forked begins with what its parent has just then. One that was started anew
    (`exec`) begins on Linux with its parent's peak, however small it is itself; of such a process it is not a measure.
    """
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024  # macOS tells bytes, the others KiB


def available_mib(file: Path = Path("/proc/meminfo")) -> float | None:
    """Return the memory that new processes can have without swapping in MiB, None where it isn't known (not Linux)."""
    try:
        lines = file.read_text(encoding="ascii").splitlines()
        available = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(available.split()[1]) / 1024
    except (OSError, StopIteration, ValueError):
        return None
