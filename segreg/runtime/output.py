"""Standard output that outlives its reader, and text from outside made safe: to print, for CSV and as file names."""

from __future__ import annotations

import csv
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TextIO

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Control characters but for tab and newline, those of terminals included, and those that turn the direction."""


_UNWRITABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_ESCAPE = re.compile(r"\\(?:\\|n|r|x[0-9a-f]{2}|u[0-9a-f]{4})")
_FORMULA = re.compile(r"'*\s*[=+\-@]")


def printable(text: str) -> str:
    """Return text whose control characters and undecodable bytes are shown as escapes, such as `\\x1b`.

    Names of files, classes and plugins come from outside and may hold what moves a terminal's cursor.
    """
    shown = _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return shown.encode("utf-8", "backslashreplace").decode()


def csv_cell(value: Any) -> Any:
    """Return a value as it is written into a CSV file; `from_csv_cell` undoes it. Only text changes.

    Control characters, line breaks and undecodable bytes become escapes such as `\\n` and `\\udce9`, so that a row is a
    line of UTF-8. Text that begins with = + - or @ and is not a number gets an apostrophe before it: spreadsheets
    would take it for a formula.
    """
    if not isinstance(value, str):
        return value
    # A backslash that could be taken for the beginning of an escape is doubled.
    text = re.sub(r"\\(?=[\\nrtxu]|" + _UNWRITABLE.pattern + ")", r"\\\\", value)
    text = _UNWRITABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return f"'{text}" if _FORMULA.match(text) and not _is_number(text) else text


def from_csv_cell(text: str) -> str:
    """Return the text that `csv_cell` made a cell of."""
    if text.startswith("'") and _FORMULA.match(text):
        text = text[1:]
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda found: "\\" if found[0] == "\\\\" else found[0].encode().decode("unicode_escape"), text)


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any] | Sequence[Any]]) -> str:
    """Return a CSV file's header and rows, each cell by `csv_cell`; what a mapping lacks is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(csv_cell, columns))
    for row in rows:
        cells = [row.get(name) for name in columns] if isinstance(row, Mapping) else row
        writer.writerow(map(csv_cell, cells))
    return text.getvalue()


def read_csv(file: Path) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a CSV file that holds what `csv_text` returned, without empty lines.

    Raises:
        OSError: the file can't be read.
        ValueError: it is damaged.
    """
    try:
        with file.open(encoding="utf-8", errors="replace", newline="") as text:
            header, *rows = [[from_csv_cell(cell) for cell in row] for row in csv.reader(text) if row] or [[]]
    except csv.Error as error:
        raise ValueError(str(error)) from error
    return header, rows


def as_file_name(text: str) -> str:
    """Return text as the name of a file or folder, or a part of one: letters, digits and `_ . -`, 200 bytes at most."""
    return re.sub(r"[^\w.-]+", "_", text)[:80].encode()[:200].decode(errors="ignore")


def as_folder_names(given: Sequence[str]) -> list[str]:
    """Return the name of a folder for each text; a number is put before them where they would not differ."""
    names = [as_file_name(text).strip(".") or "_" for text in given]
    if len({name.casefold() for name in names}) < len(names):
        names = [f"{number}_{name}" for number, name in enumerate(names)]
    return names


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class PatientOutput(io.FileIO):
    """A file that keeps the first error of writing and drops what is written after it.

    A training does not stop because the reader of its progress has left (`segreg run ... | head`).
    """

    lost: OSError | None = None

    def write(self, data: object) -> int:
        """Write, or drop what can't be written any more."""
        view = memoryview(data)  # type: ignore[arg-type]
        if self.lost is None:
            try:
                return super().write(view)
            except OSError as error:
                self.lost = error
        return view.nbytes


def keep_standard_output() -> PatientOutput | None:
    """Put standard output behind a `PatientOutput`; None where it is not the process's own, as in tests."""
    if sys.stdout is None:  # closed by `>&-`
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - for the life of the process
        return None
    stream = sys.stdout
    # PYTHONUNBUFFERED leaves out the buffer.
    if not isinstance(stream, io.TextIOWrapper) or not isinstance(
        getattr(stream.buffer, "raw", stream.buffer), io.FileIO
    ):
        return None
    stream.flush()
    raw = PatientOutput(stream.fileno(), "wb", closefd=False)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    return raw


def is_process_output(stream: object) -> bool:
    """Whether a stream writes to the process's own standard output."""
    try:
        return bool(stream.fileno() == 1)  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False


@cache
def say_once(text: str) -> None:
    """Print a note on standard error, unless it was printed before."""
    print(text, file=sys.stderr)


def output_to_error() -> AbstractContextManager[None]:
    """Let what is printed go to standard error for a while, also what C code and child processes print."""
    return output_into(2, sys.stderr)


@contextmanager
def output_into(descriptor: int, stand_in: Any) -> Iterator[None]:
    """Let what is printed go to an open file for a while, also what C code and child processes print.

    Args:
        descriptor: the file's.
        stand_in: a stream that replaces `sys.stdout` where that is not the process's own, as in a notebook or a test.
    """
    stream, saved = sys.stdout, None
    flush(stream)
    with suppress(OSError):  # one of them is closed
        saved = os.dup(1)
        os.dup2(descriptor, 1)
    if not is_process_output(stream):
        sys.stdout = stand_in
    try:
        yield
    finally:
        flush(stream)
        if saved is not None:
            os.dup2(saved, 1)
            os.close(saved)
        sys.stdout = stream


def flush(stream: TextIO) -> None:
    """Flush a stream, unless it is closed or there is none."""
    with suppress(OSError, ValueError, AttributeError):
        stream.flush()
