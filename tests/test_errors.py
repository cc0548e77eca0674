"""Messages: where, what, what to do; and near names."""

import pickle

import pytest

from segreg.errors import Place, Problem, SegregError, did_you_mean, listed


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (Place("recipe.yaml", 3, 7), "recipe.yaml:3:7"),
        (Place("recipe.yaml", 3), "recipe.yaml:3"),
        (Place("recipe.yaml"), "recipe.yaml"),
        (Place("command line"), "command line"),
    ],
)
def test_a_place_is_written_as_editors_read_it(place, text):
    assert str(place) == text


def test_a_problem_is_place_message_and_indented_hint():
    problem = Problem("it is wrong", Place("recipe.yaml", 3, 7), "do this\nor that")
    assert str(problem) == "recipe.yaml:3:7: it is wrong\n  do this\n  or that"
    assert str(Problem("it is wrong")) == "it is wrong"


def test_an_error_reports_message_hint_and_place():
    error = SegregError("it is wrong", hint="do this", place=Place("a.yaml", 1, 2))
    assert str(error) == "a.yaml:1:2: it is wrong\n  do this"
    assert error.problems == (Problem("it is wrong", Place("a.yaml", 1, 2), "do this"),)


def test_an_error_of_several_problems_reports_them_all_in_their_order():
    error = SegregError.of([Problem("first", hint="do this"), Problem("second", Place("a.yaml", 9))])
    assert str(error) == "first\n  do this\na.yaml:9: second"
    assert [problem.message for problem in error.problems] == ["first", "second"]


def test_at_gives_a_place_only_to_what_has_none():
    reported = SegregError.of([Problem("first"), Problem("second", Place("a.yaml", 9))]).at(Place("b.yaml", 1))
    assert str(reported) == "b.yaml:1: first\na.yaml:9: second"
    assert str(SegregError("first", hint="do this").at(None)) == "first\n  do this"


def test_an_error_survives_the_way_from_a_worker_process():
    error = SegregError("it is wrong", hint="do this", place=Place("a.yaml", 1, 2))
    back = pickle.loads(pickle.dumps(error))
    assert isinstance(back, SegregError)
    assert str(back) == str(error)
    assert back.problems == error.problems


@pytest.mark.parametrize(
    ("word", "known", "says"),
    [
        ("resnet5", ["resnet50", "unet"], 'did you mean "resnet50"?'),
        ("ResNet50", ["resnet50"], 'did you mean "resnet50"?'),
        ("horizontalflip", ["HorizontalFlip"], 'did you mean "HorizontalFlip"?'),
        ("resnet", ["resnet18", "resnet34"], 'did you mean "resnet34" or "resnet18"?'),
        ("plus", ["deeplabv3plus", "unet"], 'did you mean "deeplabv3plus"?'),  # part of a name
        ("us", ["deeplabv3plus"], ""),  # too short to be called a part of it
        ("zzz", ["resnet50"], ""),
        ("", ["resnet50"], ""),
        ("resnet50", [], ""),
    ],
)
def test_near_names(word, known, says):
    assert did_you_mean(word, known) == says


def test_no_more_than_three_near_names():
    assert did_you_mean("resnet", [f"resnet{n}" for n in range(9)]).count('"') == 6


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], ""),
        (["a"], '"a"'),
        (["a", "b"], '"a" and "b"'),
        (["a", "b", "c"], '"a", "b" and "c"'),
    ],
)
def test_lists_formatted(words, says):
    assert listed(words) == says


def test_long_lists_are_cut_and_say_so():
    assert listed(["a", "b", "c"], most=3) == '"a", "b" and "c"'
    assert listed(["a", "b", "c", "d", "e"], last="or", most=3) == '"a", "b", "c" or 2 more'
    assert listed(["a", "b"], quote="") == "a and b"
