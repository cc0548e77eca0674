"""Which values the network gets of an image: their type, invalid pixels, clipping, and each image's own statistics.

A data set has one type of values: uint8, uint16, or float32, which is in the files' own units. Pixels that are not
finite, or have the value `input.nodata` in any channel, are invalid: they are filled with the mean of the image's valid
pixels, and ignored in the mask.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segreg.config.sections import Input
from segreg.data.images import ImageSource, as_known_type, fit_channels, to_uint8
from segreg.errors import Problem, SegregError, listed
from segreg.task import IGNORE_INDEX

DtypeName = Literal["uint8", "uint16", "float32"]
DTYPES: tuple[DtypeName, ...] = ("uint8", "uint16", "float32")
"""The types of a data set's values, the wider one later."""
_AT_ONCE = 1 << 22
"""Values that are computed with at once, so that a large image needs little memory beside its own."""
_MOST_SORTED = 1 << 24
"""Values of a channel from which percentiles are found; of a larger image they are evenly spaced."""


class Statistics(NamedTuple):
    """An image's valid pixels, of each channel, float64 `[C]`: how many, their mean, deviation and range."""

    pixels: NDArray[np.float64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    least: NDArray[np.float64]
    most: NDArray[np.float64]


def common_dtype(files: Mapping[DtypeName, Path]) -> DtypeName:
    """Return the type that holds the values of all images; uint8 where there is none.

    Args:
        files: for each type an image whose values have it.

    Raises:
        SegregError: some are integers and some are not.
    """
    types = [dtype for dtype in DTYPES if dtype in files]
    if len(types) > 1 and "float32" in types:
        raise SegregError(
            f"{files['float32']}: holds floating-point values, and {files[types[0]]} {types[0]} ones",
            hint="they have no common range: save all images with one type of values",
        )
    return types[-1] if types else "uint8"


def own_dtype(image: NDArray[Any], input: Input) -> DtypeName:
    """Return which type an image's values have where `input.dtype` is auto: "uint8", "uint16" or "float32"."""
    if image.dtype.kind == "f":
        return "float32"
    return "uint8" if image.dtype in (np.uint8, np.bool_) or input.sixteen_bit != "keep" else "uint16"


def read_values(image: NDArray[Any], input: Input, path: ImageSource) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Return an image's values as the network gets them, at its own size, and which pixels are invalid.

    Shape: `[H, W]` or `[H, W, C]` of any type to uint8, uint16 or float32 `[H, W, C]`, and bool `[H, W]`, or None
    where all are valid. Where nothing is changed, it is the same array.

    Args:
        image: as it was read.
        input: names channels, type, clipping and the value of pixels that hold nothing.
        path: its name in messages.

    Raises:
        SegregError: the channels or the type don't fit, or something would be lost; the message names the file.
    """
    values = fit_channels(as_known_type(image, path), input.channels, path)
    wanted = own_dtype(values, input) if input.dtype == "auto" else input.dtype
    if (values.dtype == np.float32) != (wanted == "float32"):
        raise SegregError(
            f"{path}: holds values of type {values.dtype}, and the network gets {wanted}",
            hint="integers and floating-point values are not mixed: save all images with one type of values",
        )
    if values.dtype == np.uint16 and wanted == "uint8" and input.sixteen_bit == "keep":
        raise SegregError(
            f"{path}: has 16 bits a channel, and the network gets 8",
            hint="give 8 bits; or train with 16-bit images, or with input.sixteen_bit: full_range (divides by 257) or "
            "min_max (stretches each image)",
        )
    invalid = invalid_pixels(values, input)
    if values.dtype == np.uint8 and wanted == "uint16":
        values = values * np.uint16(257)
    values = filled(values, invalid)
    if input.clip is not None:
        values = filled(_clipped(values, input.clip, invalid), invalid)
    return (to_uint8(values, input.sixteen_bit, path) if wanted == "uint8" else values), invalid  # type: ignore[arg-type]


def invalid_pixels(values: NDArray[Any], input: Input) -> NDArray[np.bool_] | None:
    """Return which pixels are invalid in any channel, bool `[H, W]` for values `[H, W, C]`; None where none is."""
    if values.dtype.kind != "f" and input.nodata is None:
        return None
    invalid = np.zeros(values.shape[:2], np.bool_)
    for rows in _strips(values):
        if values.dtype.kind == "f":
            invalid[rows] = ~np.isfinite(values[rows]).all(axis=2)
        if input.nodata is not None:  # as float32 where the values are, which can't hold every number
            nothing = np.float32(input.nodata) if values.dtype == np.float32 else input.nodata
            invalid[rows] |= (values[rows] == nothing).any(axis=2)
    return invalid if invalid.any() else None


def filled(values: NDArray[Any], invalid: NDArray[np.bool_] | None) -> NDArray[Any]:
    """Return values with the mean of the valid pixels of each channel in place of the invalid ones; 0 if none is."""
    if invalid is None:
        return values
    means = image_statistics(values, invalid).mean
    values = np.array(values)
    values[invalid] = (means if values.dtype.kind == "f" else np.rint(means)).astype(values.dtype)
    return values


def ignore_invalid(mask: NDArray[np.uint8], invalid: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
    """Return a mask, `[H, W]` or `[K, H, W]`, that ignores invalid pixels."""
    return mask if invalid is None else np.where(invalid, np.uint8(IGNORE_INDEX), mask)


def has_statistics(input: Input) -> bool:
    """Whether each image's statistics are kept: for `per_image`, where there are invalid pixels, above 8 bits."""
    return input.dtype != "uint8" or input.nodata is not None or input.per_image


def image_statistics(values: NDArray[Any], invalid: NDArray[np.bool_] | None = None) -> Statistics:
    """Return the statistics of an image's valid pixels, computed in float64; 0 where there is none.

    Shape: `[H, W, C]` and bool `[H, W]`.
    """
    channels = values.shape[2]
    if values.dtype == np.uint8:
        return _of_bytes(values, invalid)
    count, sums, squares = 0, np.zeros(channels), np.zeros(channels)
    least, most = np.full(channels, np.inf), np.full(channels, -np.inf)
    for part in _valid_parts(values, invalid):
        count += len(part)
        sums += part.sum(axis=0, dtype=np.float64)
        least, most = np.minimum(least, part.min(axis=0)), np.maximum(most, part.max(axis=0))
    mean = sums / max(count, 1)
    for part in _valid_parts(values, invalid):
        squares += ((part - mean) ** 2).sum(axis=0)
    if not count:
        least, most = np.zeros(channels), np.zeros(channels)
    return Statistics(np.full(channels, float(count)), mean, np.sqrt(squares / max(count, 1)), least, most)


def histograms(layers: NDArray[np.uint8], invalid: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """Return how often each layer, of `[H, W]` or `[N, H, W]`, has each value in its valid pixels, int64 `[N, 256]`."""
    # Pillow counts bytes many times faster than numpy, which makes integers of 64 bits of them first.
    valid = None if invalid is None else Image.fromarray(np.where(invalid, np.uint8(0), np.uint8(255)))
    planes = np.ascontiguousarray(layers if layers.ndim == 3 else layers[np.newaxis])
    return np.array([Image.fromarray(plane).histogram(valid) for plane in planes], np.int64)


def _of_bytes(values: NDArray[np.uint8], invalid: NDArray[np.bool_] | None) -> Statistics:
    counts = histograms(values.transpose(2, 0, 1), invalid).astype(np.float64)
    levels, pixels = np.arange(256.0), counts.sum(axis=1)
    mean = counts @ levels / np.maximum(pixels, 1)
    squares = (counts * (levels - mean[:, None]) ** 2).sum(axis=1)
    there = [np.flatnonzero(one) if one.any() else np.zeros(1) for one in counts]
    ends = np.array([(found[0], found[-1]) for found in there], np.float64)
    return Statistics(pixels, mean, np.sqrt(squares / np.maximum(pixels, 1)), ends[:, 0], ends[:, 1])


def pooled(parts: Sequence[Statistics], weights: Sequence[float]) -> Statistics:
    """Return the statistics of the pixels of all parts together, the same in whatever order; 0 where there is none.

    Args:
        parts: statistics of images, or of parts of one; at least one.
        weights: of one valid pixel of each part; `pixels` is their sum.
    """
    there = [(one, one.pixels * weight) for one, weight in zip(parts, weights, strict=True) if one.pixels[0]]
    if not there:
        return parts[0]
    channels = range(len(there[0][1]))
    whole = np.array([math.fsum(share[c] for _, share in there) for c in channels])
    mean = np.array([math.fsum(share[c] * one.mean[c] for one, share in there) for c in channels]) / whole
    squares = [math.fsum(s[c] * (o.std[c] ** 2 + (o.mean[c] - mean[c]) ** 2) for o, s in there) for c in channels]
    least, most = np.min([one.least for one, _ in there], axis=0), np.max([one.most for one, _ in there], axis=0)
    return Statistics(whole, mean, np.sqrt(np.array(squares) / whole), least, most)


def constant_channels(ranges: Sequence[tuple[float, float]], images: int) -> Problem | None:
    """Return which channels can't be normalised by the data's statistics, or None where all can.

    Args:
        ranges: the least and the largest value of each channel.
        images: how many they are of.
    """
    constant = {channel: low for channel, (low, high) in enumerate(ranges, start=1) if low == high}
    if not constant:
        return None
    channels = listed([f"channel {channel}" for channel in constant], quote="")
    values = listed([f"{value:g}" for value in constant.values()], quote="")
    return Problem(
        f"input.normalize: dataset: {channels} of {len(ranges)} (the first is 1) "
        f"{'has' if len(constant) == 1 else 'have'} the value {values} in every pixel of all {images} training images, "
        "and so no standard deviation",
        hint="save the images without it, and set input.channels to the number of those that are left; or give "
        "input.mean and input.std",
    )


def refuse_constant(ranges: Sequence[tuple[float, float]], images: int) -> None:
    """Refuse channels that can't be normalised by the data's statistics.

    Raises:
        SegregError: all pixels of a channel have one value.
    """
    if problem := constant_channels(ranges, images):
        raise SegregError.of([problem])


def refuse_foreign_statistics(ranges: Sequence[tuple[float, float]], input: Input) -> None:
    """Refuse to normalise values by statistics of photographs, of values in [0, 1], that they have nothing to do with.

    Args:
        ranges: the least and the largest value of channels or images.
        input: names normalisation and the values' type.

    Raises:
        SegregError: floating-point values lie outside [0, 1], or 16-bit values are all below 4096.
    """
    if input.mean is not None or input.normalize not in ("encoder", "imagenet") or input.dtype == "uint8":
        return
    low, high = min((low for low, _ in ranges), default=0), max((high for _, high in ranges), default=0)
    if input.dtype == "float32" and (low < 0 or high > 1):
        what = f"the images hold values from {low:g} to {high:g}, and these statistics are of values in [0, 1]"
    elif input.dtype == "uint16" and high < 4096:
        what = f"the images have 16 bits, and none of their values is above {high:g} of 65535: all would look black"
    else:
        return
    raise SegregError(
        f"input.normalize: {input.normalize}: {what}",
        hint="set input.normalize: dataset or per_image, or input.clip: [0.5, 99.5], which stretches each image",
    )


def as_network_input(
    values: NDArray[Any], input: Input, statistics: Statistics | None = None
) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Return values as batches have them: uint8, or float32 for wider ones and, as z-scores, for `per_image`.

    Shape: `[..., C]` of an image, its crop or its tile, also augmented, to the same.

    Args:
        values: what `read_values` returned.
        input: says how they are normalised.
        statistics: of the whole image, for `per_image`.
    """
    if input.per_image:
        assert statistics is not None
        scale = np.where(statistics.std > 0, statistics.std, 1).astype(np.float32)
        scores: NDArray[np.float32] = (values.astype(np.float32) - statistics.mean.astype(np.float32)) / scale
        return scores
    return values if values.dtype == np.uint8 else values.astype(np.float32, copy=False)


def as_shown(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return an image for looking at, in 8 bits: wider values from percentile 0.5 to 99.5 of those that are finite.

    Shape: `[H, W]` or `[H, W, C]` of any type to uint8 of the same shape.
    """
    if values.dtype == np.uint8:
        return values
    finite = _spaced(values.ravel())
    finite = finite[np.isfinite(finite)]
    low, high = np.percentile(finite, (0.5, 99.5)) if len(finite) else (0.0, 0.0)
    return _stretched(np.nan_to_num(values, nan=low, posinf=high, neginf=low), low, high, np.dtype(np.uint8), 255)


def _clipped(values: NDArray[Any], clip: tuple[float, float], invalid: NDArray[np.bool_] | None) -> NDArray[Any]:
    """Return each channel's values between two percentiles of the valid ones, stretched to the type's whole range."""
    made = np.zeros(values.shape, values.dtype)
    top = 1 if values.dtype.kind == "f" else int(np.iinfo(values.dtype).max)
    for channel in range(values.shape[2]):
        one = values[..., channel]
        valid = _spaced(one.ravel() if invalid is None else one[~invalid])
        if len(valid):
            low, high = np.percentile(valid, clip)
            made[..., channel] = _stretched(one, low, high, values.dtype, top)
    return made


def _stretched(values: NDArray[Any], low: float, high: float, dtype: np.dtype[Any], top: int) -> NDArray[Any]:
    """Return values with `low` as 0 and `high` as `top`, what lies outside cut off; all 0 where these are equal."""
    made = np.zeros(values.shape, dtype)
    for rows in _strips(values) if high > low else ():
        between = np.clip((values[rows].astype(np.float64) - low) * (top / (high - low)), 0, top)
        made[rows] = between if dtype.kind == "f" else np.rint(between)
    return made


def _spaced(values: NDArray[Any]) -> NDArray[Any]:
    return values[:: -(-len(values) // _MOST_SORTED)] if len(values) else values


def _strips(values: NDArray[Any]) -> Iterator[slice]:
    """Return rows that hold a number of values that is computed with at once."""
    rows = max(1, _AT_ONCE * len(values) // max(values.size, 1))
    return (slice(top, top + rows) for top in range(0, len(values), rows))


def _valid_parts(values: NDArray[Any], invalid: NDArray[np.bool_] | None) -> Iterator[NDArray[Any]]:
    """Return the valid pixels, `[n, C]`, in parts that are not empty."""
    for rows in _strips(values):
        part = values[rows].reshape(-1, values.shape[2]) if invalid is None else values[rows][~invalid[rows]]
        if len(part):
            yield part
