"""Entry points of packages that aren't installed."""

from __future__ import annotations

import itertools
import tomllib
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path


class FakeDistribution(Distribution):
    """An installed package, as far as its name, its version and what it requires go."""

    def __init__(self, name, version, requires=()):
        lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {line}" for line in requires)]
        self._metadata = "\n".join(["Metadata-Version: 2.1", *lines, ""])

    def read_text(self, filename):
        return self._metadata if filename == "METADATA" else None

    def locate_file(self, path):
        return Path(path)


def point(module, *, name="parts", distribution="segreg-lab", version="1.0", requires=()):
    """Return the entry point `name = module` of a package."""
    return EntryPoint(name, module, "segreg")._for(FakeDistribution(distribution, version, requires))


STAND_INS = point("stand_ins")
"""The entry point of tests/stand_ins.py."""

_numbers = itertools.count()


def write_module(folder, source):
    """Write a module under a name that no other has, and return the name."""
    name = f"a_plugin_of_the_tests_{next(_numbers)}"
    (Path(folder) / f"{name}.py").write_text(source, encoding="utf-8")
    return name


OFFERING = '''
from segreg.registry.entry import Entry, Family
from segreg.registry.hooks import hookimpl

def {name}(task, *, power: float = 1.0):
    """A loss of the tests.

    Args:
        power: of something.
    """

@hookimpl
def segreg_entries():
    return [Entry("loss", "{name}", {name})]
'''
"""A module that offers one loss; to be filled in by `str.format(name=...)`."""


def builtin():
    """Return the entry points of the built-in parts, as pyproject.toml declares them, whether installed or not."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [
        point(module, name=name, distribution="segreg-toolkit", version=project["version"])
        for name, module in project["entry-points"]["segreg"].items()
    ]
