"""Bundles: what is in them and what they refuse; masks of other images are compared in test_export_run.py."""

from __future__ import annotations

import json
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

import exported
import plugged
import segreg
import tiny_runs
from segreg.cli import main
from segreg.errors import SegregError

pytest.importorskip("onnxruntime", reason="needs the extra `export`")


@pytest.fixture(autouse=True, scope="module")
def _encoder():
    with exported.encoder(), exported.remembered_operators():
        yield


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))


def bundle_of(run, out):
    assert main(["export", str(run.directory.path), "--format", "bundle", "--out", str(out), "--quiet"]) == 0
    return out


def test_classes_that_overlap_and_a_zip(tmp_path, plugin, installed):
    installed(*plugged.builtin(), plugin(tiny_runs.LAYERS, distribution="segreg-layers"))
    run = tiny_runs.run(
        tmp_path,
        "loss=bce",
        "augment=[]",
        "input.size=[36,36]",
        "train.epochs=3",
        text=exported.RECIPE.replace(exported.SYNTHETIC, "layers"),
    )
    zipped = bundle_of(run, tmp_path / "rows.zip")
    with zipfile.ZipFile(zipped) as archive:
        assert sorted(archive.namelist()) == [
            f"rows/{name}" for name in ("README.md", "network.json", "network.onnx", "predict.py")
        ]
        archive.extractall(tmp_path / "there")
    image = np.zeros((36, 36, 3), np.uint8)
    image[5:15, :, 0] = 200
    (photos := tmp_path / "photos").mkdir()
    Image.fromarray(image).save(photos / "photo.png")
    (photos / "notes.txt").touch()
    done = exported.alone(tmp_path / "there" / "rows", photos, "--out", tmp_path / "masks")
    assert done.returncode == 0, done.stderr
    for number, name in enumerate(("row", "column")):
        found = np.asarray(Image.open(tmp_path / "masks" / name / "photo.png"))
        np.testing.assert_array_equal(found, run.predict(image)[number] * 255)
    wide = Image.fromarray(np.zeros((9, 9), np.uint16))
    wide.save(tmp_path / "wide.png")
    done = exported.alone(tmp_path / "there" / "rows", tmp_path / "wide.png", "--out", tmp_path / "masks")
    assert done.returncode == 1
    assert "wide.png: has mode I;16, and the network takes RGB" in done.stderr
    shutil.copy(photos / "photo.png", tmp_path)
    done = exported.alone(tmp_path / "there" / "rows", photos, tmp_path / "photo.png", "--out", tmp_path / "masks")
    assert done.returncode == 1
    assert "would have one mask" in done.stderr


def test_what_it_says_and_what_it_refuses(tmp_path, capsys):
    brief = ("train.epochs=1", "evaluate.overlays=0")
    run = tiny_runs.run(tmp_path, *brief, text=exported.RECIPE)
    capsys.readouterr()
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "predict.py").touch()  # as an earlier bundle has it, which is replaced
    bundle = bundle_of(run, tmp_path / "bundle")
    assert (bundle / "predict.py").stat().st_size
    readme = (bundle / "README.md").read_text(encoding="utf-8")
    assert "SYNTHETIC" in readme
    assert "| dice.pooled |" in readme
    notes = json.loads((bundle / "network.json").read_text(encoding="utf-8"))
    assert str(tmp_path) not in json.dumps(notes)
    assert capsys.readouterr().out == ""
    (tmp_path / "mine").mkdir()
    zipfile.ZipFile(tmp_path / "mine.zip", "w").close()
    for name in ("mine", "mine.zip"):
        assert main(["export", str(run.directory.path), "--format", "bundle", "--out", str(tmp_path / name)]) == 2
    clipped = shutil.copytree(run.directory.path, tmp_path / "clipped")
    resolved = clipped / "resolved.yaml"
    resolved.write_text(resolved.read_text().replace("  clip: null\n", "  clip: [1, 99]\n"))
    flipped = shutil.copytree(run.directory.path, tmp_path / "flipped")
    resolved = flipped / "resolved.yaml"
    resolved.write_text(resolved.read_text().replace("  flips: none\n", "  flips: mirror\n"))
    for path, words, *options in (
        (clipped, "input.clip"),
        (flipped, "evaluate.flips"),
        (run.directory.path, "its program makes labels", "--labels"),
    ):
        command = ["export", str(path), "--format", "bundle", "--out", str(tmp_path / "no"), *options]
        assert main(command) == 2
        assert words in capsys.readouterr().err
        assert not (tmp_path / "no").exists()
    with pytest.raises(SegregError, match="bundle"):
        segreg.export(run, "bundle")
