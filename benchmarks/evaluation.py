"""What scoring a trained network costs an image: `segreg evaluate`, a loop written by hand, and the forward pass alone.

Whole processes, in turns; each scores all images of a folder with one network that has taken one training step:

* segreg: `segreg evaluate RUN --data RECIPE` with an empty cache: images read and prepared, pooled scores, rows of
  each image, 95% intervals.
* by_hand: float32, images decoded one by one, all pixels kept and given to scikit-learn in the end. It needs
  `pip install scikit-learn` and is left out with a word where that is missing.
* forward: the network alone, in segreg's precision, on images that lie in memory.

One class is scored by ROC AUC, average precision, IoU and Dice, several by IoU and Dice.

    python benchmarks/evaluation.py
    python benchmarks/evaluation.py --images 64 256 1024 --only segreg forward
    python benchmarks/evaluation.py --classes 1 4 19 --size 128 256
    python benchmarks/evaluation.py --device cuda --batch 32

Options that take several values make a case of each combination. `ms/image` is from the first image's reading to the
scores; `scored ms/image` is without segreg's preparing of the images, which a second evaluation finds in the cache;
`memory grew` is the peak RSS at the end of that less the RSS at its beginning, when the network was there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contest import Column, Job, hold, options, run_quietly

if TYPE_CHECKING:
    from torch import Tensor

HERE = Path(__file__).parent
COLUMNS = (
    Column("ms", "ms/image"),
    Column("scored_ms", "scored ms/image"),
    Column("grew_mib", "memory grew MiB", ratio=False),
    Column("peak_rss_mib", "peak RSS MiB"),
    Column("gpu_mib", "peak GPU MiB"),
    Column("whole_s", "whole s"),
    Column("cpu_s", "cpu s"),
    Column("score", "ROC AUC or IoU", ratio=False),
    Column("others", "others' share", ratio=False),
)


@dataclass(frozen=True)
class Case:
    """What is scored: a run, the recipe of the images, and how many of how many classes they are."""

    run: str
    recipe: str
    folder: str
    images: int
    size: int
    batch: int
    classes: int
    device: str


@dataclass
class Meter:
    """Add up seconds, and report how much memory was taken in their course.

    Attributes:
        seconds: by what they went to.
        resident: RSS before the first of them, in MiB.
        score: ROC AUC of one class, IoU of several, so that a reader sees that the same was scored.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    resident: float | None = None
    score: float | None = None

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its seconds added to those of that name."""

        def measured(*given: Any, **named: Any) -> Any:
            self.begin()
            started = time.perf_counter()
            found = work(*given, **named)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
            return found

        return measured

    def begin(self) -> None:
        if self.resident is None and (file := Path("/proc/self/statm")).exists():
            self.resident = int(file.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def as_data(self, case: Case) -> dict[str, Any]:
        import resource

        import torch

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        cuda = case.device.startswith("cuda")
        scored = {"scored_ms": 1000 * self.seconds["scoring"] / case.images} if "scoring" in self.seconds else {}
        return {
            "ms": 1000 * sum(self.seconds.values()) / case.images, **scored, "score": self.score,
            "grew_mib": None if self.resident is None else peak - self.resident,
            "gpu_mib": torch.cuda.max_memory_allocated() / 2**20 if cuda else None,
        }  # fmt: skip


def segreg(case: Case, meter: Meter) -> None:
    """`segreg evaluate`, its preparing and its scoring timed from outside."""
    from segreg.cli import main
    from segreg.evaluation import evaluator as exam
    from segreg.runs import evaluate_run as rescore

    rescore.prepare_images = meter.timed("preparing", rescore.prepare_images)  # type: ignore[attr-defined]
    exam.Evaluator.scores = meter.timed("scoring", exam.Evaluator.scores)  # type: ignore[method-assign]
    out = Path(case.recipe).parent / f"scores-{time.monotonic_ns()}"
    if main(["evaluate", case.run, "--data", case.recipe, "--device", case.device, "--out", str(out), "--quiet"]):
        raise SystemExit(1)
    (scores,) = json.loads((out / "metrics.json").read_text(encoding="utf-8"))["metrics"].values()
    meter.score = scores["roc_auc.pooled" if case.classes == 1 else "iou.pooled"]


def forward(case: Case, meter: Meter) -> None:
    """The network's predictions in segreg's precision and batches, of images that lie in memory, and no score."""
    from segreg import load_run
    from segreg.runtime.device import prepare_process

    prepare_process()
    import cv2
    import torch

    predictor = load_run(case.run).predictor("best", device=case.device, precision="recipe")
    files = sorted(Path(case.folder, "images").iterdir())[: case.images]
    pixels = [cv2.resize(cv2.imread(str(file))[..., ::-1], (case.size, case.size)) for file in files]
    batches = [torch.stack([torch.from_numpy(one) for one in pixels[at : at + case.batch]]).permute(0, 3, 1, 2)
               for at in range(0, len(pixels), case.batch)]  # fmt: skip

    def all_of_them() -> None:
        for images in batches:
            predictor.logits(images)
        if case.device.startswith("cuda"):
            torch.cuda.synchronize()

    meter.timed("scoring", all_of_them)()


def by_hand(case: Case, meter: Meter) -> None:
    """A float32 loop as notebooks have it, with scikit-learn's scores of all pixels."""
    import numpy as np
    import sklearn.metrics  # noqa: F401 (it takes seconds, which belong to no image)
    import torch
    from PIL import Image
    from torchvision.transforms import Compose, Normalize, Resize, ToTensor

    from segreg import load_run
    from segreg.models.build import IMAGENET

    network = load_run(case.run).model().to(case.device).eval()
    to_tensor = Compose([Resize((case.size, case.size)), ToTensor(), Normalize(*IMAGENET)])

    def pair(file: Path) -> tuple[Tensor, np.ndarray[Any, Any]]:
        mask = Image.open(Path(case.folder, "masks", f"{file.stem}.png")).convert("L")
        labels = np.array(mask.resize((case.size, case.size), Image.Resampling.NEAREST))
        return to_tensor(Image.open(file).convert("RGB")), labels > 0 if case.classes == 1 else labels

    def scored() -> float:
        files = sorted(Path(case.folder, "images").iterdir())[: case.images]
        truths, found = [], []
        with torch.no_grad():
            for at in range(0, len(files), case.batch):
                images, labels = zip(*map(pair, files[at : at + case.batch]), strict=True)
                logits = network(torch.stack(images).to(case.device))
                found.append((logits.sigmoid()[:, 0] if case.classes == 1 else logits.argmax(1)).cpu().numpy().ravel())
                truths.append(np.stack(labels).ravel())
        return of_pixels(np.concatenate(truths), np.concatenate(found), case.classes)

    meter.score = meter.timed("all", scored)()


def of_pixels(truth: Any, found: Any, classes: int) -> float:
    """Return the ROC AUC of one class's pixels or several classes' IoU, after scikit-learn computed the others too."""
    from sklearn.metrics import average_precision_score, f1_score, jaccard_score, roc_auc_score

    if classes > 1:
        f1_score(truth, found, average="macro")
        return float(jaccard_score(truth, found, average="macro"))
    average_precision_score(truth, found)
    f1_score(truth, found >= 0.5)
    jaccard_score(truth, found >= 0.5)
    return float(roc_auc_score(truth, found))


CONTESTANTS: dict[str, Callable[[Case, Meter], None]] = {"segreg": segreg, "by_hand": by_hand, "forward": forward}


def main() -> None:
    """Print the tables."""
    chosen = parser().parse_args()
    names = [name for name in CONTESTANTS if name in chosen.only]
    if "by_hand" in names and find_spec("sklearn") is None:
        names.remove("by_hand")
        print("by_hand is left out: pip install scikit-learn")
    with tempfile.TemporaryDirectory() as folder:
        cases = made(chosen, Path(folder))
        jobs = [Job(case, name, Path(__file__), file) for case, file in cases.items() for name in names]
        hold(chosen, jobs, COLUMNS)


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = options(__doc__ or "", list(CONTESTANTS))
    parser.add_argument("--encoder", default="resnet50", help="of DeepLabV3+ (resnet50)")
    parser.add_argument("--images", type=int, nargs="+", default=[128], help="images that are scored (128)")
    parser.add_argument("--size", type=int, nargs="+", default=[256], help="height and width (256)")
    parser.add_argument("--classes", type=int, nargs="+", default=[1], help="classes; 1 is foreground alone (1)")
    parser.add_argument("--batch", type=int, default=8, help="images in a batch (8)")
    return parser


def made(chosen: argparse.Namespace, folder: Path) -> dict[str, Path]:
    """Return the file of each case by its words; a run is trained for each size and number of classes."""
    found: dict[str, Path] = {}
    for size, classes in itertools.product(chosen.size, chosen.classes):
        trained = folder / f"{size}_{classes}"
        recipe = written(chosen, trained, 2 * chosen.batch, size, classes)
        with tempfile.TemporaryDirectory() as out:
            run_quietly([sys.executable, "-m", "segreg", "run", recipe, "--quiet", "--out", out])
            (run,) = (file.parent for file in Path(out).rglob("results.json"))
            run.rename(trained / "run")
        for images in chosen.images:
            data = folder / f"{size}_{classes}_{images}"
            case = Case(
                run=str(trained / "run"), recipe=str(written(chosen, data, images, size, classes)), folder=str(data),
                images=images, size=size, batch=chosen.batch, classes=classes, device=chosen.device,
            )  # fmt: skip
            (data / "case.json").write_text(json.dumps(asdict(case)), encoding="utf-8")
            counted = [f"{images} images", "1 class" if classes == 1 else f"{classes} classes"]
            words = [chosen.encoder, *counted, f"{size}x{size}", f"batch {chosen.batch}", chosen.device]
            found[", ".join(words)] = data / "case.json"
    return found


def written(chosen: argparse.Namespace, data: Path, images: int, size: int, classes: int) -> Path:
    """Make images and gives the recipe that reads them; JSON is YAML."""
    run_quietly([sys.executable, HERE / "images.py", data, *map(str, (images, size, size, classes))])
    kind = {} if classes == 1 else {"classes": [f"class{k}" for k in range(classes)]}
    recipe = {
        "dataset": {"name": "folder", "images": str(data / "images"), "masks": str(data / "masks"), **kind},
        "split": {"method": "random", "val": 0.5, "test": 0.0},
        "input": {"size": [size, size], "normalize": "imagenet"},
        "encoder": chosen.encoder,
        "decoder": "deeplabv3plus",
        "loss": "bce" if classes == 1 else "cross_entropy",
        "optimizer": {"name": "adam", "lr": 1e-3},
        "train": {"epochs": 1, "batch_size": chosen.batch, "device": chosen.device},
        "evaluate": {"metrics": ["roc_auc", "pr_auc", "iou", "dice"] if classes == 1 else ["iou", "dice"]},
    }
    file = data / "recipe.yaml"
    file.write_text(json.dumps(recipe, indent=1), encoding="utf-8")
    return file


def measure() -> None:
    """Is one process of the contest."""
    name, file, _, found = sys.argv[1:]
    case, meter = Case(**json.loads(Path(file).read_text(encoding="utf-8"))), Meter()
    CONTESTANTS[name](case, meter)
    Path(found).write_text(json.dumps(meter.as_data(case)), encoding="utf-8")


if __name__ == "__main__":
    measure() if len(sys.argv) == 5 and sys.argv[1] in CONTESTANTS else main()
