"""Which of Albumentations' transforms have an equivalent for many samples at once, and their work on a batch."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from segreg.data.augment import generators, sample_seed
from segreg.data.batched.drawing import Drawn, Equivalent, Images, Sources, applied
from segreg.data.batched.geometry import Flip, Turn, Warp, against_warp
from segreg.data.batched.values import BrightnessContrast, Noise, against_brightness_contrast, against_noise

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_Build = Callable[[Any, Images], Equivalent]
_Against = Callable[[Any, Images], str]


def _nothing(*_: object) -> str:
    return ""


EQUIVALENTS: Mapping[str, tuple[_Build, _Against]] = MappingProxyType(
    {
        "Affine": (Warp, against_warp),
        "D4": (lambda *_: Turn("group_element"), _nothing),
        "GaussNoise": (lambda transform, _: Noise(transform), against_noise),
        "HorizontalFlip": (lambda *_: Flip(-1), _nothing),
        "RandomBrightnessContrast": (lambda *_: BrightnessContrast(), against_brightness_contrast),
        "RandomRotate90": (lambda *_: Turn("factor"), _nothing),
        "Rotate": (Warp, against_warp),
        "ShiftScaleRotate": (Warp, against_warp),
        "Transpose": (lambda *_: Turn("t"), _nothing),
        "VerticalFlip": (lambda *_: Flip(-2), _nothing),
    }
)
"""What makes a transform's equivalent, and what gives the settings that it does not do, by the transform's name."""


def without_equivalent(transforms: Sequence[Any], images: Images) -> list[str]:
    """Return the transforms that have no equivalent, each with the setting where it depends on one."""
    found = []
    for transform in transforms:
        name = type(transform).__name__
        ours = name in EQUIVALENTS and type(transform).__module__.split(".")[0] == "albumentations"
        if not ours:
            found.append(name)
        elif setting := EQUIVALENTS[name][1](transform, images):
            found.append(f"{name} with {setting}")
    return found


@dataclass(frozen=True)
class Group:
    """Samples of a batch to which one step does the same thing.

    Attributes:
        step: which step.
        way: what it does.
        count: how many samples.
        width: how many numbers each has.
    """

    step: int
    way: str
    count: int
    width: int


class BatchedAugmentation:
    """Augment many samples at once, each as Albumentations would augment it alone.

    Each sample's draws are those that `Augmentation` makes of the same seed, down to the numbers; of `GaussNoise` all
    but the noise itself. They are made on the host, with Albumentations' own code. The work on pixels is the batch's.

    Args:
        transforms: Albumentations' transforms, all of which have an equivalent.
        images: what they are applied to.
    """

    def __init__(self, transforms: Sequence[Any], images: Images) -> None:
        assert not without_equivalent(transforms, images)
        self.images = images
        # Copies, because their random state is set for each sample.
        self.transforms = [copy.deepcopy(transform) for transform in transforms]
        self.steps = [EQUIVALENTS[type(transform).__name__][0](transform, images) for transform in transforms]

    def draw(self, *seed: object) -> list[Drawn | None]:
        """Return what each step does to a sample, None where it leaves it as it is; the same seed gives the same."""
        numpy, python = generators(*seed)
        drawn: list[Drawn | None] = []
        for place, (step, transform) in enumerate(zip(self.steps, self.transforms, strict=True)):
            sources = Sources(numpy, python, sample_seed(*seed, "step", place) >> 16)
            does = applied(transform, sources)
            drawn.append(step.draw(transform, self.images, sources) if does else None)
        return drawn

    def __call__(
        self, images: Tensor, masks: Tensor, groups: Sequence[Group], numbers: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the augmented images and masks; those that are given may be overwritten. No sync.

        Shape: images uint8 `[B, C, H, W]`, masks uint8 `[B, H, W]` or `[B, K, H, W]`, numbers float32 `[all]` as
        `grouped` gives them; the same is returned.
        """
        start = 0
        for group in groups:
            end = start + group.count * (1 + group.width)
            at, drawn = numbers[start : start + group.count].long(), numbers[start + group.count : end]
            start = end
            after, labels = self.steps[group.step].apply(
                images.index_select(0, at), masks.index_select(0, at), group.way, drawn.view(group.count, group.width)
            )
            images.index_copy_(0, at, after)
            masks.index_copy_(0, at, labels)
        return images, masks


def grouped(drawn: Sequence[Sequence[Drawn | None]]) -> tuple[list[Group], NDArray[np.float32]]:
    """Return what was drawn for each sample of a batch by steps and ways, and all numbers of it one after the other.

    They are one array, because each copy to a device costs as much as a kernel's launch. Of each group the samples'
    places in the batch come first, then each sample's numbers.
    """
    groups: list[Group] = []
    numbers: list[float] = []
    for step, of_samples in enumerate(zip(*drawn, strict=True)):
        ways: dict[str, list[tuple[int, Drawn]]] = defaultdict(list)
        for place, one in enumerate(of_samples):
            if one is not None:
                ways[one.way].append((place, one))
        for way, members in ways.items():
            groups.append(Group(step, way, len(members), len(members[0][1].numbers)))
            numbers += [place for place, _ in members]
            numbers += [number for _, one in members for number in one.numbers]
    return groups, np.array(numbers, np.float32)
