"""Augmentations of many samples at once, on any device, in place of Albumentations' for one."""

from __future__ import annotations

from segreg.data.batched.agreement import disagreeing
from segreg.data.batched.augmentation import BatchedAugmentation, without_equivalent
from segreg.data.batched.drawing import Images

__all__ = ["BatchedAugmentation", "Images", "disagreeing", "without_equivalent"]
