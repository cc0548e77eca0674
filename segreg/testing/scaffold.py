"""Write a new package of parts, complete, tested and ready to be published: its names, and the templates it is made of.

A template is a file below templates/ named as the file that it becomes, with ".txt" behind. Those in `every` go into
every package, those in a folder of a kind into packages with a part of that kind. In their text and in their paths

* `segreg-NAME`, `segreg_NAME` and `NAME` stand for the names of the package;
* `KINDS`, `SINCE` and `BEFORE` for its kinds of part and for the versions of segreg that it asks for;
* a line that begins with `[loss]` is for packages with a loss, `[loss metric]` for those with either, `[no loss]` for
  those without.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from segreg.errors import SegregError, listed
from segreg.registry.compatibility import DISTRIBUTION, plain_name
from segreg.registry.protocols import KINDS, check_kind

PREFIX = "segreg-"
"""What the names of packages of parts begin with by custom, so that they are found."""
_DISTRIBUTION = re.compile(r"[A-Z0-9]|[A-Z0-9][A-Z0-9._-]*[A-Z0-9]", re.IGNORECASE)
_LONGEST = 40
TEMPLATES = Path(__file__).parent / "templates"
_WORD = re.compile(r"segreg-NAME|segreg_NAME|\b(?:NAME|KINDS|SINCE|BEFORE)\b")
_MARK = re.compile(rf"\[(no )?((?:{'|'.join(KINDS)})(?: (?:{'|'.join(KINDS)}))*)\]")


@dataclass(frozen=True)
class Names:
    """The names of one package.

    Attributes:
        distribution: as pip knows it: "segreg-lung-ct".
        module: as Python imports it: "segreg_lung_ct".
        short: what stands before its parts' names in recipes: "lung_ct".
    """

    distribution: str
    module: str
    short: str


def names_of(distribution: str) -> Names:
    """Return the names of a package that is called so.

    Raises:
        SegregError: it is not a name of a package (PEP 508), or none that Python could import.
    """
    example = f"such as {PREFIX}lung-ct"
    if not _DISTRIBUTION.fullmatch(distribution):
        raise SegregError(
            f'"{distribution}" is not a name of a package',
            hint=f"letters and digits, with . - _ between them, {example}",
        )
    if len(distribution) > _LONGEST:
        raise SegregError(f'"{distribution}" has {len(distribution)} characters', hint=f"{_LONGEST} at most, {example}")
    plain = plain_name(distribution)
    module = plain.replace("-", "_")
    if not module.isidentifier() or keyword.iskeyword(module):
        raise SegregError(
            f'Python could not import "{module}", the module of "{distribution}"',
            hint=f"begin with a letter and avoid Python's own words, {example}",
        )
    if taken := _owner(module):
        raise SegregError(f'"{module}", the module of "{distribution}", is the name of {taken}', hint=example)
    return Names(distribution, module, plain.removeprefix(PREFIX).replace("-", "_"))


def _owner(module: str) -> str:
    """Return whose module of that name there is already; empty where there is none."""
    if module in sys.stdlib_module_names:
        return "a module of Python's own"
    found = importlib.util.find_spec(module)
    return "a package that is installed" if found is not None and found.origin is not None else ""


def kinds_of(words: Iterable[str]) -> tuple[str, ...]:
    """Return the kinds of part that are asked for, each once, in segreg's own order.

    Raises:
        SegregError: one is not a kind, or there is none.
    """
    wanted = [word.strip() for word in words if word.strip()]
    for word in wanted:
        check_kind(word)
    if not wanted:
        raise SegregError("no kind of part is asked for", hint=f"the kinds are {listed(list(KINDS))}")
    return tuple(kind for kind in KINDS if kind in wanted)


def write_package(names: Names, kinds: tuple[str, ...], parent: Path) -> dict[Path, str]:
    """Write a package into a new folder of `parent`, and return its files and their contents.

    Raises:
        SegregError: the folder is there already, or can't be written.
    """
    folder = parent / names.distribution
    if folder.exists() or folder.is_symlink():
        raise SegregError(f"{folder} exists already", hint="name another package, or another folder with --out")
    files = {folder / path: text for path, text in _filled_in(names, kinds).items()}
    try:
        for file, text in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise SegregError(f"{error.filename or folder} can't be written: {error.strerror}") from None
    return files


def _filled_in(names: Names, kinds: tuple[str, ...]) -> dict[str, str]:
    """Return each file's text by its path in the package."""
    words = {
        "segreg-NAME": names.distribution,
        "segreg_NAME": names.module,
        "NAME": names.short,
        "KINDS": listed(kinds, quote=""),
        **_versions(version(DISTRIBUTION)),
    }
    files = {}
    for group in ("every", *kinds):
        for template in sorted(path for path in (TEMPLATES / group).rglob("*.txt") if path.is_file()):
            path = template.relative_to(TEMPLATES / group).as_posix().removesuffix(".txt")
            files[_named(path, words)] = _named(_chosen(template.read_text(encoding="utf-8"), kinds), words)
    return files


def _named(text: str, words: Mapping[str, str]) -> str:
    return _WORD.sub(lambda found: words[found.group()], text)


def _chosen(text: str, kinds: tuple[str, ...]) -> str:
    """Return the lines that packages of these kinds have, without their marks."""
    lines = []
    for written in text.splitlines(keepends=True):
        line = written
        while (mark := _MARK.match(line)) and bool(mark[1]) != any(kind in kinds for kind in mark[2].split()):
            line = line[mark.end() :]
        if mark is None:
            lines.append(line)
    return "".join(lines)


def _versions(running: str) -> dict[str, str]:
    """Return the range of segreg's versions that a package of today can count on: up to the next that may break it."""
    major, minor = (int(number) for number in re.findall(r"\d+", running)[:2])
    return {"SINCE": f"{major}.{minor}", "BEFORE": f"{major + 1}" if major else f"0.{minor + 1}"}
