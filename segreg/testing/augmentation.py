"""Checks of augmentations: image and mask move together, labels stay labels, and the seed decides."""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from segreg.data.augment import Augmentation
from segreg.errors import SegregError
from segreg.testing import inputs
from segreg.testing.check import Rule
from segreg.testing.subject import COPIES, Broken, NotChecked, Subject, doing

SIDE = 64
"""Height and width of the images: `input.size` for transforms that take it."""
SEEDS = range(12)
NEARER = 0.1
"""By how much an image must agree better with a moved mask than with its own to be called out of step."""


def it_can_be_built(subject: Subject) -> None:
    """Its builder gives an Albumentations transform."""
    transform = subject.try_to_build()
    try:
        Augmentation([transform], inputs.TASKS["binary"])
    except SegregError as error:
        raise Broken(error.problems[0].message) from error


def it_keeps_size_type_and_labels(subject: Subject) -> None:
    """Whatever it draws, images stay uint8 and of their size, and masks hold the labels that they had, or 255."""
    transform = subject.built()
    for mode, shape in (("binary", (SIDE, SIDE)), ("multilabel", (2, SIDE, SIDE))):
        try:
            Augmentation([transform], inputs.TASKS[mode]).try_out((SIDE, SIDE, 3), shape)
        except SegregError as error:
            problem = error.problems[0]
            raise Broken(f"{problem.message}{f' ({problem.hint})' if problem.hint else ''}") from error


def it_changes_something(subject: Subject) -> None:
    """Some image or mask is another one afterwards."""
    transform = subject.built()
    try:
        Augmentation([transform], inputs.TASKS["binary"]).refuse_idle((SIDE, SIDE, 3), (SIDE, SIDE))
    except SegregError as error:
        if "changes nothing" not in error.problems[0].message:
            raise NotChecked("it can't be applied, see it_keeps_size_type_and_labels") from error
        if not subject.given and subject.settings.keys() - {"p"}:
            raise NotChecked("with its defaults it leaves every image as it is, give settings") from error
        raise Broken("it leaves every image as it is") from error


def image_and_mask_move_together(subject: Subject) -> None:
    """What is moved in the image is moved in the mask, in every layer of it."""
    image, mask = _scene()
    augmentation = _certain(subject)
    own: list[float] = []
    others: dict[str, list[float]] = {}
    for seed in SEEDS:
        after, layers = _applied(augmentation, image.copy(), np.stack([mask, mask]), seed)
        if not np.array_equal(layers[0], layers[1]):
            raise Broken("two equal layers of a mask are moved apart")
        agreement = _agreement(after, layers[0])
        if agreement is None:
            continue
        own.append(agreement)
        for words, moved in _moved(layers[0]):
            others.setdefault(words, []).append(max(_agreement(after, one) or 0.0 for one in moved))
    if not own:
        raise NotChecked("what it gives shows nothing of the image")
    for words, found in others.items():
        if np.mean(found) > np.mean(own) + NEARER:
            raise Broken(
                f"image and mask are out of step: its images agree better with masks that are {words} "
                f"({np.mean(found):.2f}) than with those that it gives ({np.mean(own):.2f})"
            )


def the_seed_decides(subject: Subject) -> None:
    """The same seed gives the same, whatever generators of Python and NumPy were drawn from in between."""
    image, mask = _scene()
    augmentation = _certain(subject)
    for seed in SEEDS:
        pairs = []
        for stray in (1, 2):
            random.seed(stray)
            np.random.seed(stray)  # what a transform must not draw from
            pairs.append(_applied(augmentation, image.copy(), mask.copy(), seed))
        if any(not np.array_equal(a, b) for a, b in zip(*pairs, strict=True)):
            raise Broken(
                "one seed gives something else the second time; draw from self.py_random and self.random_generator"
            )


def it_leaves_its_inputs_alone(subject: Subject) -> None:
    """The image and the mask that it is given are the same afterwards."""
    image, mask = _scene()
    augmentation = _certain(subject)
    for seed in SEEDS:
        given = image.copy(), mask.copy()
        _applied(augmentation, *given, seed)
        if not np.array_equal(given[0], image) or not np.array_equal(given[1], mask):
            raise Broken("it changes the image that it is given in place")


def it_can_be_copied_and_sent(subject: Subject) -> None:
    """It can be deep-copied and pickled."""
    transform = subject.built()
    for words, copied in COPIES.items():
        with doing(f"when it is {words}"):
            copied(transform)


def _applied(augmentation: Augmentation, image: Any, mask: Any, seed: int) -> tuple[Any, Any]:
    """Return the augmented image and mask.

    Raises:
        NotChecked: it can't be applied.
    """
    try:
        return augmentation(image, mask, seed)
    except SegregError as error:
        raise NotChecked("it can't be applied, see it_keeps_size_type_and_labels") from error


def _certain(subject: Subject) -> Augmentation:
    """Return the augmentation, applied to every image."""
    transform = copy.deepcopy(subject.built())
    transform.p = 1.0
    return Augmentation([transform], inputs.TASKS["multilabel"])


def _scene() -> tuple[Any, Any]:
    """Return an image `[H, W, C]` and its mask `[H, W]`: two bright rectangles on noise.

    No mirroring and no turning brings one onto itself or onto the other.
    """
    noise = np.random.default_rng(0)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[8:36, 6:20] = 1
    mask[44:52, 16:54] = 1
    image = noise.integers(20, 70, (SIDE, SIDE, 3)) + 150 * mask[..., None]
    return image.astype(np.uint8), mask


def _agreement(image: Any, mask: Any) -> float | None:
    """Return how well brightness and mask agree, the size of their correlation; None where either shows nothing."""
    counted = mask != 255
    grey, truth = image.astype(float).mean(-1)[counted], (mask == 1)[counted].astype(float)
    if not counted.any() or grey.std() < 1 or truth.std() < 0.05:
        return None
    return float(abs(np.corrcoef(grey, truth)[0, 1]))


def _moved(mask: Any) -> Iterator[tuple[str, list[Any]]]:
    """Yield the mask as it would stand, in one way or another, had the image alone been moved, or not been."""
    for turns, mirrored in itertools.product(range(4), (False, True)):
        if turns or mirrored:
            words = " and ".join(
                filter(None, ("mirrored" if mirrored else "", f"turned by {90 * turns}" * bool(turns)))
            )
            yield words, [np.rot90(mask[:, ::-1] if mirrored else mask, turns)]
    shifts = itertools.product((-6, -2, 0, 2, 6), repeat=2)
    yield "shifted by a few pixels", [np.roll(mask, shift, (0, 1)) for shift in shifts]
    yield "not moved at all", [_scene()[1]]


RULES = (
    Rule(it_can_be_built, "segreg hands it image and mask as Albumentations does"),
    Rule(it_keeps_size_type_and_labels, "samples are stacked into batches, and a mixture of two labels is a third"),
    Rule(it_changes_something, "an augmentation that does nothing is a mistake"),
    Rule(image_and_mask_move_together, "the network would be taught that the object is where it is not"),
    Rule(the_seed_decides, "a run is to be repeated by its seed, with any number of workers"),
    Rule(it_leaves_its_inputs_alone, "what it is given is the cache"),
    Rule(it_can_be_copied_and_sent, "worker processes are sent a pickle"),
)
