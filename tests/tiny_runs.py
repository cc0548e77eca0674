"""Recipes so small that a run of them takes a second, images for them, and runs that can be killed."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from functools import cache
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

RECIPE = """\
# A recipe of the tests.
seed: 3
dataset: {name: synthetic_lesions, root: images, samples: 24, size: 48}
split: {method: random, val: 0.2, test: 0.2}
input: {size: [32, 32]}
augment: [{name: HorizontalFlip, p: 0.5}]
encoder: timm/test_resnet
decoder: {name: deeplabv3plus, channels: 16}
loss: dice_bce
optimizer: {name: adam, lr: 0.01}
train: {epochs: 6, batch_size: 4, precision: float32, device: cpu, monitor: val.dice.pooled}
evaluate: {metrics: [dice, iou, accuracy], overlays: 2}
"""
"""After its six epochs the network has learnt something, and some of it wrongly."""
LAYERS = """
import numpy as np
from pathlib import Path
from segreg import Dataset, Entry, Sample, Task, hookimpl

def layers(*, count: int = 16):
    \"\"\"Images of two overlapping bars.

    Args:
        count: how many.
    \"\"\"
    def place(sample):
        return 4 + int(sample.id) % 20
    def read_image(sample):
        image = np.zeros((36, 36, 3), np.uint8)
        image[place(sample) : place(sample) + 10, :, 0] = 200
        image[:, place(sample) : place(sample) + 10, 1] = 200
        return image
    def read_mask(sample):
        mask = np.zeros((2, 36, 36), np.uint8)
        mask[0, place(sample) : place(sample) + 10] = 1
        mask[1, :, place(sample) : place(sample) + 10] = 1
        mask[:, :2] = 255
        return mask
    samples = [Sample(str(number), Path(f"{number}"), Path(f"{number}")) for number in range(count)]
    return Dataset(Task(("row", "column"), "multilabel"), samples, read_image, read_mask)

@hookimpl
def segreg_entries():
    return [Entry("dataset", "layers", layers)]
"""
"""A plugin whose data set, `layers`, has two classes that overlap, in images that are not files."""
LEAVES = {
    ".lock", "recipe.yaml", "resolved.yaml", "environment.json", "split.json", "history.csv", "history.jsonl",
    "state.pt", "best.safetensors", "last.safetensors", "results.json", "per_image.csv", "counts.csv",
    "per_image_mean.csv", "curves.png", "overlays", "report.html", "confusion.png",
}  # fmt: skip
"""What a finished run's directory holds."""

DRAWN = {"curves.png", "confusion.png", "report.html"}
"""What `undrawn` leaves out."""
_SLOW = ("segreg.runs.results.plot_history", "segreg.runs.results.plot_metrics", "segreg.reports.report_run")


def write_recipe(folder, text=RECIPE, *, name="tiny"):
    """Write the recipe, its images beside it, and return the file."""
    file = Path(folder) / f"{name}.yaml"
    file.write_text(text.replace("root: images", f"root: {folder}/images"), encoding="utf-8")
    return file


def run(folder, *overrides, text=RECIPE, drawn=False):
    """Run the recipe in a folder, quietly, its images and its cache there too.

    Diagrams and the report are only made if they are to be `drawn`.
    """
    import segreg

    cache = mock.patch.dict(os.environ, {"SEGREG_CACHE": str(Path(folder) / "cache")})
    with cache, contextlib.nullcontext() if drawn else undrawn():
        recipe = segreg.load_recipe(write_recipe(folder, text), overrides)
        return segreg.run_recipe(recipe, out=Path(folder) / "runs", progress="quiet")


@contextlib.contextmanager
def undrawn(*, reports=False):
    """Let runs of this process make neither diagrams nor, unless asked for, reports: both take longer than the rest."""
    with contextlib.ExitStack() as changed:
        for name in _SLOW[:2] if reports else _SLOW:
            changed.enter_context(mock.patch(name))
        yield


def finished(tmp_path_factory):
    """Return a finished run of the recipe as it is, made once a session; nobody may change it."""
    return _run_in(tmp_path_factory.getbasetemp() / "finished")


@cache
def _run_in(folder):
    folder.mkdir()
    return run(folder, drawn=True)


def folder_dataset(root, *, count=20, size=(40, 40), classes=1, seed=0):
    """Write `count` images of discs into `images` and their masks into `masks`, and return the folders.

    One class has masks of 0 and 255; several have class numbers and a strip of 255, which is ignored.
    """
    drawn = np.random.default_rng(seed)
    images, masks = Path(root) / "images", Path(root) / "masks"
    for folder in (images, masks):
        folder.mkdir(parents=True)
    rows, columns = np.mgrid[: size[0], : size[1]]
    for number in range(count):
        image = drawn.integers(0, 60, (*size, 3), dtype=np.uint8)
        mask = np.zeros(size, np.uint8)
        for label in range(1, max(classes, 2)):
            centre = drawn.uniform(0.2, 0.8, 2) * size
            disc = np.hypot(rows - centre[0], columns - centre[1]) < drawn.uniform(0.15, 0.35) * min(size)
            mask[disc] = label
            image[disc, label - 1] += np.uint8(150)
        if classes == 1:
            mask *= 255
        else:
            mask[:2] = 255
        Image.fromarray(image).save(images / f"image {number:02}.png")
        Image.fromarray(mask).save(masks / f"image {number:02}.png")
    return images, masks


def command(arguments, out, variables, *, own_group=False, drawn=False):
    """Run a command in this process, its output going to a file, and ends the process with its status."""
    import undrawn
    from segreg.cli import main

    if drawn:
        undrawn.changes.close()
    # Its own worker processes are forks of the one that this is a fork of, which knows where it listens.
    forkserver._forkserver.ensure_running = lambda: None
    if own_group:
        os.setpgid(0, 0)
    os.environ.update(variables)
    with Path(out).open("a", encoding="utf-8", buffering=1) as file:
        sys.stdout = sys.stderr = file
        sys.exit(main([str(argument) for argument in arguments]))


@cache
def _forge():
    """Return what forks processes from one that has imported everything, which takes seconds, and done nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["segreg.runs.run", "segreg.cli.run", "segreg.cli.bench", "segreg.cli.tune", "segreg.benchmark.bench.local",
         "segreg.benchmark.cost.measure", "segreg_plugins.encoders.timm_encoder", "albumentations", "optuna",
         "optuna.storages._rdb.models", "alembic.command", "sqlalchemy.dialects.sqlite", "segmentation_models_pytorch",
         "torchmetrics", "torch._dynamo", "matplotlib.figure", "matplotlib.backends.backend_agg", "undrawn"]
    )  # fmt: skip
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    with mock.patch.dict(os.environ, {"PYTHONPATH": path}):  # where it finds what it is to import
        forkserver.ensure_running()
    return context


def process(*arguments, out, target=command, options=None, **more):
    """Start a command in a process of its own, and return the process.

    `target` does in the process what `command` does, with `options`; `more` are variables of its environment. Diagrams
    and the report are only made with the option `drawn`.
    """
    variables = {name: os.environ[name] for name in ("SEGREG_CACHE", "TERM", "COLUMNS") if name in os.environ} | more
    started = _forge().Process(target=target, args=(arguments, str(out), variables), kwargs=options or {})
    started.start()
    return started
