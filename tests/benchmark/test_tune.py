"""A tune: what may be searched, what is proposed, pruned and continued, and that only the validation split decides."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import time
from statistics import median
from unittest import mock

import numpy as np
import pytest

import plugged
import tiny_runs
from segreg.benchmark.bench.folder import finished
from segreg.benchmark.tune import tune as loop
from segreg.benchmark.tune.folder import TuneFolder, name_of
from segreg.benchmark.tune.plan import TunePlan
from segreg.benchmark.tune.record import record_of
from segreg.benchmark.tune.space import Choices, Range, axes_of, axes_of_mapping, distribution
from segreg.benchmark.tune.study import SharedStudy
from segreg.benchmark.tune.tune import TuneBudget, finish, open_tune, tune
from segreg.config.recipe import read_recipe
from segreg.config.resolve import resolve
from segreg.errors import SegregError
from segreg.registry.registry import load_registry
from segreg.runs.load import load_run
from segreg.runtime.progress import Lines, Quiet
from segreg.training import history

pytest.importorskip("optuna")
pytestmark = pytest.mark.usefixtures("warm_workers")
SEARCH = ("optimizer.lr=log:1e-3..1e-1", "loss=dice_bce,lovasz")


@pytest.fixture(autouse=True)
def _own_place(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def plan_in(folder, *overrides, search=SEARCH, **options):
    recipe = read_recipe(tiny_runs.write_recipe(folder), overrides)
    return TunePlan.of(recipe, axes_of(search), load_registry(plugged.builtin()), **options)


@pytest.fixture
def plan(tmp_path):
    return plan_in(tmp_path, epochs=2)


@pytest.fixture
def folder(tmp_path):
    return TuneFolder(tmp_path / "tune")


# what may be searched


def test_ranges_and_choices():
    axes = axes_of(
        ["optimizer.lr=log:1e-5..1e-2", "a.p=0.1..0.5", "a.n=int:1..8", "loss=dice, [bce, dice], {name: ce}"]
    )
    assert axes == [
        Range("optimizer.lr", 1e-5, 1e-2, "log"),
        Range("a.p", 0.1, 0.5, "uniform"),
        Range("a.n", 1, 8, "int"),
        Choices("loss", ("dice", ["bce", "dice"], {"name": "ce"})),
    ]
    assert axes_of_mapping({"optimizer.lr": "log:1e-5..1e-2", "loss": ["dice", ["bce", "dice"]]}) == [
        axes[0], Choices("loss", ("dice", ["bce", "dice"])),
    ]  # fmt: skip
    assert [str(axis) for axis in axes[:3]] == ["log:1e-05..0.01", "0.1..0.5", "int:1..8"]
    for text in ("0.99999..0.9999999", "int:1000000..1000001", "log:1.2345678e-07..1"):
        (axis,) = axes_of([f"a.n={text}"])
        assert axes_of([f"a.n={axis}"]) == [axis]


@pytest.mark.parametrize(
    ("word", "wrong", "hint"),
    [
        ("optimizer.lr", "searches nothing", "path=values"),
        ("optimizer.lr=0.1", "two choices at least", "log:1e-5..1e-2"),
        ("optimizer.lr=lgo:1e-5..1e-2", '"lgo" is not a scale', 'did you mean "log"?'),
        ("optimizer.lr=log:0..1", "numbers above 0", ""),
        ("optimizer.lr=log:1e-2..1e-5", "0.01 is not below 1e-05", ""),
        ("optimizer.lr=log:a..b", "two numbers with two dots", ""),
        ("train.batch_size=int:1..2.5", "must be integers", ""),
        ("loss=dice,dice", "dice is given twice", ""),
        ("seed=1,2", '"seed" is not searched', "for all"),
        ("split.val=0.1..0.3", '"split" is not searched', ""),
        ("train.validate_on=whole,center_crop", '"train.validate_on" is not searched', ""),
        ("train={epochs: 1},{epochs: 2}", '"train.monitor" is not searched', ""),
    ],
)
def test_a_search_that_is_none(word, wrong, hint):
    with pytest.raises(SegregError) as raised:
        axes_of([word])
    assert wrong in str(raised.value)
    assert hint in str(raised.value)


def test_keys_and_values_are_checked_with_their_place_before_anything_runs(tmp_path):
    with pytest.raises(SegregError) as raised:
        plan_in(tmp_path, search=("optimizer.lrr=0.1..0.2", "loss=dice,lovaz", "train.batch_size=2..8"))
    found = {str(problem.place): problem for problem in raised.value.problems}
    assert set(found) == {
        "--search optimizer.lrr=0.1..0.2", "--search loss=dice,lovaz", "--search train.batch_size=2..8"
    }  # fmt: skip
    assert 'did you mean "lr"?' in found["--search optimizer.lrr=0.1..0.2"].hint
    assert 'did you mean "lovasz"?' in found["--search loss=dice,lovaz"].hint
    assert "int:1..8" in found["--search train.batch_size=2..8"].hint


def test_two_settings_that_do_not_go_together_are_found(tmp_path):
    """A part's name comes before its settings, which belong to some of the choices alone."""
    choices = "optimizer={name: sgd, lr: 0.1},{name: adam, lr: 0.1}"
    with pytest.raises(SegregError, match='the optimizer "adam" has no setting "momentum"') as raised:
        plan_in(tmp_path, search=("optimizer.momentum=0.5..0.9", choices))
    assert len(raised.value.problems) == 1


@pytest.mark.parametrize(
    ("overrides", "search", "wrong"),
    [
        (["train.monitor=train.loss"], SEARCH, "compared on validation images"),
        (["train.monitor=val.loss"], SEARCH, "another measure with every value of loss"),
        (["train.monitor=val.dicee.pooled"], SEARCH, 'an epoch has no value "val.dicee.pooled"'),
        (["train.monitor=val.dice.pool"], SEARCH, 'an epoch has no value "val.dice.pool"'),
    ],
)
def test_a_value_that_can_not_choose_is_refused(tmp_path, overrides, search, wrong):
    with pytest.raises(SegregError, match=wrong):
        plan_in(tmp_path, *overrides, search=search)


def test_the_direction_is_that_of_the_monitored_value(tmp_path):
    assert plan_in(tmp_path).larger_is_better
    assert not plan_in(tmp_path, "train.monitor=val.loss", search=SEARCH[:1]).larger_is_better


# what is proposed and pruned


def test_a_study_that_is_opened_again_proposes_what_it_would_have(plan, tmp_path):
    file = tmp_path / "study.db"
    shared, once, again = SharedStudy(file, larger_is_better=True), [], {}
    for number in range(12):  # the first ten are random
        if number in (4, 11):  # among random proposals, and among those of the sampler
            copy = shutil.copy(file, tmp_path / f"{number}.db")
            again[number] = SharedStudy(copy, larger_is_better=True).ask(plan.axes, "tpe", seed=3).params
        trial = shared.ask(plan.axes, "tpe", seed=3)
        once.append(trial.params)
        shared.complete(trial.number, -abs(math.log10(trial.params["optimizer.lr"]) + 2))
    assert again == {number: once[number] for number in (4, 11)}
    rates = [one["optimizer.lr"] for one in once]
    assert len(set(rates)) == len(rates)
    assert all(1e-3 <= rate <= 1e-1 for rate in rates)
    assert {one["loss"] for one in once} == {"dice_bce", "lovasz"}


def study_with(file, plan, curves):
    """Return a study with a completed trial for each curve, and the number of a new trial."""
    from optuna.trial import create_trial

    shared = SharedStudy(file, larger_is_better=True)
    shared.study.add_trials(
        create_trial(
            params={"optimizer.lr": 0.01, "loss": "dice_bce"},
            distributions={axis.path: distribution(axis) for axis in plan.axes},
            value=max(curve),
            intermediate_values=dict(enumerate(curve, start=1)),
        )
        for curve in curves
    )
    return shared, shared.ask(plan.axes, "random", 0).number


def test_a_trial_below_the_median_is_pruned_with_the_reason(plan, tmp_path):
    curves = np.random.default_rng(0).uniform(0.4, 0.9, (7, 5)).round(3).tolist()
    shared, number = study_with(tmp_path / "study.db", plan, curves)
    judge = shared.judge(number, monitor="val.x", epochs=10, pruning="median")
    assert [judge(epoch, {"val.x": 0.1}) for epoch in (1, 2)] == [None, None], "a fifth of the epochs is not pruned"
    middle = median(curve[2] for curve in curves)
    assert judge(3, {"val.x": 0.2}) == (
        f"pruned by the study after epoch 3: val.x 0.2 is below {middle:.4g}, "
        "the median of 7 completed trials at that epoch"
    )
    again = shared.judge(number, monitor="val.x", epochs=10, pruning="median")
    assert again(3, {"val.x": 0.95}).startswith("pruned"), "what was reported stays"
    assert again(4, {"val.x": 0.95}) is None
    assert again(5, {"val.x": 0.0}) is None, "the best so far counts"
    other = shared.ask(plan.axes, "random", 0).number
    assert shared.judge(other, monitor="val.x", epochs=10, pruning="none")(3, {"val.x": 0.0}) is None


def test_few_trials_prune_none_and_an_undefined_value_is_pruned(plan, tmp_path):
    shared, number = study_with(tmp_path / "few.db", plan, [[0.9, 0.9]] * 4)
    assert shared.judge(number, monitor="val.x", epochs=2, pruning="median")(1, {"val.x": 0.0}) is None
    shared.complete(number, 0.9)
    number = shared.ask(plan.axes, "random", 0).number
    judge = shared.judge(number, monitor="val.x", epochs=2, pruning="median")
    assert judge(1, {"val.x": math.nan}) == "pruned by the study after epoch 1: val.x was never defined"


# the loop, with trials that take no time


@pytest.fixture
def pretended(monkeypatch):
    """Take the place of the processes that run trials; a trial's value is its learning rate."""
    events = []

    def run(number, recipe, plan, folder, progress):
        happens = events.pop(0) if events else ""
        directory = folder.run(number)
        directory.path.mkdir(exist_ok=True)
        directory.resolved.touch()
        if happens is KeyboardInterrupt:
            raise KeyboardInterrupt
        if happens:
            folder.failure(name_of(number)).write_text(json.dumps({"reason": happens}))
            return "its process ended before the run did"
        rate = recipe.optimizer.settings["lr"]
        history.append(directory.path, {"epoch": 1, "seconds": 30.0})
        results = {"scored_on": "val", "best_value": rate, "best_epoch": 1, "stopped_because": "finished"}
        directory.results.write_text(json.dumps(results))
        return ""

    monkeypatch.setattr(loop, "_run", run)
    return events


def states(plan, folder):
    return [one.state for one in record_of(plan, folder, open_tune(plan, folder)).outcomes]


def test_a_budget_in_trials_or_minutes_is_that_of_all_calls(plan, folder, pretended):
    for most, there in ((1, 1), (1, 1), (3, 3)):
        assert not tune(plan, folder, TuneBudget("trials", most), Quiet())
        assert states(plan, folder) == ["completed"] * there
    tune(plan, folder, TuneBudget("minutes", 2.1), Quiet())
    assert len(states(plan, folder)) == 5, "five trials of half a minute are the first to reach it"
    record = record_of(plan, folder, open_tune(plan, folder))
    rates = [one.parameters["optimizer.lr"] for one in record.outcomes]
    assert record.best == int(np.argmax(rates))
    assert [one.value for one in record.ranked()] == sorted(rates, reverse=True)
    assert sum(record.importances.values()) == pytest.approx(1)
    best = resolve(read_recipe(folder.best), plan.registry)
    assert best.optimizer.settings["lr"] == max(rates)
    assert best.evaluate.split == "test"
    assert folder.best.read_text().startswith("# The best of 5 completed trials"), "whichever of them it is"
    folder.best.unlink()  # killed before it could write it
    assert finish(plan, folder) == record
    assert folder.best.exists()


def test_an_interrupted_trial_is_the_first_to_continue(plan, folder, pretended, capsys):
    import sys

    pretended[:] = ["", KeyboardInterrupt]
    assert tune(plan, folder, TuneBudget("trials", 3), Quiet())
    assert states(plan, folder) == ["completed", "running"]
    assert not tune(plan, folder, TuneBudget("trials", 3), Lines(sys.stdout))
    printed = capsys.readouterr().out
    assert "done before: 1 of the trials\n" in printed
    assert "trial-0001: optimizer.lr=" in printed.partition("(continues)")[0]
    assert states(plan, folder) == ["completed"] * 3


def test_runs_of_another_study_are_not_taken_for_those_of_new_trials(plan, folder, pretended):
    tune(plan, folder, TuneBudget("trials", 2), Quiet())
    folder.study.unlink()
    for _ in range(2):  # also when the empty study is there
        with pytest.raises(SegregError) as refused:
            tune(plan, folder, TuneBudget("trials", 2), Quiet())
        assert "study.db has 0 trials, without that of" in str(refused.value)
        assert "trial-0000" in str(refused.value)
        assert "bring back the study.db" in str(refused.value)


def test_a_study_lies_in_its_folder_whatever_that_is_called(plan, tmp_path, pretended):
    for name in ("o?d", "a%20b", "c#d", "e&f=g"):
        folder = TuneFolder(tmp_path / name / "tune")
        tune(plan, folder, TuneBudget("trials", 1), Quiet())
        assert folder.study.is_file()
        assert states(plan, folder) == ["completed"]
    assert sorted(each.name for each in tmp_path.iterdir() if each.is_file()) == ["tiny.yaml"]


def test_trials_of_all_batch_sizes_validate_in_batches_of_one_size(tmp_path):
    plan = plan_in(tmp_path, "train.monitor=val.loss", search=("train.batch_size=int:1..8",))
    sizes = {plan.trial({"train.batch_size": size}).evaluate.batch_size for size in (1, 3, 8)}
    assert sizes == {plan.resolved.train.batch}
    assert plan.with_settings({"train.batch_size": 3}).evaluate.batch_size is None, "as best.yaml has it"
    asked = plan_in(tmp_path, "evaluate.batch_size=5", search=("train.batch_size=int:1..8",))
    assert asked.trial({"train.batch_size": 3}).evaluate.batch_size == 5


def test_a_trial_whose_process_was_killed_while_it_was_proposed_is_asked_again(plan, folder, pretended):
    from optuna.trial import TrialState

    shared = open_tune(plan, folder)
    killed = shared.study.ask({"optimizer.lr": distribution(plan.axes[0])})
    assert not tune(plan, folder, TuneBudget("trials", 2), Quiet())
    assert states(plan, folder) == ["failed", "completed", "completed"]
    assert shared.study.trials[0].state == TrialState.FAIL
    assert shared[1].params["optimizer.lr"] == killed.params["optimizer.lr"]
    assert set(shared[1].params) == {"optimizer.lr", "loss"}


def test_a_trial_that_can_not_continue_is_asked_again(plan, folder, pretended):
    pretended[:] = [KeyboardInterrupt]
    tune(plan, folder, TuneBudget("trials", 2), Quiet())
    pretended[:] = ["state.pt is damaged"]
    assert not tune(plan, folder, TuneBudget("trials", 2), Quiet())
    first, again, other = record_of(plan, folder, open_tune(plan, folder)).outcomes
    assert (first.state, first.reason) == ("failed", "state.pt is damaged")
    assert (again.state, again.parameters) == ("completed", first.parameters)
    assert other.state == "completed"


def test_a_damaged_history_does_not_end_the_tune(plan, folder, pretended):
    pretended[:] = [KeyboardInterrupt]
    tune(plan, folder, TuneBudget("trials", 1), Quiet())
    (folder.run(0).path / "history.jsonl").write_text("no row\n")
    pretended[:] = ["history.jsonl:1: not a row of a history"]
    assert not tune(plan, folder, TuneBudget("trials", 1), Quiet())
    assert states(plan, folder) == ["failed", "completed"]


def test_a_trial_that_another_process_holds_is_left_alone(plan, folder, pretended):
    shared = open_tune(plan, folder)
    number = shared.ask(plan.axes, "tpe", 0).number
    lock = folder.claim(number)
    assert folder.claim(number) is None
    tune(plan, folder, TuneBudget("trials", 2), Quiet())
    assert states(plan, folder) == ["running", "completed"]
    lock.release()
    tune(plan, folder, TuneBudget("trials", 2), Quiet())
    assert states(plan, folder) == ["completed"] * 2


def test_failures_are_trials_unless_they_are_the_first_three(plan, folder, pretended, tmp_path):
    pretended[:] = ["", "no memory", "no memory", "no memory"]
    tune(plan, folder, TuneBudget("trials", 5), Quiet())
    assert states(plan, folder) == ["completed", "failed", "failed", "failed", "completed"]
    pretended[:] = ["no memory"] * 4
    other = TuneFolder(tmp_path / "other")
    with pytest.raises(SegregError, match="the first 3 trials failed; the last: no memory"):
        tune(plan, other, TuneBudget("trials", 5), Quiet())
    assert pretended == ["no memory"]


def test_failures_that_take_no_time_end_a_budget_of_minutes(plan, folder, pretended):
    pretended[:] = ["", *["the GPU is gone"] * 20]
    with pytest.raises(SegregError, match="the last 10 trials failed; the last: the GPU is gone"):
        tune(plan, folder, TuneBudget("minutes", 5), Quiet())
    assert len(pretended) == 10


def test_a_tune_goes_on_where_its_project_was_moved(tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    open_tune(plan_in(here, epochs=2), TuneFolder(here / "tune"))
    there = here.rename(tmp_path / "there")
    moved, other = plan_in(there, epochs=2), f"dataset.root: {there}/images, it began with {here}/images"
    with mock.patch.object(loop, "_has_data_of", return_value=True):
        open_tune(moved, TuneFolder(there / "tune"))
    with mock.patch.object(loop, "_has_data_of", return_value=False), pytest.raises(SegregError, match=other):
        open_tune(moved, TuneFolder(there / "tune"))


@pytest.mark.parametrize("budget", [("trials", 0), ("trials", 2.5), ("minutes", 0), ("minutes", math.nan)])
def test_a_budget_of_nothing_is_refused(budget):
    with pytest.raises(SegregError, match=f"{budget[0]} must be a .*number, at least "):
        TuneBudget(*budget)


def test_samplers_and_pruning_go_by_their_names(tmp_path):
    for options in ({"sampler": "tpo"}, {"pruning": "medium"}):
        with pytest.raises(SegregError, match=r'did you mean "(tpe|median)"'):
            plan_in(tmp_path, **options)


def test_another_tune_in_the_folder_is_refused_with_what_differs(plan, folder, tmp_path):
    open_tune(plan, folder)
    other = plan_in(tmp_path, "optimizer.weight_decay=0.1", epochs=2, search=SEARCH[:1], sampler="random")
    with pytest.raises(SegregError, match="is another tune") as raised:
        open_tune(other, folder)
    for part in ("optimizer.weight_decay: 0.1", "search: optimizer.lr=", "sampler: random, it began with tpe"):
        assert part in str(raised.value)
    folder.plan.unlink()
    folder.study.write_bytes(b"not a database" * 100)
    with pytest.raises(SegregError, match=r"study\.db can't be used: "):
        open_tune(plan, folder)


# real trials


SMALL = ("evaluate.overlays=0", "decoder={name: mlp, channels: 8}")


def words(folder, *more):
    search = [word for axis in SEARCH for word in ("--search", axis)]
    return ("tune", folder / "tiny.yaml", *SMALL, *search, "--epochs", "3", "--trials", "2", "--pruning", "none", *more)


@pytest.mark.slow
def test_killed_in_a_trial_it_ends_as_one_that_was_not(tmp_path, monkeypatch, segreg, installed):
    installed(*plugged.builtin())
    tiny_runs.write_recipe(tmp_path)
    calm, disturbed = TuneFolder(tmp_path / "calm"), TuneFolder(tmp_path / "disturbed")
    process = tiny_runs.process(*words(tmp_path, "--out", disturbed.path), out=tmp_path / "killed.txt")
    monkeypatch.setattr("segreg.benchmark.cost.running.check_memory", lambda *_: "")  # there it was asked
    until = time.monotonic() + 300
    while not (disturbed.run(1).path / "history.jsonl").exists() and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert finished(disturbed.run(0))
    assert not finished(disturbed.run(1)), "it was in the middle of its second trial"

    for folder in (calm, disturbed):
        printed = segreg(*words(tmp_path, "--out", folder.path), "--json")
        assert printed.status == 0, printed.err
    found = [json.loads((folder.path / "results.json").read_text()) for folder in (calm, disturbed)]
    of_each = [[(one["state"], one["parameters"], one["value"], one["values"]) for one in each["outcomes"]]
               for each in found]  # fmt: skip
    assert of_each[0] == of_each[1]
    assert [len(one["values"]) for one in found[0]["outcomes"]] == [3, 3]

    plan = plan_in(tmp_path, *SMALL, epochs=3, pruning="none")
    best = record_of(plan, calm, open_tune(plan, calm)).ranked()[0]
    run = load_run(calm.run(best.number).path)
    assert best.value == run.results["best_value"] == max(one["value"] for one in found[0]["outcomes"])
    written = resolve(read_recipe(calm.best), plan.registry).plain()
    trained = run.recipe.plain()
    assert (written["evaluate"].pop("split"), trained["evaluate"].pop("split")) == ("test", "val")
    written["input"].pop("dtype"), trained["input"].pop("dtype")  # noted once the images were read
    assert written == trained
    assert f"trial-{best.number:04}" in calm.best.read_text().partition("seed:")[0]

    assert run.results["scored_on"] == "val"
    assert list(run.results["metrics"]) == ["val"], "no test image was scored"
    listed = json.loads(segreg("runs", calm.path, "--json").out)
    assert len(listed["runs"] if isinstance(listed, dict) else listed) == 2
    monkeypatch.setattr("segreg.reports.comparison.page", lambda *_: "")
    compared = segreg("compare", *(calm.run(number).path for number in range(2)), "--no-cost", "--json")
    assert len(json.loads(compared.out)["models"]) == 2
    page = (calm.path / "report.html").read_text()
    assert "No test image has been scored" in page


@pytest.mark.slow
def test_started_twice_both_work_and_no_trial_runs_twice(tmp_path):
    tiny_runs.write_recipe(tmp_path)
    folder = TuneFolder(tmp_path / "tune")
    first = tiny_runs.process(*words(tmp_path, "--out", folder.path), out=tmp_path / "first.txt")
    until = time.monotonic() + 300
    while not folder.run(0).resolved.exists() and time.monotonic() < until:
        time.sleep(0.02)
    second = tiny_runs.process(*words(tmp_path, "--out", folder.path), out=tmp_path / "second.txt")
    for process in (first, second):
        process.join()
        assert process.exitcode == 0
    began = [line[:10] for name in ("first", "second") for line in (tmp_path / f"{name}.txt").read_text().splitlines()
             if line.startswith("trial-")]  # fmt: skip
    assert sorted(began) == ["trial-0000", "trial-0001"]
    assert "trial-" in (tmp_path / "second.txt").read_text()
    plan = plan_in(tmp_path, *SMALL, epochs=3, pruning="none")
    assert states(plan, folder) == ["completed"] * 2


@pytest.mark.slow
def test_a_pruned_trial_is_a_run_that_says_why(tmp_path, folder):
    plan = plan_in(tmp_path, *SMALL, epochs=3)
    folder.make()
    study_with(folder.study, plan, [[0.9, 0.95, 0.99]] * 5)  # better than a network that begins
    tune(plan, folder, TuneBudget("trials", 6), Quiet())
    pruned = record_of(plan, folder, open_tune(plan, folder)).outcomes[5]
    run = load_run(folder.run(5).path)
    assert (pruned.state, pruned.epochs) == ("pruned", 2)
    assert run.results["stopped_because"] == pruned.reason
    assert pruned.reason.endswith("is below 0.95, the median of 5 completed trials at that epoch")
    assert len(run.history) == 2
    assert run.results["metrics"]["val"], "it was scored as any run is"
    assert finished(run.directory)
    shutil.rmtree(folder.path)
