"""Reading an image or a mask file just as it is, or refusing it by name where a library would damage it silently.

TIFF is read by tifffile, the other formats by Pillow, and by OpenCV what these two can't read exactly.
"""

from __future__ import annotations

import io
import logging
import lzma
import math
import os
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from segreg.errors import SegregError, did_you_mean, plural

# What tifffile logs is reported below or does not matter; an application that sets up logging gets it nevertheless.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

PIL_FORMATS = ("PNG", "JPEG", "BMP", "DIB", "GIF", "WEBP", "PPM")
"""What Pillow is let read: formats whose every variant is either read exactly or refused below."""

# The Exif orientations as (swap rows and columns first, then flip rows, then flip columns).
_TURNS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
_ORIENTATION_TAG = 0x0112
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _MASK, _SEPARATED, _YCBCR = range(7)
_MOST_PIXELS = 178_956_970  # Pillow's own limit, so that all formats have the same
_MOST_IN_TILES = 2**31 - 1
_MOST_PAGES = 4096
_MOST_OF_A_TILE = 1 << 26  # bytes; a small image may be in one tile that is larger
_AT_ONCE = 1 << 24  # values that are made 8-bit at once
_BOUNDED = (1, 5, 8, 32946, 34925)
"""TIFF compressions of which tifffile decodes no more than is checked: none, LZW, deflate and LZMA.

Of PackBits it makes any number of bytes, and of JPEG 2000 or PNG inside a TIFF the size that their own header names.
"""
_ALPHA_MODES = ("LA", "PA", "RGBA")
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


@dataclass(frozen=True)
class ImageBytes:
    """An image file that is in memory; it is read, or refused, as one on disk is.

    Attributes:
        name: what it is called in messages.
        data: its content.
    """

    name: str
    data: bytes = field(repr=False)

    def __str__(self) -> str:
        return self.name


ImageSource = Path | ImageBytes


class TooManyPixelsError(SegregError):
    """An image is too large to be decoded whole."""


class WhiteIsZeroError(SegregError):
    """A mask's value 0 is shown white, so that which of its values is the foreground is not known."""


def read_image(path: ImageSource, *, in_tiles: bool = False) -> NDArray[np.uint8 | np.uint16 | np.float32]:
    """Return an image's values, upright, at their own depth.

    1-bit images become 0/255, palettes their colours. A channel is alpha where the header says so (a PNG's colour type,
    a TIFF's ExtraSamples); grey with a constant full alpha is grey, and with another one RGBA.

    Shape: `[H, W]` grey, `[H, W, 3]` RGB, `[H, W, 4]` RGBA or `[H, W, C]` bands; uint8 in 0..255, uint16 in 0..65535,
    or float32 in the file's own units.

    Args:
        path: the file.
        in_tiles: whether it is looked at in tiles, so that a TIFF may have more pixels than can be decoded at once: it
            is mapped into memory, or decoded piece by piece into a temporary file that is.

    Raises:
        SegregError: the file is missing, empty, damaged, no image, far too large, an animation, or of a kind that
            can't be read exactly (CMYK, complex numbers, negative integers); the message names the file.
    """
    values, alpha = _decode(path, "image", in_tiles=in_tiles)
    values = as_known_type(values, path)
    if alpha and values.ndim == 3 and values.shape[2] == 2:
        values = values[..., 0] if _is_full(values[..., 1]) else values[..., [0, 0, 0, 1]]
    return np.ascontiguousarray(values)


def as_known_type(values: NDArray[Any], path: ImageSource) -> NDArray[Any]:
    """Return values as uint8 (1 bit as 0/255), uint16 or float32; other types become one of these where they fit.

    float64 is rounded to the 24 bits of float32.

    Raises:
        SegregError: integers below 0 or above 65535, floating-point values that float32 can't hold, or no numbers.
    """
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.dtype in (np.uint8, np.uint16, np.float32):
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind not in "iuf":
        _refuse(path, f"holds values of type {values.dtype}", "save it with 8 or 16 bits a channel, or as float32")
    low, high = np.fmin.reduce(values, None), np.fmax.reduce(values, None)
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            single = values.astype(np.float32)
        if np.isinf(single).sum() > np.isinf(values).sum():
            _refuse(path, f"holds {values.dtype} values from {low:g} to {high:g}, too large for float32", "scale them")
        return single
    if low < 0 or high > 65535:
        _refuse(
            path,
            f"holds {values.dtype} values from {low} to {high}; segreg takes integers from 0 to 65535",
            "shift and scale them into 0 to 65535 and save it with 16 bits a channel; or save all images as float32",
        )
    return values.astype(np.uint16)


def read_header(path: ImageSource) -> tuple[int, int, int]:
    """Return an image's height, width and values of a pixel by its header alone: nothing is decoded.

    Raises:
        SegregError: it is not an image of a format that is read, an animation, or its header is damaged.
    """
    is_tiff = _first_bytes(path)[:4] in _TIFF_MAGIC
    with _naming(path, is_tiff=is_tiff):
        if not is_tiff:
            with Image.open(opened(path), formats=PIL_FORMATS) as image:
                if image.format != "MPO" and getattr(image, "is_animated", False):  # counting frames may take long
                    _refuse(path, "is an animation", "save each frame as an image of its own")
                return image.height, image.width, len(image.getbands())
        import tifffile

        with tifffile.TiffFile(opened(path)) as file:
            with suppress(IndexError):
                file.pages.get(_MOST_PAGES)
                _refuse(path, f"has more than {_MOST_PAGES:,} pages", "save each page as an image of its own")
            page = file.pages.first
            height, width = int(page.imagelength), int(page.imagewidth)
            values = int(np.prod(file.series[0].shape, dtype=np.int64))
            return height, width, -(-values // max(1, height * width))


def read_labels(path: Path) -> NDArray[Any]:
    """Return a mask file's raw values, upright: a palette's indices, 0/1 of a 1-bit file, grey as it is stored.

    A mask that was saved as RGB or RGBA is taken where its channels are equal and its alpha is full.

    Shape: `[H, W]` of an integer dtype.

    Raises:
        SegregError: as for `read_image`, and for colours, several bands, or fractions; the message names the file.
    """
    values, alpha = _decode(path, "labels")
    if values.dtype == np.bool_:
        values = values.astype(np.uint8)
    if values.ndim == 3:
        values = _one_channel_of_labels(values, alpha, path)
    if values.dtype.kind == "f":
        whole = np.isfinite(values).all() and np.array_equal(values, np.round(values)) and np.abs(values).max() < 2**31
        if not whole:
            _refuse(path, "holds fractions, and a mask's values are class numbers", "save it with 8-bit class numbers")
        values = values.astype(np.int64)
    return np.ascontiguousarray(values)


def is_readable(path: Path) -> bool:
    """Whether a file can be read as an image or as a mask, whatever its values mean."""
    # The one refuses colours and fractions, the other negative numbers.
    ways: tuple[Callable[[Path], object], ...] = (read_labels, read_image)
    for read in ways:
        with suppress(SegregError):
            read(path)
            return True
    return False


def has_alpha(path: ImageSource) -> bool | None:
    """Whether a file's header says that its last channel is alpha; None where that can't be read."""
    try:
        if _first_bytes(path)[:4] in _TIFF_MAGIC:
            import tifffile

            with tifffile.TiffFile(opened(path)) as file:
                return _tiff_alpha(file.pages.first)
        with Image.open(opened(path), formats=PIL_FORMATS) as image:
            return _pillow_alpha(image)
    except Exception:  # on damaged files decoders raise whatever they stumble over
        return None


def drops_alpha(image: NDArray[Any], channels: int, path: ImageSource) -> bool:
    """Whether an image as it was read loses an alpha channel, full everywhere, to fit the network's channels."""
    return (image.ndim == 2 or image.shape[2] > channels) and has_alpha(path) is True


def fit_channels(image: NDArray[Any], channels: int, path: ImageSource) -> NDArray[Any]:
    """Return an image with as many channels as the network takes, where nothing is lost by it.

    Grey is repeated to 3; three equal channels become 1; an alpha channel goes where it is full everywhere. Whether
    the last channel is alpha, the file's header says; where there is no image file, the fourth is.

    Shape: `[H, W]` or `[H, W, C]` to `[H, W, channels]` of the same dtype.

    Raises:
        SegregError: the channels don't fit and something would be lost or invented; the message names the file.
    """
    values = image[..., np.newaxis] if image.ndim == 2 else image
    has = values.shape[2]
    if channels == has - 1 or (has == 4 and channels == 1):
        alpha = has_alpha(path)
        if alpha or (alpha is None and has == 4):
            if not _is_full(values[..., -1]):
                last = "its alpha channel" if alpha else "its fourth (alpha, or a band)"
                count = "four" if has == 4 else has
                _refuse(
                    path,
                    f"has {count} channels, and the network takes {channels}; {last} is not constant, so it can't "
                    "just be dropped",
                    f"set input.channels: {has}, or save the images with {'three' if has == 4 else has - 1} channels",
                )
            values, has = values[..., :-1], has - 1
    if has == channels:
        return values
    if has == 1 and channels == 3:
        return np.repeat(values, 3, axis=2)
    if has == 3 and channels == 1:
        if not _is_grey(values):
            _refuse(
                path,
                "is a colour image, and the network takes one channel",
                "set input.channels: 3, or save the images in grey",
            )
        return np.ascontiguousarray(values[..., :1])
    ways = f"set input.channels: {has}"
    if has == channels + 1:
        ways += "; if the last is alpha, the file doesn't say so: a TIFF does by ExtraSamples 1 or 2"
    if has > 4:
        ways += "; if the bands are the pages of a stack, save each page as an image of its own"
    return _refuse(path, f"has {plural(has, 'channel')}, and the network takes {channels}", ways)


def to_uint8(image: NDArray[Any], rule: Literal["full_range", "min_max"], path: ImageSource) -> NDArray[np.uint8]:
    """Return 8-bit values: `full_range` divides 16-bit ones by 257, `min_max` stretches this image's own range.

    8-bit images pass unchanged under both rules; a constant 16-bit image becomes 0 under `min_max`.

    Raises:
        SegregError: `full_range` would leave a 16-bit image under 16 grey levels; the message names the file.
    """
    if image.dtype == np.uint8:
        return image
    low, high = int(image.min()), int(image.max())
    if rule == "full_range":
        if 0 < high < 4096:
            _refuse(
                path,
                f"is a 16-bit image whose largest value is {high} of 65535: divided by 257, fewer than 16 grey "
                "levels would be left",
                "set input.sixteen_bit: min_max, which stretches each image's own range",
            )
        low, high = 0, 65535
    found, span = np.zeros(image.shape, np.uint8), high - low
    rows = max(1, _AT_ONCE * len(image) // image.size)
    for top in range(0, len(image) if span else 0, rows):
        wide = image[top : top + rows].astype(np.uint32)
        found[top : top + rows] = ((wide - low) * 255 + span // 2) // span
    return found


def _decode(
    path: ImageSource, want: Literal["image", "labels"], *, in_tiles: bool = False
) -> tuple[NDArray[Any], bool]:
    """Return a file's values, upright, bool where it has one bit a pixel, and whether their last channel is alpha."""
    head = _first_bytes(path)
    is_tiff = head[:4] in _TIFF_MAGIC
    with _naming(path, is_tiff=is_tiff):
        if is_tiff:
            values, orientation, alpha = _read_tiff(path, want, in_tiles=in_tiles)
        else:
            with Image.open(opened(path), formats=PIL_FORMATS) as image:
                alpha = _pillow_alpha(image)
                values = _from_pillow(image, head, path, want)
                # After the pixels, because a PNG may hold its Exif block behind them.
                orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    return upright(values, orientation), alpha


def opened(path: ImageSource) -> Path | io.BytesIO:
    """Return what Pillow and tifffile open."""
    return io.BytesIO(path.data) if isinstance(path, ImageBytes) else path


@contextmanager
def _naming(path: ImageSource, *, is_tiff: bool) -> Iterator[None]:
    """Report what a decoder raises as a refusal of the file."""
    try:
        yield
    except SegregError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        _refuse_pixels(path)
    except MemoryError:
        _refuse(path, "does not fit into memory", "cut it into tiles")
    except Exception as error:  # on damaged files decoders raise whatever they stumble over
        if isinstance(error, UnidentifiedImageError) and not is_tiff:
            _refuse(
                path,
                "is not an image that segreg can read, whatever its name says",
                "PNG, JPEG, TIFF, BMP, GIF, WebP and PNM are read; convert others to PNG or TIFF",
            )
        _refuse(path, f"is damaged and can't be decoded ({error})", "fetch or export it again")


def upright(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return `[H, W, ...]` turned as the Exif orientation (1 to 8) asks."""
    swap, rows, columns = _TURNS.get(orientation, (False, False, False))
    values = values.swapaxes(0, 1) if swap else values
    values = values[::-1] if rows else values
    return values[:, ::-1] if columns else values


def _first_bytes(path: ImageSource) -> bytes:
    """Return the start of a file that is there, can be read and is not empty."""
    head = path.data[:32] if isinstance(path, ImageBytes) else _start_of(path)
    if not head:
        _refuse(path, "is empty (0 bytes)", "fetch or export it again")
    return head


def _start_of(path: Path) -> bytes:
    refuse_special(path)
    try:
        with path.open("rb") as file:
            return file.read(32)
    except FileNotFoundError:
        try:
            beside = [other.name for other in path.parent.iterdir()]
        except OSError:
            beside = []
        _refuse(path, "is not there", did_you_mean(path.name, beside))
    except OSError as error:
        _refuse(path, f"can't be read ({error.strerror})")


def refuse_special(path: Path) -> None:
    """Refuse a folder, and what would block or never end when it is opened and read.

    Raises:
        SegregError: the path is a named pipe, a device, a socket or a folder.
    """
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
    except (OSError, ValueError):  # opening it tells what is wrong
        return
    if kind != stat.S_IFREG:
        _refuse(path, f"is {_KINDS.get(kind, 'no regular file')}, not an image")


def _pillow_alpha(image: Image.Image) -> bool:
    # A palette with transparent entries is read as RGBA.
    return image.mode in _ALPHA_MODES or (image.mode == "P" and image.has_transparency_data)


def _from_pillow(image: Image.Image, head: bytes, path: ImageSource, want: Literal["image", "labels"]) -> NDArray[Any]:
    # A camera's MPO holds previews behind its image; in the other formats further frames are an animation.
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        _refuse(path, f"is an animation of {frames} frames", "save each frame as an image of its own")
    if image.format == "PPM" and any(tile[0] == "ppm" for tile in getattr(image, "tile", [])):
        _refuse(path, "is a PNM file whose largest value is not 255, which Pillow rescales", "convert it to PNG")
    # A PNG's bits a channel and its colour type (0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA).
    bits, colour_type = (head[24], head[25]) if image.format == "PNG" else (8, -1)
    mode = image.mode
    if mode == "1":
        return np.array(image)
    if mode in ("P", "PA"):
        if want == "image":
            return np.array(image.convert("RGBA" if image.has_transparency_data else "RGB"))
        _refuse_reversed_palette(image, path)
        return np.array(image) if mode == "P" else np.array(image.getchannel("P"))
    if mode == "L" and bits in (2, 4) and want == "labels":
        # Pillow stretches 2 and 4 bits to 0..255, which is right for images and wrong for class numbers.
        return np.array(image) // np.uint8(255 // (2**bits - 1))
    if mode in ("L", "LA", "RGB", "RGBA"):
        image.load()  # also where another decoder follows: this one notices damage
        return _png_of_16_bits(path, colour_type) if bits == 16 else np.array(image)
    if mode == "I":  # of a PNM with 16 bits
        return np.array(image)
    if mode.startswith("I;16"):
        values = np.array(image)
        return values.astype(values.dtype.newbyteorder("="))
    return _refuse_colours(path, mode)


def _png_of_16_bits(path: ImageSource, colour_type: int) -> NDArray[Any]:
    """Return a PNG's 16-bit channels, which Pillow cuts to 8 bits without a word."""
    values = _by_opencv(path)
    if values is None or values.ndim != 3:
        _refuse(path, "is a 16-bit PNG that OpenCV can't decode", "save it as TIFF")
    # OpenCV decodes grey and alpha as four channels, and makes alpha of a colour that is to be transparent.
    return values[..., [0, -1]] if colour_type == 4 else values[..., :3] if colour_type == 2 else values


def _by_opencv(path: ImageSource) -> NDArray[np.uint16] | None:
    """Return 16-bit values, RGB or RGBA where there are channels, or None where OpenCV can't decode them."""
    import cv2

    content = np.frombuffer(path.data, np.uint8) if isinstance(path, ImageBytes) else np.fromfile(path, np.uint8)
    values = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16:
        return None
    return values if values.ndim == 2 else values[..., [2, 1, 0, 3][: values.shape[2]]]


def _refuse_reversed_palette(image: Image.Image, path: ImageSource) -> None:
    """Refuse a mask whose two colours are white and black, in this order: which is the foreground is not known."""
    colours = image.getpalette("RGB") or []
    defined = len(image.palette.palette) // len(image.palette.mode) if image.palette else 0
    if defined == 2 and colours[:6] == [255, 255, 255, 0, 0, 0]:
        raise WhiteIsZeroError(
            f"{path}: is a two-colour image whose value 0 is shown white and whose value 1 is shown black, so that "
            "which of them is the foreground is not known",
            hint="save it in grey with 0 and 255; or name its classes by their colours as they are shown",
        )


def _one_channel_of_labels(values: NDArray[Any], alpha: bool, path: ImageSource) -> NDArray[Any]:
    if alpha and values.shape[2] > 1:
        if not _is_full(values[..., -1]):
            _refuse(
                path,
                "is a colour image with transparency, and a mask's values are class numbers"
                if values.shape[2] == 4 and not _is_grey(values)
                else "has an alpha channel that is not full everywhere, so that its values alone don't say what is "
                "masked",
                "save the mask in grey, without transparency",
            )
        values = values[..., :-1]
    channels = values.shape[2]
    if channels == 1 or (channels == 3 and _is_grey(values)):
        return values[..., 0]
    if channels != 3:
        _refuse(path, f"has {channels} bands, and a mask has one", "save the mask's band as an image of its own")
    colours = np.unique(values.reshape(-1, 3), axis=0)
    some = ", ".join(str(tuple(int(v) for v in colour)) for colour in colours[:4])
    return _refuse(
        path,
        f"is a mask in colours ({len(colours)} of them, such as {some}), and a mask's values are class numbers",
        "save it as a one-channel PNG in which each colour is replaced by its class's number, counted from 0",
    )


def _is_full(alpha: NDArray[Any]) -> bool:
    return alpha.dtype.kind == "u" and bool((alpha == np.iinfo(alpha.dtype).max).all())


def _is_grey(values: NDArray[Any]) -> bool:
    return np.array_equal(values[..., 0], values[..., 1]) and np.array_equal(values[..., 0], values[..., 2])


def _refuse(path: ImageSource, what: str, hint: str = "") -> NoReturn:
    raise SegregError(f"{path}: {what}", hint=hint)


def _refuse_pixels(path: ImageSource) -> NoReturn:
    raise TooManyPixelsError(
        f"{path}: has too many pixels to be decoded whole; at most {_MOST_PIXELS:,} are",
        hint=f"`segreg predict --tile` takes a TIFF of up to {_MOST_IN_TILES:,}, and gdal_translate makes one of other "
        "formats. For training, cut it into tiles of, for instance, 4096 x 4096: gdal_retile.py does so for a TIFF, "
        "ImageMagick's `-crop 4096x4096` for other formats",
    )


def _refuse_colours(path: ImageSource, name: object) -> NoReturn:
    _refuse(
        path,
        f'holds "{name}" colours, which segreg does not turn into RGB by guessing',
        "convert it to RGB with a program that knows its colour profile",
    )


# TIFF


def _read_tiff(
    path: ImageSource, want: Literal["image", "labels"], *, in_tiles: bool
) -> tuple[NDArray[Any], int, bool]:
    """Return the values of a TIFF's first image, its Exif orientation, and whether the last channel is alpha.

    The values are bool where it has one bit a pixel.

    For `image`, palettes become colours and fewer than 8 bits are stretched to 0..255; for `labels` neither.

    Shape: `[H, W]` or `[H, W, C]`, whether the file holds its bands interleaved or one after the other.
    """
    import tifffile

    with tifffile.TiffFile(opened(path)) as file:
        page = file.pages.first
        series = file.series[0]
        most = _MOST_IN_TILES if in_tiles else _MOST_PIXELS
        _check_tiff(path, page, [other.pages[0] for other in file.series[1:]], series.shape, most)
        if isinstance(path, ImageBytes):
            _check_pieces(path, page, series.pages)
        if want == "labels" and page.photometric == _MINISWHITE and page.sampleformat == 1:
            raise WhiteIsZeroError(
                f"{path}: is a TIFF whose value 0 is shown white, so that which value is the foreground is not known",
                hint="save it as PNG, or with photometric MINISBLACK, as tifffile does for mask.astype('uint8') and "
                "not for booleans; or name its classes by their colours as they are shown",
            )
        values, orientation = _tiff_values(path, page, series)
        bits = int(page.bitspersample)
        return _tiff_meaning(values, int(page.photometric), bits, page.colormap, want), orientation, _tiff_alpha(page)


def _tiff_alpha(page: Any) -> bool:
    """Whether the last of a page's samples is alpha; ExtraSamples are 0 for any data, 1 and 2 for alpha."""
    return bool(page.extrasamples) and int(page.extrasamples[-1]) in (1, 2)


def _check_tiff(path: ImageSource, page: Any, others: list[Any], shape: tuple[int, ...], most: int) -> None:
    """Refuse, from the header alone, what is not one image of plain values, or has more than so many pixels."""
    if page.imagewidth * page.imagelength > most or np.prod(shape, dtype=np.int64) > 8 * most:
        _refuse_pixels(path)
    if page.sampleformat in (5, 6):
        _refuse(
            path,
            "holds complex numbers, whose parts segreg can't tell apart",
            "save what is to be seen of them, such as magnitude and phase, as bands of 8 or 16 bits",
        )
    if any(other is not None and not other.is_reduced and not other.is_mask for other in others):
        _refuse(path, f"holds {len(others) + 1} images of different sizes", "save each as a file of its own")
    if page.photometric not in (_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _MASK, _YCBCR):
        name = getattr(page.photometric, "name", page.photometric)
        _refuse_colours(path, name)


def _check_pieces(path: ImageBytes, page: Any, pages: Iterable[Any]) -> None:
    """Refuse tiles far larger than the image, and few bytes that become more than a tile."""
    most = math.prod(page.chunks) * page.dtype.itemsize
    too_large = most > max(page.size * page.dtype.itemsize, _MOST_OF_A_TILE)
    makers: dict[int, Any] = {8: zlib.decompressobj, 32946: zlib.decompressobj, 34925: lzma.LZMADecompressor}
    maker: Any = None if too_large else makers.get(int(page.compression))
    for one in pages:
        for at, count in zip(one.dataoffsets, one.databytecounts, strict=False) if maker and one is not None else ():
            too_large = too_large or len(maker().decompress(path.data[at : at + count], most + 1)) > most
    if too_large:
        _refuse(path, "is damaged: its pieces are larger than the image", "export it again")


def _tiff_values(path: ImageSource, page: Any, series: Any) -> tuple[NDArray[Any], int]:
    """Decode by tifffile where it can, and else by a library that reads this very layout exactly."""
    tag = page.tags.get("Orientation")
    orientation = int(tag.value) if tag else 1
    bounded = not isinstance(path, ImageBytes) or int(page.compression) in _BOUNDED
    if page.photometric != _YCBCR and bounded:
        try:
            return _bands_last(path, series.asarray(maxworkers=1, out=_target(path, series)), series.axes), orientation
        except ValueError as error:
            # LZW, JPEG and fax need a package that most people don't have, and other libraries can do them.
            if "imagecodecs" not in str(error):
                raise
    plain = (
        series.size <= 8 * _MOST_PIXELS
        and len(series.pages) == 1
        and page.samplesperpixel in (1, 3, 4)
        and page.sampleformat == 1
    )
    if plain and (page.bitspersample == 8 or (page.bitspersample == 1 and page.samplesperpixel == 1)):
        with suppress(UnidentifiedImageError):  # how it is compressed
            return _by_pillow(path, page.photometric == _MINISWHITE), 1
    if plain and page.bitspersample == 16 and page.planarconfig == 1:
        # OpenCV turns TIFFs by itself, though no other format when read unchanged.
        decoded = _by_opencv(path)
        if decoded is None or page.photometric == _MINISWHITE:
            _refuse(path, "can't be read the way it is compressed", "save it uncompressed or by deflate (zip)")
        return decoded, 1
    compression = getattr(page.compression, "name", page.compression)
    ways = "save it uncompressed or by deflate (zip)"
    return _refuse(path, f"is compressed by {compression}", f"pip install imagecodecs, or {ways}" if bounded else ways)


def _target(path: ImageSource, series: Any) -> Any:
    """Return where a TIFF is decoded to: None for memory, or for one that is large a map of its file or of another."""
    if series.size <= 8 * _MOST_PIXELS and series.pages[0].imagewidth * series.pages[0].imagelength <= _MOST_PIXELS:
        return None
    if series.pages[0].is_memmappable and series.dataoffset is not None:
        return "memmap"
    needed = series.size * series.dtype.itemsize
    try:
        with tempfile.TemporaryFile() as file:  # it is gone when the map is
            if hasattr(os, "posix_fallocate"):  # a disk that fills up later kills the process at a write
                os.posix_fallocate(file.fileno(), 0, needed)
            return np.memmap(file, series.dtype, "w+", shape=series.shape)
    except OSError as error:
        return _refuse(
            path,
            f"takes {needed / 1e9:.1f} GB in {tempfile.gettempdir()} to be decoded: {error.strerror}",
            "the variable TMPDIR names another folder; an uncompressed TIFF takes none",
        )


def _by_pillow(path: ImageSource, white_is_zero: bool) -> NDArray[Any]:
    """Return the values upright, since Pillow turns TIFFs by itself."""
    with Image.open(opened(path), formats=("TIFF",)) as image:
        values = np.array(image)
    # Pillow also undoes "white is zero", which the caller does for every decoder.
    return ~values if white_is_zero else values


def _bands_last(path: ImageSource, values: NDArray[Any], axes: str) -> NDArray[Any]:
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


def _tiff_meaning(
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
