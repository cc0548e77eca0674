"""What `segreg run` takes beside other ways to train the same: whole processes, in turns, as medians and ratios.

Each trains a DeepLabV3+ of the same shape on the same images and validates after every epoch:

* segreg: `segreg run` with an empty cache of images; checkpoints, final scores, figures and report included.
* limit: a loop with segreg's network and all its settings of the device, on uint8 images that lie in memory.
* naive: a float32 loop as tutorials have it, with SMP's network, which decodes its images at every step.
* lightning: the same data with Lightning at its best setting. It needs `pip install pytorch-lightning` and is left out
  with a word where that is missing.

    python benchmarks/training.py
    python benchmarks/training.py --data data/dsb2018 --epochs 2
    python benchmarks/training.py --images 96 384 1536 --only segreg limit
    python benchmarks/training.py --device cuda --images 2048 --batch 8 32 128
    python benchmarks/training.py --device cuda --images 2048 --batch 8 --epochs 5 --set train.compile=true

Options that take several values make a case of each combination. `images/s` is of the steps behind each epoch's first
one, `epoch images/s` of whole training passes; `first step` is from the process's start to the end of the first step.
Peak memory is the largest of the process or of one of its workers. `cpu s` is of all of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from clock import Case
from contest import Column, Job, hold, options, run_quietly
from loops import CONTESTANTS, RATE, RATES

HERE = Path(__file__).parent
COLUMNS = (
    Column("images_per_s", "images/s"),
    Column("epoch_images_per_s", "epoch images/s"),
    Column("epoch_s", "epoch with validation s"),
    Column("first_s", "first step s"),
    Column("whole_s", "whole s"),
    Column("peak_rss_mib", "peak RSS MiB"),
    Column("gpu_mib", "peak GPU MiB"),
    Column("cpu_s", "cpu s"),
    Column("cpu_system_s", "of it system s", ratio=False),
    Column("val_loss", "val loss", ratio=False),
    Column("others", "others' share", ratio=False),
)


def main() -> None:
    """Print the tables."""
    chosen = parser().parse_args()
    if wrong := [f"{images} by {batch}" for images in chosen.images for batch in chosen.batch if images % batch]:
        raise SystemExit(f"--images must be a multiple of --batch, so that all steps are alike; not {wrong[0]}")
    names = [name for name in CONTESTANTS if name in chosen.only]
    if "lightning" in names and find_spec("pytorch_lightning") is None:
        names.remove("lightning")
        print("lightning is left out: pip install pytorch-lightning")
    with tempfile.TemporaryDirectory() as folder:
        cases = made(chosen, Path(folder))
        jobs = [Job(case, name, HERE / "loops.py", file) for case, file in cases.items() for name in names]
        hold(chosen, jobs, COLUMNS)


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = options(__doc__ or "", list(CONTESTANTS))
    parser.add_argument("--encoder", default="resnet50", help="one that SMP has (resnet50)")
    parser.add_argument(
        "--data", type=Path, help="a folder with images and masks of the same names, instead of generated ones"
    )
    parser.add_argument("--image-size", type=int, nargs=2, metavar=("W", "H"), help="of generated images (--size)")
    parser.add_argument("--images", type=int, nargs="+", default=[96], help="images that train (96)")
    parser.add_argument("--val", type=int, default=32, help="images that validate (32)")
    parser.add_argument("--size", type=int, nargs="+", default=[256], help="the network's height and width (256)")
    parser.add_argument("--batch", type=int, nargs="+", default=[8], help="images in a batch (8)")
    parser.add_argument("--classes", type=int, nargs="+", default=[1], help="classes; 1 is foreground alone (1)")
    parser.add_argument("--workers", type=int, nargs="+", default=[None], help="loaders' processes (what each has)")
    parser.add_argument("--epochs", type=int, default=1, help="epochs (1)")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="overrides of segreg's recipe")
    return parser


def made(chosen: argparse.Namespace, folder: Path) -> dict[str, Path]:
    """Return the file of each case by its words; images are made as far as they are needed."""
    found: dict[str, Path] = {}
    for images, size, batch, classes, workers in itertools.product(
        chosen.images, chosen.size, chosen.batch, chosen.classes, chosen.workers
    ):
        width, height = chosen.image_size or (size, size)
        data = chosen.data or folder / f"{width}x{height}_{classes}"
        if not data.exists() and not chosen.data:
            count = max(chosen.images) + chosen.val
            run_quietly([sys.executable, HERE / "images.py", data, *map(str, (count, width, height, classes))])
        own = folder / f"case{len(found)}"
        own.mkdir()
        files = sorted((data / "images").iterdir())[: images + chosen.val]
        if len(files) < images + chosen.val:
            raise SystemExit(f"{data} has {len(files)} images, of the {images + chosen.val} that were asked for")
        mask_of = {file.stem: str(file.absolute()) for file in (data / "masks").iterdir()}
        case = Case(
            recipe=str(own / "recipe.yaml"), images=[str(file.absolute()) for file in files],
            masks=[mask_of[file.stem] for file in files], train=images, encoder=chosen.encoder, size=size,
            batch=batch, classes=classes, epochs=chosen.epochs, workers=workers, device=chosen.device,
            changed=chosen.set,
        )  # fmt: skip
        write_recipe(case, data.absolute(), [file.stem for file in files])
        (own / "case.json").write_text(json.dumps(dataclasses.asdict(case)), encoding="utf-8")
        counted = [f"{images} + {chosen.val} images", "1 class" if classes == 1 else f"{classes} classes"]
        words = [chosen.encoder, *counted, f"{size}x{size}", f"batch {batch}", f"epochs {chosen.epochs}", chosen.device]
        if workers is not None:
            words.append(f"workers {workers}")
        if chosen.image_size:
            words.append(f"of files of {width}x{height}")
        found[", ".join([*words, *chosen.set])] = own / "case.json"
    return found


def write_recipe(case: Case, data: Path, names: list[str]) -> None:
    """Write the case as segreg reads it; JSON is YAML."""
    folder = Path(case.recipe).parent
    lists = {"train": folder / "train.txt", "val": folder / "val.txt"}
    lists["train"].write_text("\n".join(names[: case.train]), encoding="utf-8")
    lists["val"].write_text("\n".join(names[case.train :]), encoding="utf-8")
    kind = {"foreground": "nonzero"} if case.classes == 1 else {"classes": [f"class{k}" for k in range(case.classes)]}
    recipe = {
        "dataset": {"name": "folder", "images": str(data / "images"), "masks": str(data / "masks"), **kind},
        "split": {"method": "lists", "lists": {split: str(file) for split, file in lists.items()}},
        "input": {"size": [case.size, case.size], "normalize": "imagenet"},
        "encoder": case.encoder,
        "decoder": {"name": "deeplabv3plus", "output_stride": 16, "rates": list(RATES)},
        "loss": "bce" if case.classes == 1 else "cross_entropy",
        "optimizer": {"name": "adam", "lr": RATE},
        "train": {"epochs": case.epochs, "batch_size": case.batch, "device": case.device,
                  "workers": "auto" if case.workers is None else case.workers},
        "evaluate": {"metrics": ["iou"]},
    }  # fmt: skip
    Path(case.recipe).write_text(json.dumps(recipe, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
