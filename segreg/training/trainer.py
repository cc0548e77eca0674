"""Training: epochs of steps, a validation after each, and a checkpoint that any process can continue from.

It reads from top to bottom: `fit`, then an epoch, then its two passes. Every place where the CPU waits for the
device says "sync". What takes part is made in `prepare`; what is saved is gathered in `resume`. Several processes run
the same lines side by side: a step of theirs is `in_step`'s, and what one of them knows comes to all `from_main`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import nn

from segreg.errors import SegregError, listed
from segreg.evaluation.distributed import compute_over_processes, disable_sync
from segreg.runtime import distributed
from segreg.runtime.device import Precision, seed_everything
from segreg.runtime.distributed import as_main_has, from_main
from segreg.runtime.progress import Progress, Quiet, duration
from segreg.training.async_checkpointer import AsyncCheckpointer
from segreg.training.checkpoint import BEST, LAST, STATE, State, load_state
from segreg.training.compiling import compile_if_worth_it
from segreg.training.gradients import add_gradients
from segreg.training.loss import Objective
from segreg.training.loss_meter import WAYS_OUT, LossMeter
from segreg.training.micro_batches import eval_in_micro_batches, micro_batches_that_fit
from segreg.training.monitor import TOTAL, Monitor, better, choose_monitor, metric_directions, named
from segreg.training.resume import begin, publish, restore, snapshot
from segreg.training.setup import Training, freeze_encoder, prepare, to_device
from segreg.training.step import in_step, interrupts
from segreg.training.timing import SECONDS

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torchmetrics import MetricCollection

    from segreg.config.sections import Train
    from segreg.data.loader import BatchLoader
    from segreg.registry.protocols import Schedule

Reason = Literal["finished", "early stopping", "time budget", "interrupted"]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        epochs: epochs finished.
        stopped_because: why it stopped.
        monitor: name of the value that chose the best epoch.
        best_epoch: that epoch; 0 where the value was never defined.
        best_value: the value there.
        seconds: time of all epochs, in all processes.
        values: the last row of the history.
        weights: the best epoch's weights, or the last one's where there is no best; None before the first epoch's end.
    """

    epochs: int
    stopped_because: Reason
    monitor: str
    best_epoch: int
    best_value: float | None
    seconds: float
    values: Mapping[str, float]
    weights: Path | None


def fit(
    objective: Objective,
    *,
    train: BatchLoader,
    val: BatchLoader,
    metrics: MetricCollection,
    build_optimizer: Callable[[Sequence[dict[str, Any]]], Optimizer],
    build_schedule: Callable[[Optimizer, int, int], Schedule | None],
    settings: Train,
    device: torch.device,
    precision: Precision,
    run_dir: Path,
    seed: int,
    notes: Mapping[str, str] | None = None,
    observe: Callable[[int, Mapping[str, float]], None] | None = None,
    progress: Progress | None = None,
    resume: State | None = None,
) -> Outcome:
    """Train until the epochs, the patience or the time is used up.

    After every epoch `run_dir` holds the training state, a row more in the history, and the best and last weights. On a
    CPU, a run that was killed and resumed ends with the same weights, bit for bit. Several processes, each with its
    share of the batches, give the same outcome; the main one writes.

    Args:
        objective: the network and its losses; it is moved to the device.
        train: batches to learn from.
        val: batches to validate on; may be empty, and then `settings.monitor` is a training value.
        metrics: metrics that compute named values.
        build_optimizer: makes the optimizer of parameter groups; partial application of an optimizer entry.
        build_schedule: makes the schedule of optimizer, steps per epoch and epochs; None keeps the rates.
        settings: the recipe's `train` section.
        device: where to compute.
        precision: in which precision.
        run_dir: an existing folder for the checkpoints and the history.
        seed: seed of dropout and everything else that is drawn in training.
        notes: what the weights files say of the network in their headers.
        observe: is told every epoch's number and values once they are on the disk; on a GPU that is an epoch later.
        progress: is told what happens.
        resume: the state to continue from.

    Raises:
        SegregError: the monitored value does not exist, a loss or a weight is no longer finite, a part named in
            `lr_factors` does not exist, or the state does not fit.
    """
    progress = progress or Quiet()
    notes = notes or {}
    seed_everything(seed)
    metrics = disable_sync(metrics.to(device))
    training = prepare(
        objective,
        steps_per_epoch=-(-len(train) // settings.accumulate),
        build_optimizer=build_optimizer,
        build_schedule=build_schedule,
        settings=settings,
        device=device,
        precision=precision,
        seed=seed,
    )
    monitor = choose_monitor(settings.monitor, from_main(lambda: directions(training, val, metrics)))
    if resume:
        restore(training, resume, monitor, progress)
    state = resume or snapshot(training, monitor, epoch=0, seconds=0.0, values={})
    begin(state, run_dir, monitor, notes)
    choose_micro_batches(training, train, progress)
    compile_if_worth_it(training, settings.epochs - state.epoch, progress.say)
    training.stopwatch.restart()
    keeper = AsyncCheckpointer(run_dir, monitor, notes, observe, beside=device.type != "cpu")
    reason: Reason | None
    try:
        with interrupts(training):
            while (reason := reason_to_stop(state, settings)) is None:
                state = run_epoch(
                    training,
                    state,
                    train=train,
                    val=val,
                    metrics=metrics,
                    monitor=monitor,
                    keeper=keeper,
                    progress=progress,
                )
            keeper.wait()
    except KeyboardInterrupt:
        # What is in memory is half an epoch; what counts is on the disk.
        keeper.wait()
        reason, state = "interrupted", from_main(lambda: load_state(run_dir / STATE))
        progress.say(
            f"interrupted in epoch {state.epoch + 1}; {state.epoch} finished. Go on with: segreg run --resume {run_dir}"
        )
        publish(state, run_dir, monitor, notes)
    return Outcome(
        epochs=state.epoch,
        stopped_because=reason,
        monitor=monitor.name,
        best_epoch=state.best_epoch,
        best_value=None if state.best_value is None else monitor.plain(state.best_value),
        seconds=state.seconds,
        values=state.values,
        weights=run_dir / (BEST if state.best_epoch else LAST) if state.epoch else None,
    )


def choose_micro_batches(training: Training, train: BatchLoader, progress: Progress) -> None:
    """Let each batch be computed in the parts that fit into memory, where `train.batch_size` is `auto`."""
    if training.settings.batch_size != "auto" or distributed.count() > 1:
        return
    batch = next(iter(train.epoch(1)))
    training.parts = micro_batches_that_fit(training, to_device(batch, training))
    whole = f"batches of {len(batch.images)}"
    progress.say(f"{whole}, computed at once" if training.parts == 1 else f"{whole}, in {training.parts} parts")


def reason_to_stop(state: State, settings: Train) -> Reason | None:
    """Return why no further epoch is trained, or None."""
    if state.epoch >= settings.epochs:
        return "finished"
    if settings.early_stopping and state.epochs_without_better >= settings.early_stopping:
        return "early stopping"
    if settings.time_budget_minutes and state.seconds > settings.time_budget_minutes * 60:
        return "time budget"
    return None


def run_epoch(
    training: Training,
    before: State,
    *,
    train: BatchLoader,
    val: BatchLoader,
    metrics: MetricCollection,
    monitor: Monitor,
    keeper: AsyncCheckpointer,
    progress: Progress,
) -> State:
    """Trains and validates one epoch, writes it down, and return the state after it."""
    started = time.monotonic()
    epoch = before.epoch + 1
    rates = {f"lr.{group['name']}": float(group["lr"]) for group in training.optimizer.param_groups}

    trained, images = train_pass(training, train, epoch, progress)
    train_seconds = time.monotonic() - started
    check_finite(training.objective, epoch)
    with training.stopwatch.stage("validation"):
        validated = validation_pass(training, val, metrics, epoch, progress) if len(val) else {}
    seconds = time.monotonic() - started
    # Of the main process, so that all take the same decisions.
    values, train_seconds, seconds = from_main(lambda: ({**trained, **validated}, train_seconds, seconds))

    value = monitor.oriented(values)
    if epoch_end := getattr(training.schedule, "epoch_end", None):
        epoch_end(value)
    is_best = better(value, before.best_value)
    spent = training.stopwatch.read().whole  # sync
    training.stopwatch.restart()
    speed = {
        "images_per_second": images / train_seconds,
        "seconds": seconds,
        "parts": training.parts,
        **{SECONDS + stage: took for stage, took in spent.items()},
    }
    state = snapshot(
        training,
        monitor,
        epoch=epoch,
        seconds=before.seconds + seconds,
        best_epoch=epoch if is_best else before.best_epoch,
        best_value=value if is_best else before.best_value,
        epochs_without_better=0 if is_best else before.epochs_without_better + 1,
        values={"epoch": epoch, **rates, **values, **speed},
    )
    with training.stopwatch.stage("checkpoint"):
        keeper.keep(state)
    progress.say(in_words(state, training.settings, monitor, is_best=is_best))
    return state


def train_pass(training: Training, train: BatchLoader, epoch: int, progress: Progress) -> tuple[dict[str, float], int]:
    """Take one optimizer step for every `accumulate` batches; return the mean losses and the number of images."""
    settings, optimizer, scaler, watch = training.settings, training.optimizer, training.scaler, training.stopwatch
    training.objective.train()
    freeze_encoder(training, frozen=epoch <= settings.freeze_encoder_epochs)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    tally = LossMeter(f"training, epoch {epoch}", training.device)
    speak = Speaker(tally.read_all)
    step = in_step(training, epoch)

    with progress.watch(f"epoch {epoch}/{settings.epochs}", len(train), "batches") as advance:
        for group in groups_of(settings.accumulate, watch.waiting_for(train.epoch(epoch))):
            for batch, terms in zip(group, add_gradients(training, step, group, progress.say), strict=True):
                tally.add(terms, batch.ids)
            advance(len(group), speak() if step.agreed(due=speak.due()) else None)  # sync, at most once a second
            with watch.stage("optimizer"):
                if settings.clip_gradient_norm is not None:
                    scaler.unscale_(optimizer)
                    nn.utils.clip_grad_norm_(parameters, settings.clip_gradient_norm)
                scaler.step(optimizer)  # sync with fp16 and an optimizer that is not fused: was a gradient infinite?
                scaler.update()
                optimizer.zero_grad(set_to_none=True)
                if training.schedule:
                    training.schedule.step()
                if training.average:
                    training.average.update(training.objective)
        losses, seen = tally.read_all()  # sync, once an epoch
    if not losses:
        raise SegregError("there is not one batch to train on", hint="see the split and train.batch_size")
    return named("train", losses), seen


@torch.no_grad()
def validation_pass(
    training: Training, val: BatchLoader, metrics: MetricCollection, epoch: int, progress: Progress
) -> dict[str, float]:
    """Return the validation's mean losses and its metrics."""
    network = training.eval_model.eval()
    as_main_has(network.buffers())  # BatchNorm's statistics are each process's own
    tally = LossMeter(f"validation, epoch {epoch}", training.device)
    speak = Speaker(lambda: (tally.read(), tally.images))
    metrics.reset()
    with progress.watch(f"epoch {epoch}/{training.settings.epochs} validation", len(val), "batches") as advance:
        for batch in val.epoch(0):
            images, targets = to_device(batch, training)
            terms, logits = eval_in_micro_batches(training, images, targets, progress.say)
            metrics.update(logits, targets.long())
            tally.add(terms, batch.ids)
            advance(1, speak() if speak.due() else None)  # sync, at most once a second
        losses, _ = tally.read_all()  # sync, once an epoch
    return {**named("val", losses), **{f"val.{name}": value for name, value in compute_over_processes(metrics).items()}}


class Speaker:
    """Return the words beside the bar, which are due at most once a second because they wait for the device."""

    def __init__(self, read: Callable[[], tuple[dict[str, float], int]]) -> None:
        self.read = read
        self.started = self.spoke = time.monotonic()

    def due(self) -> bool:
        """Whether a second has passed."""
        return time.monotonic() - self.spoke >= 1.0

    def __call__(self) -> str:
        losses, images = self.read()  # sync; raises where a loss was not finite
        self.spoke = time.monotonic()
        return f"loss {losses[TOTAL]:.4f}  {images / (self.spoke - self.started):.1f} images/s"


def groups_of(count: int, items: Iterable[Item]) -> Iterator[list[Item]]:
    """Return lists of `count` items; the last may be shorter."""
    iterator = iter(items)
    while group := list(islice(iterator, count)):
        yield group


def check_finite(objective: nn.Module, epoch: int) -> None:
    """Raise where a weight is NaN or infinite, before anything of it is validated or saved."""
    tensors = {name: tensor for name, tensor in objective.state_dict().items() if tensor.is_floating_point()}
    finite = torch.stack([tensor.isfinite().all() for tensor in tensors.values()]).tolist()  # sync, once an epoch
    if wrong := [name for name, fine in zip(tensors, finite, strict=True) if not fine]:
        raise SegregError(
            f"training, epoch {epoch}: {len(wrong)} tensors of the network are not finite (NaN or infinite), "
            f"first {listed(wrong, most=3)}",
            hint=WAYS_OUT,
        )


@torch.no_grad()
def directions(training: Training, val: BatchLoader, metrics: MetricCollection) -> dict[str, bool | None]:
    """Return every value that an epoch will have, and whether larger is better, by scoring one validation image."""
    names = [TOTAL, *(training.objective.terms if len(training.objective.terms) > 1 else ())]
    losses = named("train", dict.fromkeys(names, 0.0))
    if not len(val):
        return dict.fromkeys(losses, False)
    losses |= named("val", dict.fromkeys(names, 0.0))
    batch = next(iter(val.epoch(0)))
    images, targets = to_device(batch, training)
    trial = metrics.clone()
    with training.precision.autocast(training.device):
        _, logits = training.objective.eval()(images[:1], targets[:1])
    trial.update(logits, targets[:1].long())
    scores = {f"val.{name}": larger for name, larger in metric_directions(trial).items()}
    return {**dict.fromkeys(losses, False), **scores}


def in_words(state: State, settings: Train, monitor: Monitor, *, is_best: bool) -> str:
    """Return an epoch's line."""
    values = state.values
    shown = dict.fromkeys(("train.loss", "val.loss", monitor.name))
    numbers = "  ".join(f"{name} {values[name]:.4f}" for name in shown if name in values)
    left = duration(state.seconds / state.epoch * (settings.epochs - state.epoch))
    speed = f"{values['images_per_second']:.1f} images/s  {duration(values['seconds'])}"
    return f"epoch {state.epoch}/{settings.epochs}  {numbers}  {speed}  {left} left{'  best' if is_best else ''}"
