"""A matrix as a table: a line for each cell."""

from __future__ import annotations

import csv
import io

from segreg.benchmark.matrix.result import Matrix

COLUMNS = (
    "encoder", "decoder", "family", "ok", "check", "reason", "encoder_parameters", "decoder_parameters",
    "parameters", "channels", "strides", "native", "decoder_strides", "dilated", "notes", "seconds",
)  # fmt: skip


def table(matrix: Matrix) -> str:
    """Return `matrix.csv`. Several values of one field have blanks between them, notes semicolons."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in matrix.rows:
        for cell in matrix.of_encoder(row.encoder):
            numbers = cell.parameters
            writer.writerow([
                cell.encoder, cell.decoder, row.family, int(cell.ok), cell.check, cell.reason,
                numbers.get("encoder", row.parameters), numbers.get("decoder"), numbers.get("total"),
                " ".join(map(str, row.channels)), " ".join(map(str, row.strides)),
                "x".join(map(str, row.native or ())), " ".join(map(str, cell.strides)), int(cell.dilated),
                "; ".join(cell.notes), cell.seconds,
            ])  # fmt: skip
    return text.getvalue()
