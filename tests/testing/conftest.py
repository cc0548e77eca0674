"""What a check of the conformance kit says of a part that is broken on purpose."""

from __future__ import annotations

import pytest

import segreg.testing


@pytest.fixture
def outcome():
    """Run one check: `outcome(entry, "name_of_the_check", setting=value)`."""

    def run(entry, name, **settings):
        return next(c for c in segreg.testing.checks(entry, settings=settings) if c.name == name).outcome()

    return run


@pytest.fixture
def said(outcome):
    """Return what a failing check says is wrong; anything but a failure is none."""

    def run(entry, name, **settings):
        found = outcome(entry, name, **settings)
        assert found.status == "failed", str(found)
        return found.what

    return run
