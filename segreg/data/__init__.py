"""From a data set to batches: splitting, preparing, augmenting."""

from __future__ import annotations

from segreg.data.augment import Augmentation
from segreg.data.cache import PreprocessedDataset
from segreg.data.crops import Crops
from segreg.data.loader import Batch, BatchLoader, fitting_workers
from segreg.data.native import NativeDataset, prepare
from segreg.data.resize import Placement, fit_image, fit_mask, placement, restore
from segreg.data.split import SPLITS, SplitName, divide

__all__ = [
    "SPLITS", "Augmentation", "Batch", "BatchLoader", "Crops", "NativeDataset", "Placement", "PreprocessedDataset",
    "SplitName", "divide", "fit_image", "fit_mask", "fitting_workers", "placement", "prepare", "restore",
]  # fmt: skip
