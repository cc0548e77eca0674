"""The classes of a task, and the one place that knows how logits become probabilities and labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from segreg.errors import SegregError, did_you_mean, listed

if TYPE_CHECKING:
    from torch import Tensor

Mode = Literal["binary", "multiclass", "multilabel"]
"""How classes exclude each other; see `Task`."""
IGNORE_INDEX = 255
"""The label of pixels that count for nothing, in every mask that segreg passes on."""
BACKGROUND = "background"
"""What label 0 of a binary task is called, and a class that is where the others are not."""

LONGEST_NAME = 200
"""Characters that a class's name has at most: it is in every table and diagram."""
_SCORES = ("pooled", "per_image_mean")
"""How names of scores end, such as `dice.pooled`; `dice.class.CLASS` must not."""
_LARGEST = 88.0
"""Of logits that are computed from probabilities; its sigmoid is 1 in float32, and -88 has one above 0."""


@dataclass(frozen=True)
class Task:
    """Class names in index order and how they exclude each other.

    * `binary`: one class name, the foreground. One logit and a sigmoid. Targets `[B, H, W]` hold 0, 1 or 255.
    * `multiclass`: K names, index 0 included. K logits and a softmax. Targets `[B, H, W]` hold 0..K-1 or 255.
    * `multilabel`: K names that may overlap. K sigmoids. Targets `[B, K, H, W]` hold 0, 1 or 255.

    Targets are int64 (uint8 in the cache); 255 (`IGNORE_INDEX`) marks pixels that count for nothing.

    Raises:
        SegregError: no class, a name that is empty, given twice, of more than 200 characters or ends as those of scores
            do, an unknown mode, or a number of classes that does not fit it.
    """

    classes: tuple[str, ...]
    mode: Mode

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            hint = did_you_mean(str(self.mode), get_args(Mode))
            raise SegregError(
                f"the mode of a task is {listed(get_args(Mode), last='or')}, not {self.mode!r}", hint=hint
            )
        given: object = self.classes
        if isinstance(given, str) or not all(isinstance(name, str) for name in self.classes):
            raise SegregError(f"the classes of a task are names, such as ('road', 'tree'), not {given!r}")
        object.__setattr__(self, "classes", tuple(self.classes))
        if len(set(self.classes)) < len(self.classes):
            twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
            verb = "stands" if len(twice) == 1 else "stand"
            raise SegregError(f"class names must differ: {listed(twice)} {verb} more than once")
        if any(not name.strip() for name in self.classes):
            raise SegregError(f"class {[not name.strip() for name in self.classes].index(True)} has an empty name")
        if long := [name for name in self.classes if len(name) > LONGEST_NAME]:
            raise SegregError(
                f'the class name "{long[0][:40]}..." has {len(long[0])} characters; at most {LONGEST_NAME} are taken'
            )
        if kept := [name for name in self.classes if name.rpartition(".")[2] in _SCORES]:
            raise SegregError(
                f'no class can be called "{kept[0]}": names of scores end in {listed(_SCORES, quote="")}',
                hint=f"dice.class.{kept[0]} would be taken for another score; give the class another name",
            )
        if self.mode == "binary" and len(self.classes) != 1:
            raise SegregError(f"a binary task has one class name, the foreground; it was given {len(self.classes)}")
        if self.mode == "multiclass" and not 2 <= len(self.classes) <= IGNORE_INDEX:
            raise SegregError(f"a multiclass task has 2 to {IGNORE_INDEX} classes; it was given {len(self.classes)}")
        if not self.classes:
            raise SegregError("a task needs at least one class name")

    @property
    def channels(self) -> int:
        """Return the number of logits a pixel has: 1 for binary, K otherwise."""
        return len(self.classes)

    @property
    def highest_label(self) -> int:
        """Return the largest label that a mask may hold beside 255."""
        return len(self.classes) - 1 if self.mode == "multiclass" else 1

    @property
    def label_count(self) -> int:
        """Return how many classes a mask can show: layers if multilabel, else labels, a binary one's background too."""
        return self.channels if self.mode == "multilabel" else self.highest_label + 1

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return float32 probabilities `[B, K, H, W]` in [0, 1] for logits of the same shape."""
        logits = logits.float()
        return logits.softmax(dim=1) if self.mode == "multiclass" else logits.sigmoid()

    def logits_of(self, probabilities: Tensor, *, threshold: float = 0.5) -> Tensor:
        """Return finite float32 logits `[B, K, H, W]` that probabilities of the same shape, such as means, come from.

        They have the labels of the probabilities, whatever rounding does to values that are close together.
        """
        if self.mode == "multiclass":
            labels = self.labels_of(probabilities)
            logits = probabilities.log().clamp_(min=-_LARGEST)
            rounded = logits.max(dim=1).indices != labels
            return logits.scatter_add_(1, labels.unsqueeze(1), rounded.unsqueeze(1) * 1e-5)
        logits = probabilities.logit().clamp_(-_LARGEST, _LARGEST)
        if threshold > 0:
            edge = min(threshold, 1 - 1e-7)
            edge = math.log(edge / (1 - edge))
            least, most = edge + 1e-5 * max(1, abs(edge)), edge - 1e-5 * max(1, abs(edge))
            chosen = probabilities >= threshold
            logits = logits.clamp(min=least).where(chosen, logits.clamp(max=most))
        return logits

    def labels(self, logits: Tensor, *, threshold: float = 0.5) -> Tensor:
        """Return predicted labels, int64.

        Shape: `[B, K, H, W]` logits to `[B, H, W]` labels (binary 0/1, multiclass 0..K-1) or `[B, K, H, W]` 0/1
        (multilabel). A pixel is foreground where its probability is at least `threshold`; multiclass takes the largest.
        """
        # The largest logit has the largest probability, and the softmax could round two of them to one value.
        return self.labels_of(logits if self.mode == "multiclass" else self.probabilities(logits), threshold=threshold)

    def labels_of(self, probabilities: Tensor, *, threshold: float = 0.5) -> Tensor:
        """Return the labels, int64, that probabilities `[B, K, H, W]` stand for; shapes and rules as for `labels`."""
        if self.mode == "multiclass":
            return probabilities.max(dim=1).indices  # argmax gives the same and takes four times as long on a CPU
        chosen = (probabilities >= threshold).long()
        return chosen[:, 0] if self.mode == "binary" else chosen

    def one_hot(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the target as zeros and ones, and which pixels count.

        Shape: target `[B, H, W]` (`[B, K, H, W]` if multilabel) to two float32 tensors `[B, K, H, W]`. Ignored pixels
        are 0 in both.
        """
        import torch

        if self.mode == "multiclass":
            target = target.unsqueeze(1)
            labels = torch.arange(self.channels, device=target.device).view(1, -1, 1, 1)
            ones = (target == labels).float()
            return ones, (target != IGNORE_INDEX).float().expand_as(ones)
        target = target.unsqueeze(1) if self.mode == "binary" else target
        counts = (target != IGNORE_INDEX).float()
        return (target == 1).float(), counts


def label_names(task: Task) -> tuple[str, ...]:
    """Return the name of each class that a mask can show (`Task.label_count`), a binary task's background first."""
    return (BACKGROUND, *task.classes) if task.mode == "binary" else task.classes


def mask_shape(task: Task, size: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of one mask: `[H, W]`, or `[K, H, W]` for a multilabel task."""
    return (task.channels, *size) if task.mode == "multilabel" else tuple(size)
