"""What `segreg init` writes against the shipped recipe: the same data, minutes of training, split and scoring.

Both train from their own defaults, on the images that init's recipe splits into train, val and test, and stop after the
first epoch that ends later than the minutes given, so that long epochs get more; the table has what each took. The best
epoch by its own `monitor` is scored at the images' own resolution. The difference of the scores has an interval over
the scored images, those of test, or of val where the data has no test.

    python benchmarks/init.py ../shared/data
    python benchmarks/init.py ../shared/data --only dsb2018 --minutes 2
"""

from __future__ import annotations

import argparse
from pathlib import Path

from contest import machine, print_table

import segreg
from segreg.config.resolve import resolve
from segreg.models.build import build_dataset
from segreg.registry.registry import load_registry
from segreg.runs.assembly import split_of
from segreg.runtime.progress import Quiet

SETS = {
    "isic2018": ("isic", "isic_v3plus"),
    "dsb2018": ("dsb2018", "dsb2018_v3plus"),
    "strawberry": ("coco_polygons/strawberry", "coco_v3"),
    "camvid": ("camvid", "camvid_v3plus"),
}
"""The folder of each set, and the recipe that segreg ships for it."""
SCORED = ["evaluate.metrics=[iou,dice]", "evaluate.overlays=0"]


def main() -> None:
    """Train both on each set, and print scores and differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder that holds the sets")
    parser.add_argument("--only", nargs="+", choices=SETS, default=list(SETS), help="sets (all)")
    parser.add_argument("--minutes", type=float, default=3, help="of each training (3)")
    parser.add_argument("--budget", choices=("small", "medium", "large"), help="of init (as the machine asks for)")
    parser.add_argument("--out", type=Path, default=Path("runs/init"))
    chosen = parser.parse_args()
    print(machine(), f"{chosen.minutes:g} minutes of training each", sep="\n", flush=True)
    rows = []
    for name in chosen.only:
        row, verdict = compared(name, chosen)
        rows.append(row)
        print(f"{name}:", *verdict, sep="\n  ", flush=True)
    print_table(["", "shipped", "init", "IoU per image: init - shipped", "epochs in minutes"], rows)


def compared(name: str, chosen: argparse.Namespace) -> tuple[list[str], tuple[str, ...]]:
    """Train both on one set; return a row of the table, and what `segreg compare` says."""
    folder, recipe = SETS[name]
    root, out = chosen.data / folder, chosen.out / name
    out.mkdir(parents=True, exist_ok=True)
    found = segreg.init(root, budget=chosen.budget)
    (out / "init.yaml").write_text(found.text, encoding="utf-8")
    same = [*lists(found.recipe, out), *SCORED, f"train.time_budget_minutes={chosen.minutes}"]
    shipped = [f"dataset.root={root}", "evaluate.resolution=original", *same]
    runs = {
        "shipped": segreg.run_recipe(Path("recipes") / f"{recipe}.yaml", shipped, out=out, progress="lines"),
        "init": segreg.run_recipe(out / "init.yaml", same, out=out, progress="lines"),
    }
    for which, run in runs.items():
        if run.results["stopped_because"] == "interrupted":
            raise SystemExit(f"{name}: the run of the {which} recipe was interrupted: {run.directory.path}")
    both = segreg.compare(*runs.values(), metric="iou.per_image_mean", out=out / "comparison")
    difference = next(model.difference for model in both.models if model.difference is not None)
    interval = f"{difference.mean:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"
    took = " and ".join(f"{len(run.history)} in {run.results['training_seconds'] / 60:.1f}" for run in runs.values())
    return [name, *(score(run) for run in runs.values()), interval, took], both.verdict


def lists(recipe: segreg.Recipe, out: Path) -> list[str]:
    """Write init's split as lists of ids, and return the overrides that take it."""
    resolved = resolve(recipe, load_registry())
    dataset = build_dataset(resolved)
    splits = {split: places for split, places in split_of(resolved, dataset, Quiet()).items() if places}
    for split, places in splits.items():
        (out / f"{split}.txt").write_text("".join(f"{dataset.samples[place].id}\n" for place in places))
    named = ", ".join(f"{split}: {out / split}.txt" for split in splits)
    return [f"split={{method: lists, test: {0.15 if 'test' in splits else 0.0}, lists: {{{named}}}}}"]


def score(run: segreg.Run) -> str:
    """Return the mean IoU of a run's images, and its pooled IoU."""
    metrics = run.results["metrics"]
    scored = metrics.get("test") or metrics["val"]
    return f"{scored['iou.per_image_mean']:.3f}, pooled {scored['iou.pooled']:.3f}"


if __name__ == "__main__":
    main()
