"""The built-in metrics."""

from __future__ import annotations

from segreg.registry.entry import Entry
from segreg.registry.hooks import hookimpl
from segreg_plugins.metrics import builders


@hookimpl
def segreg_entries() -> list[Entry]:
    """Return every built-in metric."""
    return [
        Entry("metric", "dice", builders.dice),
        Entry("metric", "f1", builders.f1),
        Entry("metric", "iou", builders.iou),
        Entry("metric", "precision", builders.precision),
        Entry("metric", "recall", builders.recall),
        Entry("metric", "specificity", builders.specificity),
        Entry("metric", "accuracy", builders.accuracy),
        Entry("metric", "mean_accuracy", builders.mean_accuracy),
        Entry("metric", "boundary_iou", builders.boundary_iou, paper="arXiv:2103.16562"),
        Entry("metric", "roc_auc", builders.roc_auc),
        Entry("metric", "pr_auc", builders.pr_auc),
        Entry("metric", "mse", builders.mse),
        Entry("metric", "ece", builders.ece, paper="arXiv:1706.04599"),
        Entry("metric", "best_threshold", builders.best_threshold),
    ]
