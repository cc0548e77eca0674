"""A bench of folds on tiny images in groups, run in this process, once a session; nobody may change it."""

from __future__ import annotations

import contextlib
import os
from functools import cache
from pathlib import Path
from unittest import mock

import plugged
import tiny_runs
from segreg.benchmark.bench.bench import compared, prepare
from segreg.benchmark.bench.folder import BenchFolder
from segreg.benchmark.bench.local import work_on
from segreg.benchmark.bench.plan import Plan
from segreg.benchmark.bench.trials import trials_of
from segreg.registry.registry import load_registry
from segreg.reports.comparison import write_comparison
from segreg.runtime.progress import Quiet

FOLDS, GROUPS = 3, 10
RECIPE = """\
seed: 0
dataset: {name: folder, images: ROOT/images, masks: ROOT/masks, classes: [disc], groups: "^(g.)"}
split: {method: random, val: 0.2, test: 0.2, stratify: true}
input: {size: [32, 32]}
encoder: timm/test_resnet
decoder: {name: deeplabv3plus, channels: 16}
loss: dice_bce
optimizer: {name: adam, lr: 0.01}
train: {epochs: 6, batch_size: 4, precision: float32, device: cpu, monitor: val.dice.pooled}
evaluate: {metrics: [dice, iou, roc_auc], overlays: 0, resolution: original}
"""
MODELS = ("timm/test_resnet", "timm/test_vit")


def bench(tmp_path_factory):
    """Return the folder of a bench of two models in three folds, on 20 images in 10 groups of which 2 are the test."""
    return _bench_in(tmp_path_factory.getbasetemp() / "folded", FOLDS)


def bench_without(tmp_path_factory):
    """Return the folder of a bench of one model without folds, on the same images."""
    return _bench_in(tmp_path_factory.getbasetemp() / "not folded", None)


def plan_in(root, folds=FOLDS, **changes):
    """Write images in groups and the recipe, and return the plan of a bench."""
    images, masks = tiny_runs.folder_dataset(root, count=2 * GROUPS, size=(40, 36))
    for folder in (images, masks):
        for number, file in enumerate(sorted(folder.iterdir())):
            file.rename(folder / f"g{number // 2}_{number % 2}.png")
    recipe = tiny_runs.write_recipe(root, RECIPE.replace("ROOT", str(root)), name="discs")
    return Plan(recipe, {"encoder": MODELS} if folds else {}, folds=folds, **changes)


@cache
def _bench_in(root, folds):
    root.mkdir()
    plan, folder = plan_in(root, folds), BenchFolder(root / "bench")
    with contextlib.ExitStack() as changed:
        changed.enter_context(mock.patch.dict(os.environ, {"SEGREG_CACHE": str(root / "cache")}))
        for name in tiny_runs._SLOW:
            changed.enter_context(mock.patch(name))
        changed.enter_context(
            mock.patch(
                "segreg.registry.registry.entry_points",
                lambda group: [point for point in plugged.builtin() if point.group == group],
            )
        )
        trials = trials_of(plan, load_registry())
        folder.make()
        prepare(trials, folder, again=False)
        for trial in trials:
            work_on(folder.recipe(trial), folder.run(trial).path, "")
        comparison, images = compared(plan, trials, folder, 0, Quiet())
        write_comparison(comparison, Path(folder.path), images)
    return folder.path
