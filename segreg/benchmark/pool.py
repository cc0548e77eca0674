"""Worker processes: a fresh one for each task, what it sends, and how it ended.

They are `multiprocessing` processes rather than a `ProcessPoolExecutor`: one killed worker breaks a whole executor, and
an executor does not report the signal, ends no single task that takes too long, and delivers nothing before the result.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from segreg.errors import SegregError, listed
from segreg.registry import local

if TYPE_CHECKING:
    from segreg.config.resolve import Resolved

Send = Callable[[Any], None]


class Worker:
    """A process that runs `target(send, *args)`; it starts at once.

    A string that it sends is its stage, which completes a sentence: "in building the network". Everything else is a
    message. What it prints goes to a log file. It gets SIGTERM when its parent ends, in whichever way.

    Args:
        target: a function that the process can import.
        args: its other arguments.
        timeout: seconds without a message or a stage after which the process is killed.
        log: file for what the process and its libraries print; None discards it.

    Attributes:
        reason: how the process ended, one sentence; None while it runs.
        exitcode: its exit status, or minus the signal that ended it; None while it runs.
    """

    def __init__(
        self, target: Callable[..., None], *args: Any, timeout: float = math.inf, log: Path | None = None
    ) -> None:
        self.reason: str | None = None
        self.exitcode: int | None = None
        self._timeout, self._heard, self._stage = timeout, time.monotonic(), ""
        self._pipe, theirs = multiprocessing.Pipe(duplex=False)
        self._open = True
        self.process = _context().Process(target=_run, args=(theirs, log, local.plugin_files(), target, args))
        # A process is given the script that runs, to import it; a script that starts a bench would start another.
        script, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
        try:
            self.process.start()
        finally:
            sys.modules["__main__"] = script
        theirs.close()

    def poll(self) -> list[Any]:
        """Return the messages since the last call, and set `reason` if the process has ended or takes too long."""
        if self.reason is not None:
            return []
        alive = self.process.is_alive()  # asked first: what an ended process has sent is all in the pipe
        messages = list(self._received())
        if not alive:
            self.exitcode = self.process.exitcode
            self.reason = how_it_ended(self.exitcode, self._stage)
        elif time.monotonic() - self._heard > self._timeout:
            self.reason = f"it took longer than {self._timeout:g} s {self._stage}".rstrip()
            stop([self])
        return messages

    def messages(self) -> Iterator[Any]:
        """Return the messages as they arrive, until the process ends."""
        while self.reason is None:
            wait([self], timeout=1.0)
            yield from self.poll()

    def waitables(self) -> list[Any]:
        """Return what becomes ready when the process sends something or ends."""
        return [self.process.sentinel, *([self._pipe] if self._open else ())]

    def close(self) -> None:
        self._open = False
        self._pipe.close()

    def _received(self) -> Iterator[Any]:
        try:
            while self._open and self._pipe.poll():
                message = self._pipe.recv()
                self._heard = time.monotonic()
                if isinstance(message, str):
                    self._stage = message
                else:
                    yield message
        except (EOFError, OSError):
            self._open = False


def wait(workers: Sequence[Worker], *, timeout: float) -> None:
    """Wait until one of the processes sends something or ends, at most `timeout` seconds."""
    connection.wait([one for worker in workers for one in worker.waitables()], timeout=timeout)


def stop(workers: Sequence[Worker], *, patience: float = 0.0) -> None:
    """End processes: by SIGTERM, on which a training stops after its epoch, and by SIGKILL after `patience` seconds."""
    if patience:
        for worker in workers:
            with contextlib.suppress(OSError):
                worker.process.terminate()
    until = time.monotonic() + patience
    for worker in workers:
        worker.process.join(max(0.0, until - time.monotonic()))
        worker.process.kill()
        worker.process.join()
        worker.close()


def check_known_to_workers(recipe: Resolved) -> None:
    """Refuse a recipe that names an entry which was registered in this process: its workers don't know it."""
    parts = [choice.part for choice in recipe.choices() if choice.part.plugin.distribution == local.REGISTERED]
    if parts:
        named = listed([f"{part.kind} {part.name}" for part in parts], quote="")
        raise SegregError(
            f"only this process knows the {named}, and models are trained and measured in processes of their own",
            hint='put the entry into a file, and name that: segreg.register("my_parts.py")',
        )


def one_line(text: str) -> str:
    """Return the first paragraph of an error's message on one line, 300 characters at most."""
    line = " ".join(text.strip().split("\n\n", maxsplit=1)[0].split())
    return line if len(line) <= 300 else f"{line[:297]}..."


def how_it_ended(exitcode: int, stage: str = "") -> str:
    """Return a sentence for an exit status; a negative one is the signal that ended the process, in its last stage."""
    where = f" {stage}" if stage else ""
    if exitcode >= 0:
        return f"its process ended with status {exitcode}{where}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = str(-exitcode)
    why = ", as where memory runs out" if name == "SIGKILL" else ""
    return f"its process was ended by signal {name}{where}{why}"


def _context() -> Any:
    """Return the context of `multiprocessing` whose processes are forks of one that has only imported libraries.

    Such a process starts quickly and with little memory, however large this one is. All callers share the one that is
    forked, so that a process starts with the same memory whoever came first. Elsewhere processes start empty.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # It imports timm and torchvision too, which takes longer than a small network's training step.
    context.set_forkserver_preload(["torch", "segmentation_models_pytorch"])
    return context


def _run(
    pipe: Connection,
    log: Path | None,
    files: Sequence[local.PluginFile],
    target: Callable[..., None],
    args: Sequence[Any],
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with (log or Path(os.devnull)).open("a", encoding="utf-8") as output:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(output.fileno(), stream.fileno())
    local.add_files(file.path for file in files)  # the process that this one is a fork of may not know them
    target(pipe.send, *args)
    pipe.close()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
