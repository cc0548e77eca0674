"""How what is printed is laid out: within a terminal's width and in colour there, as plain lines everywhere else."""

from __future__ import annotations

import io
import os
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TextIO

from segreg.runtime.output import printable

_FRAME = 80
"""Width of a frame, unless the terminal is narrower."""
_NARROWEST = 20
"""Columns of a terminal below which lines are not wrapped any narrower."""


class Styled(str):
    """Text with a style of rich, such as "green" or "link file:///tmp/report.html", which only terminals show."""

    __slots__ = ("style",)
    style: str

    def __new__(cls, text: str, style: str) -> Styled:
        styled = super().__new__(cls, text)
        styled.style = style
        return styled


class Framed(str):
    """A notice in a frame of exclamation marks."""

    __slots__ = ()


class Pasted(str):
    """What is pasted somewhere, such as a command: its lines are never wrapped."""

    __slots__ = ()


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        head: its heading.
        right: whether its cells are aligned to the right, as numbers are.
        wraps: whether its cells may be wrapped between words.
        spare: from 1 up, where it can be left out for want of width; the largest goes first.
        least: its least width, for a table that grows row by row.
    """

    head: str = ""
    right: bool = False
    wraps: bool = False
    spare: int = 0
    least: int = 0


@dataclass(frozen=True)
class Table:
    """A table: numbers and names in it are never cut, and what is left out for want of width is named below it.

    Attributes:
        columns: the most telling first.
        rows: of as many cells each.
        headings: whether they are shown; they are not where all are empty.
        indent: blanks before each row.
        more: how to see the columns that are left out; where it is empty, nothing is said of them.
        plain: the text that a file or a pipe gets instead; empty for the table itself.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    headings: bool = True
    indent: int = 0
    more: str = "--wide shows them"
    plain: str = ""

    def fitted(self, width: int | None) -> tuple[Table, list[str]]:
        """Return the table with the columns that fit, as wide as they can be, and the headings of the others."""
        from rich.cells import cell_len

        cells = [[column.head, *(row[i] for row in self.rows)] for i, column in enumerate(self.columns)]
        widths = [max(column.least, *map(cell_len, of)) for column, of in zip(self.columns, cells, strict=True)]
        least = [
            max(column.least, *(cell_len(word) for cell in of for word in cell.split() or [""]))
            if column.wraps
            else whole
            for column, of, whole in zip(self.columns, cells, widths, strict=True)
        ]
        kept = list(range(len(self.columns)))

        def over(widths: Sequence[int]) -> int:
            room = sys.maxsize if width is None else width
            return sum(widths[i] for i in kept) + 2 * (len(kept) - 1) + self.indent - room

        # Prose gets 20 columns or so before another column is left out for it.
        wanted = [max(few, min(whole, 24)) for few, whole in zip(least, widths, strict=True)]
        while over(wanted) > 0 and (spare := [i for i in kept if self.columns[i].spare]):
            kept.remove(max(spare, key=lambda i: (self.columns[i].spare, i)))
        while (excess := over(widths)) > 0:
            shrinking = [i for i in kept if widths[i] > least[i]]
            if not shrinking:
                break
            widest = max(shrinking, key=lambda i: widths[i])
            second = max((widths[i] for i in shrinking if i != widest), default=0)
            widths[widest] -= max(1, min(excess, widths[widest] - max(least[widest], second)))
        columns = [Column(c.head, c.right, c.wraps, 0, widths[i]) for i, c in enumerate(self.columns) if i in kept]
        rows = [[row[i] for i in kept] for row in self.rows]
        left_out = [column.head for i, column in enumerate(self.columns) if i not in kept]
        return Table(columns, rows, self.headings, self.indent, self.more), left_out

    def grid(self, width: int | None) -> Any:
        """Return the table as one of rich's, `rich.table.Table`."""
        from rich.table import Table as Grid
        from rich.text import Text

        fitted, _ = self.fitted(width)
        heads = [column.head for column in fitted.columns]
        grid = Grid(
            box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="", show_header=self.headings and any(heads)
        )
        for column in fitted.columns:
            justify: Any = "right" if column.right else "left"
            head = Text.assemble((column.head, "bold"))
            grid.add_column(head, justify=justify, width=column.least, no_wrap=not column.wraps)
        for row in fitted.rows:
            grid.add_row(*(Text.assemble((printable(cell), getattr(cell, "style", ""))) for cell in row))
        return grid

    def lines(self, width: int | None, *, colour: bool) -> list[str]:
        """Return its lines; without a width all columns, plain."""
        if width is None and not colour:
            return self._unlimited()
        from rich.console import Console

        console = Console(
            force_jupyter=False,  # a notebook's kernel would show what is laid out here
            file=io.StringIO(), width=sys.maxsize, highlight=False, force_terminal=colour, legacy_windows=False,
            color_system="standard" if colour else None, _environ={},
        )  # fmt: skip
        with console.capture() as captured:
            console.print(self.grid(width))
        lines = [" " * self.indent + line.rstrip() for line in captured.get().splitlines()]
        if (left_out := self.fitted(width)[1]) and self.more:
            lines += wrapped(f"left out at this width: {', '.join(left_out)}; {self.more}", width)
        return lines

    def _unlimited(self) -> list[str]:
        """Return its lines, as wide as they are, without an import of rich."""
        heads = [column.head for column in self.columns]
        rows = [*([heads] if self.headings and any(heads) else []), *self.rows]
        least = [column.least for column in self.columns]
        widths = [max(few, *map(len, map(printable, cells))) for few, *cells in zip(least, *rows, strict=True)]
        return [
            " " * self.indent
            + "  ".join(
                printable(cell).rjust(width) if column.right else printable(cell).ljust(width)
                for column, cell, width in zip(self.columns, row, widths, strict=True)
            ).rstrip()
            for row in rows
        ]


Block = str | Table
"""What is printed: text, each line of which is wrapped between words, or a table."""


def banners(*notices: str) -> list[Block]:
    """Return each notice in its frame; nothing for an empty one."""
    return [Framed(notice) for notice in notices if notice]


@dataclass(frozen=True)
class Screen:
    """What a stream can show.

    Attributes:
        stream: where to print.
        width: columns of a terminal; None for a file or a pipe, where lines have any length.
        colour: whether colours and links are shown.
    """

    stream: TextIO
    width: int | None = None
    colour: bool = False

    @classmethod
    def of(cls, stream: TextIO | None = None) -> Screen:
        """Return what a stream can show, standard output by default; `NO_COLOR` and `COLUMNS` have their say."""
        stream = sys.stdout if stream is None else stream
        if not stream.isatty():
            return cls(stream)
        colour = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        asked = os.environ.get("COLUMNS", "")
        width = int(asked) if asked.isdecimal() else 0
        with suppress(OSError, ValueError):
            width = width or os.get_terminal_size(stream.fileno()).columns
        return cls(stream, max(width or 80, _NARROWEST), colour)

    def lines(self, blocks: Iterable[Block], *, wide: bool = False) -> Iterator[str]:
        """Yield blocks as lines; `wide` keeps the columns of tables that don't fit."""
        for block in blocks:
            if isinstance(block, Table) and block.plain and self.width is None:
                yield printable(block.plain)
            elif isinstance(block, Table):
                yield from block.lines(None if wide else self.width, colour=self.colour)
            elif isinstance(block, Framed):
                yield from _framed(block, min(_FRAME, self.width or _FRAME))
            elif isinstance(block, Pasted):
                yield from map(printable, block.split("\n"))
            else:
                style = getattr(block, "style", "") if self.colour else ""
                for line in block.split("\n"):
                    yield from (_coloured(part, style) for part in wrapped(printable(line), self.width))

    def show(self, *blocks: Block, wide: bool = False) -> None:
        """Print blocks."""
        for line in self.lines(blocks, wide=wide):
            print(line, file=self.stream)
        self.stream.flush()


def show(*blocks: Block, wide: bool = False) -> None:
    """Print blocks to standard output; `wide` keeps the columns of tables that don't fit."""
    Screen.of().show(*blocks, wide=wide)


def complain(text: str, word: str = "warning") -> None:
    """Print "warning: ..." or "error: ..." to standard error, in the word's colour on a terminal."""
    screen = Screen.of(sys.stderr)
    first, *rest = screen.lines([f"{word}: {text}"])
    colour = ("red" if word == "error" else "yellow") if screen.colour else ""
    print(
        "\n".join([_coloured(f"{word}:", colour) + first.removeprefix(f"{word}:"), *rest]), file=sys.stderr, flush=True
    )


def plain(blocks: Iterable[Block]) -> list[str]:
    """Return blocks as the lines that a file gets: of any length, without colour."""
    return list(Screen(sys.stdout).lines(blocks))


def wrapped(line: str, width: int | None) -> list[str]:
    """Return a line wrapped between words; what follows is indented, as far as the text behind a label is."""
    if width is None or len(line) <= width:
        return [line]
    indent = len(line) - len(line.lstrip())
    label = re.match(r"\s*\S.*?\s{2,}(?=\S)", line)
    hang = label.end() if label and label.end() <= width // 2 else indent + 2
    return textwrap.wrap(
        line, width, subsequent_indent=" " * hang, break_long_words=False, break_on_hyphens=False,
    ) or [""]  # fmt: skip


def _framed(notice: str, width: int) -> Iterator[str]:
    yield "!" * width
    for line in textwrap.wrap(printable(notice), width - 6, break_long_words=False, break_on_hyphens=False):
        yield f"!! {line:<{width - 6}} !!"
    yield "!" * width


def _coloured(text: str, style: str) -> str:
    if not style or not text:
        return text
    from rich.style import Style

    return Style.parse(style).render(text)
