"""What a check is and how its outcome is reported: what is wrong, why it matters, and where in the plugin to look."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from segreg.errors import SegregError
from segreg.testing.subject import Broken, NotChecked, Subject, raised, title


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
        return self.rule.check.__name__

    @property
    def id(self) -> str:
        """Return kind, part and check, as pytest shows them."""
        return f"{self.subject.part.kind}-{self.subject.part.name}-{self.name}"

    @property
    def names(self) -> tuple[str, str]:
        """Return the names by which it can be left out: its own, and "KIND.NAME.CHECK"."""
        return self.name, f"{title(self.subject.part)}.{self.name}"

    def __str__(self) -> str:
        return self.id

    def outcome(self) -> Outcome:
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
        subject, start = dataclasses.replace(self.subject), time.perf_counter()  # so that no check sees another's part
        status: Literal["passed", "failed", "not checked"] = "passed"
        what = ""
        failure: Exception | None = None
        try:
            if self.left_out:
                raise NotChecked(self.left_out)
            with _seeded():
                self.rule.check(subject)
        except NotChecked as reason:
            status, what = "not checked", str(reason)
        except Broken as error:
            status, what, failure = "failed", str(error), error
        except SegregError as error:
            status, what, failure = "failed", f"it is refused: {error}", error
        except Exception as error:  # a stranger's code: whatever it raises
            status, what, failure = "failed", f"it raises {raised(error)}", error
        why, place = (self.rule.why, subject.look_at(failure)) if failure else ("", "")
        seconds = time.perf_counter() - start
        return Outcome(subject.part.kind, subject.part.name, self.name, status, what, why, place, seconds), failure


@contextmanager
def _seeded() -> Iterator[None]:
    """Run a check from one seed, so that its order does not matter, and leave all generators as they were."""
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
