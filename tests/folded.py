"""A bench of folds on tiny images in groups, run in this process, once a session; nobody may change it."""

from __future__ import annotations

import contextlib
import os
from functools import cache
from pathlib import Path
from unittest import mock

import plugged
import small_runs
import tiny_runs
from segreg import Entry, hookimpl
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
encoder: three_convolutions
decoder: {name: mlp, channels: 8}
loss: dice_bce
optimizer: {name: adam, lr: 0.01}
train: {epochs: 6, batch_size: 4, precision: float32, device: cpu, monitor: val.dice.pooled}
evaluate: {metrics: [dice, iou, roc_auc], overlays: 0, resolution: original}
"""
MODELS = ("three_convolutions", "two_convolutions")


class TwoConvolutions(small_runs.ThreeConvolutions):
    """A smaller encoder still."""

    channels, strides = (8, 16), (2, 4)


def two_convolutions(in_channels):
    """Two convolutions."""
    return TwoConvolutions(in_channels)


@hookimpl
def segreg_entries():
    return [
        Entry("encoder", "three_convolutions", small_runs.three_convolutions),
        Entry("encoder", "two_convolutions", two_convolutions),
    ]


def points():
    """Return the entry points of the built-in parts and of the encoders of the bench."""
    return [*plugged.builtin(), plugged.point(__name__)]


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
                lambda group: [point for point in points() if point.group == group],
            )
        )
        trials = trials_of(plan, load_registry())
        folder.make()
        prepare(trials, folder, again=False)
        for trial in trials:
            work_on(folder.recipe(trial.name), folder.run(trial).path, trial.source)
        comparison, images = compared(plan, trials, folder, 0, Quiet())
        write_comparison(comparison, Path(folder.path), images)
    return folder.path
