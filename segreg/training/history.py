"""The history of a run, one row per epoch: `history.jsonl` for programs, `history.csv` for spreadsheets."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from segreg.errors import SegregError
from segreg.runtime.files import replacing

JSON_LINES = "history.jsonl"
CSV = "history.csv"

Row = Mapping[str, float]


def append(run_dir: Path, row: Row) -> None:
    """Add a row to both files and wait until it is on disk.

    A value that is not finite is `null` in the JSON lines and empty in the CSV.
    """
    header = _csv_header(run_dir / CSV)
    _append_text(run_dir / JSON_LINES, json.dumps(_finite(row)) + "\n")
    if header == list(row):
        _append_text(run_dir / CSV, _csv([row], header=False))
    else:
        _write_csv(run_dir, read(run_dir))


def read(run_dir: Path) -> list[dict[str, float]]:
    """Return every row; NaN where a value was not finite. A last line that a crash cut short is skipped.

    Raises:
        SegregError: a line is not a row; the message has its number.
    """
    path = run_dir / JSON_LINES
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            rows.append({name: math.nan if value is None else value for name, value in row.items()})
        except (ValueError, AttributeError):
            if number == len(lines) and not line.endswith("\n"):
                break
            raise SegregError(f"{path}:{number}: not a row of a history") from None
    return rows


def cut_after(run_dir: Path, epoch: int) -> None:
    """Remove the rows of later epochs, which a killed run wrote without their checkpoint."""
    if not (run_dir / JSON_LINES).exists():
        return
    rows = [row for row in read(run_dir) if row["epoch"] <= epoch]
    with replacing(run_dir / JSON_LINES) as path:
        path.write_text("".join(json.dumps(_finite(row)) + "\n" for row in rows), encoding="utf-8")
    _write_csv(run_dir, rows)


def _finite(row: Row) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in row.items()}


def _csv_header(path: Path) -> list[str] | None:
    if not path.exists():
        return None
    with path.open(encoding="utf-8", newline="") as file:
        return next(csv.reader(file), None)


def _csv(rows: Iterable[Row], *, header: bool) -> str:
    rows = list(rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    for row in rows:
        writer.writerow({name: value for name, value in _finite(row).items() if value is not None})
    return text.getvalue()


def _write_csv(run_dir: Path, rows: Iterable[Row]) -> None:
    with replacing(run_dir / CSV) as path:
        path.write_text(_csv(rows, header=True), encoding="utf-8")


def _append_text(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
