"""The built-in augmentations, of samples and of batches: a table of contents that imports nothing heavy."""

from __future__ import annotations

from segreg.registry.entry import Entry, Family
from segreg.registry.hooks import hookimpl
from segreg_plugins.augmentations import batches
from segreg_plugins.augmentations.source import transform_facts, transform_names, transform_settings
from segreg_plugins.augmentations.transform import albumentations_transform, rand_augment
from segreg_plugins.augmentations.unfit import unfit_transforms


@hookimpl
def segreg_entries() -> list[Entry | Family]:
    """Return Albumentations' transforms, by their own names with their own settings, and what mixes batches."""
    return [
        Entry("augmentation", "RandAugment", rand_augment, paper="arXiv:1909.13719"),
        Entry("batch_augmentation", "mixup", batches.mixup, paper="arXiv:1710.09412"),
        Entry("batch_augmentation", "cutmix", batches.cutmix, paper="arXiv:1905.04899"),
        Entry("batch_augmentation", "classmix", batches.classmix, paper="arXiv:2007.07936"),
        Entry("batch_augmentation", "copy_paste", batches.copy_paste, paper="arXiv:2012.07177"),
        Family(
            kind="augmentation",
            name="albumentations",
            prefix="",
            build=albumentations_transform,
            members=transform_names,
            member_settings=transform_settings,
            paper="arXiv:1809.06839",
            unfit=unfit_transforms,
            facts=transform_facts,
        ),
    ]
