"""segreg.data.images: every kind of file is read exactly or refused by its name."""

from __future__ import annotations

import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from segreg.data import images
from segreg.data.images import ImageBytes, drops_alpha, fit_channels, has_alpha, read_header, read_labels, to_uint8
from segreg.errors import SegregError

H, W = 20, 31
REAL = os.environ.get("SEGREG_REAL_DATA")


def values(dtype, *channels, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (H, W, *channels), dtype, endpoint=True)


def save(path: Path, array, **options) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


def png(path: Path, width: int, height: int, bits: int, colour_type: int, rows: list[bytes], palette=b"") -> Path:
    """Write a PNG by hand, for the depths that no writer here offers."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    body = chunk(b"PLTE", palette) if palette else b""
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return path


def read_image(path: Path, **options):
    """Read a file, and check that its content in memory is read alike, or refused for the same reason."""
    content = ImageBytes(str(path), path.read_bytes()) if path.is_file() else path
    read, again = outcome(path, **options), outcome(content, **options)
    if isinstance(read, SegregError):
        assert str(again) == str(read)
        raise read
    assert again.dtype == read.dtype
    np.testing.assert_array_equal(again, read)
    assert has_alpha(content) == has_alpha(path)
    return read


def outcome(source, **options):
    try:
        return images.read_image(source, **options)
    except SegregError as error:
        return error


def refusal(path: Path, *words: str, read=read_image) -> SegregError:
    with pytest.raises(SegregError) as caught:
        read(path)
    for word in (str(path), *words):
        assert word in str(caught.value)
    return caught.value


# Headers


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp", "a.tif"])
def test_a_header_has_the_size_and_the_values_of_a_pixel(tmp_path, name):
    file = save(tmp_path / name, values(np.uint8, 3))
    for source in (file, ImageBytes("sent", file.read_bytes())):
        assert read_header(source) == (H, W, 3)


def test_a_header_of_a_stack_counts_its_pages(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((7, H, W), np.uint16), compression="zlib")
    assert read_header(tmp_path / "a.tif") == (H, W, 7)
    with tifffile.TiffWriter(tmp_path / "many.tif") as file:
        for _ in range(4097):
            file.write(np.zeros((1, 1), np.uint8), contiguous=False)
    refusal(tmp_path / "many.tif", "has more than 4,096 pages", read=read_header)


def test_a_header_is_read_of_what_is_cut_off_behind_it(tmp_path):
    file = save(tmp_path / "a.png", values(np.uint8, 3))
    file.write_bytes(file.read_bytes()[:60])
    assert read_header(file) == (H, W, 3)
    for content, words in ((b"", "is empty"), (b"<html>", "is not an image"), (b"II*\0", "is damaged")):
        file.write_bytes(content)
        refusal(file, words, read=read_header)
    frames = [Image.fromarray(values(np.uint8, seed=seed)) for seed in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    refusal(tmp_path / "a.gif", "is an animation", read=read_header)


# Images


@pytest.mark.parametrize("channels", [(), (3,), (4,)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_8_bit_is_read_exactly(tmp_path, channels, suffix):
    array = values(np.uint8, *channels)
    read = read_image(save(tmp_path / f"a.{suffix}", array))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, array)
    assert read.flags.writeable
    assert read.flags.c_contiguous


@pytest.mark.parametrize("channels", [(), (3,), (4,)])
def test_16_bit_png_keeps_its_depth(tmp_path, channels):
    array = values(np.uint16, *channels)
    bgr = array if not channels else array[..., [2, 1, 0, 3][: channels[0]]]
    cv2.imwrite(str(tmp_path / "a.png"), bgr)
    read = read_image(tmp_path / "a.png")
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_transparent_colour_of_a_png_is_no_fourth_channel(tmp_path, bits):
    array = values(np.uint8 if bits == 8 else np.uint16, 3)
    file = png(tmp_path / "a.png", W, H, bits, 2, [row.astype(f">u{bits // 8}").tobytes() for row in array])
    key = b"tRNS" + array[0, 0].astype(">u2").tobytes()
    chunk = struct.pack(">I", 6) + key + struct.pack(">I", zlib.crc32(key))
    whole = file.read_bytes()
    at = whole.index(b"IDAT") - 4
    file.write_bytes(whole[:at] + chunk + whole[at:])
    np.testing.assert_array_equal(read_image(file), array)


def test_16_bit_grey_and_alpha_png(tmp_path):
    array = values(np.uint16, 2)
    rows = [row.astype(">u2").tobytes() for row in array]
    read = read_image(png(tmp_path / "a.png", W, H, 16, 4, rows))
    np.testing.assert_array_equal(read, array[..., [0, 0, 0, 1]])
    array[..., 1] = 65535
    read = read_image(png(tmp_path / "a.png", W, H, 16, 4, [row.astype(">u2").tobytes() for row in array]))
    np.testing.assert_array_equal(read, array[..., 0])


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("channels", [(), (3,), (4,)])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_16_bit_tiff_keeps_its_depth(tmp_path, channels, byteorder, compression):
    array = values(np.uint16, *channels)
    photometric = "rgb" if channels else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", array, byteorder=byteorder, compression=compression, photometric=photometric)
    read = read_image(tmp_path / "a.tif")
    assert read.dtype == np.dtype(np.uint16)
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_deflate"])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_compressed_8_bit_tiff(tmp_path, compression, channels):
    array = values(np.uint8, *channels)
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.tif", array, compression=compression)), array)


def test_lzw_16_bit_rgb_tiff(tmp_path):
    array = values(np.uint16, 3)
    cv2.imwrite(str(tmp_path / "a.tif"), array[..., ::-1])  # LZW is what OpenCV writes
    read = read_image(tmp_path / "a.tif")
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, array)


def test_jpeg_in_tiff_is_rgb(tmp_path):
    array = np.zeros((H, W, 3), np.uint8)
    array[..., 0] = 200
    read = read_image(save(tmp_path / "a.tif", array, compression="jpeg"))
    assert np.abs(read.astype(int) - array).max() < 8


@pytest.mark.parametrize("layout", ["interleaved", "planar", "pages", "untold"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_bands_come_last_however_a_tiff_holds_them(tmp_path, layout, dtype):
    array = values(dtype, 7)
    first = np.ascontiguousarray(np.moveaxis(array, 2, 0))
    match layout:
        case "interleaved":
            tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", planarconfig="contig")
        case "planar":
            tifffile.imwrite(tmp_path / "a.tif", first, photometric="minisblack", planarconfig="separate")
        case "pages":
            tifffile.imwrite(tmp_path / "a.tif", first, photometric="minisblack")
        case "untold":
            tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), array)


def test_imagej_channels_are_bands_and_z_is_a_stack(tmp_path):
    array = values(np.uint16, 5)
    first = np.ascontiguousarray(np.moveaxis(array, 2, 0))
    tifffile.imwrite(tmp_path / "c.tif", first, imagej=True, metadata={"axes": "CYX"})
    np.testing.assert_array_equal(read_image(tmp_path / "c.tif"), array)
    tifffile.imwrite(tmp_path / "z.tif", first, imagej=True, metadata={"axes": "ZYX"})
    refusal(tmp_path / "z.tif", "is a stack of images (axes ZYX, 5 x 20 x 31)", "save each page")


def test_tiff_pyramid_gives_its_full_size(tmp_path):
    array = values(np.uint8, 3)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(array, photometric="rgb", subifds=1)
        writer.write(np.ascontiguousarray(array[::2, ::2]), photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), array)
    with tifffile.TiffWriter(tmp_path / "flat.tif") as writer:
        writer.write(array, photometric="rgb")
        writer.write(np.ascontiguousarray(array[::2, ::2]), photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(read_image(tmp_path / "flat.tif"), array)


def test_tiff_of_several_images_is_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(values(np.uint8, 3), photometric="rgb")
        writer.write(values(np.uint8, 3)[:5], photometric="rgb")
    refusal(tmp_path / "a.tif", "holds 2 images of different sizes")


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "gif"])
def test_1_bit_is_0_and_255(tmp_path, suffix):
    shown = values(np.uint8) > 127
    save(tmp_path / f"a.{suffix}", shown)
    read = read_image(tmp_path / f"a.{suffix}")
    read = read[..., 0] if read.ndim == 3 else read  # GIF holds a palette
    np.testing.assert_array_equal(read, shown * 255)


@pytest.mark.parametrize("compression", ["raw", "group4"])
def test_white_is_zero_tiff_is_read_as_it_is_shown(tmp_path, compression):
    shown = values(np.uint8) > 127
    path = tmp_path / "a.tif"
    Image.fromarray(shown).save(path, compression=compression, tiffinfo={262: 0})
    with tifffile.TiffFile(path) as file:
        assert file.pages.first.photometric == 0
    np.testing.assert_array_equal(read_image(path), shown * 255)
    refusal(path, "is a TIFF whose value 0 is shown white", "mask.astype('uint8')", read=read_labels)
    grey = values(np.uint8)
    tifffile.imwrite(tmp_path / "g.tif", 255 - grey, photometric="miniswhite")
    np.testing.assert_array_equal(read_image(tmp_path / "g.tif"), grey)


def test_boolean_masks_of_tifffile_are_not_inverted_without_a_word(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", values(np.uint8) > 127)
    refusal(tmp_path / "a.tif", "which value is the foreground is not known", read=read_labels)


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp", "tif"])
def test_palette_is_colours_in_images_and_indices_in_masks(tmp_path, suffix):
    indices = values(np.uint8) % 12
    colours = np.random.default_rng(3).integers(0, 256, (256, 3), np.uint8)
    image = Image.fromarray(indices).convert("L")
    image.putpalette(colours.tobytes())
    path = tmp_path / f"a.{suffix}"
    image.save(path, **({"optimize": False} if suffix == "gif" else {}))
    np.testing.assert_array_equal(read_image(path), colours[indices])
    np.testing.assert_array_equal(read_labels(path), indices)


def test_transparent_palette_is_rgba(tmp_path):
    image = Image.fromarray(values(np.uint8) % 4)
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    image.save(tmp_path / "a.png", transparency=2)
    read = read_image(tmp_path / "a.png")
    assert read.shape == (H, W, 4)
    np.testing.assert_array_equal(read[..., 3] == 0, values(np.uint8) % 4 == 2)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "lzw.tif", "webp"])
def test_exif_orientation_is_applied_to_images(tmp_path, orientation, suffix):
    array = np.kron(values(np.uint8, 3)[:4, :6], np.ones((8, 8, 1), np.uint8))
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {
        "jpg": {"exif": exif, "quality": 100, "subsampling": 0},
        "webp": {"exif": exif, "lossless": True},
        "png": {"exif": exif},
        "tif": {"tiffinfo": {274: orientation}},
        "lzw.tif": {"tiffinfo": {274: orientation}, "compression": "tiff_lzw"},
    }
    Image.fromarray(array).save(path, **options[suffix])
    tagged = Image.fromarray(array)
    tagged.getexif()[0x0112] = orientation
    expected = np.array(ImageOps.exif_transpose(tagged))
    read = read_image(path)
    assert read.shape == expected.shape
    assert np.abs(read.astype(int) - expected).max() <= (4 if suffix == "jpg" else 0)


@pytest.mark.parametrize("orientation", [3, 6])
def test_exif_orientation_of_16_bit_files(tmp_path, orientation):
    array = values(np.uint16)
    Image.fromarray(array).save(tmp_path / "a.tif", compression="tiff_lzw", tiffinfo={274: orientation})
    tifffile.imwrite(tmp_path / "b.tif", array, extratags=[(274, 3, 1, orientation, True)])
    expected = np.rot90(array, 2 if orientation == 3 else -1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), expected)
    np.testing.assert_array_equal(read_image(tmp_path / "b.tif"), expected)
    np.testing.assert_array_equal(read_labels(tmp_path / "b.tif"), expected)


def test_exif_orientation_is_applied_to_masks(tmp_path):
    labels = values(np.uint8) % 5
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(labels).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), np.rot90(labels, 1))


def test_two_and_four_bits_are_stretched_in_images_and_raw_in_masks(tmp_path):
    four = png(tmp_path / "4.png", 4, 1, 4, 0, [bytes([0x01, 0x3F])])
    assert read_image(four).tolist() == [[0, 17, 51, 255]]
    assert read_labels(four).tolist() == [[0, 1, 3, 15]]
    two = png(tmp_path / "2.png", 4, 1, 2, 0, [bytes([0b00011011])])
    assert read_image(two).tolist() == [[0, 85, 170, 255]]
    assert read_labels(two).tolist() == [[0, 1, 2, 3]]


def test_32_bit_integers_become_16_bit_where_they_fit(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", values(np.uint16).astype(np.int32))
    read = read_image(tmp_path / "a.tif")
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, values(np.uint16))
    tifffile.imwrite(tmp_path / "b.tif", values(np.uint16).astype(np.int32) - 5)
    refusal(tmp_path / "b.tif", "holds int32 values from -", "shift and scale", "float32")


def test_cmyk_is_refused(tmp_path):
    for name in ("c.jpg", "c.tif"):
        Image.new("CMYK", (8, 8)).save(tmp_path / name)
        refusal(tmp_path / name, "does not turn into RGB by guessing", "colour profile")


def test_animations_are_refused(tmp_path):
    frames = [Image.fromarray(values(np.uint8, seed=seed)) for seed in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    refusal(tmp_path / "a.gif", "is an animation of 3 frames")


def test_pnm_is_read_at_255_and_refused_where_pillow_rescales(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 3 1 255\n" + bytes([0, 7, 255]))
    assert read_labels(tmp_path / "a.pgm").tolist() == [[0, 7, 255]]
    (tmp_path / "b.pgm").write_bytes(b"P5 3 1 20\n" + bytes([0, 7, 20]))
    refusal(tmp_path / "b.pgm", "largest value is not 255")
    (tmp_path / "c.ppm").write_bytes(b"P6 1 1 65535\n" + bytes(6))
    refusal(tmp_path / "c.ppm", "largest value is not 255")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "webp", "tif", "lzw.tif", "16.tif", "16.png"])
@pytest.mark.parametrize("share", [0.9, 0.5, 0.02])
def test_truncated_files_are_refused(tmp_path, suffix, share):
    path = tmp_path / f"a.{suffix}"
    array = values(np.uint16, 3) if suffix.startswith("16") else np.tile(values(np.uint8, 3), (4, 4, 1))
    if suffix.startswith("16"):
        cv2.imwrite(str(path), array)
    elif suffix == "lzw.tif":
        save(path, array, compression="tiff_lzw")
    else:
        save(path, array)
    whole = path.read_bytes()
    path.write_bytes(whole[: max(8, int(len(whole) * share))])
    refusal(path)
    refusal(path, read=read_labels)


def test_a_flipped_bit_in_a_png_is_noticed(tmp_path):
    path = save(tmp_path / "a.png", values(np.uint8, 3))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    refusal(path, "is damaged and can't be decoded")


def test_what_is_no_image_is_reported(tmp_path):
    (tmp_path / "lesion_01.png").write_bytes(b"")
    refusal(tmp_path / "lesion_01.png", "is empty (0 bytes)")
    refusal(tmp_path / "lesion_1.png", "is not there", 'did you mean "lesion_01.png"?')
    refusal(tmp_path / "no" / "a.png", "is not there")
    refusal(tmp_path, "is a folder, not an image")
    (tmp_path / "a.jpg").write_text("<html>not found</html>")
    refusal(tmp_path / "a.jpg", "is not an image that segreg can read, whatever its name says", "PNG, JPEG")


def test_a_16_bit_pgm_is_read_exactly(tmp_path):
    array = values(np.uint16)
    height, width = array.shape
    (tmp_path / "a.pgm").write_bytes(f"P5 {width} {height} 65535\n".encode() + array.astype(">u2").tobytes())
    np.testing.assert_array_equal(read_image(tmp_path / "a.pgm"), array)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.pgm"), array)
    (tmp_path / "b.pgm").write_bytes(f"P5 {width} {height} 4095\n".encode() + (array & 4095).astype(">u2").tobytes())
    refusal(tmp_path / "b.pgm", "a PNM file whose largest value is not 255")


def test_far_too_large_images_are_refused_before_decoding(tmp_path):
    row = bytes(20_000 // 8)
    path = png(tmp_path / "bomb.png", 20_000, 20_000, 1, 0, [row] * 20_000)
    assert path.stat().st_size < 100_000
    refusal(path, "has too many pixels", "tiles")
    tifffile.imwrite(tmp_path / "bomb.tif", shape=(20_000, 20_000), dtype=np.uint8, data=None, software=False)
    refusal(tmp_path / "bomb.tif", "has too many pixels", "tiles")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"compression": "zlib", "rowsperstrip": 7},
        {"compression": "zlib", "tile": (16, 32)},
        {"photometric": "minisblack", "planarconfig": "separate"},
        {"photometric": "minisblack", "planarconfig": "separate", "compression": "zlib", "byteorder": ">"},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_large_tiff_is_read_for_tiles_by_way_of_a_file(tmp_path, monkeypatch, settings, dtype):
    monkeypatch.setattr("segreg.data.images._MOST_PIXELS", 1000)
    path, array = tmp_path / "large.tif", np.random.default_rng(0).integers(0, 200, (40, 60, 3)).astype(dtype)
    bands_first = settings.get("planarconfig") == "separate"
    tifffile.imwrite(path, np.moveaxis(array, 2, 0) if bands_first else array, **({"photometric": "rgb"} | settings))
    refusal(path, "has too many pixels to be decoded whole; at most 1,000 are", "segreg predict --tile", "gdal_retile")
    read = read_image(path, in_tiles=True)
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, array)
    monkeypatch.setattr("segreg.data.images._MOST_IN_TILES", 2000)
    refusal(path, "has too many pixels", read=lambda p: read_image(p, in_tiles=True))


def test_a_large_image_that_can_not_be_read_for_tiles_says_why(tmp_path, monkeypatch):
    save(tmp_path / "large.png", values(np.uint8, 3))
    Image.fromarray(values(np.uint8, 3)).save(tmp_path / "large.tif", compression="tiff_lzw")
    monkeypatch.setattr("segreg.data.images._MOST_PIXELS", 5)
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 5)
    in_tiles = {"read": lambda path: read_image(path, in_tiles=True)}
    refusal(tmp_path / "large.png", "has too many pixels", "takes a TIFF", **in_tiles)
    if not find_spec("imagecodecs"):
        refusal(tmp_path / "large.tif", "is compressed by LZW", "pip install imagecodecs", **in_tiles)
    tifffile.imwrite(tmp_path / "zip.tif", values(np.uint8, 3), compression="zlib")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    refusal(tmp_path / "zip.tif", "takes 0.0 GB in ", "No space left on device", "TMPDIR", **in_tiles)


def test_the_content_counts_and_not_the_name(tmp_path):
    array = values(np.uint8, 3)
    save(tmp_path / "a.png", array)
    (tmp_path / "a.png").rename(tmp_path / "a.JPG")
    np.testing.assert_array_equal(read_image(tmp_path / "a.JPG"), array)


def test_names_with_blanks_and_beyond_ascii(tmp_path):
    array = values(np.uint16, 3)
    tifffile.imwrite(tmp_path / "läsion 1.rf.2.tif", array, photometric="rgb")
    np.testing.assert_array_equal(read_image(tmp_path / "läsion 1.rf.2.tif"), array)


def test_reading_is_thread_safe(tmp_path):
    arrays = [values(np.uint8, 3, seed=seed) for seed in range(8)]
    wide = [values(np.uint16, 3, seed=seed) for seed in range(8)]
    for i in range(8):
        save(tmp_path / f"{i}.png", arrays[i])
        save(tmp_path / f"{i}.tif", arrays[i], compression="tiff_lzw")
        cv2.imwrite(str(tmp_path / f"{i}w.png"), wide[i][..., ::-1])
    jobs = [(tmp_path / f"{i}{end}", i) for i in range(8) for end in (".png", ".tif", "w.png")] * 8
    with ThreadPoolExecutor(8) as pool:
        for (path, i), read in zip(jobs, pool.map(lambda job: read_image(job[0]), jobs), strict=True):
            np.testing.assert_array_equal(read, wide[i] if "w" in path.stem else arrays[i])


# Masks


def test_grey_masks_are_raw(tmp_path):
    for dtype, name in ((np.uint8, "a.png"), (np.uint16, "b.png"), (np.uint16, "b.tif")):
        array = values(dtype)
        read = read_labels(save(tmp_path / name, array))
        assert read.dtype == dtype
        np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_1_bit_masks_are_0_and_1(tmp_path, suffix):
    shown = values(np.uint8) > 127
    read = read_labels(save(tmp_path / f"a.{suffix}", shown))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, shown)


def test_masks_of_equal_channels_are_one_channel(tmp_path):
    grey = values(np.uint8) % 3
    full = np.full_like(grey, 255)
    for name, planes in (("rgb", [grey] * 3), ("rgba", [grey] * 3 + [full]), ("la", [grey, full])):
        read = read_labels(save(tmp_path / f"{name}.png", np.stack(planes, 2)))
        np.testing.assert_array_equal(read, grey)
    tifffile.imwrite(tmp_path / "w.tif", np.stack([values(np.uint16)] * 3, 2), photometric="rgb")
    np.testing.assert_array_equal(read_labels(tmp_path / "w.tif"), values(np.uint16))


def test_masks_in_colours_or_with_transparency_are_refused(tmp_path):
    grey = values(np.uint8) % 2
    colours = np.stack([grey * 255, grey * 0, 255 - grey * 255], 2)
    refusal(
        save(tmp_path / "c.png", colours),
        "is a mask in colours (2 of them, such as (0, 0, 255), (255, 0, 0)), and a mask's values are class numbers",
        "replaced by its class's number, counted from 0",
        read=read_labels,
    )
    refusal(save(tmp_path / "a.png", np.stack([grey, grey, grey, grey], 2)), "alpha channel", read=read_labels)
    refusal(save(tmp_path / "la.png", np.stack([grey, grey], 2)), "alpha channel", read=read_labels)
    tifffile.imwrite(tmp_path / "b.tif", np.stack([grey] * 6, 2), photometric="minisblack", planarconfig="contig")
    refusal(tmp_path / "b.tif", "has 6 bands, and a mask has one", read=read_labels)


def test_float_masks_of_whole_numbers_are_read(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", (values(np.uint8) % 4).astype(np.float32))
    read = read_labels(tmp_path / "a.tif")
    assert read.dtype.kind == "i"
    np.testing.assert_array_equal(read, values(np.uint8) % 4)
    for bad in (0.5, np.nan, np.inf):
        tifffile.imwrite(tmp_path / "b.tif", np.full((H, W), bad, np.float32))
        refusal(tmp_path / "b.tif", "holds fractions", read=read_labels)


def test_a_palette_that_shows_0_white_and_1_black_is_refused(tmp_path):
    path = png(tmp_path / "a.png", 8, 1, 1, 3, [bytes([0b10110000])], palette=bytes([255, 255, 255, 0, 0, 0]))
    refusal(path, "value 0 is shown white and whose value 1 is shown black", read=read_labels)
    path = png(tmp_path / "b.png", 8, 1, 1, 3, [bytes([0b10110000])], palette=bytes([0, 0, 0, 255, 255, 255]))
    assert read_labels(path).tolist() == [[1, 0, 1, 1, 0, 0, 0, 0]]


# Channels and depth


def test_fit_channels(tmp_path):
    path = tmp_path / "a.png"
    grey, rgb = values(np.uint8), values(np.uint8, 3)
    np.testing.assert_array_equal(fit_channels(grey, 1, path), grey[..., None])
    np.testing.assert_array_equal(fit_channels(grey, 3, path), np.stack([grey] * 3, 2))
    assert fit_channels(rgb, 3, path) is rgb
    np.testing.assert_array_equal(fit_channels(np.stack([grey] * 3, 2), 1, path), grey[..., None])
    for dtype, full in ((np.uint8, 255), (np.uint16, 65535)):
        opaque = np.dstack([values(dtype, 3), np.full((H, W), full, dtype)])
        np.testing.assert_array_equal(fit_channels(opaque, 3, path), opaque[..., :3])
        assert fit_channels(opaque, 4, path) is opaque
    bands = values(np.uint8, 7)
    assert fit_channels(bands, 7, path) is bands


@pytest.mark.parametrize(
    ("shape", "channels", "words"),
    [
        ((4,), 3, "has four channels, and the network takes 3; its fourth (alpha, or a band) is not constant"),
        ((3,), 1, "is a colour image, and the network takes one channel"),
        ((7,), 3, "has 7 channels, and the network takes 3"),
        ((), 4, "has 1 channel, and the network takes 4"),
        ((3,), 4, "has 3 channels, and the network takes 4"),
    ],
)
def test_fit_channels_refuses_what_would_lose_or_invent(shape, channels, words):
    refusal(
        Path("data/x.png"), words, "input.channels", read=lambda p: fit_channels(values(np.uint8, *shape), channels, p)
    )


def test_16_bits_become_8():
    path = Path("a.tif")
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(to_uint8(ramp, "full_range", path), np.round(ramp / 257).astype(np.uint8))
    dark = ramp[:2] + 100  # 100 to 611
    stretched = to_uint8(dark, "min_max", path)
    assert (stretched.min(), stretched.max()) == (0, 255)
    assert np.abs(stretched - (dark - 100.0) / 511 * 255).max() <= 0.5
    refusal(
        path,
        "is a 16-bit image whose largest value is 611 of 65535: divided by 257, fewer than 16 grey levels",
        "set input.sixteen_bit: min_max",
        read=lambda p: to_uint8(dark, "full_range", p),
    )
    constant = np.full((2, 2), 7, np.uint16)
    assert to_uint8(constant, "min_max", path).tolist() == [[0, 0], [0, 0]]
    assert to_uint8(constant * 0, "full_range", path).max() == 0
    eight = values(np.uint8)
    assert to_uint8(eight, "min_max", path) is eight


# Real files


@pytest.mark.real
@pytest.mark.skipif(not REAL, reason="SEGREG_REAL_DATA is not set")
def test_real_files_of_every_kind():
    root = Path(REAL or "")
    tree = root / "ph2/PH2 Dataset images/IMD057"
    mask = read_labels(tree / "IMD057_lesion/IMD057_lesion.bmp")
    assert mask.shape == read_image(tree / "IMD057_Dermoscopic_Image/IMD057.bmp").shape[:2] == (576, 767)
    assert set(np.unique(mask)) == {0, 1}
    wide = read_image(root / "nonrgb/uint16_instances/images/img2d.tif")
    assert (wide.dtype, wide.shape, wide.max()) == (np.uint16, (512, 512), 235)
    refusal(Path("img2d.tif"), "min_max", read=lambda p: to_uint8(wide, "full_range", p))
    assert read_labels(root / "nonrgb/uint16_instances/masks/img2d.tif").max() == 183
    assert read_image(root / "isbi_em/images/0.png").shape == (512, 512)
    raw = next((root / "dsb2018/raw_sample/stage1_train").iterdir())
    rgba = read_image(next((raw / "images").iterdir()))
    assert rgba.shape[2] == 4
    assert fit_channels(rgba, 3, raw).shape[2] == 3
    assert set(np.unique(read_labels(next((raw / "masks").iterdir())))) == {0, 255}
    assert read_image(root / "isic_native/images/ISIC_0014302.jpg").shape == (2848, 4288, 3)


# Alpha: what the header says


def bands_in_tiff(path, count, extra, dtype=np.uint8, photometric="minisblack", alpha=None):
    array = values(dtype, count)
    if alpha is not None:
        array[..., -1] = alpha
    tifffile.imwrite(path, array, photometric=photometric, planarconfig="contig", extrasamples=extra)
    return array


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("full", [False, True])
def test_two_bands_of_a_tiff_are_two_bands(tmp_path, dtype, full):
    array = bands_in_tiff(tmp_path / "a.tif", 2, [0], dtype, alpha=np.iinfo(dtype).max if full else None)
    read = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(read, array)
    np.testing.assert_array_equal(fit_channels(read, 2, tmp_path / "a.tif"), array)
    error = refusal(tmp_path / "a.tif", "has 2 channels", read=lambda p: fit_channels(read_image(p), 3, p))
    assert "input.channels: 2" in error.problems[0].hint
    assert "input.channels: 4" not in str(error)
    refusal(tmp_path / "a.tif", "has 2 bands", read=read_labels)


@pytest.mark.parametrize("kind", [1, 2])
def test_extra_samples_that_are_alpha_are_alpha(tmp_path, kind):
    array = bands_in_tiff(tmp_path / "ga.tif", 2, [kind], alpha=255)
    np.testing.assert_array_equal(read_image(tmp_path / "ga.tif"), array[..., 0])
    np.testing.assert_array_equal(read_labels(tmp_path / "ga.tif"), array[..., 0])
    array = bands_in_tiff(tmp_path / "soft.tif", 2, [kind])
    np.testing.assert_array_equal(read_image(tmp_path / "soft.tif"), array[..., [0, 0, 0, 1]])
    refusal(tmp_path / "soft.tif", "alpha channel", read=read_labels)
    array = bands_in_tiff(tmp_path / "rgba.tif", 4, [kind], photometric="rgb", alpha=255)
    np.testing.assert_array_equal(fit_channels(array, 3, tmp_path / "rgba.tif"), array[..., :3])
    for count in (3, 5):
        file = tmp_path / f"{count}.tif"
        array = bands_in_tiff(file, count, [0] * (count - 2) + [kind], alpha=255)
        np.testing.assert_array_equal(fit_channels(array, count - 1, file), array[..., :-1])


@pytest.mark.parametrize(("extra", "photometric"), [([0], "rgb"), ([0, 0, 0], "minisblack")])
def test_a_full_fourth_band_is_not_taken_for_alpha(tmp_path, extra, photometric):
    array = bands_in_tiff(tmp_path / "a.tif", 4, extra, photometric=photometric, alpha=255)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), array)
    assert fit_channels(array, 4, tmp_path / "a.tif") is array
    for channels in (1, 3):
        refusal(
            tmp_path / "a.tif",
            "has 4 channels",
            "input.channels: 4",
            read=lambda p, c=channels: fit_channels(array, c, p),
        )
    array[:] = 255
    tifffile.imwrite(tmp_path / "m.tif", array, photometric=photometric, planarconfig="contig", extrasamples=extra)
    refusal(tmp_path / "m.tif", "has 4 bands", read=read_labels)


def test_alpha_of_the_other_formats(tmp_path):
    rgba = values(np.uint8, 4)
    for suffix in ("png", "webp"):
        assert has_alpha(save(tmp_path / f"a.{suffix}", rgba))
        assert not has_alpha(save(tmp_path / f"b.{suffix}", rgba[..., :3]))
    palette = Image.fromarray(rgba[..., 0] % 3, mode="P")
    palette.putpalette([0, 0, 0, 9, 9, 9, 8, 8, 8])
    palette.save(tmp_path / "p.png")
    assert not has_alpha(tmp_path / "p.png")
    palette.save(tmp_path / "t.png", transparency=1)
    assert has_alpha(tmp_path / "t.png")
    assert has_alpha(tmp_path / "nowhere.png") is None
    grey = rgba[..., 0]
    la = save(tmp_path / "la.png", np.stack([grey, np.full_like(grey, 255)], 2))
    assert drops_alpha(read_image(la), 3, la)
    opaque = np.dstack([rgba[..., :3], np.full_like(grey, 255)])
    full = save(tmp_path / "full.png", opaque)
    assert drops_alpha(opaque, 3, full)
    assert not drops_alpha(opaque, 4, full)


@pytest.mark.parametrize("read", [read_image, read_labels])
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_complex_tiffs_are_refused(tmp_path, read, dtype):
    tifffile.imwrite(tmp_path / "a.tif", values(np.uint8).astype(dtype), photometric="minisblack")
    refusal(tmp_path / "a.tif", "holds complex numbers", "magnitude", read=read)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
@pytest.mark.parametrize("read", [read_image, read_labels])
def test_named_pipes_and_devices_are_refused_at_once(tmp_path, read):
    os.mkfifo(tmp_path / "a.png")
    refusal(tmp_path / "a.png", "is a named pipe", read=read)
    refusal(Path("/dev/zero"), "is a device", read=read)
    refusal(tmp_path, "is a folder", read=read)
