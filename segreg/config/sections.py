"""The sections of a recipe that hold plain settings: how samples are split, prepared, trained on and scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Interval

from segreg.settings import Fraction, NonNegativeInt, PositiveFloat

# Limits that no use comes near, so that a slip of the hand does not begin to fill the memory.
Side = Annotated[int, Interval(ge=1, le=16_384)]
Channels = Annotated[int, Interval(ge=1, le=4_096)]
Count = Annotated[int, Interval(ge=1, le=1_000_000)]
CountOrNone = Annotated[int, Interval(ge=0, le=1_000_000)]
Workers = Annotated[int, Interval(ge=0, le=1_024)]
Overlays = Annotated[int, Interval(ge=0, le=10_000)]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Which samples train, which choose the checkpoint (val) and which are kept for the end (test).

    Args:
        method: `dataset` takes the dataset's own split, `random` draws one, `lists` reads `lists`, and `auto` takes
            the dataset's own where it has one and draws one otherwise. `train_test_split` draws the samples that
            scikit-learn's function of that name draws, called for the test and then for val.
        val: share of all samples for validation, where the split is drawn; with `train_test_split` the share of what
            the test leaves.
        test: share of all samples for the test, where the split is drawn.
        seed: seed of the drawing. It is not the recipe's seed, so that runs with several seeds share one split.
        stratify: whether each split drawn gets its share of the images that show each class, rare classes first.
        lists: for each of train, val and test a text file with one sample id a line.
    """

    method: Literal["auto", "dataset", "random", "lists", "train_test_split"] = "auto"
    val: Fraction = 0.15
    test: Fraction = 0.15
    seed: NonNegativeInt = 0
    stratify: bool = False
    lists: Mapping[Literal["train", "val", "test"], Path] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Input:
    """How an image becomes what the network sees.

    Args:
        size: height and width in pixels.
        resize: `stretch` to the size, `letterbox` into it (the border is ignored), or `none`: all have it already.
        channels: channels of the network's input; grey images are repeated to 3.
        sixteen_bit: how 16-bit values become 8-bit: `full_range` divides by 257, `min_max` stretches each image.
        normalize: statistics by which values in [0, 1] are normalised: those the `encoder`'s weights were trained
            with (ImageNet's where it names none), `imagenet`, those of the training images (`dataset`), or `none`.
        mean: mean of each channel, in [0, 1]; takes the place of `normalize`.
        std: standard deviation of each channel; goes with `mean`.
    """

    size: tuple[Side, Side] = (256, 256)
    resize: Literal["stretch", "letterbox", "none"] = "stretch"
    channels: Channels = 3
    sixteen_bit: Literal["full_range", "min_max"] = "full_range"
    normalize: Literal["encoder", "imagenet", "dataset", "none"] = "encoder"
    mean: tuple[float, ...] | None = None
    std: tuple[PositiveFloat, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Train:
    """How long, how fast and how carefully the network is trained.

    Args:
        epochs: epochs at most.
        batch_size: images in a batch, of all processes together; `auto` takes `effective_batch_size`, computed in as
            many parts as the device's memory asks for.
        effective_batch_size: images in a batch and an optimizer step where `batch_size` is `auto`; null are 16.
        accumulate: batches whose gradients are added up before one optimizer step.
        precision: `auto` takes bf16 where the device has it, fp16 with a gradient scaler on older GPUs, else float32.
        device: `auto` takes the GPU where there is one; or a torch device such as `cpu` or `cuda:1`.
        channels_last: whether the network computes in the channels-last memory layout.
        compile: whether `torch.compile` is applied; `auto` does so on a GPU where the run is long enough to gain by it.
        sync_batch_norm: whether BatchNorm has the statistics of the whole batch where several GPUs share it.
        workers: processes that augment; 0 is one thread beside the training, `auto` fits the machine.
        clip_gradient_norm: largest norm of the gradient, which is scaled down to it.
        ema: decay of an exponential moving average of the weights, which is then what is validated and saved.
        freeze_encoder_epochs: epochs for which the encoder's weights and BatchNorm statistics stay as they are.
        lr_factors: learning rate of a part (encoder, decoder, head, auxiliary) as a multiple of the optimizer's.
        monitor: the value of the history that chooses the best checkpoint, such as `val.loss`.
        early_stopping: epochs without a better value after which training stops.
        time_budget_minutes: training stops after the first epoch that ends later than this.
        start_from: a run's directory or a weights file to begin from; what fits of it is loaded and reported.
        start_part: whether `start_from` fills the whole network or its encoder alone.
        keep_state: whether a run that has finished keeps `state.pt`, with which it can be resumed for more epochs:
            `resumable` or `no`. It is most of a run's size, and predicting and scoring don't need it.
    """

    epochs: Count = 100
    batch_size: Count | Literal["auto"] = 16
    effective_batch_size: Count | None = None
    accumulate: Count = 1
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    device: str = "auto"
    channels_last: bool = True
    compile: bool | Literal["auto"] = False
    sync_batch_norm: bool = False
    workers: Workers | Literal["auto"] = "auto"
    clip_gradient_norm: PositiveFloat | None = None
    ema: Fraction | None = None
    freeze_encoder_epochs: CountOrNone = 0
    lr_factors: Mapping[Literal["encoder", "decoder", "head", "auxiliary"], PositiveFloat] = field(default_factory=dict)
    monitor: str = "val.loss"
    early_stopping: Count | None = None
    time_budget_minutes: PositiveFloat | None = None
    start_from: Path | None = None
    start_part: Literal["model", "encoder"] = "model"
    keep_state: Literal["resumable", "no"] = "resumable"

    @property
    def batch(self) -> int:
        """Return the images in a batch."""
        return (self.effective_batch_size or 16) if self.batch_size == "auto" else self.batch_size


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """How predictions are scored; the metrics themselves are parts, listed beside these settings.

    Args:
        threshold: probability from which a pixel is foreground (binary and multilabel).
        resolution: `input` scores at the network's input size, `original` at each image's own.
        batch_size: images in a batch; the training's where it is null.
        overlays: images of image, truth and prediction that a run writes: the worst, the best, and some at random.
    """

    threshold: Fraction = 0.5
    resolution: Literal["input", "original"] = "input"
    batch_size: Count | None = None
    overlays: Overlays = 8
