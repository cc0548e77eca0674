"""What crops of images at their own scale cost: a training step, a crop's bytes and time, and the process's memory.

    python benchmarks/crops.py speed     crops of 256 against stretched images of 256: images/s in turns, and the ratio
    python benchmarks/crops.py reads     bytes read and milliseconds of a crop, from images of 1 to 100 megapixels
    python benchmarks/crops.py memory    memory while 10, 100 and 1,000 images of 12 megapixels are prepared and read

`reads` has the operating system forget the file before each crop; "asked" are the bytes that the reads asked for,
"disk" those that came from the disk (0 where the folder's file system does not count them). `memory` has images of one
channel, 24 MB each with their masks, so that 1,000 are 24 GB of disk in --folder; more than half of what is free there
is left out. Each of its rows is a process of its own. --json FILE leaves all numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RECIPE = """\
dataset: {{name: folder, images: unused, masks: unused, classes: [field]}}
input: {{size: [{crop}, {crop}], resize: {resize}}}
augment: [{{name: HorizontalFlip, p: 0.5}}]
encoder: {encoder}
decoder: deeplabv3plus
loss: dice_bce
optimizer: {{name: sgd, lr: 0.001}}
train: {{batch_size: {batch}, precision: auto, device: {device}}}
evaluate: {{metrics: [dice]}}
"""


def main() -> None:
    """Measure one thing and print its table."""
    own = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    own.add_argument("what", choices=("speed", "reads", "memory"))
    own.add_argument("--crop", type=int, default=256, help="side of a crop in pixels (256)")
    own.add_argument("--folder", type=Path, help="where images are written and removed (a temporary folder)")
    own.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers there")
    own.add_argument("--rounds", type=int, default=7, help="speed: pairs of epochs (7)")
    own.add_argument("--images", type=int, default=64, help="speed: images in an epoch (64)")
    own.add_argument("--side", type=int, default=1024, help="speed: height and width of the images (1024)")
    own.add_argument("--encoder", default="resnet18", help="speed: of DeepLabV3+, from random weights (resnet18)")
    own.add_argument("--batch", type=int, default=8, help="speed: images in a batch (8)")
    own.add_argument("--device", default="auto", help="speed: auto, cpu, cuda")
    own.add_argument("--megapixels", type=float, nargs="+", default=[1, 3, 12, 50, 100], help="reads: of the images")
    own.add_argument("--crops", type=int, default=200, help="reads: crops of each image (200)")
    own.add_argument("--counts", type=int, nargs="+", default=[10, 100, 1000], help="memory: of images")
    own.add_argument("--of", type=float, default=12, help="memory: megapixels of an image (12)")
    own.add_argument("--one", type=int, help=argparse.SUPPRESS)
    chosen = own.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        os.environ["SEGREG_CACHE"] = f"{folder}/cache"
        if chosen.one:
            print(json.dumps(memory_of(chosen.one, chosen.of, chosen.crop, Path(folder))))
            return
        rows = {"speed": speed, "reads": reads, "memory": memory}[chosen.what](chosen, Path(folder))
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def made(count: int, side: tuple[int, int], channels: int, folder: Path) -> Any:
    """Return a data set of `count` images that all hold the same smooth noise, which is in memory once."""
    import cv2
    import numpy as np

    import segreg
    from segreg.registry.protocols import Sample
    from segreg.task import Task

    drawn = np.random.default_rng(0)
    field = cv2.resize(drawn.random((8, 8), np.float32), side[::-1])
    mask = (field > 0.5).astype(np.uint8)
    image = np.repeat((255 * field).astype(np.uint8)[..., None], channels, axis=2)
    noise = drawn.integers(0, 32, (min(512, side[0]), min(512, side[1]), 1), np.uint8)
    for top in range(0, side[0], 512):
        for left in range(0, side[1], 512):
            part = image[top : top + 512, left : left + 512]
            part //= 2
            part += noise[: part.shape[0], : part.shape[1]]
    file = folder / "image"
    file.write_text("held in memory", encoding="utf-8")
    samples = [Sample(str(number), file, file) for number in range(count)]
    return segreg.Dataset(Task(("field",), "binary"), samples, lambda _: image, lambda _: mask)


def settings(resize: str, crop: int, channels: int) -> Any:
    """Return the section input."""
    from segreg.config.sections import Input

    return Input(size=(crop, crop), resize=resize, channels=channels)  # type: ignore[arg-type]


def speed(chosen: argparse.Namespace, folder: Path) -> list[dict[str, float]]:
    """Train epochs of crops and of stretched images in turns, with two networks of the same weights."""
    import torch

    from segreg.config.recipe import read_recipe
    from segreg.config.resolve import resolve
    from segreg.data import BatchLoader, fitting_workers, prepare
    from segreg.data.crops import Crops
    from segreg.models import build
    from segreg.registry.registry import load_registry
    from segreg.runs.assembly import tried_augmentation
    from segreg.runtime.device import choose_device, choose_precision, prepare_process, seed_everything
    from segreg.runtime.progress import Quiet
    from segreg.training.loss import Objective
    from segreg.training.setup import Setup
    from segreg.training.setup import prepare as prepare_training
    from segreg.training.trainer import train_pass

    print(prepare_process())
    both = {}
    dataset = made(chosen.images, (chosen.side, chosen.side), 3, folder)
    for resize in ("stretch", "crop"):
        file = folder / f"{resize}.yaml"
        words = {"crop": chosen.crop, "encoder": chosen.encoder, "batch": chosen.batch, "device": chosen.device}
        file.write_text(RECIPE.format(resize=resize, **words), encoding="utf-8")
        recipe = resolve(read_recipe(file), load_registry())
        device = choose_device(recipe.train.device)
        precision = choose_precision(recipe.train.precision, device)
        seed_everything(0)
        prepared = prepare(dataset, recipe.input)
        loader = BatchLoader(
            prepared, range(chosen.images), batch_size=chosen.batch, augment=tried_augmentation(recipe, dataset.task),
            workers=fitting_workers(device.type),
            crops=Crops(recipe.input, recipe.crop, dataset.task) if resize == "crop" else None,
        )  # fmt: skip
        model = build.build_model(recipe, dataset.task)
        normalize = build.build_normalize(recipe, model.encoder)  # type: ignore[arg-type]
        setup = Setup(
            Objective(model, normalize, build.build_losses(recipe, dataset.task)),
            build_optimizer=lambda groups, recipe=recipe: build.build_optimizer(recipe, groups),
            build_schedule=lambda optimizer, steps, _, recipe=recipe: build.build_schedule(recipe, optimizer, steps),
            settings=recipe.train,
            device=device,
            precision=precision,
        )
        both[resize] = loader, prepare_training(setup, steps_per_epoch=len(loader))
    print(f"{device}: {precision.reason}; {chosen.images} images of {chosen.side}x{chosen.side} in batches of "
          f"{chosen.batch}, {chosen.encoder}")  # fmt: skip
    rows: list[dict[str, float]] = []
    for number in range(chosen.rounds + 1):
        row: dict[str, float] = {}
        for resize in ("stretch", "crop") if number % 2 else ("crop", "stretch"):
            loader, training = both[resize]
            begun = time.perf_counter()
            images = train_pass(training, loader, number + 1, Quiet())[1]
            if device.type == "cuda":
                torch.cuda.synchronize()
            row[resize] = images / (time.perf_counter() - begun)
        if number:  # the first is the warm-up
            rows.append(row | {"ratio": row["crop"] / row["stretch"]})
    for loader, _ in both.values():
        loader.close()
    print(f"{'round':>6}{'stretched':>12}{'crops':>10}{'ratio':>8}   images/s")
    for number, row in enumerate(rows, start=1):
        print(f"{number:>6}{row['stretch']:>12.1f}{row['crop']:>10.1f}{row['ratio']:>8.3f}")
    medians = {name: statistics.median(row[name] for row in rows) for name in ("stretch", "crop", "ratio")}
    print(f"{'median':>6}{medians['stretch']:>12.1f}{medians['crop']:>10.1f}{medians['ratio']:>8.3f}")
    return rows


def reads(chosen: argparse.Namespace, folder: Path) -> list[dict[str, float]]:
    """Draw crops at the image's own scale, each of a file that the operating system has just forgotten."""
    import numpy as np

    from segreg.config.sections import Crop
    from segreg.data import prepare
    from segreg.data.crops import Crops

    rows = []
    print(
        f"{'megapixels':>10}{'asked':>12}{'disk':>12}{'cold':>10}{'warm':>10}   bytes and ms of a crop of {chosen.crop}"
    )
    for megapixels in chosen.megapixels:
        height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
        dataset = made(1, (height, round(megapixels * 1e6 / height)), 3, folder)
        prepared: Any = prepare(dataset, settings("crop", chosen.crop, 3))
        crops = Crops(prepared.input, Crop(), dataset.task)
        descriptor = os.open(prepared.blocks.file, os.O_RDONLY)
        os.fsync(descriptor)
        cold, warm, asked, disk = [], [], [], []
        for number in range(chosen.crops):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            before, begun = read_so_far(), time.perf_counter()
            crops.draw(prepared, 0, np.random.default_rng(number))
            cold.append(1e3 * (time.perf_counter() - begun))
            after = read_so_far()
            asked.append(after[0] - before[0])
            disk.append(after[1] - before[1])
            begun = time.perf_counter()
            crops.draw(prepared, 0, np.random.default_rng(number))
            warm.append(1e3 * (time.perf_counter() - begun))
        os.close(descriptor)
        shutil.rmtree(folder / "cache")
        found = {"asked": asked, "disk": disk, "cold": cold, "warm": warm}
        row = {"megapixels": megapixels, **{name: float(statistics.median(each)) for name, each in found.items()}}
        rows.append(row)
        print(f"{megapixels:>10g}{row['asked']:>12,.0f}{row['disk']:>12,.0f}{row['cold']:>10.2f}{row['warm']:>10.2f}",
              flush=True)  # fmt: skip
    return rows


def read_so_far() -> tuple[int, int]:
    """Return the bytes that this process asked for, and those that came from the disk, so far."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text(encoding="ascii").splitlines())
    return int(fields["rchar"]), int(fields["read_bytes"])


def memory(chosen: argparse.Namespace, folder: Path) -> list[dict[str, float]]:
    """Have a process for each number of images measure itself."""
    rows = []
    print(f"{'images':>6}{'before':>10}{'preparing':>11}{'an epoch':>10}   MB at most, of crops of {chosen.crop}")
    for count in chosen.counts:
        needed = 2 * count * chosen.of * 1e6
        if needed > shutil.disk_usage(folder).free / 2:
            print(f"{count:>6}  left out: {needed / 1e9:.0f} GB are more than half of what is free in {folder}")
            continue
        words = [
            sys.executable, __file__, "memory", "--one", str(count), "--of", str(chosen.of), "--crop", str(chosen.crop),
            "--folder", str(folder),
        ]  # fmt: skip
        limit = {"SEGREG_CACHE_LIMIT_GB": str(needed / 1e9 + 1)}
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **limit})
        row = json.loads(done.stdout.splitlines()[-1])
        rows.append(row)
        print(f"{count:>6}{row['before']:>10.0f}{row['preparing']:>11.0f}{row['epoch']:>10.0f}", flush=True)
    return rows


def memory_of(count: int, megapixels: float, crop: int, folder: Path) -> dict[str, float]:
    """Return the largest resident memory in MB: with one image, while all are prepared, and in an epoch of crops."""
    import torch  # noqa: F401, so that it counts in `before`

    from segreg.config.sections import Crop
    from segreg.data import BatchLoader, prepare
    from segreg.data.crops import Crops

    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    dataset = made(count, (height, round(megapixels * 1e6 / height)), 1, folder)
    row: dict[str, float] = {"images": count, "before": largest_since()}
    prepared = prepare(dataset, settings("crop", crop, 1))
    row["preparing"] = largest_since()
    crops = Crops(prepared.input, Crop(), dataset.task)
    loader = BatchLoader(prepared, range(count), batch_size=8, crops=crops)
    for _ in loader.epoch(0):
        pass
    loader.close()
    return row | {"epoch": largest_since()}


def largest_since() -> float:
    """Return the largest resident memory of this process since the last call, in MB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    largest = next(float(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM"))
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return largest


if __name__ == "__main__":
    main()
