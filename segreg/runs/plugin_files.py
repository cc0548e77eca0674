"""The plugin files of a run: their text is kept in its directory, and they are found again when the run is used.

A run's directory may come from anybody, so that nothing in it runs by itself. A file of the same text that has been run
by this user before, as the user's state folder notes (`$XDG_STATE_HOME/segreg`, or `~/.local/state/segreg`), takes part
again; any other must be named by `--plugin`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from segreg.data.python_data import NAME, entry
from segreg.errors import Problem, SegregError
from segreg.registry.local import PluginFile, plugin_files, registered, registering, using
from segreg.registry.registry import Registry, load_registry
from segreg.runs.directory import RunDirectory
from segreg.runtime.files import read_json, replacing
from segreg.runtime.output import say_once

if TYPE_CHECKING:
    from segreg.config.recipe import Recipe

_Checked = TypeVar("_Checked")
FOLDER = "plugins"
"""The folder of a run's plugin files in its directory."""


def keep(directory: RunDirectory, registry: Registry) -> None:
    """Write the text of a run's plugin files into its directory, and note that this user has run them.

    Where a run continues with an edited file, the text of before is kept beside it.
    """
    for file in [PluginFile(plugin.file) for plugin in registry.plugins if plugin.file]:
        kept = directory.path / FOLDER / file.name
        kept.parent.mkdir(exist_ok=True)
        if kept.exists() and (before := PluginFile(kept)).source != file.source:
            kept.rename(kept.with_stem(f"{kept.stem}.{before.digest[:8]}"))
        if not kept.exists():
            with replacing(kept) as aside:
                aside.write_bytes(file.source)
        with contextlib.suppress(OSError, SegregError, RuntimeError):  # it must be named again then
            known = _known(file.name, file.source)
            known.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not known.exists():
                with replacing(known) as aside:
                    aside.write_bytes(file.source)


@contextlib.contextmanager
def plugins_of(directory: RunDirectory) -> Iterator[bool]:
    """Take part in a run's plugin files within the context, and yield whether it has some, or had data from Python.

    Raises:
        SegregError: within the context something was not found; of a file that does not take part by itself, or an
            entry that was registered, the error tells how to name it.
    """
    given = {file.name: file for file in plugin_files()}
    rows = _rows(directory)
    files: list[Path] = []
    unnamed: list[Path] = []  # kept copies of those that somebody must name first
    for path in [Path(str(row["file"])) for row in rows if row.get("file")]:
        kept = directory.path / FOLDER / path.name
        source = _source(kept)
        if file := given.get(path.name):
            if source not in (None, file.source):
                say_once(f"note: {file.path} is not the {file.name} that {directory.path} was made with")
        elif source is not None:
            known = None
            with contextlib.suppress(RuntimeError):
                known = _known(path.name, source)
            if known and _source(known) == source:
                files.append(path if _source(path) == source else known)
            else:
                unnamed.append(kept)
    with contextlib.ExitStack() as stack:
        stack.enter_context(using(files))
        names = {f"{offer.kind}.{offer.name}" for offer in registered()}
        without_data = any(row.get("name") == f"dataset.{NAME}" for row in rows) and f"dataset.{NAME}" not in names
        if without_data:
            stack.enter_context(registering(entry()))  # which says that the data must be given again
        try:
            yield bool(files) or without_data
        except SegregError as error:
            missing = [problem.message for problem in error.problems if problem.message.startswith("there is no ")]
            hints = [
                Problem(
                    f"{directory.path} was made with the plugin file {file.name}, which is code, and this user has not "
                    "run it here before",
                    hint=f'read {file}; if you trust it, add: --plugin {file}\nin Python: segreg.register("{file}")',
                )
                for file in unnamed
            ] + [
                Problem(
                    f"{directory.path} was made with the {row['name']} that a Python process had registered",
                    hint="segreg.register it before the run is used, or put it into a file for --plugin",
                )
                for row in rows
                if row.get("text") is not None and str(row.get("name")).partition(".")[2] in " ".join(missing)
            ]
            if not missing or not hints:
                raise
            raise SegregError.of([*error.problems, *hints]) from error


def check_recipe(directory: RunDirectory, recipe: Recipe, check: Callable[[Recipe, Registry], _Checked]) -> _Checked:
    """Return a run's recipe, checked by `resolve_begun` or `resolve_inference` with the plugin files of the run.

    Raises:
        SegregError: something is wrong with it.
    """
    with plugins_of(directory):
        return check(recipe, load_registry())


def _rows(directory: RunDirectory) -> list[dict[str, Any]]:
    """Return what a run's environment says of its plugins; nothing where it is missing or damaged."""
    with contextlib.suppress(SegregError, AttributeError, TypeError):
        return [row for row in read_json(directory.environment).get("plugins", []) if isinstance(row, dict)]
    return []


def _known(name: str, source: bytes) -> Path:
    """Return the file that is there if this user has run a plugin file of this name and content.

    Raises:
        RuntimeError: the user has no home, as in some containers.
    """
    home = os.environ.get("XDG_STATE_HOME")
    folder = (Path(home) if home else Path.home() / ".local" / "state") / "segreg" / FOLDER
    return folder / hashlib.sha256(source).hexdigest() / name


def _source(file: Path) -> bytes | None:
    with contextlib.suppress(SegregError, OSError):
        return PluginFile(file).source
    return None
