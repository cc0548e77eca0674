"""What a mask file holds, going by its header: its values, its palette, and whether its format kept them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segreg.errors import SegregError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

Channel = Literal["red", "green", "blue", "alpha"] | int
Palette = tuple[tuple[int, int, int], ...]
_CHANNELS = ("red", "green", "blue", "alpha")
_PNG, _TIFF = b"\x89PNG\r\n\x1a\n", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_JPEG_2000 = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
_TIFF_JPEGS = {6: "JPEG", 7: "JPEG", 34892: "JPEG", 33003: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000"}
_PALETTE_SUFFIXES = {".png", ".gif", ".bmp", ".dib"}
_ORIENTATION = 0x0112
# Shown white, 0 may be the background of a scanned page or the foreground: `read_labels` refuses it.
_WHITE_AND_BLACK: Palette = ((255, 255, 255), (0, 0, 0))
_BLACK_AND_WHITE: Palette = _WHITE_AND_BLACK[::-1]


def read_values(file: Path, *, channel: Channel | None = None, grey_levels: bool = False) -> NDArray[Any]:
    """Return a mask's values, `[H, W]`, upright: integers of any width and sign, or floats where it has fractions.

    Args:
        file: the mask.
        channel: the channel that has the values; None: there must be one, or equal ones and a full alpha.
        grey_levels: whether a palette's grey levels are the values, in place of its indices.

    Raises:
        SegregError: the file can't be read or has no single value a pixel; the message names it.
    """
    from segreg.data.images import read_image, read_labels

    if first_bytes(file).startswith(_TIFF) and _check_tiff(file, channel):
        values = _floats(file)
        return values if values.ndim == 2 and channel is None else _one_channel(values, channel, file)
    if channel is not None:
        values = read_image(file)  # which stretches grey of fewer than 8 bits
        return _one_channel(read_labels(file) if values.ndim == 2 else values, channel, file)
    if grey_levels and palette_of(file) not in (None, _WHITE_AND_BLACK):
        colours = read_image(file)
        return colours if colours.ndim == 2 else colours[..., 0]
    return read_labels(file)


def read_colours(file: Path) -> NDArray[np.uint8 | np.uint16 | np.float32]:
    """Return a mask's colours, `[H, W, 3]`, uint8 or uint16, upright.

    Raises:
        SegregError: the file can't be read, has transparent pixels, or holds fractions.
    """
    from segreg.data.images import fit_channels, read_image

    if first_bytes(file).startswith(_TIFF):
        _check_tiff(file, "red")
    colours: NDArray[Any] = fit_channels(read_image(file), 3, file)
    if colours.dtype.kind == "f" and (colours != colours.round()).any():
        raise SegregError(
            f"{file}: holds fractions, and colours are whole numbers", hint="save it with 8 bits a channel"
        )
    return colours


def lossy_format(file: Path) -> str:
    """Return the name of a format that stores neighbouring colours in place of the values, or an empty string."""
    head = first_bytes(file)
    if head.startswith(b"\xff\xd8"):
        return "JPEG"
    if head.startswith(_JPEG_2000):
        return "JPEG 2000"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP" and any(name == b"VP8 " for name, _, _ in _chunks(file)):
        return "lossy WebP"
    if head.startswith(_TIFF):
        page = _first_page(file)
        compression = _TIFF_JPEGS.get(int(page.compression)) if page is not None else None
        return f"a TIFF compressed by {compression}" if compression else ""
    return ""


def first_bytes(file: Path) -> bytes:
    """Return the start of a file, empty where it can't be read: reading it as an image tells what is wrong.

    Raises:
        SegregError: it is a named pipe or a device, which would block.
    """
    from segreg.data.images import refuse_special

    refuse_special(file)
    try:
        with file.open("rb") as opened:
            return opened.read(32)
    except OSError:
        return b""


def _chunks(file: Path) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name of each chunk of a PNG or WebP, where its content begins, and how long it is."""
    with file.open("rb") as opened:
        png = opened.read(8) == _PNG
        at = 8 if png else 12
        while True:
            opened.seek(at)
            header = opened.read(8)
            if len(header) < 8:
                return
            name, length = (header[4:], int.from_bytes(header[:4])) if png else struct.unpack("<4sI", header)
            yield name, at + 8, length
            at += 8 + length + (4 if png else length % 2)  # a checksum, or a byte that makes the length even


# TIFF


def _first_page(file: Path) -> Any:
    """Return the header of a TIFF's first page, or None where it is damaged, which reading it will tell."""
    import tifffile

    try:
        with tifffile.TiffFile(file) as opened:
            return opened.pages.first
    except Exception:  # tifffile raises whatever it stumbles over
        return None


def _check_tiff(file: Path, channel: Channel | None) -> bool:
    """Refuse, going by the header, what has no single value a pixel; return whether the values are floats."""
    import tifffile

    try:
        with tifffile.TiffFile(file) as opened:
            page = opened.pages.first
            pages = sum(1 for other in opened.pages if not other.is_reduced and not other.is_mask)
            samples, extra, kind = page.samplesperpixel, tuple(page.extrasamples), int(page.sampleformat)
    except Exception:  # damaged: reading it tells how
        return False
    if kind in (5, 6):
        raise SegregError(f"{file}: holds complex numbers", hint="save a mask of whole numbers")
    if pages > 1:
        raise SegregError(
            f"{file}: holds {pages} pages, and a mask has one",
            hint="save the page that is the mask as a file of its own",
        )
    if samples > 1 and channel is None and int(page.photometric) in (0, 1) and not any(map(int, extra)):
        raise SegregError(
            f"{file}: has {samples} bands, and a mask has one",
            hint=f"set mask_channel to the band that has the values, 0 to {samples - 1}",
        )
    return kind == 3


def _floats(file: Path) -> NDArray[Any]:
    """Return the values of a TIFF of floats, `[H, W]` or `[H, W, C]`, upright, fractions and all."""
    import numpy as np
    import tifffile

    from segreg.data.images import read_labels, upright

    try:
        with tifffile.TiffFile(file) as opened:
            page = opened.pages.first
            values, axes, tag = page.asarray(), page.axes, page.tags.get("Orientation")
    except Exception:  # damaged, or compressed in a way that tifffile doesn't know: this says so
        return read_labels(file)
    values = np.moveaxis(values, 0, 2) if axes == "SYX" else values
    return upright(values.astype(values.dtype.newbyteorder("=")), int(tag.value) if tag else 1)


def _one_channel(values: NDArray[Any], channel: Channel | None, file: Path) -> NDArray[Any]:
    """Return one channel of `[H, W]` or `[H, W, C]`."""
    import numpy as np

    count = 1 if values.ndim == 2 else values.shape[2]
    if channel is None:
        raise SegregError(f"{file}: has {count} bands of floats, and a mask has one", hint="set mask_channel")
    index = channel if isinstance(channel, int) else _CHANNELS.index(channel)
    if index >= count or (isinstance(channel, str) and count < 3):
        raise SegregError(
            f"{file}: has {count} channel{'s' * (count > 1)}, and mask_channel is {channel}",
            hint="leave mask_channel out for masks of one channel",
        )
    return np.ascontiguousarray(values if values.ndim == 2 else values[..., index])


# Exif


def check_orientations(image: Path, mask: Path) -> None:
    """Refuse a pair whose files are stored in one size and of which only one is turned by its Exif orientation.

    Sizes that differ as stored leave no doubt: the mask of a turned image was drawn on it as viewers show it.

    Raises:
        SegregError: which of the pixels belong together is not known, or the mask fits the image before it is turned.
    """
    turn, size = _orientation(image)
    mask_turn, mask_size = _orientation(mask)
    if turn == mask_turn or size is None or size != mask_size:
        return
    parts = [f"has the Exif orientation {n}" if n > 1 else "has no Exif orientation" for n in (turn, mask_turn)]
    fits_unturned = size[0] != size[1] and (turn > 4) != (mask_turn > 4)
    which = "they fit only unturned" if fits_unturned else "their sizes fit either way"
    turned = image if turn > 1 else mask
    hints = [
        f"if the mask was drawn on the stored pixels, remove the orientation: exiftool -Orientation= {turned.name}"
    ]
    if not fits_unturned:
        hints.append(f"if on the image as viewers show it, turn the pixels: mogrify -auto-orient {turned.name}")
    raise SegregError(f"{image}: {parts[0]}, and its mask {mask} {parts[1]}; {which}", hint="\n".join(hints))


def _orientation(file: Path) -> tuple[int, tuple[int, int] | None]:
    """Return a file's Exif orientation, 1 to 8, and its stored height and width; None where it can't be read."""
    head = first_bytes(file)
    if head.startswith(_TIFF):
        page = _first_page(file)
        tag = page.tags.get("Orientation") if page is not None else None
        return _valid(tag.value if tag else 1), (page.imagelength, page.imagewidth) if page is not None else None
    from PIL import Image

    try:
        with Image.open(file) as opened:
            size = opened.height, opened.width
            exif = opened.getexif() if opened.format != "PNG" else _png_exif(file)
            return _valid(exif.get(_ORIENTATION, 1)), size
    except Exception:  # damaged: reading it tells how
        return 1, None


def _png_exif(file: Path) -> Image.Exif:
    """Return a PNG's Exif block, for which Pillow decodes the pixels, since it may follow them."""
    from PIL import Image

    exif = Image.Exif()
    for name, begin, length in _chunks(file):
        if name == b"eXIf":
            with file.open("rb") as opened:
                opened.seek(begin)
                exif.load(opened.read(length))
    return exif


def _valid(orientation: object) -> int:
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


# Palettes


def palette_of(file: Path) -> Palette | None:
    """Return the colours of a PNG's, GIF's or BMP's palette, or None where it has none or can't be read."""
    if file.suffix.lower() not in _PALETTE_SUFFIXES:
        return None
    head = first_bytes(file)
    if head.startswith(_PNG) and head[25:26] != b"\3":  # Pillow takes ten times as long to say so
        return None
    from PIL import Image

    try:
        with Image.open(file) as image:
            if image.mode not in ("P", "PA") or image.palette is None:
                return None
            colours, size = image.palette.palette, len(image.palette.mode)
    except Exception:  # damaged: reading it tells how
        return None
    return tuple((colours[i], colours[i + 1], colours[i + 2]) for i in range(0, len(colours) - 2, size))


def grey_levels_count(masks: Sequence[Path], *, white_is_one: bool = False) -> bool:
    """Whether grey levels are the values of palette masks: where all their palettes are grey, an encoder made them.

    Otherwise the indices are the values, and each must have one colour in all files.

    Args:
        masks: the files.
        white_is_one: whether the indices are the values, too, where all palettes are black and white in this order.

    Raises:
        SegregError: an index is used for different colours; the message names two files.
    """
    palettes = {file: palette for file in dict.fromkeys(masks) if (palette := palette_of(file))}
    if white_is_one and all(_without_padding(palette) in ((), _BLACK_AND_WHITE) for palette in palettes.values()):
        return False
    if all(len(set(colour)) == 1 for palette in palettes.values() for colour in palette):
        return bool(palettes)
    meanings: dict[int, set[tuple[int, int, int]]] = {}
    for palette in set(palettes.values()):
        for index, colour in enumerate(palette):
            meanings.setdefault(index, set()).add(colour)
    doubtful = {index for index, colours in meanings.items() if len(colours) > 1}
    seen: dict[int, tuple[tuple[int, int, int], Path]] = {}
    for file, palette in palettes.items() if doubtful else ():
        for index in sorted(doubtful & _used(file)):
            if index >= len(palette):
                continue
            colour, other = seen.setdefault(index, (palette[index], file))
            if colour != palette[index]:
                raise SegregError(
                    f"masks: the index {index} is the colour {colour} in {other}, and {palette[index]} in {file}",
                    hint="to go by the colours, name them, such as values: "
                    f"{{background: [0, 0, 0], one: {list(colour)}, other: {list(palette[index])}}}\n"
                    "set palette: indices if the indices are class numbers, whatever their colours are",
                )
    return False


def _without_padding(palette: Palette) -> Palette:
    """Return a palette without the black entries at its end, with which many programs fill it up."""
    end = max((place for place, colour in enumerate(palette, start=1) if colour != (0, 0, 0)), default=0)
    return palette[:end]


def _used(file: Path) -> set[int]:
    """Return the indices that a palette file's pixels have."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(file) as image:
            return set(np.unique(np.array(image if image.mode == "P" else image.getchannel("P"))).tolist())
    except Exception:  # damaged: reading it tells how
        return set()
