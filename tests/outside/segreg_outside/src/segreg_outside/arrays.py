"""Read a folder of numpy's arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import segreg


def read_folder(folder: Path) -> segreg.Dataset:
    """Return the images of a folder.

    Raises:
        SegregError: there are none.
    """
    samples = [
        segreg.Sample(id=image.name.removesuffix(".image.npy"), image=image, mask=_mask_of(image))
        for image in sorted(folder.glob("*.image.npy"))
    ]
    if not samples:
        raise segreg.SegregError(
            f"{folder} holds no NAME.image.npy",
            hint="numpy.save writes them, and each one's mask as NAME.mask.npy beside it",
        )
    return segreg.Dataset(
        task=segreg.Task(("square",), "binary"),
        samples=samples,
        read_image=lambda sample: np.load(sample.image),
        read_mask=_read_mask,
        reader="outside.arrays",
    )


def _mask_of(image: Path) -> Path:
    return image.with_name(image.name.replace(".image.npy", ".mask.npy"))


def _read_mask(sample: segreg.Sample) -> Any:
    assert sample.mask is not None
    return np.load(sample.mask)
