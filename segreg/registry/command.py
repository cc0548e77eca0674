"""A command that a package adds to the command line: `segreg NAME`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass

from segreg.errors import SegregError
from segreg.registry.entry import where


@dataclass(frozen=True)
class Command:
    """One command.

    `execute` does the work and returns the exit status: 0 done, 1 done in part. A mistake of the user is a
    `SegregError`, which is printed without a traceback and ends with status 2. Heavy imports stand inside `execute`,
    because the modules of all packages are imported for `segreg --help`.

    Attributes:
        name: what is written behind `segreg`: lower-case letters, digits and hyphens.
        help: one line for `segreg --help`, without a full stop.
        arguments: adds the command's arguments to its parser.
        execute: runs the command with the parsed arguments.
        examples: printed below the command's own help.

    Raises:
        SegregError: the name or the help can't be used; the message names the file and line of `execute`.
    """

    name: str
    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    execute: Callable[[argparse.Namespace], int]
    examples: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]*", self.name):
            raise SegregError(
                f"{self.place}: {self.name!r} can't be a command's name",
                hint="lower-case letters, digits and hyphens, beginning with a letter",
            )
        if not self.help or "\n" in self.help:
            raise SegregError(f"{self.place}: the command {self.name!r} needs a help text of one line")

    @property
    def place(self) -> str:
        """Return "file:line" of `execute`."""
        return where(self.execute)
