"""The memory that an evaluation takes, all of the process counted, in a process that has imported everything.

`python tests/evaluation/test_evaluate_memory.py binary 1 10000` measures as many images as one likes.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

STATUS = Path("/proc/self/status")
SIZE, BATCH = 256, 8
OF_LABELS = ["dice", "accuracy", "boundary_iou", "roc_auc", "pr_auc", "mse", "ece"]
"""One of each kind: those that are left out count the same pixels as these."""
METRICS = {"binary": [*OF_LABELS, "best_threshold"], "multiclass": OF_LABELS}
MIB = 1024


def memory(kind):
    """Return this process's memory in MiB: VmRSS what it has, VmHWM the largest so far.

    Not `resource`'s, which begins with that of the process that started this one.
    """
    found = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{kind}:"))
    return int(found.split()[1]) / MIB


def held():
    """Return what it has when all that was freed has been given back."""
    ctypes.CDLL(None).malloc_trim(0)
    return memory("VmRSS")


def evaluate_images(mode, classes, input_images):
    """Scores noisy images by every kind of metric and prints how many were scored and the memory, again and again."""
    import torch
    from torch import nn
    from torchmetrics import MetricCollection

    import segreg
    from segreg.data.loader import Batch
    from segreg.evaluation.scores import evaluate
    from segreg.models.segmenter import predict_logits
    from segreg.runtime.device import choose_precision
    from segreg.task import Task

    print(0, f"{held():.0f}")
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
            print(first + BATCH, f"{held():.0f}", flush=True)

    def predict(batch):
        precision = choose_precision("float32", device)
        yield batch.ids, predict_logits(network, Numbers(), batch.images, device, precision), batch.targets

    metrics = MetricCollection({name: segreg.build_part("metric", name, task, 0.5) for name in METRICS[mode]})
    scores = evaluate(predict, batches(), metrics, device=device, task=task, threshold=0.5)
    assert scores.counts.sum() == input_images * classes * (SIZE - 2) * SIZE
    assert 0.4 < scores.values["roc_auc.pooled"] < 0.6
    print(input_images, f"{memory('VmHWM'):.0f}")


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.exists(), reason="only Linux tells the largest memory of a process")
@pytest.mark.parametrize(
    # 109 and 239 MiB were measured in all; the allocator's own share varies.
    ("mode", "classes", "images", "growth", "most"),
    [("binary", 1, (32, 72), 6, 229), ("multiclass", 11, (16, 32), 24, 357)],
)
def test_memory_is_bounded_and_does_not_grow_with_the_number_of_images(mode, classes, images, growth, most, python):
    arguments = [*python, __file__, mode, str(classes), str(images[1])]
    ended = subprocess.run(
        arguments, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert ended.returncode == 0, ended.stderr
    reported = [tuple(map(int, line.split())) for line in ended.stdout.splitlines()]
    after = dict(reported[:-1])
    # What the allocator may take for its own. Logits that are kept would be 10 MiB of one class, 46 of eleven.
    assert after[images[1]] - after[images[0]] < growth
    assert reported[-1][1] - after[0] < most


if __name__ == "__main__":
    evaluate_images(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
