"""When an epoch is written down: before the next one on a CPU, beside it where another device trains."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segreg.runtime.distributed import is_main
from segreg.training.resume import keep

if TYPE_CHECKING:
    from segreg.training.checkpoint import State
    from segreg.training.monitor import Monitor

Observer = Callable[[int, Mapping[str, float]], None]


class AsyncCheckpointer:
    """Write each epoch down and tells who observes, one epoch after the other. Of several processes one writes.

    A GPU that computes an epoch in seconds would wait as long again for the disk. So a copy in the computer's memory is
    written by a thread, and the next epoch's end waits for it. A CPU has no such time to spare, nor memory for a copy.

    Args:
        run_dir: the folder of the run's files.
        monitor: the value that chooses the best epoch.
        notes: what the weights files say of the network.
        observe: is told every epoch's number and values once they are on the disk, in the thread that trains.
        beside: whether the files are written beside the training.
    """

    def __init__(
        self, run_dir: Path, monitor: Monitor, notes: Mapping[str, str], observe: Observer | None, *, beside: bool
    ) -> None:
        self.run_dir, self.monitor, self.notes, self.observe, self.beside = run_dir, monitor, notes, observe, beside
        self._thread: threading.Thread | None = None
        self._state: State | None = None
        self._error: BaseException | None = None

    def keep(self, state: State) -> None:
        """Write down an epoch that has ended, or begins to.

        Raises:
            SegregError: the epoch before could not be written, or this one.
        """
        self.wait()
        if not is_main():
            return
        if not self.beside:
            keep(state, self.run_dir, self.monitor, self.notes)
            self._tell(state)
            return
        self._state = on_host(state)
        self._thread = threading.Thread(target=self._write, args=(self._state,), name="segreg-keeper")
        self._thread.start()

    def wait(self) -> None:
        """Wait until all is on the disk, and report the observer.

        Raises:
            SegregError: it could not be written.
        """
        if self._thread is None:
            return
        self._thread.join()
        self._thread, state, error = None, self._state, self._error
        self._state = self._error = None
        if error is not None:
            raise error
        assert state is not None
        self._tell(state)

    def _write(self, state: State) -> None:
        try:
            keep(state, self.run_dir, self.monitor, self.notes)
        except BaseException as error:  # raised where it is waited for
            self._error = error

    def _tell(self, state: State) -> None:
        if self.observe:
            self.observe(state.epoch, state.values)


def on_host(state: State) -> State:
    """Return a copy whose tensors are in the computer's memory, and no longer those that training changes."""
    return replace(state, **{field.name: _copied(getattr(state, field.name)) for field in fields(state)})


def _copied(value: Any) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return tuple(map(_copied, value)) if isinstance(value, tuple) else value
