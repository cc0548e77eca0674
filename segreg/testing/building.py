"""How a check gets its part: built for the check of just that, or taken for granted by every other."""

from __future__ import annotations

from typing import Any

from segreg.errors import SegregError, listed
from segreg.testing.check import Broken, NotChecked, raised
from segreg.testing.subject import Subject

NETWORKS = ("encoder", "decoder")
"""Kinds whose parts are networks."""


def tried(subject: Subject, *given: Any) -> Any:
    """Return the built part, for the check of whether it can be built.

    Raises:
        NotChecked: settings are missing, or its defaults are refused with a message.
        Broken: it refuses what its author gave, or its builder fails.
    """
    needs_nothing(subject)
    try:
        return subject.build(*given)
    except SegregError as error:
        if subject.given:
            raise Broken(f"it refuses the settings that it was given: {error}") from error
        raise NotChecked(f"its defaults are refused, give settings: {error}") from error
    except Exception as error:
        raise Broken(f"its builder raises {raised(error)}") from error


def built(subject: Subject, *given: Any) -> Any:
    """Return the built part, for every other check.

    Raises:
        NotChecked: it can't be built, or is not a network where it must be one.
    """
    from torch import nn

    needs_nothing(subject)
    try:
        part = subject.build(*given)
    except Exception as error:
        raise NotChecked("it can't be built, see it_can_be_built") from error
    if subject.part.kind in NETWORKS and not isinstance(part, nn.Module):
        raise NotChecked("it is not a nn.Module, see it_can_be_built")
    return part


def needs_nothing(subject: Subject) -> None:
    """Stop where a setting is missing.

    Raises:
        NotChecked: it names them.
    """
    if subject.missing:
        raise NotChecked(f"needs {listed(subject.missing)}")
