"""Run a matrix: a process for each encoder, several at a time, and what happens when one ends too soon."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from segreg.benchmark.matrix.record import EncoderResult, Finished, PairResult
from segreg.benchmark.pool import Send, Worker, stop, wait


@dataclass(frozen=True)
class EncoderJob:
    """An encoder and the decoders to try it with, all by name.

    Attributes:
        encoder: its name.
        decoders: their names.
        family: under which the encoder is listed.
        versions: of the packages that they come from.
    """

    encoder: str
    decoders: tuple[str, ...]
    family: str
    versions: dict[str, str]


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
        jobs: what to run.
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
    return Worker(_work, job.encoder, job.decoders, job.family, timeout=timeout)


def _record_lost(one: _Running, reason: str) -> None:
    """Record the pair that the process was at as failed, if any; all of them where the encoder was not built."""
    encoder = one.job.encoder
    if one.row is None:
        one.row = EncoderResult(encoder, one.job.family, reason=reason)
        one.cells += [PairResult(encoder, decoder, "the encoder is built", reason) for decoder in one.missing]
    else:
        one.cells += [PairResult(encoder, decoder, "it finishes", reason) for decoder in one.missing[:1]]


def _work(send: Send, encoder: str, decoders: Sequence[str], family: str) -> None:
    """Send the `EncoderResult`, then each `PairResult` as soon as it is known."""
    warnings.simplefilter("ignore")
    import torch

    from segreg.benchmark.matrix.trial import results_of
    from segreg.config.resolve import choose
    from segreg.registry.registry import load_registry
    from segreg.runtime.device import prepare_process

    prepare_process()
    torch.set_num_threads(1)
    registry = load_registry()
    chosen = choose("encoder", encoder, {}, registry)
    for found in results_of(chosen, [choose("decoder", name, {}, registry) for name in decoders], family):
        send(found)
