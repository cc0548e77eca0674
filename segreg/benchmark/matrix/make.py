"""Make a matrix: check the pairs without a result, and write all results."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segreg.benchmark.matrix.choice import family_of, unique_name
from segreg.benchmark.matrix.record import Matrix, PairResult
from segreg.benchmark.matrix.running import EncoderJob, run
from segreg.benchmark.matrix.store import Store, current_results, versions
from segreg.errors import SegregError
from segreg.registry.registry import Part, Registry
from segreg.runtime.files import replacing
from segreg.runtime.progress import Progress

COLUMNS = (
    "encoder", "decoder", "family", "ok", "check", "reason", "encoder_parameters", "decoder_parameters",
    "parameters", "channels", "strides", "native", "decoder_strides", "dilated", "notes", "seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Made:
    """The outcome of `make`.

    Attributes:
        matrix: all results with the installed versions, of this call and of earlier ones.
        cells: the requested pairs.
        checked: how many of these were checked now; the others were known.
        stale: pairs in the folder with other versions, which are not included.
        files: what was written.
    """

    matrix: Matrix
    cells: tuple[PairResult, ...]
    checked: int
    stale: int
    files: tuple[Path, ...]


def make(
    registry: Registry,
    encoders: Sequence[Part],
    decoders: Sequence[Part],
    folder: Path,
    *,
    jobs: int,
    timeout: float,
    again: bool,
    progress: Progress,
) -> Made:
    """Check every encoder with every decoder, and write `cells.jsonl` and `matrix.csv`.

    Args:
        registry: everything that is installed; results with other versions don't count.
        encoders: the rows.
        decoders: the columns.
        folder: for the files.
        jobs: encoders that are checked at the same time, each on one core.
        timeout: seconds that one pair may take.
        again: whether pairs with a result are checked once more.
        progress: reports how far it is.

    Raises:
        SegregError: the folder or a file in it can't be written.
    """
    store = Store(folder)
    store.prepare()
    now = versions(registry.plugins)
    rows = {unique_name(part, encoders): part for part in encoders}
    columns = {unique_name(part, decoders): part for part in decoders}
    earlier = {} if again else current_results(store.read(), now).matrix.cells
    work = []
    for name, part in rows.items():
        if missing := tuple(decoder for decoder in columns if (name, decoder) not in earlier):
            plugins = [part.plugin, *(columns[decoder].plugin for decoder in missing)]
            work.append(EncoderJob(name, missing, family_of(part), versions(plugins)))
    pairs = sum(len(job.decoders) for job in work)
    if work:
        progress.say(f"{pairs} pairs of {len(work)} encoders, {jobs} at a time")
        with progress.watch("matrix", pairs, "pairs") as advance:
            run(
                work,
                processes=jobs,
                timeout=timeout,
                finished=store.append,
                advance=lambda encoder, count: advance(count, encoder) if count else None,
            )
    found = current_results(store.read(), now)
    cells = tuple(found.matrix.cells[encoder, decoder] for encoder in rows for decoder in columns)
    return Made(found.matrix, cells, pairs, found.stale, (_write(found.matrix, folder / "matrix.csv"), store.file))


def _write(matrix: Matrix, file: Path) -> Path:
    try:
        with replacing(file) as aside:
            aside.write_text(csv_table(matrix), encoding="utf-8")
    except OSError as error:
        raise SegregError(f"{file} can't be written: {error.strerror}") from None
    return file


def csv_table(matrix: Matrix) -> str:
    """Return `matrix.csv`, a line for each pair; values of a field are separated by spaces, notes by semicolons."""
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
