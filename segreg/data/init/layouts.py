"""Which dataset parts read a folder, and how: each is asked, and what it answers is never guessed among silently."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segreg.errors import SegregError, did_you_mean, listed
from segreg.registry.protocols import Recognised
from segreg.runtime.files import near_folder

if TYPE_CHECKING:
    from segreg.registry.registry import Part

MOST_BELOW = 50
"""Folders below that are asked about where the folder itself is not recognised."""
WRITTEN = ("resolved.yaml", "metrics.json", "prediction.json")
"""Files by which the folders of runs, evaluations and predictions are known: they are output, not data."""


@dataclass(frozen=True)
class Layout:
    """One way to read a folder.

    Attributes:
        name: the dataset part.
        folder: what it reads: the folder that was named, or the only one below it that is recognised.
        settings: of the part.
        because: what was seen.
    """

    name: str
    folder: Path
    settings: Mapping[str, Any]
    because: str


def layouts_of(folder: Path, parts: Sequence[Part]) -> tuple[list[Layout], list[str]]:
    """Return the ways in which datasets read a folder, and what parts failed at.

    Those that another one replaces, because it knows more of the same files, are left out.
    """
    found: list[tuple[str, Recognised]] = []
    complaints: list[str] = []
    for part in parts:
        try:
            found += [(part.name, one) for one in part.recognise(folder)]
        except SegregError as error:
            complaints += map(str, error.problems)
    replaced = {name for _, one in found for name in one.instead_of}
    return [Layout(n, folder, one.settings, one.because) for n, one in found if n not in replaced], complaints


def choose_layout(
    folder: Path, parts: Sequence[Part], *, name: str = "", wanted: Mapping[str, Any] | None = None
) -> tuple[Layout, list[str]]:
    """Return the one way to read a folder, with `wanted` among its settings, and what should be said about it.

    Args:
        folder: the data.
        parts: the datasets to ask.
        name: the dataset to take; empty for the one that recognises the folder.
        wanted: settings of it. Of several ways those are meant that have them.

    Raises:
        SegregError: none reads it, or several do; the message says what was seen and which option decides.
    """
    wanted = dict(wanted or {})
    if not folder.is_dir():
        what = "a file, not a folder" if folder.exists() else "not there"
        raise SegregError(f"{folder} is {what}", hint=near_folder(folder))
    if name and name not in (names := [part.name for part in parts]):
        hint = did_you_mean(name, names) or f"there are {listed(names)}"
        raise SegregError(f'--layout: there is no dataset "{name}"', hint=hint)
    asked = [part for part in parts if name in ("", part.name)]
    found, notes = layouts_of(folder, asked)
    if not found:
        below, more = _below(folder, asked)
        below = [one for one in below if not _names_other_files(one, wanted)]
        notes += more
        if len({one.folder for one in below}) > 1:
            lines = [f"segreg init {shlex.quote(str(o.folder))}   {o.name}: {o.because}" for o in below[:12]]
            raise SegregError(f"{folder} is not recognised, but folders in it are", hint="\n".join(lines))
        found = below
        if below:
            notes.append(f"{folder} itself is not recognised; {below[0].folder} is, and is what the recipe reads")
    if name and not found and wanted:
        root = asked[0].settings.get("root")
        named = {"root": folder} if root and isinstance(root.default, Path) else {}
        found = [Layout(name, folder, named, "as asked for")]
    if len(found) > 1:
        found = [one for one in found if _agrees(one, wanted)] or found
    if not found:
        raise _unknown(folder, parts, name, notes)
    if len(found) > 1:
        raise SegregError(
            f"{folder} can be read in {len(found)} ways; say which one is meant",
            hint="\n".join(f"{_option(one, found)}   {one.because}" for one in found),
        )
    (layout,) = found
    return Layout(layout.name, layout.folder, {**layout.settings, **wanted}, layout.because), notes


def _names_other_files(layout: Layout, wanted: Mapping[str, Any]) -> bool:
    """Whether one of the settings is another file or folder than the layout has, or others for the splits."""
    for key, value in wanted.items():
        own = layout.settings.get(key)
        one = next(iter(own.values()), None) if isinstance(own, Mapping) else own
        if isinstance(one, Path) and _plain(own) != value:
            return True
    return False


def _agrees(layout: Layout, wanted: Mapping[str, Any]) -> bool:
    return all(_plain(layout.settings.get(key)) == value for key, value in wanted.items())


def _option(layout: Layout, others: Sequence[Layout]) -> str:
    """Return what is added to the command line to choose a way to read the folder."""
    same = [other for other in others if other.name == layout.name and other is not layout]
    words = [f"--layout {layout.name}"]
    for key, value in layout.settings.items():
        plain = _plain(value)
        word = f"'dataset.{key}={plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)}'"
        if same and isinstance(plain, str) and all(other.settings.get(key) != value for other in same):
            return f"{words[0]} {word}"
        if any(other.settings.get(key) != value for other in same):
            words.append(word)
    return " ".join(words)


def _plain(value: Any) -> Any:
    """Return a setting as a recipe has it."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value


def _below(folder: Path, parts: Sequence[Part]) -> tuple[list[Layout], list[str]]:
    """Return how the folders below are read: those in the folder, or where none is, those in these."""
    level = [folder]
    for _ in range(2):
        level = [below for above in level for below in _folders(above)][:MOST_BELOW]
        answers = [layouts_of(one, parts) for one in level]
        if any(found for found, _ in answers):
            return [one for found, _ in answers for one in found], [note for _, notes in answers for note in notes]
    return [], []


def _folders(folder: Path) -> list[Path]:
    try:
        found = sorted(folder / e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith("."))
    except OSError:
        return []
    return [one for one in found if not any((one / name).exists() for name in WRITTEN)]


def _unknown(folder: Path, parts: Sequence[Part], name: str, notes: Sequence[str]) -> SegregError:
    if name:
        hint = f"`segreg show dataset {name}` says what it reads; settings are given as dataset.key=value"
        return SegregError(f'the dataset "{name}" does not recognise {folder}', hint="\n".join([hint, *notes]))
    known = [f"{part.name}: {part.summary}" for part in parts if part.recognises]
    hints = [
        "what was looked for, in it and two levels below, by dataset:",
        *(f"  {line}" for line in known),
        "a table of your own fits everything: a CSV with the columns image and mask (--layout csv)",
        *notes,
    ]
    return SegregError(f"no dataset recognises {folder}", hint="\n".join(hints))
