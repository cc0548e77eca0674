"""Make a matrix: what is not known yet is tried, and everything that is known is written out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segreg.benchmark.matrix.choice import family_of, named
from segreg.benchmark.matrix.record import Cell
from segreg.benchmark.matrix.result import Matrix
from segreg.benchmark.matrix.running import Task, run
from segreg.benchmark.matrix.store import Known, Store, known, versions
from segreg.benchmark.matrix.table import table
from segreg.errors import SegregError
from segreg.registry.registry import Part, Registry
from segreg.runtime.files import replacing
from segreg.runtime.progress import Progress


@dataclass(frozen=True)
class Made:
    """What a call came to.

    Attributes:
        matrix: everything that is known for the installed versions, of this call and of earlier ones.
        cells: those that this call was asked for.
        tried: how many of these were tried now; the others were known.
        stale: cells in the folder that are of other versions and were left out.
        files: what was written.
    """

    matrix: Matrix
    cells: tuple[Cell, ...]
    tried: int
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
    """Try every encoder with every decoder, and write `cells.jsonl` and `matrix.csv`.

    Args:
        registry: everything that is installed, by whose versions a cell of an earlier call still holds or not.
        encoders: the rows.
        decoders: the columns.
        folder: for what is written.
        jobs: encoders that are tried at the same time, each on one core.
        timeout: seconds that one cell may take.
        again: whether what is known already is tried once more.
        progress: is told how far it is.

    Raises:
        SegregError: the folder or a file in it can't be written.
    """
    store = Store(folder)
    store.prepare()
    now = versions(registry.plugins)
    rows = {named(part, encoders): part for part in encoders}
    columns = {named(part, decoders): part for part in decoders}
    earlier = {} if again else known(store.read(), now).cells
    tasks = []
    for name, part in rows.items():
        if missing := tuple(decoder for decoder in columns if (name, decoder) not in earlier):
            plugins = [part.plugin, *(columns[decoder].plugin for decoder in missing)]
            tasks.append(Task(name, missing, family_of(part), versions(plugins)))
    tried = sum(len(task.decoders) for task in tasks)
    if tasks:
        _run(tasks, store, jobs, timeout, progress)
    found = known(store.read(), now)
    matrix = _matrix(found, now)
    cells = tuple(found.cells[encoder, decoder] for encoder in rows for decoder in columns)
    return Made(matrix, cells, tried, found.stale, (_write(matrix, folder / "matrix.csv"), store.file))


def _run(tasks: Sequence[Task], store: Store, jobs: int, timeout: float, progress: Progress) -> None:
    pairs = sum(len(task.decoders) for task in tasks)
    progress.say(f"{pairs} pairs of {len(tasks)} encoders, {jobs} at a time")
    with progress.watch("matrix", pairs, "pairs") as advance:
        run(
            tasks,
            jobs=jobs,
            timeout=timeout,
            finished=store.append,
            told=lambda encoder, count: advance(count, encoder) if count else None,
        )


def _matrix(found: Known, now: Mapping[str, str]) -> Matrix:
    rows = sorted(found.rows.values(), key=lambda row: (row.family, row.encoder))
    decoders = sorted({decoder for _, decoder in found.cells})
    return Matrix(tuple(rows), tuple(decoders), found.cells, now, found.seconds)


def _write(matrix: Matrix, file: Path) -> Path:
    try:
        with replacing(file) as aside:
            aside.write_text(table(matrix), encoding="utf-8")
    except OSError as error:
        raise SegregError(f"{file} can't be written: {error.strerror}") from None
    return file
