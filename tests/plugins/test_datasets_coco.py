"""The dataset `coco`: both RLE forms, polygons, and every oddity of real exports."""

from __future__ import annotations

import json
import os
import pickle
import random
from array import array
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import segreg
import tiny_runs
from segreg.config.recipe import shipped_recipe
from segreg.config.sections import Split
from segreg.data.split import divide
from segreg.errors import SegregError
from segreg.registry.protocols import Objects
from segreg_plugins.datasets.coco import coco
from segreg_plugins.datasets.polygons import fate_of, polygon_area, polygon_window
from segreg_plugins.datasets.rle import counts_of, pixels_of

REAL = os.environ.get("SEGREG_REAL_DATA")
needs_real = pytest.mark.skipif(not REAL, reason="SEGREG_REAL_DATA is not set")
cocos_own_tools = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
SQUARE = [[2, 1, 6, 1, 6, 4, 2, 4]]
"""Columns 2 to 5 of rows 1 to 3."""


def export(folder: Path, annotations, *, images=None, categories=None, size=(8, 10), file="_annotations.coco.json"):
    """Write an annotation file and its images, (height, width) `size`, all named in `images`."""
    folder.mkdir(parents=True, exist_ok=True)
    images = [{"id": 1, "file_name": "a.jpg", "height": size[0], "width": size[1]}] if images is None else images
    for image in images:
        if "file_name" in image:
            Image.new("RGB", (size[1], size[0])).save(folder / image["file_name"])
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}] if categories is None else categories
    filled = [{"id": n, "image_id": 1, "category_id": 1, "iscrowd": 0} | a for n, a in enumerate(annotations)]
    (folder / file).write_text(json.dumps({"images": images, "annotations": filled, "categories": categories}))
    return folder


def image(number, name=None, size=(8, 10)):
    return {"id": number, "file_name": name or f"{number}.jpg", "height": size[0], "width": size[1]}


def all_masks(**settings) -> list[np.ndarray]:
    dataset = coco(**settings)
    return [dataset.read_mask(sample) for sample in dataset.samples]


def refusal(*words: str, **settings) -> SegregError:
    with pytest.raises(SegregError) as caught:
        all_masks(**settings)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    return caught.value


def drawn(root: Path, index=0, **settings) -> np.ndarray:
    dataset = coco(root=root, **settings)
    return dataset.read_mask(dataset.samples[index])


def block(rows, columns, value=1, size=(8, 10)):
    mask = np.zeros(size, np.uint8)
    mask[rows, columns] = value
    return mask


# Run-length encoding


def encoded(counts):
    """The compressed form of counts, as the format's definition reads: an independent way there."""
    text = ""
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        while True:
            piece, value = value & 31, value >> 5
            done = value == (-1 if piece & 16 else 0)
            text += chr(48 + (piece if done else piece | 32))
            if done:
                break
    return text


def plain_decode(counts, size):
    """Pixel by pixel, in plain Python."""
    height, width = size
    mask = [[0] * width for _ in range(height)]
    position, value = 0, 0
    for count in counts:
        for _ in range(count):
            mask[position % height][position // height] = value
            position += 1
        value = 1 - value
    return mask


def counts_from(mask):
    """The counts of a mask, pixel by pixel."""
    counts, value = [0], 0
    for pixel in mask.T.ravel():
        if pixel != value:
            counts.append(0)
            value = 1 - value
        counts[-1] += 1
    return counts


def test_known_masks():
    assert counts_of("") == []
    assert counts_of("0") == [0]
    assert counts_of("03") == [0, 3]
    assert counts_of("52203") == [5, 2, 2, 2, 5]  # 2 + 0 and 2 + 3: from the third count on the one two before is added
    assert counts_of("PT1") == [1152]  # 4 * 32 + 1 * 1024, in three pieces
    assert pixels_of([1, 2, 1, 1, 1], (2, 3)).astype(int).tolist() == [[0, 1, 1], [1, 0, 0]]


def test_compressed_masks_are_decoded_as_they_were_encoded():
    dice = random.Random(3)
    for _ in range(300):
        counts = [dice.choice([0, 1, 2, 15, 16, 31, 32, 1023, 1024, 10**6]) for _ in range(dice.randrange(1, 12))]
        assert counts_of(encoded(counts)) == counts


def test_masks_equal_those_of_a_plain_decoder():
    noise = np.random.default_rng(0)
    for height, width in ((1, 1), (7, 5), (5, 7), (64, 33)):
        mask = (noise.random((height, width)) < 0.4).astype(int)
        counts = counts_from(mask)
        assert plain_decode(counts, (height, width)) == mask.tolist()
        np.testing.assert_array_equal(pixels_of(counts, (height, width)), mask == 1)
        np.testing.assert_array_equal(pixels_of(counts_of(encoded(counts)), (height, width)), mask == 1)


@cocos_own_tools
def test_masks_equal_those_of_cocos_own_tools():
    tools = pytest.importorskip("pycocotools.mask")
    noise = np.random.default_rng(1)
    for share in (0.0, 0.01, 0.5, 1.0):
        mask = np.asfortranarray(noise.random((120, 77)) < share, dtype=np.uint8)
        mask[40:90, 20:60] ^= 1
        text = tools.encode(mask)["counts"].decode()
        counts = counts_from(mask)
        assert counts_of(text) == counts
        assert encoded(counts) == text
        np.testing.assert_array_equal(pixels_of(counts_of(text), mask.shape), mask == 1)


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        ({"counts": [1, 2], "size": [8, 10]}, "its mask's runs add up to 3 pixels, and 8x10 (height x width) are 80"),
        ({"counts": [-1, 81], "size": [8, 10]}, "its mask has a run of -1 pixels"),
        ({"counts": "0~", "size": [8, 10]}, "its compressed mask holds '~' at character 2"),
        ({"counts": "0P", "size": [8, 10]}, "its compressed mask breaks off inside a number"),
        ({"counts": [80], "size": [10, 8]}, "its mask is 10x8, and its image 8x10 (height x width)"),
        ({"counts": [80], "size": 80}, "its mask's size is 80, and [height, width] was expected"),
        ({"counts": [0.5], "size": [8, 10]}, "its mask's counts are neither a string nor a list of integers"),
    ],
)
def test_damaged_masks_are_refused_by_name(tmp_path, mask, says):
    export(tmp_path, [{"id": 7, "segmentation": mask}])
    refusal(f"{tmp_path}/_annotations.coco.json: annotation 7 (", "a.jpg): ", says, root=tmp_path)


# Polygons


def filled(points, size=(8, 10)):
    mask = np.zeros(size, int)
    if window := polygon_window(np.array(points, float).reshape(-1, 2), size):
        mask[window.rows, window.columns][window.inside] = 1
    return mask


def crossings(points, x, y):
    """Whether a point is inside, by counting crossings of a ray to its left, one edge at a time."""
    inside = False
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        if (y0 > y) != (y1 > y) and x0 + (y - y0) / (y1 - y0) * (x1 - x0) < x:
            inside = not inside
    return inside


def test_a_square_has_its_own_area():
    assert filled(SQUARE).tolist() == block(slice(1, 4), slice(2, 6)).tolist()
    assert filled([2.5, 1.5, 6.5, 1.5, 6.5, 4.5, 2.5, 4.5]).sum() == 12
    assert filled([2.6, 1.6, 2.9, 1.6, 2.9, 1.9]).sum() == 0  # no pixel's centre lies in it


@pytest.mark.parametrize("seed", range(20))
def test_any_polygon_has_the_pixels_whose_centres_lie_in_it(seed):
    dice = np.random.default_rng(seed)
    size = (23, 31)
    points = dice.uniform(-12, 40, (int(dice.integers(3, 12)), 2))  # crossing itself and the borders
    expected = [[crossings(points.tolist(), c + 0.5, r + 0.5) for c in range(size[1])] for r in range(size[0])]
    np.testing.assert_array_equal(filled(points, size), np.array(expected, int))


def test_neighbours_neither_overlap_nor_leave_a_gap():
    dice = np.random.default_rng(4)
    for _ in range(50):
        centre = dice.uniform(5, 25, 2)
        corners = np.array([[0, 0], [30, 0], [30, 30], [0, 30]], float)
        fan = sum(filled([*corners[n], *corners[(n + 1) % 4], *centre], (30, 30)) for n in range(4))
        assert (fan == 1).all()


def test_areas_are_those_of_the_outlines():
    dice = np.random.default_rng(5)
    angles = np.sort(dice.uniform(0, 2 * np.pi, 40))
    for radius in (12.3, 60.0, 140.0):
        points = np.stack([150 + radius * np.cos(angles), 150 + radius * np.sin(angles)], 1)
        assert filled(points, (300, 300)).sum() == pytest.approx(polygon_area(points), rel=4 / radius)
    assert polygon_area(np.array(SQUARE).reshape(-1, 2)) == 12


@cocos_own_tools
def test_polygons_equal_those_of_cocos_own_tools_but_for_borders():
    tools = pytest.importorskip("pycocotools.mask")
    dice = np.random.default_rng(6)
    for _ in range(20):
        angles = np.sort(dice.uniform(0, 2 * np.pi, 12))
        points = np.stack([60 + 45 * np.cos(angles), 50 + 60 * np.sin(angles)], 1)
        theirs = tools.decode(tools.frPyObjects([points.ravel().tolist()], 100, 120))[..., 0]
        ours = filled(points, (100, 120))
        # Theirs rounds corners to a fifth of a pixel, so pixels of the border may differ, and none inside.
        differing = np.argwhere(theirs != ours)
        ends = np.roll(points, -1, axis=0)
        for row, column in differing:
            centre = np.array([column + 0.5, row + 0.5])
            along = np.clip(((centre - points) * (ends - points)).sum(1) / ((ends - points) ** 2).sum(1), 0, 1)
            assert np.linalg.norm(points + along[:, None] * (ends - points) - centre, axis=1).min() < 0.3
        assert len(differing) < 0.02 * theirs.sum()


def test_pillow_draws_borders_too():
    """Why not Pillow: its polygons hold every pixel that an edge touches."""
    image = Image.new("1", (10, 8))
    ImageDraw.Draw(image).polygon(SQUARE[0], fill=1)
    assert (np.array(image).sum(), filled(SQUARE).sum()) == (20, 12)


# Outlines of all forms


def test_polygons_with_several_parts_flat_lists_and_both_run_lengths(tmp_path):
    counts = counts_from(block(slice(1, 4), slice(2, 6)))
    forms = [
        SQUARE,
        SQUARE[0],
        [[2, 1, 4, 1, 4, 4, 2, 4], [4.0, 1, 6, 1, 6, 4, 4, 4]],
        [[2, 1, 5, 1, 5, 4, 2, 4], [3, 1, 6, 1, 6, 4, 3, 4], [9, 9]],  # overlapping parts are united
        {"counts": counts, "size": [8, 10]},
        {"counts": encoded(counts), "size": [8, 10]},
    ]
    for number, form in enumerate(forms):
        root = export(tmp_path / str(number), [{"segmentation": form}])
        np.testing.assert_array_equal(drawn(root), block(slice(1, 4), slice(2, 6)))


def test_what_lies_outside_is_cut_off(tmp_path):
    export(
        tmp_path, [{"segmentation": [[-5, -5, 3, -5, 3, 2.2, -5, 2.2]]}, {"segmentation": [[50, 50, 60, 50, 60, 60]]}]
    )
    np.testing.assert_array_equal(drawn(tmp_path), block(slice(0, 2), slice(0, 3)))


def test_images_without_annotations_are_background(tmp_path):
    export(tmp_path, [{"segmentation": SQUARE, "image_id": 2}], images=[image(1), image(2)])
    assert not drawn(tmp_path, 0).any()
    assert drawn(tmp_path, 1).any()


def test_annotations_without_an_outline_are_refused_unless_reported_what_they_are(tmp_path):
    bare = [
        {"segmentation": [], "bbox": [2, 1, 4, 3.0]},
        {"bbox": [0, 6, 2, 2]},
        {"segmentation": [[]]},
        {"segmentation": [[1, 1, 5, 5]], "bbox": [0, 0, 0, 0]},  # two points
        {"segmentation": [[3, 0, 8, 0, 8, 1, 3, 1]]},
    ]
    export(tmp_path, bare)
    error = refusal(
        f"{tmp_path}/_annotations.coco.json: 4 of 5 annotations have no outline, 2 of them a box: "
        "annotation 0 in a.jpg, annotation 1 in a.jpg, annotation 2 in a.jpg and 1 more",
        "set boxes: ignore (pixels in the box count for nothing), draw",
        root=tmp_path,
    )
    assert len(error.problems) == 1
    line = block(slice(0, 1), slice(3, 8))
    np.testing.assert_array_equal(drawn(tmp_path, boxes="skip"), line)
    boxes = block(slice(1, 4), slice(2, 6)) + block(slice(6, 8), slice(0, 2))
    np.testing.assert_array_equal(drawn(tmp_path, boxes="draw"), line + boxes)
    np.testing.assert_array_equal(drawn(tmp_path, boxes="ignore"), line + 255 * boxes)


def test_what_is_not_drawn_needs_no_outline(tmp_path):
    export(tmp_path, [{"segmentation": SQUARE}, {"category_id": 2, "bbox": [0, 6, 2, 2]}])
    mask = drawn(tmp_path, classes=("cat",), others="background")
    np.testing.assert_array_equal(mask, block(slice(1, 4), slice(2, 6)))
    refusal("1 of 2 annotations have no outline", root=tmp_path, classes=("cat",), others="ignore")


def test_crowds(tmp_path):
    whole = {"counts": [0, 80], "size": [8, 10]}
    export(tmp_path, [{"segmentation": SQUARE}, {"segmentation": whole, "iscrowd": 1, "category_id": 2}])
    square = block(slice(1, 4), slice(2, 6))
    np.testing.assert_array_equal(drawn(tmp_path), np.where(square == 1, 1, 255))
    np.testing.assert_array_equal(drawn(tmp_path, crowd="skip"), square)
    np.testing.assert_array_equal(drawn(tmp_path, crowd="draw"), np.where(square == 1, 1, 2))
    np.testing.assert_array_equal(drawn(tmp_path, crowd="draw", overlap="file_order"), np.full((8, 10), 2))
    layers = drawn(tmp_path, mode="multilabel")
    np.testing.assert_array_equal(layers, [square, np.full((8, 10), 255)])


CVAT = {
    "licenses": [{"name": "", "id": 0, "url": ""}],
    "info": {"contributor": "", "date_created": "", "description": "", "url": "", "version": "", "year": ""},
}
BRUSH = {"segmentation": {"counts": [0, 16, 64], "size": [8, 10]}, "iscrowd": 1}
"""The first two columns."""


def cvat(folder, annotations, *, more=CVAT, file="instances_default.json"):
    root = export(folder, annotations, file=file)
    content = json.loads((root / file).read_text())
    (root / file).write_text(json.dumps(more | content))
    return root


@pytest.mark.parametrize(
    ("more", "file", "own"),
    [
        ({}, "instances_default.json", {}), (CVAT, "instances_Train.json", {}),
        ({}, "labels.json", {"attributes": {"occluded": False}}),
        (CVAT, "instances_default.json", {"segmentation": {"counts": encoded([0, 16, 64]), "size": [8, 10]}}),
    ],
)  # fmt: skip
def test_masks_of_cvat_are_objects_though_it_calls_them_crowds(tmp_path, more, file, own):
    outline = {"segmentation": [[5, 1, 9, 1, 9, 4, 5, 4]]}
    marked = {"segmentation": [[5, 5, 9, 5, 9, 7, 5, 7]], "iscrowd": 1}  # by hand: a polygon
    root = cvat(tmp_path, [outline, BRUSH | own, marked], more=more, file=file)
    drawn_all = block(slice(1, 4), slice(5, 9)) + block(slice(None), slice(0, 2))
    crowd = block(slice(5, 7), slice(5, 9), 255)
    np.testing.assert_array_equal(drawn(root), drawn_all + crowd)
    objects = coco(root=root).objects
    assert (objects.total, objects.ignored) == (3, {"iscrowd is 1; `crowd: draw` draws them": 1})
    (note,) = objects.notes
    assert note.startswith(f"all 1 masks of {file} have iscrowd 1, as CVAT writes it")
    ignoring = coco(root=root, crowd="ignore")
    assert ignoring.objects == Objects(3, {"iscrowd is 1; `crowd: draw` draws them": 2}, {}, 0, [])
    assert (ignoring.read_mask(ignoring.samples[0])[:, :2] == 255).all()
    assert ignoring.reader != coco(root=root).reader


@pytest.mark.parametrize(
    ("more", "file", "others"),
    [
        (CVAT, "instances_default.json", [BRUSH | {"iscrowd": 0, "category_id": 2}]),  # it makes a difference
        ({"info": {"description": "COCO 2017 Dataset", "year": 2017}}, "instances_default.json", []),
        ({}, "instances_train2017.json", []),
    ],
)
def test_crowds_of_others_stay_crowds(tmp_path, more, file, others):
    root = cvat(tmp_path, [{"segmentation": SQUARE}, BRUSH, *others], more=more, file=file)
    assert coco(root=root).objects.ignored == {"iscrowd is 1; `crowd: draw` draws them": 1}
    assert coco(root=root).objects.notes == []


def test_what_no_mask_shows_is_counted(tmp_path):
    shapes = [
        SQUARE, [[20, 1, 24, 1, 24, 4]], [[8, 1, 14, 1, 14, 4, 8, 4]], [[9, 1, 10.9, 1, 10.9, 4]],
        [[1, 1, 1.2, 1, 1.2, 1.2]], [[1, 1, 3, 3, 5, 5]], [[-9, 4, 4, -9, -9, -9]], [],
        {"counts": [80], "size": [8, 10]}, {"counts": encoded([80]), "size": [8, 10]},
        {"counts": [79, 1], "size": [8, 10]},
    ]  # fmt: skip
    annotations = [{"segmentation": shape} for shape in shapes] + [{"segmentation": [], "bbox": [1, 1, 3, 3]}]
    root = export(tmp_path, [*annotations, {"segmentation": SQUARE, "category_id": 2}])
    left_out = {
        "outside the image": 2, "no pixel's centre in them": 2, "neither outline nor box": 1,
        "masks without a pixel": 2,
    }  # fmt: skip
    skipped = coco(root=root, boxes="skip").objects
    assert skipped == Objects(13, {}, left_out | {"they have a box and no outline": 1}, 1, [])
    only = coco(root=root, boxes="ignore", classes=("cat",), others="ignore").objects
    assert only == Objects(
        12, {"they have a box and no outline": 1}, left_out, 1, ["1 more in no class are ignored (`others: ignore`)"]
    )
    scaled = coco(root=root, boxes="draw").objects
    assert (scaled.ignored, scaled.left_out) == ({}, left_out)


def test_a_polygon_shows_pixels_exactly_where_its_fate_says_so():
    drawn_points = np.random.default_rng(5)
    seen = set()
    for _ in range(3000):
        centre, spread = drawn_points.uniform(-3, 13, 2), drawn_points.choice([0.3, 1.0, 3.0])
        points = centre + drawn_points.normal(0, spread, (drawn_points.integers(3, 6), 2))
        window = polygon_window(points, (8, 10))
        shows = window is not None and bool(window.inside.any())
        fate = fate_of([array("d", points.ravel().tolist())], (8, 10))
        assert (fate in ("drawn", "cut off")) == shows
        seen.add(fate)
    assert len(seen) == 4


def test_smaller_objects_lie_above_larger_ones_or_later_ones_above_earlier(tmp_path):
    large = {"segmentation": [[0, 0, 10, 0, 10, 8, 0, 8]], "area": 1}
    small = {"segmentation": SQUARE, "category_id": 2, "area": 999}  # the file's own areas are not trusted
    expected = np.where(block(slice(1, 4), slice(2, 6)) == 1, 2, 1)
    for number, order in enumerate(([large, small], [small, large])):
        root = export(tmp_path / str(number), order)
        np.testing.assert_array_equal(drawn(root), expected)
        np.testing.assert_array_equal(drawn(root, overlap="file_order"), expected if number == 0 else np.ones((8, 10)))
        layers = drawn(root, mode="multilabel")
        np.testing.assert_array_equal(layers, [np.ones((8, 10)), block(slice(1, 4), slice(2, 6))])


# Sizes


def test_a_image_of_another_size_than_the_file_says_is_refused_or_scaled(tmp_path):
    half = counts_from(block(slice(1, 4), slice(0, 2)))
    annotations = [{"segmentation": SQUARE}, {"segmentation": {"counts": half, "size": [8, 10]}, "category_id": 2}]
    export(tmp_path, annotations)
    Image.new("RGB", (20, 16)).save(tmp_path / "a.jpg")
    refusal(
        f"{tmp_path}/_annotations.coco.json: says that {tmp_path}/a.jpg is 8x10, and the file is 16x20 (height x w",
        "size_mismatch: scale",
        root=tmp_path,
    )
    expected = block(slice(2, 8), slice(4, 12), size=(16, 20)) + block(slice(2, 8), slice(0, 4), 2, size=(16, 20))
    np.testing.assert_array_equal(drawn(tmp_path, size_mismatch="scale"), expected)
    Image.new("RGB", (8, 10)).save(tmp_path / "a.jpg")
    refusal("height and width are exchanged", "Exif", root=tmp_path)


def test_without_a_size_coordinates_are_the_files_own(tmp_path):
    export(tmp_path, [{"segmentation": SQUARE}], images=[{"id": 1, "file_name": "a.png", "height": 0}])
    np.testing.assert_array_equal(drawn(tmp_path), block(slice(1, 4), slice(2, 6)))


def test_a_image_that_exif_turns_has_the_size_that_it_is_shown_with(tmp_path):
    export(tmp_path, [{"segmentation": SQUARE}])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 10)).save(tmp_path / "a.jpg", exif=exif)  # shown 8 high and 10 wide
    dataset = coco(root=tmp_path)
    assert dataset.read_image(dataset.samples[0]).shape == (8, 10, 3)
    np.testing.assert_array_equal(dataset.read_mask(dataset.samples[0]), block(slice(1, 4), slice(2, 6)))
    Image.new("RGB", (10, 8)).save(tmp_path / "a.jpg", exif=exif)
    refusal("height and width are exchanged", root=tmp_path)


def test_coordinates_that_are_shares_are_refused(tmp_path):
    export(tmp_path, [{"segmentation": [[0.1, 0.1, 0.9, 0.1, 0.9, 0.8]]}])
    refusal("no coordinate of its 1 polygons is above 1", "multiply x by the width", root=tmp_path)


# Categories and classes


def test_ids_may_start_anywhere_and_unused_categories_are_none(tmp_path):
    categories = [{"id": 0, "name": "animals"}, {"id": 90, "name": "dog"}, {"id": 3, "name": "cat"}]
    corner = {"segmentation": [[0, 0, 1, 0, 1, 1, 0, 1]], "category_id": "3"}
    export(tmp_path, [{"segmentation": SQUARE, "category_id": 90}, corner], categories=categories)
    dataset = coco(root=tmp_path)
    assert dataset.task.classes == ("background", "cat", "dog")
    assert np.unique(drawn(tmp_path)).tolist() == [0, 1, 2]
    assert drawn(tmp_path)[0, 0] == 1
    zero = [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    export(tmp_path, [{"segmentation": SQUARE, "category_id": 0}], categories=zero)
    assert coco(root=tmp_path).task.classes == ("background", "cat")
    np.testing.assert_array_equal(drawn(tmp_path), block(slice(1, 4), slice(2, 6)))


def test_categories_are_reported_apart_by_name_in_files_that_number_them_otherwise(tmp_path):
    export(
        tmp_path / "train", [{"segmentation": SQUARE}, {"segmentation": [[0, 0, 1, 0, 1, 1, 0, 1]], "category_id": 2}]
    )
    other = [{"id": 7, "name": "dog"}, {"id": 8, "name": "bird"}]
    export(
        tmp_path / "valid",
        [{"segmentation": SQUARE, "category_id": 7}, {"segmentation": [[0, 0, 1, 0, 1, 1, 0, 1]], "category_id": 8}],
        categories=other,
        images=[image(1, "b.jpg")],
    )
    dataset = coco(root=tmp_path)
    assert dataset.task.classes == ("background", "cat", "dog", "bird")
    assert [(s.id, s.split) for s in dataset.samples] == [("a", "train"), ("b", "val")]
    assert [(m[2, 3], m[0, 0]) for m in map(dataset.read_mask, dataset.samples)] == [(1, 2), (2, 3)]


@pytest.fixture
def three(tmp_path):
    names = ("cat", "dog", "bird")
    annotations = [
        {"segmentation": [[n, 0, n + 1, 0, n + 1, 1, n, 1]], "category_id": n + 1} for n in range(len(names))
    ]
    return export(tmp_path, annotations, categories=[{"id": n + 1, "name": name} for n, name in enumerate(names)])


def test_classes_are_ordered_renamed_and_merged(three):
    assert drawn(three, classes=("dog", "bird", "cat"))[0, :4].tolist() == [3, 1, 2, 0]
    merged = {"flying": ("bird",), "walking": ("dog", "cat")}
    dataset = coco(root=three, classes=merged)
    assert dataset.task.classes == ("background", "flying", "walking")
    assert drawn(three, classes=merged)[0, :4].tolist() == [2, 2, 1, 0]
    assert drawn(three, classes=merged, mode="multilabel")[:, 0, :4].tolist() == [[0, 0, 1, 0], [1, 1, 0, 0]]
    single = {"animal": ("bird", "dog", "cat")}
    assert coco(root=three, classes=single, mode="binary").task.classes == ("animal",)
    assert drawn(three, classes=single, mode="binary")[0, :4].tolist() == [1, 1, 1, 0]
    assert coco(root=three, background="rest").task.classes[0] == "rest"


def test_categories_in_no_class(three):
    refusal('classes: "cat" and "bird" are annotated, but in no class', root=three, classes=("dog",))
    assert drawn(three, classes=("dog",), others="background")[0, :4].tolist() == [0, 1, 0, 0]
    assert drawn(three, classes=("dog",), others="ignore")[0, :4].tolist() == [255, 1, 255, 0]
    assert drawn(three, classes=("dog",), others="ignore", mode="binary")[0, :4].tolist() == [255, 1, 255, 0]
    layers = drawn(three, classes=("dog", "cat"), others="ignore", mode="multilabel")
    assert layers[:, 0, :4].tolist() == [[0, 1, 255, 0], [1, 0, 255, 0]]


def test_a_category_called_background_is_the_background(three):
    text = (three / "_annotations.coco.json").read_text().replace('"dog"', '"background"')
    (three / "_annotations.coco.json").write_text(text)
    assert coco(root=three).task.classes == ("background", "cat", "bird")
    assert coco(root=three).objects.notes == []
    assert drawn(three)[0, :4].tolist() == [1, 0, 2, 0]
    assert drawn(three, mode="multilabel")[:, 0, :4].tolist() == [[1, 0, 0, 0], [0, 0, 1, 0]]


def test_classes_that_do_not_fit_are_reported(three):
    refusal('nothing is annotated as "doge"', 'did you mean "dog"?', root=three, classes=("doge",))
    refusal('"cat" stands in "a" and "b"', root=three, classes={"a": ("cat",), "b": ("cat", "dog", "bird")})
    refusal('classes: "a" has no category', root=three, classes={"a": ()})
    refusal('classes: "cat" stands more than once', root=three, classes=("cat", "cat"))
    refusal("classes: name at least one", root=three, classes=())
    refusal(
        'mode: a binary task has one class, and there are 3: "cat", "dog" and "bird"',
        "classes: {object: [cat, dog, bird]}",
        root=three,
        mode="binary",
    )
    refusal('"background" is what is in no class', root=three, classes={"background": ("cat", "dog", "bird")})
    export(three, [], images=[image(1)])
    refusal("no annotation in it, so that there is nothing to learn", root=three)


# Files


def test_the_layouts_of_roboflow_coco_cvat_and_label_studio(tmp_path):
    one = [{"segmentation": SQUARE}]
    for split, name in (("train", "a.jpg"), ("valid", "b.jpg"), ("test", "c.jpg")):
        export(tmp_path / "roboflow" / split, one, images=[image(1, name)])
    splits = {s.id: s.split for s in coco(root=tmp_path / "roboflow").samples}
    assert splits == {"a": "train", "b": "val", "c": "test"}

    for split in ("train2017", "val2017"):
        folder = export(tmp_path / "coco" / split, one, images=[image(1, f"{split}.jpg")])
        (tmp_path / "coco/annotations").mkdir(exist_ok=True)
        (folder / "_annotations.coco.json").rename(tmp_path / f"coco/annotations/instances_{split}.json")
    (tmp_path / "coco/annotations/captions_val2017.json").write_text("{}")
    splits = {s.image.parent.name: s.split for s in coco(root=tmp_path / "coco").samples}
    assert splits == {"train2017": "train", "val2017": "val"}

    folder = export(tmp_path / "cvat/images", one)
    (tmp_path / "cvat/annotations").mkdir()
    (folder / "_annotations.coco.json").rename(tmp_path / "cvat/annotations/instances_default.json")
    assert [(s.id, s.split) for s in coco(root=tmp_path / "cvat").samples] == [("a", None)]

    studio = tmp_path / "studio"
    export(studio / "images", one)
    text = (studio / "images/_annotations.coco.json").read_text().replace("a.jpg", "images\\\\a.jpg")
    (studio / "images/_annotations.coco.json").unlink()
    (studio / "result.json").write_text(text)
    assert [s.image for s in coco(root=studio).samples] == [studio / "images/a.jpg"]
    (studio / "result.json").write_text(text.replace("images\\\\a.jpg", "/home/somebody/else/a.jpg"))
    assert [s.image for s in coco(root=studio).samples] == [studio / "images/a.jpg"]


def test_files_named_one_by_one(tmp_path):
    one = [{"segmentation": SQUARE}]
    for split in ("x", "y"):
        export(tmp_path / split, one, images=[image(1, "a.jpg")], file=f"{split}.json")
    named = {"train": tmp_path / "x/x.json", "val": tmp_path / "y/y.json"}
    samples = coco(annotations=named).samples
    assert [(s.id, s.split, s.mask.name) for s in samples] == [
        ("train__a.jpg", "train", "x.json"),
        ("val__a.jpg", "val", "y.json"),
    ]
    folders = {"train": tmp_path / "y", "val": tmp_path / "x"}
    assert [s.image.parent.name for s in coco(annotations=named, images=folders).samples] == ["y", "x"]
    assert [s.split for s in coco(annotations=tmp_path / "x/x.json", images=tmp_path / "y").samples] == [None]
    refusal("is", "as is", annotations=named, images=tmp_path / "x")
    refusal(
        "annotations: there is no file", 'did you mean "x.json"?', "images: there is no folder",
        annotations={"train": tmp_path / "x/xx.json", "val": tmp_path / "y/y.json"},
        images={"train": tmp_path / "x", "val": tmp_path / "z"},
    )  # fmt: skip
    refusal("images: name one folder for all annotation files", annotations=named, images={"train": tmp_path})
    refusal("images: goes with annotations", images=tmp_path)


def test_missing_exports_and_images_are_reported(tmp_path):
    refusal(f"root: there is no folder {tmp_path}/nothing", "cocodataset.org", "Roboflow", root=tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    refusal(
        f"root: {tmp_path}/empty has no annotation file: neither train/", "cocodataset.org", root=tmp_path / "empty"
    )
    export(tmp_path / "deep/inner/train", [{"segmentation": SQUARE}])
    refusal(f"set dataset.root: {tmp_path}/deep/inner", root=tmp_path / "deep")
    export(tmp_path / "gone", [{"segmentation": SQUARE}], images=[image(n) for n in range(1, 4)])
    (tmp_path / "gone/2.jpg").rename(tmp_path / "gone/2.jpeg")
    refusal("1 of its 3 images is not in", '"2.jpg"', 'did you mean "2.jpeg"?', root=tmp_path / "gone")
    export(tmp_path / "two", [{"segmentation": SQUARE}], file="a.json")
    export(tmp_path / "two", [{"segmentation": SQUARE}], file="b.json")
    refusal('has 2 .json files: "a.json" and "b.json"', root=tmp_path / "two")
    for split in ("val", "valid"):
        export(tmp_path / "twice" / split, [{"segmentation": SQUARE}])
    refusal("are both the export's val", root=tmp_path / "twice")


def test_damaged_annotation_files_are_reported_with_every_fault(tmp_path):
    file = tmp_path / "_annotations.coco.json"
    file.write_text('{"images": [\n  ,]}')
    refusal(f"{file}:2:3: is not a JSON", root=tmp_path)
    file.write_bytes(b"\xff\xfe\x00")
    refusal(f"{file}: is not a UTF-8 file", root=tmp_path)
    file.write_text("[]")
    refusal("is not a COCO annotation file: it holds a list", root=tmp_path)
    file.write_text('{"version": "5.0", "shapes": []}')
    refusal('it holds an object with "version" and "shapes"', root=tmp_path)
    file.write_text('{"images": [], "categories": [], "annotations": [{"segments_info": []}]}')
    refusal("is a panoptic annotation file", root=tmp_path)
    wrong = [
        {"image_id": 9},
        {"category_id": 5},
        {"segmentation": [[1, 2, 3, 4, 5, 6, 7]]},
        {"segmentation": [[1, 2, float("nan"), 4, 5, 6]]},
        {"segmentation": [[[1, 2], [3, 4], [5, 6]]]},
        {"segmentation": "12"},
        {"bbox": [1, 2, 3]},
    ]
    export(tmp_path, wrong, images=[image(1), image(1, "b.jpg"), {"id": 2}, image(3, "1.jpg")],
           categories=[{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}, {"id": 2}])  # fmt: skip
    error = refusal(
        'category 1 is given twice, as "cat" and "dog"',
        "category 3 of the list has no id or no name",
        "image 1 is given twice, as 1.jpg and b.jpg",
        "image 3 of the list has no id or no file_name",
        "images 1 and 3 are one file, 1.jpg",
        "annotation 0 is of image 9, which is not in the list of images",
        "annotation 1 is of category 5, which is not in the list of categories",
        "annotation 2 (1.jpg): a polygon of its segmentation has 7 numbers, an x without a y",
        "annotation 3 (1.jpg): a polygon of its segmentation holds a number that is not finite",
        "annotation 4 (1.jpg): a polygon of its segmentation is not a list of numbers",
        "annotation 5 (1.jpg): its segmentation is a str",
        "annotation 6 (1.jpg): its bbox is [1, 2, 3]",
        root=tmp_path,
    )
    assert len(error.problems) == 12
    export(tmp_path, [{"image_id": 9}] * 30)
    assert len(refusal("and 10 more things are wrong", root=tmp_path).problems) == 21


# Groups, pickling, threads


def test_copies_of_one_source_are_a_group(tmp_path):
    names = [
        "i.29_JPG.rf.0db1.jpg",
        "i.29_JPG.rf.ff00.jpg",
        "i.30_jpg.rf.0db1.jpg",
        "plain.jpg",
        "x_jpg.rf.1_jpg.rf.2.jpg",
    ]
    images = [image(n + 1, name) for n, name in enumerate(names)]
    export(tmp_path, [{"segmentation": SQUARE}], images=images)
    samples = coco(root=tmp_path).samples
    assert [s.group for s in samples] == ["i.29_JPG", "i.29_JPG", "i.30_jpg", None, "x_jpg"]
    assert samples[0].id == "i.29_JPG.rf.0db1"
    assert {s.group for s in coco(root=tmp_path, groups=None).samples} == {None}
    assert [s.group for s in coco(root=tmp_path, groups="^(.)").samples] == ["i", "i", "i", "p", "x"]
    refusal("finds no group in 1 of 5 names", root=tmp_path, groups="^([ix])")
    refusal("has no group in parentheses", root=tmp_path, groups="x")


def test_a_dataset_can_be_pickled_and_drawn_by_threads(three):
    dataset = pickle.loads(pickle.dumps(coco(root=three)))
    with ThreadPoolExecutor(4) as pool:
        masks = list(pool.map(dataset.read_mask, list(dataset.samples) * 40))
    assert all(mask.dtype == np.uint8 and mask[0, :4].tolist() == [1, 2, 3, 0] for mask in masks)


def test_what_changes_the_masks_changes_the_reader(three):
    choices = [{}, {"crowd": "draw"}, {"boxes": "skip"}, {"overlap": "file_order"}, {"size_mismatch": "scale"},
               {"mode": "multilabel"}, {"classes": ("dog", "cat", "bird")}, {"classes": ("dog",), "others": "ignore"},
               {"classes": ("dog",), "others": "background"}]  # fmt: skip
    assert len({coco(root=three, **choice).reader for choice in choices}) == len(choices)


# Real images


@pytest.mark.real
@needs_real
@pytest.mark.parametrize(
    ("name", "classes", "counts", "shares"),
    [
        ("strawberry", ("Flower", "Fruit", "Leaf"), (117, 11, 39), (0.817, 0.023, 0.034, 0.125)),
        ("granular", ("Coke", "Pellet", "Sinter"), (96, 12, 48), (0.387, 0.295, 0.108, 0.211)),
    ],
)
def test_real_exports(name, classes, counts, shares):
    dataset = coco(root=Path(REAL or "") / "coco_polygons" / name)
    assert dataset.task.classes == ("background", *classes)
    train = [s for s in dataset.samples if s.split == "train"]
    val = [s for s in dataset.samples if s.split == "val"]
    assert (len(train), len(val), len({s.group for s in train})) == counts
    total = sum(np.bincount(dataset.read_mask(s).ravel(), minlength=4) for s in train[::3])
    np.testing.assert_allclose(total / total.sum(), shares, atol=0.006)
    for sample in dataset.samples[::9]:
        assert dataset.read_image(sample).shape[:2] == dataset.read_mask(sample).shape
    splits = divide(dataset, Split(method="random", val=0.1, test=0.1))
    assert sum(len(indices) for indices in splits.values()) == len(dataset.samples)
    assert abs(len(splits["test"]) - 0.1 * len(dataset.samples)) < 2


@cocos_own_tools
@pytest.mark.real
@needs_real
def test_real_outlines_equal_those_of_cocos_own_tools_but_for_borders():
    tools = pytest.importorskip("pycocotools.mask")
    file = Path(REAL or "") / "coco_polygons/granular/valid/_annotations.coco.json"
    content = json.loads(file.read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    different = total = 0
    outlines = content["annotations"][::3]
    for annotation in outlines:
        size = sizes[annotation["image_id"]]
        theirs = tools.decode(tools.merge(tools.frPyObjects(annotation["segmentation"], *size)))
        ours = np.zeros(size, np.uint8)
        for part in annotation["segmentation"]:
            if window := polygon_window(np.array(part, float).reshape(-1, 2), size):
                ours[window.rows, window.columns] |= window.inside
        different += int((theirs != ours).sum())
        total += int(theirs.sum())
    assert different < 0.004 * total
    areas = [sum(polygon_area(np.array(part, float).reshape(-1, 2)) for part in a["segmentation"]) for a in outlines]
    assert sum(areas) == pytest.approx(total, rel=0.002)


@pytest.mark.real
@pytest.mark.slow
@needs_real
def test_the_recipe_trains_on_a_real_export(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))
    source = Path(REAL or "") / "coco_polygons/strawberry/train"
    content = json.loads((source / "_annotations.coco.json").read_text())
    content["images"] = content["images"][:12]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
    folder = tmp_path / "export" / "train"
    folder.mkdir(parents=True)
    (folder / "_annotations.coco.json").write_text(json.dumps(content))
    for image in content["images"]:
        (folder / image["file_name"]).symlink_to(source / image["file_name"])
    tiny = [f"dataset.root={tmp_path}/export", "split.val=0.2", "split.test=0.2", "input.size=[65,65]"]
    # folder_v3 has the recipe's own network.
    tiny += ["encoder={name: timm/test_resnet, weights: null}", "decoder={name: deeplabv3plus, channels: 16}"]
    tiny += ["train.epochs=1"]
    tiny += ["train.batch_size=4", "train.workers=0", "train.device=cpu", "evaluate.overlays=0"]
    recipe = segreg.load_recipe(shipped_recipe("coco_v3"), tiny)
    with tiny_runs.undrawn():
        run = segreg.run_recipe(recipe, out=tmp_path / "runs", progress="quiet")
    results = json.loads((run.directory.path / "results.json").read_text())
    assert results


# Hostile files


@pytest.mark.parametrize("form", ["../secret/a.jpg", "sub/../../secret/a.jpg", "..\\secret\\a.jpg", "absolute"])
@pytest.mark.parametrize("namesake", [False, True])
def test_a_file_name_may_not_leave_the_images_folder(tmp_path, form, namesake):
    (tmp_path / "secret").mkdir()
    Image.new("RGB", (10, 8)).save(tmp_path / "secret/a.jpg")
    name = str(tmp_path / "secret/a.jpg") if form == "absolute" else form
    export(tmp_path / "data", [{"segmentation": SQUARE}], images=[image(1, "b.jpg")])
    if namesake:
        Image.new("RGB", (10, 8)).save(tmp_path / "data/a.jpg")
    (tmp_path / "data/sub").mkdir()
    file = tmp_path / "data/_annotations.coco.json"
    content = json.loads(file.read_text())
    content["images"][0]["file_name"] = name
    file.write_text(json.dumps(content))
    error = refusal("in other folders than", root=tmp_path / "data")
    assert "set annotations: and images:" in error.problems[0].hint


def test_a_path_of_another_computer_is_cut_down_where_it_leads_nowhere(tmp_path):
    export(tmp_path, [{"segmentation": SQUARE}])
    file = tmp_path / "_annotations.coco.json"
    for name in ("/home/somebody/images/a.jpg", "C:\\images\\a.jpg", "../images/a.jpg"):
        content = json.loads(file.read_text())
        content["images"][0]["file_name"] = name
        file.write_text(json.dumps(content))
        assert [sample.image for sample in coco(root=tmp_path).samples] == [tmp_path / "a.jpg"]


@pytest.mark.parametrize(
    ("name", "says"),
    [("x" * 5000 + ".jpg", "has a file_name of 5004 characters"), ("x" * 300 + ".jpg", "1 of its 1 images is not in"),
     ("a\0b.jpg", "1 of its 1 images is not in"), ("\ud800.jpg", "1 of its 1 images is not in")],
    ids=["5004", "304", "NUL", "surrogate"],
)  # fmt: skip
def test_names_that_no_file_can_have_are_reported(tmp_path, name, says):
    file = tmp_path / "_annotations.coco.json"
    export(tmp_path, [{"segmentation": SQUARE}])
    content = json.loads(file.read_text())
    content["images"][0]["file_name"] = name
    file.write_text(json.dumps(content))
    refusal(says, root=tmp_path)


BILLION = 10**9


@pytest.mark.parametrize(
    ("annotation", "size", "says"),
    [
        ({"segmentation": SQUARE}, (BILLION, BILLION), "image 1 (a.jpg) is said to be 1000000000x1000000000"),
        ({"segmentation": SQUARE}, (int("9" * 4000), 3), "is said to be 999"),
        ({"segmentation": {"size": [BILLION, BILLION], "counts": [BILLION**2]}}, None, "its mask is 1000000000x1"),
        ({"segmentation": {"size": [8, 10], "counts": [0, 10**30]}}, None, "a run of its mask is 1000000000"),
        ({"segmentation": {"size": [8, 10], "counts": [90, -10]}}, None, "its mask has a run of -10 pixels"),
        ({"segmentation": {"size": [8, 10], "counts": "o" * 100_000}}, None, "number of more than 60 bits"),
        ({"segmentation": [[1, 2, 1e300, 4, 5, 6]]}, None, "a coordinate of its segmentation is 1e+300"),
        ({"segmentation": [[1, 2, 10**400, 4, 5, 6]]}, None, "a polygon of its segmentation is not a list of numbers"),
        ({"bbox": [0, 0, 1e300, 5]}, None, "a number of its bbox is 1e+300"),
        ({"bbox": [0, 0, 10**400, 5]}, None, "a number of its bbox is 1000"),
    ],
    ids=range(10),
)
def test_numbers_without_bounds_are_refused_before_anything_is_allocated(tmp_path, annotation, size, says):
    export(tmp_path, [annotation])
    if size is not None:
        file = tmp_path / "_annotations.coco.json"
        content = json.loads(file.read_text())
        content["images"][0] |= {"height": size[0], "width": size[1]}
        file.write_text(json.dumps(content))
    error = refusal(says, root=tmp_path, boxes="draw", size_mismatch="scale")
    assert len(str(error)) < 1000


def test_a_polygon_that_crosses_too_often_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr("segreg_plugins.datasets.polygons.MOST_CROSSINGS", 5)
    refusal(
        "coco.json: annotation 0 (", "a.jpg): a polygon of 4 points", root=export(tmp_path, [{"segmentation": SQUARE}])
    )


def test_images_of_one_name_in_two_folders_of_a_split_are_two(tmp_path):
    names = ["x/a.jpg", "y/a.jpg", "y/b.jpg"]
    for folder in ("x", "y"):
        (tmp_path / "train" / folder).mkdir(parents=True)
    pixel = {"segmentation": [[0, 0, 1, 0, 1, 1, 0, 1]], "image_id": 2}
    images = [image(number, name) for number, name in enumerate(names, start=1)]
    export(tmp_path / "train", [{"segmentation": SQUARE}, pixel], images=images)
    dataset = coco(root=tmp_path)
    assert [sample.id for sample in dataset.samples] == ["x__a.jpg", "y__a.jpg", "b"]
    assert [int(dataset.read_mask(sample).sum()) for sample in dataset.samples] == [12, 1, 0]


def test_a_size_that_the_file_lacks_is_read_once_for_each_image(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(
        "segreg_plugins.datasets.coco_drawing.upright_size", lambda path: read.append(path.name) or (8, 10)
    )
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in (1, 2)]
    annotations = [{"segmentation": SQUARE, "image_id": number} for number in (1, 1, 1, 2)]
    coco(root=export(tmp_path, annotations, images=images))
    assert read == ["1.jpg", "2.jpg"]


def test_a_polygon_that_crosses_everything_all_the_time_is_refused(monkeypatch):
    monkeypatch.setattr("segreg_plugins.datasets.polygons.MOST_CROSSINGS", 1000)
    zigzag = np.array([[x, 90.0 * (x % 2)] for x in range(100)])
    with pytest.raises(SegregError, match="a polygon of 100 points crosses rows of pixels 9,000 times"):
        polygon_window(zigzag, (100, 100))


@pytest.mark.parametrize("content", ["[" * 200_000, '{"images": ' * 200_000, "9" * 5000], ids=["lists", "maps", "int"])
def test_json_that_is_nested_too_deeply_is_refused(tmp_path, content):
    file = tmp_path / "_annotations.coco.json"
    file.write_text(content)
    refusal(f"{file}: can't be read as JSON: it is nested too deeply, or a number is too long", root=tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_named_pipe_is_no_annotation_file(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    refusal(f"there is no file {tmp_path}/a.json", annotations=tmp_path / "a.json")
