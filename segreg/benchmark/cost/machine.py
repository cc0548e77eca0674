"""How busy other processes keep the machine while something is measured."""

from __future__ import annotations

import os
import time
from pathlib import Path

_STAT = Path("/proc/stat")


def load() -> float | None:
    """Return how many processes ran or waited to run in the last minute, None where unknown."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows has none
        return None


def cpu_seconds(file: Path = _STAT) -> tuple[float, float] | None:
    """Return the seconds that all CPUs together were busy, and those that passed for them, since the start.

    None where the system does not report it (not Linux).
    """
    try:
        words = file.read_text(encoding="ascii").splitlines()[0].split()
        # user nice system idle iowait irq softirq steal; what follows, of guests, is in user and nice already
        ticks = [int(word) for word in words[1:9]]
        a_second = os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError, AttributeError):
        return None
    total = sum(ticks)
    return (total - ticks[3] - ticks[4]) / a_second, total / a_second


class CpuWatch:
    """A reusable context that adds up what other processes took of the machine's CPUs while it lasts."""

    def __init__(self) -> None:
        self._others = self._passed = 0.0
        self._began: tuple[tuple[float, float] | None, float] = (None, 0.0)

    def __enter__(self) -> None:
        self._began = cpu_seconds(), time.process_time()

    def __exit__(self, *_: object) -> None:
        before, own_before = self._began
        after, own = cpu_seconds(), time.process_time() - own_before
        if before and after:
            self._others += after[0] - before[0] - own
            self._passed += after[1] - before[1]

    @property
    def others(self) -> float | None:
        """Return the others' share of all CPUs' time, from 0 to 1; None where unknown."""
        # The system counts in hundredths of a second, and so may have counted less than this process itself.
        return min(max(self._others / self._passed, 0.0), 1.0) if self._passed > 0 else None
