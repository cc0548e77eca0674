"""A picture that models see differently, with what each of them makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Disagreement:
    """A picture on which models disagree. Pictures are the bytes of PNG or JPEG files.

    Attributes:
        id: the picture's.
        image: the picture itself; its truth is drawn into it, or beside it, where `truth` is None.
        predictions: the picture with a model's prediction drawn into it, by the model's name.
        values: the compared metric in this picture, by the model's name; NaN where it is undefined.
        truth: the picture with its truth drawn into it.
    """

    id: str
    image: bytes
    predictions: Mapping[str, bytes]
    values: Mapping[str, float]
    truth: bytes | None = None
