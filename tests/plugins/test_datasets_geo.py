"""The datasets `geo_raster` and `geo_polygons`: windows, bands, nodata, grids, polygons, splits that leak nothing."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest

from segreg.config.sections import Input, Split
from segreg.data import divide, prepare
from segreg.data.rasters import Raster
from segreg.errors import SegregError
from segreg_plugins.datasets.geo_polygons import geo_polygons
from segreg_plugins.datasets.geo_raster import geo_raster

rasterio, warp = pytest.importorskip("rasterio"), pytest.importorskip("rasterio.warp")
shapely, pyogrio = pytest.importorskip("shapely"), pytest.importorskip("pyogrio.raw")
pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # rasterio's own

PLACE = rasterio.Affine(10, 0, 500_000, 0, -10, 5_600_000)
UTM = "EPSG:32633"


def raster(file, values, *, names=(), place=PLACE, crs=UTM, nodata=None, **options):
    """Write `[H, W]` or `[H, W, C]`."""
    bands = np.atleast_3d(values)
    file.parent.mkdir(parents=True, exist_ok=True)
    height, width, count = bands.shape
    with rasterio.open(
        file, "w", "GTiff", width, height, count, crs, place, bands.dtype, nodata, **options
    ) as opened:  # fmt: skip
        opened.write(bands.transpose(2, 0, 1))
        for number, name in enumerate(names, start=1):
            opened.set_band_description(number, name)
    return file


def noise(height=70, width=50, bands=4, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(1, 200, (height, width, bands)).astype(dtype)


def polygons(file, shapes, kinds=None, *, crs=UTM, **options):
    fields = [] if kinds is None else [np.array(kinds)]
    names = [] if kinds is None else ["kind"]
    geometry = np.array([shapely.to_wkb(shape) for shape in shapes], object)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of no CRS
        pyogrio.write(file, geometry, fields, names, geometry_type="Unknown", crs=crs, **options)
    return file


def box(top, left, bottom, right):
    """Return a rectangle of whole pixels."""
    return shapely.box(*(500_000 + 10 * left, 5_600_000 - 10 * bottom), *(500_000 + 10 * right, 5_600_000 - 10 * top))


def whole(dataset):
    """Return the image and the mask put together from the blocks of one scene."""
    blocks = dataset.read_image.__self__.by_id
    tops, lefts = (sorted({getattr(one, side) for one in blocks.values()}) for side in ("top", "left"))
    named = {(one.top, one.left): sample for sample, one in zip(dataset.samples, blocks.values(), strict=True)}
    rows = [[named[top, left] for left in lefts] for top in tops]
    image = np.concatenate([np.concatenate([dataset.read_image(one) for one in row], 1) for row in rows])
    return image, np.concatenate([np.concatenate([dataset.read_mask(one) for one in row], -1) for row in rows], -2)


def refusal(build, *words):
    with pytest.raises(SegregError) as caught:
        build()
    for word in words:
        assert str(word) in str(caught.value), str(caught.value)


@pytest.fixture
def scene(tmp_path):
    """Return settings of one scene with a mask, whose pixels are `noise()` and `mask`."""
    mask = (noise(bands=1, seed=1) % 3)[..., 0]
    images = raster(tmp_path / "a.tif", noise(), names=("blue", "green", "red", "nir"))
    return {
        "images": images,
        "masks": raster(tmp_path / "a_mask.tif", mask),
        "classes": ("x", "y", "z"),
        "pixels": mask,
    }


def built(scene, **settings):
    return geo_raster(**{name: value for name, value in scene.items() if name != "pixels"}, **settings)


def test_blocks_are_the_scene_and_ignored_beyond_its_border(scene):
    dataset = built(scene, block=(32, 32))
    assert [sample.id for sample in dataset.samples][:3] == ["a__r000c000", "a__r000c001", "a__r001c000"]
    image, mask = whole(pickle.loads(pickle.dumps(dataset)))
    assert image.shape == (96, 64, 4)
    assert np.array_equal(image[:70, :50], noise())
    assert np.array_equal(mask[:70, :50], scene["pixels"])
    assert (mask[70:] == 255).all()
    assert (mask[:, 50:] == 255).all()


def test_a_scene_smaller_than_a_block_is_one_block(scene):
    dataset = built(scene)
    assert np.array_equal(dataset.read_image(dataset.samples[0]), noise())


def test_bands_by_number_and_by_name(scene):
    image, _ = whole(built(scene, bands=("NIR", 3, "green")))
    assert np.array_equal(image, noise()[..., [3, 2, 1]])
    refusal(lambda: built(scene, bands=("nri",)), scene["images"], 'no band "nri"', '"nir"', "4 (nir)")
    refusal(lambda: built(scene, bands=(5,)), scene["images"], 'no band "5"')


def test_a_vrt_is_a_scene_and_its_sources_change_the_key(tmp_path, scene):
    source = scene["images"]
    file = tmp_path / "vrt" / "a.vrt"
    file.parent.mkdir()
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{number}"><SimpleSource><SourceFilename>{source}</SourceFilename>'
        f"<SourceBand>{number}</SourceBand></SimpleSource></VRTRasterBand>"
        for number in (1, 2)
    )
    place = ", ".join(map(str, PLACE.to_gdal()))
    file.write_text(
        f'<VRTDataset rasterXSize="50" rasterYSize="70"><SRS>{UTM}</SRS><GeoTransform>{place}</GeoTransform>{bands}'
        "</VRTDataset>"
    )
    dataset = built(scene | {"images": file})
    assert np.array_equal(whole(dataset)[0], noise()[..., :2])
    raster(source, noise(71, 50))
    assert built(scene | {"images": file}).reader != dataset.reader


@pytest.mark.parametrize(("dtype", "gives"), [("uint8", "uint8"), ("uint16", "uint16"), ("int16", "float32")])
def test_nodata_of_the_image_is_ignored_and_filled(tmp_path, scene, dtype, gives):
    values = noise(dtype=dtype)
    values[5:20, 10:30, 1] = 201
    dataset = built(scene | {"images": raster(tmp_path / "b.tif", values, nodata=201)}, bands=(1, 2, 3, 4))
    image, mask = whole(dataset)
    assert image.dtype == gives
    expected = scene["pixels"].copy()
    expected[5:20, 10:30] = 255
    assert np.array_equal(mask, expected)
    left = image[expected == 255]
    means = values[expected != 255].mean(axis=0)
    assert np.isnan(left).all() if gives == "float32" else (left == np.rint(means)).all()


def test_alpha_is_no_band_but_says_what_is_valid(tmp_path, scene):
    values = noise()
    values[..., 3] = 255
    values[:9, :, 3] = 0
    file = raster(tmp_path / "b.tif", values, photometric="RGB", alpha="YES")
    image, mask = whole(built(scene | {"images": file}))
    assert image.shape[2] == 3
    assert (mask[:9] == 255).all()
    assert np.array_equal(mask[9:], scene["pixels"][9:])


def test_a_fourth_band_that_is_called_alpha_but_is_none_is_refused(tmp_path, scene):
    file = raster(tmp_path / "b.tif", noise())  # GDAL calls it alpha by itself
    dataset = built(scene | {"images": file})
    refusal(lambda: whole(dataset), file, "band 4 is called alpha", "[1, 2, 3, 4]")
    assert np.array_equal(whole(built(scene | {"images": file}, bands=(1, 2, 3, 4)))[0], noise())


def test_nodata_of_the_mask_is_ignored(tmp_path, scene):
    mask = scene["pixels"].astype(np.int16)
    mask[:, 7] = -99
    dataset = built(scene | {"masks": raster(tmp_path / "m.tif", mask, nodata=-99)})
    assert np.array_equal(whole(dataset)[1], np.where(mask == -99, 255, mask))


@pytest.mark.parametrize(
    ("nodata", "settings", "name"),
    [
        (0, {"classes": ["x", "y", "z"]}, "x"),
        (2, {"values": {"x": 0, "y": 1, "z": "2-9"}}, "z"),
        (0, {"values": {"background": 0, "y": [1, 2]}, "classes": ["y"]}, "background"),
        (1, {"values": {"background": 0, "y": [1, 2]}, "classes": ["y"]}, "y"),
        (0, {"foreground": "nonzero"}, "background"),
    ],
)
def test_nodata_of_the_mask_that_is_a_class_is_refused(tmp_path, scene, nodata, settings, name):
    file = raster(tmp_path / "m.tif", scene["pixels"], nodata=nodata)
    given = {"images": scene["images"], "masks": file, **settings}
    words = [f'its nodata value {nodata} is that of "{name}"', f"rio edit-info --unset-nodata {file}", "in values"]
    refusal(lambda: geo_raster(**given), file, *words)
    with rasterio.open(file, "r+") as opened:
        opened.nodata = 9
    if "values" not in settings:
        assert set(np.unique(whole(geo_raster(**given))[1])) <= {0, 1, 2}


def test_nodata_that_is_no_class_is_fine(tmp_path, scene):
    file = raster(tmp_path / "m.tif", scene["pixels"], nodata=0)
    labels = whole(geo_raster(images=scene["images"], masks=file, values={"y": 1, "z": 2}))[1]
    assert np.array_equal(labels, np.array([255, 0, 1])[scene["pixels"]])
    halves = raster(tmp_path / "halves.tif", np.where(scene["pixels"], 1, 255).astype(np.uint8), nodata=255)
    labels = whole(geo_raster(images=scene["images"], masks=halves))[1]
    assert set(np.unique(labels)) == {1, 255}


def test_large_values_of_a_mask_keep_their_last_digits(tmp_path, scene):
    file = raster(tmp_path / "m.tif", scene["pixels"].astype(np.uint32) + 3_301_010_100)
    values = {name: 3_301_010_100 + number for number, name in enumerate("xyz")}
    assert np.array_equal(whole(built(scene | {"masks": file}, values=values))[1], scene["pixels"])


def test_a_colour_is_no_nodata_for_one_of_its_numbers(tmp_path, scene):
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 20, 0]], np.uint8)
    file = raster(tmp_path / "m.tif", colours[scene["pixels"]], photometric="RGB", nodata=0)
    values = {"x": [255, 0, 0], "y": [0, 20, 0]}
    mask = whole(geo_raster(images=scene["images"], masks=file, values=values))[1]
    assert np.array_equal(mask, np.array([255, 0, 1])[scene["pixels"]])


def test_masks_of_colours(tmp_path, scene):
    colours = np.array([[255, 255, 255], [0, 0, 255], [0, 255, 0]], np.uint8)
    file = raster(tmp_path / "m.tif", colours[scene["pixels"]], photometric="RGB")
    values = {name: colour.tolist() for name, colour in zip("xyz", colours, strict=True)}
    assert np.array_equal(whole(built(scene | {"masks": file}, values=values))[1], scene["pixels"])
    refusal(lambda: built(scene | {"masks": file}), file, "3 bands", "gdal_translate -b 1")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"crs": "EPSG:4326"}, ("CRS EPSG:4326, not EPSG:32633", "gdalwarp -r near -t_srs EPSG:32633")),
        ({"place": rasterio.Affine(10, 0, 500_005, 0, -10, 5_600_000)}, ("transform", "-ts 50 70")),
        ({"place": rasterio.Affine(10.05, 0, 500_000, 0, -10.05, 5_600_000)}, ("transform 10.05",)),
        ({"crs": None}, ("CRS none", "-s_srs EPSG:32633")),
    ],
)
def test_a_mask_of_another_grid_is_refused(tmp_path, scene, given, words):
    file = raster(tmp_path / "m.tif", scene["pixels"], **given)
    refusal(lambda: built(scene | {"masks": file}), file, scene["images"], *words)


def test_folders_are_paired_and_what_is_alone_is_named(tmp_path):
    for name in ("a", "b"):
        raster(tmp_path / "images" / f"{name}.tif", noise())
        raster(tmp_path / "masks" / f"{name}_m.tif", noise(bands=1) % 2)
    settings = {"images": tmp_path / "images", "masks": tmp_path / "masks", "mask_suffix": "_m"}
    assert [sample.id for sample in geo_raster(**settings).samples] == ["a__r000c000", "b__r000c000"]
    (tmp_path / "masks" / "b_m.tif").unlink()
    refusal(lambda: geo_raster(**settings), tmp_path / "images" / "b.tif", '"b_m"')


def test_a_split_leaks_nothing_to_neighbours(tmp_path):
    images, masks = tmp_path / "images", tmp_path / "masks"
    other = rasterio.Affine(10, 0, 500_300, 0, -10, 5_599_800)  # on the same ground in part
    for name, place in (("a", PLACE), ("b", other)):
        raster(images / f"{name}.tif", noise(100, 100), place=place)
        raster(masks / f"{name}.tif", noise(100, 100, 1) % 2, place=place)
    dataset = geo_raster(images=images, masks=masks, block=(8, 8), split_block=2, guard=3)
    blocks = dataset.read_image.__self__.by_id
    splits = divide(dataset, Split(val=0.3, test=0.2))
    areas = {split: np.zeros((140, 140), bool) for split in splits}
    for split, indices in splits.items():
        assert indices
        for sample in (dataset.samples[index] for index in indices):
            one, (top, left) = blocks[sample.id], (20, 30) if sample.id.startswith("b") else (0, 0)
            end = min(one.top + 8, 100), min(one.left + 8, 100)
            areas[split][top + one.top : top + end[0], left + one.left : left + end[1]] = True
    for split, area in areas.items():
        near = np.zeros_like(area)  # all that is nearer than the guard
        for down in range(-2, 3):
            for right in range(-2, 3):
                near |= np.roll(area, (down, right), (0, 1))
        for other_split in areas.keys() - {split}:
            assert not (near & areas[other_split]).any()


def test_scenes_on_the_same_ground_are_found_beside_others_far_away(tmp_path):
    far = rasterio.Affine(10, 0, 690_000, 0, -10, 9_999_000)
    for name, place, crs in (("a", PLACE, UTM), ("b", PLACE, UTM), ("c", far, "EPSG:32748"), ("d", far, "EPSG:32748")):
        raster(tmp_path / "images" / f"{name}.tif", noise(), place=place, crs=crs)
        raster(tmp_path / "masks" / f"{name}.tif", noise(bands=1) % 2, place=place, crs=crs)
    dataset = geo_raster(images=tmp_path / "images", masks=tmp_path / "masks", block=(35, 50), split_block=1)
    assert [sample.group for sample in dataset.samples] == ["a 0 0", "a 1 0"] * 2 + ["c 0 0", "c 1 0"] * 2
    (tmp_path / "images" / "b.tif").unlink()
    # The same ground in another system.
    degrees = rasterio.Affine(0.0001, 0, 14.9999, 0, -0.0001, 50.5509)
    raster(tmp_path / "images" / "b.tif", noise(), place=degrees, crs="EPSG:4326")
    raster(tmp_path / "masks" / "b.tif", noise(bands=1) % 2, place=degrees, crs="EPSG:4326")
    dataset = geo_raster(images=tmp_path / "images", masks=tmp_path / "masks")
    assert [sample.group for sample in dataset.samples] == ["a 0 0"] * 2 + ["c 0 0"] * 2


def test_blocks_are_prepared_from_a_file_that_is_read_by_windows(scene, tmp_path, monkeypatch):
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))
    input_ = Input(size=(32, 32), resize="stretch", channels=4)
    prepared = prepare(built(scene, block=(32, 32)), input_)
    image, mask = prepared.sample(0)
    assert np.array_equal(image, noise()[:32, :32])
    assert np.array_equal(mask, scene["pixels"][:32, :32])


# Polygons


def drawn(size, *boxes):
    mask = np.zeros(size, np.uint8)
    for label, top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = label
    return mask


@pytest.mark.parametrize(("name", "options"), [("p.geojson", {"RFC7946": "NO"}), ("p.gpkg", {})])
def test_polygons_are_drawn_as_by_hand(tmp_path, scene, name, options):
    shapes = [box(3, 4, 40, 20), box(30, 10, 60, 45), box(50, 40, 70, 50)]
    file = polygons(tmp_path / name, shapes, ["water", "road", "tree"], layer="land", **options)
    settings = {"images": scene["images"], "polygons": file, "attribute": "kind", "block": (32, 32)}
    dataset = geo_polygons(**settings, classes={"wet": ("water",), "land": ("road", "tree")})
    assert dataset.task.classes == ("background", "wet", "land")
    expected = drawn((70, 50), (1, 3, 4, 40, 20), (2, 30, 10, 60, 45), (2, 50, 40, 70, 50))
    assert np.array_equal(whole(dataset)[1][:70, :50], expected)
    ignored = geo_polygons(**settings, classes=("water",), others="ignore", mode="multilabel")
    expected = drawn((70, 50), (1, 3, 4, 40, 20), (255, 30, 10, 60, 45), (255, 50, 40, 70, 50))
    assert np.array_equal(whole(ignored)[1][0, :70, :50], expected)
    refusal(lambda: geo_polygons(**settings | {"attribute": "knd"}), file, '"kind"')


def test_polygons_are_reprojected(tmp_path, scene):
    degrees = shapely.transform(
        box(10, 5, 40, 30),
        lambda points: np.column_stack(warp.transform(UTM, "EPSG:4326", points[:, 0], points[:, 1])[:2]),
    )
    file = polygons(tmp_path / "p.geojson", [degrees], crs="EPSG:4326")
    dataset = geo_polygons(images=scene["images"], polygons=file, mode="binary")
    assert dataset.task.classes == ("foreground",)
    wrong = whole(dataset)[1] != drawn((70, 50), (1, 10, 5, 40, 30))
    assert wrong.mean() < 0.01  # GeoJSON keeps 7 digits of a degree: a centimetre


def test_polygons_that_reach_around_the_world_are_drawn(tmp_path, scene):
    hole = shapely.transform(
        box(10, 5, 40, 30),
        lambda points: np.column_stack(warp.transform(UTM, "EPSG:4326", points[:, 0], points[:, 1])[:2]),
    )
    indonesia = shapely.box(95, -11, 141, 6).segmentize(1)  # where the scene's system is not defined
    world = shapely.box(-180, -90, 180, 90).segmentize(1).difference(hole).difference(indonesia)
    file = polygons(tmp_path / "p.gpkg", [world, indonesia], ["sea", "land"], crs="EPSG:4326")
    dataset = geo_polygons(images=scene["images"], polygons=file, attribute="kind", classes=("land", "sea"))
    wrong = whole(dataset)[1] != np.where(drawn((70, 50), (1, 10, 5, 40, 30)), 0, 2)
    assert wrong.mean() < 0.01


def test_a_file_without_polygons_is_refused_by_name(tmp_path, scene):
    file = tmp_path / "p.geojson"
    file.write_text('{"type": "FeatureCollection", "features": []}')
    refusal(lambda: geo_polygons(images=scene["images"], polygons=file), file, "holds no polygon")


@pytest.mark.parametrize(
    ("shape", "crs", "words"),
    [
        (box(0, 0, 9, 9), None, ("has no coordinate reference system", "ogr2ogr -a_srs")),
        (shapely.box(0, 0, 1, 1), UTM, ("lie in none of the scenes", "a.tif")),
        (shapely.Point(500_100, 5_599_900), UTM, ("holds Point",)),
    ],
)
def test_polygons_that_cannot_be_drawn_are_refused(tmp_path, scene, shape, crs, words):
    file = polygons(tmp_path / "p.gpkg", [shape], crs=crs)
    refusal(lambda: whole(geo_polygons(images=scene["images"], polygons=file)), file, *words)


def test_a_raster_is_read_as_an_array(scene):
    with Raster(scene["images"]) as opened:
        assert opened.shape == (70, 50, 4)
        assert np.array_equal(opened[10:30, 5:500], noise()[10:30, 5:])
        assert np.array_equal(np.asarray(pickle.loads(pickle.dumps(opened))), noise())
