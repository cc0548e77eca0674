"""The recipes that come with segreg."""

import pytest

from segreg.config.recipe import about, recipes_folder, shipped_recipe, shipped_recipes
from segreg.errors import SegregError

RECIPES = shipped_recipes()


def test_the_reference_recipe_is_among_them():
    assert "isic_v3plus" in RECIPES
    assert set(RECIPES.values()) == set(recipes_folder().glob("*.yaml"))


@pytest.mark.parametrize("name", ["isic_v3plus", "isic_v3plus.yaml", "recipes/isic_v3plus.yaml"])
def test_a_recipe_is_found_by_its_name(name):
    assert shipped_recipe(name) == RECIPES["isic_v3plus"]


def test_a_recipe_that_is_not_there_is_reported_with_near_names():
    with pytest.raises(SegregError) as reported:
        shipped_recipe("isic_v3")
    assert str(reported.value).startswith('segreg ships no recipe "isic_v3"\n  did you mean "isic_v3plus"')
    with pytest.raises(SegregError, match=r'^segreg ships no recipe "qqqq"\n  there are "'):
        shipped_recipe("qqqq")


@pytest.mark.parametrize("file", RECIPES.values(), ids=lambda file: file.stem)
def test_every_recipe_says_what_it_is_which_command_runs_it_and_where_its_schema_is(file):
    text = file.read_text(encoding="utf-8")
    head = text[: text.index("\nseed:")]
    assert about(file).endswith(".")
    assert f"segreg run recipes/{file.name}" in head
    assert "\n# yaml-language-server: $schema=segreg.schema.json\n" in head


def test_the_summary_is_the_first_line_that_is_for_people(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("# yaml-language-server: $schema=x.json\n#   What it is.\n# More.\nseed: 0\n")
    assert about(file) == "What it is."
    file.write_text("seed: 0\n")
    assert about(file) == ""
