"""The files of a matrix: results kept between calls, the table, and the summary on a page of the docs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from segreg.benchmark.matrix.record import EncoderResult, Finished, Matrix, PairResult, count_results
from segreg.errors import SegregError
from segreg.registry.compatibility import DISTRIBUTION, installed_version
from segreg.registry.registry import Plugin
from segreg.runtime.files import write_text
from segreg.runtime.output import csv_text
from segreg.runtime.progress import duration

PACKAGES = (DISTRIBUTION, "torch", "torchvision", "timm", "segmentation-models-pytorch")
"""Packages whose versions a result depends on, besides those that offer its encoder and its decoder."""
COLUMNS = (
    "encoder", "decoder", "family", "ok", "check", "reason", "encoder_parameters", "decoder_parameters",
    "parameters", "channels", "strides", "native", "decoder_strides", "dilated", "notes", "seconds", "exports",
    "exporter",
)  # fmt: skip
BEGIN, END = "<!-- matrix -->", "<!-- end -->"


def versions(plugins: Iterable[Plugin]) -> dict[str, str]:
    """Return the versions of these packages and of the plugins', with the sources of plugins that may be edited."""
    found = {name: version for name in PACKAGES if (version := installed_version(name))}
    for plugin in plugins:
        found[plugin.distribution] = plugin.version
        if plugin.distribution != DISTRIBUTION and not plugin.file:  # a file's version is its source already
            found[f"source of {plugin.distribution}:{plugin.name}"] = plugin.digest[:8]
    return found


@dataclass(frozen=True)
class Store:
    """The folder of a matrix."""

    folder: Path

    @property
    def file(self) -> Path:
        """The file with a line for each finished encoder; of several lines of one the last counts."""
        return self.folder / "cells.jsonl"

    def prepare(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SegregError(f"the folder {self.folder} could not be created: {error.strerror}") from None

    def read(self) -> list[Finished]:
        """Return what was finished, in the order of the file; a line that an interruption tore is skipped."""
        if not self.file.is_file():
            return []
        found = []
        for line in self.file.read_text(encoding="utf-8").splitlines():
            try:
                found.append(Finished.of_data(json.loads(line)))
            except (ValueError, KeyError, TypeError):
                continue
        return found

    def append(self, finished: Finished) -> None:
        """Add a line, which is on the disk when this returns."""
        line = json.dumps(asdict(finished), ensure_ascii=False) + "\n"
        with self.file.open("ab") as opened:
            # A line that an interruption tore must not swallow this one.
            torn = opened.tell() > 0 and not self.file.read_bytes().endswith(b"\n")
            opened.write(("\n" if torn else "").encode() + line.encode("utf-8"))
            opened.flush()
            os.fsync(opened.fileno())


def current_results(finished: Iterable[Finished], now: Mapping[str, str]) -> tuple[Matrix, int]:
    """Return the newest results with the versions `now`, and the number of pairs that have only others."""
    rows: dict[str, EncoderResult] = {}
    cells: dict[tuple[str, str], PairResult] = {}
    seconds, stale = 0.0, 0
    for one in finished:
        if any(now.get(name) != number for name, number in one.versions.items()):
            stale += len(one.cells)
            continue
        rows[one.row.encoder] = one.row
        cells |= {(cell.encoder, cell.decoder): cell for cell in one.cells}
        seconds += one.seconds
    ordered = sorted(rows.values(), key=lambda row: (row.family, row.encoder))
    decoders = sorted({decoder for _, decoder in cells})
    return Matrix(tuple(ordered), tuple(decoders), cells, now, seconds), stale


def csv_table(matrix: Matrix) -> str:
    """Return `matrix.csv`, a line for each pair; values of a field are separated by spaces, notes by semicolons."""
    lines: list[list[object]] = []
    for row in matrix.rows:
        for cell in matrix.of_encoder(row.encoder):
            numbers = cell.parameters
            lines.append([
                cell.encoder, cell.decoder, row.family, int(cell.ok), cell.check, cell.reason,
                numbers.get("encoder", row.parameters), numbers.get("decoder"), numbers.get("total"),
                " ".join(map(str, row.channels)), " ".join(map(str, row.strides)),
                "x".join(map(str, row.native or ())), " ".join(map(str, cell.strides)), int(cell.dilated),
                "; ".join(cell.notes), cell.seconds,
                "" if cell.exports is None else cell.exports or "yes", cell.exporter,
            ])  # fmt: skip
    return csv_text(COLUMNS, lines)


def write_summary(matrix: Matrix, file: Path) -> None:
    """Put the summary between the marks of a page; write a new page if there is none.

    Raises:
        SegregError: the page has no marks, or can't be read or written.
    """
    block = f"{BEGIN}\n\n{summary(matrix)}\n{END}"
    try:
        if not file.exists():
            text = f"# Matrix\n\n{block}\n"
        else:
            before, begin, rest = file.read_text(encoding="utf-8").partition(BEGIN)
            _, end, after = rest.partition(END)
            if not begin or not end:
                raise SegregError(
                    f"{file} has no place for the summary",
                    hint=f"put the lines {BEGIN} and {END} where the summary belongs, or name another file",
                )
            text = f"{before}{block}{after}"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, text)
    except OSError as error:
        raise SegregError(f"the summary {file} can't be written: {error.strerror}") from None


def summary(matrix: Matrix) -> str:
    """Return counts, exceptions with their reasons, and versions."""
    whole = count_results(matrix.of_rows(matrix.rows))
    parts = f"{len(matrix.rows)} encoders, {len(matrix.decoders)} decoders"
    lines = [
        f"{whole['ok']} of {whole['all']} pairs work: {parts}. It took {duration(matrix.seconds)} of one core.",
        "",
        ", ".join(f"{name} {number}" for name, number in sorted(matrix.versions.items())),
        "",
        "| decoder | works | of | with the encoder dilated | with levels adapted |"
        + " exports |" * bool(whole["tried"]),
        "|---|---|---|---|---|" + "---|" * bool(whole["tried"]),
    ]
    for decoder in matrix.decoders:
        of = count_results(matrix.of_decoder(decoder))
        exports = f" {of['exports']} of {of['tried']} |" if whole["tried"] else ""
        lines.append(f"| `{decoder}` | {of['ok']} | {of['all']} | {of['dilated']} | {of['adapted']} |{exports}")
    lines += ["", "| encoders | number | pairs that work | of |", "|---|---|---|---|"]
    for family, rows in matrix.families.items():
        of = count_results(matrix.of_rows(rows))
        lines.append(f"| {family} | {len(rows)} | {of['ok']} | {of['all']} |")
    if reasons := matrix.reasons():
        lines += ["", "What does not work:", "", "| encoder | decoders | check | reason |", "|---|---|---|---|"]

    def names(encoder: str, decoders: list[str]) -> str:
        every = len(decoders) == len(matrix.of_encoder(encoder))
        return "all" if every else ", ".join(f"`{decoder}`" for decoder in decoders)

    for encoder, check, reason, decoders in reasons:
        lines.append(f"| `{encoder}` | {names(encoder, decoders)} | {check} | {_escape(reason)} |")
    if missing := matrix.not_exported():
        lines += ["", "What works and can't be exported:", "", "| encoder | decoders | reason |", "|---|---|---|"]
    for encoder, reason, decoders in missing:
        lines.append(f"| `{encoder}` | {names(encoder, decoders)} | {_escape(reason)} |")
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
