"""Recipes that are right, but for what is installed: two packages with one name, and plugins that are out of use."""

# ruff: noqa: E501 - messages stand here as they are printed

from __future__ import annotations

import re

import pytest

import plugged

OURS = plugged.OFFERING.format(name="ours")
LOST = """
from segreg.registry.entry import Family
from segreg.registry.hooks import hookimpl

def build(member, task):
    '''A loss.'''

def members():
    raise OSError("the list is gone")

@hookimpl
def segreg_entries():
    return [Family("loss", "ghosts", "ghosts/", build, members)]
"""


@pytest.fixture
def with_loss(complaint, installed):
    """Return what is said to `loss: NAME` with these plugins beside the stand-ins."""

    def check(name, *points):
        installed(plugged.STAND_INS, *points)
        said = complaint("loss:\n  - {name: dice, weight: 2}\n  - bce", f"loss: {name}")
        return re.sub(r"[^\s(]*/a_plugin_of_the_tests_\d+\.py", "plugin.py", said)

    return check


def test_a_name_that_two_packages_offer(with_loss, plugin):
    foo, bar = (plugin(OURS, distribution=f"segreg-{name}", version="2.0") for name in ("foo", "bar"))
    assert with_loss("ours", foo, bar) == (
        'error: recipe.yaml:15:7: the loss "ours" is offered more than once: '
        "by segreg-bar 2.0 (plugin.py:5) and by segreg-foo 2.0 (plugin.py:5)\n"
        '  say which one: "ours@segreg-bar" or "ours@segreg-foo"\n'
    )


def test_a_setting_of_a_plugins_part(with_loss, plugin):
    assert with_loss("{name: ours, pwer: 2}", plugin(OURS, distribution="segreg-foo")) == (
        'error: recipe.yaml:15:20: the loss "ours" has no setting "pwer"\n'
        '  did you mean "power"?\n'
        '  it accepts "power"\n'
        "  defined at plugin.py:5 (segreg-foo 1.0)\n"
    )


def test_a_part_whose_default_does_not_fit_its_type(with_loss, plugin, segreg):
    both = OURS + OURS.replace("ours", "theirs").replace("segreg_entries", "others").replace("@hookimpl", "")
    both = both.replace('return [Entry("loss", "ours", ours)]', 'return [Entry("loss", "ours", ours), *others()]')
    source = plugin(both.replace("power: float = 1.0", "power: int = 2.5", 1), distribution="segreg-foo")
    assert with_loss("ours", source) == (
        "error: recipe.yaml:15:7: plugin.py:5: the default of \"power\" of loss 'ours' must be an integer, not 2.5\n"
        "  its author must change the default or the type hint; until then the part can't be used\n"
    )
    assert segreg("check", "recipe.yaml", "loss=theirs").out == "recipe.yaml: fine\n"
    schema = segreg("schema").out
    assert '"theirs"' in schema
    assert '"ours"' not in schema


def test_a_part_of_a_plugin_that_could_not_be_loaded(with_loss, plugin):
    broken = plugin("import a_module_that_nobody_has\n" + OURS, distribution="segreg-foo")
    assert with_loss("ours", broken) == (
        'error: recipe.yaml:15:7: there is no loss "ours"\n'
        '  it can be "bce", "dice" or "tversky"\n'
        "  `segreg list loss` shows every loss\n"
        "  segreg-foo 1.0 could not be loaded and may offer it: "
        "plugin.py:1: ModuleNotFoundError: No module named 'a_module_that_nobody_has'\n"
    )


def test_a_part_of_a_plugin_that_is_switched_off(with_loss, plugin, monkeypatch):
    monkeypatch.setenv("SEGREG_DISABLE_PLUGINS", "segreg-foo")
    assert with_loss("ours", plugin(OURS, distribution="segreg-foo")) == (
        'error: recipe.yaml:15:7: there is no loss "ours"\n'
        '  it can be "bce", "dice" or "tversky"\n'
        "  `segreg list loss` shows every loss\n"
        "  segreg-foo 1.0 could not be loaded and may offer it: switched off by SEGREG_DISABLE_PLUGINS\n"
    )


def test_a_family_that_has_lost_its_members(with_loss, plugin):
    assert with_loss("ghosts/casper", plugin(LOST, distribution="segreg-foo")) == (
        "error: recipe.yaml:15:7: segreg-foo 1.0 can't tell the members of its family ghosts: OSError: the list is gone\n"
        "  SEGREG_DISABLE_PLUGINS=segreg-foo continues without it\n"
    )
