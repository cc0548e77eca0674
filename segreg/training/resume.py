"""Capture and restore the state of a training, and write its files. Of several processes the main one writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segreg.errors import SegregError
from segreg.models.trained import BASE
from segreg.runtime.distributed import count, is_main
from segreg.training import history
from segreg.training.checkpoint import (
    ADAPTER,
    BEST,
    LAST,
    STATE,
    State,
    copy_weights,
    random_state,
    restore_random_state,
    save_state,
    save_weights,
)
from segreg.training.monitor import Monitor

if TYPE_CHECKING:
    from segreg.runtime.progress import Progress
    from segreg.training.setup import Training


@dataclass(frozen=True)
class Output:
    """Where a training's results go.

    Attributes:
        run_dir: an existing folder for the checkpoints and the history.
        notes: what the headers of the weights files say about the network.
        trained: names of the tensors that are trained, where not all of the network are.
        base: identifies the other ones; `fit` finds it.
        observe: called with every epoch's number and values once they are on disk; on a GPU that is an epoch later.
    """

    run_dir: Path
    notes: Mapping[str, str] = field(default_factory=dict)
    trained: tuple[str, ...] = ()
    base: str = ""
    observe: Callable[[int, Mapping[str, float]], None] | None = None


def snapshot(
    training: Training,
    monitor: Monitor,
    *,
    epoch: int,
    seconds: float,
    values: dict[str, float],
    best_epoch: int = 0,
    best_value: float | None = None,
    epochs_without_better: int = 0,
) -> State:
    """Return the training's state. Its tensors are the live ones: save it before the next step."""
    average = training.average
    return State(
        epoch=epoch,
        seconds=seconds,
        objective=training.objective.state_dict(),
        ema=average.network.state_dict() if average else None,
        ema_steps=average.steps if average else 0,
        optimizer=training.optimizer.state_dict(),
        schedule=training.schedule.state_dict() if training.schedule else {},
        scaler=training.scaler.state_dict(),
        random_state=random_state(),
        monitor=monitor.name,
        best_epoch=best_epoch,
        best_value=best_value,
        epochs_without_better=epochs_without_better,
        precision=training.precision.name,
        values=values,
    )


def restore(training: Training, state: State, monitor: Monitor, progress: Progress) -> None:
    """Restore everything as `snapshot` captured it.

    Raises:
        SegregError: the state belongs to another network, optimizer, schedule or monitored value.
    """
    average = training.swa if training.swa and state.epoch >= training.swa.start else training.ema
    if (average is None) != (state.ema is None):
        message = "the run to resume was started with another train.ema or train.swa_start"
        raise SegregError(f"{message}; resume it with its own recipe")
    if state.monitor != monitor.name:
        raise SegregError(f'the run to resume chooses by train.monitor "{state.monitor}", not by "{monitor.name}"')
    try:
        training.objective.load_state_dict(state.objective)
        if average and state.ema is not None:
            average.network.load_state_dict(state.ema)
            average.steps = state.ema_steps
        training.optimizer.load_state_dict(state.optimizer)
        if training.schedule:
            training.schedule.load_state_dict(state.schedule)
    except (RuntimeError, ValueError, KeyError) as error:
        raise SegregError(
            f"the training state does not fit this recipe: {str(error).splitlines()[0]}",
            hint="resume a run with the recipe that it was started with",
        ) from error
    if state.scaler and training.precision.scaler:
        training.scaler.load_state_dict(state.scaler)
    if state.precision != training.precision.name:
        progress.say(f"notice: the run computed in {state.precision} so far and continues in {training.precision.name}")
    if count() == 1:  # BatchNorm's statistics are those of micro-batches
        training.micro_batches = int(state.values.get("micro_batches", 1))
    restore_random_state(state.random_state)


def begin(state: State, output: Output, monitor: Monitor) -> None:
    """Write the state that a training starts from or is left at, and remove what is newer than it.

    Raises:
        SegregError: the best weights are those of an epoch before, and they are missing.
    """
    if not is_main():
        return
    best = output.run_dir / BEST
    if state.best_epoch not in (0, state.epoch) and not best.exists():
        raise SegregError(
            f"{best} is missing: epoch {state.best_epoch} was the best, and nothing else has its weights",
            hint="no epoch was trained. Copy the file back; or a new run begins from the last weights with "
            f"train.start_from={output.run_dir}",
        )
    if state.epoch == 0:
        save_state(state, output.run_dir / STATE)
    history.cut_after(output.run_dir, state.epoch)
    publish(state, output, monitor)


def save_epoch(state: State, output: Output, monitor: Monitor) -> None:
    """Write a finished epoch to disk.

    The order matters to a process that is killed between two of these: a row without its state is removed on resuming,
    and the weights files are written again from the state.
    """
    if not is_main():
        return
    history.append(output.run_dir, state.values)
    save_state(state, output.run_dir / STATE)
    publish(state, output, monitor)


def publish(state: State, output: Output, monitor: Monitor) -> None:
    """Write the last weights, and the best where this epoch is the best, from the state."""
    if state.epoch == 0:
        return
    tensors = state.objective if state.ema is None else state.ema
    weights = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    notes = {**output.notes, "epoch": state.epoch, "monitor": monitor.name, "value": state.values[monitor.name]}
    save_weights(weights, output.run_dir / LAST, notes=notes)
    if state.best_epoch == state.epoch:
        copy_weights(output.run_dir / LAST, output.run_dir / BEST)
    if output.trained and state.best_epoch in (0, state.epoch):
        trained = {name: weights[name] for name in output.trained}
        save_weights(trained, output.run_dir / ADAPTER, notes={**notes, BASE: output.base})


class AsyncCheckpointer:
    """Save each epoch and call the observer, one epoch after the other. Of several processes the main one writes.

    A GPU that computes an epoch in seconds would wait as long again for the disk. So a thread writes a copy in the
    computer's memory, and the end of the next epoch waits for it. A CPU has neither time nor memory to spare for that.

    Args:
        output: where the files go, and the observer, which is called in the thread that trains.
        monitor: the value that chooses the best epoch.
        in_background: whether a thread writes the files.
    """

    def __init__(self, output: Output, monitor: Monitor, *, in_background: bool) -> None:
        self.output, self.monitor, self.in_background = output, monitor, in_background
        self._writer = ThreadPoolExecutor(1, "segreg-checkpointer")
        self._pending: tuple[State, Future[None]] | None = None
        self._observed = 0.0

    def __enter__(self) -> AsyncCheckpointer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for the last finished epoch where the one after it has failed."""
        if kind is not None and issubclass(kind, Exception):
            self.wait()

    def save(self, state: State) -> None:
        """Save a finished epoch, or start to.

        Raises:
            SegregError: the epoch before could not be written, or this one.
        """
        self.wait()
        if not is_main():
            return
        if not self.in_background:
            save_epoch(state, self.output, self.monitor)
            self._observe(state)
            return
        # A copy in the computer's memory, which no longer changes with training.
        state = replace(state, **{field.name: _copied(getattr(state, field.name)) for field in fields(state)})
        self._pending = state, self._writer.submit(save_epoch, state, self.output, self.monitor)

    def wait(self) -> None:
        """Wait until everything is on disk, and call the observer.

        Raises:
            SegregError: it could not be written.
        """
        if self._pending is None:
            return
        state, writing = self._pending
        wait([writing])
        self._pending = None
        writing.result()  # raises what the thread raised
        self._observe(state)

    def observed(self) -> float:
        """Return the seconds that the observer took since the last call: what it waits for is not training."""
        seconds, self._observed = self._observed, 0.0
        return seconds

    def _observe(self, state: State) -> None:
        if self.output.observe:
            begun = time.perf_counter()
            self.output.observe(state.epoch, state.values)
            self._observed += time.perf_counter() - begun


def _copied(value: Any) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return tuple(map(_copied, value)) if isinstance(value, tuple) else value
