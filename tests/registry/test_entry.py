"""What may be an entry, and the words with which the rest is refused."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest

from segreg.errors import SegregError, listed
from segreg.registry.entry import Entry, Family, where
from segreg.registry.protocols import KINDS
from segreg.settings import Fraction, Setting


def good(task, *, power: float = 1.0):
    """Return what it gives.

    Args:
        power: of something.
    """
    return task, power


def good_member(member, task, *, power: float = 1.0):
    """Return what it gives.

    Args:
        power: of something.
    """
    return member, task, power


def at(function):
    return f"{__file__}:{inspect.getsourcelines(function)[1]}"


def test_an_entry_knows_its_summary_settings_and_place():
    entry = Entry("loss", "good", good)
    assert entry.summary == "Return what it gives."
    assert dict(entry.settings) == {"power": Setting("power", float, 1.0, "of something.")}
    assert entry.place == at(good)


def test_a_family_knows_its_summary_settings_and_place():
    family = Family("loss", "zoo", "zoo/", good_member, lambda: ["a"])
    assert family.summary == "Return what it gives."
    assert dict(family.settings("a")) == {"power": Setting("power", float, 1.0, "of something.")}
    assert family.place == at(good_member)


def test_a_family_may_have_settings_of_each_member():
    def build(member, task, **settings):
        """Return what it gives."""

    family = Family("loss", "zoo", "zoo/", build, lambda: ["a"], lambda member: {member: Setting(member, int, 1)})
    assert list(family.settings("a")) == ["a"]


def test_a_class_may_be_a_builder():
    class Loss:
        """A loss."""

        def __init__(self, task):
            pass

    assert Entry("loss", "a", Loss).place == at(Loss.__init__)


def test_the_place_is_that_of_the_function_that_is_wrapped():
    @functools.wraps(good)
    def wrapper(*given, **settings):
        return good(*given, **settings)

    assert where(wrapper) == at(good)
    assert Entry("loss", "a", wrapper).place == at(good)


def no_positional(*, power: float = 1.0):
    """Return what it gives.

    Args:
        power: of something.
    """


def before_the_star(task, power: float = 1.0):
    """Return what it gives."""


def open_positional(task, *more):
    """Return what it gives."""


def open_keywords(task, **settings):
    """Return what it gives."""


def no_docstring(task):
    pass


def blank_docstring(task):
    """ """


def no_hint(task, *, power=1.0, other: int = 2, third=3):
    """Return what it gives.

    Args:
        power: of something.
        other: of something.
        third: of something.
    """


def no_meaning(task, *, power: float = 1.0):
    """Return what it gives.

    Args:
        task: of something.
    """


def reserved_word(task, *, weight: float = 1.0):
    """Return what it gives.

    Args:
        weight: of something.
    """


AFTER_THE_STAR = "\n  what a recipe may set stands after a * in the signature"

REFUSED = [
    (no_positional, "loss 'x' is given task by position, but its builder takes 0: ()" + AFTER_THE_STAR),
    (before_the_star, "loss 'x' is given task by position, but its builder takes 2: (task, power)" + AFTER_THE_STAR),
    (open_positional, "loss 'x' takes *more, which would swallow misspelled settings; name each setting"),
    (open_keywords, "loss 'x' takes **settings, which would swallow misspelled settings; name each setting"),
    (no_docstring, "loss 'x' has no docstring; its first line is what `segreg list` prints"),
    (blank_docstring, "loss 'x' has no docstring; its first line is what `segreg list` prints"),
    (no_hint, 'loss \'x\' has no type hint for "power" and "third"'),
    (no_meaning, 'loss \'x\' has no line under "Args:" for "power"'),
    (reserved_word, 'loss \'x\' has a setting "weight", a word that recipes use for themselves'),
]  # fmt: skip


@pytest.mark.parametrize(("build", "says"), REFUSED, ids=lambda value: getattr(value, "__name__", ""))
def test_a_builder_that_is_no_schema_is_refused_with_its_place(build, says):
    with pytest.raises(SegregError) as reported:
        Entry("loss", "x", build)
    assert str(reported.value) == f"{at(build)}: {says}"


def test_a_kind_without_anything_given_says_so():
    with pytest.raises(
        SegregError, match=r"dataset 'x' is given nothing by position, but its builder takes 1: \(task\)"
    ):
        Entry("dataset", "x", good)


def test_an_unknown_kind_is_refused():
    with pytest.raises(SegregError) as reported:
        Entry("losses", "x", good)
    assert str(reported.value) == (f"{at(good)}: 'losses' is not a kind of part; the kinds are {listed(list(KINDS))}")


@pytest.mark.parametrize("build", ["good", None, functools.partial(good, power=2.0), print])
def test_what_has_no_signature_of_its_own_is_no_builder(build):
    with pytest.raises(SegregError, match=r"^loss 'x': its builder must be a function or a class, not "):
        Entry("loss", "x", build)


@pytest.mark.parametrize("name", ["", "a b", "a@b", "a\tb"])
def test_a_name_that_recipes_could_not_write_is_refused(name):
    with pytest.raises(SegregError) as reported:
        Entry("loss", name, good)
    assert str(reported.value) == f"{at(good)}: {name!r} can't be a name: no blanks and no @ in names"


def test_only_a_dataset_recognises_folders():
    with pytest.raises(SegregError, match=r"loss 'good' has recognise=.*\n.*a function of a dataset"):
        Entry("loss", "good", good, recognise=lambda folder: [])


def test_a_family_is_given_the_member_first():
    with pytest.raises(SegregError) as reported:
        Family("loss", "zoo", "zoo/", good, lambda: ["a"])
    assert str(reported.value) == (
        f"{at(good)}: loss family 'zoo' is given member, task by position, but its builder takes 1: (task)\n"
        "  what a recipe may set stands after a * in the signature"
    )


def test_a_family_without_settings_of_its_members_may_not_be_open():
    def build(member, task, **settings):
        """Return what it gives."""

    with pytest.raises(SegregError, match=r"loss family 'zoo' takes \*\*settings, which would swallow"):
        Family("loss", "zoo", "zoo/", build, lambda: ["a"])


@pytest.mark.parametrize(
    ("hint", "default", "says"),
    [
        ("list[int", None, "has a type hint that can't be evaluated: SyntaxError"),
        ("int | 'auto'", 3, "has a type hint that can't be evaluated: TypeError"),
        ("np.no_such_type", 3, "has a type hint that can't be evaluated: AttributeError"),
        (np.ndarray | None, None, "can't be checked or written as JSON Schema: "),
        (Callable[[int], int] | None, None, "can't be checked or written as JSON Schema: "),
        (Any, np.float32(3), "can't be written into a recipe: TypeError"),
        (Any, frozenset({1}), "can't be written into a recipe: TypeError"),
        (Any, {"a": [1, None]}, ""),
        (dict[str, tuple[float, ...]] | Literal["auto"] | None, "auto", ""),
    ],
    ids=str,
)
def test_hints_and_defaults_that_no_recipe_can_have_are_reported(hint, default, says):
    def build(task, *, power=default):
        """Return what it gives.

        Args:
            power: of something.
        """

    build.__annotations__["power"] = hint
    entry = Entry("loss", "x", build)
    if not says:
        assert entry.settings["power"].default == default
        return
    with pytest.raises(SegregError) as reported:
        _ = entry.settings
    assert says in str(reported.value)
    assert str(reported.value).startswith(f"{at(build)}: ")


def test_a_hint_that_only_type_checkers_can_see_is_reported_with_its_place():
    def build(task, *, weights: "Tensor" = None):  # noqa: F821
        """Return what it gives.

        Args:
            weights: of something.
        """

    says = (
        f"{at(build)}: loss 'x' has a type hint that can't be evaluated: name 'Tensor' is not defined\n"
        "  import what the hints of settings name at run time, not under TYPE_CHECKING alone"
    )
    with pytest.raises(SegregError) as reported:
        Entry("loss", "x", build).settings  # noqa: B018
    assert str(reported.value) == says


# defaults


def wrong_default(task, *, power: int = 2.5, word: str = "a"):
    """Return what it gives.

    Args:
        power: of something.
        word: of something.
    """


def null_default(task, *, size: tuple[int, int] = None):  # noqa: RUF013 - it is the mistake
    """Return what it gives.

    Args:
        size: of something.
    """


def out_of_range(task, *, share: Fraction = 2):
    """Return what it gives.

    Args:
        share: of something.
    """


def no_value(task, *, device: int | object = object()):
    """Return what it gives.

    Args:
        device: of something.
    """


WRONG_DEFAULTS = [
    (wrong_default, "the default of \"power\" of loss 'x' must be an integer, not 2.5"),
    (null_default, "the default of \"size\" of loss 'x' must be a list of 2 integers, not null"),
    (out_of_range, "the default of \"share\" of loss 'x' must be a number between 0 and 1, not 2"),
    (no_value, "the default of \"device\" of loss 'x' can't be written into a recipe: "),
]


@pytest.mark.parametrize(("build", "says"), WRONG_DEFAULTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_default_that_a_recipe_could_not_write_is_refused_with_its_place(build, says):
    entry = Entry("loss", "x", build)
    with pytest.raises(SegregError) as reported:
        _ = entry.settings
    assert str(reported.value).startswith(f"{at(build)}: {says}")


def test_so_is_one_that_a_member_of_a_family_has():
    def build(member, task, **settings):
        """Return what it gives."""

    family = Family("loss", "zoo", "zoo/", build, lambda: ["a"], lambda member: {"b": Setting("b", int, "c")})
    with pytest.raises(
        SegregError, match=r"test_entry.py:\d+: the default of \"b\" of loss 'zoo/a' must be an integer"
    ):
        family.settings("a")
