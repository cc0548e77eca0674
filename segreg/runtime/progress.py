"""How progress is shown: a moving bar on a terminal, a growing display in a notebook, lines in a file, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Literal, Protocol, TextIO, cast

from segreg.runtime.layout import Block, Screen

if TYPE_CHECKING:
    from rich.console import Console


class Advance(Protocol):
    """Report that something was done; `note` replaces what stands beside the bar."""

    def __call__(self, count: int = 1, note: str | None = None) -> None: ...


class Progress(Protocol):
    """What training, reading and evaluating tell their progress to."""

    def say(self, block: Block) -> None:
        """Write a line or a table that stays."""

    def watch(self, title: str, total: int | None, unit: str) -> AbstractContextManager[Advance]:
        """Show how much of `total` (None: unknown) is done while the context lasts. One at a time."""


_NOTEBOOK_WIDTH = 110
"""Characters that a cell shows side by side without scrolling."""

Mode = Literal["auto", "bar", "lines", "quiet"]


def progress(mode: Mode = "auto", stream: TextIO | None = None) -> Progress:
    """Return the progress of that mode; "auto" takes what fits: a terminal, a notebook or a file."""
    if mode == "auto" and stream is None and _in_notebook():
        return Notebook()
    stream = stream or sys.stdout
    if mode == "auto":
        mode = "bar" if stream.isatty() else "lines"
    if mode == "quiet":
        return Quiet()
    if mode == "lines":
        return Lines(stream)
    from rich.console import Console

    return Bar(Console(file=stream))


@dataclass(frozen=True)
class Quiet:
    """Report nothing."""

    def say(self, block: Block) -> None:
        """Write nothing."""

    @contextmanager
    def watch(self, title: str, total: int | None, unit: str) -> Iterator[Advance]:  # noqa: ARG002
        """Show nothing."""

        def advance(count: int = 1, note: str | None = None) -> None:
            pass

        yield advance


@dataclass(frozen=True)
class Lines:
    """Write a line now and then.

    Attributes:
        stream: where to.
        every: seconds between two lines of one watch.
    """

    stream: TextIO
    every: float = 15.0

    def say(self, block: Block) -> None:
        """Write a line or a table."""
        Screen.of(self.stream).show(block)

    @contextmanager
    def watch(self, title: str, total: int | None, unit: str) -> Iterator[Advance]:
        """Write how much is done, not more often than every so many seconds."""
        start = printed = time.monotonic()
        done, beside = 0, ""

        def advance(count: int = 1, note: str | None = None) -> None:
            nonlocal done, beside, printed
            done += count
            beside = beside if note is None else note
            now = time.monotonic()
            if now - printed < self.every:
                return
            printed = now
            left = f", {duration((now - start) / done * (total - done))} left" if total and done else ""
            of = f"/{total}" if total else ""
            self.say(f"  {title}: {done}{of} {unit}{left}{f'  {beside}' if beside else ''}")

        yield advance


@dataclass(frozen=True)
class Bar:
    """Move a bar on a terminal, with the rate and the time left."""

    console: Console

    def say(self, block: Block) -> None:
        """Write a line or a table above the bar."""
        from rich.text import Text

        for line in Screen.of(cast("TextIO", self.console.file)).lines([block]):
            self.console.print(Text.from_ansi(line), highlight=False, soft_wrap=True)

    @contextmanager
    def watch(self, title: str, total: int | None, unit: str) -> Iterator[Advance]:
        """Show a bar, which goes away at the end."""
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Columns

        columns = Columns(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn(unit, markup=False),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}", markup=False),
            console=self.console,
            transient=True,
            refresh_per_second=4,  # drawing competes with training for the CPU
        )
        with columns:
            task = columns.add_task(title, total=total, note="")

            def advance(count: int = 1, note: str | None = None) -> None:
                columns.advance(task, count)
                if note is not None:
                    columns.update(task, note=note)

            yield advance


class Notebook:
    """Show one display below a notebook's cell: all that was said, and the bar of what is under way."""

    def __init__(self) -> None:
        from IPython.display import display

        self.lines: list[str] = []
        self.under_way = ""
        self.drawn = 0.0
        self.handle = display(self._page(), raw=True, display_id=True)

    def say(self, block: Block) -> None:
        """Add a line or a table."""
        self.lines += Screen(sys.stdout, _NOTEBOOK_WIDTH).lines([block])
        self._draw()

    @contextmanager
    def watch(self, title: str, total: int | None, unit: str) -> Iterator[Advance]:
        """Show a bar, which goes away at the end."""
        done, beside = 0, ""

        def advance(count: int = 1, note: str | None = None) -> None:
            nonlocal done, beside
            done += count
            beside = beside if note is None else note
            if time.monotonic() - self.drawn > 0.25:  # drawing competes with training for the CPU
                bar = f'<progress value="{done}" max="{total}"></progress> ' if total else ""
                of = f"/{total}" if total else ""
                self.under_way = f"{escape(title)} {bar}{done}{of} {escape(unit)}  {escape(beside)}"
                self._draw()

        try:
            yield advance
        finally:
            if self.under_way:
                self.under_way = ""
                self._draw()

    def _draw(self) -> None:
        self.drawn = time.monotonic()
        if self.handle is not None:
            self.handle.update(self._page(), raw=True)

    def _page(self) -> dict[str, str]:
        text = "\n".join(self.lines)
        return {"text/plain": text, "text/html": f"<pre>{escape(text)}\n{self.under_way}</pre>"}


def _in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, whose displays can change."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def duration(seconds: float) -> str:
    """Return "45 s", "3 min 20 s" or "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
