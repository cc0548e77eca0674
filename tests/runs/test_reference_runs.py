"""What docs/reference-systems.md says of whole recipes: variants, sweeps and images that a run of them leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

import segreg
import small_runs
import tiny_runs
from segreg.config.recipe import read_recipe
from segreg.config.resolve import resolve
from segreg.models.build import build_model
from segreg.registry.registry import load_registry
from segreg.task import Task

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = (
    "input.size=[32,32]", "train.batch_size=4", "train.epochs=1", "train.device=cpu", "train.precision=float32",
    "train.workers=0", "evaluate.overlays=0",
)  # fmt: skip


pytestmark = pytest.mark.usefixtures("three_convolutions")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))


def test_an_encoder_that_ends_at_the_third_stage_gives_1024_channels_at_stride_16():
    words = ["encoder.depth=4", "encoder.weights=null"]
    recipe = resolve(read_recipe(RECIPES / "isic_v3plus.yaml", words), load_registry())
    with torch.device("meta"):
        model = build_model(recipe, Task(("lesion",), "binary")).eval()
        seen = {}
        for name, part in (("coarse", model.decoder.aspp), ("fine", model.decoder.reduce)):
            part.register_forward_pre_hook(lambda _, given, name=name: seen.update({name: tuple(given[0].shape)}))
        logits = model(torch.zeros(1, 3, 64, 96))
    assert seen == {"coarse": (1, 1024, 4, 6), "fine": (1, 256, 16, 24)}
    assert logits.shape == (1, 1, 64, 96)
    assert not any(".layer4." in name for name, _ in model.encoder.named_parameters())
    assert any(".layer3." in name for name, _ in model.encoder.named_parameters())


@pytest.mark.slow
def test_the_recipe_from_scratch_trains_several_classes(tmp_path):
    images, masks = tiny_runs.folder_dataset(tmp_path / "set", count=14, classes=3)
    changes = [f"dataset.images={images}", f"dataset.masks={masks}", "dataset.classes=[background,road,car]",
               "loss=dice_ce", "encoder.name=resnet18", "encoder.depth=4", "schedule.warmup_epochs=0"]  # fmt: skip
    recipe = segreg.load_recipe(RECIPES / "scratch_v3plus.yaml", [*SMALL, *changes])
    with tiny_runs.undrawn():
        run = segreg.run_recipe(recipe, out=tmp_path / "runs", progress="quiet")
    names = {f"iou.class.{name}" for name in ("background", "road", "car")}
    assert names <= run.results["metrics"]["test"].keys()
    assert run.history[0]["train.loss"] > 0
    labels = run.predict(next(images.iterdir()))
    assert labels.shape == (40, 40)
    assert labels.max() <= 2


def test_a_run_leaves_both_curves_in_one_image(tmp_path):
    run = small_runs.run(tmp_path, "train.epochs=1", "evaluate.metrics=[dice, roc_auc, pr_auc]", drawn=True)
    with Image.open(run.directory.path / "roc_pr_curves.png") as image:
        assert image.width > 1.2 * image.height  # two panels
    assert "ROC and precision-recall curves" in run.directory.report.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_sweep_is_a_loop_of_runs_that_keep_their_overrides(tmp_path, segreg):
    images = f"dataset={{name: synthetic_lesions, root: {tmp_path}/images, samples: 14, size: 32}}"
    more = [images, "encoder=timm/test_resnet", "decoder.channels=16", *SMALL]
    sweep = [("1e-4", 4, "iou"), ("1e-3", 2, "dice_focal")]
    for rate, batch, loss in sweep:
        words = [*more, f"optimizer.lr={rate}", f"train.batch_size={batch}", f"loss={loss}"]
        with tiny_runs.undrawn():
            printed = segreg(
                "run", RECIPES / "isic_v3plus.yaml", *words, "--out", tmp_path / "runs" / "sweep", "--quiet"
            )
        assert printed.status == 0, printed.err
    runs = sorted((tmp_path / "runs" / "sweep" / "isic_v3plus").iterdir())
    for run, (rate, batch, loss) in zip(runs, sweep, strict=True):
        kept = yaml.safe_load((run / "resolved.yaml").read_text())
        assert (kept["optimizer"]["lr"], kept["train"]["batch_size"]) == (float(rate), batch)
        assert kept["loss"][0]["name"] == loss
        written = (run / "recipe.yaml").read_text()
        assert f"optimizer.lr={float(rate)}" in written
        assert f"loss={loss}" in written
        assert (run / "results.json").is_file()
