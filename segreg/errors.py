"""Mistakes of a user, and how they are reported: what, where, what was expected, what to do."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Where something was written: a file's line and column, or "command line"."""

    source: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.source, self.line, self.column) if part is not None)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong."""

    message: str
    place: Place | None = None
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        hint = "".join(f"\n  {line}" for line in self.hint.splitlines())
        return f"{where}{self.message}{hint}"


class SegregError(Exception):
    """A mistake in a recipe, plugin, command or data set, reported so that its author can fix it.

    The command line prints it without a traceback and exits 2. Anything else that is raised is segreg's own bug.
    """

    def __init__(self, message: str = "", *, hint: str = "", place: Place | None = None) -> None:
        self.problems: tuple[Problem, ...] = (Problem(message, place, hint),)
        super().__init__(str(self.problems[0]))

    @classmethod
    def of(cls, problems: Iterable[Problem], *, most: int = sys.maxsize, rest: str = "") -> SegregError:
        """Return one error of several problems; those after the first `most` are counted: "and 3 " and `rest`."""
        error = cls()
        error.problems = tuple(problems)
        if (left := len(error.problems) - most) > 0:
            error.problems = (*error.problems[:most], Problem(f"and {left} {rest}"))
        error.args = ("\n".join(str(problem) for problem in error.problems),)
        return error

    def _render_traceback_(self) -> list[str]:
        """Return what IPython and notebooks show of it: the message, without frames of segreg's own code."""
        return [f"SegregError: {self}"]

    def at(self, place: Place | None) -> SegregError:
        """Return the same error with `place` where a problem had none."""
        return SegregError.of(Problem(p.message, p.place or place, p.hint) for p in self.problems)


def did_you_mean(word: str, known: Iterable[str], *, limit: int = 3) -> str:
    """Return 'did you mean "resnet50"?' for the known words nearest to `word`, or an empty string."""
    candidates = list(known)
    lowered = {name.lower(): name for name in candidates}
    close = difflib.get_close_matches(word.lower(), lowered, n=limit, cutoff=0.6)
    if not close:
        close = [name for name in lowered if len(word) > 2 and word.lower() in name][:limit]
    return f"did you mean {listed([lowered[name] for name in close], last='or')}?" if close else ""


def listed(words: Sequence[str], *, last: str = "and", quote: str = '"', most: int = 12) -> str:
    """Return '"a", "b" and "c"', cut after `most` words with the number of those left out."""
    shown = [f"{quote}{word}{quote}" for word in words[:most]]
    if len(words) > most:
        return f"{', '.join(shown)} {last} {len(words) - most} more"
    if len(shown) < 2:
        return "".join(shown)
    return f"{', '.join(shown[:-1])} {last} {shown[-1]}"


def plural(count: int, noun: str) -> str:
    """Return "1 image" or "2 images"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def with_article(noun: str) -> str:
    """Return "an encoder" for "encoder" and "a decoder" for "decoder"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
