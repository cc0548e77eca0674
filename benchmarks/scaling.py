"""How a run, an evaluation and a prediction grow with images, classes, size and workers: CPU seconds of each stage.

A small network is trained, so that what grows beside the network's arithmetic is seen. Each case is a process of its
own, in which `segreg run`, `segreg evaluate` and `segreg predict` are timed from outside. CPU time counts all threads,
and other work on the machine disturbs it less than the clock's.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --quick
    python benchmarks/scaling.py --only images --json scaling.json

`power` is of the last two rows of a table: 1 grows as the axis does, 2 as its square. Images are of 32x32 pixels where
their number grows; many are links to the same few files, which are read one by one all the same.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contest import machine, print_table, run_quietly

HERE = Path(__file__).parent
DISTINCT = 200
"""Images that are made; further ones are links to them."""
PLAIN = {"images": 200, "classes": 2, "size": 128, "workers": 0, "batch": 8}
AXES: dict[str, tuple[dict[str, int], list[int], list[int]]] = {
    "images": ({"size": 32, "batch": 32}, [100, 1_000, 10_000, 100_000], [100, 400]),
    "classes": ({}, [1, 2, 19, 150], [1, 19]),
    "size": ({"images": 40, "batch": 4}, [128, 256, 512, 1024], [64, 128]),
    "workers": ({"images": 1_000}, [0, 1, 2], [0, 1]),
}
"""What grows: what else is not `PLAIN` there, the values, and those of `--quick`."""
STAGES = {
    "list the files": "segreg.models.build.build_dataset",
    "prepare": "segreg.runs.assembly.prepare_images",
    "check": "segreg.runs.assembly.judge",
    "train": "segreg.training.trainer.train_pass",
    "validate": "segreg.training.trainer.validation_pass",
    "checkpoint": "segreg.training.resume.save_epoch",
    "score": "segreg.evaluation.evaluator.Evaluator.scores",
    "of it intervals": "segreg.evaluation.evaluator._intervals",
    "write rows": "segreg.runs.results.write_images",
    "draw": "segreg.runs.results.draw_run",
    "report": "segreg.reports.report_run",
}
"""Functions of a run whose time is taken, by what they do."""


def main() -> None:
    """Print a table for each axis."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(AXES), default=list(AXES), help="what grows (all)")
    parser.add_argument("--most", type=int, default=sys.maxsize, help="largest value of an axis")
    parser.add_argument("--quick", action="store_true", help="two small values of each, to see that all works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the numbers")
    chosen = parser.parse_args()
    print(machine(), flush=True)
    found = {}
    for axis in chosen.only:
        own, values, quick = AXES[axis]
        cases = [{**PLAIN, **own, axis: value} for value in (quick if chosen.quick else values) if value <= chosen.most]
        found[axis] = [{**case, **measured(case)} for case in cases]
        print_axis(axis, found[axis])
    if chosen.json:
        report = {"machine": machine(), "cases": found}
        chosen.json.write_text(json.dumps(report, indent=1), encoding="utf-8")


def measured(case: dict[str, int]) -> dict[str, float]:
    """Return the CPU seconds of each stage of a case, from a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = write_recipe(case, Path(folder))
        run_quietly([sys.executable, Path(__file__).absolute(), "--case", folder, recipe])
        return dict(json.loads(Path(folder, "found.json").read_text(encoding="utf-8")))


def print_axis(axis: str, rows: list[dict[str, float]]) -> None:
    """Print the CPU seconds of each stage, and how they grow from the row before the last to the last."""
    stages = [name for name in rows[0] if name not in PLAIN]
    fixed = ", ".join(f"{name} {value}" for name, value in rows[0].items() if name in PLAIN and name != axis)
    print(f"\nCPU seconds by {axis} ({fixed})\n")
    table = [[f"{row[axis]:,}", *(f"{row[name]:.2f}" for name in stages)] for row in rows]
    if len(rows) > 1 and axis != "workers":
        ratio = math.log(rows[-1][axis] / rows[-2][axis])
        grown = [math.log(max(rows[-1][name], 1e-3) / max(rows[-2][name], 1e-3)) / ratio for name in stages]
        table.append(["power", *(f"{power:.2f}" for power in grown)])
    print_table([axis, *stages], table)
    sys.stdout.flush()


def write_recipe(case: dict[str, int], folder: Path) -> Path:
    """Make the images of a case, and write what is trained on them; JSON is YAML."""
    images, size, classes = case["images"], case["size"], case["classes"]
    data = folder / "data"
    made = min(images, DISTINCT)
    run_quietly([sys.executable, HERE / "images.py", data, *map(str, (made, size, size, classes))])
    for number in range(made, images):
        for kind, ending in (("images", "jpg"), ("masks", "png")):
            os.link(data / kind / f"{number % made:05}.{ending}", data / kind / f"{number:05}.{ending}")
    names = [f"{number:05}" for number in range(images)]
    for split, chosen in (("train", names[images // 4 :]), ("val", names[: images // 4])):
        (folder / f"{split}.txt").write_text("\n".join(chosen), encoding="utf-8")
    kind = {"foreground": "nonzero"} if classes == 1 else {"classes": [f"class{k}" for k in range(classes)]}
    recipe = {
        "dataset": {"name": "folder", "images": str(data / "images"), "masks": str(data / "masks"), **kind},
        "split": {"method": "lists", "lists": {split: str(folder / f"{split}.txt") for split in ("train", "val")}},
        "input": {"size": [size, size], "normalize": "imagenet"},
        "encoder": {"name": "timm/test_resnet", "weights": None},
        "decoder": {"name": "deeplabv3plus", "channels": 16},
        "augment": [{"name": "HorizontalFlip", "p": 0.5}, {"name": "RandomBrightnessContrast", "p": 0.5}],
        "loss": "bce" if classes == 1 else "cross_entropy",
        "optimizer": {"name": "adam", "lr": 1e-3},
        "train": {"epochs": 1, "batch_size": case["batch"], "device": "cpu", "precision": "float32",
                  "workers": case["workers"]},
        "evaluate": {"metrics": ["iou", "dice"]},
    }  # fmt: skip
    file = folder / "recipe.yaml"
    file.write_text(json.dumps(recipe, indent=1), encoding="utf-8")
    return file


def one_case(folder: Path, recipe: Path) -> None:
    """Run, evaluate and predict in this process, and write the CPU seconds of each stage."""
    os.environ["SEGREG_CACHE"] = str(folder / "cache")
    seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)
    with timed(seconds):
        from segreg.cli import main as segreg

        began = cpu()
        quiet(segreg, "run", recipe, "--out", folder / "runs", "--quiet")
        seconds["whole run"] = cpu() - began
    (history,) = folder.rglob("history.jsonl")
    seconds["images/s"] = json.loads(history.read_text(encoding="utf-8").splitlines()[-1])["images_per_second"]
    for name, words in (
        ("evaluate", ["--split", "val", "--quiet", "--out", folder / "scores"]),
        ("predict", [folder / "data" / "images", "--out", folder / "predicted", "--quiet"]),
    ):
        began = cpu()
        quiet(segreg, name, history.parent, *words)
        seconds[f"whole {name}"] = cpu() - began
    (folder / "found.json").write_text(json.dumps(seconds), encoding="utf-8")


def cpu() -> float:
    """Return the CPU seconds of this process and of those that it has waited for."""
    return sum(os.times()[:4])


def quiet(segreg: Callable[[list[str]], int], *words: object) -> None:
    """Run a command and end where it fails."""
    if segreg(list(map(str, words))):
        raise SystemExit(1)


@contextmanager
def timed(seconds: dict[str, float]) -> Iterator[None]:
    """Take the CPU time of the stages' functions, which are restored afterwards."""
    from importlib import import_module

    before = []
    for name, path in STAGES.items():
        head, _, last = path.rpartition(".")
        try:
            owner: Any = import_module(head)
        except ModuleNotFoundError:
            module, _, kind = head.rpartition(".")
            owner = getattr(import_module(module), kind)
        work = getattr(owner, last)
        before.append((owner, last, work))
        setattr(owner, last, adding(seconds, name, work))
    try:
        yield
    finally:
        for owner, last, work in before:
            setattr(owner, last, work)


def adding(seconds: dict[str, float], name: str, work: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with its CPU seconds added to those of that name."""

    @functools.wraps(work)
    def measured(*given: Any, **named: Any) -> Any:
        began = cpu()
        try:
            return work(*given, **named)
        finally:
            seconds[name] += cpu() - began

    return measured


if __name__ == "__main__":
    if sys.argv[1:2] == ["--case"]:
        one_case(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
