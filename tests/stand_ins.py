"""Parts of every kind that build nothing: enough for recipes to be read, checked and refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from segreg.registry.entry import Entry, Family
from segreg.registry.hooks import hookimpl
from segreg.settings import Fraction, NonNegativeInt, PositiveFloat, PositiveInt, Setting


def folder(*, images: Path, masks: Path, suffix: str = "", classes: tuple[str, ...] = ("lesion",)) -> None:
    """Images and masks in two folders.

    Args:
        images: folder of the images.
        masks: folder of the masks.
        suffix: what a mask's name has more than its image's.
        classes: names of the classes.
    """


def drawn(*, count: PositiveInt = 8) -> None:
    """Images that are drawn.

    Args:
        count: how many.
    """


def tiny(in_channels: int, *, width: PositiveInt = 8, weights: Literal["noise"] | None = None) -> None:
    """Two convolutions.

    Args:
        width: channels of the first level.
        weights: what it starts from.
    """


def resnet50(in_channels: int, *, weights: str | None = None) -> None:
    """A residual network.

    Args:
        weights: what it starts from.
    """


def timm_model(member: str, in_channels: int, *, weights: str | None = None) -> None:
    """A model of timm.

    Args:
        weights: tag of its weights.
    """


def timm_members() -> list[str]:
    return ["convnext_tiny", "convnext_small", "resnet18", "vit_tiny_patch16_224"]


def deeplabv3plus(
    encoder: Any,
    *,
    output_stride: Literal[8, 16] = 16,
    rates: tuple[PositiveInt, PositiveInt, PositiveInt] = (6, 12, 18),
    dropout: Fraction = 0.1,
    separable: bool = True,
) -> None:
    """Atrous pyramid pooling and one skip connection.

    Args:
        output_stride: stride of the coarsest level.
        rates: of the three atrous convolutions.
        dropout: share of features dropped before the head.
        separable: whether convolutions are separable.
    """


def unet(encoder: Any, *, channels: tuple[PositiveInt, ...] = (64, 32)) -> None:
    """Skip connections at every scale.

    Args:
        channels: of each block.
    """


def bce(task: Any) -> None:
    """Binary cross-entropy."""


def dice(task: Any, *, smooth: float = 0.0) -> None:
    """Soft Dice.

    Args:
        smooth: added to both sides of the fraction.
    """


def tversky(task: Any, *, alpha: Fraction, beta: Fraction = 0.5) -> None:
    """Tversky's index.

    Args:
        alpha: weight of false positives.
        beta: weight of false negatives.
    """


def transform(member: str, **settings: Any) -> None:
    """A transform of Albumentations."""


def transform_settings(member: str) -> Mapping[str, Setting]:
    own = {"Rotate": Setting("limit", float | tuple[float, float], (-90.0, 90.0), "range of the angle in degrees")}
    p = Setting("p", Fraction, 0.5, "probability of being applied")
    return {setting.name: setting for setting in (own.get(member), p) if setting}


def dice_metric(task: Any, threshold: float, *, average: Literal["pooled", "image"] = "pooled") -> None:
    """Dice's coefficient.

    Args:
        average: over all pixels, or over images.
    """


def iou(task: Any, threshold: float) -> None:
    """Intersection over union."""


def adam(
    parameter_groups: Any,
    *,
    lr: PositiveFloat,
    betas: tuple[Fraction, Fraction] = (0.9, 0.999),
    amsgrad: bool = False,
) -> None:
    """Adam.

    Args:
        lr: learning rate.
        betas: decay of the two averages.
        amsgrad: whether the largest second average is kept.
    """


def cosine(optimizer: Any, steps_per_epoch: int, epochs: int, *, warmup_epochs: NonNegativeInt = 0) -> None:
    """Half a cosine, down to zero.

    Args:
        warmup_epochs: epochs of linear rise before it.
    """


@hookimpl
def segreg_entries() -> list[Entry | Family]:
    return [
        Entry("dataset", "folder", folder),
        Entry("dataset", "drawn", drawn),
        Entry("encoder", "tiny", tiny),
        Entry("encoder", "resnet50", resnet50, paper="arXiv:1512.03385"),
        Family("encoder", "timm", "timm/", timm_model, timm_members),
        Entry("decoder", "deeplabv3plus", deeplabv3plus, paper="arXiv:1802.02611"),
        Entry("decoder", "unet", unet),
        Entry("loss", "bce", bce),
        Entry("loss", "dice", dice),
        Entry("loss", "tversky", tversky),
        Family("augmentation", "transforms", "", transform, lambda: ["HorizontalFlip", "Rotate"], transform_settings),
        Entry("metric", "dice", dice_metric),
        Entry("metric", "iou", iou),
        Entry("optimizer", "adam", adam),
        Entry("schedule", "cosine", cosine),
    ]
