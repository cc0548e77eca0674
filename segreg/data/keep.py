"""Where the images of a training are kept: in the cache's files, or all of them on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from segreg.data.batched import BatchedAugmentation, Images, disagreeing, without_equivalent
from segreg.data.cache import PreprocessedDataset
from segreg.data.cache_folder import gigabytes
from segreg.data.loader import Maker
from segreg.data.on_device import OnDevice, Uploaded, bytes_taken
from segreg.errors import SegregError, listed

if TYPE_CHECKING:
    import torch

SHARE = 0.3
"""Share of a device's free memory that images may take unasked: the network's activations need the rest."""


@dataclass(frozen=True)
class Kept:
    """Where the images of a training are kept, and what makes batches of them.

    Attributes:
        words: where and why, for the run's header; empty where it goes without saying.
        train: makes augmented batches on the device; None where images are read from files.
        val: makes batches on the device of images as they are; None where they are read from files.
    """

    words: str
    train: Maker | None = None
    val: Maker | None = None


def keep_images(
    prepared: PreprocessedDataset,
    indices: Sequence[int],
    *,
    asked: bool | Literal["auto"],
    augment: Sequence[Any],
    seed: int,
    device: torch.device,
) -> Kept:
    """Put images on the device if that is where they are to be kept.

    Args:
        prepared: the images.
        indices: those that train and validate, as indices into `Dataset.samples`.
        asked: the setting, as `where` has it.
        augment: Albumentations' transforms.
        seed: what augmentations depend on, with the epoch and a sample's id.
        device: where the network computes.

    Raises:
        SegregError: it can't be as it is asked for.
    """
    images = Images.of(prepared)
    free = _free(device)
    missing: list[str] = []
    if asked is True or (asked == "auto" and free is not None):  # else it is decided without them
        missing = without_equivalent(augment, images) or disagreeing(augment, images, prepared.task)
    needed = bytes_taken(prepared, len(indices))
    on_device, words = where(asked, device=str(device), needed=needed, free=free, missing=missing)
    if not on_device:
        return Kept(words)
    uploaded = Uploaded.of(prepared, indices, device)
    augmentation = BatchedAugmentation(augment, images) if augment else None
    return Kept(words, OnDevice(uploaded, augmentation, seed), OnDevice(uploaded, None, seed))


def _free(device: torch.device) -> int | None:
    import torch

    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def where(
    asked: bool | Literal["auto"], *, device: str, needed: int, free: int | None, missing: Sequence[str]
) -> tuple[bool, str]:
    """Whether the images of a training are kept on the device, and that in words with the reason.

    Args:
        asked: `True`, `False`, or "auto": on a CUDA device where they take at most a share of its free memory and all
            augmentations can be done there.
        device: the device by its name.
        needed: bytes of all images and masks.
        free: bytes that are free on a CUDA device; None on another.
        missing: the augmentations that are not done on a device.

    Raises:
        SegregError: it is asked for, and an augmentation is not done there, or there is not the memory.
    """
    size = gigabytes(needed)
    if asked is True:
        _refuse(device, needed, free, missing)
        return True, f"{size} on {device}, and augmented there, as asked for"
    if asked is False:
        return False, "in files, as asked for"
    if free is None:
        return False, ""  # nobody expects them elsewhere
    if missing:
        return False, f"in files, because {listed(missing)} {_is(missing)} not done on the device"
    room = f"{SHARE:.0%} of the {gigabytes(free)} free"
    if needed > SHARE * free:
        return False, f"in files, because {size} are more than {room} on {device}"
    return True, f"{size} on {device}, and augmented there, because they are at most {room} on it"


def _refuse(device: str, needed: int, free: int | None, missing: Sequence[str]) -> None:
    if missing:
        raise SegregError(
            f"train.images_on_device: {listed(missing)} {_is(missing)} not done on the device",
            hint="leave the setting at auto or make it false: Albumentations does every augmentation on the host",
        )
    if free is not None and needed > free:
        raise SegregError(
            f"train.images_on_device: the images take {gigabytes(needed)}; on {device} {gigabytes(free)} are free",
            hint="leave the setting at auto or make it false: then images are read from the cache's files",
        )


def _is(missing: Sequence[str]) -> str:
    return "is" if len(missing) == 1 else "are"
