"""The recipes that come with segreg: in the wheel as `segreg/recipes`, in a checkout as `recipes`."""

from __future__ import annotations

import re
from pathlib import Path

from segreg.errors import SegregError, did_you_mean, listed


def recipes_folder() -> Path:
    """Return the folder that holds the shipped recipes."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def shipped_recipes() -> dict[str, Path]:
    """Return the shipped recipes by name."""
    return {file.stem: file for file in sorted(recipes_folder().glob("*.yaml"))}


def shipped_recipe(name: str) -> Path:
    """Return one shipped recipe.

    Raises:
        SegregError: there is none of that name.
    """
    known = shipped_recipes()
    stem = Path(name).stem if name.endswith((".yaml", ".yml")) else name
    if stem not in known:
        hint = did_you_mean(stem, known) or f"there are {listed(list(known))}"
        raise SegregError(f'segreg ships no recipe "{name}"', hint=hint)
    return known[stem]


def about(recipe: Path) -> str:
    """Return the first sentence of the comment that heads a recipe."""
    for line in recipe.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and "yaml-language-server" not in line:
            return re.sub(r"^#\s*", "", line)
    return ""
