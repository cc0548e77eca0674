"""The history of a run, one row per epoch: `history.jsonl` for programs, `history.csv` for spreadsheets."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from segreg.errors import SegregError
from segreg.runtime.files import cannot_read, cannot_write, finite, write_text
from segreg.runtime.output import csv_text

JSON_LINES = "history.jsonl"
CSV = "history.csv"

Row = Mapping[str, float]


def append(run_dir: Path, row: Row) -> None:
    """Add a row to both files and wait until it is on disk.

    A value that is not finite is `null` in the JSON lines and empty in the CSV.

    Raises:
        SegregError: the disk refuses it.
    """
    try:
        with (run_dir / JSON_LINES).open("a", encoding="utf-8", newline="") as file:
            file.write(_json_line(row))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise cannot_write(error, run_dir / JSON_LINES) from None
    _write_csv(run_dir, read(run_dir))


def read(run_dir: Path) -> list[dict[str, float]]:
    """Return every row; NaN where a value was not finite. A last line that a crash cut short is skipped.

    Raises:
        SegregError: a line is not a row; the message has its number.
    """
    path = run_dir / JSON_LINES
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise cannot_read(error, path, "a row of JSON for each epoch") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            _number(row.get("epoch"))
            rows.append({name: math.nan if value is None else _number(value) for name, value in row.items()})
        except (ValueError, AttributeError, RecursionError):
            if number == len(lines) and not line.endswith("\n"):
                break
            raise SegregError(f"{path}:{number}: not a row of a history") from None
    return rows


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("not a number")
    return value


def cut_after(run_dir: Path, epoch: int) -> None:
    """Remove the rows of later epochs, which a killed run wrote without their checkpoint."""
    if not (run_dir / JSON_LINES).exists():
        return
    _write(run_dir, [row for row in read(run_dir) if row["epoch"] <= epoch])


def add_to_last(run_dir: Path, numbers: Row) -> None:
    """Add numbers to those of the last row."""
    *rows, last = read(run_dir)
    _write(run_dir, [*rows, {**last, **{name: last.get(name, 0.0) + number for name, number in numbers.items()}}])


def _write(run_dir: Path, rows: Sequence[Row]) -> None:
    write_text(run_dir / JSON_LINES, "".join(map(_json_line, rows)))
    _write_csv(run_dir, rows)


def _json_line(row: Row) -> str:
    return json.dumps(finite(row)) + "\n"


def _write_csv(run_dir: Path, rows: Iterable[Row]) -> None:
    columns = dict.fromkeys(name for row in rows for name in row)
    write_text(run_dir / CSV, csv_text(list(columns), (finite(row) for row in rows)))
