"""The conformance kit for authors of plugins: named checks of a part, for pytest and for `segreg plugin check`.

    import segreg.testing

    @segreg.testing.parametrize("my_package")
    def test_my_parts(check):
        check()

Importing this module imports neither torch nor pytest.
"""

from __future__ import annotations

from segreg.testing.check import Check, CheckFailed, Outcome
from segreg.testing.checks import checks, package_checks, parametrize
from segreg.testing.subject import NotChecked

__all__ = ["Check", "CheckFailed", "NotChecked", "Outcome", "checks", "package_checks", "parametrize"]
