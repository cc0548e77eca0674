"""Data sets held in memory, and a cache folder of each test's own."""

from pathlib import Path

import numpy as np
import pytest

from segreg.registry.protocols import Dataset, Sample
from segreg.task import Task


def blob(size, seed):
    """A smooth random image [H, W, 3] and the mask of its bright part."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 5), dtype=np.uint8)
    from PIL import Image

    grey = np.asarray(Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC))
    return np.stack([grey, 255 - grey, grey // 2], axis=2), (grey > 127).astype(np.uint8)


def in_memory(count=10, size=(24, 32), task=None, groups=None, splits=None, reader="blobs"):
    """A data set without files."""
    task = task or Task(("blob",), "binary")
    samples = [
        Sample(
            f"s{i:03d}",
            Path(f"/nowhere/s{i:03d}.png"),
            Path(f"/nowhere/s{i:03d}_mask.png"),
            groups[i] if groups else None,
            splits[i] if splits else None,
        )
        for i in range(count)
    ]
    numbers = {sample.id: i for i, sample in enumerate(samples)}

    def read_mask(sample):
        mask = blob(size, numbers[sample.id])[1]
        if task.mode == "multilabel":
            return np.stack([np.roll(mask, 3 * k, axis=0) for k in range(task.channels)])
        return mask

    return Dataset(task, samples, lambda sample: blob(size, numbers[sample.id])[0], read_mask, reader=reader)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The cache's folder."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SEGREG_CACHE", str(folder))
    monkeypatch.delenv("SEGREG_CACHE_LIMIT_GB", raising=False)
    return folder


@pytest.fixture
def memory():
    return in_memory
