"""Reading a TIFF's first image exactly: its bands in any order, at its own depth."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from segreg.errors import SegregError

MOST_PIXELS = 178_956_970
"""Pixels from which an image is refused: Pillow's own limit, so that all formats have the same."""

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _MASK, _SEPARATED, _YCBCR = range(7)


def is_tiff(head: bytes) -> bool:
    """Whether a file that begins with `head` is a TIFF or BigTIFF."""
    return head[:4] in _MAGIC


def read_tiff(path: Path, want: Literal["image", "labels"]) -> tuple[NDArray[Any], int]:
    """Return the values of a TIFF's image, bool where it has one bit a pixel, and its Exif orientation.

    For `image`, palettes become colours and fewer than 8 bits are stretched to 0..255; for `labels` neither.

    Shape: `[H, W]` or `[H, W, C]`, whether the file holds its bands interleaved or one after the other.

    Raises:
        SegregError: damaged, too large, several images, a stack, or colours that can't be read exactly.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            series = file.series[0]
            _check(path, page, [other.pages[0] for other in file.series[1:]], series.shape)
            values, orientation = _values(path, page, series)
            values = _meaning(values, int(page.photometric), int(page.bitspersample), page.colormap, want)
    except SegregError:
        raise
    except MemoryError:
        _refuse(path, "does not fit into memory", "cut it into tiles")
    except Exception as error:  # on damaged files tifffile raises whatever it stumbles over
        _refuse(path, f"is damaged and can't be decoded ({error})", "fetch or export it again")
    return values, orientation


def _check(path: Path, page: Any, others: list[Any], shape: tuple[int, ...]) -> None:
    """Refuses, from the header alone, what is not one image of plain values."""
    if page.imagewidth * page.imagelength > MOST_PIXELS or np.prod(shape, dtype=np.int64) > 8 * MOST_PIXELS:
        _refuse(path, "has too many pixels to be an image that is decoded whole", "cut it into tiles")
    if any(other is not None and not other.is_reduced and not other.is_mask for other in others):
        _refuse(path, f"holds {len(others) + 1} images of different sizes", "save each as a file of its own")
    if page.photometric not in (_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _MASK, _YCBCR):
        name = getattr(page.photometric, "name", page.photometric)
        _refuse(
            path,
            f'holds "{name}" colours, which segreg does not turn into RGB by guessing',
            "convert it to RGB with a program that knows its colour profile",
        )


def _values(path: Path, page: Any, series: Any) -> tuple[NDArray[Any], int]:
    """Decode by tifffile where it can, and else by a library that reads this very layout exactly."""
    tag = page.tags.get("Orientation")
    orientation = int(tag.value) if tag else 1
    if page.photometric != _YCBCR:
        try:
            return _bands_last(path, series.asarray(maxworkers=1), series.axes), orientation
        except ValueError as error:
            # LZW, JPEG and fax need a package that most people don't have, and other libraries can do them.
            if "imagecodecs" not in str(error):
                raise
    plain = len(series.pages) == 1 and page.samplesperpixel in (1, 3, 4) and page.sampleformat == 1
    if plain and (page.bitspersample == 8 or (page.bitspersample == 1 and page.samplesperpixel == 1)):
        return _by_pillow(path, page.photometric == _MINISWHITE), 1
    if plain and page.bitspersample == 16 and page.planarconfig == 1:
        return _by_opencv(path, page.photometric == _MINISWHITE), 1
    compression = getattr(page.compression, "name", page.compression)
    return _refuse(
        path, f"is compressed by {compression}", "pip install imagecodecs, or save it uncompressed or by deflate (zip)"
    )


def _by_pillow(path: Path, white_is_zero: bool) -> NDArray[Any]:
    """Return the values upright, since Pillow turns TIFFs by itself."""
    from PIL import Image

    with Image.open(path, formats=("TIFF",)) as image:
        values = np.array(image)
    # Pillow also undoes "white is zero", which the caller does for every decoder.
    return ~values if white_is_zero else values


def _by_opencv(path: Path, white_is_zero: bool) -> NDArray[Any]:
    """Return the values upright, since OpenCV turns TIFFs by itself, though no other format when read unchanged."""
    import cv2

    values: NDArray[Any] | None = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or white_is_zero:
        _refuse(path, "can't be read the way it is compressed", "save it uncompressed or by deflate (zip)")
    return values if values.ndim == 2 else values[..., [2, 1, 0, 3][: values.shape[2]]]


def _bands_last(path: Path, values: NDArray[Any], axes: str) -> NDArray[Any]:
    """Return `[H, W]` or `[H, W, C]` for what tifffile calls YX, YXS, SYX, CYX, QYX, ..."""
    kept = [i for i, axis in enumerate(axes) if axis in "YXS" or values.shape[i] > 1]
    values = values.reshape([values.shape[i] for i in kept])
    axes = "".join(axes[i] for i in kept)
    if axes in ("YX", "YXS"):
        return values[..., 0] if axes == "YXS" and values.shape[2] == 1 else values
    if axes == "SYX":
        return _bands_last(path, np.moveaxis(values, 0, 2), "YXS")
    if len(axes) == 3 and axes[1:] == "YX" and axes[0] not in "ZT":
        first, rows, columns = values.shape
        if first < min(rows, columns) or axes[0] == "C":
            return np.moveaxis(values, 0, 2)
        # Written without a word on its bands, an interleaved [H, W, C] image counts as H pages of W x C pixels.
        if columns < min(first, rows):
            return values
    return _refuse(
        path,
        f"is a stack of images (axes {axes}, {' x '.join(str(n) for n in values.shape)})",
        "save each page as an image of its own",
    )


def _meaning(
    values: NDArray[Any], photometric: int, bits: int, colours: NDArray[Any] | None, want: Literal["image", "labels"]
) -> NDArray[Any]:
    """Apply what the header says of the values: a palette, fewer than 8 bits, white is zero."""
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if bits == 1:
        values = values.astype(np.bool_)
    if photometric == _PALETTE and colours is not None:
        return values if want == "labels" else (np.moveaxis(colours, 0, -1) >> 8).astype(np.uint8)[values.astype(int)]
    top = (1 << bits) - 1
    if photometric == _MINISWHITE and values.dtype.kind in "bu":
        values = ~values if values.dtype == np.bool_ else (top - values).astype(values.dtype)
    if want == "image" and bits in (2, 4):
        values = (values * (255 // top)).astype(np.uint8)
    return values


def _refuse(path: Path, what: str, hint: str = "") -> NoReturn:
    raise SegregError(f"{path}: {what}", hint=hint)
