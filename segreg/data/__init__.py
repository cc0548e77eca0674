"""From a data set to batches: splitting, preparing, augmenting."""

from __future__ import annotations

from segreg.data.augment import Augmentation
from segreg.data.cache import PreprocessedDataset, prepare
from segreg.data.cache_folder import CacheEntry, cache_folder, cache_limit, clear, gigabytes, list_entries
from segreg.data.loader import Batch, BatchLoader, fitting_workers
from segreg.data.resize import Placement, fit_image, fit_mask, placement, restore
from segreg.data.split import SPLITS, SplitName, divide

__all__ = [
    "SPLITS", "Augmentation", "Batch", "BatchLoader", "CacheEntry", "Placement", "PreprocessedDataset", "SplitName",
    "cache_folder", "cache_limit", "clear", "divide", "fit_image", "fit_mask", "fitting_workers", "gigabytes",
    "list_entries", "placement", "prepare", "restore",
]  # fmt: skip
