"""The sections of a recipe that hold plain settings: how samples are split, prepared, trained on and scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Interval

from segreg.settings import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

# Limits that no use comes near, so that a slip of the hand does not begin to fill the memory.
Side = Annotated[int, Interval(ge=1, le=16_384)]
Channels = Annotated[int, Interval(ge=1, le=4_096)]
Count = Annotated[int, Interval(ge=1, le=1_000_000)]
Folds = Annotated[int, Interval(ge=2, le=1_000)]
CountOrNone = Annotated[int, Interval(ge=0, le=1_000_000)]
Workers = Annotated[int, Interval(ge=0, le=1_024)]
Overlays = Annotated[int, Interval(ge=0, le=10_000)]
Percent = Annotated[float, Interval(ge=0, le=100)]
Overlap = Annotated[float, Interval(ge=0, le=0.9)]
Decay = Annotated[float, Interval(gt=0, lt=1)]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Which samples train, which choose the checkpoint (val) and which are kept for the end (test).

    Args:
        method: `dataset` takes the dataset's own split, `random` draws one, `lists` reads `lists`, and `auto` takes
            the dataset's own where it has one and draws one otherwise. `train_test_split` draws the samples that
            scikit-learn's function of that name draws, called for the test and then for val. `folds` deals all samples
            but those of the test into folds, of which one is val and the others are train.
        val: share of all samples for validation, where the split is drawn; with `train_test_split` the share of what
            the test leaves. Not used with `folds`.
        test: share of all samples for the test, where the split is drawn; null is 0.15, and 0 with `folds`.
        seed: seed of the drawing. It is not the recipe's seed, so that runs with several seeds share one split.
        stratify: whether each split or fold drawn gets its share of the images that show each class, rare classes
            first.
        folds: number of folds with `folds`; null is 5.
        fold: which of them is val, from 0; null is 0.
        lists: for each of train, val and test a text file with one sample id a line.
    """

    method: Literal["auto", "dataset", "random", "lists", "train_test_split", "folds"] = "auto"
    val: Fraction = 0.15
    test: Fraction | None = None
    seed: NonNegativeInt = 0
    stratify: bool = False
    folds: Folds | None = None
    fold: NonNegativeInt | None = None
    lists: Mapping[Literal["train", "val", "test"], Path] = field(default_factory=dict)

    def complete(self) -> Split:
        """Return it with what null stands for."""
        if self.method != "folds":
            return replace(self, test=0.15 if self.test is None else self.test)
        return replace(self, test=self.test or 0.0, folds=self.folds or 5, fold=self.fold or 0)


@dataclass(frozen=True, kw_only=True)
class Input:
    """How an image becomes what the network sees.

    Args:
        size: height and width in pixels; of the crops where `resize` is `crop`.
        resize: `stretch` to the size, `letterbox` into it (the border is ignored), `none` where all images have it, or
            `crop`: training sees crops of that size, as the section crop says, and images are scored at their own.
        channels: channels of the network's input; grey images are repeated to 3.
        dtype: type of the values: `auto` is the files' own, uint8, uint16 or float32; a run notes which it is.
        sixteen_bit: how 16-bit values become 8-bit: `keep` does not, `full_range` divides by 257, `min_max` stretches
            each image.
        clip: two percentiles, such as `[0.5, 99.5]`: each image's values between them, in each channel, are stretched
            to the whole range of their type, [0, 1] for float32, and those outside take its ends.
        nodata: value of pixels that hold nothing; they are ignored, as are pixels that are not finite.
        normalize: statistics by which values are normalised, integers in [0, 1]: those the `encoder`'s weights were
            trained with (ImageNet's where it names none), `imagenet`, those of the training images (`dataset`), of
            each image by itself (`per_image`), or `none`.
        mean: mean of each channel, of integers in [0, 1]; takes the place of `normalize`.
        std: standard deviation of each channel; goes with `mean`.
    """

    size: tuple[Side, Side] = (256, 256)
    resize: Literal["stretch", "letterbox", "none", "crop"] = "stretch"
    channels: Channels = 3
    dtype: Literal["auto", "uint8", "uint16", "float32"] = "auto"
    sixteen_bit: Literal["keep", "full_range", "min_max"] = "keep"
    clip: tuple[Percent, Percent] | None = None
    nodata: float | None = None
    normalize: Literal["encoder", "imagenet", "dataset", "per_image", "none"] = "encoder"
    mean: tuple[float, ...] | None = None
    std: tuple[PositiveFloat, ...] | None = None

    def complete(self) -> Input:
        """Return it with 8 bits for `dtype: auto`, which networks keep that were not prepared for any data."""
        return replace(self, dtype="uint8") if self.dtype == "auto" else self

    @property
    def per_image(self) -> bool:
        """Whether each image is normalised by itself."""
        return self.normalize == "per_image" and self.mean is None

    @property
    def value_range(self) -> float:
        """Return by what values are divided before they are normalised, so that integers are in [0, 1]."""
        return {"uint16": 65535.0, "float32": 1.0}.get(self.dtype, 255.0)


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Which crops training sees of images at their own scale; goes with `input.resize: crop`.

    Args:
        scale: least and largest factor by which an image is resized before it is cropped, drawn evenly.
        cat_max_ratio: share of a crop that one class may have; a crop with more is drawn again, ten times at most
            (MMSegmentation).
        foreground: share of crops that are centred on a pixel of one of `classes` that the image shows (nnU-Net: 0.33).
        classes: names of classes to centre crops on; all but one called background where none is given.
        per_image: crops of each image in an epoch.
        repeat_threshold: images are repeated that show a class which fewer than this share of the images shows, by the
            square root of how much fewer (LVIS, arXiv:1908.03195: 0.001); 0 repeats none.
    """

    scale: tuple[PositiveFloat, PositiveFloat] = (1.0, 1.0)
    cat_max_ratio: Fraction = 1.0
    foreground: Fraction = 0.0
    classes: tuple[str, ...] = ()
    per_image: Count = 1
    repeat_threshold: Fraction = 0.0


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """A loss's weight that changes in a straight line from epoch to epoch.

    Args:
        start: the weight until the first of `epochs`.
        end: the weight from the last of `epochs` on.
        epochs: the first and the last epoch of the line, counted from 1.
    """

    start: NonNegativeFloat
    end: NonNegativeFloat
    epochs: tuple[PositiveInt, PositiveInt]

    def at(self, epoch: int) -> float:
        """Return the weight in an epoch."""
        first, last = self.epochs
        share = min(max((epoch - first) / (last - first), 0.0), 1.0)
        return (1 - share) * self.start + share * self.end


@dataclass(frozen=True, kw_only=True)
class Train:
    """How long, how fast and how carefully the network is trained.

    Args:
        epochs: epochs at most.
        batch_size: images in a batch, of all processes together; `auto` takes `effective_batch_size`, computed in as
            many parts as the device's memory asks for.
        effective_batch_size: images in a batch and an optimizer step where `batch_size` is `auto`; null is 16.
        accumulate: batches whose gradients are added up before one optimizer step.
        precision: `auto` takes bf16 where the device has it, fp16 with a gradient scaler on older GPUs, else float32.
        device: `auto` takes the GPU where there is one; or a torch device such as `cpu` or `cuda:1`.
        channels_last: whether the network computes in the channels-last memory layout.
        compile: whether `torch.compile` is applied; `auto` does so on a GPU where the run is long enough to gain by it.
        checkpoint_activations: whether the encoder's blocks keep no activations and compute them again in the backward
            pass, which takes less memory and more time.
        sync_batch_norm: whether BatchNorm has the statistics of the whole batch where several GPUs share it.
        batch_norm_momentum: share of a batch's statistics in BatchNorm's running ones, 1 minus TensorFlow's decay, in
            the whole network; null leaves each part its own, which is 0.1 in most.
        workers: processes that augment; 0 is one thread beside the training, `auto` fits the machine.
        clip_gradient_norm: largest norm of the gradient, which is scaled down to it.
        ema: decay of an exponential moving average of the weights, which is then what is validated and saved.
        swa_start: epoch from which on the mean of the weights after each epoch is what is validated and saved (SWA).
        freeze_encoder_epochs: epochs for which the encoder's weights and BatchNorm statistics stay as they are.
        layer_decay: learning rate of each layer of the encoder as a multiple of the next one's; the decoder's follows
            the last one's. Null gives the whole encoder one rate.
        lr_factors: learning rate of a part (encoder, decoder, head, auxiliary) as a multiple of the optimizer's.
        validate_on: what of each image is validated where `input.resize` is `crop`: `whole`, as it is evaluated, or a
            crop of `input.size` in its middle (`center_crop`), which is faster.
        monitor: the value of the history that chooses the best checkpoint, such as `val.loss`.
        early_stopping: epochs without a better value after which training stops.
        time_budget_minutes: training stops after the first epoch that ends later than this.
        start_from: a run's directory or a weights file to begin from, or `hf://user/name` on the hub; what fits of it
            is loaded and reported.
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
    checkpoint_activations: bool = False
    sync_batch_norm: bool = False
    batch_norm_momentum: Fraction | None = None
    workers: Workers | Literal["auto"] = "auto"
    clip_gradient_norm: PositiveFloat | None = None
    ema: Fraction | None = None
    swa_start: Count | None = None
    freeze_encoder_epochs: CountOrNone = 0
    layer_decay: Decay | None = None
    lr_factors: Mapping[Literal["encoder", "decoder", "head", "auxiliary"], PositiveFloat] = field(default_factory=dict)
    validate_on: Literal["whole", "center_crop"] = "whole"
    monitor: str = "val.loss"
    early_stopping: Count | None = None
    time_budget_minutes: PositiveFloat | None = None
    start_from: str | None = None
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
        split: what is scored at the end besides `val`: `test`, where there is one; `val` leaves the test for later, as
            where runs are only to choose a recipe by.
        threshold: probability from which a pixel is foreground (binary and multilabel).
        resolution: `input` scores at the network's input size, `original` at each image's own.
        batch_size: images in a batch; the training's where it is null.
        tile: height and width of the tiles in which images are predicted where `input.resize` is `crop`; `auto` are
            tiles of `input.size` for images that are too large to be predicted whole, null is always whole.
        overlap: share of a tile that the next one covers too, 0 to 0.9.
        scales: factors of the image's size at which it is predicted; probabilities are averaged.
        flips: what is averaged besides: `mirror` is left-right, `flips` also upside down and both.
        overlays: images of image, truth and prediction that a run writes: the worst, the best, and some at random.
    """

    split: Literal["test", "val"] = "test"
    threshold: Fraction = 0.5
    resolution: Literal["input", "original"] = "input"
    batch_size: Count | None = None
    tile: tuple[Side, Side] | Literal["auto"] | None = "auto"
    overlap: Overlap = 0.25
    scales: tuple[PositiveFloat, ...] = (1.0,)
    flips: Literal["none", "mirror", "flips"] = "none"
    overlays: Overlays = 8


# What a recipe may set beside a part's own settings.


@dataclass(frozen=True, kw_only=True)
class Lora:
    """A low-rank change of an encoder's weights (LoRA, arXiv:2106.09685).

    Args:
        rank: of the change of each layer's weights.
        alpha: over `rank`, the factor of the change.
        targets: names of linear layers and convolutions of 1x1 whose weights are changed, as they end: of timm's
            attention `qkv` and `proj`, of its feed-forward layers `fc1` and `fc2`.
    """

    rank: Channels = 8
    alpha: PositiveFloat = 16.0
    targets: tuple[str, ...] = ("qkv", "proj")


@dataclass(frozen=True, kw_only=True)
class EncoderTraining:
    """Which weights of the encoder are trained, be it a part of its own or that of a whole network.

    Args:
        trainable: `all` weights, those of its `norms`, or `none`; null is `all`, and `none` beside `lora`.
        freeze_layers: how many of the encoder's layers stay as they are, from the image on; of a ViT the embeddings are
            the first, then comes each block.
        lora: trains a low-rank change of weights that stay as they are; null trains the weights.
    """

    trainable: Literal["all", "norms", "none"] | None = None
    freeze_layers: CountOrNone = 0
    lora: Lora | None = None


@dataclass(frozen=True, kw_only=True)
class WeightDecay:
    """What weight decay leaves alone.

    Args:
        exclude_from_weight_decay: whether biases, the weights of norms, and what a network names (tokens, embeddings
            and tables of positions) have no weight decay; null is true where the optimizer keeps weight decay out of
            the gradient, as AdamW does, else false.
    """

    exclude_from_weight_decay: bool | None = None


BESIDE = {"encoder": EncoderTraining, "network": EncoderTraining, "optimizer": WeightDecay}
"""By the kind of part: what stands beside its name and its own settings, the names that `Kind.reserved` has."""
