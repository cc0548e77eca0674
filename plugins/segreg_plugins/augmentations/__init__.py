"""The built-in augmentations: a table of contents that imports nothing heavy."""

from __future__ import annotations

from segreg.registry.entry import Entry, Family
from segreg.registry.hooks import hookimpl
from segreg_plugins.augmentations.source import transform_facts, transform_names, transform_settings
from segreg_plugins.augmentations.transform import albumentations_transform
from segreg_plugins.augmentations.unfit import unfit_transforms


@hookimpl
def segreg_entries() -> list[Entry | Family]:
    """Return Albumentations' transforms, by their own names with their own settings."""
    return [
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
        )
    ]
