"""Which of Albumentations' transforms no recipe can use, and why."""

from __future__ import annotations

from collections.abc import Mapping

_BOXES = "it needs boxes, and a sample has an image and a mask alone; RandomCrop and CropNonEmptyMaskIfExists need none"
_IMAGES = "it needs other images or words with each sample, and a sample has an image and a mask alone"
_FLOATS = "images stay uint8; segreg normalises by itself, as the section input says"
_TENSORS = "segreg makes tensors by itself"

UNFIT: Mapping[str, str] = {
    "AtLeastOneBBoxRandomCrop": _BOXES,
    "BBoxSafeRandomCrop": _BOXES,
    "FDA": _IMAGES,
    "FromFloat": _FLOATS,
    "GridElasticDeform": "it fills borders of masks with class 0; ElasticTransform and GridDistortion have fill_mask",
    "HistogramMatching": _IMAGES,
    "Lambda": "it takes functions, which a recipe can't hold",
    "Morphological": "in a mask it takes the largest or the smallest class number around, not what the image shows",
    "Mosaic": _IMAGES,
    "Normalize": _FLOATS,
    "OverlayElements": _IMAGES,
    "PixelDistributionAdaptation": _IMAGES,
    "RandomCropFromBorders": "it changes the size, which must stay; RandomResizedCrop crops and keeps it",
    "RandomCropNearBBox": _BOXES,
    "RandomScale": "it changes the size, which must stay; Affine with a scale keeps it",
    "RandomSizedBBoxSafeCrop": _BOXES,
    "TextImage": _IMAGES,
    "ToFloat": _FLOATS,
    "ToRGB": "it changes the number of channels, which must stay; input.channels says how many are read",
    "ToTensorV2": _TENSORS,
}
"""The reason by the name, as a message continues after it."""


def unfit_transforms() -> Mapping[str, str]:
    """Return the reason by the transform's name."""
    return UNFIT
