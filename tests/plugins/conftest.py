"""Networks whose random numbers are all the same to a test."""

from __future__ import annotations

import pytest

from quick_init import quick_init


@pytest.fixture
def quick_networks():
    """Let networks be built in a fraction of the time."""
    with quick_init():
        yield
