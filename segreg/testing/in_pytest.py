"""The checks as a parametrised test: the only place of the kit that needs pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from segreg.registry.entry import Entry, Family
from segreg.registry.registry import Part
from segreg.testing.check import Check, NotChecked
from segreg.testing.checks import checks_of, package_checks

if TYPE_CHECKING:
    import pytest


def parametrize(
    parts: str | Iterable[Entry | Family | Part | Check],
    patterns: Sequence[str] = (),
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    exclude: Mapping[str, str] | None = None,
    slow: Sequence[pytest.MarkDecorator] = (),
) -> pytest.MarkDecorator:
    """Return a mark that runs a test once for every check, as its argument `check`: the test calls `check()`.

    The ids are `KIND-NAME-CHECK`. What can't be checked is skipped with the reason.

    Args:
        parts: an installed package's name, or what is to be checked: entries, and what `checks` gives.
        patterns: wildcards for "KIND.NAME" of the package's parts.
        settings: settings by "KIND.NAME".
        exclude: why a check is not to be run, by its name or by "KIND.NAME.CHECK".
        slow: marks for the checks that may take more than a second: compiling, exporting, trying decoders.

    Raises:
        SegregError: a name that there is not.
    """
    import pytest

    if isinstance(parts, str):
        made = package_checks(parts, patterns, settings=settings, exclude=exclude)
    else:
        parts = list(parts)
        offered = [part for part in parts if not isinstance(part, Check)]
        made = [part for part in parts if isinstance(part, Check)]
        made += checks_of(offered, settings=settings, exclude=exclude)
    params = [
        pytest.param(_skipping(check), id=check.id, marks=tuple(slow) if check.rule.slow else ()) for check in made
    ]
    return pytest.mark.parametrize("check", params)


def _skipping(check: Check) -> Callable[[], None]:
    """Return the check as a function that skips the test where the check says nothing."""

    def run() -> None:
        import pytest

        try:
            check()
        except NotChecked as reason:
            pytest.skip(str(reason))

    return run
