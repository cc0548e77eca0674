"""The page of a matrix: encoders down, decoders across, and why a pair failed."""

from __future__ import annotations

from pathlib import Path

from segreg.benchmark.matrix.record import Matrix, PairResult, count_results
from segreg.reports.render import render, write
from segreg.runtime.progress import duration

LEGEND = {
    "works": ("\u2713", "ok", "every check passed, on the encoder's own levels"),
    "dilated": ("D", "ok", "every check passed; the decoder made the encoder dilate"),
    "adapted": ("R", "ok", "every check passed; some levels were resampled between encoder and decoder"),
    "fails": ("\u2717", "failed", "a check failed; the cell's title and the table below give the reason"),
    "unchecked": ("\u00b7", "unchecked", "this pair was not checked"),
}
"""Sign, colour and meaning of each kind of cell."""


def write_matrix(matrix: Matrix, file: Path) -> Path:
    """Write the page, and return the file.

    Raises:
        SegregError: the file can't be written.
    """
    return write(page(matrix), file, "page")


def page(matrix: Matrix) -> str:
    """Return the page."""
    return render(
        "matrix",
        matrix=matrix,
        counted=count_results,
        legend=LEGEND,
        kind=_kind,
        cell_title=_title,
        whole=count_results(matrix.of_rows(matrix.rows)),
        versions=[*sorted(matrix.versions.items()), ("time", f"{duration(matrix.seconds)} of one core")],
    )


def _kind(cell: PairResult | None) -> str:
    if cell is None:
        return "unchecked"
    if not cell.ok:
        return "fails"
    return "dilated" if cell.dilated else "adapted" if cell.notes else "works"


def _title(cell: PairResult | None, encoder: str, decoder: str) -> str:
    lines = [f"{encoder} with {decoder}"]
    if cell is not None:
        lines += [f"{cell.check}: {cell.reason}"] if not cell.ok else []
        lines += [f"{cell.parameters['total'] / 1e6:.1f} M parameters"] if "total" in cell.parameters else []
        lines += [f"levels of strides {', '.join(map(str, cell.strides))}"] if cell.dilated else []
        lines += cell.notes
        lines += [f"can't be exported: {cell.exports}"] if cell.exports else []
    return "\n".join(lines)
