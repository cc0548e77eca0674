"""Recipes that are right: every default filled in, and a complete recipe that resolves to itself."""

from __future__ import annotations

from pathlib import Path

import pytest

import plugged
from segreg.config.recipe import Recipe, read_recipe, shipped_recipes
from segreg.config.resolve import SECTIONS, SETTINGS, read_section, resolve, resolve_begun
from segreg.config.sections import Evaluate, Input, Split, Train
from segreg.errors import Place, SegregError
from segreg.registry.protocols import KINDS
from segreg.registry.registry import load_registry
from segreg.runs.directory import RunDirectory
from segreg.runs.trained_run import Run
from segreg.settings import check_value, plain

RIGHT = Path(__file__).parents[1] / "wrong_recipes" / "right.yaml"
LEAST = {
    "dataset": "drawn",
    "encoder": "tiny",
    "decoder": "unet",
    "loss": "dice",
    "optimizer": {"name": "adam", "lr": 0.1},
    "evaluate": {"metrics": "iou"},
}


@pytest.fixture
def resolved(lab):
    return resolve(read_recipe(RIGHT), lab)


def test_the_parts_and_settings_are_those_of_the_recipe(resolved):
    assert resolved.dataset.part.name == "folder"
    assert resolved.dataset.settings == {
        "images": Path("data/images"),
        "masks": Path("data/masks"),
        "suffix": "",
        "classes": ("lesion",),
    }
    assert resolved.decoder.settings == {
        "output_stride": 16,
        "rates": (6, 12, 18),
        "dropout": 0.1,
        "separable": True,
    }
    assert [(choice.part.name, choice.weight) for choice in resolved.loss] == [("dice", 2.0), ("bce", 1.0)]
    assert [choice.part.name for choice in resolved.metrics] == ["dice", "iou"]
    assert resolved.split == Split(val=0.2, test=0.2)
    assert resolved.input == Input(size=(64, 64))
    assert resolved.train == Train(epochs=3)
    assert resolved.source == str(RIGHT)


def test_each_choice_knows_where_it_was_written(resolved):
    places = {choice.part.name: (choice.place.line, choice.place.column) for choice in resolved.choices()}
    assert places == {
        "folder": (3, 9),
        "tiny": (11, 10),
        "deeplabv3plus": (13, 9),
        "adam": (19, 9),
        "cosine": (21, 11),
        "HorizontalFlip": (10, 12),
        "dice": (25, 13),
        "bce": (17, 5),
        "iou": (25, 19),
    }


def test_a_recipe_of_six_lines_has_every_default(lab):
    least = resolve(Recipe(LEAST), lab)
    assert (least.seed, least.augment, least.auxiliary, least.schedule) == (0, (), None, None)
    assert (least.split, least.input, least.train, least.evaluate) == (Split(), Input(), Train(), Evaluate())
    assert least.dataset.settings == {"count": 8}
    assert [choice.weight for choice in least.loss] == [1.0]
    assert [choice.part.name for choice in least.metrics] == ["iou"]


@pytest.mark.parametrize("empty", [None, {}])
@pytest.mark.parametrize("section", [*SETTINGS, "augment", "auxiliary", "schedule"])
def test_an_empty_section_is_one_that_was_left_out(section, empty, lab):
    if section in ("augment", "auxiliary", "schedule"):
        empty = None
    value = {**(empty or {}), "metrics": "iou"} if section == "evaluate" else empty
    assert resolve(Recipe({**LEAST, section: value}), lab).plain() == resolve(Recipe(LEAST), lab).plain()


@pytest.mark.parametrize("one", ["dice", {"name": "dice"}, ["dice"], [{"name": "dice", "weight": 1}]])
def test_one_part_of_many_may_stand_alone(one, lab):
    assert resolve(Recipe({**LEAST, "loss": one}), lab).plain() == resolve(Recipe(LEAST), lab).plain()


def test_an_auxiliary_decoder_has_a_weight(lab):
    recipe = resolve(Recipe({**LEAST, "auxiliary": {"name": "unet", "weight": 0.4, "channels": [8]}}), lab)
    assert recipe.auxiliary.weight == 0.4
    assert recipe.auxiliary.settings == {"channels": (8,)}
    assert recipe.plain()["auxiliary"] == {"name": "unet", "channels": [8], "weight": 0.4}


def test_members_of_families_have_settings_of_their_own(lab):
    recipe = resolve(Recipe({**LEAST, "encoder": "timm/resnet18", "augment": ["Rotate", "HorizontalFlip"]}), lab)
    assert recipe.encoder.settings == {"weights": None}
    assert recipe.plain()["augment"] == [
        {"name": "Rotate", "limit": [-90.0, 90.0], "p": 0.5},
        {"name": "HorizontalFlip", "p": 0.5},
    ]


def test_the_complete_recipe_has_every_section_in_its_order(lab):
    complete = tuple(resolve(read_recipe(RIGHT, ["input.resize=crop"]), lab).plain())
    assert complete == tuple(name for name in SECTIONS if name != "network")
    assert "crop" not in resolve(read_recipe(RIGHT), lab).plain()


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["optimizer.lr=1e-5"],
        ["schedule=null", "augment=[]"],
        ["auxiliary={name: unet, weight: 0.4}"],
        ["encoder=timm/resnet18", "augment=[{name: Rotate, limit: 10}]"],
        ["input.mean=[0.5, 0.5, 0.5]", "input.std=[0.1, 0.2, 0.3]"],
        ["split={method: lists, lists: {train: a.txt, val: b.txt}}"],
        ["train.workers=2", "train.monitor='on'", "train.lr_factors={encoder: 0.1}"],
        ["dataset.images='1e-4'", "dataset.classes=['no', '12:30', 'null']"],
        ["decoder=unet@segreg-lab"],
    ],
)
def test_the_complete_recipe_resolves_to_itself(overrides, lab, tmp_path):
    first = resolve(read_recipe(RIGHT, overrides), lab)
    file = tmp_path / "resolved.yaml"
    file.write_text(first.yaml(header="complete"), encoding="utf-8")
    again = resolve(read_recipe(file), lab)
    assert again.plain() == first.plain()
    assert again.yaml(header="complete") == first.yaml(header="complete")
    for one, other in zip(first.choices(), again.choices(), strict=True):
        assert one.settings == other.settings
        assert list(map(type, one.settings.values())) == list(map(type, other.settings.values()))


@pytest.mark.parametrize("idle", ["train.start_part=encoder", "split.lists={train: a.txt, val: b.txt}"])
def test_a_setting_without_effect_is_refused_unless_a_run_began_with_it(idle, lab, tmp_path, monkeypatch):
    recipe = Recipe(LEAST).changed([idle])
    with pytest.raises(SegregError, match="goes with"):
        resolve(recipe, lab)
    begun = resolve_begun(recipe, lab)
    (tmp_path / "resolved.yaml").write_text(begun.yaml(), encoding="utf-8")
    monkeypatch.setattr("segreg.runs.plugin_files.load_registry", lambda: lab)
    assert Run(RunDirectory(tmp_path)).recipe.plain() == begun.plain()


def test_the_package_that_a_recipe_chose_stays_chosen(plugin):
    ours = plugged.OFFERING.format(name="ours")
    registry = load_registry(
        [plugged.STAND_INS, plugin(ours, distribution="segreg-foo"), plugin(ours, distribution="segreg-bar")]
    )
    recipe = resolve(Recipe({**LEAST, "loss": "ours@segreg-foo"}), registry)
    assert recipe.loss[0].part.plugin.distribution == "segreg-foo"
    assert recipe.loss[0].part.name == "ours"
    assert recipe.plain()["loss"] == [{"name": "ours@segreg-foo", "power": 1.0, "weight": 1.0}]
    assert resolve(Recipe(recipe.plain()), registry).loss[0].part.plugin.distribution == "segreg-foo"


def test_every_problem_is_reported_in_the_order_of_the_file(lab, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("loss: dicee\ntrain: {epochs: 0}\nencoder: tinny\nmodel: x\n")
    with pytest.raises(SegregError) as reported:
        resolve(read_recipe(file, ["seed=-1"]), lab)
    assert [(p.place.line, p.message.split(":")[0]) for p in reported.value.problems] == [
        (1, 'there is no loss "dicee"'),
        (2, '"epochs" of the section "train" must be an integer between 1 and 1000000, not 0'),
        (3, 'there is no encoder "tinny"'),
        (4, '"model" is not a section of a recipe'),
        (None, '"seed" must be an integer from 0 to 4294967295, not -1'),
        (None, 'the section "dataset" is missing'),
        (None, 'the section "decoder" is missing'),
        (None, 'the section "optimizer" is missing'),
        (None, '"evaluate.metrics" is missing'),
    ]


def test_a_recipe_is_not_changed_by_being_resolved(lab):
    recipe = Recipe({**LEAST, "evaluate": {"metrics": ["iou"], "threshold": 0.5}})
    resolve(recipe, lab)
    assert recipe.values == {**LEAST, "evaluate": {"metrics": ["iou"], "threshold": 0.5}}


def test_a_builders_error_gets_the_recipes_place(plugin):
    source = plugin(
        '''
from segreg.registry.entry import Entry
from segreg.errors import SegregError
from segreg.registry.hooks import hookimpl

def picky(task):
    """A loss."""
    raise SegregError("not with this task", hint="take another")

@hookimpl
def segreg_entries():
    return [Entry("loss", "picky", picky)]
''',
        name="picky",
    )
    registry = load_registry([plugged.STAND_INS, source])
    recipe = Recipe({**LEAST, "loss": "picky"}, places={("loss",): Place("recipe.yaml", 4, 7)})
    with pytest.raises(SegregError) as reported:
        resolve(recipe, registry).loss[0].build("task")
    assert str(reported.value) == "recipe.yaml:4:7: not with this task\n  take another"


def test_a_hint_that_cannot_be_evaluated_is_reported_with_the_recipes_place(plugin):
    source = plugin(
        '''
from __future__ import annotations
from segreg.registry.entry import Entry
from segreg.registry.hooks import hookimpl

def careless(task, *, kind: Missing = None):
    """A loss.

    Args:
        kind: of something.
    """

@hookimpl
def segreg_entries():
    return [Entry("loss", "careless", careless)]
''',
        name="careless",
    )
    with pytest.raises(SegregError) as reported:
        resolve(Recipe({**LEAST, "loss": "careless"}), load_registry([plugged.STAND_INS, source]))
    assert "loss 'careless' has a type hint that can't be evaluated: name 'Missing' is not defined" in str(
        reported.value
    )


# the built-in parts


def test_every_builtin_plugin_loads(builtin):
    assert {plugin.name: plugin.error for plugin in builtin.plugins if plugin.error} == {}
    assert {part.kind for plugin in builtin.plugins for part in plugin.parts} == set(KINDS)


@pytest.mark.parametrize("file", shipped_recipes().values(), ids=lambda file: file.stem)
def test_every_shipped_recipe_resolves_and_its_complete_form_to_itself(file, builtin, tmp_path):
    first = resolve(read_recipe(file), builtin)
    complete = tmp_path / "resolved.yaml"
    complete.write_text(first.yaml(), encoding="utf-8")
    again = resolve(read_recipe(complete), builtin)
    assert again.plain() == first.plain()
    assert again.yaml() == first.yaml()


@pytest.mark.parametrize("kind", KINDS)
def test_every_builtin_part_has_a_summary_meanings_and_defaults_that_fit(kind, builtin):
    parts = builtin.parts(kind)
    parts += [builtin.find(kind, name) for name in builtin.members(kind)[::50]]
    assert parts
    for part in parts:
        assert part.summary.endswith("."), part.name
        for setting in part.settings.values():
            title = f"{kind} {part.name}: {setting.name}"
            assert setting.meaning or part.kind == "augmentation", title  # Albumentations leaves a few untold
            if not setting.required:
                written = plain(setting.hint, setting.default)
                assert plain(setting.hint, check_value(setting.hint, written)) == written, title


def test_settings_without_parts_are_read_without_plugins(monkeypatch):
    monkeypatch.setattr("segreg.registry.registry.find_points", lambda: pytest.fail("plugins are loaded"))
    assert read_section("evaluate", {"threshold": 0.4}, "network.json") == Evaluate(threshold=0.4)
    with pytest.raises(SegregError, match='"input" has no setting "sise"'):
        read_section("input", {"sise": 3}, "network.json")
