"""Bundles: what is in them and what they refuse; masks of other images are compared in test_export_run.py."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

import exported
import plugged
import segreg
import tiny_runs
from segreg.cli import main
from segreg.config.sections import Input
from segreg.data import restore
from segreg.data.images import read_image
from segreg.errors import SegregError
from segreg.runs.bundle import HERE

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
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(image).save(photos / "photo.png")
    for name in (".DS_Store", "notes.txt"):
        (photos / name).write_text("of a photo", encoding="utf-8")
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
    shutil.copyfile(photos / "photo.png", photos / "photo.bmp")
    (tmp_path / "row").mkdir()
    shutil.copyfile(photos / "photo.png", tmp_path / "row" / "photo.png")
    for given, out in ((photos, "masks"), (tmp_path / "row", ".")):
        done = exported.alone(tmp_path / "there" / "rows", given, "--out", tmp_path / out)
        assert done.returncode == 1
        assert "would replace images, or each other" in done.stderr


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
    assert main(["export", str(run.directory.path), "--format", "bundle", "--out", str(tmp_path / "mine")]) == 2
    clipped, flipped = (shutil.copytree(run.directory.path, tmp_path / name) for name in ("clipped", "flipped"))
    for folder, was, now in ((clipped, "clip: null", "clip: [1, 99]"), (flipped, "flips: none", "flips: mirror")):
        text = (folder / "resolved.yaml").read_text()
        assert text.count(was) == 1
        (folder / "resolved.yaml").write_text(text.replace(was, now))
    for path, says, *options in (
        (clipped, "input.clip"),
        (flipped, "evaluate.scales, evaluate.flips"),
        (run.directory.path, "its program makes labels", "--labels"),
    ):
        command = ["export", str(path), "--format", "bundle", "--out", str(tmp_path / "no"), *options]
        assert main(command) == 2
        assert says in capsys.readouterr().err
        assert not (tmp_path / "no").exists()
    with pytest.raises(SegregError, match="bundle"):
        segreg.export(run, "bundle")


def program(folder, channels=3, **section):
    """Return the functions of a bundle's program."""
    section = {"resize": "crop", "normalize": "dataset", "mean": None, "dtype": "uint8", **section}
    network = {"shape": [None, channels, None, None], "multiple": 1, "least": 33}
    notes = {"input": section, "network": {"input": network}, "evaluate": {"tile": "auto"}, "classes": ["a"]}
    (folder / "network.json").write_text(json.dumps(notes))
    shutil.copyfile(HERE / "bundle_predict.py.txt", folder / "predict.py")
    return runpy.run_path(str(folder / "predict.py"))


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize("size", [(13, 7), (24, 32), (31, 20), (100, 75), (1, 9), (90, 1)])
def test_maps_of_smaller_images_are_antialiased_as_segreg_does(tmp_path, resize, size):
    functions = program(tmp_path, resize=resize, size=[24, 32])
    maps = np.random.default_rng(0).random((2, 24, 32), np.float32)
    top, left, height, width, *_ = functions["place"](size)
    found = functions["restored"](maps[:, top : top + height, left : left + width], size)
    wanted = restore(torch.from_numpy(maps), size, Input(size=(24, 32), resize=resize))
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("resize", "taken", "refused", "says"),
    [
        (
            "none",
            (24, 32),
            (32, 24),
            "a.png: is 32x24 (height x width), and the network was trained on",
        ),
        ("crop", (33, 40), (40, 32), "takes images of at least 33 pixels a side"),
        ("crop", (2048, 2048), (2048, 2049), "in tiles, which `segreg predict` makes"),
        ("stretch", (4000, 3000), None, ""),
    ],
)
def test_sizes_that_segreg_would_refuse_or_tile_are_refused(tmp_path, resize, taken, refused, says):
    check = program(tmp_path, resize=resize, size=[24, 32])["check_size"]
    check("a.png", *taken)
    if refused:
        with pytest.raises(SystemExit, match=re.escape(says)):
            check("a.png", *refused)


def test_what_pillow_would_change_is_refused(tmp_path):
    import cv2

    values = np.random.default_rng(0).integers(0, 256, (9, 7, 4), np.uint8)
    colours, grey = Image.fromarray(values[..., :3].copy()), Image.fromarray(values[..., 0].copy())
    full = Image.new("L", grey.size, 255)
    taken = {"colours.png": colours, "grey.png": grey, "palette.png": colours.quantize(5)}
    taken |= {"alpha.png": Image.merge("RGBA", (*colours.split(), full)), "la.png": Image.merge("LA", (grey, full))}
    refused = {"alpha_1.png": Image.fromarray(values), "cmyk.jpg": colours.convert("CMYK")}
    for name, image in (taken | refused).items():
        image.save(tmp_path / name)
    colours.save(tmp_path / "two.gif", save_all=True, append_images=[grey])
    cv2.imwrite(str(tmp_path / "wide.png"), values[..., :3].astype(np.uint16) * 200)
    Image.fromarray(values[..., 0] / np.float32(255)).save(tmp_path / "shares.tif")
    read = program(tmp_path)["read"]
    for name in taken:
        wanted = read_image(tmp_path / name).reshape(9, 7, -1)[..., :3]
        np.testing.assert_array_equal(read(tmp_path / name), np.broadcast_to(wanted, (9, 7, 3)))
    for name in (*refused, "two.gif", "wide.png"):
        with pytest.raises(SystemExit, match=f"{name}: has mode"):
            read(tmp_path / name)
    for name, given in (("colours.png", {"channels": 1}), ("shares.tif", {"channels": 1, "dtype": "uint16"})):
        with pytest.raises(SystemExit, match=f"{name}: has mode"):
            program(tmp_path, **given)["read"](tmp_path / name)
