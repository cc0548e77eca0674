"""Whether an installed package is made for the segreg that runs: by the versions that its own metadata asks for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, version

NAME = "segreg"
_ASKS_FOR_SEGREG = re.compile(rf"{NAME}(?![\w.-])", re.IGNORECASE)


def plain_name(name: str) -> str:
    """Return a package's name as every installer compares it (PEP 503): "Segreg_Foo" is "segreg-foo"."""
    return re.sub(r"[-_.]+", "-", name).lower()


def misfit(distribution: Distribution) -> str:
    """Return why a package does not fit the running segreg, in words; empty where it does, or where it does not say."""
    if plain_name(distribution.name) == NAME:
        return ""
    asked = [line for line in distribution.requires or () if _ASKS_FOR_SEGREG.match(line)]
    running = _running() if asked else None
    refused = _refused(asked, running) if running else ""
    return f"it is made for segreg{refused}, and this is segreg {running}" if refused else ""


def _running() -> str | None:
    try:
        return version(NAME)
    except PackageNotFoundError:  # run from its folder, not installed
        return None


def _refused(asked: Iterable[str], running: str) -> str:
    """Return the versions asked for, such as "<2,>=1", that the running one is not among."""
    from packaging.requirements import InvalidRequirement, Requirement

    for line in asked:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:  # what no installer can read binds nobody
            continue
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if applies and not requirement.specifier.contains(running, prereleases=True):
            return str(requirement.specifier)
    return ""
