"""Which images belong together, so that a split never separates them: by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from segreg.errors import SegregError, listed


def group_pattern(groups: str | None) -> re.Pattern[str] | None:
    """Return the regular expression of a setting `groups`, or None where it is null.

    Raises:
        SegregError: it is not a regular expression, or has no group in parentheses.
    """
    if groups is None:
        return None
    try:
        pattern = re.compile(groups)
    except re.error as error:
        at = "" if error.pos is None else f" at character {error.pos + 1}"
        raise SegregError(f'groups: "{groups}" is not a regular expression: {error.msg}{at}') from None
    if not pattern.groups:
        raise SegregError(
            f'groups: "{groups}" has no group in parentheses to take the name from',
            hint="for instance ^(.*)_jpg[.]rf[.]",
        )
    return pattern


def groups_of(names: Sequence[str], pattern: re.Pattern[str] | None) -> list[str | None]:
    """Return each name's group: what the pattern's first parentheses hold where it is found in the name.

    Raises:
        SegregError: a name has none; the message has some of those names.
    """
    if pattern is None:
        return [None] * len(names)
    found = [pattern.search(name) for name in names]
    strangers = [name for name, match in zip(names, found, strict=True) if match is None or match.group(1) is None]
    if strangers:
        raise SegregError(
            f'groups: "{pattern.pattern}" finds no group in {len(strangers)} of {len(names)} names: '
            f"{listed(strangers, most=3)}",
            hint="it is searched in the name without its extension; every image needs a group",
        )
    return [match.group(1) if match else None for match in found]


def roboflow_source(name: str) -> str | None:
    """Return the image that Roboflow made this one of, "img_jpg" for "img_jpg.rf.0db1b3", or None for other names.

    It is what stands before the first ".rf.": a copy that was uploaded and augmented again has two.
    """
    source, mark, _ = name.partition(".rf.")
    return source if mark and source else None
