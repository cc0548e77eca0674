"""Make a folder of images with masks to measure with: smooth fields of colour, a class where the field is high.

    python benchmarks/images.py FOLDER COUNT WIDTH HEIGHT CLASSES

One class is rendered as 0 and 255, several as 0, 1, 2. The images depend on the arguments alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np


def main() -> None:
    folder, (count, width, height, classes) = Path(sys.argv[1]), map(int, sys.argv[2:])
    generator = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        field = cv2.resize(generator.random((6, 6), np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        ranks = np.quantile(field, np.linspace(0, 1, max(classes, 2) + 1)[1:-1])
        mask = np.digitize(field, ranks).astype(np.uint8)
        colours = cv2.resize(generator.random((8, 8, 3), np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        noise = generator.normal(0, 8, (height, width, 1))
        image = np.clip(128 * field[..., None] + 96 * colours + noise, 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / "images" / f"{number:05}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        cv2.imwrite(str(folder / "masks" / f"{number:05}.png"), mask * 255 if classes == 1 else mask)


if __name__ == "__main__":
    main()
