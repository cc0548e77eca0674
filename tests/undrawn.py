"""Imported by the process that tests fork runs from: these make neither diagrams nor reports, as most tests want it.

The modules of the built-in parts are imported too, which each of them would do anew, and a bench looks more often
whether a run has ended.
"""

from __future__ import annotations

import contextlib

import plugged
import tiny_runs
from segreg.benchmark.bench import local

changes = contextlib.ExitStack()
"""Closed, they are drawn again."""
changes.enter_context(tiny_runs.undrawn())
local._POLL_SECONDS = 0.2
for point in plugged.builtin():
    point.load()
