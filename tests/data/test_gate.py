"""What stops a run before its first step, what it carries as a warning, and that the data check reports the same."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import small_runs
import tiny_runs
from segreg.config.sections import Input
from segreg.data import prepare
from segreg.data.inspection.gate import SplitPixels, judge, objects_text
from segreg.data.inspection.scan import scan
from segreg.registry.protocols import Dataset, Objects, Sample
from segreg.runtime.progress import Quiet
from segreg.task import Task

LESION = Task(("lesion",), "binary")
LANDS = Task(("sea", "sand", "wood"), "multiclass")
LAYERS = Task(("a", "b"), "multilabel")


@pytest.fixture(autouse=True)
def _own_cache_and_no_diagrams(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))
    for name in tiny_runs._SLOW[:2]:
        monkeypatch.setattr(name, lambda *_, **__: [])
    with small_runs.encoder():
        yield


def pixels(*counts, ignored=0, task=LESION):
    """One split by the pixels of its labels; `ignored` is of each layer if multilabel."""
    total = 100 if task.mode == "multilabel" else sum(counts) + ignored
    counted = np.full(len(counts), total - ignored)
    return SplitPixels(3, np.array(counts), counted, total, 3 * (np.array(counts) > 0))


GOOD = pixels(90, 10)


def names(task, splits, objects=None, void=""):
    verdict = judge(task, splits, objects, void)
    return [(finding.severity, finding.name) for finding in verdict.findings]


ERROR, WARNING = "error", "warning"
VERDICTS = {
    "good": (LESION, {"train": GOOD, "val": GOOD}, []),
    "nothing of the class": (
        LESION, {"train": pixels(100, 0), "val": GOOD}, [(ERROR, "no-foreground"), (WARNING, "class-not-in-train")],
    ),
    "masks of 0 and 255": (
        LESION, {"train": pixels(50, 0, ignored=50), "val": pixels(50, 0, ignored=50)},
        [(ERROR, "no-foreground"), (WARNING, "split-empty"), (WARNING, "class-never-present"),
         (WARNING, "pixels-ignored")],
    ),
    "train ignored": (
        LESION, {"train": pixels(0, 0, ignored=9), "val": GOOD},
        [(ERROR, "all-ignored"), (WARNING, "class-not-in-train"), (WARNING, "pixels-ignored")],
    ),
    "val ignored": (
        LESION, {"train": GOOD, "val": pixels(0, 0, ignored=9)}, [(ERROR, "all-ignored"), (WARNING, "pixels-ignored")],
    ),
    "test ignored": (
        LESION, {"train": GOOD, "val": GOOD, "test": pixels(0, 0, ignored=9)},
        [(WARNING, "split-empty"), (WARNING, "pixels-ignored")],
    ),
    "a class that val does not show": (
        LANDS, {"train": pixels(5, 5, 5, task=LANDS), "val": pixels(5, 5, 0, task=LANDS)},
        [(WARNING, "class-not-in-split")],
    ),
    "nothing but the class": (
        LESION, {"train": pixels(0, 60, ignored=40), "val": pixels(0, 60)},
        [(ERROR, "no-background"), (WARNING, "class-never-present"), (WARNING, "pixels-ignored")],
    ),
    "one class alone": (
        LANDS, {"train": pixels(0, 5, 0, task=LANDS), "val": pixels(5, 5, 5, task=LANDS)},
        [(ERROR, "no-foreground"), (WARNING, "class-not-in-train")],
    ),
    "no layer": (
        LAYERS, {"train": pixels(0, 0, task=LAYERS), "val": pixels(5, 5, task=LAYERS)},
        [(ERROR, "no-foreground"), (WARNING, "class-not-in-train")],
    ),
    "a tenth ignored": (LESION, {"train": pixels(80, 10, ignored=10), "val": GOOD}, []),
    "above a tenth": (LESION, {"train": GOOD, "val": pixels(79, 10, ignored=11)}, [(WARNING, "pixels-ignored")]),
    "a void of its own": (LESION, {"train": pixels(50, 2, ignored=48), "val": GOOD}, [], None, "void"),
    "more void than anything": (LESION, {"train": pixels(45, 2, ignored=53)}, [(WARNING, "pixels-ignored")], None, "v"),
    "above a tenth of layers": (
        LAYERS, {"train": pixels(5, 5, ignored=11, task=LAYERS), "val": pixels(5, 5, task=LAYERS)},
        [(WARNING, "pixels-ignored")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", VERDICTS)
def test_what_is_an_error_and_what_a_warning(case):
    task, splits, expected, *more = VERDICTS[case]
    assert names(task, splits, *more) == expected


def test_a_void_of_the_data_set_is_shown_quietly():
    verdict = judge(LESION, {"train": pixels(70, 10, ignored=20), "val": GOOD}, None, "borders of objects")
    assert verdict.facts() == ["ignored    20% of train (borders of objects)"]
    assert not verdict.alerts()
    assert not verdict.warnings()


def test_objects_are_counted_with_the_reason():
    assert objects_text(Objects(8)) == "8 objects, all drawn"
    objects = Objects(20, {"iscrowd is 1": 2}, {"outside the image": 1}, 3, ["a note"])
    assert objects_text(objects) == (
        "20 objects: 2 ignored (iscrowd is 1), 1 left out (outside the image), 3 cut off at the image's border; a note"
    )
    verdict = judge(LESION, {"train": GOOD, "val": GOOD}, objects)
    assert verdict.alerts() == [f"OBJECTS LEFT OUT: of {objects_text(objects)}"]
    assert verdict.facts() == [f"objects    {objects_text(objects)}"]
    assert judge(LESION, {"train": GOOD}, Objects(20, {"a": 1}, {"b": 1})).alerts() == []
    gone = judge(LESION, {"train": pixels(9, 0)}, Objects(2, {"iscrowd is 1; crowd: draw draws them": 2}))
    assert "crowd: draw" in gone.findings[0].do


@pytest.mark.parametrize(("task", "shape"), [(LESION, ()), (LANDS, ()), (LAYERS, (2,))], ids=lambda v: str(v)[:20])
def test_prepared_and_scanned_masks_are_counted_alike(task, shape, tmp_path):
    drawn = np.random.default_rng(0)
    labels = np.array([*range(task.highest_label + 1), 255], np.uint8)
    masks = [drawn.choice(labels, (*shape, 20 + n, 30)) for n in range(5)]
    images = [drawn.integers(0, 256, (20 + n, 30, 3), dtype=np.uint8) for n in range(5)]
    samples = [Sample(str(n), tmp_path / f"{n}.png", tmp_path / f"{n}m.png") for n in range(5)]
    dataset = Dataset(task, samples, lambda s: images[int(s.id)], lambda s: masks[int(s.id)])
    settings = Input(size=(32, 32), resize="letterbox")
    for _ in range(2):  # made, and found in the cache
        prepared = prepare(dataset, settings, indices=[0, 1, 2, 4])
        one = SplitPixels.of_prepared(prepared, [4, 1])
        other = SplitPixels.of_scanned(scan(dataset, settings, [4, 1], progress=Quiet()), task)
        counts = [(masks[4] == label).sum() + (masks[1] == label).sum() for label in (0, 1, 255)]
        assert one.images == other.images == 2
        assert one.total == other.total == 30 * (24 + 21)
        assert one.pixels.tolist() == other.pixels.tolist()
        assert one.counted.tolist() == other.counted.tolist()
        assert one.ignored == other.ignored == pytest.approx(counts[2] / 45 / 30 / (shape[0] if shape else 1))
        assert one.pixels[1 if not shape else slice(None)].sum() == counts[1]


def test_pixels_that_hold_nothing_are_ignored_by_run_and_check_alike(tmp_path):
    image, mask = np.ones((20, 30, 3), np.float32), np.ones((20, 30), np.uint8)
    image[:15], mask[15:18] = np.nan, 0
    samples = [Sample("a", tmp_path / "a.png", tmp_path / "am.png")]
    dataset = Dataset(LESION, samples, lambda _: image, lambda _: mask)
    settings = Input(size=(32, 32), resize="letterbox")
    run = SplitPixels.of_prepared(prepare(dataset, settings, indices=[0]), [0])
    check = SplitPixels.of_scanned(scan(dataset, settings, [0], progress=Quiet()), LESION)
    assert run.pixels.tolist() == check.pixels.tolist() == [90, 60]
    assert run.ignored == check.ignored == 0.75


def test_a_mask_of_another_size_than_its_image_ignores_nothing(tmp_path):
    dataset = Dataset(
        LESION, [Sample("a", tmp_path / "a.png", tmp_path / "am.png")],
        lambda _: np.ones((40, 40, 3), np.uint8), lambda _: np.ones((20, 40), np.uint8),
    )  # fmt: skip
    pixels = SplitPixels.of_scanned(scan(dataset, Input(), [0], progress=Quiet()), LESION)
    assert (pixels.total, pixels.ignored) == (800, 0)


def recipe_of(tmp_path, change, classes="[disc]", more=""):
    """A recipe of 16 images of discs, with masks as `change(number, mask)` returns them."""
    for number in range(16):
        y, x = np.ogrid[:40, :40]
        disc = ((y - 15 - number % 7) ** 2 + (x - 20) ** 2 < 60).astype(np.uint8)
        image = np.random.default_rng(number).integers(0, 99, (40, 40, 3), dtype=np.uint8) + disc[..., None] * 100
        for folder, array in (("images", image), ("masks", change(number, disc))):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(array).save(tmp_path / folder / f"{number:02d}.png")
    dataset = f"{{name: folder, images: {tmp_path}/images, masks: {tmp_path}/masks, classes: {classes}{more}}}"
    return tiny_runs.write_recipe(
        tmp_path, small_runs.RECIPE.replace("{name: synthetic_lesions, root: images, samples: 24, size: 48}", dataset)
    )


@pytest.mark.parametrize(
    ("change", "classes", "error", "hint"),
    [
        (lambda _, disc: disc * 0, "[disc]", 'the masks of train show nothing but "background"', "data check"),
        (lambda _, disc: disc * 255, "[ground, a, b]", 'the masks of train show nothing but "ground"',
         "`values: {ground: 0, b: 255}`"),
        (lambda _, disc: disc * 0 + 255, "[ground, a, b]", "every pixel of train is ignored", "255"),
    ],
    ids=["all empty", "0 and 255", "all ignored"],
)  # fmt: skip
def test_a_run_that_could_learn_nothing_is_refused_and_the_check_says_so_too(
    change, classes, error, hint, tmp_path, segreg
):
    recipe = recipe_of(tmp_path, change, classes)
    loss = ["loss=cross_entropy"] if "," in classes else []
    printed = segreg("run", recipe, *loss, "--out", tmp_path / "runs")
    assert printed.status == 2
    assert error in printed.err
    assert hint in printed.err
    assert not (tmp_path / "runs").exists()
    printed = segreg("data", "check", recipe, *loss)
    assert printed.status == 2
    assert error in printed.out
    assert hint in " ".join(printed.out.split())


def test_the_check_reports_a_mask_that_is_refused_with_the_way_out(tmp_path, segreg):
    recipe = recipe_of(tmp_path, lambda number, disc: disc + 2 * (number == 3))
    printed = segreg("data", "check", recipe)
    assert printed.status == 2
    lines = printed.out.splitlines()
    (at,) = (n for n, line in enumerate(lines) if "03.png" in line and "the values 2 and 3" in line)
    assert lines[at].startswith("    ")
    assert lines[at + 1].startswith("      set ")
    assert "foreground: nonzero" in lines[at + 1]


def test_what_is_ignored_stands_in_the_header_the_environment_the_results_and_the_report(tmp_path, segreg):
    def change(number, disc):
        disc[:8] = 2
        return disc

    recipe = recipe_of(tmp_path, change, more=", values: {background: 0, disc: 1, ignore: 2}")
    printed = segreg("run", recipe, "train.epochs=1", "evaluate.overlays=0", "--out", tmp_path / "runs")
    assert printed.status == 0, printed.err
    alert = "IGNORED PIXELS: 20% of train, 20% of val, 20% of test"
    header, _, end = printed.out.partition("epoch 1/1")
    assert f"!! {alert}" in header
    assert f"!! {alert}" in end
    assert "ignored    20% of train, 20% of val, 20% of test" in header.splitlines()
    (run,) = (tmp_path / "runs" / "tiny").iterdir()
    data = json.loads((run / "environment.json").read_text())["data"]
    assert data["splits"]["train"]["ignored_share"] == 0.2
    assert sum(data["splits"]["train"]["pixels_by_class"].values()) == 0.8 * data["splits"]["train"]["pixels"]
    assert json.loads((run / "results.json").read_text())["alerts"] == data["alerts"]
    assert data["alerts"][0].startswith(alert)
    assert alert in (run / "report.html").read_text()
    checked = segreg("data", "check", recipe).out
    assert f"!! {alert}" in checked
    assert "  ignored   20% of train, 20% of val, 20% of test" in checked.splitlines()


def test_objects_stand_in_the_header_and_the_environment(tmp_path, segreg):
    recipe_of(tmp_path, lambda _, disc: disc)
    square = [5, 5, 25, 5, 25, 25, 5, 25]
    content = {
        "images": [{"id": n, "file_name": f"{n:02d}.png", "width": 40, "height": 40} for n in range(16)],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "iscrowd": n % 2,
             "segmentation": {"counts": [210, 600, 790], "size": [40, 40]} if n % 2 else [square]} for n in range(16)
        ],
    }  # fmt: skip
    dataset = f"{{name: coco, annotations: {tmp_path}/instances_default.json, images: {tmp_path}/images}}"
    text = small_runs.RECIPE.replace("{name: synthetic_lesions, root: images, samples: 24, size: 48}", dataset)
    recipe = tiny_runs.write_recipe(tmp_path, text.replace("dice_bce", "cross_entropy"))
    (tmp_path / "instances_default.json").write_text(json.dumps(content))
    with tiny_runs.undrawn():
        printed = segreg("run", recipe, "train.epochs=1", "evaluate.overlays=0", "--out", tmp_path / "runs")
    assert printed.status == 0, printed.err
    note = "all 8 masks of instances_default.json have iscrowd 1, as CVAT writes it"
    (line,) = (line for line in printed.out.splitlines() if line.startswith("objects    "))
    assert line.startswith(f"objects    16 objects, all drawn; {note}")
    (run,) = (tmp_path / "runs" / "tiny").iterdir()
    objects = json.loads((run / "environment.json").read_text())["data"]["objects"]
    assert (objects["total"], objects["ignored"], objects["left_out"]) == (16, {}, {})
    assert objects["notes"][0].startswith(note)
    alert = "OBJECTS LEFT OUT: of 16 objects: 8 ignored (iscrowd is 1; `crowd: draw` draws them)"
    printed = segreg("data", "check", recipe, "dataset.crowd=ignore")
    assert alert in " ".join(printed.out.replace("!!", "").split())
    (tmp_path / "instances_default.json").write_text(
        json.dumps(content | {"annotations": [each | {"iscrowd": 1} for each in content["annotations"]]})
    )
    printed = segreg("run", recipe, "dataset.crowd=ignore", "--out", tmp_path / "others")
    assert printed.status == 2
    assert "16 ignored (iscrowd is 1; `crowd: draw` draws them)" in printed.err


def test_a_class_that_a_split_does_not_show_is_a_warning_of_the_run(tmp_path, segreg):
    recipe = recipe_of(tmp_path, lambda number, disc: disc * (2 if number in (0, 1) else 1), "[ground, a, b]")
    words = ["split.method=lists", "loss=cross_entropy", "train.epochs=1", "evaluate.overlays=0"]
    for split, ids in (("train", range(10)), ("val", range(10, 13)), ("test", range(13, 16))):
        (tmp_path / f"{split}.txt").write_text("\n".join(f"{number:02d}" for number in ids))
        words.append(f"split.lists.{split}={tmp_path}/{split}.txt")
    printed = segreg("run", recipe, *words, "--out", tmp_path / "runs")
    assert printed.status == 0, printed.err
    assert 'warning    val never shows "b": only 2 images show it' in printed.out.splitlines()
    (run,) = (tmp_path / "runs" / "tiny").iterdir()
    warnings = [f'{split} never shows "b": only 2 images show it' for split in ("val", "test")]
    assert json.loads((run / "results.json").read_text())["warnings"] == warnings
    assert "val never shows &#34;b&#34;" in (run / "report.html").read_text()
    assert all(f"warning: {warning}" in segreg("data", "check", recipe, *words).out for warning in warnings)


def test_a_stratified_split_is_that_of_run_check_and_folders_and_says_what_cannot_be(tmp_path, segreg):
    """Of 16 images 4 show "b", and one alone "c"."""

    def change(number, disc):
        return disc * (2 if number in (2, 5, 11, 12) else 3 if number == 7 else 1)

    recipe = recipe_of(tmp_path, change, "[ground, a, b, c]")
    words = ["split={method: random, val: 0.25, test: 0.25, stratify: true}", "loss=cross_entropy", "train.epochs=1"]
    words.append("evaluate.overlays=0")
    with tiny_runs.undrawn():
        printed = segreg("run", recipe, *words, "--out", tmp_path / "runs")
    assert printed.status == 0, printed.err
    (run,) = (tmp_path / "runs" / "tiny").iterdir()
    split = json.loads((run / "split.json").read_text())
    assert [sum(name in ids for name in ("02", "05", "11", "12")) for ids in split.values()] == [2, 1, 1]
    assert "07" in split["train"]
    assert json.loads((run / "results.json").read_text())["warnings"] == [
        f'{split} never shows "c": only 1 image shows it' for split in ("val", "test")
    ]
    by_class = json.loads((run / "environment.json").read_text())["data"]["splits"]["test"]["images_by_class"]
    assert by_class == {"ground": 4, "a": 3, "b": 1, "c": 0}
    assert "stratify: true" in (run / "resolved.yaml").read_text()
    checked = segreg("data", "check", recipe, *words)
    assert 'test never shows "c": only 1 image shows it' in checked.out
    assert segreg("data", "split", recipe, *words, "--out", tmp_path / "written").status == 0
    for name, ids in split.items():
        assert {file.stem for file in (tmp_path / "written" / f"{name}_split" / "images").iterdir()} == set(ids)
    with tiny_runs.undrawn():
        assert segreg("run", "--resume", run, "--quiet").status == 0


def test_several_rare_classes_are_counted_in_one_line():
    task = Task(("sea", "land", "a", "b", "c"), "multiclass")
    splits = {
        split: SplitPixels(2, np.array(counts), np.full(5, 20), 20, np.minimum(counts, 2))
        for split, counts in {"train": (9, 3, 1, 2, 5), "val": (9, 11, 0, 0, 0), "test": (9, 11, 0, 0, 0)}.items()
    }
    warnings = judge(task, splits, None).warnings()
    assert warnings[0] == 'val never shows "a", "b" and "c": there are only so few images, 1 of a, 2 of b and 2 of c'
