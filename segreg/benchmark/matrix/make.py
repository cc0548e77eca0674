"""Make a matrix: choose parts, check the pairs without a result in a process for each encoder, write all results."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from segreg.benchmark.matrix.record import EncoderResult, Finished, Matrix, PairResult
from segreg.benchmark.matrix.store import Store, csv_table, current_results, versions
from segreg.benchmark.pool import Send, Worker, stop, wait
from segreg.errors import SegregError, did_you_mean
from segreg.registry.entry import Family
from segreg.registry.registry import Part, Registry, load_registry
from segreg.runtime.files import write_text
from segreg.runtime.progress import Progress

ALL = "all"
"""Selects every member of every family."""


def choose_parts(registry: Registry, kind: str, patterns: Sequence[str]) -> list[Part]:
    """Return the parts whose names match one of the patterns, each once, sorted by name.

    Without patterns these are all entries and the representatives of each family; of a family without
    representatives, all members.

    Raises:
        SegregError: a pattern matches nothing, or a family names a representative that is not a member.
    """
    if not patterns:
        parts = [part for part in _every(registry, kind) if _is_representative(part)]
    else:
        parts = [part for pattern in patterns for part in _matching(registry, kind, pattern)]
    return sorted({unique_name(part, parts): part for part in parts}.values(), key=lambda part: part.name)


def unique_name(part: Part, among: Sequence[Part]) -> str:
    """Return the part's name, followed by `@` and its package if another one has the same name."""
    alone = len({other.plugin.distribution for other in among if other.name == part.name}) == 1
    return part.name if alone else f"{part.name}@{part.plugin.distribution}"


def family_of(part: Part) -> str:
    """Return the name of the family that a part is a member of, or else the package that offers it."""
    return part.offer.name if isinstance(part.offer, Family) else f"single entries of {part.plugin.distribution}"


def _every(registry: Registry, kind: str) -> list[Part]:
    parts = registry.parts(kind)
    for _, family in registry.families(kind):
        parts += [part for part in registry.parts(kind, f"{family.prefix}*") if part.offer is family]
    return parts


def _is_representative(part: Part) -> bool:
    if not isinstance(part.offer, Family) or part.offer.representatives is None:
        return True
    return part.member in set(part.offer.representatives())


def _matching(registry: Registry, kind: str, pattern: str) -> list[Part]:
    if pattern == ALL:
        return _every(registry, kind)
    bare, _, distribution = pattern.partition("@")
    found = [p for p in registry.parts(kind, bare) if not distribution or p.plugin.distribution == distribution]
    if not found:
        names = [*registry.names(kind), *registry.members(kind)]
        hint = did_you_mean(pattern.strip("*"), names) or f"`segreg list {kind}` shows every {kind}"
        raise SegregError(f'no {kind} matches "{pattern}"', hint=hint)
    return found


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
    exporter: str = "",
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
        exporter: by which pairs that work are exported too; empty: none.

    Raises:
        SegregError: the folder or a file in it can't be written.
    """
    store = Store(folder)
    store.prepare()
    now = versions(registry.plugins)
    rows, columns = (
        {unique_name(part, among): part for part in parts}
        for parts, among in ((encoders, _every(registry, "encoder")), (decoders, _every(registry, "decoder")))
    )
    earlier = {} if again else current_results(store.read(), now)[0].cells
    work = []
    for name, part in rows.items():
        if missing := tuple(decoder for decoder in columns if _is_open(earlier.get((name, decoder)), exporter)):
            plugins = [part.plugin, *(columns[decoder].plugin for decoder in missing)]
            work.append(EncoderJob(name, missing, family_of(part), versions(plugins), exporter))
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
    matrix, stale = current_results(store.read(), now)
    table = folder / "matrix.csv"
    write_text(table, csv_table(matrix))
    cells = tuple(matrix.cells[encoder, decoder] for encoder in rows for decoder in columns)
    return Made(matrix, cells, pairs, stale, (table, store.file))


def _is_open(cell: PairResult | None, exporter: str) -> bool:
    """Whether a pair is still to be checked, or to be exported."""
    return cell is None or bool(exporter and cell.ok and cell.exporter != exporter)


@dataclass(frozen=True)
class EncoderJob:
    """An encoder and the decoders to try it with, all by name.

    Attributes:
        family: under which the encoder is listed.
        versions: of the packages that they come from.
        exporter: by which pairs that work are exported; empty: none.
    """

    encoder: str
    decoders: tuple[str, ...]
    family: str
    versions: dict[str, str]
    exporter: str = ""


@dataclass
class _Running:
    """A job's process and what it has sent so far."""

    job: EncoderJob
    worker: Worker
    row: EncoderResult | None = None
    cells: list[PairResult] = field(default_factory=list)

    @property
    def missing(self) -> list[str]:
        there = {cell.decoder for cell in self.cells}
        return [name for name in self.job.decoders if name not in there]


def run(
    jobs: Sequence[EncoderJob],
    *,
    processes: int,
    timeout: float,
    finished: Callable[[Finished], None],
    advance: Callable[[str, int], None],
) -> None:
    """Run every job.

    A process that dies or sends nothing for too long loses the pair that it was at; another one continues after it.
    Where not even the encoder was built, all of its pairs fail.

    Args:
        processes: how many at a time.
        timeout: seconds that a process may take for one pair.
        finished: called with each encoder as soon as all of its pairs are known.
        advance: called with an encoder's name and how many of its pairs have finished since.
    """
    waiting = list(reversed(jobs))
    running: list[_Running] = []
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                job = waiting.pop()
                running.append(_Running(job, _start(job, timeout)))
            wait([one.worker for one in running], timeout=1.0)
            for one in list(running):
                before = len(one.cells)
                for found in one.worker.poll():
                    if isinstance(found, EncoderResult):
                        one.row = found
                    else:
                        one.cells.append(found)
                ended = one.worker.reason is not None
                if ended:
                    stop([one.worker])
                    _record_lost(one, str(one.worker.reason))
                advance(one.job.encoder, len(one.cells) - before)
                if ended and one.missing:
                    one.worker = _start(replace(one.job, decoders=tuple(one.missing)), timeout)
                elif ended:
                    running.remove(one)
                    assert one.row is not None
                    finished(Finished(one.row, tuple(one.cells), one.job.versions))
    finally:
        stop([one.worker for one in running])


def _start(job: EncoderJob, timeout: float) -> Worker:
    return Worker(_work, job.encoder, job.decoders, job.family, job.exporter, timeout=timeout)


def _record_lost(one: _Running, reason: str) -> None:
    """Record the pair that the process was at as failed, if any; all of them where the encoder was not built."""
    encoder = one.job.encoder
    if one.row is None:
        one.row = EncoderResult(encoder, one.job.family, reason=reason)
        one.cells += [PairResult(encoder, decoder, "the encoder is built", reason) for decoder in one.missing]
    else:
        one.cells += [PairResult(encoder, decoder, "it finishes", reason) for decoder in one.missing[:1]]


def _work(send: Send, encoder: str, decoders: Sequence[str], family: str, exporter: str) -> None:
    """Send the `EncoderResult`, then each `PairResult` as soon as it is known."""
    warnings.simplefilter("ignore")
    import torch

    from segreg.benchmark.matrix.trial import WHOLE, format_error, results_of
    from segreg.config.resolve import choose
    from segreg.runtime.device import prepare_process

    prepare_process()
    torch.set_num_threads(1)
    registry = load_registry()
    try:
        chosen = choose("encoder", encoder, {}, registry)
    except SegregError as error:
        send(EncoderResult(encoder, family, reason=format_error(error)))
        for name in decoders:
            send(PairResult(encoder, name, "the encoder is built", format_error(error)))
        return
    columns = []
    refused = []
    for name in decoders:
        try:
            columns.append(choose("decoder", name, {}, registry))
        except SegregError as error:
            refused.append(PairResult(encoder, name, "it is built", format_error(error)))
    for found in itertools.chain(results_of(chosen, columns, family, replace(WHOLE, exporter=exporter)), refused):
        send(found)
