"""One thing that is to be told of a data set: what it is, which files, why it matters, what to do."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Case:
    """One instance of a finding.

    Attributes:
        told: it in a line, with the names of its files.
        files: its files.
        ids: the samples concerned.
    """

    told: str
    files: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """What was found, with every instance of it.

    Attributes:
        severity: `error` where training would stop or scores would be worthless, `warning` where someone should look,
            `note` where it is good to know.
        name: a short name that stays, such as "sizes-differ".
        what: it in a line.
        why: what comes of it.
        do: what to do.
        cases: the instances, with their files.
    """

    severity: Severity
    name: str
    what: str
    why: str
    do: str
    cases: tuple[Case, ...] = ()

    def as_data(self) -> dict[str, Any]:
        """Return it as plain values."""
        cases = [{"told": case.told, "files": list(case.files), "ids": list(case.ids)} for case in self.cases]
        return {
            "severity": self.severity, "name": self.name, "what": self.what, "why": self.why, "do": self.do,
            "cases": cases,
        }  # fmt: skip

    def lines(self, *, most: int = 5) -> list[str]:
        """Return it as lines to print, with the first `most` cases."""
        told = [f"{self.severity}: {self.what} [{self.name}]"]
        told += [f"    {case.told}" for case in self.cases[:most]]
        if len(self.cases) > most:
            told.append(f"    and {len(self.cases) - most} more; --all prints them, --json too")
        for word, text in (("why", self.why), ("do", self.do)):
            told += textwrap.wrap(text, 112, initial_indent=f"  {word + ':':<5}", subsequent_indent=" " * 7)
        return told


def in_order(findings: Sequence[Finding]) -> list[Finding]:
    """Return errors first, then warnings, then notes."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def summary(findings: Sequence[Finding]) -> str:
    """Return "1 error, 2 warnings and no note"."""
    counts = Counter(finding.severity for finding in findings)
    words = [f"{counts[s] or 'no'} {s}{'s' * (counts[s] > 1)}" for s in SEVERITIES]
    return f"{words[0]}, {words[1]} and {words[2]}"
