"""A training's state, taken and put back, and the files that are made of it. Of several processes one writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segreg.errors import SegregError
from segreg.runtime.distributed import is_main
from segreg.training import history
from segreg.training.checkpoint import (
    BEST,
    LAST,
    STATE,
    State,
    random_state,
    restore_random_state,
    save_state,
    save_weights,
)
from segreg.training.monitor import Monitor

if TYPE_CHECKING:
    from torch import Tensor

    from segreg.runtime.progress import Progress
    from segreg.training.setup import Training


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
    """Return the training's state. Its tensors are the live ones: it is to be saved before the next step."""
    average = training.average
    return State(
        epoch=epoch,
        seconds=seconds,
        objective=training.objective.state_dict(),
        average=average.network.state_dict() if average else None,
        average_steps=average.steps if average else 0,
        optimizer=training.optimizer.state_dict(),
        schedule=training.schedule.state_dict() if training.schedule else {},
        scaler=training.scaler.state_dict(),
        randomness=random_state(),
        monitor=monitor.name,
        best_epoch=best_epoch,
        best_value=best_value,
        epochs_without_better=epochs_without_better,
        precision=training.precision.name,
        values=values,
    )


def restore(training: Training, state: State, monitor: Monitor, progress: Progress) -> None:
    """Put everything back to where `snapshot` found it.

    Raises:
        SegregError: the state is of another network, optimizer, schedule or monitored value.
    """
    if (training.average is None) != (state.average is None):
        raise SegregError("the run to resume was started with another train.ema; resume it with its own recipe")
    if state.monitor != monitor.name:
        raise SegregError(f'the run to resume chooses by train.monitor "{state.monitor}", not by "{monitor.name}"')
    try:
        training.objective.load_state_dict(state.objective)
        if training.average and state.average is not None:
            training.average.network.load_state_dict(state.average)
            training.average.steps = state.average_steps
        training.optimizer.load_state_dict(state.optimizer)
        if training.schedule:
            training.schedule.load_state_dict(state.schedule)
    except (RuntimeError, ValueError, KeyError) as error:
        raise SegregError(
            f"the training state does not fit this recipe: {str(error).splitlines()[0]}",
            hint="a run is resumed with the recipe that it was started with",
        ) from error
    if state.scaler and training.precision.scaler:
        training.scaler.load_state_dict(state.scaler)
    if state.precision != training.precision.name:
        progress.say(f"notice: the run computed in {state.precision} so far and continues in {training.precision.name}")
    restore_random_state(state.randomness)


def begin(state: State, run_dir: Path, monitor: Monitor, notes: Mapping[str, str]) -> None:
    """Write the state that a training begins from, and cuts off what goes beyond it."""
    if not is_main():
        return
    if state.epoch == 0:
        save_state(state, run_dir / STATE)
    history.cut_after(run_dir, state.epoch)
    publish(state, run_dir, monitor, notes)


def keep(state: State, run_dir: Path, monitor: Monitor, notes: Mapping[str, str]) -> None:
    """Write down an epoch that has ended.

    The order matters to a process that is killed between two of these: a row without its state is cut off on resuming,
    and the weights files are written again from the state.
    """
    if not is_main():
        return
    history.append(run_dir, state.values)
    save_state(state, run_dir / STATE)
    publish(state, run_dir, monitor, notes)


def publish(state: State, run_dir: Path, monitor: Monitor, notes: Mapping[str, str]) -> None:
    """Write the last weights, and the best where a killed process may not have come to it, from the state."""
    if state.epoch == 0 or not is_main():
        return
    save_weights(weights_of(state), run_dir / LAST, notes=notes_of(state, monitor, notes))
    if state.best_epoch == state.epoch:
        save_weights(weights_of(state), run_dir / BEST, notes=notes_of(state, monitor, notes))


def weights_of(state: State) -> dict[str, Tensor]:
    """Return the weights of the network that was validated, under the network's own names."""
    tensors = state.objective if state.average is None else state.average
    return {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}


def notes_of(state: State, monitor: Monitor, notes: Mapping[str, str]) -> dict[str, Any]:
    """Return what a weights file says of itself: the run's notes, and the epoch that it is of."""
    return {**notes, "epoch": state.epoch, "monitor": monitor.name, "value": state.values[monitor.name]}
