"""What a transform draws for one sample, drawn by Albumentations' own code, without its work on pixels."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from segreg.data.cache import PreprocessedDataset


@dataclass(frozen=True)
class Images:
    """What the images are that a transform is drawn for.

    Attributes:
        height: in pixels.
        width: in pixels.
        channels: of the images.
        layered: whether a mask has a layer for each class.
    """

    height: int
    width: int
    channels: int
    layered: bool

    @classmethod
    def of(cls, prepared: PreprocessedDataset) -> Images:
        """Return what prepared images are."""
        height, width, channels = prepared.images.shape[1:]
        return cls(height, width, channels, layered=prepared.masks.ndim == 4)


@dataclass(frozen=True)
class Sources:
    """What one sample's draws come from: the generators that Albumentations would draw from, and a number besides.

    Attributes:
        numpy: NumPy's generator.
        python: Python's.
        key: 48 bits that depend on the sample, the epoch and the step.
    """

    numpy: np.random.Generator
    python: random.Random
    key: int


@dataclass(frozen=True)
class Drawn:
    """What was drawn for a sample.

    Attributes:
        way: which of the things that a transform can do; samples of one way are worked on together.
        numbers: how much of it, as many for every sample of one way.
    """

    way: str = ""
    numbers: tuple[float, ...] = ()


class Equivalent(Protocol):
    """Does to many samples what one of Albumentations' transforms does to each."""

    def draw(self, transform: Any, images: Images, sources: Sources, /) -> Drawn:
        """Return what the transform draws for a sample that it is applied to."""

    def apply(self, images: Tensor, masks: Tensor, way: str, numbers: Tensor, /) -> tuple[Tensor, Tensor]:
        """Return the images and masks after it.

        Shape: images uint8 `[n, C, H, W]`, masks uint8 `[n, H, W]` or `[n, K, H, W]`, numbers float32 `[n, numbers]`;
        the same is returned.
        """


def own_parameters(transform: Any, images: Images) -> dict[str, Any]:
    """Return what a transform draws for a image, through the methods that its authors override to draw.

    It is given a image's shape and type, not its values: no transform with an equivalent looks at them.
    """
    shape = (images.height, images.width, images.channels)
    parameters = {**transform.get_params(), "shape": shape}
    image = np.broadcast_to(np.uint8(0), shape)
    return {**parameters, **transform.get_params_dependent_on_data(params=parameters, data={"image": image})}


def applied(transform: Any, sources: Sources) -> bool:
    """Whether a transform is applied to a sample, and leaves the generators as Albumentations would."""
    transform.set_random_state(sources.numpy, sources.python)
    sources.python.random()  # the composition around a transform draws first, and always continues
    return bool(transform.should_apply())
