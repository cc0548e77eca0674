"""Build one of Albumentations' transforms, or RandAugment, which is made of them."""

from __future__ import annotations

import os
import warnings
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Interval

from segreg.errors import SegregError
from segreg.settings import Fraction, PositiveInt

if TYPE_CHECKING:
    from albumentations import BasicTransform


def rand_augment(
    *, operations: PositiveInt = 2, magnitude: Annotated[int, Interval(ge=0, le=30)] = 9, p: Fraction = 1.0
) -> BasicTransform:
    """RandAugment: a few of 14 operations, drawn for each image, all of one magnitude. For 8-bit images.

    Args:
        operations: how many are applied.
        magnitude: how strong they are, from 0 to 30: at 30 turns are by 30 degrees, and colours change by nine tenths.
        p: probability of being applied.
    """
    _albumentations()

    from segreg_plugins.augmentations.random_operations import RandAugment

    return RandAugment(operations, magnitude, p)


def albumentations_transform(member: str, **settings: Any) -> BasicTransform:
    """One of Albumentations' transforms, by its own name with its own settings.

    Raises:
        SegregError: the transform does not take a value, or two that don't go together.
    """
    transforms = _albumentations()
    build = getattr(transforms, member)
    try:
        with warnings.catch_warnings():
            # Without this a wrong value may become a warning, and the default silently takes its place.
            warnings.filterwarnings("error", category=UserWarning, message=".*not valid for transform")
            return _filling_every_layer(_built(build, settings))
    except (ValueError, TypeError, AssertionError, UserWarning) as error:
        raise SegregError(
            f'the augmentation "{member}" refuses its settings: {_reason(error)}',
            hint=f"`segreg show augmentation {member}` tells what it takes",
        ) from error


def _built(build: Any, settings: dict[str, Any]) -> BasicTransform:
    """Build in Albumentations' strict mode, where wrong arguments are errors, if the transform has it."""
    try:
        return build(**settings, strict=True)
    except TypeError as error:
        if "'strict'" not in str(error):
            raise
        return build(**settings)


def _filling_every_layer(transform: BasicTransform) -> BasicTransform:
    """Return a transform that fills every layer of a mask.

    OpenCV takes a single number for the first channel of four, and fills the others with 0. Other transforms than these
    make four numbers of it by themselves.
    """
    if {kind.__name__ for kind in type(transform).__mro__} & {"BaseDistortion", "Perspective"}:
        for name in ("fill", "fill_mask"):
            if isinstance(value := getattr(transform, name, None), int | float):
                setattr(transform, name, (value,) * 4)
    return transform


def _reason(error: Exception) -> str:
    """Return the reasons that pydantic gives, one after the other, without its links."""
    from pydantic import ValidationError

    cause = error.__cause__
    if not isinstance(cause, ValidationError):
        return str(error)
    reasons = (
        (".".join(str(part) for part in one["loc"][:1]), one["msg"].removeprefix("Value error, "))
        for one in cause.errors()
    )
    return "; ".join(dict.fromkeys(f'"{name}": {message}' if name else message for name, message in reasons))


def _albumentations() -> ModuleType:
    # On import it asks PyPI for a newer version of itself, which stalls offline and tells others that it runs.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    return albumentations
