"""What parts declare, broken on purpose; and the kit itself: which parts it checks, in pytest and from Python."""

# ruff: noqa: E501 - messages stand here as they are printed

from __future__ import annotations

import re
from typing import Any

import pytest

import plugged
import segreg.testing
from segreg.errors import SegregError
from segreg.registry.entry import Entry, Family
from segreg.registry.registry import load_registry
from segreg.settings import PositiveFloat, PositiveInt, Setting


def without_meaning(task, *, power: float = 1.0):
    """A loss of the tests.

    Args:
        power:
    """


def default_out_of_range(task, *, power: PositiveFloat = 0.0):
    """A loss of the tests.

    Args:
        power: above 0.
    """


def default_that_no_recipe_writes(task, *, words: Any = {"a", "b"}):  # noqa: B006
    """A loss of the tests.

    Args:
        words: some.
    """


def default_that_reads_back_otherwise(task, *, size: int | tuple[int, int] | str = "3"):
    """A loss of the tests.

    Args:
        size: of something.
    """


def hint_of_nothing(task, *, power: Power = 1.0):  # noqa: F821 - what is checked
    """A loss of the tests.

    Args:
        power: of something.
    """


def entry(build):
    return Entry("loss", "broken", build)


def test_settings_are_reported(said, outcome):
    assert said(entry(without_meaning), "settings_are_described") == 'nothing says what "power" means'
    assert said(entry(hint_of_nothing), "settings_are_described").startswith(
        f"it is refused: {__file__}:{hint_of_nothing.__code__.co_firstlineno}: loss 'broken' has a type hint that can't "
        "be evaluated: name 'Power' is not defined"
    )
    for check in ("defaults_fit_their_hints", "it_can_be_shown", "its_schema_is_valid"):
        found = outcome(entry(hint_of_nothing), check)
        assert (found.status, found.what) == ("not checked", "its settings can't be read, see settings_are_described")


def test_defaults_fit_their_hints(said, outcome):
    words = said(entry(default_out_of_range), "defaults_fit_their_hints")
    place, found = words.split(": ", 1)
    assert re.fullmatch(r".*test_kit_declarations\.py:\d+", place)
    assert found == "the default of \"power\" of loss 'broken' must be a number above 0, not 0.0"
    assert outcome(entry(default_that_reads_back_otherwise), "defaults_fit_their_hints").status == "passed"


def test_a_default_that_no_recipe_writes_is_reported_once(said, outcome):
    words = said(entry(default_that_no_recipe_writes), "defaults_fit_their_hints")
    assert words.endswith(
        "the default of \"words\" of loss 'broken' can't be written into a recipe: TypeError: Object of type set is not "
        "JSON serializable"
    )
    assert outcome(entry(default_that_no_recipe_writes), "it_can_be_shown").status == "not checked"


def test_no_schema_is_made_of_defaults_that_do_not_fit(outcome):
    found = outcome(entry(default_out_of_range), "its_schema_is_valid")
    assert (found.status, found.what) == ("not checked", "its settings can't be read, see settings_are_described")


HEAVY = "import torch\n" + plugged.OFFERING.format(name="heavy")


def test_a_table_of_contents_that_imports_torch(said, outcome, plugin):
    registry = load_registry([plugin(HEAVY), plugin(plugged.OFFERING.format(name="light"), distribution="segreg-bar")])
    heavy, light = (registry.find("loss", name) for name in ("heavy", "light"))
    assert said(heavy, "the_table_of_contents_is_light") == (
        f'importing {heavy.plugin.module}, and listing what it offers, brings "numpy" and "torch" in'
    )
    assert outcome(light, "the_table_of_contents_is_light").status == "passed"


# which parts are checked


def member(member, task, *, power: PositiveInt = 1):
    """A loss of a family.

    Args:
        power: of something.
    """
    return lambda logits, target: (task.probabilities(logits) - task.one_hot(target)[0]).abs().pow(power).mean()


FAMILY = Family("loss", "powers", "powers/", member, members=lambda: ["one", "two"])


def test_a_family_is_checked_by_a_member():
    assert segreg.testing.checks(FAMILY, member="two")[0].id == "loss-powers/two-settings_are_described"
    with pytest.raises(SegregError) as error:
        segreg.testing.checks(FAMILY)
    assert str(error.value) == "the loss family 'powers' is checked by one of its members\n  such as member='one'"
    with pytest.raises(SegregError) as error:
        segreg.testing.checks(FAMILY, member="three")
    assert str(error.value) == "the loss family 'powers' has no member 'three'"


def test_settings_are_checked():
    with pytest.raises(SegregError) as error:
        segreg.testing.checks(FAMILY, member="two", settings={"powr": 1})
    assert str(error.value) == 'the loss "powers/two" has no setting "powr"\n  did you mean "power"?'
    with pytest.raises(SegregError) as error:
        segreg.testing.checks(FAMILY, member="two", settings={"power": 0})
    assert str(error.value) == '"power" of the loss "powers/two" must be an integer above 0, not 0'
    with pytest.raises(SegregError) as error:
        segreg.testing.checks(FAMILY, member="two", exclude={"it_is_finite": "no"})
    assert str(error.value).startswith(
        'loss powers/two has no check "it_is_finite"\n  did you mean "it_is_finite_every'
    )


def test_what_is_left_out_is_reported():
    made = segreg.testing.checks(FAMILY, member="one", exclude={"it_can_be_built": "as I say"})
    found = next(check for check in made if check.name == "it_can_be_built").outcome()
    assert (found.status, found.what) == ("not checked", "as I say")


def test_required_settings_that_nobody_gave_are_named(outcome):
    def build(task, *, alpha: float):
        """A loss of the tests.

        Args:
            alpha: something.
        """

    for check in ("it_can_be_built", "it_is_finite_everywhere"):
        found = outcome(Entry("loss", "needy", build), check)
        assert (found.status, found.what) == ("not checked", 'needs "alpha"')


def test_a_check_is_repeatable_and_leaves_generators_alone():
    import random

    import numpy as np
    import torch

    check = next(c for c in segreg.testing.checks(FAMILY, member="one") if c.name == "it_can_be_learned_from")
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    first = check.outcome()
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[:2]
    assert torch.equal(torch.get_rng_state(), states[2])
    torch.rand(3)
    assert check.outcome().what == first.what


PACKAGE = '''
from segreg import Entry, Family, hookimpl
from segreg.settings import PositiveInt

def share(task, *, power: PositiveInt = 2):
    """A power of the distance.

    Args:
        power: the power.
    """
    def loss(logits, target):
        truth, counts = task.one_hot(target)
        distance = (task.probabilities(logits) - truth).abs() ** power
        return (distance * counts).sum() / counts.sum().clamp(min=1)
    return loss

def mean(task):
    """A mean over all pixels, ignored ones too."""
    return lambda logits, target: (task.probabilities(logits) - task.one_hot(target)[0]).abs().mean()

def of_family(member, task):
    """A member.
    """
    return share(task, power={"first": 1, "second": 2}[member])

@hookimpl
def segreg_entries():
    return [
        Entry("loss", "share", share),
        Entry("loss", "mean", mean),
        Family("loss", "many", "many/", of_family, members=lambda: ["first", "second"]),
    ]
'''


@pytest.fixture
def package(plugin, installed):
    installed(plugin(PACKAGE, distribution="segreg-losses"))


@pytest.mark.usefixtures("package")
def test_a_package_is_checked_by_its_single_parts_and_a_member_of_each_family():
    def titles(*arguments, **named):
        made = segreg.testing.package_checks("segreg_losses", *arguments, **named)
        return list(dict.fromkeys(f"{c.subject.part.kind}.{c.subject.part.name}" for c in made))

    assert titles() == ["loss.share", "loss.mean", "loss.many/first"]
    assert titles(["loss.mean"], settings={"loss.share": {"power": 1}}) == ["loss.share", "loss.mean"]
    assert titles(["loss.m*"]) == ["loss.mean", "loss.many/first", "loss.many/second"]
    assert titles(settings={"loss.many/second": {}}) == [
        "loss.share",
        "loss.mean",
        "loss.many/first",
        "loss.many/second",
    ]
    with pytest.raises(SegregError) as error:
        titles(settings={"loss.shared": {"power": 1}})
    assert str(error.value) == '"loss.shared" is not part of segreg-losses 1.0\n  did you mean "loss.share"?'
    with pytest.raises(SegregError) as error:
        titles(exclude={"loss.share.it_can_be_bilt": "no"})
    assert str(error.value).startswith(
        'there is no check "loss.share.it_can_be_bilt" to leave out\n  did you mean "loss.share.it_can_be_built"'
    )


def test_a_family_is_checked_by_the_first_of_its_representatives(plugin, installed):
    def titles(representatives):
        source = PACKAGE.replace(
            '["first", "second"])', f'["first", "second"], representatives=lambda: {representatives})'
        )
        installed(plugin(source, distribution="segreg-typical"))
        made = segreg.testing.package_checks("segreg-typical")
        return list(dict.fromkeys(check.subject.part.name for check in made))

    assert titles(["second", "first"]) == ["share", "mean", "many/second"]
    assert titles([]) == ["share", "mean"]
    with pytest.raises(SegregError) as error:
        titles(["secnd"])
    assert str(error.value).partition(": ")[2] == (
        "the loss family 'many' names 'secnd' as a representative, which is none of its members\n"
        '  did you mean "second"?'
    )


@pytest.mark.usefixtures("package")
def test_pytest_is_reported_kind_name_and_check():
    mark = segreg.testing.parametrize("segreg-losses", slow=[pytest.mark.gpu])
    assert mark.args[0] == "check"
    params = {param.id: param for param in mark.args[1]}
    assert "loss-share-ignored_pixels_count_for_nothing" in params
    params["loss-share-ignored_pixels_count_for_nothing"].values[0]()
    with pytest.raises(segreg.testing.CheckFailed, match=r"^loss mean, ignored_pixels_count_for_nothing: on a binary"):
        params["loss-mean-ignored_pixels_count_for_nothing"].values[0]()
    with pytest.raises(pytest.skip.Exception, match="it has no setting with a default"):
        params["loss-mean-defaults_fit_their_hints"].values[0]()


def test_entries_and_single_checks_can_be_mixed():
    one = segreg.testing.checks(FAMILY, member="two")
    mark = segreg.testing.parametrize(
        [entry(default_out_of_range), *one], exclude={"loss.broken.it_can_be_built": "known"}
    )
    assert [param.id for param in mark.args[1]][:2] == ["loss-powers/two-settings_are_described", "loss-powers/two-defaults_fit_their_hints"]  # fmt: skip
    found = {param.id: param.values[0] for param in mark.args[1]}
    with pytest.raises(pytest.skip.Exception, match="known"):
        found["loss-broken-it_can_be_built"]()


def test_slow_checks_get_their_marks():
    from test_kit_encoders import Fine
    from test_kit_encoders import entry as encoder

    mark = segreg.testing.parametrize([encoder(Fine)], slow=[pytest.mark.slow])
    assert [param.id.rpartition("-")[2] for param in mark.args[1] if param.marks] == [
        "it_works_with_decoders", "it_compiles", "it_exports",
    ]  # fmt: skip


def test_a_setting_of_a_family_without_words(outcome):
    family = Family(
        "loss", "silent", "silent/", lambda_free, members=lambda: ["one"],
        member_settings=lambda member: {"power": Setting("power", float, 1.0)},
    )  # fmt: skip
    made = segreg.testing.checks(family, member="one")
    assert (
        next(c for c in made if c.name == "settings_are_described").outcome().what == 'nothing says what "power" means'
    )


def lambda_free(member, task, **settings):
    """A loss of a family."""
