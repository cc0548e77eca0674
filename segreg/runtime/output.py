"""Standard output that outlives its reader, and text for it: safe to print, in columns."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Control characters but for tab and newline, those of terminals included, and those that turn the direction."""


def printable(text: str) -> str:
    """Return text whose control characters and undecodable bytes are shown as escapes, such as `\\x1b`.

    Names of files, classes and plugins come from outside and may hold what moves a terminal's cursor.
    """
    shown = _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return shown.encode("utf-8", "backslashreplace").decode()


def aligned(rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> list[str]:
    """Return a line for each row, its cells in columns as wide as their widest cell.

    Args:
        rows: of as many cells each.
        right: the columns whose cells are aligned to the right, counted from 0.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


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


@contextmanager
def output_to_error() -> Iterator[None]:
    """Let what is printed go to standard error for a while, also what C code and child processes print."""
    stream, saved = sys.stdout, None
    with suppress(OSError, ValueError):
        stream.flush()
    with suppress(OSError):  # one of them is closed
        saved = os.dup(1)
        os.dup2(2, 1)
    if not is_process_output(stream):
        sys.stdout = sys.stderr
    try:
        yield
    finally:
        with suppress(OSError, ValueError):
            stream.flush()
        if saved is not None:
            os.dup2(saved, 1)
            os.close(saved)
        sys.stdout = stream
