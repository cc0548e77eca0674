"""A image that models see differently, with what each of them makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Disagreement:
    """A image on which models disagree. Images are the bytes of PNG or JPEG files.

    Attributes:
        id: the image's.
        image: the image itself; its truth is drawn into it, or beside it, where `truth` is None.
        predictions: the image with a model's prediction drawn into it, by the model's name.
        values: the compared metric in this image, by the model's name; NaN where it is undefined.
        truth: the image with its truth drawn into it.
    """

    id: str
    image: bytes
    predictions: Mapping[str, bytes]
    values: Mapping[str, float]
    truth: bytes | None = None
