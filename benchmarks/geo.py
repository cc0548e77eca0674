"""How much memory and time a scene of 20,000 x 20,000 pixels takes: trained on for an epoch, and predicted.

    python benchmarks/geo.py FOLDER [--side 20000] [--tile 512]

It makes the scene, three bands of 8 bits with a mask, in FOLDER, runs `segreg run` on its blocks and `segreg predict`
on the whole of it, and prints seconds and the largest resident memory of each process. It needs the extra geo.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

RECIPE = """\
dataset: {{name: geo_raster, images: {folder}/scene.tif, masks: {folder}/mask.tif, block: [1024, 1024], split_block: 2}}
split: {{val: 0.1, test: 0.1}}
input: {{size: [256, 256], resize: crop}}
encoder: timm/test_resnet
decoder: {{name: deeplabv3plus, channels: 16}}
loss: dice_bce
optimizer: {{name: adam, lr: 0.01}}
train: {{epochs: 1, batch_size: 16, precision: float32, device: cpu, workers: 0, monitor: val.loss}}
evaluate: {{metrics: [dice], overlays: 0}}
"""


def make(folder: Path, side: int) -> None:
    """Write a scene with bright blobs and the mask of them, by windows."""
    import cv2
    import numpy as np
    import rasterio
    from rasterio.transform import Affine

    grid = {"height": side, "width": side, "crs": "EPSG:32633", "transform": Affine(1, 0, 5e5, 0, -1, 5.6e6)}
    layout = {"dtype": "uint8", "tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "zlevel": 1}
    drawn = np.random.default_rng(0)
    coarse = drawn.random((side // 64 + 2, side // 64 + 2), np.float32)
    with (
        rasterio.open(folder / "scene.tif", "w", "GTiff", count=3, photometric="RGB", **grid, **layout) as scene,
        rasterio.open(folder / "mask.tif", "w", "GTiff", count=1, **grid, **layout) as mask,
    ):
        for top in range(0, side, 512):
            rows = min(512, side - top)
            field = cv2.resize(coarse[top // 64 : top // 64 + 9], (side, 576), interpolation=cv2.INTER_LINEAR)[:rows]
            window = ((top, top + rows), (0, side))
            mask.write((field > 0.6).astype(np.uint8), 1, window=window)
            for band in (1, 2, 3):
                noise = drawn.integers(0, 40, field.shape, np.uint8)
                scene.write((field * (60 * band)).astype(np.uint8) + noise, band, window=window)


def measured(*words: str) -> tuple[float, float]:
    """Run segreg with these words and return its seconds and its largest resident memory in GiB, with its workers'."""
    begun = time.perf_counter()
    child = os.posix_spawn(sys.executable, [sys.executable, "-m", "segreg", *words], os.environ)
    _, status, used = os.wait4(child, 0)
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"segreg {' '.join(words)} failed")
    return time.perf_counter() - begun, used.ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--tile", type=int, default=512)
    chosen = parser.parse_args()
    folder = chosen.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["SEGREG_CACHE"] = str(folder / "cache")
    if not (folder / "mask.tif").exists():
        make(folder, chosen.side)
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder), encoding="utf-8")
    run = folder / "run"
    training = "run", str(folder / "recipe.yaml"), "--out", str(run), "--quiet"
    rows = [("train an epoch", measured(*training))]
    done = max(run.rglob("best.safetensors"), key=lambda file: file.stat().st_mtime).parent
    predicting = str(folder / "scene.tif"), "--out", str(folder / "predicted"), "--tile", str(chosen.tile), "--quiet"
    rows.append(("predict the scene", measured("predict", str(done), *predicting, "--device", "cpu")))
    print(f"{chosen.side} x {chosen.side} pixels, 3 bands of 8 bits")
    for what, (seconds, gigabytes) in rows:
        print(f"  {what:18} {seconds:7.0f} s   {gigabytes:5.2f} GiB")


if __name__ == "__main__":
    main()
