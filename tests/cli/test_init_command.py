"""`segreg init`: the recipe that it writes, with comments, and what it does not overwrite."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from PIL import Image

import segreg as api
from segreg.config.commented import recipe_text


@pytest.fixture
def disks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows, columns = np.indices((48, 48))
    for number in range(24):
        rng = np.random.default_rng(number)
        row, column = rng.integers(12, 36, 2)
        disk = (rows - row) ** 2 + (columns - column) ** 2 < 60
        noise = rng.integers(0, 100, (48, 48, 3)) + 100 * disk[..., None]
        for kind, values in (("images", noise), ("masks", 255 * disk)):
            (tmp_path / "disks" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values.astype(np.uint8)).save(tmp_path / "disks" / kind / f"{number}.png")
    return tmp_path / "disks"


def test_a_recipe_that_checks_and_runs_on(segreg, disks, tmp_path):
    done = segreg("init", "disks")
    assert done.status == 0, done.err
    assert "disks is read as folder: 24 pairs of images and masks by name" in done.out
    assert "segreg run disks.yaml" in done.out
    text = (tmp_path / "disks.yaml").read_text()
    assert "  size: [48, 48]       # that of all images" in text
    assert "  name: resnet18             # that of the budget small" in text
    assert all(len(line) <= 120 for line in text.splitlines())
    assert segreg("check", "disks.yaml").out == "disks.yaml: fine\n"
    before = text
    refused = segreg("init", "disks")
    assert (refused.status, "disks.yaml exists already" in refused.err) == (2, True)
    assert (tmp_path / "disks.yaml").read_text() == before
    assert segreg("init", "disks", "--force", "train.epochs=3", "encoder=resnet34").status == 0
    changed = (tmp_path / "disks.yaml").read_text()
    assert "encoder: resnet34   # as asked for" in changed
    assert yaml.safe_load(changed)["train"]["epochs"] == 3


def test_json_has_fingerprint_and_reasons_and_writes_nothing(segreg, disks, tmp_path):
    done = segreg("init", "disks", "--json", "--budget", "medium")
    found = json.loads(done.out)
    assert (found["budget"], found["written"], list(tmp_path.glob("*.yaml"))) == ("medium", None, [])
    assert found["fingerprint"]["objects"]["foreground"]["count"] == 24
    reasons = {one["path"]: one["why"] for one in found["decisions"]}
    assert "MiB" in reasons["train.batch_size"]
    assert found["recipe"]["encoder"]["name"] == "resnet50"


def test_from_python(disks):
    found = api.init(disks, {"dataset.classes": ["disk"]}, budget="small")
    assert found.fingerprint.task.classes == ("disk",)
    assert api.check(found.recipe) == []
    assert "classes: [disk]   # as asked for" in found.text


def test_pixels_that_are_ignored_are_noted(disks):
    assert not any("ignored" in note for note in api.init(disks).notes)
    for file in (disks / "masks").iterdir():
        values = np.asarray(Image.open(file)) // 255
        values[:24] = 255
        Image.fromarray(values).save(file)
    assert "50% of the pixels are ignored: see whether they should be" in api.init(disks).notes


def test_a_file_with_a_blank_is_quoted(segreg, disks):
    assert "segreg run 'two words.yaml'" in segreg("init", "disks", "--out", "two words.yaml").out


def test_what_can_not_train_is_said(segreg, disks):
    for file in sorted(disks.rglob("*.png")):
        if file.stem != "3":
            file.unlink()
    done = segreg("init", "disks")
    assert done.status == 1
    assert "warning: the split leaves train empty" in done.err or "warning: the split leaves val empty" in done.err


def test_a_mask_that_can_not_be_read_is_named(segreg, disks):
    (disks / "masks" / "3.png").write_bytes(b"")
    done = segreg("init", "disks")
    assert done.status == 1
    assert "1 of the 24 images that were read can't be trained on, such as disks/masks/3.png: is empty" in done.err


def test_what_is_asked_for_wrongly(segreg, disks):
    assert "is not there" in segreg("init", "disk").err
    assert "--layout NAME" in segreg("init", "disks", "dataset.name=coco").err
    assert "epoch" in segreg("init", "disks", "train.epoch=3").err
    assert "there is no folder" in segreg("init", "disks", "--out", "nowhere/a.yaml").err


def test_comments_are_aligned_and_stay_on_one_line():
    values = {"seed": 0, "input": {"size": [8, 8], "resize": "none"}, "augment": [{"name": "Flip", "p": 0.5}]}
    reasons = {("input", "size"): "small", ("input", "resize"): "x" * 110, ("augment", "0"): "even"}
    assert recipe_text(values, reasons, ["head"]) == (
        "# head\n\nseed: 0\n\ninput:\n  size: [8, 8]   # small\n"
        f"  # {'x' * 110}\n  resize: none\n\naugment:\n  - {{name: Flip, p: 0.5}}   # even\n"
    )


def test_names_of_folders_do_not_leave_their_comments():
    reason = {("seed",): "seen in a\nencoder: x\x07"}
    assert recipe_text({"seed": 0}, reason, ["lesions\nencoder: x\x1b"]) == (
        "# lesions\\nencoder: x\\x1b\n\nseed: 0   # seen in a\\nencoder: x\\x07\n"
    )
