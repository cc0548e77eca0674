"""Applying augmentations to one sample so that a seed alone decides what happens and a mask stays a mask.

The one place of the core that knows Albumentations: each step is wrapped in its `Compose`.
"""

from __future__ import annotations

import copy
import hashlib
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segreg.config.sections import Input
from segreg.data.resize import format_size
from segreg.errors import SegregError, listed
from segreg.task import IGNORE_INDEX, Task, mask_shape

TRIES = 8
"""How often each step is tried out before it is used: some draw whether they change the size."""
IDLE_TRIES = 48
"""After how many tries without a change a step is taken to change nothing: some draw whether they do anything."""
_PARTS_OF_IMAGES = (
    "crops smaller than input.size aren't available; RandomResizedCrop with the size of the input, ShiftScaleRotate "
    "and Affine with a scale show parts of an image"
)
# Between two labels that no task has, so that a mixture of them shows.
_TRIED_LABELS = (0, 200)


class Augmentation:
    """Albumentations' transforms, one after the other, on image and mask together.

    The transforms must keep the image's size and type, because samples are stacked; and they must not mix labels.
    Pixels that a transform fills into a mask are marked by the transform itself: in recipes `fill_mask` is 255 unless
    it is set, in transforms that Python code makes it is Albumentations' own 0.

    Args:
        transforms: Albumentations transforms or compositions of them.
        task: the classes.

    Raises:
        SegregError: something is not a transform.
    """

    def __init__(self, transforms: Sequence[Any], task: Task) -> None:
        import albumentations

        self.task = task
        self.names = [type(transform).__name__ for transform in transforms]
        for transform, name in zip(transforms, self.names, strict=True):
            if not callable(transform) or not hasattr(transform, "set_random_state"):
                raise SegregError(f"{name} is not an Albumentations transform")
        # Copies, because their random state is set for each sample.
        self.steps = [albumentations.Compose([copy.deepcopy(transform)]) for transform in transforms]

    def __call__(
        self, image: NDArray[Any], mask: NDArray[np.uint8], *seed: object
    ) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Return the augmented image and mask; the same seed gives the same.

        Shape: image `[H, W, C]` of uint8, or of a type that `refuse_type` allows, and mask uint8 `[H, W]` or
        `[K, H, W]`; the same is returned.

        Raises:
            SegregError: a transform failed, changed size or type, or gave other labels; the message names it.
        """
        drawn_from = generators(*seed)
        for step, name in zip(self.steps, self.names, strict=True):
            image, mask = _stepped(step, name, image, mask, drawn_from)
        return image, mask

    def _certain_steps(self) -> Iterator[tuple[Any, str]]:
        """Return a copy of each step that is always applied, and its name."""
        for step, name in zip(self.steps, self.names, strict=True):
            certain = copy.deepcopy(step)
            certain.transforms[0].p = 1.0
            yield certain, name

    def refuse_idle(self, input: Input) -> None:
        """Refuse a transform that can't change anything of the input's size, such as a crop at this very size.

        Raises:
            SegregError: a transform changes neither images nor masks, whatever it draws; the message names it.
        """
        noise, shape = np.random.default_rng(0), (*input.size, input.channels)
        rows, columns = np.indices(input.size)
        ramp = np.broadcast_to(((rows + columns) / (rows + columns).max())[..., np.newaxis], shape)
        images = [
            noise.integers(0, 256, shape, dtype=np.uint8),
            # Dark and bright, because some stretch or clip what an image has.
            *((least + 60 * ramp + noise.integers(0, 4, shape)).astype(np.uint8) for least in (30, 150)),
        ]
        labels = self.task.highest_label + 1
        for step, name in self._certain_steps():
            for attempt in range(max(IDLE_TRIES, labels)):
                # Each label in turn fills a half, because some look for objects of one.
                halves = np.where(rows < len(rows) // 2, (attempt + 1) % labels, attempt % labels)
                mask = np.array(np.broadcast_to(halves, mask_shape(self.task, input.size)), np.uint8)
                image = images[attempt % len(images)]
                drawn_from = generators("is it idle", attempt)
                after, labelled = _stepped(step, name, image.copy(), mask.copy(), drawn_from)
                if not np.array_equal(after, image) or not np.array_equal(labelled, mask):
                    break
            else:
                raise SegregError(
                    f'the augmentation "{name}" changes nothing of an image of {format_size(shape)}, which is '
                    "the input's size",
                    hint=f"give it settings that do something, or leave it out\n{_PARTS_OF_IMAGES}",
                )

    def refuse_type(self, input: Input) -> None:
        """Refuse a transform that does something else to the values of `input.dtype` than to 8-bit ones.

        With the same seed, 16-bit values, and those that `input.clip` brings into [0, 1], must become what 8-bit ones
        become, scaled. Floating-point values in their own units have no ends: scaling and shifting them before must be
        the same as after, as it is where pixels are moved or averaged. A quarter of the pixels may differ, since what
        is filled in has a fixed value.

        Raises:
            SegregError: a transform fails or does something else; the message names it.
        """
        if input.dtype == "uint8":
            return
        own_units = input.dtype == "float32" and input.clip is None
        factor, offset = (40.0, -3000.0) if own_units else (input.value_range / 255, 0.0)
        shape = (*input.size, input.channels)
        base: NDArray[Any] = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        base = base.astype(np.float32) if own_units else base
        wide = (base * factor + offset).astype(input.dtype)
        mask = np.zeros(mask_shape(self.task, input.size), np.uint8)
        for step, name in self._certain_steps():
            for attempt in range(TRIES):
                seed = ("try a type", attempt)
                try:
                    wanted, labels = _stepped(step, name, base.copy(), mask.copy(), generators(*seed))
                    found, _ = _stepped(step, name, wide.copy(), mask.copy(), generators(*seed))
                except SegregError as error:
                    raise _needs_bytes(name, input) from error
                counts = (labels if labels.ndim == 2 else labels[0]) != IGNORE_INDEX
                apart = np.abs((found.astype(np.float64) - offset) / factor - wanted) > 2
                if counts.any() and apart[counts].mean() > 0.25:
                    raise _needs_bytes(name, input)

    def try_out(self, input: Input) -> None:
        """Try every transform on a drawn sample of the input's size, whatever its probability.

        Raises:
            SegregError: a transform fails, changes size or type, or mixes labels; the message names it.
        """
        noise = np.random.default_rng(0)
        image = noise.integers(0, 256, (*input.size, input.channels), dtype=np.uint8)
        rows, columns = np.indices(input.size)
        board = np.array(_TRIED_LABELS, np.uint8)[(rows // 8 + columns // 8) % 2]
        mask = np.array(np.broadcast_to(board, mask_shape(self.task, input.size)))
        fine = {*_TRIED_LABELS, IGNORE_INDEX, *range(self.task.highest_label + 1)}
        for step, name in self._certain_steps():
            for attempt in range(TRIES):
                _, after = _stepped(step, name, image.copy(), mask.copy(), generators("try out", attempt))
                if odd := sorted({int(value) for value in np.unique(after)} - fine):
                    values = listed([str(value) for value in odd], quote="", most=5)
                    raise SegregError(
                        f'the augmentation "{name}" puts {values} into masks, which are no classes',
                        hint="masks take the nearest label (mask_interpolation=0), and fill_mask is a class or 255",
                    )


def _needs_bytes(name: str, input: Input) -> SegregError:
    hint = "leave it out; flips, turns and scalings take any values"
    if input.dtype == "uint16":
        hint += ". Or set input.sixteen_bit: full_range or min_max, which reduce the images to 8 bits"
    elif input.clip is None:
        hint += ". Some others need values in [0, 1], into which input.clip: [0.5, 99.5] brings those of each image"
    return SegregError(f'the augmentation "{name}" needs 8-bit images, and these have {input.dtype} values', hint=hint)


def generators(*seed: object) -> tuple[np.random.Generator, random.Random]:
    """Return what a sample's augmentations draw from, in turn; it depends on the seed's words alone."""
    words = "/".join(map(str, seed)).encode(errors="surrogatepass")
    number = int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "big")
    return np.random.default_rng(number), random.Random(number)  # noqa: S311 (no secret is made of it)


def _stepped(
    step: Any,
    name: str,
    image: NDArray[Any],
    mask: NDArray[np.uint8],
    generators: tuple[np.random.Generator, random.Random],
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    # Not set_random_seed: it gives each transform of a composition a generator of its own with one and the same seed,
    # so that two flips with p=0.5 would always happen together. Here all draw from one, in turn.
    step.set_random_state(*generators)
    layered = mask.ndim == 3
    given = np.ascontiguousarray(mask.transpose(1, 2, 0)) if layered else mask
    try:
        done = step(image=image, mask=given)
    except Exception as error:
        raise SegregError(
            f'the augmentation "{name}" fails on an image of {format_size(image.shape)}: '
            f"{type(error).__name__}: {error}",
            hint="it may need more than an image and a mask, other settings or another input.size"
            + (", or a mask of one layer, where a multilabel task has one for each class" if layered else ""),
        ) from error
    after, labels = done["image"], done["mask"]
    if not isinstance(after, np.ndarray) or not isinstance(labels, np.ndarray):
        raise SegregError(f'the augmentation "{name}" gives no NumPy array; segreg makes tensors by itself')
    # Some drop an axis of length one.
    after = after[..., np.newaxis] if after.ndim == 2 else after
    labels = labels[..., np.newaxis] if layered and labels.ndim == 2 else labels
    if after.dtype != image.dtype or labels.dtype != np.uint8:
        was, found = (image.dtype, after.dtype) if after.dtype != image.dtype else (np.dtype(np.uint8), labels.dtype)
        raise SegregError(
            f'the augmentation "{name}" turns {was} values into {found}; images must stay {was}',
            hint="leave it out: segreg normalises by itself, as the section input says",
        )
    if after.shape != image.shape or labels.shape != given.shape:
        raise SegregError(
            f'the augmentation "{name}" turns an image of {format_size(image.shape)} into one of '
            f"{format_size(after.shape)}; it must keep the size",
            hint=f"{_PARTS_OF_IMAGES}\nturns by 90 degrees need a square input",
        )
    return after, np.ascontiguousarray(labels.transpose(2, 0, 1)) if layered else labels
