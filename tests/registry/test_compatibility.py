"""What happens where PyPI's other project `segreg` is installed, or asked for, in place of segreg-toolkit."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest

from segreg.registry.registry import load_registry

GOOD = """
from segreg import Entry, hookimpl

def ours(task):
    \"\"\"A loss.\"\"\"

@hookimpl
def segreg_entries():
    return [Entry("loss", "ours", ours)]
"""
OVERWRITTEN = ("from segreg import RegressionModel", "import segreg\nsegreg.RegressionModel")
HAPPENED = 'the package "segreg" 0.0.3 is installed, another project with the same import name'
WAY_OUT = "pip uninstall -y segreg segreg-toolkit && pip install segreg-toolkit"


@pytest.fixture
def stranger(monkeypatch):
    """Install the other project: `stranger("0.0.3")`, or None for a machine without it."""

    def install(found):
        versions = {"segreg-toolkit": "0.1.0", "segreg": found}

        def version(name):
            if versions[name] is None:
                raise PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr("segreg.registry.compatibility.version", version)

    return install


@pytest.mark.parametrize("source", OVERWRITTEN)
def test_a_failed_import_says_that_another_segreg_is_installed(source, stranger, plugin):
    stranger("0.0.3")
    (found,) = load_registry([plugin(source)]).plugins
    assert "RegressionModel" in found.error
    assert HAPPENED in found.error
    assert WAY_OUT in found.error


def test_without_the_other_project_a_failed_import_is_what_it_is(stranger, plugin):
    stranger(None)
    (found,) = load_registry([plugin(OVERWRITTEN[0])]).plugins
    assert "ImportError" in found.error
    assert "pip uninstall" not in found.error


def test_segreg_plugins_warns_of_the_other_project(stranger, plugin, installed, segreg):
    installed(plugin(GOOD))
    stranger("0.0.3")
    printed = segreg("plugins")
    assert printed.status == 0
    assert f"warning: {HAPPENED}" in printed.err
    assert WAY_OUT in printed.err
    stranger(None)
    assert segreg("plugins").err == ""


@pytest.mark.parametrize(("line", "noticed"), [("segreg", True), ("segreg>=0.1", True), ("segreg-toolkit", False)])
def test_a_plugin_that_depends_on_the_other_project_is_named(line, noticed, stranger, plugin, installed, segreg):
    stranger(None)
    installed(plugin(GOOD, distribution="segreg-lab", requires=[line]))
    printed = segreg("plugins")
    notice = 'notice: its dependencies name "segreg", another project on PyPI; they should name "segreg-toolkit"'
    assert (notice in printed.out) == noticed
    assert "offers loss: ours" in printed.out
