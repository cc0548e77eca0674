"""RandAugment: a few operations drawn from a list, all of one magnitude.

Cubuk et al., RandAugment: Practical automated data augmentation with a reduced search space, arXiv:1909.13719. Ranges
are torchvision's, over which a magnitude of 30 goes. Departures: masks follow what moves pixels, and what comes in from
outside is ignored; images are sheared about their middle; the drawn operations are applied in the list's order;
sharpness is raised only, as Albumentations has it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import albumentations as A

from segreg.task import IGNORE_INDEX


class RandAugment(A.SomeOf):
    """Some operations, each as likely, one of them perhaps more than once.

    Args:
        operations: how many.
        magnitude: how strong they are, from 0 to 30.
        p: probability of being applied.
    """

    def __init__(self, operations: int, magnitude: int, p: float) -> None:
        super().__init__([*operations_of(magnitude).values()], n=operations, replace=True, p=p)


def operations_of(magnitude: int) -> Mapping[str, Any]:
    """Return the paper's operations of a magnitude from 0 to 30, by torchvision's names."""
    share = magnitude / 30
    shear, shift, strength = math.degrees(math.atan(0.3 * share)), 150 / 331 * share, 0.9 * share
    still = {"brightness": (1, 1), "contrast": (1, 1), "saturation": (1, 1), "hue": (0, 0)}
    moved = {"fill_mask": IGNORE_INDEX, "mask_interpolation": 0, "p": 1.0}

    def affine(**way: Any) -> Callable[[float], Any]:
        ((setting, axis),) = way.items()
        return lambda by: A.Affine(**{setting: {axis: (by, by)}}, **moved)

    def jitter(what: str) -> Callable[[float], Any]:
        return lambda by: A.ColorJitter(**{**still, what: (1 + by, 1 + by)}, p=1.0)

    def either(operation: Callable[[float], Any], size: float) -> Any:
        return A.OneOf([operation(size), operation(-size)], p=1.0)

    return {
        "Identity": A.NoOp(p=1.0),
        "ShearX": either(affine(shear="x"), shear),
        "ShearY": either(affine(shear="y"), shear),
        "TranslateX": either(affine(translate_percent="x"), shift),
        "TranslateY": either(affine(translate_percent="y"), shift),
        "Rotate": either(lambda by: A.Rotate((by, by), **moved), 30 * share),
        "Brightness": either(jitter("brightness"), strength),
        "Color": either(jitter("saturation"), strength),
        "Contrast": either(jitter("contrast"), strength),
        # Its kernel is 13 times PIL's difference of an image and the smoothed one.
        "Sharpness": A.Sharpen((strength / 13, strength / 13), lightness=(1, 1), p=1.0),
        "Posterize": A.Posterize(8 - round(4 * share), p=1.0),
        "Solarize": A.Solarize((1 - share, 1 - share), p=1.0),
        "AutoContrast": A.AutoContrast(method="pil", p=1.0),
        "Equalize": A.Equalize(p=1.0),
    }
