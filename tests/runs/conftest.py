"""What the runs of tests draw, and the small encoder that they train."""

from __future__ import annotations

import contextlib
from unittest import mock

import pytest

import small_runs
import tiny_runs


@pytest.fixture(scope="module")
def three_convolutions():
    """Offer the encoder of `small_runs` while a file's tests run."""
    with small_runs.encoder():
        yield


@pytest.fixture
def drawn():
    """Let the runs of a test make diagrams and reports, where others of its file are `undrawn`."""


@pytest.fixture
def reported():
    """Let the runs of a test make reports, but no diagrams."""


@pytest.fixture
def undrawn(request):
    """Let the runs of a test make neither, nor its evaluations, unless it asks for `drawn` or `reported`."""
    asked = {"drawn", "reported"} & set(request.fixturenames)
    with contextlib.ExitStack() as changed:
        if "drawn" not in asked:
            changed.enter_context(tiny_runs.undrawn(reports=bool(asked)))
            changed.enter_context(mock.patch("segreg.runs.evaluate_run.plot_metrics"))
        yield
