"""What a bench compares: from the command line, from a file, and what is refused."""

from __future__ import annotations

from unittest import mock

import pytest

import plugged
import tiny_runs
from segreg.benchmark.bench.plan import (
    Budget,
    Plan,
    axis,
    baseline_of,
    checked,
    combination,
    is_bench_file,
    plan_of,
    plan_of_file,
    seeds_of,
)  # fmt: skip
from segreg.benchmark.bench.trials import combinations, trials_of
from segreg.config.recipe import COMMAND_LINE, read_recipe
from segreg.errors import SegregError
from segreg.models.build import build_dataset
from segreg.registry.registry import load_registry

FILE = """\
recipe: tiny.yaml
vary:
  encoder: [timm/test_resnet, timm/test_vit]
  loss:
    - bce
    - [{name: dice, weight: 2}, {name: bce}]
exclude:
  - {encoder: timm/test_vit, loss: bce}
seeds: [4, 7]
budget: {epochs: 2}
change: {train.batch_size: 2}
baseline: {encoder: timm/test_resnet}
metric: dice.pooled
"""


@pytest.fixture
def registry():
    return load_registry(plugged.builtin())


def plan_in(tmp_path, text=FILE):
    tiny_runs.write_recipe(tmp_path)
    (tmp_path / "bench.yaml").write_text(text)
    read = read_recipe(tmp_path / "bench.yaml")
    assert is_bench_file(read)
    return plan_of_file(read)


def test_a_bench_file_gives_trials(tmp_path, registry):
    plan = plan_in(tmp_path)
    trials = trials_of(plan, registry)
    assert [(trial.model, trial.seed) for trial in trials] == [
        (model, seed)
        for seed in (4, 7)
        for model in (
            "timm/test_resnet, bce",
            'timm/test_resnet, [{"name": "dice", "weight": 2}, {"name": "bce"}]',
            'timm/test_vit, [{"name": "dice", "weight": 2}, {"name": "bce"}]',
        )
    ]
    first, second, third = (trial.recipe for trial in trials[:3])
    assert (first.seed, first.train.epochs, first.train.batch_size, first.train.early_stopping) == (4, 2, 2, None)
    assert [choice.part.name for choice in second.loss] == ["dice", "bce"]
    assert third.encoder.part.name == "timm/test_vit"
    assert first.dataset.settings["root"].is_absolute()
    assert {trial.settings["encoder"] for trial in trials} == {"timm/test_resnet", "timm/test_vit"}
    assert baseline_of(plan, combinations(plan)) == {"encoder": "timm/test_resnet", "loss": "bce"}


def test_files_of_a_model_have_one_name_for_all_seeds_and_another_for_another_recipe(tmp_path, registry):
    recipe = tiny_runs.write_recipe(tmp_path)
    trials = trials_of(Plan(recipe, {"train.batch_size": [2, 4]}, seeds=(0, 1)), registry)
    assert [trial.model for trial in trials[:2]] == ["train.batch_size=2", "train.batch_size=4"]
    assert trials[0].key == trials[2].key != trials[1].key
    other = trials_of(Plan(recipe, {"train.batch_size": [2, 4]}, change=["train.epochs=1"]), registry)
    assert other[0].key != trials[0].key
    assert trials[0].name.startswith("train.batch_size_2_")
    assert trials[0].name.endswith("_seed-0")


def test_budgets(tmp_path, registry):
    recipe = tiny_runs.write_recipe(tmp_path)

    def train(unit, amount):
        plan = Plan(recipe, {}, budget=Budget(unit, amount), change=["train.early_stopping=3"])
        return trials_of(plan, registry)[0].recipe.train

    assert (train("epochs", 3).epochs, train("epochs", 3).early_stopping) == (3, None)
    assert (train("minutes", 2.5).time_budget_minutes, train("minutes", 2.5).epochs) == (2.5, 6)
    # 24 images, of which 14 or 15 train in batches of 4: 4 steps an epoch
    assert [train("steps", amount).epochs for amount in (1, 4, 5, 9)] == [1, 1, 2, 3]
    with mock.patch("segreg.models.build.build_dataset", wraps=build_dataset) as built:
        trials_of(Plan(recipe, {"loss": ["bce", "dice"]}, seeds=(0, 1), budget=Budget("steps", 9)), registry)
    assert built.call_count == 1, "each data set is read once"


@pytest.mark.parametrize(
    ("change", "epochs"),
    [
        (["train.batch_size=13"], 20),  # of 14 images the last one joins the batch before it
        (["input.resize=crop", "crop.per_image=4"], 2),
        (["input.resize=crop", "crop.per_image=4", "train.accumulate=7"], 10),
    ],
    ids=["leftover", "crops", "accumulated"],
)
def test_a_budget_of_steps_counts_those_that_an_epoch_has(change, epochs, tmp_path, registry):
    recipe = tiny_runs.write_recipe(tmp_path)
    (trial,) = trials_of(Plan(recipe, {}, budget=Budget("steps", 20), change=change), registry)
    assert trial.recipe.train.epochs == epochs


def test_steps_are_refused_where_their_number_is_not_known(tmp_path, registry):
    change = ["input.resize=crop", "crop.repeat_threshold=0.1"]
    with pytest.raises(SegregError, match=r"does not go with crop\.repeat_threshold"):
        trials_of(Plan(tiny_runs.write_recipe(tmp_path), {}, budget=Budget("steps", 20), change=change), registry)


def test_options_of_the_command_line():
    assert axis("encoder=resnet18,timm/convnext_tiny") == ("encoder", ["resnet18", "timm/convnext_tiny"])
    assert axis("input.size=[64,64],[96,96]") == ("input.size", [[64, 64], [96, 96]])
    assert axis("optimizer.lr=1e-3,0.01") == ("optimizer.lr", [0.001, 0.01])
    assert combination("encoder=resnet18,optimizer.lr=1e-3") == {"encoder": "resnet18", "optimizer.lr": 0.001}
    several = combination("loss=[dice, bce],decoder={name: mlp, channels: 8}, encoder=resnet18")
    assert several == {"loss": ["dice", "bce"], "decoder": {"name": "mlp", "channels": 8}, "encoder": "resnet18"}
    assert (seeds_of("3"), seeds_of("7,11")) == ((0, 1, 2), (7, 11))


def refused(call):
    with pytest.raises(SegregError) as caught:
        call()
    (problem,) = caught.value.problems
    return str(problem)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            FILE.replace("exclude", "exlcude"),
            '7:1: "exlcude" is not a key of a bench file\n  did you mean "exclude"?',
        ),
        (
            FILE.replace("[4, 7]", "none"),
            ("9:8: seeds must be a number of seeds, at most 10,000, or a list of them, "
             'not the string "none"\n  3 means 0, 1 and 2'),
        ),
        (
            FILE.replace("[4, 7]", "[4, 4]"), "9:8: a seed is given twice among the seeds"),
        (
            FILE.replace("{epochs: 2}", "{epochs: 2, steps: 3}"),
            (
                '10:9: "budget" must name one of "epochs", "steps" and "minutes", such as {epochs: 5}, not '
                '{"epochs": 2, "steps": 3}'
            ),
        ),
        (
            FILE.replace("{epochs: 2}", "{epochs: 2.5}"),
            "10:18: a budget of epochs must be a whole number above 0 and at most 1,000,000, not 2.5",
        ),
        (
            FILE.replace("encoder: [timm/test_resnet, timm/test_vit]", "encoder: timm/test_vit"),
            '3:12: "vary" must give a list of values for "encoder", not the string "timm/test_vit"',
        ),
        (
            FILE.replace("encoder: timm/test_vit, loss", "encodr: timm/test_vit, loss"),
            '3:3: exclude names "encodr", which does not vary\n  did you mean "encoder"?',
        ),
        (
            FILE.replace("baseline: {encoder: timm/test_resnet}", "baseline: {encoder: timm/test_resmet}"),
            (
                "3:3: baseline names encoder=timm/test_resmet, which is not among its values\n  did you mean "
                '"timm/test_resnet" or "timm/test_vit"?'
            ),
        ),
    ],
)  # fmt: skip
def test_errors_in_a_file_name_their_place(text, message, tmp_path):
    assert refused(lambda: plan_in(tmp_path, text)) == f"{tmp_path}/bench.yaml:{message}"


def test_errors_on_the_command_line(tmp_path):
    assert refused(lambda: axis("encoder")) == (
        '"encoder" varies nothing\n  write path=value,value, such as encoder=resnet18,resnet50'
    )
    for text in ("resnet18", "encoder=", "encoder=resnet18,resnet50"):
        assert refused(lambda: combination(text)) == f'"{text}" is not a combination\n  write path=value,path=value'  # noqa: B023
    assert refused(lambda: combination("loss=dice,loss=bce")).startswith('"loss=dice,loss=bce" names "loss" twice')
    seeded = Plan(tmp_path, {"seed": [1, 2]})
    assert refused(lambda: checked(seeded, COMMAND_LINE)) == (
        "command line: the seed does not vary like other settings\n  use --seeds or seeds:"
    )
    twice = Plan(tmp_path, {"encoder": ["resnet18", "resnet18"]})
    assert refused(lambda: checked(twice, COMMAND_LINE)) == 'command line: "encoder" varies over resnet18 twice'


def test_errors_of_all_trials_are_reported_together(tmp_path, registry):
    recipe = tiny_runs.write_recipe(tmp_path)
    plan = Plan(recipe, {"encoder": ["resnet81", "timm/test_resnet"], "loss": ["dise", "bce"]}, seeds=(0, 1))
    with pytest.raises(SegregError) as caught:
        trials_of(plan, registry)
    messages = [problem.message for problem in caught.value.problems]
    assert messages == [
        'with resnet81, dise: there is no encoder "resnet81"',
        'with resnet81, dise: there is no loss "dise"',
        'with resnet81, bce: there is no encoder "resnet81"',
        'with timm/test_resnet, dise: there is no loss "dise"',
    ]


def test_a_bench_that_excludes_everything_is_refused(tmp_path, registry):
    recipe = tiny_runs.write_recipe(tmp_path)
    plan = Plan(recipe, {"loss": ["bce"]}, exclude=[{"loss": "bce"}])
    assert refused(lambda: trials_of(plan, registry)) == "nothing is left to run\n  exclude removes every combination"


@pytest.mark.parametrize(
    ("words", "folds", "message"),
    [
        (
            ["seed=7"], None,
            '"seed=7" has no effect: a bench gives each run its seed\n  name it by --seeds [7] or seeds: [7]',
        ),
        (["split.fold=2"], 5, '"split.fold=2" has no effect: the bench takes each of 5 folds'),
        (["split={folds: 3}"], 5, '"split={folds: 3}" has no effect: the bench takes each of 5 folds'),
    ],
)  # fmt: skip
def test_what_a_bench_sets_itself_is_not_changed_to_no_effect(tmp_path, words, folds, message):
    recipe = tiny_runs.write_recipe(tmp_path)
    assert refused(lambda: plan_of(recipe, words, vary={}, folds=folds, budgets={})) == message
    plan_of(recipe, ["split.method=folds", "split.fold=2"], vary={}, budgets={})
    plan_of(recipe, ["split={seed: 3}"], vary={}, folds=5, budgets={})


def test_a_change_without_effect_names_its_line_and_that_of_the_folds(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("recipe: b.yaml\nfolds: 2\nchange:\n  split: {folds: 3}\n")
    assert refused(lambda: plan_of_file(read_recipe(file))) == (
        f'{file}:4:3: "split={{folds: 3}}" has no effect: the bench takes each of 2 folds\n  {file}:2:1 has folds: 2'
    )


@pytest.mark.parametrize(
    ("vary", "budget", "message"),
    [
        ({"loss": ["bce", {"name": "bce"}]}, None, '"bce" and "bce" are one and the same recipe\n  leave one'),
        ({"optimizer.lr": [1, 1.0]}, None, '"optimizer.lr=1" and "optimizer.lr=1.0" are one and the same recipe'),
        (
            {"train.epochs": [10, 20]}, Budget("epochs", 3),
            '"train.epochs=10" and "train.epochs=20" are one and the same recipe\n  a budget sets train.epochs',
        ),
    ],
)  # fmt: skip
def test_no_model_is_trained_twice_under_two_names(tmp_path, registry, vary, budget, message):
    """The second would be another seed of the first, or a model with the very same scores."""
    plan = Plan(tiny_runs.write_recipe(tmp_path), vary, seeds=(0, 1), budget=budget)
    assert refused(lambda: trials_of(plan, registry)).startswith(message)
