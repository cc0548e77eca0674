"""Reading a table's rows with their line numbers: CSV with a header, or JSON lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from segreg.errors import Place, SegregError, listed

JSON_LINES = (".jsonl", ".ndjson")


@dataclass(frozen=True)
class TableRow:
    """One row: the line where it begins, and its values by column, as strings."""

    line: int
    values: Mapping[str, str]


def read_table(file: Path) -> tuple[list[str], list[TableRow]]:
    """Return the columns in their order, and the rows. Blank lines are skipped.

    Raises:
        SegregError: the file can't be read, or is no such table; the message has the line.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")  # spreadsheets begin a file with a byte order mark
    except OSError as error:
        raise SegregError(f"manifest: {file} can't be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        line = file.read_bytes()[: error.start].count(b"\n") + 1
        raise SegregError(f"{file}:{line}: is not a UTF-8 text", hint="save the table as UTF-8") from None
    if not text.strip():
        raise SegregError(f"{file}: is empty")
    return _from_json_lines(file, text) if file.suffix.lower() in JSON_LINES else _from_csv(file, text)


def _from_csv(file: Path, text: str) -> tuple[list[str], list[TableRow]]:
    first = next(line for line in text.splitlines() if line.strip())
    if first.lstrip().startswith("{"):
        raise SegregError(f"{file}: holds JSON", hint="name it .jsonl if each line is one object")
    # A semicolon or tab never stands in a header for any other reason; a comma may, inside quotes.
    delimiter = next((mark for mark in ("\t", ";") if mark in first), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    rows: list[TableRow] = []
    begins = 1
    try:
        for values in reader:
            line, begins = begins, reader.line_num + 1
            if not any(value.strip() for value in values):
                continue
            if not header:
                header = _checked_header(file, line, [value.strip() for value in values])
            elif len(values) != len(header):
                raise SegregError(
                    f"has {len(values)} fields, and the header has {len(header)}: {listed(header)}",
                    place=Place(str(file), line),
                    hint='a field that holds a delimiter stands in "quotes"',
                )
            else:
                rows.append(TableRow(line, dict(zip(header, values, strict=True))))
    except csv.Error as error:
        raise SegregError(f"is not a CSV ({error})", place=Place(str(file), begins)) from None
    return header, rows


def _checked_header(file: Path, line: int, header: list[str]) -> list[str]:
    lowered = [name.lower() for name in header]
    twice = sorted({name for name in header if name and lowered.count(name.lower()) > 1})
    if twice:
        raise SegregError(f"the header has {listed(twice)} twice", place=Place(str(file), line))
    return header


def _from_json_lines(file: Path, text: str) -> tuple[list[str], list[TableRow]]:
    header: dict[str, None] = {}
    rows: list[TableRow] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = Place(str(file), number)
        try:
            item = json.loads(line)
        except json.JSONDecodeError as error:
            hint = "each line holds one whole object" if number == 1 else ""
            raise SegregError(
                f"is not a JSON ({error.msg})", place=Place(str(file), number, error.colno), hint=hint
            ) from None
        if not isinstance(item, dict):
            raise SegregError("holds no JSON object", place=place, hint='such as {"image": "a.png", "mask": "b.png"}')
        header |= dict.fromkeys(item)
        plain = {key: value for key, value in item.items() if not isinstance(value, (dict, list))}
        rows.append(TableRow(number, {key: "" if value is None else str(value) for key, value in plain.items()}))
    return list(header), rows
