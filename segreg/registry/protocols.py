"""The kinds of part and what they promise each other: protocols to satisfy, nothing to inherit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from segreg.errors import SegregError, did_you_mean, listed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor
    from torch.export import ExportedProgram

    from segreg.task import Task


@dataclass(frozen=True)
class Kind:
    """One kind of part.

    Attributes:
        name: as entries and `segreg list` name it.
        gives: what segreg passes to the builder, by position.
        returns: what the builder must return, for messages.
        reserved: setting names that a recipe uses for itself on this kind.
    """

    name: str
    gives: tuple[str, ...]
    returns: str
    reserved: frozenset[str] = frozenset({"name"})


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "encoder",
            ("in_channels",),
            "an nn.Module that is a segreg.Encoder",
            frozenset({"name", "trainable", "freeze_layers", "lora"}),
        ),
        Kind("decoder", ("encoder",), "an nn.Module that is a segreg.Decoder", frozenset({"name", "weight"})),
        Kind(
            "network",
            ("in_channels",),
            "a segreg.Encoder and a segreg.Decoder built on it, in a tuple",
            frozenset({"name", "trainable", "freeze_layers", "lora"}),
        ),
        Kind("loss", ("task",), "a function (logits, target) -> scalar", frozenset({"name", "weight"})),
        Kind("dataset", (), "a segreg.Dataset"),
        Kind("augmentation", (), "an Albumentations transform"),
        Kind("batch_augmentation", ("task",), "a segreg.BatchAugmentation"),
        Kind("metric", ("task", "threshold"), "a torchmetrics.Metric"),
        Kind(
            "optimizer",
            ("parameter_groups",),
            "a torch.optim.Optimizer",
            frozenset({"name", "exclude_from_weight_decay"}),
        ),
        Kind("schedule", ("optimizer", "steps_per_epoch", "epochs"), "a segreg.Schedule"),
        Kind("exporter", (), "a segreg.Exporter"),
    )
}
"""What segreg gives each kind and what it gets back. A new kind is one more row."""


def check_kind(kind: str, written: str = "") -> None:
    """Refuse what is not a kind of part; `written` is the user's own word for it."""
    if kind not in KINDS:
        word = written or kind
        hint = did_you_mean(word, KINDS) or f"the kinds are {listed(list(KINDS))}"
        raise SegregError(f'"{word}" is not a kind of part', hint=hint)


@runtime_checkable
class Encoder(Protocol):
    """An `nn.Module` that turns an image into levels of features, finest first.

    Shape: image `[B, C, H, W]` to a list of `[B, channels[i], H / strides[i], W / strides[i]]`, where a size that the
    stride does not divide is rounded up or down as the network does. Only real levels: no copy of the image, no empty
    channels.

    Six things may be offered besides:

    * `dilate(output_stride: int) -> bool`: change the network in place, same parameters, so that no level is coarser
      than `output_stride`, update `strides`, and say whether that was possible.
    * `normalization -> tuple[tuple[float, ...], tuple[float, ...]]`, an attribute: mean and standard deviation that its
      weights were trained with, of channel values in [0, 1].
    * `size_divisor -> int`, an attribute: image sides must be multiples of it; the model pads for it and crops after.
    * `image_size -> tuple[int, int] | None`, an attribute: the one height and width that it takes, None for any. The
      model pads smaller images to it; larger ones are the encoder's to refuse.
    * `layer_groups() -> Sequence[Sequence[str]]`: names of its modules and parameters, by layer from the image on; of
      nested ones the innermost counts, and what is in none lies beyond the last.
    * `no_weight_decay() -> Sequence[str]`: names, or patterns of names, of parameters that are best left without weight
      decay, besides biases and norms.
    """

    channels: Sequence[int]
    strides: Sequence[int]

    def __call__(self, image: Tensor, /) -> Sequence[Tensor]: ...


@runtime_checkable
class Decoder(Protocol):
    """An `nn.Module` that turns an encoder's levels into one map of features.

    Shape: levels as the encoder gives them to `[B, channels, H / stride, W / stride]`. Where a `pyramid` takes the
    encoder's strides as powers of two, `stride` is meant so too.

    Five things may be offered besides:

    * `head(classes: int) -> nn.Module`, a method: the layers from that map to logits, a `Head`, where a 1x1 convolution
      is not what the paper has.
    * `task_head(task: Task) -> nn.Module`, a method: the same, where the layers differ between binary, multiclass and
      multilabel. It is asked in place of `head`.
    * `set_epoch(epoch: int, epochs: int)`, a method: called as each epoch of a training begins, from 1.
    * `size_divisor -> int`: image sides must be multiples of it; the model pads for it and crops after it.
    * `no_weight_decay() -> Sequence[str]`, a method, as an encoder's.

    To a head of its own a decoder may give a tuple of tensors, batch first, which begins with that map.
    """

    channels: int
    stride: int

    def __call__(self, levels: Sequence[Tensor], /) -> Tensor | tuple[Tensor, ...]: ...


class Head(Protocol):
    """An `nn.Module` that turns what its decoder gives into logits `[B, K, h, w]` of any size.

    Two pairs may be offered besides, for training alone:

    * `further -> Mapping[str, float]`, an attribute, and `further_logits(features) -> Sequence[Tensor]`: names and
      weights of further logit maps, and these maps in the same order. The recipe's losses score each as the main one.
    * `own_losses -> Mapping[str, float]`, an attribute, and `loss_terms(features, targets) -> Sequence[Tensor]`: names
      and weights of losses of its own, and their values in the same order, float32 scalars. They take the place of the
      recipe's losses, which then score validation alone. Features come in float32 and without autocast, targets int64
      as `Task` has them, at the image's size.
    """

    def __call__(self, features: Any, /) -> Tensor: ...


class Loss(Protocol):
    """A function, or `nn.Module`, from float32 logits `[B, K, H, W]` and a `Task` target to a scalar.

    It may have a state, best in buffers: an auxiliary decoder is scored by a copy of its own, and a module is in
    evaluation mode while the network is. One thing may be offered besides: `set_epoch(epoch: int)`, called as each
    epoch begins, from 1.
    """

    def __call__(self, logits: Tensor, target: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class MixedBatch:
    """A batch as a batch augmentation gives it.

    Attributes:
        images: `[B, C, H, W]`, of the size and type that it was given.
        targets: as `Task` has them, of the size and type that it was given.
        others: a second truth of the same images, of the same form; None where there is but one.
        share: the share of `targets` in the loss, in [0, 1]; `others` have the rest.
    """

    images: Tensor
    targets: Tensor
    others: Tensor | None = None
    share: float = 1.0


class BatchAugmentation(Protocol):
    """A function that mixes the images of a batch with one another, in training, on the device that computes.

    Images are uint8, uint16 or float32 before normalisation. All that it draws comes from the generator it is given; it
    waits for no device, and changes nothing in place.
    """

    def __call__(self, images: Tensor, targets: Tensor, generator: np.random.Generator, /) -> MixedBatch: ...


class Metric(Protocol):
    """A `torchmetrics.Metric` of float32 logits `[B, K, H, W]` and a `Task` target; `compute` gives scalars by name.

    Five things may be offered besides:

    * `definitions -> dict[str, str]`, an attribute: a sentence for each name that `compute` gives.
    * `of_labels -> bool`, an attribute: whether nothing but the predicted labels counts. So are all metrics with
      `scores_of_counts`. Of others, networks that were exported to return labels are not scored by it.
    * `per_image(logits, target) -> dict[str, Tensor]`: each image's own values `[B]`, without counting them. Where
      `compute` gives `NAME.per_image_mean`, the values called NAME give it an interval.
    * `scores_of_counts(counts: Tensor) -> dict[str, Tensor]`: those of `compute`'s values that follow from pixels
      counted by the recipe's threshold, which gives them intervals. A metric without `per_image` gets its values
      for single images from it: an image's `NAME.pooled` is its `NAME`. Int64 `[..., K, 4]`, true positives, false
      positives, false negatives and true negatives of each class, to float `[...]`.
    * `sums(logits, target) -> Tensor` and `scores_of_sums(sums: Tensor) -> dict[str, Tensor]`: the same for what
      follows from other sums: `[B, ...]` of each image, and scores `[...]` of what was added up over images.
    """

    def update(self, logits: Tensor, target: Tensor) -> None: ...
    def compute(self) -> dict[str, Tensor]: ...


class Schedule(Protocol):
    """What changes the learning rate: stepped after every optimizer step.

    `epoch_end(value)` may be offered besides: called after each epoch with the monitored value, larger is better.
    """

    def step(self) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> None: ...


@dataclass(frozen=True)
class Calibration:
    """Training images from which an exporter finds the ranges of 8-bit numbers, and the limit of what they may cost.

    Attributes:
        images: batches of one image `[1, C, H, W]`, as the exported network takes them.
        score: returns each image's score, larger is better, of what a function returns for `images`.
        most_lost: the difference of mean scores that may be lost at most.
    """

    images: Sequence[NDArray[Any]]
    score: Callable[[Callable[[NDArray[Any]], NDArray[Any]]], Sequence[float]]
    most_lost: float


class Exporter(Protocol):
    """Writes a network as a file of another runtime, and runs such a file.

    Attributes:
        suffix: how the name of its files ends, such as ".onnx".
        precisions: what it can write: some of "float32", "bf16", "float16" and "int8".
    """

    @property
    def suffix(self) -> str: ...
    @property
    def precisions(self) -> Sequence[str]: ...

    def write(
        self,
        program: ExportedProgram,
        file: Path,
        *,
        precision: str,
        notes: str,
        calibration: Calibration | None = None,
    ) -> None:
        """Write a traced network.

        Shape: images `[B, C, H, W]`, uint8, uint16 or float32, to float32 logits `[B, K, H, W]`, or to uint8 labels
        `[B, H, W]`, or `[B, K, H, W]` if multilabel. Which sizes may change is in the program.

        Args:
            program: the network in float32, or in float16 where that is the precision.
            file: what to write; further files of its name, such as weights, may lie beside it.
            precision: one of `precisions`.
            notes: JSON, to be kept in the file's metadata.
            calibration: where the precision is int8.

        Raises:
            SegregError: the runtime can't have this network; the message names the operator or the setting.
        """
        ...

    def load(self, file: Path, *, precision: str) -> Callable[[NDArray[Any]], NDArray[Any]]:
        """Return the network of a file, as a function of images on the CPU; nothing is unpickled.

        Raises:
            SegregError: the file can't be read.
        """
        ...


@dataclass(frozen=True)
class Sample:
    """One image of a dataset.

    Attributes:
        id: unique in the dataset, stable between machines; used in results and file names.
        image: the file, as it is named in messages.
        mask: the file with the truth, or None for an image without one.
        group: samples of one group (a patient, a source image) are never in two splits.
        split: "train", "val" or "test" where the dataset itself says so.
    """

    id: str
    image: Path
    mask: Path | None = None
    group: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Objects:
    """How many annotated objects masks are drawn from, and how many of them the masks don't show as annotated.

    It is reported in a run's header and environment; above a tenth ignored or left out, in a banner.

    Attributes:
        total: objects of the classes, ignored and left out ones too.
        ignored: objects whose pixels count for nothing, by the reason and what to do, as in
            `{"iscrowd is 1; crowd: draw draws them": 4}`.
        left_out: objects that no mask shows, by the reason, as in `{"outside the image": 1}`.
        cut_off: objects that reach beyond the image's border by more than a pixel; what lies in it is drawn.
        notes: what else should be known, such as how a program's habits were understood.
    """

    total: int
    ignored: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    cut_off: int = 0
    notes: Sequence[str] = ()

    @property
    def left_out_share(self) -> float:
        """Return the share of objects that are ignored or left out, in [0, 1]."""
        return (sum(self.ignored.values()) + sum(self.left_out.values())) / self.total if self.total else 0.0


@dataclass(frozen=True)
class Recognised:
    """One way in which a dataset part can read a folder, as its entry's `recognise` returns it for `segreg init`.

    Attributes:
        settings: the recipe's section dataset without its name, as a recipe writes it: paths may be `Path`s.
        because: what was seen, in a few words: "images and masks, 40 pairs by name, masks of 0 and 255".
        instead_of: names of other dataset parts whose reading of the same files this one replaces, because it knows
            more of them; such as a challenge's own file names against any two folders.
    """

    settings: Mapping[str, Any]
    because: str
    instead_of: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """Where samples are and how one is read. Splitting, resizing, caching and batching are segreg's.

    Attributes:
        task: the classes.
        samples: every image, in a stable order.
        read_image: gives `[H, W]` or `[H, W, C]`, uint8, uint16 or float32, upright, for one sample. Several threads
            call it and `read_mask` at once.
        read_mask: gives uint8 labels as `Task` has them, `[H, W]` (`[K, H, W]` if multilabel), 255 = ignored.
        notice: shown in the run's header, report and results, for instance that the images are synthetic.
        reader: names how images and masks are read, with every setting that changes them; part of the cache's key.
            Where it is empty, the cache reads every sample each time to know whether it has changed.
        folders: of the images, for messages.
        objects: how many annotated objects the masks are drawn from, where they are drawn.
        void: what is ignored by the data set's own definition, such as "void": its share is shown, and not warned of.
    """

    task: Task
    samples: Sequence[Sample]
    read_image: Callable[[Sample], NDArray[np.uint8 | np.uint16 | np.float32]]
    read_mask: Callable[[Sample], NDArray[np.uint8]]
    notice: str = ""
    reader: str = ""
    folders: Sequence[Path] = field(default=())
    objects: Objects | None = None
    void: str = ""


@dataclass(frozen=True)
class Curve:
    """One line in the unit square. Curves of the same axes are drawn into one panel.

    Attributes:
        name: whose curve it is, such as a class.
        x: float64 `[N]`, in the line's order.
        y: float64 `[N]`.
        x_label: what x is.
        y_label: what y is.
        note: stands behind the name, such as "AUC 0.912".
        chance: what guessing reaches: y at x = 0 and at x = 1. None where there is no such line.
    """

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    x_label: str
    y_label: str
    note: str = ""
    chance: tuple[float, float] | None = None


@dataclass(frozen=True)
class Matrix:
    """How often each true label was given each predicted one.

    Attributes:
        name: what is counted; "" where there is but one matrix.
        labels: names of the labels, in index order.
        counts: integers `[L, L]`, true labels in rows.
    """

    name: str
    labels: tuple[str, ...]
    counts: NDArray[Any]


@dataclass(frozen=True)
class Reliability:
    """How often predictions come true, by how sure they were, in equal bins of [0, 1].

    Attributes:
        name: whose predictions, such as a class.
        confidence: float64 `[N]`, each bin's mean predicted probability; NaN where the bin is empty.
        accuracy: float64 `[N]`, the share of each bin that came true; NaN where the bin is empty.
        share: float64 `[N]`, each bin's share of all predictions.
        note: stands behind the name, such as "ECE 0.031".
    """

    name: str
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    share: NDArray[np.float64]
    note: str = ""
