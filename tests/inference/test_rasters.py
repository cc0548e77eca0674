"""Georeferenced rasters: predicted by windows as any image is, into GeoTIFFs of the same grid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_predictor import MULTICLASS, MULTILABEL, predictor

import segreg.inference.rasters
from segreg.data.images import read_labels
from segreg.data.rasters import is_georeferenced
from segreg.inference.inputs import find_images
from segreg.inference.predictions import predict_files
from segreg.inference.predictor import InferenceConfig
from segreg.inference.writer import Outputs
from segreg.runtime.progress import Quiet

rasterio = pytest.importorskip("rasterio")
TILES = InferenceConfig(tile=(16, 16))
COLOURS = [(0, 0, 0), (250, 0, 0), (0, 0, 250)]
PLACE = rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_600_000)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def pixels(bands=3, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(1, 250, (40, 50, bands)).astype(dtype)


def written(name, values, **options):
    grid = {"height": 40, "width": 50, "count": values.shape[2], "crs": "EPSG:32633", "transform": PLACE}
    with rasterio.open(name, "w", "GTiff", dtype=values.dtype, **grid, **options) as file:
        file.write(values.transpose(2, 0, 1))
    return name


@pytest.fixture(params=["whole", "windows"])
def reading(request, monkeypatch):
    """A raster is read as an array, or by windows, as a large one is."""
    if request.param == "windows":
        monkeypatch.setattr(segreg.inference.rasters, "_MOST_AT_ONCE", 0)


def predicted(*names, one, kinds=("masks", "probabilities"), out="out", config=TILES):
    values = "index" if one.task.mode == "multiclass" else "255"
    outputs = Outputs(Path(out), kinds, one.task, values, COLOURS)
    images = find_images(list(names))
    return predict_files(images, [one], outputs, config, threshold=None, progress=Quiet())


@pytest.mark.usefixtures("reading")
def test_a_geotiff_is_predicted_as_a_png_of_its_pixels_is_on_its_own_grid():
    Image.fromarray(pixels()).save("plain.png")
    one = predictor(MULTICLASS)
    summary = predicted(written("scene.tif", pixels(), photometric="RGB"), "plain.png", one=one)
    assert [dict(files) for _, files in summary.predicted] == [
        {"masks": Path("out/masks/scene.tif"), "probabilities": Path("out/probabilities/scene.tif")},
        {"masks": Path("out/masks/plain.png"), "probabilities": Path("out/probabilities/plain.npy")},
    ]
    with rasterio.open("out/masks/scene.tif") as mask:
        assert (mask.crs, mask.transform, mask.nodata) == ("EPSG:32633", PLACE, 255)
        assert (mask.profile["tiled"], mask.profile["compress"]) == (True, "deflate")
        assert mask.colormap(1)[1] == (250, 0, 0, 255)
        assert np.array_equal(mask.read(1), read_labels(Path("out/masks/plain.png")))
    assert np.array_equal(read_labels(Path("out/masks/scene.tif")), read_labels(Path("out/masks/plain.png")))
    with rasterio.open("out/probabilities/scene.tif") as probabilities:
        assert probabilities.descriptions == MULTICLASS.classes
        np.testing.assert_allclose(probabilities.read(), np.load("out/probabilities/plain.npy"), atol=2**-11)


@pytest.mark.usefixtures("reading")
def test_where_the_scene_has_no_data_the_prediction_has_none():
    values = pixels()
    values[5:20, 10:30, 2] = 251
    predicted(written("scene.tif", values, nodata=251), one=predictor(MULTILABEL))
    empty = (values == 251).any(axis=2)
    for name in ("masks/cat", "masks/dog"):
        with rasterio.open(f"out/{name}/scene.tif") as mask:
            assert np.array_equal(mask.read(1) == 255, empty)
            assert set(np.unique(mask.read(1))) <= {0, 1, 255}
    with rasterio.open("out/probabilities/scene.tif") as probabilities:
        assert np.array_equal(np.isnan(probabilities.read()).all(axis=0), empty)


def test_ground_control_points_are_those_of_the_scene():
    places = [(0, 0), (0, 50), (40, 0), (40, 50)]
    points = [rasterio.control.GroundControlPoint(row, column, column / 10, row / 10) for row, column in places]
    with rasterio.open(
        "scene.tif", "w", "GTiff", 50, 40, 3, "EPSG:4326", dtype="uint8", gcps=points, photometric="RGB"
    ) as file:
        file.write(pixels().transpose(2, 0, 1))
    predicted("scene.tif", one=predictor(MULTICLASS))
    with rasterio.open("out/masks/scene.tif") as mask:
        assert mask.gcps[1] == "EPSG:4326"
        assert [(one.row, one.col, one.x, one.y) for one in mask.gcps[0]] == [
            (one.row, one.col, one.x, one.y) for one in points
        ]


def test_rational_polynomial_coefficients_are_those_of_the_scene():
    ends = {f"{axis}_{end}": "100" for axis in ("LINE", "SAMP", "LAT", "LONG", "HEIGHT") for end in ("OFF", "SCALE")}
    polynomials = {f"{axis}_{part}_COEFF": "1" + " 0.25" * 19 for axis in ("LINE", "SAMP") for part in ("NUM", "DEN")}
    rpcs = rasterio.rpc.RPC.from_gdal(ends | polynomials)
    with rasterio.open("scene.tif", "w", "GTiff", 50, 40, 3, dtype="uint8", rpcs=rpcs, photometric="RGB") as file:
        file.write(pixels().transpose(2, 0, 1))
    predicted("scene.tif", one=predictor(MULTICLASS))
    for kind in ("masks", "probabilities"):
        with rasterio.open("scene.tif") as scene, rasterio.open(f"out/{kind}/scene.tif") as file:
            assert (file.rpcs, file.crs) == (scene.rpcs, None)
            assert file.rpcs.lat_off == 100


@pytest.mark.usefixtures("reading")
def test_bands_are_those_of_the_network():
    values = pixels(4)
    one = predictor(MULTICLASS)
    with rasterio.open(written("b.tif", values[..., [3, 0, 2]], photometric="RGB")):
        predicted("b.tif", one=one, out="right")
    predicted(written("a.tif", values, photometric="MINISBLACK"), one=replace(one, bands=(4, 1, 3)))
    assert np.array_equal(read_labels(Path("out/masks/a.tif")), read_labels(Path("right/masks/b.tif")))
    failed = predicted("a.tif", one=one, out="other").failed
    assert "a.tif: has 4 bands" in failed[0][1]
    assert "--bands" in failed[0][1]


def test_what_needs_the_whole_of_a_large_raster_is_refused(monkeypatch):
    name = written("scene.tif", pixels(), photometric="RGB")
    predicted(name, one=predictor(MULTICLASS), kinds=("masks", "overlays"))
    assert Path("out/overlays/scene.png").is_file()
    monkeypatch.setattr(segreg.inference.rasters, "_MOST_AT_ONCE", 0)
    one = predictor(MULTICLASS)
    for changed, words in (
        ({"kinds": ("masks", "overlays")}, "overlays"),
        ({"config": InferenceConfig()}, "--tile"),
        ({"one": replace(one, input=replace(one.input, clip=(1, 99)))}, "input.clip"),
    ):
        failed = predicted(name, **{"one": one, **changed}).failed
        assert "scene.tif: is too large" in failed[0][1]
        assert words in failed[0][1]


def test_statistics_of_a_large_raster_are_those_of_the_whole(monkeypatch):
    name = written("scene.tif", pixels(), photometric="RGB")
    one = predictor(MULTICLASS, normalize="per_image")
    predicted(name, one=one, out="whole")
    monkeypatch.setattr(segreg.inference.rasters, "_MOST_AT_ONCE", 0)
    predicted(name, one=one, out="windows")
    maps = []
    for out in ("whole", "windows"):
        with rasterio.open(f"{out}/probabilities/scene.tif") as file:
            maps.append(file.read())
    np.testing.assert_allclose(*maps, atol=1e-6)


def test_a_tiff_without_a_place_on_earth_is_an_image():
    Image.fromarray(pixels()).save("plain.tif")
    assert not is_georeferenced(Path("plain.tif"))
    assert is_georeferenced(Path(written("scene.tif", pixels())))
    predicted("plain.tif", one=predictor(MULTICLASS))
    assert Path("out/masks/plain.png").is_file()


def test_what_a_full_disk_lost_is_not_taken_for_a_prediction():
    signal, resource = pytest.importorskip("signal"), pytest.importorskip("resource")
    scene, one = written("scene.tif", pixels()), predictor(MULTICLASS)
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        summary = predicted(scene, one=one)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [image.name for image, _ in summary.failed] == ["scene"]
    assert not Path("out/probabilities/scene.tif").exists()
