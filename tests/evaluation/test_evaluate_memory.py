"""The memory that an evaluation takes, all of the process counted, in a process of its own.

`python tests/evaluation/test_evaluate_memory.py binary 1 10000` measures as many images as one likes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

STATUS = Path("/proc/self/status")
SIZE, BATCH = 256, 8
OF_LABELS = [
    "dice", "f1", "iou", "precision", "recall", "specificity", "accuracy", "mean_accuracy", "boundary_iou",
    "roc_auc", "pr_auc", "mse", "ece",
]  # fmt: skip
METRICS = {"binary": [*OF_LABELS, "best_threshold"], "multiclass": OF_LABELS}
MIB = 1024


def largest():
    """Return the largest memory of this process so far, in MiB.

    Not `resource`'s, which begins with that of the process that started this one.
    """
    found = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(found.split()[1]) / MIB


def evaluate_images(mode, classes, input_images):
    """Scores noisy images by every metric and prints how many were scored and the memory, again and again."""
    import torch
    from torch import nn
    from torchmetrics import MetricCollection

    import segreg
    from segreg.data.loader import Batch
    from segreg.evaluation.scores import evaluate
    from segreg.models.segmenter import predict_logits
    from segreg.runtime.device import choose_precision
    from segreg.task import Task

    torch.set_num_threads(1)
    device = torch.device("cpu")
    task = Task(tuple(f"class {number}" for number in range(classes)), mode)
    labels = 2 if mode == "binary" else classes
    drawn = torch.Generator().manual_seed(0)
    network = nn.Conv2d(3, classes, 1)

    class Numbers(nn.Module):
        def forward(self, images):
            return images.float() / 64

    def batches():
        for first in range(0, input_images, BATCH):
            images = torch.randint(0, 256, (BATCH, 3, SIZE, SIZE), dtype=torch.uint8, generator=drawn)
            targets = torch.randint(0, labels, (BATCH, SIZE, SIZE), dtype=torch.uint8, generator=drawn)
            targets[:, :2] = 255
            indices = tuple(range(first, first + BATCH))
            yield Batch(images, targets, tuple(map(str, indices)), indices)
            print(first + BATCH, f"{largest():.0f}", flush=True)

    def predict(batch):
        precision = choose_precision("float32", device)
        yield batch.ids, predict_logits(network, Numbers(), batch.images, device, precision), batch.targets

    metrics = MetricCollection({name: segreg.build_part("metric", name, task, 0.5) for name in METRICS[mode]})
    scores = evaluate(predict, batches(), metrics, device=device, task=task, threshold=0.5)
    assert scores.counts.sum() == input_images * classes * (SIZE - 2) * SIZE
    assert 0.4 < scores.values["roc_auc.pooled"] < 0.6
    print(input_images, f"{largest():.0f}")


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.exists(), reason="only Linux tells the largest memory of a process")
@pytest.mark.parametrize(
    # 894 and 976 to 1,002 MiB were measured, of which 795 are the imports; the allocator's own share varies.
    ("mode", "classes", "images", "growth", "most"),
    [("binary", 1, 120, 16, 1024), ("multiclass", 11, 48, 64, 1152)],
)
def test_memory_is_bounded_and_does_not_grow_with_the_number_of_images(mode, classes, images, growth, most):
    arguments = [sys.executable, __file__, mode, str(classes), str(images)]
    ended = subprocess.run(
        arguments, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert ended.returncode == 0, ended.stderr
    reported = [tuple(map(int, line.split())) for line in ended.stdout.splitlines()]
    after = dict(reported[:-1])
    # What the allocator may take for its own. Logits that are kept would be 20 MiB of one class, 88 of eleven.
    assert after[images] - after[images // 3] < growth
    assert reported[-1][1] < most


if __name__ == "__main__":
    evaluate_images(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
