"""segreg: semantic segmentation from plain YAML recipes.

    import segreg

    recipe = segreg.load_recipe("recipes/isic_v3plus.yaml", ["train.epochs=3"])
    run = segreg.run_recipe(recipe)
    labels = run.predict("photo.jpg")

Importing this module imports nothing else; a name's module is imported when the name is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segreg.api import build_part, load_recipe, run_recipe
    from segreg.config.recipe import Recipe
    from segreg.errors import SegregError
    from segreg.registry.command import Command
    from segreg.registry.entry import Entry, Family
    from segreg.registry.hooks import hookimpl
    from segreg.registry.kinds import KINDS
    from segreg.registry.protocols import Dataset, Decoder, Encoder, Loss, Sample, Schedule
    from segreg.runs.trained_run import Run, load_run
    from segreg.task import IGNORE_INDEX, Task

_LAZY = {
    "Command": "segreg.registry.command",
    "IGNORE_INDEX": "segreg.task",
    "KINDS": "segreg.registry.kinds",
    "Dataset": "segreg.registry.protocols",
    "Decoder": "segreg.registry.protocols",
    "Encoder": "segreg.registry.protocols",
    "Entry": "segreg.registry.entry",
    "Family": "segreg.registry.entry",
    "Loss": "segreg.registry.protocols",
    "Recipe": "segreg.config.recipe",
    "Run": "segreg.runs.trained_run",
    "Sample": "segreg.registry.protocols",
    "Schedule": "segreg.registry.protocols",
    "SegregError": "segreg.errors",
    "Task": "segreg.task",
    "build_part": "segreg.api",
    "hookimpl": "segreg.registry.hooks",
    "load_recipe": "segreg.api",
    "load_run": "segreg.runs.trained_run",
    "run_recipe": "segreg.api",
}

__all__ = [
    "IGNORE_INDEX", "KINDS", "Command", "Dataset", "Decoder", "Encoder", "Entry", "Family", "Loss", "Recipe", "Run",
    "Sample",     "Schedule", "SegregError", "Task", "build_part", "hookimpl", "load_recipe", "load_run", "run_recipe",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a public name's module when the name is first used."""
    if name not in _LAZY:
        raise AttributeError(f"module 'segreg' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    """Names what is imported when it is first used as well, for completion."""
    return sorted({*globals(), *__all__})
