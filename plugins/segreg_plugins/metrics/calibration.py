"""Expected calibration error (Guo et al. 2017, arXiv:1706.04599), streamed: sums over equal bins of probability.

The paper's is of the predicted class alone: how far the probability of the class that was chosen is from the share of
pixels where it was right. Its other reading takes each class's probability at every pixel (class-wise, Kull et al.
2019, arXiv:1910.12656). Of several classes that exclude each other both are given, under names of their own; where a
class has a sigmoid of its own only the second has a meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torchmetrics import Metric

from segreg.errors import listed
from segreg.registry.plot_data import Reliability
from segreg_plugins.metrics.counts import add_ones, kinds_of, pieces
from segreg_plugins.metrics.wording import by_class, definitions_of, refuse_strays

if TYPE_CHECKING:
    from torch import Tensor

    from segreg.task import Task

BINS = 15
_TITLE = (
    "expected calibration error, the distance between mean probability and share of pixels that are of the class in "
    f"{BINS} equal bins of probability, averaged over pixels,"
)


class CalibrationError(Metric):
    """The mean over pixels of their bin's distance between what was predicted and what came true.

    Args:
        task: any task.
        kept: for each class whether it takes part in the mean over classes.
    """

    full_state_update = False
    higher_is_better = False
    is_differentiable = False

    numbers: Tensor
    probabilities: Tensor
    strays: Tensor

    def __init__(self, task: Task, *, kept: Sequence[bool]) -> None:
        super().__init__()
        self.task = task
        self.kept = tuple(kept)
        # A row for each class; of a multiclass task one more for the class that is predicted.
        rows = task.channels + (task.mode == "multiclass")
        # How many did not come true, came true, and count for nothing; the probabilities of all that count.
        self.add_state("numbers", torch.zeros(3, rows, BINS, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("probabilities", torch.zeros(rows, BINS, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("strays", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Counts one batch, without waiting for the device.

        Shape: logits `[B, K, H, W]` and a target as `Task` has it. H and W may differ between batches.

        Raises:
            SegregError: the shapes do not belong together.
        """
        rows = torch.arange(self.numbers.shape[1], dtype=torch.int32, device=logits.device).view(1, -1, 1)
        for part, truth in pieces(self.task, logits, target):
            kinds, strays = kinds_of(self.task, part, truth)
            probability = self.task.probabilities(part)
            if self.task.mode == "multiclass":
                # By logits, as labels are: two probabilities may round to one value.
                chosen = part.max(1, keepdim=True).indices
                kinds = torch.cat([kinds, kinds.gather(1, chosen)], 1)
                probability = torch.cat([probability, probability.gather(1, chosen)], 1)
            probability = probability.where(kinds < 2, 0.0)
            places = (probability * BINS).to(torch.int32).clamp_(0, BINS - 1) + rows * BINS
            add_ones(self.numbers.view(-1), places + kinds * (rows.numel() * BINS))
            self.probabilities.view(-1).index_add_(0, places.flatten(), probability.flatten().double())
            self.strays = self.strays + strays

    def compute(self) -> dict[str, Tensor]:
        """Return `ece.pooled` and, where there are several classes, `ece.class.CLASS`.

        Of a multiclass task it gives `ece.top_label.pooled` and `ece.classwise.pooled` in place of the first.
        Float64 scalars. NaN: no pixel counted, or a logit was NaN.

        Raises:
            SegregError: masks held labels that the task does not have.
        """
        refuse_strays(self.task, int(self.strays))
        wrong, right = self.numbers[:2]
        pixels = (wrong + right).sum(-1)
        error = (self.probabilities - right).abs().sum(-1) / pixels.clamp(min=1)
        each = error.where(pixels > 0, torch.nan)
        kept = torch.tensor(self.kept, device=each.device)
        there = kept & (pixels[: len(kept)] > 0)
        mean = each[: len(kept)].where(there, 0.0).sum() / there.sum()
        found = by_class(self.task, "ece", mean, each)
        if self.task.mode != "multiclass":
            return found
        classwise = found.pop("ece.pooled")
        return {"ece.top_label.pooled": each[-1], "ece.classwise.pooled": classwise, **found}

    def tables(self) -> dict[str, Reliability]:
        """Return the reliability of the predicted class, where there is one, and of each class; by their names.

        A class that no pixel has, or all of them, has none.
        """
        wrong, right, _ = self.numbers.cpu().double()
        pixels, sums = wrong + right, self.probabilities.cpu()
        names = [*self.task.classes, *(["predicted class"] if self.task.mode == "multiclass" else [])]
        order = [*range(len(self.task.classes), len(names)), *range(len(self.task.classes))]
        found = {}
        for k in order:
            of_class = k < len(self.task.classes)
            if not pixels[k].sum() or (of_class and not (wrong[k].sum() and right[k].sum())):
                continue
            error = float((sums[k] - right[k]).abs().sum() / pixels[k].sum())
            confidence, accuracy = ((each / pixels[k]).numpy() for each in (sums[k], right[k]))
            share = (pixels[k] / pixels[k].sum()).numpy()
            key = f"ece.{names[k]}" if of_class else "ece.top_label"
            note = f"ECE {error:.4f}" if of_class else f"top-label ECE {error:.4f}"
            found[key] = Reliability(names[k], confidence, accuracy, share, note)
        return found

    @property
    def definitions(self) -> dict[str, str]:
        """Return one sentence for each value that `compute` gives."""
        found = definitions_of(self.task, "ece", self.kept, title=_TITLE, undefined="without pixels")
        if self.task.mode != "multiclass":
            return found
        classwise = found.pop("ece.pooled")
        top = (
            "expected calibration error of the predicted class (arXiv:1706.04599), the distance between the mean "
            f"probability of the class with the largest logit and the share of pixels that truly are of it in {BINS} "
            f"equal bins of that probability, averaged over pixels, of {listed(self.task.classes)} together, counted "
            "over the pixels of all images together; undefined without pixels; ignored pixels left out."
        )
        return {"ece.top_label.pooled": top, "ece.classwise.pooled": f"class-wise {classwise}", **found}
