"""Whether an installed package is made for the segreg that runs: by the versions that its own metadata asks for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, version

from segreg.errors import SegregError

DISTRIBUTION = "segreg-toolkit"
"""The name of this distribution: what pip installs, and what a plugin's `dependencies` name."""
STRANGER = "segreg"
"""Another project's distribution on PyPI, whose package has the import name `segreg` too."""
_ASKS_FOR_SEGREG = re.compile(r"segreg[-_.]toolkit(?![\w.-])", re.IGNORECASE)
_ASKS_FOR_STRANGER = re.compile(rf"{STRANGER}(?![\w.-])", re.IGNORECASE)


def plain_name(name: str) -> str:
    """Return a package's name as every installer compares it (PEP 503): "Segreg_Foo" is "segreg-foo"."""
    return re.sub(r"[-_.]+", "-", name).lower()


@dataclass(frozen=True)
class About:
    """What a package's metadata says of it, which takes long to read.

    Attributes:
        name: the package's, "?" where its metadata lacks it, as where pip was interrupted.
        version: likewise.
        misfit: why it does not fit the running segreg; empty where it does, or where it does not say.
        notice: that its dependencies bring in PyPI's other project `segreg`; empty where they don't.
    """

    name: str = "?"
    version: str = "?"
    misfit: str = ""
    notice: str = ""


def about(distribution: Distribution) -> About:
    """Read a package's metadata."""
    name, version = name_and_version(distribution)
    requires = tuple(distribution.requires or ())
    misfit = "" if plain_name(name) == DISTRIBUTION else _misfit(requires)
    return About(name, version, misfit, _asks_for_stranger(requires))


def name_and_version(distribution: Distribution | None) -> tuple[str, str]:
    """Return a package's name and version, "?" for what its metadata lacks."""
    try:
        return (distribution.name or "?", distribution.version or "?") if distribution else ("?", "?")
    except (KeyError, PackageNotFoundError):  # as later versions of Python report it
        return "?", "?"


def _misfit(requires: Iterable[str]) -> str:
    asked = [line for line in requires if _ASKS_FOR_SEGREG.match(line)]
    running = installed_version(DISTRIBUTION) if asked else None
    refused = _refused(asked, running) if running else ""
    return f"it is made for segreg-toolkit{refused}, and this is segreg-toolkit {running}" if refused else ""


def installed_version(distribution: str) -> str | None:
    """Return a package's version; None where it is not installed, as segreg itself that is run from its folder."""
    try:
        return version(distribution)
    except PackageNotFoundError:
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


def _asks_for_stranger(requires: Iterable[str]) -> str:
    if not any(_ASKS_FOR_STRANGER.match(line) for line in requires):
        return ""
    return f'its dependencies name "{STRANGER}", another project on PyPI; they should name "{DISTRIBUTION}"'


def stranger_installed() -> str:
    """Return what happened, and the way out, where PyPI's other project `segreg` is installed; else an empty string.

    Both have a package `segreg`, so that each overwrites files of the other.
    """
    if not (found := installed_version(STRANGER)):
        return ""
    problem = SegregError(
        f'the package "{STRANGER}" {found} is installed, another project with the same import name; it shares the '
        f"folder segreg with {DISTRIBUTION} and may have overwritten files in it",
        hint=f"pip uninstall -y {STRANGER} {DISTRIBUTION} && pip install {DISTRIBUTION}",
    )
    return str(problem)
