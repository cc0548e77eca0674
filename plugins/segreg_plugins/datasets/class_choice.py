"""Which class each label of an annotated data set becomes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal

from segreg.errors import SegregError, did_you_mean, listed
from segreg.task import IGNORE_INDEX, Task

Mode = Literal["multiclass", "binary", "multilabel"]
Others = Literal["error", "background", "ignore"]

NOTHING = -1
"""The label of what is not drawn at all."""


def class_task(
    known: Sequence[str],
    *,
    classes: Sequence[str] | Mapping[str, Sequence[str]] | None,
    mode: Mode,
    background: str,
    others: Others,
) -> tuple[Task, dict[str, int]]:
    """Return the task and the label of each category, by the category's name.

    In a multiclass task label 0 is the background and 1 the first class; in a binary one 1 is the foreground; in a
    multilabel one 0 is the first class. 255 is ignored, and `NOTHING` is not drawn: others, and the background.

    Args:
        known: the categories that something is annotated with, in their order.

    Raises:
        SegregError: a class has no category, a category no class or two, or the mode does not fit the classes.
    """
    members = _members(known, classes, background)
    if mode == "binary" and len(members) != 1:
        raise SegregError(
            f"mode: a binary task has one class, and there are {len(members)}: {listed(list(members))}",
            hint=f"classes: {{object: [{', '.join(name for names in members.values() for name in names)}]}} makes "
            "one class of all",
        )
    task = Task((background, *members) if mode == "multiclass" else tuple(members), mode)
    first = 0 if mode == "multilabel" else 1
    labels = {name: first + number for number, names in enumerate(members.values()) for name in names}
    rest = [name for name in known if name not in labels and name != background]
    if rest and others == "error":
        raise SegregError(
            f"classes: {listed(rest)} {'is' if len(rest) == 1 else 'are'} annotated, but in no class",
            hint="name them in classes, or set others: background (they are no class) or ignore (they count for "
            "nothing)",
        )
    labels |= dict.fromkeys(rest, IGNORE_INDEX if others == "ignore" else NOTHING)
    return task, labels | ({background: NOTHING} if background in known else {})


def _members(
    known: Sequence[str], classes: Sequence[str] | Mapping[str, Sequence[str]] | None, background: str
) -> dict[str, list[str]]:
    """Return the names of each class's categories."""
    if classes is None:
        members = {name: [name] for name in known if name != background}
        if not members:
            raise SegregError(f'"{background}" is all that is annotated, so that there is nothing to learn')
        return members
    pairs = classes.items() if isinstance(classes, Mapping) else [(name, [name]) for name in classes]
    if not isinstance(classes, Mapping) and len(set(classes)) < len(classes):
        twice = sorted({name for name in classes if list(classes).count(name) > 1})
        raise SegregError(f"classes: {listed(twice)} stands more than once")
    if not pairs:
        raise SegregError("classes: name at least one, or null for all that are annotated")
    chosen = {name: list(dict.fromkeys(names)) for name, names in pairs}
    owners: dict[str, list[str]] = defaultdict(list)
    for name, names in chosen.items():
        if not names:
            raise SegregError(f'classes: "{name}" has no category')
        for category in names:
            owners[category].append(name)
    unknown = [name for name in owners if name not in known]
    if unknown:
        hint = did_you_mean(unknown[0], known) or f"there is {listed(list(known))}"
        raise SegregError(f"classes: nothing is annotated as {listed(unknown, last='or')}", hint=hint)
    if shared := [name for name, names in owners.items() if len(names) > 1]:
        raise SegregError(f'classes: the category "{shared[0]}" stands in {listed(owners[shared[0]])}')
    if background in chosen:
        raise SegregError(
            f'classes: "{background}" is what is in no class, and can\'t be one', hint="background: names it otherwise"
        )
    return chosen
