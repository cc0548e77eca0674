"""Brightness, contrast and noise of many samples, as Albumentations makes them of one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from segreg.data.batched.drawing import Drawn, Images, Sources, own_parameters

if TYPE_CHECKING:
    from torch import Tensor

_HALF = 24
"""Bits of a key in one float32, which holds whole numbers of so many bits exactly."""


class BrightnessContrast:
    """Multiply values and adds to them: RandomBrightnessContrast."""

    def draw(self, transform: Any, images: Images, *_: object) -> Drawn:
        """Return the factor and what is added."""
        parameters = own_parameters(transform, images)
        return Drawn("", (float(parameters["alpha"]), float(parameters["beta"])))

    def apply(self, images: Tensor, masks: Tensor, _: str, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images so changed; fractions are cut off, as Albumentations does."""
        factor, added = (one[:, None, None, None] for one in numbers.unbind(1))
        return _as_uint8(images.float() * factor + added), masks


def against_brightness_contrast(transform: Any, _: Images) -> str:
    """Return the setting that it does not do, in words: what depends on a image's values is not drawn on the host."""
    return "" if transform.brightness_by_max else "brightness_by_max: false"


class Noise:
    """Add normal noise: GaussNoise, of the same distribution but not its numbers.

    Albumentations has OpenCV draw them, one after the other, from a seed of 16 bits. Here a pixel's number depends on its
    place and on 48 bits of the sample's, so that it is the same in any batch and on any device but for rounding.

    Args:
        transform: Albumentations' own, for whether channels differ.
    """

    def __init__(self, transform: Any) -> None:
        self.per_channel = bool(transform.per_channel)

    def draw(self, transform: Any, _: Images, sources: Sources) -> Drawn:
        """Return the noise's mean and deviation as shares of 255, and the key of its numbers."""
        deviation = sources.python.uniform(*transform.std_range)
        mean = sources.python.uniform(*transform.mean_range)
        sources.numpy.integers(0, 2**16)  # Albumentations' seed, so that what follows draws as it would
        high, low = divmod(sources.key, 1 << _HALF)
        return Drawn("", (mean, deviation, float(high), float(low)))

    def apply(self, images: Tensor, masks: Tensor, _: str, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images with noise, of which fractions are cut off towards zero, as Albumentations does."""
        mean, deviation = (one[:, None, None, None] for one in numbers[:, :2].unbind(1))
        count, channels, height, width = images.shape
        keys = (numbers[:, 2].long() << _HALF) + numbers[:, 3].long()
        drawn = normal(keys, (channels if self.per_channel else 1) * height * width).view(count, -1, height, width)
        return _as_uint8(images.float() + ((mean + deviation * drawn) * 255).trunc_()), masks


def against_noise(transform: Any, _: Images) -> str:
    """Return the setting that it does not do, in words."""
    factor = transform.noise_scale_factor
    return "" if factor == 1 else f"noise_scale_factor: {factor}"


def normal(keys: Tensor, count: int) -> Tensor:
    """Return numbers from the standard normal distribution that depend on a key and their place alone.

    Box and Muller's pairs of numbers (1958) of the 64-bit words of splitmix64 (Steele, Lea, Flood, OOPSLA 2014), whose
    state is the key before the first.

    Shape: keys int64 `[n]`; float32 `[n, count]` is returned.
    """
    import torch

    words = splitmix64(keys, -(-count // 2))
    above_zero = (_shifted(words, 40) + 1).float() * 2.0**-24
    angle = (_shifted(words, 8) & 0xFFFFFF).float() * (2 * math.pi * 2.0**-24)
    radius = above_zero.log_().mul_(-2).sqrt_()
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :count]


def splitmix64(keys: Tensor, count: int) -> Tensor:
    """Return the first words of splitmix64 from each key, int64 `[n, count]`; their bits are those of unsigned words."""
    import torch

    places = torch.arange(1, count + 1, device=keys.device)
    words = keys[:, None] + places * _signed(0x9E3779B97F4A7C15)  # wraps around, as it is meant to
    words = (words ^ _shifted(words, 30)) * _signed(0xBF58476D1CE4E5B9)
    words = (words ^ _shifted(words, 27)) * _signed(0x94D049BB133111EB)
    return words ^ _shifted(words, 31)


def _shifted(words: Tensor, by: int) -> Tensor:
    """Return words shifted to the right, zeros coming in; torch would bring in the sign."""
    return (words >> by) & ((1 << (64 - by)) - 1)


def _signed(word: int) -> int:
    return word - (1 << 64)


def _as_uint8(values: Tensor) -> Tensor:
    import torch

    return values.clamp_(0, 255).to(torch.uint8)
