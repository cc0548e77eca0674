"""Imported by the process that tests fork runs from: these make neither diagrams nor reports, as most tests want it."""

from __future__ import annotations

import contextlib

import tiny_runs

changes = contextlib.ExitStack()
"""Closed, they are drawn again."""
changes.enter_context(tiny_runs.undrawn())
