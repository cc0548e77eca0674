"""What the runs of tests draw."""

from __future__ import annotations

import contextlib

import pytest

import tiny_runs


@pytest.fixture
def drawn():
    """Let the runs of a test make diagrams and reports, where others of its file are `undrawn`."""


@pytest.fixture
def undrawn(request):
    """Let the runs of a test make neither, unless it asks for `drawn`."""
    with contextlib.nullcontext() if "drawn" in request.fixturenames else tiny_runs.undrawn():
        yield
