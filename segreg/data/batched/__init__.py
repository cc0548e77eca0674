"""Augmentations of many samples at once, on any device, in the place of Albumentations' for one."""

from __future__ import annotations

from segreg.data.batched.agreement import disagreeing
from segreg.data.batched.augmentation import BatchedAugmentation, without_equivalent
from segreg.data.batched.drawing import Pictures

__all__ = ["BatchedAugmentation", "Pictures", "disagreeing", "without_equivalent"]
