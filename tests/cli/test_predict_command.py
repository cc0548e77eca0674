"""`segreg predict`: its two forms, what it prints, what it leaves and how it ends."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import plugged
import segreg as package
import small_runs
import tiny_runs
from segreg.data.rasters import INSTALL, installed
from segreg.runs.trained_run import Run
from segreg.runtime.progress import Lines, progress


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Run:
    return tiny_runs.finished(tmp_path_factory)


@pytest.fixture(scope="module")
def of_classes(tmp_path_factory):
    """Return a run of three classes."""
    folder = tmp_path_factory.mktemp("classes")
    images, masks = tiny_runs.folder_dataset(folder / "set", count=12, classes=3)
    text = small_runs.RECIPE.replace("loss: dice_bce", "loss: cross_entropy").replace(
        "{name: synthetic_lesions, root: images, samples: 24, size: 48}",
        f"{{name: folder, images: {images}, masks: {masks}, classes: [ground, disc, ring]}}",
    )
    with small_runs.encoder():
        yield small_runs.run(folder, "train.epochs=1", "evaluate.overlays=0", text=text)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos():
    drawn = np.random.default_rng(0)
    for name, size in (("a/1", (50, 70)), ("b/1", (33, 21)), ("b/2", (48, 48))):
        Path("photos", name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn.integers(0, 256, (*size, 3), dtype=np.uint8)).save(f"photos/{name}.png")
    return Path("photos")


def files(folder):
    return sorted(str(file.relative_to(folder)) for file in Path(folder).rglob("*") if file.is_file())


def pixels(file):
    with Image.open(file) as image:
        assert image.mode == "L"
        return np.array(image)


READER = """
from segreg import Entry, hookimpl
from segreg_plugins.datasets.synthetic_lesions import synthetic_lesions

@hookimpl
def segreg_entries():
    return [Entry("dataset", "tables", synthetic_lesions)]
"""


def test_that_another_package_read_the_images_in_training_is_said(segreg, finished, photos, plugin, installed):
    reported = "note    trained on images as the dataset"
    assert reported not in segreg("predict", finished.directory.path, photos, "--out", "out").out
    shutil.copytree(finished.directory.path, "copy")
    resolved = Path("copy/resolved.yaml")
    resolved.write_text(resolved.read_text().replace("name: synthetic_lesions", "name: tables"))
    printed = segreg("predict", "copy", photos, "--out", "again")
    assert f'{reported} "tables" of a plugin that is not installed reads them; files are read by' in printed.out
    installed(*plugged.builtin(), plugin(READER, distribution="segreg-tables", version="2"))
    printed = segreg("predict", "copy", photos, "--out", "again")
    assert printed.status == 0
    assert (
        f'{reported} "tables" of segreg-tables 2 reads them; files are read by segreg itself, so their '
        "bands and values must be the same"
    ) in printed.out


def test_predicting_takes_a_folder_with_weights_and_recipe_alone(segreg, finished, photos):
    Path("alone").mkdir()
    for file in (finished.directory.best, finished.directory.resolved):
        shutil.copy(file, "alone")
    printed = segreg("predict", "alone", photos, "--out", "out")
    assert (printed.status, printed.err) == (0, "")
    np.testing.assert_array_equal(pixels("out/masks/b/1.png"), finished.predict(photos / "b/1.png") * 255)
    printed = segreg("predict", "alone", photos, "--out", "out", "--weights", "last")
    assert (printed.status, printed.err.splitlines()[0]) == (2, "error: alone/last.safetensors: is missing")


def test_best_weights_that_are_missing_are_not_replaced_unsaid(segreg, finished, photos):
    shutil.copytree(finished.directory.path, "copy")
    Path("copy/best.safetensors").unlink()
    printed = segreg("predict", "copy", photos, "--out", "out")
    best = finished.results["best_epoch"]
    assert printed.status == 2
    assert printed.err.startswith(f"error: copy/best.safetensors: is missing, though epoch {best} was the best\n")
    assert "--weights last" in printed.err
    assert not Path("out").exists()
    results = json.loads(Path("copy/results.json").read_text())
    Path("copy/results.json").write_text(json.dumps({**results, "best_epoch": 0}))
    Path("copy/history.jsonl").unlink()
    printed = segreg("predict", "copy", photos, "--out", "out")
    assert "run     copy (last weights: no epoch was the best)" in printed.out.splitlines()


def test_masks_of_a_folder_keep_its_folders(segreg, finished, photos):
    printed = segreg("predict", finished.directory.path, photos, "--out", "out")
    assert (printed.status, printed.err) == (0, "")
    assert printed.out.splitlines()[-1] == "3 images predicted; everything is in out"
    assert "!! trained on: SYNTHETIC IMAGES: 24 drawn skin lesions" in printed.out
    assert files("out") == ["masks/a/1.png", "masks/b/1.png", "masks/b/2.png", "prediction.json"]
    for name in ("a/1", "b/1", "b/2"):
        np.testing.assert_array_equal(pixels(f"out/masks/{name}.png"), finished.predict(photos / f"{name}.png") * 255)


def test_everything_that_can_be_asked_for(segreg, finished, photos):
    Path("colours.yaml").write_text("lesion: [0, 255, 0]\n")
    printed = segreg(
        "predict", finished.directory.path, "--out", "out", "photos/b/*.png", "--probabilities", "--coloured",
        "--overlays", "--strips", "--colours", "colours.yaml", "--values", "index", "--threshold", "0.4", "--quiet",
    )  # fmt: skip
    assert (printed.status, printed.out, printed.err) == (0, "", "")
    kinds = ["coloured/{}.png", "masks/{}.png", "overlays/{}.png", "probabilities/{}.npy", "strips/{}.png"]
    assert files("out") == sorted([kind.format(number) for kind in kinds for number in (1, 2)] + ["prediction.json"])
    probabilities = np.load("out/probabilities/1.npy")
    np.testing.assert_allclose(probabilities, finished.probabilities("photos/b/1.png"), atol=2**-11)
    labels = finished.predict("photos/b/1.png", threshold=0.4)
    np.testing.assert_array_equal(pixels("out/masks/1.png"), labels)
    np.testing.assert_array_equal(np.array(Image.open("out/coloured/1.png")), labels[..., None] * np.uint8([0, 255, 0]))


def test_annotations_are_of_all_masks_that_are_there(segreg, finished, photos):
    Path("photos/c.png").write_bytes(b"broken")
    forms = [word for form in ("coco-rle", "coco-polygons", "yolo") for word in ("--as", form)]
    printed = segreg("predict", finished.directory.path, photos, "--out", "out", "--json", *forms)
    assert printed.status == 1
    found = json.loads(printed.out)["annotations"]
    assert found == {
        "coco-rle": "out/coco-rle.json", "coco-polygons": "out/coco-polygons.json", "yolo": "out/yolo/data.yaml"
    }  # fmt: skip
    content = json.loads(Path("out/coco-rle.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["a/1.png", "b/1.png", "b/2.png"]
    assert content["categories"] == [{"id": 1, "name": "lesion"}]
    areas = [int((pixels(f"out/masks/{name}.png") == 255).sum()) for name in ("a/1", "b/1", "b/2")]
    assert [item["area"] for item in content["annotations"]] == [area for area in areas if area]
    assert files("out/yolo/labels") == ["a/1.txt", "b/1.txt", "b/2.txt"]
    # Those that --skip-existing leaves out are written too.
    Path("out/coco-rle.json").unlink()
    segreg("predict", finished.directory.path, photos, "--out", "out", "--skip-existing", "--as", "coco-rle")
    assert json.loads(Path("out/coco-rle.json").read_text()) == content


def test_strips_show_the_truth_where_there_is_a_mask(segreg, finished, photos):
    for name, size in (("a/1", (50, 70)), ("b/2", (48, 48))):
        mask = np.zeros(size, np.uint8)
        mask[10:30, 15:40] = 255
        Path("true", name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(f"true/{name}_mask.png")
    arguments = ["predict", finished.directory.path, photos, "--out", "out", "--strips"]
    printed = segreg(*arguments, "--masks", "true", "--mask-suffix", "_mask")
    assert (printed.status, printed.err) == (0, "")
    assert printed.out.splitlines()[-3:] == [
        "1 image has no mask in true, and its strip shows no truth:", "  photos/b/1.png",
        "3 images predicted; everything is in out",
    ]  # fmt: skip
    summary = json.loads(Path("out/prediction.json").read_text())
    assert (summary["without_mask"], summary["settings"]["masks"]) == (["photos/b/1.png"], "true")
    sheet = np.array(Image.open("out/strips/b/2.png"))
    top, side = sheet.shape[0] - 48 * 5 - 8 - 18, 48 * 5  # shown five times as large
    assert sheet.shape[1] == 4 * (side + 8) + 8
    truth = sheet[top : top + side, 2 * 8 + side :][:, :side]
    pink = (truth == (255, 60, 200)).all(axis=-1)
    assert np.array_equal(pink[2::5, 2::5], mask == 255)
    narrow = np.array(Image.open("out/strips/b/1.png"))
    assert (narrow.shape[1] - 8) % 3 == 0  # three panels
    assert segreg(*arguments, "--skip-existing").err == (
        'error: out holds predictions with other settings: masks was "true", now null\n'
        "  predict into another folder, or without --skip-existing, which replaces what is there\n"
    )


def test_a_wrong_mask_fails_its_image_and_the_rest_go_on(segreg, finished, photos):
    for name in ("a/1", "b/1", "b/2"):
        Path("true", name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (48, 48)).save(f"true/{name}.png")
    printed = segreg("predict", finished.directory.path, photos, "--out", "out", "--strips", "--masks", "true")
    assert printed.status == 1
    assert printed.err.splitlines() == [
        "2 of 3 images could not be predicted:",
        "  true/a/1.png: is 48x48 (height x width), but its image is 50x70",
        "  true/b/1.png: is 48x48 (height x width), but its image is 33x21",
    ]
    assert files("out") == ["masks/b/2.png", "prediction.json", "strips/b/2.png"]


def test_no_true_mask_is_replaced_by_a_prediction(segreg, finished, photos):
    for name in ("a/1", "b/1", "b/2"):
        Path("out/masks", name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (48, 48)).save(f"out/masks/{name}.png")
    before = Path("out/masks/b/2.png").read_bytes()
    printed = segreg("predict", finished.directory.path, photos, "--out", "out", "--strips", "--masks", "out/masks")
    assert printed.err == (
        "error: out/masks/a/1.png is a true mask that is read, and would be replaced by its prediction\n"
        "  predict into another folder\n"
    )
    assert Path("out/masks/b/2.png").read_bytes() == before


def test_several_classes_are_indices_and_tiles_are_as_from_python(segreg, of_classes, photos):
    arguments = ["predict", of_classes.directory.path, "--images", photos, "--out", "out", "--json"]
    printed = segreg(*arguments, "--tile", "24x32", "--overlap", "0.5", "--scales", "0.8,1", "--flips", "mirror")
    assert printed.status == 0
    summary = json.loads(printed.out)
    weights = hashlib.sha256(of_classes.directory.best.read_bytes()).hexdigest()
    assert summary["settings"] == {
        "runs": [str(of_classes.directory.path)], "weights_sha256": [weights],
        "classes": ["ground", "disc", "ring"], "mode": "multiclass",
        "threshold": None, "tile": [24, 32], "overlap": 0.5, "scales": [0.8, 1.0], "flips": "mirror",
        "masks": None, "min_area": None, "fill_holes": None, "values": None, "bands": None,
    }  # fmt: skip
    assert summary["predicted"][0] == {"image": "photos/a/1.png", "masks": "out/masks/a/1.png"}
    from segreg.inference.predictor import InferenceConfig

    config = InferenceConfig(tile=(24, 32), overlap=0.5, scales=(0.8, 1.0), flips="mirror")
    labels = of_classes.predict("photos/a/1.png", config=config)
    np.testing.assert_array_equal(pixels("out/masks/a/1.png"), labels)
    assert segreg(*arguments, "--values", "255").err == (
        "error: a mask of 3 classes can't hold 0 and 255 alone; its values are class indices\n"
    )


def test_several_runs_are_averaged(segreg, finished, photos, tmp_path):
    second = tmp_path / "second"
    shutil.copytree(finished.directory.path, second)
    shutil.copy(second / "last.safetensors", second / "best.safetensors")
    runs = [finished.directory.path, second]
    assert segreg("predict", *runs, photos, "--out", "out", "--probabilities", "--quiet").status == 0
    both = [package.load_run(run).probabilities("photos/a/1.png") for run in runs]
    np.testing.assert_allclose(np.load("out/probabilities/a/1.npy"), np.mean(both, axis=0), atol=2**-11)
    assert json.loads(Path("out/prediction.json").read_text())["settings"]["runs"] == [str(run) for run in runs]


def test_runs_for_other_classes_are_refused(segreg, finished, of_classes, photos):
    one, two = finished.directory.path, of_classes.directory.path
    printed = segreg("predict", one, two, "--images", photos, "--out", "out")
    assert printed.status == 2
    assert printed.err == (
        "error: predictions of these runs can't be averaged, because their classes differ: "
        f'{one} has "lesion" (binary), {two} has "ground", "disc" and "ring" (multiclass)\n'
        "  predict with each of them alone\n"
    )
    assert not Path("out").exists()


def test_a_broken_image_ends_in_status_1_with_a_summary(segreg, finished, photos):
    (photos / "b" / "1.png").write_bytes(b"no image")
    printed = segreg("predict", finished.directory.path, photos, "--out", "out")
    assert printed.status == 1
    assert printed.out.splitlines()[-1] == "2 images predicted, 1 failed; everything is in out"
    assert "failed: photos/b/1.png: is not an image that segreg can read" in printed.out
    assert printed.err.splitlines()[:2] == [
        "1 of 3 images could not be predicted:",
        "  photos/b/1.png: is not an image that segreg can read, whatever its name says",
    ]
    assert files("out") == ["masks/a/1.png", "masks/b/2.png", "prediction.json"]
    again = segreg("predict", finished.directory.path, photos, "--out", "out", "--skip-existing", "--json")
    assert again.status == 1
    assert len(json.loads(again.out)["skipped"]) == 2
    assert again.err.startswith("1 of 3 images")


def test_predicting_into_the_folder_of_the_images_twice(segreg, finished, photos):
    for _ in range(2):
        assert segreg("predict", finished.directory.path, photos, "--out", photos, "--overlays", "--quiet").status == 0
    assert len(files(photos)) == 3 + 3 + 3 + 1


NO_RUN = "photos is not the directory of a run\n  a run's folder holds a resolved.yaml\n"
NO_STRIPS = "--masks goes with --strips, which show the truth beside the prediction\n"
NO_TILES = "goes with --tile\n  for example: --tile 512x512\n"
NO_RASTER = "--bands goes with georeferenced GeoTIFF and VRT, and none of these images is one\n" + (
    "" if installed() else f"  {INSTALL} reads them\n"
)
NO_SIZE = (
    '"big" is not a size of tiles\n  it is written HEIGHTxWIDTH, for example: --tile 512x512, or it is auto or whole\n'
)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{run}"], "name images to predict\n  for example: segreg predict RUN photos --out predicted\n"),
        (["{run}", "phots"], 'there is no file or folder phots\n  did you mean "photos"?\n'),
        (["{run}", "photos", "--overlap", "0.5"], f"--overlap {NO_TILES}"),
        (
            ["{run}", "photos", "--scales", "1;2"],
            '--scales: "1;2" are not numbers\n  they are parted by commas, for example: --scales 0.75,1,1.25\n',
        ),
        (["{run}", "photos", "--tile", "big"], NO_SIZE),
        (["{run}", "photos", "--masks", "photos"], NO_STRIPS),
        (["{run}", "photos", "--strips", "--mask-suffix", "_m"], "--mask-suffix goes with --masks\n"),
        (["{run}", "photos", "--strips", "--masks", "true"], "true is not a folder of masks\n"),
        (["{run}", "photos", "--tile", "0x9"], "a tile must have a height and a width above 0, not 0x9\n"),
        (["{run}", "photos", "--threshold", "50"], "the threshold must be from 0 to 1, not 50\n"),
        (["{run}", "photos", "--bands", "3,2,1"], NO_RASTER),
        (["{run}", "photos", "--batch-size", "0"], "the batch size must be above 0, not 0\n"),
        (["runs", "photos"], "there is no run runs\n"),
        (["photos", "photos"], NO_RUN),
        (["--images", "photos", "--", "{run}", "photos"], NO_RUN),
    ],
)  # fmt: skip
def test_mistakes(segreg, finished, photos, arguments, says):
    words = [word.format(run=finished.directory.path) for word in arguments]
    printed = segreg("predict", "--out", "out", *words)
    assert printed.status == 2
    assert printed.err == f"error: {says}"
    assert not Path("out").exists()


def test_a_run_whose_plugin_is_gone(segreg, finished, photos, installed, plugin):
    installed(plugin("from segreg.registry.hooks import hookimpl\n@hookimpl\ndef segreg_entries():\n    return []\n"))
    printed = segreg("predict", finished.directory.path, photos, "--out", "out")
    assert printed.status == 2
    assert f"{finished.directory.resolved}:" in printed.err
    assert 'there is no encoder "timm/test_resnet"' in printed.err


def test_nothing_is_fetched_when_a_run_is_loaded(segreg, finished, photos, monkeypatch, tmp_path):
    import socket

    shutil.copytree(finished.directory.path, tmp_path / "run")
    resolved = tmp_path / "run" / "resolved.yaml"
    resolved.write_text(resolved.read_text().replace("  weights: null", "  weights: default", 1))

    def refuse(*_, **__):
        raise AssertionError("something is fetched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    assert segreg("predict", tmp_path / "run", photos, "--out", "out", "--quiet").status == 0


def test_progress_is_lines_with_the_time_left_where_there_is_no_terminal(finished, photos):
    from segreg.inference.inputs import find_images
    from segreg.inference.predictions import predict_files
    from segreg.inference.predictor import InferenceConfig
    from segreg.inference.writer import Outputs

    stream = io.StringIO()
    assert isinstance(progress("auto", stream), Lines)
    outputs = Outputs(Path("out"), ("masks",), finished.task, "255", [(0, 0, 0), (1, 1, 1)])
    predict_files(
        find_images([str(photos)]), [finished.predictor()], outputs, InferenceConfig(tile=(16, 16)),
        threshold=None, progress=Lines(stream, every=0),
    )  # fmt: skip
    lines = stream.getvalue().splitlines()
    assert "  predicting: 0/3 images  1.png: 22%" in lines
    assert any(line.startswith("  predicting: 3/3 images, 0 s left") for line in lines)
