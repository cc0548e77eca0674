"""From a data set to batches: splitting, preparing, augmenting."""

from __future__ import annotations

from segreg.data.augment import Augmentation
from segreg.data.loader import Batch, Batches, fitting_workers
from segreg.data.cache import Prepared, prepare
from segreg.data.keep import Kept, keep_pictures
from segreg.data.resize import Placement, fit_image, fit_mask, placement, restore
from segreg.data.split import SIDES, Side, divide
from segreg.data.cache_folder import CacheEntry, cache_folder, cache_limit, clear, gigabytes, list_entries

__all__ = [
    "SIDES", "Augmentation", "Batch", "Batches", "CacheEntry", "Kept", "Placement", "Prepared", "Side", "cache_folder",
    "cache_limit", "clear", "divide", "fit_image", "fit_mask", "fitting_workers", "gigabytes", "keep_pictures",
    "list_entries", "placement", "prepare", "restore",
]  # fmt: skip
