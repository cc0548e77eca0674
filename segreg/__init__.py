"""segreg: semantic segmentation from plain YAML recipes.

    import segreg

    recipe = segreg.load_recipe("recipes/isic_v3plus.yaml", {"train.epochs": 3})
    run = segreg.run_recipe(recipe)
    labels = run.predict("photo.jpg")

Importing this module imports nothing else; a name's module is imported when the name is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segreg.api import (
        Evaluation,
        bench,
        build_loaders,
        build_loss,
        build_model,
        build_part,
        check,
        compare,
        data_check,
        evaluate,
        export,
        init,
        load_recipe,
        predict,
        report,
        resume,
        run_recipe,
        tune,
    )
    from segreg.config.recipe import Recipe
    from segreg.errors import SegregError
    from segreg.registry.entry import Command, Entry, Family
    from segreg.registry.hooks import hookimpl
    from segreg.registry.local import register
    from segreg.registry.protocols import (
        KINDS,
        BatchAugmentation,
        Calibration,
        Dataset,
        Decoder,
        Encoder,
        Exporter,
        Loss,
        MixedBatch,
        Recognised,
        Sample,
        Schedule,
    )
    from segreg.runs.load import load_run
    from segreg.runs.trained_run import Run
    from segreg.task import IGNORE_INDEX, Task

__version__: str
_NAMES = {
    "segreg.api": (
        "Evaluation", "bench", "build_loaders", "build_loss", "build_model", "build_part", "check", "compare",
        "data_check", "evaluate", "export", "init", "load_recipe", "predict", "report", "resume", "run_recipe", "tune",
    ),
    "segreg.config.recipe": ("Recipe",),
    "segreg.errors": ("SegregError",),
    "segreg.registry.entry": ("Command", "Entry", "Family"),
    "segreg.registry.hooks": ("hookimpl",),
    "segreg.registry.local": ("register",),
    "segreg.registry.protocols": (
        "KINDS", "BatchAugmentation", "Calibration", "Dataset", "Decoder", "Encoder", "Exporter", "Loss", "MixedBatch",
        "Recognised", "Sample", "Schedule",
    ),
    "segreg.runs.load": ("load_run",),
    "segreg.runs.trained_run": ("Run",),
    "segreg.task": ("IGNORE_INDEX", "Task"),
}  # fmt: skip
_LAZY = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "IGNORE_INDEX", "KINDS", "BatchAugmentation", "Calibration", "Command", "Dataset", "Decoder", "Encoder", "Entry",
    "Evaluation", "Exporter", "Family", "Loss", "MixedBatch", "Recipe", "Recognised", "Run", "Sample", "Schedule",
    "SegregError", "Task", "__version__", "bench", "build_loaders", "build_loss", "build_model", "build_part", "check",
    "compare", "data_check", "evaluate", "export", "hookimpl", "init", "load_recipe", "load_run", "predict", "register",
    "report", "resume", "run_recipe", "tune",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a public name's module when the name is first used."""
    if name == "__version__":
        from importlib.metadata import version

        return version("segreg-toolkit")
    if name not in _LAZY:
        raise AttributeError(f"module 'segreg' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    """Return also the names that are imported when they are first used, for completion."""
    return sorted({*globals(), *__all__})
