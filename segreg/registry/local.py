"""Parts that no package brings: plugin files, named by `--plugin` or `segreg.register`, and entries made in Python.

The files stand in the environment variable `SEGREG_PLUGIN_FILES`, so that the processes that this one starts take part
in them too: workers of a data loader and of a bench. A file's module is `segreg.registry.local.<name>_<digest>`, which
any of these processes can import, to read a pickled object for instance; it is not written beside the file as bytecode.
Entries made in Python belong to this process alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.machinery
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from segreg.errors import SegregError
from segreg.registry.entry import Command, Entry, Family
from segreg.registry.hooks import hookimpl
from segreg.runtime.files import expanded

VARIABLE = "SEGREG_PLUGIN_FILES"
REGISTERED = "registered"
"""What stands where a package's name would be for an entry made in Python."""
_LARGEST = 5_000_000

__path__: list[str] = []  # so that modules can be below this one


@dataclass(frozen=True)
class PluginFile:
    """A Python file that offers parts.

    Attributes:
        path: the file.
    """

    path: Path

    @property
    def name(self) -> str:
        """Return the file's name, which stands where a package's name would: `dice@my_parts.py` is its `dice`."""
        return self.path.name

    @cached_property
    def source(self) -> bytes:
        """Return what the file holds.

        Raises:
            SegregError: it is missing, or not Python in UTF-8.
        """
        hint = "--plugin names a Python file that defines segreg.Entry objects"
        if self.path.suffix != ".py":
            raise SegregError(f"{self.path} is not a plugin file: its name doesn't end in .py", hint=hint)
        try:
            with self.path.open("rb") as file:
                source = file.read(_LARGEST + 1)
            source.decode("utf-8")
        except FileNotFoundError:
            raise SegregError(f"there is no plugin file {self.path}", hint=hint) from None
        except OSError as error:
            raise SegregError(f"the plugin file {self.path} can't be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise SegregError(f"the plugin file {self.path} is not UTF-8 text (byte {error.start})") from None
        if len(source) > _LARGEST:
            raise SegregError(f"{self.path} is larger than a plugin file can be ({_LARGEST // 1_000_000} MB)")
        return source

    @property
    def digest(self) -> str:
        """Return a digest of what the file holds."""
        return hashlib.blake2b(self.source, digest_size=16).hexdigest()

    @property
    def module(self) -> str:
        """Return the name of the file's module, another one where the file was edited."""
        stem = re.sub(r"\W", "_", self.path.stem)
        return f"{__name__}.{stem}_{self.digest[:12]}"

    def load(self) -> ModuleType:
        """Import the file, and let it offer the entries that it defines, unless a hook of its own does.

        Raises:
            SegregError: it defines neither.
        """
        module = importlib.import_module(self.module)
        made = list(_made_in(module))
        hooks = [name for name, value in vars(module).items() if name.startswith("segreg_") and callable(value)]
        if not made and not hooks:
            raise SegregError(
                f"{self.path} offers nothing",
                hint='define an entry in it: `mine = segreg.Entry("loss", "mine", build)`, or a list of entries',
            )
        for hook, types in (("segreg_entries", (Entry, Family)), ("segreg_commands", (Command,))):
            offers = [one for one in made if isinstance(one, types)]
            if offers and hook not in hooks:
                setattr(module, hook, hookimpl(_offering(hook, offers, self.path)))
        return module


def _made_in(module: ModuleType) -> Iterator[Entry | Family | Command]:
    """Return what a module has as names of its own, alone or in lists, each once."""
    seen: set[int] = set()
    for name, value in vars(module).items():
        for one in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(one, (Entry, Family, Command)) and id(one) not in seen and not name.startswith("__"):
                seen.add(id(one))
                yield one


def _offering(name: str, offers: Sequence[Any], path: Path) -> FunctionType:
    """Return a function that returns the offers, and that messages place in the file."""

    def offering() -> Sequence[Any]:
        return offers

    code = offering.__code__.replace(co_filename=str(path), co_firstlineno=1, co_name=name)
    return FunctionType(code, globals(), name, None, offering.__closure__)


def plugin_files() -> list[PluginFile]:
    """Return the plugin files of this process and of those that it starts."""
    return [PluginFile(Path(path)) for path in dict.fromkeys(os.environ.get(VARIABLE, "").split(os.pathsep)) if path]


def add_files(files: Iterable[Path | str]) -> None:
    """Take part in plugin files from here on; one takes the place of another of its name.

    Raises:
        SegregError: a file is missing, or two of them have one name.
    """
    given = [PluginFile(expanded(file).absolute()) for file in files]
    for number, file in enumerate(given):
        if twice := [other for other in given[:number] if other.name == file.name and other != file]:
            raise SegregError(f"two plugin files are called {file.name}: {twice[0].path} and {file.path}")
        if os.pathsep in str(file.path):
            raise SegregError(f'the path of a plugin file can\'t have a "{os.pathsep}" in it: {file.path}')
        file.source  # noqa: B018 - reports what can't be read
    names = {file.name for file in given}
    kept = [file for file in plugin_files() if file.name not in names]
    os.environ[VARIABLE] = os.pathsep.join(str(file.path) for file in dict.fromkeys([*kept, *given]))


@contextlib.contextmanager
def using(files: Iterable[Path | str]) -> Iterator[None]:
    """Take part in plugin files within the context, and in those of before."""
    before = os.environ.get(VARIABLE)
    try:
        add_files(files)
        yield
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before


_registered: dict[tuple[str, str], Entry | Family] = {}


def register(*offers: Entry | Family | Path | str) -> None:
    """Offer parts in this process, as an installed package would: entries, or Python files that define some.

    An entry takes the place of one of its kind and name that was registered before, so that a notebook's cell can run
    again. Processes that this one starts, those of a bench for instance, know the files, but not the entries.

    Raises:
        SegregError: something is neither; an entry does not keep to what its kind asks for; a file is missing.
    """
    if strangers := [one for one in offers if not isinstance(one, (Entry, Family, Path, str))]:
        raise SegregError(
            f"{strangers[0]!r} can't be registered",
            hint='for example: segreg.register(segreg.Entry("loss", "mine", build)), or segreg.register("my_parts.py")',
        )
    add_files([one for one in offers if isinstance(one, (Path, str))])
    for one in offers:
        if isinstance(one, (Entry, Family)):
            _registered[one.kind, one.name] = one


@contextlib.contextmanager
def registering(offer: Entry | Family) -> Iterator[None]:
    """Offer a part within the context."""
    before = dict(_registered)
    register(offer)
    try:
        yield
    finally:
        _registered.clear()
        _registered.update(before)


def registered() -> list[Entry | Family]:
    """Return the entries that were registered in this process."""
    return list(_registered.values())


def text_of(offer: Entry | Family) -> str:
    """Return the source of a builder; an empty string where nobody knows it."""
    try:
        return inspect.getsource(inspect.unwrap(offer.build))
    except (OSError, TypeError):
        return ""


class _Finder:
    """Find the modules of plugin files."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:  # noqa: ARG004
        if not name.startswith(f"{__name__}."):
            return None
        for file in plugin_files():
            with contextlib.suppress(SegregError):
                if file.module == name:
                    return importlib.util.spec_from_file_location(name, file.path, loader=_Loader(name, file))
        return None


class _Loader(importlib.machinery.SourceFileLoader):
    """Load what a plugin file held as its digest was computed."""

    def __init__(self, name: str, file: PluginFile) -> None:
        super().__init__(name, str(file.path))
        self.file = file

    def get_code(self, fullname: str) -> Any:  # noqa: ARG002
        return compile(self.file.source, str(self.file.path), "exec", dont_inherit=True)


sys.meta_path.append(_Finder)
