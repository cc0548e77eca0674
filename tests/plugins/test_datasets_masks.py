"""Masks of `folder` and `csv`: values and colours as classes, and formats that don't keep class numbers."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import tifffile
from PIL import Image

from segreg.config.sections import Input
from segreg.data.inspection.scan import scan_sample
from segreg.errors import SegregError
from segreg.settings import check_value
from segreg_plugins.datasets.csv_manifest import csv_manifest
from segreg_plugins.datasets.folder import folder
from segreg_plugins.datasets.mask_files import read_values
from segreg_plugins.datasets.mask_values import Values

STREET = {"background": 0, "road": [7, 8], "ignore": [255, -1]}
COLOURS = {"background": [0, 0, 0], "red": [[255, 0, 0], [128, 0, 0]], "ignore": [255, 255, 255]}


@pytest.fixture
def masks(tmp_path):
    """Return a function that writes masks, arrays or functions that are given the file, and the folder's settings."""
    (tmp_path / "i").mkdir()
    (tmp_path / "m").mkdir()

    def write(*files, suffix=".png", **options):
        for old in (tmp_path / "m").iterdir():
            old.unlink()
        for number, values in enumerate(files):
            file = tmp_path / "m" / f"{number}{suffix}"
            if callable(values):
                values(file)
            elif suffix == ".tif":
                tifffile.imwrite(file, values, **options)
            else:
                Image.fromarray(values).save(file, **options)
            Image.new("RGB", (2, 2)).save(tmp_path / "i" / f"{number}.png")
        return {"images": tmp_path / "i", "masks": tmp_path / "m"}

    return write


def array(*rows, dtype=np.uint8):
    return np.array(rows, dtype)


def read(settings, index=0, **more):
    dataset = pickle.loads(pickle.dumps(folder(**settings, **more)))
    labels = dataset.read_mask(dataset.samples[index])
    assert labels.dtype == np.uint8
    return labels.tolist()


def refusal(*words, settings, **more):
    with pytest.raises(SegregError) as caught:
        read(settings, **more)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    return caught.value


def paletted(indices, *colours):
    """Return a function that writes a mask with a palette."""

    def write(file):
        image = Image.fromarray(np.array(indices, np.uint8)).convert("P")
        image.putpalette([value for colour in colours for value in colour])
        image.putdata(np.array(indices, np.uint8).ravel().tolist())
        image.save(file)

    return write


# values


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32])
def test_values_of_any_type_are_classes(masks, dtype):
    settings = masks(array([0, 7, 8], [255, -1, 0], dtype=dtype), suffix=".tif")
    assert read(settings, values=STREET) == [[0, 1, 1], [255, 255, 0]]
    dataset = folder(**settings, values=STREET)
    assert (dataset.task.classes, dataset.task.mode) == (("background", "road"), "multiclass")


def test_large_values_fractions_ranges_and_nan_are_classes(masks):
    table = {"low": "-5--1", "high": [70_000, "1000-1010"], "half": [0.1, "0.5-0.75"], "ignore": float("nan")}
    values = array([-5, -1, 70_000, 1000, 1010], [0.1, 0.5, 0.75, np.nan, -2], dtype=np.float32)
    assert read(masks(values, suffix=".tif"), values=table) == [[0, 0, 1, 1, 1], [2, 2, 2, 255, 0]]
    whole = {name: table[name] for name in ("low", "high")}
    assert read(masks(values[:1].astype(np.int32), suffix=".tif"), values=whole) == [[0, 0, 1, 1, 1]]


def test_254_classes_of_values_that_are_no_class_numbers(masks):
    table = {f"c{n}": 1000 * n for n in range(254)} | {"ignore": 1}
    settings = masks(array([0, 1000], [253_000, 1], dtype=np.int32), suffix=".tif")
    assert read(settings, values=table) == [[0, 1], [253, 255]]


def test_a_zero_that_counts_for_nothing(masks):
    settings = masks(array([0, 1], [2, 3]))
    assert read(settings, values={"wall": 1, "floor": 2, "sky": 3, "ignore": 0}) == [[255, 0], [1, 2]]


def test_the_order_is_that_of_classes_where_they_are_given(masks):
    settings = masks(array([0, 7], [9, 0]))
    values = {"a": 0, "b": 7, "c": 9}
    assert read(settings, values=values) == [[0, 1], [2, 0]]
    assert read(settings, values=values, classes=("c", "a", "b")) == [[1, 2], [0, 1]]
    refusal('values has no "d"', 'classes has no "c"', settings=settings, values=values, classes=("a", "b", "d"))


def test_one_class_and_background_are_a_binary_task(masks):
    settings = masks(array([0, 128], [255, 3]))
    values = {"background": [0, 3], "lesion": [128, 255]}
    assert read(settings, values=values, classes=("lesion",)) == [[0, 1], [1, 0]]
    assert folder(**settings, values=values, classes=("lesion",)).task.mode == "binary"
    refusal('values has no "background"', settings=settings, values={"lesion": 255}, classes=("lesion",))
    refusal("names fewer than two classes", settings=settings, values={"lesion": 255})


def test_a_value_without_a_class_is_refused_with_its_pixels(masks):
    settings = masks(array([0, 7, 9], [9, 9, 30]))
    refusal(
        f"{settings['masks']}/0.png: holds values that no class has, in 4 of 6 pixels: 9 (3 pixels) and 30 (1 pixel)",
        "under its class or under ignore",
        settings=settings,
        values=STREET,
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"a": 0, "b": "7"}, 'values.b: "7" is not a range'),
        ({"a": 0, "b": "9-7"}, 'values.b: "9-7" is not a range'),
        ({"a": 0, "b": [1, 0]}, "values: 0 is given to a and b"),
        ({"a": "0-9", "b": 3, "c": "9-10"}, "values: 9 to 10 is given to a and c"),
        ({"a": [0, 0], "b": 3}, "values: 0 is given to a twice"),
        ({"a": [0, float("nan")], "b": [1, float("nan")]}, "values: nan is given to b, and not for the first time"),
        ({"a": 0, "b": []}, "values.b: is empty"),
        ({"a": 0, "b": [[1, 2, 3]]}, "values.b: [1, 2, 3] is among values"),
        ({"a": [0, 0, 0], "b": [[1, 2]]}, "values.b: [1, 2] is among values"),
        ({"a": [0, 0, 0], "b": [[0, 0, 0], [1, 1, 1]]}, "values: (0, 0, 0) is given to a and b"),
    ],
)
def test_settings_that_make_no_sense_are_refused(masks, values, words):
    refusal(words, settings=masks(array([0, 1])), values=values)


def test_values_say_what_foreground_and_ignore_index_say_elsewhere(masks):
    settings = masks(array([0, 7]))
    refusal("ignore_index: 255: values says", "ignore: [255, -1]", settings=settings, values=STREET, ignore_index=255)
    refusal("foreground: nonzero: values says", settings=settings, values=STREET, foreground="nonzero")
    refusal("mask_channel: 0 has one value a pixel", settings=settings, values=COLOURS, mask_channel=0)


def test_a_recipe_can_hold_values():
    everything = {"a": 0, "b": [1, -2, "3-4", 0.5], "c": [[1, 2, 3]], "ignore": float("nan")}
    assert list(check_value(Values, everything)) == list(everything)
    for wrong in ({"a": True}, {"a": None}, {"a": {"b": 1}}, [0, 1]):
        with pytest.raises(ValueError, match="must be a mapping of names to values"):
            check_value(Values, wrong)


def test_negative_ignore_index(masks):
    settings = masks(array([0, -1], [1, 0], dtype=np.int16), suffix=".tif")
    assert read(settings, classes=("ground", "burnt"), ignore_index=-1) == [[0, 255], [1, 0]]
    assert read(settings, classes=("burnt",), ignore_index=-1) == [[0, 255], [1, 0]]


def test_a_table_has_the_same_settings(masks, tmp_path):
    masks(array([0, 7], [8, 255]))
    (tmp_path / "t.csv").write_text("image,mask\ni/0.png,m/0.png\n")
    dataset = csv_manifest(manifest=tmp_path / "t.csv", values=STREET)
    assert dataset.read_mask(dataset.samples[0]).tolist() == [[0, 1], [1, 255]]


# colours and channels


def test_colours_are_classes(masks):
    pixels = array([[0, 0, 0], [255, 0, 0]], [[128, 0, 0], [255, 255, 255]])
    assert read(masks(pixels), values=COLOURS) == [[0, 1], [1, 255]]
    full = np.dstack([pixels, np.full((2, 2), 255, np.uint8)])
    assert read(masks(full), values=COLOURS) == [[0, 1], [1, 255]]
    assert read(masks(pixels.astype(np.uint16), suffix=".tif", photometric="rgb"), values=COLOURS)[0] == [0, 1]


def test_a_colour_without_a_class_is_refused(masks):
    settings = masks(array([[0, 0, 0], [0, 9, 0]]))
    refusal("0.png: holds colours", "1 of 2 pixels: (0, 9, 0) (1 pixel)", settings=settings, values=COLOURS)
    refusal("values as a range", settings=masks(array([0, 1])), values={"a": [0, 0, 0], "b": [1, 2, 3]})


def test_fractions_are_no_colours(masks):
    red = np.zeros((2, 2, 3), np.float32)
    red[..., 0] = 254.9
    refusal("0.tif: holds fractions", settings=masks(red, suffix=".tif", photometric="rgb"), values=COLOURS)
    assert read(masks(red.round(), suffix=".tif", photometric="rgb"), values=COLOURS) == [[1, 1], [1, 1]]


def test_palettes_do_not_matter_where_a_channel_has_the_values(masks):
    settings = masks(
        paletted([[0, 1]], (0, 0, 0), (255, 0, 0)), paletted([[0, 1]], (0, 0, 0), (255, 255, 0)),
    )  # fmt: skip
    assert read(settings, 1, values={"a": 0, "b": 255}, mask_channel="red") == [[0, 1]]


def test_one_channel_of_a_colour_mask(masks):
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[..., 0], pixels[..., 1] = [[0, 7], [8, 0]], 99
    settings = masks(pixels)
    for channel in ("red", 0):
        assert read(settings, values=STREET, mask_channel=channel) == [[0, 1], [1, 0]]
    assert read(settings, foreground="nonzero", mask_channel="green") == [[1, 1], [1, 1]]
    refusal("has 4 channels, and mask_channel is 4", settings=settings, values=STREET, mask_channel=4)
    refusal("has 1 channel, and mask_channel is red", settings=masks(array([0, 1])), mask_channel="red")
    refusal("mask_channel: -1 is below 0", settings=settings, mask_channel=-1)
    one_bit = masks(np.array([[False, True]]))  # whose 1 stays 1: 255 would be ignored
    assert read(one_bit, classes=("a", "b", "c"), mask_channel=0) == [[0, 1]]


# formats that don't keep class numbers


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_lossy_class_masks_are_refused(masks, suffix):
    settings = masks(array([0, 1], [2, 0]), suffix=suffix)
    name = "JPEG" if suffix == ".jpg" else "lossy WebP"
    for more in ({"classes": ("a", "b", "c")}, {"values": STREET}, {"foreground": "nonzero"}):
        refusal(f"0{suffix}: is a {name}, which stores values near", "save the masks as PNG", settings=settings, **more)
    refusal("foreground: above_127", settings=settings, foreground="nonzero")


def test_a_lossless_webp_is_a_mask(masks):
    pixels = np.repeat(array([0, 1], [2, 0])[..., np.newaxis], 3, axis=2)
    assert read(masks(pixels, suffix=".webp", lossless=True), classes=("a", "b", "c")) == [[0, 1], [2, 0]]


def test_a_jpeg_of_two_values_is_cut_where_a_setting_says_so(masks):
    pixels = np.zeros((16, 16), np.uint8)
    pixels[3:9, 5:12] = 255
    settings = masks(pixels, suffix=".jpg", quality=60)
    refusal("set foreground: above_127", settings=settings)
    assert read(settings, foreground="above_127") == (pixels > 127).tolist()


def test_tiffs_compressed_by_jpeg_and_jpeg_2000_are_refused(masks):
    def jpeg_in_tiff(file):
        Image.fromarray(array([0, 1])).save(file, compression="jpeg")

    def jpeg_2000(file):
        Image.fromarray(array([0, 1])).save(file, format="JPEG2000")

    refusal("is a TIFF compressed by JPEG", settings=masks(jpeg_in_tiff, suffix=".tif"), classes=("a", "b"))
    refusal("0.png: is a JPEG 2000", settings=masks(jpeg_2000), classes=("a", "b"))


def test_gif_class_masks_are_refused_unless_their_indices_or_colours_count(masks):
    red = paletted([[0, 1], [1, 0]], (0, 0, 0), (255, 0, 0))
    settings = masks(red, suffix=".gif")
    for more in ({"classes": ("a", "b")}, {"values": {"a": 0, "b": 1}}):
        refusal("0.gif: is a GIF", "save the masks as PNG", "palette: indices", settings=settings, **more)
    assert read(settings, values=COLOURS) == [[0, 1], [1, 0]]
    assert len(read(settings, classes=("a", "b"), palette="indices")) == 2


def test_palettes_that_differ_are_refused(masks):
    settings = masks(
        paletted([[0, 1]], (0, 0, 0), (255, 0, 0)),
        paletted([[0, 0]], (0, 0, 0), (9, 9, 9)),
        paletted([[0, 1]], (0, 0, 0), (0, 255, 0)),
    )
    where = settings["masks"]
    error = refusal(
        f"masks: the index 1 is the colour (255, 0, 0) in {where}/0.png, and (0, 255, 0) in {where}/2.png",
        "palette: indices",
        settings=settings,
        classes=("a", "b", "c"),
    )
    assert "values: {background: [0, 0, 0], one: [255, 0, 0], other: [0, 255, 0]}" in str(error)
    assert read(settings, 2, classes=("a", "b", "c"), palette="indices") == [[0, 1]]
    values = COLOURS | {"green": [0, 255, 0]}
    assert read(settings, 2, values=values) == [[0, 2]]


def test_palettes_may_differ_where_no_pixel_is(masks):
    settings = masks(
        paletted([[0, 1]], (0, 0, 0), (255, 0, 0), (1, 2, 3)), paletted([[0, 1]], (0, 0, 0), (255, 0, 0), (3, 2, 1))
    )
    assert read(settings, 1, classes=("a", "b")) == [[0, 1]]


def test_grey_levels_count_where_an_encoder_made_a_palette_of_them(masks):
    settings = masks(
        paletted([[0, 1, 2]], (2, 2, 2), (0, 0, 0), (1, 1, 1)), paletted([[0, 1, 0]], (1, 1, 1), (2, 2, 2))
    )
    classes = ("a", "b", "c")
    assert read(settings, 0, classes=classes) == [[2, 0, 1]]
    assert read(settings, 1, classes=classes) == [[1, 2, 1]]
    assert read(settings, 1, values={"a": 1, "b": 2, "c": 0}) == [[0, 1, 0]]
    assert read(settings, 0, classes=classes, palette="indices") == [[0, 1, 2]]
    readers = {folder(**settings, classes=classes, palette=palette).reader for palette in ("auto", "indices")}
    assert len(readers) == 2


def test_two_classes_in_black_and_white_are_the_indices_0_and_1(masks):
    black, white = (0, 0, 0), (255, 255, 255)
    settings = masks(
        paletted([[0, 1]], black, white), paletted([[0, 0]], black), paletted([[1, 0]], black, white, *[black] * 254)
    )
    assert read(settings, 0, classes=("ground", "lake")) == [[0, 1]]
    assert read(settings, 2, classes=("ground", "lake")) == [[1, 0]]
    assert read(settings, 1, classes=("ground", "lake")) == [[0, 0]]
    assert read(settings, 0, classes=("lake",)) == [[0, 1]]
    assert read(settings, 0, values={"ground": 0, "lake": 255}) == [[0, 1]]
    assert read(settings, 0, classes=("ground", "lake"), ignore_index=255) == [[0, 255]]
    assert read(settings, 0, classes=("ground", "lake", "sea")) == [[0, 255]]


def test_greys_among_colours_are_indices(masks):
    settings = masks(paletted([[0, 1]], (255, 255, 255), (255, 0, 0)), paletted([[0, 0]], (255, 255, 255)))
    assert read(settings, 1, classes=("a", "b")) == [[0, 0]]


# what the header says


def test_pages_bands_and_complex_numbers_are_named(masks):
    def bands(file):
        tifffile.imwrite(file, np.zeros((2, 3, 2), np.uint8), photometric="minisblack", planarconfig="contig")

    pages = np.stack([array([0, 1]), array([1, 0])])
    refusal("0.tif: holds 2 pages, and a mask has one", settings=masks(pages, suffix=".tif"))
    complex_ = array([0, 1], dtype=np.complex64)
    refusal("0.tif: holds complex numbers", settings=masks(complex_, suffix=".tif"))
    settings = masks(bands, suffix=".tif")
    refusal("0.tif: has 2 bands, and a mask has one", "mask_channel", settings=settings)
    assert read(settings, mask_channel=1) == [[0, 0, 0], [0, 0, 0]]


def test_transparency_is_named_by_the_files_mode(masks):
    for mode in ("LA", "RGBA"):
        settings = masks(lambda file, mode=mode: Image.new(mode, (2, 2)).save(file))
        refusal("0.png: has an alpha channel that is not full", settings=settings)


def test_a_tiff_of_one_page_with_an_overview_is_one_mask(masks):
    def pyramid(file):
        with tifffile.TiffWriter(file) as writer:
            writer.write(array([0, 1, 1, 0]), subifds=1)
            writer.write(array([0, 1]), subfiletype=1)

    def flat_pyramid(file):
        with tifffile.TiffWriter(file) as writer:
            writer.write(array([0, 1, 1, 0]))
            writer.write(array([0, 1]), subfiletype=1)

    for write in (pyramid, flat_pyramid):
        assert read(masks(write, suffix=".tif")) == [[0, 1, 1, 0]]


def test_floats_are_read_upright_and_by_channel(masks):
    values = array([0, 1], [0.5, 1], dtype=np.float32)
    turned = [(274, 3, 1, 3, False)]
    settings = masks(values, suffix=".tif", extratags=turned)
    assert read_values(settings["masks"] / "0.tif").tolist() == [[1, 0.5], [1, 0]]
    refusal("holds fractions", "set values", settings=settings, classes=("a", "b"))
    settings = masks(np.stack([values] * 3), suffix=".tif", photometric="rgb", planarconfig="separate")
    assert read(settings, values={"a": 0, "b": 1, "c": 0.5}, mask_channel="green") == [[0, 1], [2, 1]]


# Exif


def oriented(file, orientation, size=(6, 4)):
    """Write an image or a mask, `size` wide and high as stored."""
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    if file.suffix == ".tif":
        tifffile.imwrite(file, np.zeros(size[::-1], np.uint8), extratags=[(274, 3, 1, orientation or 1, False)])
    else:
        Image.new("L", size).save(file, exif=exif)


@pytest.fixture
def pair(tmp_path):
    """Return a function that writes an image and its mask with Exif orientations, and reads the mask."""

    def write(turn, mask_turn, size=(6, 4), mask_size=(6, 4), suffixes=(".jpg", ".png")):
        for name, suffix, orientation, shape in zip("im", suffixes, (turn, mask_turn), (size, mask_size), strict=True):
            (tmp_path / name).mkdir(exist_ok=True)
            for old in (tmp_path / name).iterdir():
                old.unlink()
            oriented(tmp_path / name / f"0{suffix}", orientation, shape)
        dataset = folder(images=tmp_path / "i", masks=tmp_path / "m")
        image, labels = dataset.read_image(dataset.samples[0]), dataset.read_mask(dataset.samples[0])
        assert image.shape == labels.shape
        return labels.shape

    return write


@pytest.mark.parametrize("suffixes", [(".jpg", ".png"), (".png", ".tif"), (".tif", ".png"), (".webp", ".png")])
def test_exif_that_only_one_of_image_and_mask_has(pair, tmp_path, suffixes):
    files = [str(tmp_path / name / f"0{suffix}") for name, suffix in zip("im", suffixes, strict=True)]
    for turn, mask_turn, size, words in (
        (6, None, (6, 4), ("has the Exif orientation 6", "has no Exif orientation", "they fit only unturned")),
        (None, 8, (6, 4), ("has no Exif orientation", "has the Exif orientation 8", "they fit only unturned")),
        (3, None, (6, 4), ("has the Exif orientation 3", "fit either way", "mogrify -auto-orient")),
        (6, None, (4, 4), ("has the Exif orientation 6", "fit either way", "exiftool -Orientation=")),
    ):
        with pytest.raises(SegregError) as caught:
            pair(turn, mask_turn, size, size, suffixes)
        assert all(word in str(caught.value) for word in (*files, *words)), str(caught.value)


def test_exif_that_leaves_no_doubt(pair):
    assert pair(None, 1) == (4, 6)
    assert pair(6, 6) == (6, 4)
    assert pair(6, None, mask_size=(4, 6)) == (6, 4)
    assert pair(3, 3, suffixes=(".png", ".tif")) == (4, 6)


def test_the_data_check_names_both_files(tmp_path):
    for name, orientation in (("i", 6), ("m", None)):
        (tmp_path / name).mkdir()
        oriented(tmp_path / name / "0.png", orientation)
    dataset = folder(images=tmp_path / "i", masks=tmp_path / "m")
    (fault,) = scan_sample(dataset, Input(size=(32, 32), channels=1), 0).faults
    assert all(str(tmp_path / name / "0.png") in fault.message for name in "im")
