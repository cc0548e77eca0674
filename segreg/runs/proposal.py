"""From a folder to a proposed recipe: the dataset that reads it, its fingerprint, and the settings that follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segreg.config.commented import recipe_text
from segreg.config.recipe import Overrides, Recipe, as_written, override_words
from segreg.config.resolve import choose, read_section, resolve
from segreg.data import divide
from segreg.data.init.fingerprint import MOST_READ, Fingerprint, fingerprint
from segreg.data.init.layouts import Layout, choose_layout
from segreg.data.init.machine import Machine
from segreg.data.init.rules import BudgetName, Decision, decide, default_budget
from segreg.data.inspection.gate import MOST_LEFT_OUT, MOST_VOID
from segreg.data.resize import format_size
from segreg.errors import SegregError, listed
from segreg.registry.protocols import Dataset
from segreg.registry.registry import Registry
from segreg.runtime.progress import Progress


@dataclass(frozen=True)
class Proposal:
    """A recipe for a folder, and what it follows from.

    Attributes:
        layout: how the folder is read.
        fingerprint: what it holds.
        budget: the budget that the network follows from.
        decisions: every setting, with its reason.
        recipe: the recipe.
        text: the recipe as YAML with comments.
        notes: what should be said.
        warnings: why a run of the recipe would stop, or its scores mean little.
    """

    layout: Layout
    fingerprint: Fingerprint
    budget: BudgetName
    decisions: Sequence[Decision]
    recipe: Recipe
    text: str
    notes: Sequence[str]
    warnings: Sequence[str]

    def as_data(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {
            "layout": {**as_written(asdict(self.layout)), "folder": str(self.layout.folder)},
            "fingerprint": self.fingerprint.as_data(),
            "budget": self.budget,
            "decisions": [
                {"path": ".".join(one.path), "value": as_written(one.value), "why": one.why} for one in self.decisions
            ],
            "recipe": self.recipe.values,
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }

    def lines(self) -> list[str]:
        """Return what was found, as lines to print."""
        f = self.fingerprint
        sizes = [f"{format_size(size)} ({count})" for size, count in list(f.sizes.items())[:4]]
        more = f" and {len(f.sizes) - 4} more" if len(f.sizes) > 4 else ""
        part = f", {f.read:,} of them read (seed {f.seed})" if f.read < f.images else ""
        shares = listed([f"{share.name} {100 * share.share:.2g}%" for share in f.shares], quote="", most=12)
        return [
            f"{self.layout.folder} is read as {self.layout.name}: {self.layout.because}",
            f"  images    {f.images:,}{part}",
            f"  sizes     {', '.join(sizes)}{more}",
            f"  classes   {shares} of the pixels",
            *([f"  groups    {f.groups:,}"] if f.groups else []),
            *([f"  alike     {f.alike_images} images look like copies of another"] if f.alike else []),
        ]


def propose(
    folder: Path,
    registry: Registry,
    *,
    layout: str = "",
    overrides: Overrides = (),
    budget: BudgetName | None = None,
    most: int = MOST_READ,
    progress: Progress,
) -> Proposal:
    """Return a recipe for a folder.

    Args:
        folder: the data.
        registry: whose datasets are asked.
        layout: the dataset to read it with; empty for the one that recognises it.
        overrides: changes of the recipe. Those of the dataset choose among several ways to read the folder.
        budget: of the network; None: as the machine asks for.
        most: images that are read at most.
        progress: shows what is under way.

    Raises:
        SegregError: nothing reads the folder, or several do, its images can't be read, or an override is wrong.
    """
    asked = Recipe({"dataset": {}}).changed(word for word in override_words(overrides) if _is_of_dataset(word))
    others = [word for word in override_words(overrides) if not _is_of_dataset(word)]
    wanted = asked.values["dataset"]
    if not isinstance(wanted, Mapping) or "name" in wanted:
        raise SegregError(
            "dataset.name: the dataset is chosen by --layout NAME", hint="its settings by dataset.key=value"
        )
    chosen, notes = choose_layout(folder, registry.parts("dataset"), name=layout, wanted=wanted)
    settings = as_written(chosen.settings)
    dataset: Dataset = choose("dataset", chosen.name, settings, registry).build()
    found = fingerprint(dataset, progress=progress, most=most)
    machine = Machine.this()
    name, why = (budget, "as asked for") if budget else default_budget(machine)
    notes = [*notes, f"the budget is {why}"] if budget is None else notes
    if found.ignored > (MOST_VOID if dataset.void else MOST_LEFT_OUT):
        notes = [*notes, f"{100 * found.ignored:.2g}% of the pixels are ignored: see whether they should be"]
    decisions = [
        Decision(("dataset", "name"), chosen.name, chosen.because),
        *(Decision(("dataset", key), value) for key, value in settings.items()),
        *decide(found, name, machine),
    ]
    written = Recipe(_nested(decisions), source="the recipe").changed(others)
    reasons = _reasons(decisions, [*others, *(f"dataset.{key}=" for key in wanted)])
    resolve(written, registry)
    warnings = _warnings(dataset, found, written)
    text = recipe_text(written.values, reasons, _header(chosen, found, name, warnings))
    return Proposal(chosen, found, name, decisions, written, text, notes, warnings)


def _is_of_dataset(word: str) -> bool:
    return word.split("=", 1)[0].split(".", 1)[0].strip() == "dataset"


def _nested(decisions: Sequence[Decision]) -> dict[str, Any]:
    """Return a recipe's values, sections in the order of their first decision."""
    values: dict[str, Any] = {}
    for one in decisions:
        first, *rest = one.path
        if not rest:
            values[first] = one.value
        elif rest[0].isdecimal():
            values.setdefault(first, []).append(one.value)
        else:
            values.setdefault(first, {})[rest[0]] = one.value
    order = ("seed", "dataset")
    return {name: values[name] for name in (*order, *(name for name in values if name not in order))}


def _reasons(decisions: Sequence[Decision], overrides: Sequence[str]) -> dict[tuple[str, ...], str]:
    reasons = {one.path: one.why for one in decisions}
    for word in overrides:
        path = tuple(word.split("=", 1)[0].strip().split("."))
        reasons = {known: why for known, why in reasons.items() if known[: len(path)] != path}
        reasons[path] = "as asked for"
    return reasons


def _header(layout: Layout, found: Fingerprint, budget: BudgetName, warnings: Sequence[str]) -> list[str]:
    images = f"{found.images:,} image{'s' * (found.images > 1)}"
    images += "" if found.read == found.images else f", by {found.read:,} of them"
    classes = f"{len(found.task.classes)} class{'es' * (len(found.task.classes) > 1)}"
    return [
        f"{layout.folder.name}: {images}, {found.task.mode}, {classes}; budget {budget}.",
        "Written by `segreg init`, whose rules are in docs/init.md. Change what you know better.",
        *(f"WARNING: {warning}" for warning in warnings),
    ]


def _warnings(dataset: Dataset, found: Fingerprint, recipe: Recipe) -> list[str]:
    warnings = []
    if found.faults:
        count = f"{len(found.faults)} of the {found.read:,} images that were read can't be trained on"
        warnings.append(f"{count}, such as {found.faults[0].splitlines()[0]}")
    if found.across:
        warnings.append(f"{found.across} pairs of images in two splits look like copies of each other")
    split = read_section("split", recipe.values.get("split", {}), recipe.source)
    try:
        if not split.stratify:
            divide(dataset, split)
    except SegregError as error:
        warnings.append(error.problems[0].message)
    return warnings
