"""What a new package is called: as installers, as Python and as recipes know it, and why a name won't do."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from dataclasses import dataclass

from segreg.errors import SegregError
from segreg.registry.compatibility import plain_name

PREFIX = "segreg-"
"""What the names of packages of parts begin with by custom, so that they are found."""
_DISTRIBUTION = re.compile(r"[A-Z0-9]|[A-Z0-9][A-Z0-9._-]*[A-Z0-9]", re.IGNORECASE)
_LONGEST = 40


@dataclass(frozen=True)
class Names:
    """The names of one package.

    Attributes:
        distribution: as pip knows it: "segreg-lung-ct".
        module: as Python imports it: "segreg_lung_ct".
        short: what stands before its parts' names in recipes: "lung_ct".
    """

    distribution: str
    module: str
    short: str


def names_of(distribution: str) -> Names:
    """Return the names of a package that is called so.

    Raises:
        SegregError: it is not a name of a package (PEP 508), or none that Python could import.
    """
    example = f"such as {PREFIX}lung-ct"
    if not _DISTRIBUTION.fullmatch(distribution):
        raise SegregError(
            f'"{distribution}" is not a name of a package',
            hint=f"letters and digits, with . - _ between them, {example}",
        )
    if len(distribution) > _LONGEST:
        raise SegregError(f'"{distribution}" has {len(distribution)} characters', hint=f"{_LONGEST} at most, {example}")
    plain = plain_name(distribution)
    module = plain.replace("-", "_")
    if not module.isidentifier() or keyword.iskeyword(module):
        raise SegregError(
            f'Python could not import "{module}", the module of "{distribution}"',
            hint=f"begin with a letter and avoid Python's own words, {example}",
        )
    if taken := _owner(module):
        raise SegregError(f'"{module}", the module of "{distribution}", is the name of {taken}', hint=example)
    return Names(distribution, module, plain.removeprefix(PREFIX).replace("-", "_"))


def _owner(module: str) -> str:
    """Return whose module of that name there is already; empty where there is none."""
    if module in sys.stdlib_module_names:
        return "a module of Python's own"
    found = importlib.util.find_spec(module)
    return "a package that is installed" if found is not None and found.origin is not None else ""
