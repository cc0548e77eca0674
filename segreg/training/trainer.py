"""The training loop, from the first epoch down to `backward()` and the optimizer step.

It reads from top to bottom: `fit`, an epoch, its batches, forward and backward, validation; below them is what keeps a
step going where memory runs out or compiling fails. Every place where the CPU waits for the device says "sync".
"""

from __future__ import annotations

import hashlib
import importlib.util
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from segreg.data.loader import worker_died
from segreg.errors import SegregError, listed, plural
from segreg.evaluation.scores import compute_over_processes, disable_sync
from segreg.models.segmenter import AUXILIARY
from segreg.models.trained import digest_of_frozen, reached, settle_frozen
from segreg.runtime import distributed
from segreg.runtime.device import available_mib, out_of_memory, scoring_device, seed_everything
from segreg.runtime.distributed import as_main_has, from_main, is_main
from segreg.runtime.layout import Column, Styled, Table
from segreg.runtime.progress import Progress, Quiet, duration
from segreg.training import history
from segreg.training.averages import ModelSwa
from segreg.training.checkpoint import BEST, LAST, STATE, State, load_state, not_finite
from segreg.training.monitor import (
    HINT_NOT_FINITE,
    TOTAL,
    LossMeter,
    Monitor,
    better,
    choose_monitor,
    directions_without_images,
    named,
)
from segreg.training.resume import AsyncCheckpointer, Output, begin, restore, snapshot
from segreg.training.setup import Setup, Training, prepare
from segreg.training.timing import SECONDS, Spent

if TYPE_CHECKING:
    from torch.nn.parallel import DistributedDataParallel
    from torchmetrics import MetricCollection

    from segreg.config.sections import Train
    from segreg.data.loader import Batch, BatchLoader
    from segreg.task import Task
    from segreg.training.loss import Objective

COMPILE_FROM_STEPS = 3000
"""Optimizer steps from which `train.compile: auto` compiles. An estimate: compiling takes a minute or two, and the
fused BatchNorm and ReLU of a GPU were expected to save a fifth of each step, of 50 to 200 ms."""

SHARE_OF_MEMORY = 0.5
"""How much of a computer's free memory a step may take where `train.batch_size` is `auto`."""

MOST_KEPT = 1 << 27
"""Bytes of logits that are kept of the last epoch's validation, so that its images need not be predicted again."""

LEAST_SCALE = 1e-6
"""A gradient scaler begins at 65536, halves that with each step that it skips, and seldom comes below 1."""

Stop = Callable[[int, Mapping[str, float]], str | None]
"""Asked after every epoch, with its number and values: why no further one is to be trained, or None."""
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class TrainingData:
    """What a network is trained and validated on.

    Attributes:
        train: batches to train on.
        val: batches to validate on; may be empty, and then `train.monitor` must name a training value.
        metrics: the metrics that are computed in validation.
        task: what they score.
    """

    train: BatchLoader
    val: BatchLoader
    metrics: MetricCollection
    task: Task


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        epochs: finished epochs.
        stopped_because: "finished", "early stopping", "time budget", "interrupted", or what `stop` has answered.
        monitor: name of the value that chose the best epoch.
        best_epoch: that epoch; 0 where the value was never defined.
        best_value: the value there.
        seconds: time of the training, checkpoints and what came before a resume included.
        values: the last row of the history.
        weights: the best epoch's weights, or the last one's where there is no best; None before the first epoch's end.
        validated: logits that those weights have given in this process, by the ids and the shape of a batch's images.
    """

    epochs: int
    stopped_because: str
    monitor: str
    best_epoch: int
    best_value: float | None
    seconds: float
    values: Mapping[str, float]
    weights: Path | None
    validated: Mapping[tuple[Any, ...], Tensor]


def fit(
    setup: Setup,
    data: TrainingData,
    output: Output,
    *,
    resume: State | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Outcome:
    """Train until the epochs, the patience or the time is used up, or `stop` gives a reason.

    After every epoch `output.run_dir` holds the training state, one more row in the history, and the best and last
    weights. On a CPU, a run that was killed and resumed ends with the same weights, bit for bit. Several processes,
    each with its share of every batch, reach the same outcome; the main one writes.

    Args:
        setup: the objective, the settings and how to build the optimizer; the objective is moved to the device.
        data: batches and metrics.
        output: where checkpoints and history go.
        resume: the state to continue from.
        progress: shows the progress.
        stop: may end the training after an epoch; of several processes, the main one's is asked.

    Raises:
        SegregError: the monitored value does not exist, a loss or a weight is no longer finite, `lr_factors` names an
            unknown component, or the state does not fit.
    """
    progress = progress or Quiet()
    settings, device = setup.settings, setup.device
    seed_everything(setup.seed)
    disable_sync(data.metrics.to(scoring_device(device)))
    training = prepare(setup, steps_per_epoch=-(-len(data.train) // settings.accumulate))
    monitor = choose_monitor(settings.monitor, directions(training.objective, data))
    if resume:
        restore(training, resume, monitor, progress)
    if output.trained:  # those that are frozen are those of the state
        output = replace(output, base=digest_of_frozen(training.objective.model, output.trained))
    state = resume or snapshot(training, monitor, epoch=0, seconds=0.0, values={})
    begin(state, output, monitor)
    choose_micro_batches(training, data.train, progress)
    compile_if_worthwhile(training, settings.epochs - state.epoch, progress.say)
    training.stopwatch.restart()
    epochs_before = state.epoch
    checkpointer = AsyncCheckpointer(output, monitor, in_background=device.type != "cpu")
    reason: str | None
    try:
        with checkpointer, handle_signals(training):
            while (reason := reason_to_stop(state, settings, stop)) is None:
                state = run_epoch(training, data, state, monitor=monitor, checkpointer=checkpointer, progress=progress)
                first = state.epoch == epochs_before + 1
                progress.say(format_epoch(state, training.settings, monitor, headings=first))
            with training.stopwatch.stage("checkpoint"):
                checkpointer.wait()
            training.stopwatch.leave_out("checkpoint", checkpointer.observed())
        if state.epoch > epochs_before and is_main():  # the last checkpoint, which no later epoch counts
            spent = training.stopwatch.read()
            history.add_to_last(output.run_dir, {"seconds": spent.wall, **stage_columns(spent)})
    except RuntimeError as error:
        if not worker_died(error):
            raise
        raise SegregError(
            f"{str(error).strip().rstrip('.')}: by the system where memory ran out, or by somebody",
            hint="train.workers: 0, or fewer of them, take less memory; the last finished epoch is safe: "
            f"segreg run --resume {output.run_dir} continues",
        ) from None
    except KeyboardInterrupt:
        # Memory holds half an epoch; the last finished one is on disk.
        checkpointer.wait()
        reason, state = "interrupted", from_main(lambda: load_state(output.run_dir / STATE))
        progress.say(
            f"interrupted in epoch {state.epoch + 1}; {state.epoch} finished. "
            f"Go on with: segreg run --resume {output.run_dir}"
        )
        begin(state, output, monitor)  # a row may be there without its state
    return Outcome(
        epochs=state.epoch,
        stopped_because=reason,
        monitor=monitor.name,
        best_epoch=state.best_epoch,
        best_value=None if state.best_value is None else monitor.plain(state.best_value),
        seconds=from_main(lambda: training_seconds(output.run_dir, state)),
        values=state.values,
        weights=output.run_dir / (BEST if state.best_epoch else LAST) if state.epoch else None,
        validated=training.validated if state.best_epoch in (0, state.epoch) else {},
    )


def stage_columns(spent: Spent) -> dict[str, float]:
    """Return the seconds of each stage by its column in the history."""
    return {SECONDS + stage: seconds for stage, seconds in spent.whole.items()}


def training_seconds(run_dir: Path, state: State) -> float:
    """Return the seconds of all epochs, the last one's checkpoint included where the history is complete."""
    rows = history.read(run_dir)
    return sum(row["seconds"] for row in rows) if len(rows) == state.epoch else state.seconds


def reason_to_stop(state: State, settings: Train, stop: Stop | None = None) -> str | None:
    """Return why no further epoch is trained, or None."""
    asked = from_main(lambda: stop(state.epoch, state.values)) if stop and state.epoch else None
    if state.epoch >= settings.epochs:
        return "finished"
    if settings.early_stopping and state.epochs_without_better >= settings.early_stopping:
        return "early stopping"
    if settings.time_budget_minutes and state.seconds > settings.time_budget_minutes * 60:
        return "time budget"
    return asked


def run_epoch(
    training: Training,
    data: TrainingData,
    before: State,
    *,
    monitor: Monitor,
    checkpointer: AsyncCheckpointer,
    progress: Progress,
) -> State:
    """Train and validate one epoch, save it, and return the state after it."""
    epoch = before.epoch + 1
    rates = {f"lr.{group['name']}": float(group["lr"]) for group in training.optimizer.param_groups}
    weights = {f"weight.{name}": weight for name, weight in training.objective.changing_weights(epoch).items()}

    started = time.monotonic()
    trained, images = train_pass(training, data.train, epoch, progress)
    train_seconds = time.monotonic() - started
    check_finite(training.objective, epoch)
    check_scale(training.scaler, epoch)
    with training.stopwatch.stage("validation"):
        if training.swa and epoch >= training.swa.start:
            average_weights(training, training.swa, data.train, epoch)
        validated = validation_pass(training, data.val, data.metrics, epoch, progress) if len(data.val) else {}
    spent = training.stopwatch.read()  # sync
    training.stopwatch.restart()
    # The main process's values, so that all processes take the same decisions.
    values, train_seconds, seconds = from_main(lambda: ({**trained, **validated}, train_seconds, spent.wall))

    value = monitor.oriented(values)
    if epoch_end := getattr(training.schedule, "epoch_end", None):
        epoch_end(value)
    is_best = better(value, before.best_value)
    speed = {
        "images_per_second": images / train_seconds,
        "seconds": seconds,
        "micro_batches": training.micro_batches,
        **stage_columns(spent),
    }
    state = snapshot(
        training,
        monitor,
        epoch=epoch,
        seconds=before.seconds + seconds,
        best_epoch=epoch if is_best else before.best_epoch,
        best_value=value if is_best else before.best_value,
        epochs_without_better=0 if is_best else before.epochs_without_better + 1,
        values={"epoch": epoch, **rates, **weights, **values, **speed},
    )
    with training.stopwatch.stage("checkpoint"):
        checkpointer.save(state)
    training.stopwatch.leave_out("checkpoint", checkpointer.observed())
    return state


def train_pass(training: Training, train: BatchLoader, epoch: int, progress: Progress) -> tuple[dict[str, float], int]:
    """Take one optimizer step for every `accumulate` batches; return the mean losses and the number of images."""
    settings, optimizer, scaler, watch = training.settings, training.optimizer, training.scaler, training.stopwatch
    training.objective.train()
    for network in dict.fromkeys((training.objective, training.eval_model)):
        network.set_epoch(epoch, settings.epochs)
    freeze_encoder(training, frozen=epoch <= settings.freeze_encoder_epochs)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    meter = LossMeter(f"training, epoch {epoch}", training.device)
    note = LossNote(meter.read_all)
    step = SingleProcess(training, epoch) if distributed.count() == 1 else DDP(training, epoch)

    with progress.watch(f"epoch {epoch}/{settings.epochs}", len(train), "batches") as advance:
        for group in groups_of(settings.accumulate, watch.waiting_for(train.epoch(epoch))):
            for batch, terms in zip(group, accumulate_gradients(training, step, group, progress.say), strict=True):
                meter.add(terms, batch.ids)
            advance(len(group), note() if step.agree(due=note.due()) else None)  # sync, at most once a second
            with watch.stage("optimizer"):
                if settings.clip_gradient_norm is not None:
                    scaler.unscale_(optimizer)
                    nn.utils.clip_grad_norm_(parameters, settings.clip_gradient_norm)
                scaler.step(optimizer)  # sync with fp16 and an optimizer that is not fused: was a gradient infinite?
                scaler.update()
                optimizer.zero_grad(set_to_none=True)
                if training.schedule:
                    training.schedule.step()
                if training.ema:
                    training.ema.update(training.objective)
        losses, seen = meter.read_all()  # sync, once an epoch
    if not losses:
        raise SegregError("there is no batch to train on", hint="see the split and train.batch_size")
    return named("train", losses), seen


def accumulate_gradients(
    training: Training, step: SingleProcess, group: Sequence[Batch], say: Callable[[str], None]
) -> list[Mapping[str, Tensor]]:
    """Add up the gradients of a step's batches in the parameters, and return each batch's loss terms, detached."""
    largest = max(len(batch.images) for batch in group)
    return retried(training, lambda: [forward_backward(training, step, batch, group) for batch in group], largest, say)


def retried(training: Training, compute: Callable[[], Result], images: int, say: Callable[[str], None]) -> Result:
    """Return what `compute` returns for batches of at most `images`.

    Where memory runs out, or compiling fails, it starts again: in smaller micro-batches, or without compiling.

    Raises:
        SegregError: one image does not fit, or the recipe asked to compile and that fails.
    """
    while True:
        try:
            return compute()
        except Exception as error:
            if not (too_large := training.auto_split and out_of_memory(error)):
                if not (training.compiled and is_compiler_error(error)):
                    raise
                continue_uncompiled(training, error, say)
        # Outside the except block, where the error would keep the tensors alive that did not fit.
        if too_large:
            use_smaller_micro_batches(training, images, say)


def forward_backward(
    training: Training, step: SingleProcess, batch: Batch, group: Sequence[Batch]
) -> Mapping[str, Tensor]:
    """Add the gradients of one batch, one micro-batch at a time, and return the batch's loss terms, detached."""
    watch = training.stopwatch
    with watch.stage("copy"):
        whole = to_device(batch, training)
    with watch.stage("forward"):
        mixed = training.mixing(*whole, step.epoch, batch.ids)
    # Of mixed images the second truth, and how much the first one counts.
    others, shares = ((), ()) if mixed.others is None else ((mixed.others,), (torch.tensor(mixed.share),))
    micro_batches = split((mixed.images, mixed.targets, *others), training.micro_batches)
    means: dict[str, Tensor] = {}
    for number, inputs in enumerate(micro_batches, start=1):
        share = len(inputs[0]) / len(mixed.images)
        last = batch is group[-1] and number == len(micro_batches)
        with watch.stage("forward"), training.precision.autocast(training.device):
            terms = step.forward(*inputs, *shares, last=last)
        with watch.stage("backward"):
            # The mean over the images of the group: its last batch, at an epoch's end, may be smaller.
            loss = terms[TOTAL] * batch.weight * share / (sum(each.size for each in group) / batch.size)
            training.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        for name, term in terms.items():
            means[name] = means.get(name, 0) + term.detach() * share
    return means


class SingleProcess:
    """How a single process takes a step."""

    def __init__(self, training: Training, epoch: int) -> None:
        self.training = training
        self.epoch = epoch

    def forward(self, *inputs: Tensor, last: bool) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Return the loss terms of the objective's inputs; `last` for the last micro-batch of an optimizer step."""
        terms: Mapping[str, Tensor] = self.training.objective(*inputs)
        return terms

    def agree(self, *, due: bool) -> bool:
        """Whether it is time to read the losses, the same in all processes; to be called once a step.

        Raises:
            KeyboardInterrupt: one of the processes was interrupted.
        """
        return due


class DDP(SingleProcess):
    """How several processes take a step, each with its share of the batch; PyTorch averages their gradients.

    Random numbers depend on the seed, the epoch and the rank, so that a run can continue with any number of processes.
    """

    def __init__(self, training: Training, epoch: int) -> None:
        super().__init__(training, epoch)
        self.parallel: DistributedDataParallel | None = None
        words = f"{training.seed} epoch {epoch} rank {distributed.rank()}".encode()
        seed_everything(int.from_bytes(hashlib.blake2b(words, digest_size=7).digest(), "big"))

    def forward(self, *inputs: Tensor, last: bool) -> Mapping[str, Tensor]:
        """Return the loss terms of this process's share. Gradients are exchanged in the `last` backward pass."""
        if self.parallel is None:
            # Once an epoch: it fixes which parameters train when it is created, and freezing changes them.
            self.parallel = nn.parallel.DistributedDataParallel(
                self.training.objective, find_unused_parameters=self._has_unused_parameters(*inputs[:2])
            )
        self.parallel.require_backward_grad_sync = last
        terms: Mapping[str, Tensor] = self.parallel(*inputs)
        return terms

    def agree(self, *, due: bool) -> bool:
        """Return what the main process decides. No device sync: the CPUs exchange it."""
        interrupted, due = distributed.any_of(self.training.interrupted, due and distributed.is_main())
        if interrupted:
            raise KeyboardInterrupt
        return due

    def _has_unused_parameters(self, images: Tensor, targets: Tensor) -> bool:
        """Whether the loss reaches only some parameters, as with a decoder that does not use every level."""
        training = self.training
        if training.compiled:
            return True
        found = reached(dry_step(training, images, targets)[TOTAL])
        (some,) = distributed.any_of(any(p.requires_grad and p not in found for p in training.objective.parameters()))
        return some


def average_weights(training: Training, swa: ModelSwa, train: BatchLoader, epoch: int) -> None:
    """Take the weights into their mean over epochs, whose BatchNorm is measured on the epoch's batches, unmixed.

    They are computed in micro-batches as they were trained on: more might not fit into memory.
    """
    swa.network.set_epoch(epoch, training.settings.epochs)
    batches = (split(to_device(batch, training)[:1], training.micro_batches) for batch in train.epoch(epoch))
    with training.precision.autocast(training.device):
        swa.update(training.objective, (images for micro_batches in batches for (images,) in micro_batches))


@torch.no_grad()
def validation_pass(
    training: Training, val: BatchLoader, metrics: MetricCollection, epoch: int, progress: Progress
) -> dict[str, float]:
    """Return the mean losses and the metrics of the validation split."""
    own = training.eval_model.eval()
    as_main_has(own.buffers())  # BatchNorm's statistics differ between processes
    meter = LossMeter(f"validation, epoch {epoch}", training.device)
    note = LossNote(lambda: (meter.read(), meter.images))
    metrics.reset()
    room = MOST_KEPT if epoch == training.settings.epochs else 0
    where = scoring_device(training.device)
    with progress.watch(f"epoch {epoch}/{training.settings.epochs} validation", len(val), "batches") as advance:
        for batch in val.epoch(0):
            images, targets = to_device(batch, training)
            # Neither compiled nor in micro-batches: as the same weights are scored afterwards.
            logits = training.predict(own, images)
            if (room := room - logits.nbytes) >= 0:
                training.validated[batch.ids, batch.images.shape] = logits
            metrics.update(logits.to(where), targets.to(where).long())
            meter.add(own.terms_of({"": logits}, targets), batch.ids, logits)
            advance(1, note() if note.due() else None)  # sync, at most once a second
        losses, _ = meter.read_all()  # sync, once an epoch
    if meter.remark:  # where these pixels are ignored, the loss is none the worse
        progress.say(f"warning: validation, epoch {epoch}: {meter.remark}")
    return {**named("val", losses), **{f"val.{name}": value for name, value in compute_over_processes(metrics).items()}}


def to_device(batch: Batch, training: Training) -> tuple[Tensor, Tensor]:
    """Return a batch's uint8 images and targets on the device. No sync: the copy is queued."""
    layout = torch.channels_last if training.settings.channels_last else torch.contiguous_format
    images, targets = batch.images, batch.targets
    if training.device.type == "cuda" and not images.is_cuda:
        # Without pinned memory the CPU would wait for the copy.
        images, targets = images.pin_memory(), targets.pin_memory()
    images = images.to(training.device, non_blocking=True).contiguous(memory_format=layout)
    return images, targets.to(training.device, non_blocking=True)


def freeze_encoder(training: Training, *, frozen: bool) -> None:
    """Freeze the encoder's weights and BatchNorm statistics, or let those train that the recipe trains."""
    for parameter in training.encoder_parameters:
        parameter.requires_grad_(not frozen)
    settle_frozen(training.encoder)


class LossNote:
    """The losses and the speed beside the progress bar, due at most once a second because reading them is a sync."""

    def __init__(self, read: Callable[[], tuple[dict[str, float], int]]) -> None:
        self.read = read
        self.started = self.shown = time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self.shown >= 1.0

    def __call__(self) -> str:
        losses, images = self.read()  # sync; raises where a loss was not finite
        self.shown = time.monotonic()
        return f"loss {losses[TOTAL]:.4f}  {images / (self.shown - self.started):.1f} images/s"


def groups_of(count: int, items: Iterable[Item]) -> Iterator[list[Item]]:
    """Return lists of `count` items; the last may be shorter."""
    iterator = iter(items)
    while group := list(islice(iterator, count)):
        yield group


def check_finite(objective: nn.Module, epoch: int) -> None:
    """Raise where a weight is NaN or infinite, before it is validated or saved."""
    if wrong := not_finite(objective.state_dict()):  # sync, once an epoch
        raise SegregError(
            f"training, epoch {epoch}: NaN or infinite values in {plural(len(wrong), 'tensor')} of the network, "
            f"first {listed(wrong, most=3)}",
            hint=HINT_NOT_FINITE,
        )


def check_scale(scaler: torch.amp.GradScaler, epoch: int) -> None:
    """Raise where the scaler has skipped so many steps that none will be taken any more: no weight would change."""
    if scaler.is_enabled() and scaler.get_scale() < LEAST_SCALE:  # sync, once an epoch
        raise SegregError(
            f"training, epoch {epoch}: gradients are not finite (NaN or infinite) in fp16, however they are scaled, "
            "and all steps are skipped",
            hint=HINT_NOT_FINITE,
        )


def directions(objective: Objective, data: TrainingData) -> dict[str, bool | None]:
    """Return every value that an epoch will have, and whether larger is better."""
    names = dict.fromkeys((TOTAL, *objective.terms), 0.0)
    replaced = [name for name in objective.model.own_losses if not name.startswith(f"{AUXILIARY}.")]
    losses = named("train", dict.fromkeys((TOTAL, *replaced), 0.0) if replaced else names)
    if not len(data.val):
        return dict.fromkeys(losses, False)
    scores = {f"val.{name}": larger for name, larger in directions_without_images(data.metrics, data.task).items()}
    return {**dict.fromkeys(losses | named("val", names), False), **scores}


def format_epoch(state: State, settings: Train, monitor: Monitor, *, headings: bool = False) -> Table:
    """Return an epoch's row of the table that grows with the training."""
    values, best = state.values, state.best_epoch == state.epoch
    numbers = {"train.loss": "train loss", "val.loss": "val loss", monitor.name: monitor.name}
    shown = {heading: f"{values[name]:.4f}" for name, heading in numbers.items() if name in values}
    if best and monitor.name in values:
        shown[numbers[monitor.name]] = Styled(f"{values[monitor.name]:.4f}", "green")
    left = duration(state.seconds / state.epoch * (settings.epochs - state.epoch))
    columns = [
        Column("epoch", right=True, least=len(f"{settings.epochs}/{settings.epochs}")),
        *(Column(heading, right=True, least=6) for heading in shown),
        Column(least=4),
        Column("time", right=True, least=10),
        Column("left", right=True, least=10, spare=1),
        Column("images/s", right=True, least=8, spare=2),
    ]
    row = [
        f"{state.epoch}/{settings.epochs}", *shown.values(), Styled("best", "green") if best else "",
        duration(values["seconds"]), left, f"{values['images_per_second']:.1f}",
    ]  # fmt: skip
    named = "  ".join(f"{name} {values[name]:.4f}" for name in numbers if name in values)
    speed = f"{values['images_per_second']:.1f} images/s  {duration(values['seconds'])}"
    line = f"epoch {row[0]}  {named}  {speed}  {left} left{'  best' if best else ''}"
    return Table(columns, [row], headings=headings, more="", plain=line)


@contextmanager
def handle_signals(training: Training) -> Iterator[None]:
    """Let SIGTERM, with which schedulers end a job, do what Ctrl-C does.

    Of several processes, the one that gets a signal only notes it, so that all stop at the same batch.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the arguments of a signal handler
        raise KeyboardInterrupt

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        training.interrupted = True

    handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]] = (
        {signal.SIGTERM: interrupt} if distributed.count() == 1 else {signal.SIGTERM: note, signal.SIGINT: note}
    )
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# Micro-batches: the parts of a batch that fit into memory, computed one after the other. Their gradients add up to the
# batch's, so the optimizer step stays that of the whole batch; BatchNorm's statistics, and losses that pool all pixels,
# are computed within each micro-batch.


def split(tensors: tuple[Tensor, ...], count: int) -> list[tuple[Tensor, ...]]:
    """Return a batch in micro-batches whose sizes differ by at most one image; no more of them than images."""
    count = min(count, len(tensors[0]))
    return list(zip(*(tensor.tensor_split(count) for tensor in tensors), strict=True))


def choose_micro_batches(training: Training, train: BatchLoader, progress: Progress) -> None:
    """Choose the number of micro-batches where `train.batch_size` is `auto`."""
    if training.settings.batch_size != "auto" or distributed.count() > 1:
        return
    batch = next(iter(train.epoch(1)))
    count = training.micro_batches = micro_batches_that_fit(training, to_device(batch, training))
    progress.say(f"batches of {len(batch.images)}, " + ("unsplit" if count == 1 else f"in {count} micro-batches"))


def micro_batches_that_fit(training: Training, batch: tuple[Tensor, Tensor]) -> int:
    """Return the number of micro-batches, 1, 2, 4 ..., with which a batch fits into memory; nothing is trained.

    It is at least that of the epochs before.

    A GPU tries a step; elsewhere the system would rather kill the process than refuse, so the memory is estimated.
    """
    count = training.micro_batches
    training.objective.train()
    settle_frozen(training.encoder)
    while count < len(batch[0]) and not _fits(training, *split(batch, count)[0]):
        count *= 2
    return count


def _fits(training: Training, images: Tensor, targets: Tensor) -> bool:
    parameters = [p for group in training.optimizer.param_groups for p in group["params"]]
    weight_bytes = sum(p.numel() * p.element_size() for p in parameters)
    # An optimizer like Adam allocates two more tensors for each parameter at its first step.
    if training.device.type != "cuda":
        free = available_mib()
        # What the third image adds, each further one does; the weights that bf16 casts are kept once.
        two, three = (kept_bytes(training, images[:few], targets[:few]) for few in (2, 3))
        needed = two + (three - two) * (len(images) - 2) + 3 * weight_bytes
        return free is None or needed <= SHARE_OF_MEMORY * free * 2**20
    reserve: list[Tensor] = []
    try:
        reserve = [torch.empty_like(p) for p in parameters for _ in range(2)]
        training.scaler.scale(dry_step(training, images, targets)[TOTAL]).backward()  # type: ignore[no-untyped-call]
        fits = True
    except Exception as error:
        if not out_of_memory(error):
            raise
        fits = False
    reserve.clear()
    discard_gradients(training)
    return fits


def use_smaller_micro_batches(training: Training, images: int, say: Callable[[str], None]) -> None:
    """Double the number of micro-batches after a batch of `images` did not fit.

    Raises:
        SegregError: the micro-batches have one image each already, or there are several processes.
    """
    discard_gradients(training)
    if distributed.count() > 1:
        raise SegregError(
            f"out of memory: the device can't hold {plural(images, 'image')} at once",
            hint="use a smaller train.batch_size and a larger train.accumulate; "
            "with several processes, batches are not split automatically",
        )
    if training.micro_batches >= images:
        raise SegregError(
            "out of memory: the device can't hold a training step on one image",
            hint="use a smaller input.size, a smaller encoder, or train.precision bf16 or fp16; "
            "or see what else uses the device",
        )
    training.micro_batches *= 2
    largest = -(-images // min(training.micro_batches, images))
    say(
        f"notice: out of memory; a batch of {images} is now computed in micro-batches of at most {largest}, and the "
        "optimizer step is still that of the whole batch"
    )


def discard_gradients(training: Training) -> None:
    """Free what an unfinished step left behind."""
    training.optimizer.zero_grad(set_to_none=True)
    if training.device.type == "cuda":
        torch.cuda.empty_cache()


def dry_step(training: Training, images: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
    """Return the loss terms of a forward pass that changes neither BatchNorm's statistics nor the random state.

    It computes in the mode in which the network is: training.
    """
    objective = training.objective
    buffers = {name: buffer.clone() for name, buffer in objective.named_buffers()}
    devices = [training.device] if training.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), training.precision.autocast(training.device):
        terms: Mapping[str, Tensor] = torch.func.functional_call(objective, buffers, (images, targets))
    return terms


def kept_bytes(training: Training, images: Tensor, targets: Tensor) -> int:
    """Return the bytes that a forward pass keeps for its backward pass, without the weights."""
    kept: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in training.objective.parameters()}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        terms = dry_step(training, images, targets)
    del terms
    return sum(kept.values())


# Compiling.


def worth_compiling(setting: bool | Literal["auto"], device: torch.device, steps: int) -> tuple[bool, str]:
    """Whether to compile, and for `auto` the reason, as a line for the log.

    On CPUs compiled training was measured at 0.94 to 1.05 of the eager speed after 20 to 100 s of compiling.

    Args:
        setting: the recipe's `train.compile`.
        device: where the network computes.
        steps: optimizer steps that the run has ahead of it.
    """
    if setting != "auto":
        return setting, ""
    if device.type != "cuda":
        return False, f"not compiled: no faster on {device.type}"
    if importlib.util.find_spec("triton") is None:
        return False, "not compiled: triton, which generates the GPU code, is not installed"
    if steps < COMPILE_FROM_STEPS:
        return False, f"not compiled: {steps} steps are too few to make up for the compile time"
    return True, f"compiled for {steps} steps; the first ones take longer"


def compile_if_worthwhile(training: Training, epochs: int, say: Callable[[str], None]) -> None:
    """Compile the network as `train.compile` asks, with so many epochs to come."""
    steps = training.steps_per_epoch * epochs
    compiles, why = worth_compiling(training.settings.compile, training.device, steps)
    if compiles and training.settings.checkpoint_activations:  # with `true` it is refused with the recipe
        compiles, why = False, "not compiled: PyTorch can't compile what checkpoints its activations"
    if compiles:
        compile_network(training)
    if why:
        say(why)


def compile_network(training: Training) -> None:
    """Let training steps be compiled at the first of them; scores are computed without."""
    training.objective.compile()
    training.compiled = True


def is_compiler_error(error: BaseException) -> bool:
    """Whether compiling failed, rather than the network that was compiled."""
    packages = ("torch._dynamo", "torch._inductor", "torch._functorch", "triton")
    return any(kind.__module__.startswith(packages) for kind in type(error).__mro__)


def continue_uncompiled(training: Training, error: BaseException, say: Callable[[str], None]) -> None:
    """Continue without compiling where `train.compile` is `auto`.

    Raises:
        SegregError: the recipe asked to compile.
    """
    why = next(iter(str(error).strip().splitlines()), type(error).__name__)
    if training.settings.compile is True:
        raise SegregError(
            f"train.compile: this network can't be compiled here: {why}", hint="leave train.compile out"
        ) from error
    discard_gradients(training)
    training.objective._compiled_call_impl = None  # noqa: SLF001, set by nn.Module.compile(), which has no way back
    training.compiled = False
    say(f"notice: compiling failed, and the run continues without it: {why}")
