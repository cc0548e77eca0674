"""Does a job in a process of its own, and report how one ended that did not come to its end."""

from __future__ import annotations

import multiprocessing
from typing import Any

from segreg.benchmark.cost.record import At, Failed, Job, Needed, Sample, Subject
from segreg.benchmark.cost.worker import work
from segreg.benchmark.pool import how_it_ended, processes


def in_a_process(subject: Subject, job: Job, *, timeout: float) -> Sample | Needed | Failed:
    """Return what a new process finds, which has ended by then.

    Where the system can, it is a fork of one that has imported PyTorch and done nothing else: its memory begins small,
    however large this process is.

    Args:
        subject: the network.
        job: what to do with it.
        timeout: seconds after which a process that tells nothing new is ended.
    """
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = processes().Process(target=work, args=(theirs, subject, job), daemon=True)
    process.start()
    theirs.close()
    stage = ""
    try:
        while ours.poll(timeout):
            told: Any = ours.recv()
            if not isinstance(told, At):
                process.join(timeout)
                return told
            stage = told.stage
    except (EOFError, OSError):
        process.join()
        return Failed(how_it_ended(process.exitcode, stage))
    finally:
        process.kill()
        process.join()
        ours.close()
    return Failed(f"it took longer than {timeout:g} s {stage}".rstrip())
