"""One sample of a data set as the network sees it, or everything that is wrong with its files."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from segreg.config.sections import Input
from segreg.data.resize import Size, fit_image, fit_mask, placement
from segreg.errors import Place, Problem, SegregError, listed
from segreg.registry.protocols import Dataset, Sample
from segreg.task import IGNORE_INDEX, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

Fitted = tuple["NDArray[np.uint8]", "NDArray[np.uint8]", Size]


def fitted_sample(dataset: Dataset, sample: Sample, input: Input) -> Fitted:  # noqa: A002
    """Return a sample's image `[H, W, C]` and mask `[H, W]` or `[K, H, W]` at the input's size, and its original size.

    Raises:
        SegregError: all that is wrong, a problem for each file: it can't be read, the mask is missing, has another
            size than the image or holds values that are no class, or the rule is `none` and the size differs.
    """
    problems: list[Problem] = []
    image = _attempt(lambda: _image(dataset, sample, input), sample.image, problems)
    if sample.mask is None:
        problems.append(Problem("has no mask", Place(str(sample.image))))
        mask = None
    else:
        mask = _attempt(lambda: _mask(dataset, sample), sample.mask, problems)
    if image is not None:
        size = (image.shape[0], image.shape[1])
        if mask is not None and mask.shape[-2:] != size:
            problems.append(
                Problem(
                    f"is {_words(size)} but its mask {sample.mask} is {_words(mask.shape[-2:])} (height x width)",
                    Place(str(sample.image)),
                )
            )
        else:
            _attempt(lambda: placement(size, input), sample.image, problems)
    if problems or image is None or mask is None:
        raise SegregError.of(problems)
    return fit_image(image, input), fit_mask(mask, input), (image.shape[0], image.shape[1])


def wrong_labels(mask: NDArray[np.uint8], task: Task) -> list[int]:
    """Return the values of a mask that are no class of the task and not 255, in order."""
    highest = task.channels - 1 if task.mode == "multiclass" else 1
    return [int(value) for value in np.unique(mask[(mask > highest) & (mask != IGNORE_INDEX)])]


def mask_shape(task: Task, size: Size) -> tuple[int, ...]:
    """Return the shape of one mask: `[H, W]`, or `[K, H, W]` for a multilabel task."""
    return (task.channels, *size) if task.mode == "multilabel" else tuple(size)


def _image(dataset: Dataset, sample: Sample, input: Input) -> NDArray[np.uint8]:  # noqa: A002
    from segreg.data.images import fit_channels, to_uint8

    image = np.asarray(dataset.read_image(sample))
    if image.ndim not in (2, 3) or image.dtype not in (np.uint8, np.uint16) or 0 in image.shape:
        raise SegregError(
            f"{sample.image}: the data set gave an image of shape {list(image.shape)} and type {image.dtype}; "
            "it must be uint8 or uint16, [H, W] or [H, W, C]"
        )
    # In this order: a full alpha channel would spoil the range that `min_max` stretches.
    return to_uint8(fit_channels(image, input.channels, sample.image), input.sixteen_bit, sample.image)


def _mask(dataset: Dataset, sample: Sample) -> NDArray[np.uint8]:
    task, mask = dataset.task, np.asarray(dataset.read_mask(sample))
    wanted = mask_shape(task, (int(mask.shape[-2]), int(mask.shape[-1]))) if mask.ndim >= 2 else ()
    if mask.dtype != np.uint8 or mask.shape != wanted:
        shape = f"[{task.channels}, H, W]" if task.mode == "multilabel" else "[H, W]"
        raise SegregError(
            f"{sample.mask}: the data set gave a mask of shape {list(mask.shape)} and type {mask.dtype}; "
            f"for a {task.mode} task it must be uint8, {shape}"
        )
    if wrong := wrong_labels(mask, task):
        highest = task.channels - 1 if task.mode == "multiclass" else 1
        values = listed([str(value) for value in wrong], quote="")
        raise SegregError(
            f"{sample.mask}: the mask holds {values}, which {'is' if len(wrong) == 1 else 'are'} no class: "
            f"the {task.mode} task has 0 to {highest}, and {IGNORE_INDEX} for pixels to ignore",
            hint="the data set's settings say how mask values become classes",
        )
    return mask


def _attempt(step: Callable[[], Any], file: object, problems: list[Problem]) -> Any:
    """Return what a step gives, or notes what is wrong and gives None."""
    try:
        return step()
    except SegregError as error:
        named = all(str(file) in problem.message for problem in error.problems)
        problems.extend((error if named else error.at(Place(str(file)))).problems)
    except Exception as error:  # decoders and plugins raise whatever they stumble over
        problems.append(Problem(f"can't be read: {type(error).__name__}: {error}", Place(str(file))))
    return None


def _words(size: tuple[int, ...]) -> str:
    return f"{size[0]}x{size[1]}"
