"""Predicting files: in their order, past broken ones, whole files only, and never mixed or over the images."""

from __future__ import annotations

import json
import os
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_predictor import BINARY, MULTICLASS, Largest, drawn, labels_of, predictor

from segreg.errors import SegregError
from segreg.inference.inputs import find_images
from segreg.inference.predictions import predict_files
from segreg.inference.predictor import InferenceConfig
from segreg.inference.writer import Outputs
from segreg.runtime.progress import Quiet


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def images(count=6, folder="in"):
    Path(folder).mkdir(exist_ok=True)
    for number in range(count):
        Image.fromarray(drawn(20 + number, 40 - number, seed=number)).save(f"{folder}/{number}.png")
    return find_images([folder])


class Told(Quiet):
    """Keep what is told."""

    lines: list[str]

    def say(self, text):
        self.lines.append(text)


def reported():
    progress = Told()
    object.__setattr__(progress, "lines", [])
    return progress


WHOLE = InferenceConfig()


def run(named, *, one=None, out="out", kinds=("masks",), config=WHOLE, progress=None, values="255", **given):
    outputs = Outputs(Path(out), kinds, BINARY, values, [(0, 0, 0), (255, 0, 0)])
    one = one or predictor()
    return predict_files(
        named, [one], outputs, config, **{"threshold": None, "progress": progress or Quiet(), **given}
    )  # fmt: skip


def mask(file):
    return np.array(Image.open(file))


@pytest.mark.parametrize(
    "config",
    [InferenceConfig(), InferenceConfig(batch_size=2), InferenceConfig(tile=(16, 16))],
    ids=["batch", "small batch", "tiles"],
)
def test_every_image_has_its_own_mask(config):
    named = images()
    one = predictor(size=3)
    summary = run(named, one=one, config=config)
    assert [image for image, _ in summary.predicted] == named
    for number, image in enumerate(named):
        expected = labels_of([one], drawn(20 + number, 40 - number, seed=number), config)
        np.testing.assert_array_equal(mask(f"out/masks/{image.name}.png"), expected * 255)


@pytest.mark.slow
def test_a_photo_of_12_megapixels_is_predicted_in_tiles_within_bounded_memory():
    size = (2848, 4288)
    Path("in").mkdir()
    image = np.zeros((*size, 3), np.uint8)
    image[:1424] = 200
    Image.fromarray(image).save("in/photo.png", compress_level=1)
    del image
    Path("small").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save("small/one.png")
    with Largest():  # imports are not what is measured
        run(find_images(["small"]), one=predictor(size=3))
    tracemalloc.start()
    try:
        with Largest() as largest:
            summary = run(
                find_images(["in"]), one=predictor(size=3), config=InferenceConfig(tile=(512, 512), batch_size=2)
            )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(summary.predicted), summary.failed) == (1, [])
    assert mask("out/masks/photo.png").shape == size
    assert largest.values <= 512 * size[1]  # a row of tiles, not a map of the image
    whole_map = 4 * size[0] * size[1]
    # The image as it is decoded and as it is kept, its mask, and a row of tiles; no map of all of it.
    assert peak < 2 * 3 * size[0] * size[1] + 2 * size[0] * size[1] + whole_map


@pytest.mark.parametrize("batch_size", [1, 3])
def test_broken_images_are_named_and_the_rest_go_on(batch_size):
    named = images()
    whole = Path("in/1.png").read_bytes()
    Path("in/1.png").write_bytes(whole[: len(whole) // 2])
    Path("in/3.png").write_bytes(b"")
    Image.fromarray(np.dstack([drawn(20, 20), drawn(20, 20, 1)])).save("in/5.png")  # a fourth channel
    progress = reported()
    summary = run(named, config=InferenceConfig(batch_size=batch_size), progress=progress)
    assert [image.name for image, _ in summary.predicted] == ["0", "2", "4"]
    assert [image.name for image, _ in summary.failed] == ["1", "3", "5"]
    whys = [why for _, why in summary.failed]
    assert whys[0].startswith("in/1.png: is damaged and can't be decoded")
    assert whys[1].startswith("in/3.png: is empty (0 bytes)")
    assert whys[2].startswith("in/5.png: has four channels")
    assert sorted(progress.lines) == sorted(f"failed: {why}" for why in whys)
    assert sorted(file.name for file in Path("out/masks").iterdir()) == ["0.png", "2.png", "4.png"]
    kept = json.loads(Path("out/prediction.json").read_text())
    assert kept == json.loads(json.dumps(summary.plain()))
    assert kept["failed"][1] == {"image": "in/3.png", "why": whys[1]}
    assert kept["predicted"][0] == {"image": "in/0.png", "masks": "out/masks/0.png"}


def test_what_an_earlier_prediction_left_of_an_image_that_fails_is_named():
    named = images(3)
    run(named, kinds=("masks", "overlays"))
    Path("in/1.png").write_bytes(b"")
    summary = run(named, kinds=("masks", "overlays"))
    why = summary.failed[0][1]
    assert why.splitlines()[-1] == "  out/masks/1.png and out/overlays/1.png are from an earlier prediction"
    assert summary.plain()["failed"] == [{"image": "in/1.png", "why": why}]
    assert Path("out/masks/1.png").is_file(), "nothing is deleted"


def test_what_cannot_be_written_is_named_and_the_rest_go_on():
    named = images(3)
    Path("out/masks/1.png").mkdir(parents=True)
    summary = run(named)
    assert [image.name for image, _ in summary.failed] == ["1"]
    assert summary.failed[0][1].startswith("in/1.png: its prediction can't be written (")
    assert sorted(file.name for file in Path("out/masks").iterdir()) == ["0.png", "1.png", "2.png"]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_an_image_that_the_network_refuses_is_named_and_the_others_are_predicted(batch_size):
    class Refusing(torch.nn.Module):
        def forward(self, images):
            if (images.flatten(1).std(1) < 1e-6).any():
                raise SegregError("this one is too small", hint="take another")
            return images[:, :1]

    named = images(4)
    one = predictor(model=Refusing())
    Image.new("RGB", (40, 21), (200, 200, 200)).save("in/1.png")
    summary = run(named, one=one, config=InferenceConfig(batch_size=batch_size))
    assert [image.name for image, _ in summary.predicted] == ["0", "2", "3"]
    assert [why for _, why in summary.failed] == ["in/1.png: this one is too small\n  take another"]


def test_only_what_is_not_there_is_predicted():
    named = images(4)
    run(named)
    Path("out/masks/2.png").unlink()
    stamps = {file: file.stat().st_mtime_ns for file in Path("out/masks").iterdir()}
    one = predictor()
    summary = run(named, one=one, existing="skip")
    assert [image.name for image in summary.skipped] == ["0", "1", "3"]
    assert [image.name for image, _ in summary.predicted] == ["2"]
    assert len(one.model.shapes) == 1
    assert all(file.stat().st_mtime_ns == stamp for file, stamp in stamps.items())
    # An image of which something is missing is predicted whole.
    assert len(run(named, existing="skip", kinds=("masks", "overlays")).predicted) == 4
    assert len(run(named, existing="skip", kinds=("masks", "overlays")).skipped) == 4


def test_predictions_of_other_settings_are_not_mixed():
    named = images(2)
    run(named)
    with pytest.raises(SegregError) as refused:
        run(named, existing="skip", threshold=0.3, config=InferenceConfig(flips="flips"))
    assert str(refused.value) == (
        'out holds predictions with other settings: threshold was 0.5, now 0.3; flips was "none", now "flips"\n'
        "  predict into another folder, or without --skip-existing, which replaces what is there"
    )
    assert len(run(named, threshold=0.3).predicted) == 2
    assert len(run(named, existing="skip", threshold=0.3).skipped) == 2
    for one, values in ((predictor(), "index"), (replace(predictor(), bands=(1, "red")), "255")):
        with pytest.raises(SegregError, match=r'values was null, now "index"|bands was null, now \[\[1, "red"\]\]'):
            run(named, one=one, values=values, existing="skip", threshold=0.3)
    run(named, one=one)
    assert len(run(named, one=one, existing="skip").skipped) == 2


def test_masks_of_an_earlier_prediction_are_not_taken_for_those_of_one_that_was_interrupted():
    named = images(4)
    run(named)

    class Interrupted(Told):
        def say(self, text):
            raise KeyboardInterrupt

    Path("in/2.png").write_bytes(b"")
    with pytest.raises(KeyboardInterrupt):
        run(named, threshold=0.3, progress=Interrupted())
    images(4)
    old = [file.name for file in Path("out/masks").iterdir() if file.stat().st_mtime_ns < began()]
    assert {"2.png", "3.png"} <= set(old)
    summary = run(named, threshold=0.3, existing="skip")
    assert sorted(f"{image.name}.png" for image, _ in summary.predicted) == sorted(old)
    assert len(run(named, threshold=0.3, existing="skip").skipped) == 4


def began():
    return json.loads(Path("out/prediction.json").read_text())["began"]


def test_masks_of_weights_that_have_changed_are_not_skipped():
    named, file = images(2), Path("best.safetensors")
    file.write_bytes(b"one")
    one = replace(predictor(), weights=file)
    run(named, one=one)
    assert len(run(named, one=one, existing="skip").skipped) == 2
    file.write_bytes(b"two")
    with pytest.raises(SegregError, match="other settings: weights_sha256 was"):
        run(named, one=one, existing="skip")


def test_a_prediction_by_an_earlier_segreg_is_continued():
    named = images(2)
    run(named)
    summary = json.loads(Path("out/prediction.json").read_text())
    del summary["began"], summary["settings"]["weights_sha256"]
    Path("out/prediction.json").write_text(json.dumps(summary))
    assert len(run(named, existing="skip").skipped) == 2


@pytest.mark.parametrize("existing", ["skip", "replace"])
def test_masks_that_segreg_did_not_write_are_never_replaced(existing):
    named = images(2)
    Path("out/masks").mkdir(parents=True)
    Path("out/masks/1.png").write_bytes(b"the truth")
    with pytest.raises(SegregError) as refused:
        run(named, existing=existing)
    assert str(refused.value) == (
        "out/masks/1.png is there, and no prediction: out has no prediction.json\n  predict into another folder"
    )
    assert Path("out/masks/1.png").read_bytes() == b"the truth"
    assert not Path("out/prediction.json").exists()


@pytest.mark.parametrize("existing", ["skip", "replace"])
def test_masks_that_are_older_than_the_first_prediction_are_never_replaced(existing):
    named = images(2)
    Path("out/masks").mkdir(parents=True)
    Path("out/masks/1.png").write_bytes(b"the truth")
    os.utime("out/masks/1.png", (1e9, 1e9))
    run(named[:1])
    run(named[:1], threshold=0.2)  # "began" is later now
    run(named[:1], threshold=0.2)
    with pytest.raises(SegregError) as refused:
        run(named, threshold=0.2, existing=existing)
    assert str(refused.value) == (
        "out/masks/1.png is older than the first prediction into out, so it is none\n  predict into another folder"
    )
    assert Path("out/masks/1.png").read_bytes() == b"the truth"


def test_predictions_of_all_settings_may_be_replaced():
    named = images(2)
    run(named)
    for file in Path("out/masks").iterdir():
        os.utime(file, ns=(began(), began()))
    first = began()
    run(named[:1], threshold=0.2)
    assert began() > first
    summary = run(named)
    assert len(summary.predicted) == 2
    assert summary.first_began == first


def test_a_threshold_that_takes_no_part_is_refused():
    outputs = Outputs(Path("out"), ("masks",), MULTICLASS, "index", [(0, 0, 0)] * 3)
    for threshold in (0.3, 0.5):
        with pytest.raises(SegregError, match=r"exclude each other.* no threshold"):
            predict_files(images(1), [predictor(MULTICLASS)], outputs, WHOLE, threshold=threshold, progress=Quiet())


def test_a_prediction_that_was_killed_has_said_what_it_was():
    named = images(4)

    class Killed(torch.nn.Module):
        def forward(self, images):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(named, one=predictor(model=Killed()))
    assert json.loads(Path("out/prediction.json").read_text())["settings"]["threshold"] == 0.5
    assert len(run(named, existing="skip").predicted) == 4


def test_a_image_is_never_replaced_by_its_prediction():
    images(2, folder="in")
    Path("in").rename("masks")
    with pytest.raises(SegregError) as refused:
        run(find_images(["masks"]), out=".")
    assert str(refused.value) == (
        "masks/0.png is an image that is read, and would be replaced by its prediction\n  predict into another folder"
    )


def test_a_folder_that_cannot_be_written_to():
    named = images(1)
    Path("out").write_text("a file")
    with pytest.raises(SegregError, match="out: can't be written to"):
        run(named)


@pytest.mark.parametrize("error", [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried"),
    MemoryError(),
], ids=["GPU", "CPU", "numpy"])  # fmt: skip
def test_memory_of_the_device_that_does_not_suffice(error):
    class Greedy(torch.nn.Module):
        def forward(self, images):
            raise error

    with pytest.raises(SegregError) as refused:
        run(images(2), one=predictor(model=Greedy()))
    assert str(refused.value) == (
        "the memory of cpu does not suffice\n  take a smaller --batch-size, or --tile for large images"
    )


def test_a_bug_is_not_taken_for_a_broken_image():
    class Broken(torch.nn.Module):
        def forward(self, images):
            raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        run(images(3), one=predictor(model=Broken()))
