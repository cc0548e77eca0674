"""What a check is and how its outcome is reported: what is wrong, why it matters, and where in the plugin to look."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from segreg.errors import SegregError
from segreg.testing.subject import Subject


class Broken(Exception):  # noqa: N818 - it is caught and reported
    """What a check found wrong.

    Args:
        what: what is wrong, in a sentence.
        at: the module, function or class in which to look; the builder if None.
    """

    def __init__(self, what: str, *, at: Any = None) -> None:
        super().__init__(what)
        self.at = at


class NotChecked(Exception):  # noqa: N818 - it is not an error
    """Why a check says nothing of a part: it does not apply, or lacks a setting."""


class CheckFailed(AssertionError):  # noqa: N818 - pytest and people read the name
    """A failed check in full: what, why, where."""


@dataclass(frozen=True)
class Rule:
    """One check of a kind.

    Attributes:
        check: raises `Broken` or `NotChecked`; its name is the check's.
        why: why it matters.
        slow: whether it may take more than a second on a small part.
    """

    check: Callable[[Subject], None]
    why: str
    slow: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of a check.

    Attributes:
        kind: the part's kind.
        part: the part's name.
        check: the check's name.
        status: whether the part passed, failed, or was not checked.
        what: what is wrong, or why it was not checked.
        why: why it matters, where it failed.
        place: "file:line" to look at, where it failed.
        seconds: how long it took.
    """

    kind: str
    part: str
    check: str
    status: Literal["passed", "failed", "not checked"]
    what: str = ""
    why: str = ""
    place: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        text = f"{self.kind} {self.part}, {self.check}: {self.what or self.status}"
        return f"{text}\n  why it matters: {self.why}\n  look at: {self.place}" if self.status == "failed" else text


@dataclass(frozen=True)
class Check:
    """One check of one part, ready to run.

    Attributes:
        subject: the part and its settings.
        rule: what is checked.
        left_out: why it is not to be run; empty where it is.
    """

    subject: Subject
    rule: Rule
    left_out: str = ""

    @property
    def name(self) -> str:
        """Return the check's name."""
        return self.rule.check.__name__

    @property
    def id(self) -> str:
        """Return kind, part and check, as pytest shows them."""
        return f"{self.subject.part.kind}-{self.subject.part.name}-{self.name}"

    def __str__(self) -> str:
        return self.id

    def outcome(self) -> Outcome:
        """Run the check and says what came of it."""
        return self._run()[0]

    def __call__(self) -> None:
        """Run the check.

        Raises:
            CheckFailed: the part does not pass.
            NotChecked: the check does not apply, or could not be done.
        """
        outcome, error = self._run()
        if outcome.status == "failed":
            raise CheckFailed(str(outcome)) from error
        if outcome.status == "not checked":
            raise NotChecked(outcome.what)

    def _run(self) -> tuple[Outcome, Exception | None]:
        part, start = self.subject.part, time.perf_counter()

        def ended(status: Literal["passed", "failed", "not checked"], what: str = "", place: str = "") -> Outcome:
            why = self.rule.why if status == "failed" else ""
            return Outcome(part.kind, part.name, self.name, status, what, why, place, time.perf_counter() - start)

        if self.left_out:
            return ended("not checked", self.left_out), None
        try:
            with _seeded():
                self.rule.check(self.subject)
        except NotChecked as reason:
            return ended("not checked", str(reason)), None
        except Broken as error:
            return ended("failed", str(error), self.subject.look_at(error.at, error)), error
        except SegregError as error:
            return ended("failed", f"it is refused: {error}", self.subject.look_at(None, error)), error
        except Exception as error:  # a stranger's code: whatever it raises
            return ended("failed", f"it raises {raised(error)}", self.subject.look_at(None, error)), error
        return ended("passed"), None


def raised(error: Exception) -> str:
    """Format an exception: its type and message."""
    return f"{type(error).__name__}: {error}".rstrip(": ")


@contextmanager
def doing(words: str, *, at: Any = None) -> Iterator[None]:
    """Report what was being done where something is raised: `{words}, it raises ...`.

    Raises:
        Broken: whatever was raised.
    """
    try:
        yield
    except (Broken, NotChecked):
        raise
    except SegregError as error:
        raise Broken(f"{words}: {error}", at=at) from error
    except Exception as error:
        raise Broken(f"{words}, it raises {raised(error)}", at=at) from error


@contextmanager
def _seeded() -> Iterator[None]:
    """Run a check from one seed, so that its order does not matter, and leaves all generators as they were."""
    import numpy as np
    import torch

    from segreg.runtime.device import seed_everything

    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        seed_everything(0)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
