"""A bench on real tiny runs: every run once, whatever is killed; failures are rows; the table stays the same."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import time

import pytest

import plugged
import tiny_runs
from segreg.benchmark.bench.bench import _gpus, bench, compared, look, prepare, skipped
from segreg.benchmark.bench.board import followed, progress_of
from segreg.benchmark.bench.folder import BenchFolder
from segreg.benchmark.bench.known import trials_in
from segreg.benchmark.bench.local import least_busy, work_on
from segreg.benchmark.bench.models import models_of
from segreg.benchmark.bench.plan import Plan
from segreg.benchmark.bench.trials import trials_of
from segreg.benchmark.cost.running import check_memory
from segreg.models.build import build_dataset
from segreg.registry.registry import _digest_of_files, load_registry
from segreg.reports.comparison import write_comparison
from segreg.runtime.lock import locked_folder
from segreg.runtime.progress import Lines, Quiet
from segreg.training import history

pytestmark = pytest.mark.usefixtures("warm_workers")
VARY = {"loss": ["dice_bce", "bce"]}
SMALL = ("decoder={name: mlp, channels: 8}", "evaluate.overlays=0")
QUALITY = ("model", "seed", "dice.pooled", "dice.per_image_mean", "iou.pooled", "accuracy.pooled")


@pytest.fixture(autouse=True)
def _own_place(tmp_path, monkeypatch):
    """Work in an empty folder; reports are empty, and this process takes each network to fit into memory."""
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("segreg.reports.comparison.page", lambda *_: "")
    monkeypatch.setattr("segreg.benchmark.cost.running.check_memory", lambda *_, **__: "")


def run_bench(plan, folder, **options):
    output = io.StringIO()
    trials = trials_of(plan, load_registry(plugged.builtin()))
    folder.make()
    found, images = bench(plan, trials, folder, rounds=0, progress=Quiet(), stream=output, mode="lines", **options)
    write_comparison(found, folder.path, images)
    return found, output.getvalue()


def quality(folder):
    with (folder.path / "results.csv").open() as text:
        return [{name: row[name] for name in QUALITY} for row in csv.DictReader(text)]


def states(plan, folder):
    registry = load_registry(plugged.builtin())
    return [folder.state(trial) for trial in trials_of(plan, registry)]


@pytest.mark.slow
def test_a_bench_killed_on_the_way_ends_with_the_table_of_one_that_was_not(tmp_path):
    plan = Plan(tiny_runs.write_recipe(tmp_path), VARY, change=["train.epochs=3", *SMALL])
    calm, disturbed = BenchFolder(tmp_path / "calm"), BenchFolder(tmp_path / "disturbed")
    found, output = run_bench(plan, calm, jobs=2)
    assert output.splitlines()[0] == "2 runs"
    assert len(found.models) == 2
    words = ("bench", plan.recipe, "--vary", "loss=dice_bce,bce", *plan.change)
    process = tiny_runs.process(*words, "--out", disturbed.path, "--quiet", out=tmp_path / "killed.txt")
    until = time.monotonic() + 300
    while len(list(disturbed.path.glob("runs/*/*/history.csv"))) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    # The second run was in the middle of its training.
    first, last = states(plan, disturbed)
    assert first == "finished" != last
    found, output = run_bench(plan, disturbed)
    assert states(plan, disturbed) == ["finished"] * 2
    assert quality(disturbed) == quality(calm)
    again, output = run_bench(plan, disturbed)
    assert output == "2 runs, 2 finished\n"
    assert again.models == found.models


@pytest.mark.slow
def test_one_failing_run_is_a_row_and_the_others_continue(tmp_path, monkeypatch):
    monkeypatch.setattr("segreg.benchmark.cost.running.check_memory", check_memory)
    decoders = [{"name": "mlp", "channels": 8}, {"name": "smp.fpn", "channels": 100}]  # 100 can't be grouped
    plan = Plan(
        tiny_runs.write_recipe(tmp_path), {"decoder": decoders}, change=["train.epochs=1"],
        baseline={"decoder": decoders[1]},
    )  # fmt: skip
    folder = BenchFolder(tmp_path / "bench")
    found, output = run_bench(plan, folder)
    assert states(plan, folder) == ["finished", "failed"]
    assert found.baseline == json.dumps(decoders[0])
    assert found.notices[-1].startswith(f"{json.dumps(decoders[1])} has no finished run; the baseline is ")
    (failure,) = found.failures
    assert failure.name == json.dumps(decoders[1])
    assert failure.reason.startswith("not started: ")
    with (folder.path / "results.csv").open() as text:
        assert [row["failed"] != "" for row in csv.DictReader(text)] == [False, True]
    _, output = run_bench(plan, folder)
    assert output == "2 runs, 1 finished, 1 failed\n"


def test_a_run_that_a_killed_bench_left_running_is_left_alone(tmp_path):
    folder = BenchFolder(tmp_path / "bench")
    (trial,) = trials_of(Plan(tiny_runs.write_recipe(tmp_path), {}), load_registry(plugged.builtin()))
    folder.run(trial).path.mkdir(parents=True)
    with locked_folder(folder.run(trial).path, "run"):
        assert folder.state(trial) == "running"
    assert folder.state(trial) == "waiting"
    folder.working.add(trial.name)
    assert folder.state(trial) == "running", "its directory is not made yet"


@pytest.fixture
def _one_run(tmp_path):
    """A bench with one finished run, in a project of its own."""
    project = tmp_path / "here"
    project.mkdir()
    train_one(project)


def train_one(project, *changes):
    folder = BenchFolder(project / "bench")
    (trial,) = trials_of(moved_plan(project, *changes), load_registry(plugged.builtin()))
    folder.make()
    prepare([trial], folder, again=False)
    with tiny_runs.undrawn():
        work_on(folder.recipe(trial.name), folder.run(trial).path, "")


def moved_plan(project, *changes):
    return Plan(tiny_runs.write_recipe(project), {}, change=["train.epochs=1", *SMALL, *changes])


def known(project, *changes):
    """Return the one trial of a project's bench, the bench's folder, and what was said of it."""
    said, folder = io.StringIO(), BenchFolder(project / "bench")
    registry = load_registry(plugged.builtin())
    (trial,) = trials_in(folder, moved_plan(project, *changes), registry, Lines(said))
    return trial, folder, said.getvalue()


@pytest.mark.usefixtures("_one_run")
def test_a_bench_knows_its_runs_where_its_project_was_moved(tmp_path):
    there = (tmp_path / "here").rename(tmp_path / "there")
    trial, folder, said = known(there)
    assert (folder.state(trial), said) == ("finished", "")
    prepare([trial], folder, again=False)
    root = f"root: {there}/images"
    assert root in folder.recipe(trial.name).read_text()
    run = folder.run(trial)
    assert root not in run.resolved.read_text(), "a finished run's files stay as they are"
    comparison, _ = compared(moved_plan(there), [trial], folder, 0, Quiet())
    assert not any("are not shown" in notice for notice in comparison.notices)
    (model,) = models_of_results(folder, comparison)
    assert str(model.runs[0].recipe.dataset.settings["root"]) == f"{there}/images"

    run.results.unlink()
    assert folder.state(trial) == "stopped"
    with tiny_runs.undrawn():
        work_on(folder.recipe(trial.name), run.path, "")
    assert folder.state(trial) == "finished", folder.reason(trial)
    assert root in run.resolved.read_text()

    trial, folder, said = known(there, "train.batch_size=2")
    assert folder.state(trial) == "waiting"
    assert said.startswith(
        f"not counted, since the recipe was another: the recipe in {run.path.parent} (dataset.root: "
    )
    assert said.endswith(" and train.batch_size: 4, now 2)\n")

    shutil.copy(*sorted((there / "images").rglob("*_segmentation.png"))[:2])
    again = there.rename(tmp_path / "again")
    trial, folder, said = known(again)
    assert folder.state(trial) == "waiting"
    assert f"(dataset.root: {tmp_path}/here/images, now {again}/images)\n" in said


def test_a_run_of_a_bench_continues_where_the_lists_of_its_split_have_moved_too(tmp_path):
    project = tmp_path / "here"
    project.mkdir()
    (trial,) = trials_of(moved_plan(project), load_registry(plugged.builtin()))
    ids = [sample.id for sample in build_dataset(trial.recipe).samples]
    for split, members in {"train": ids[:12], "val": ids[12:]}.items():
        (project / f"{split}.txt").write_text("\n".join(members))

    def lists(folder):
        return f"split={{method: lists, lists: {{train: {folder}/train.txt, val: {folder}/val.txt}}}}"

    train_one(project, lists(project))
    there = project.rename(tmp_path / "there")
    trial, folder, said = known(there, lists(there))
    assert (folder.state(trial), said) == ("finished", "")
    folder.run(trial).results.unlink()
    prepare([trial], folder, again=False)
    with tiny_runs.undrawn():
        work_on(folder.recipe(trial.name), folder.run(trial).path, "")
    assert folder.state(trial) == "finished", folder.reason(trial)


def models_of_results(folder, comparison):
    write_comparison(comparison, folder.path)
    return models_of(folder.path)


@pytest.mark.usefixtures("_one_run")
def test_a_bench_knows_its_runs_after_an_upgrade(tmp_path):
    """An earlier segreg had fewer settings, so that its digest of the same recipe was another."""
    project = tmp_path / "here"
    trial, folder, _ = known(project)
    earlier = trial.key[:-8] + "0" * 8
    folder.run(trial).path.parent.rename(folder.runs / earlier)
    file = folder.runs / earlier / "seed-0" / "recipe.yaml"
    lines = file.read_text().splitlines()
    newer = ("swa_start", "layer_decay", "exclude_from_weight_decay", "validate_on")
    older = [line for line in lines if line.split(":")[0].strip() not in newer]
    assert len(older) == len(lines) - len(newer)
    file.write_text("\n".join(older))
    trial, folder, said = known(project)
    assert (trial.key, folder.state(trial), said) == (earlier, "finished", "")
    # AdamW left nothing out of its weight decay then.
    text = file.read_text().replace("name: adam\n", "name: adamw\n")
    file.write_text(text.replace("weight_decay: 0.0\n", "weight_decay: 0.01\n"))
    trial, folder, said = known(project, "optimizer={name: adamw, lr: 0.01}")
    assert "optimizer.exclude_from_weight_decay: false, now null" in said
    words = ("optimizer={name: adamw, lr: 0.01}", "optimizer.exclude_from_weight_decay=false")
    assert known(project, *words)[0].key == earlier


def test_a_run_whose_state_is_gone_is_not_overwritten(tmp_path):
    """A bench goes by what `segreg run --resume` says of a run."""
    folder = BenchFolder(tmp_path / "bench")
    (trial,) = trials_of(
        Plan(tiny_runs.write_recipe(tmp_path), {}, change=["train.epochs=1", *SMALL]), load_registry(plugged.builtin())
    )
    folder.make()
    prepare([trial], folder, again=False)
    directory = folder.run(trial)
    with tiny_runs.undrawn():
        work_on(folder.recipe(trial.name), directory.path, "")
    took = json.loads(directory.results.read_text())["training_seconds"]
    assert progress_of(trial, folder).seconds == pytest.approx(took, abs=2e-3), "checkpoints are part of both"
    before = directory.best.read_bytes()
    directory.results.unlink()
    (directory.path / "state.pt").unlink()
    work_on(folder.recipe(trial.name), directory.path, "")
    assert "state.pt is missing" in folder.reason(trial)
    assert directory.best.read_bytes() == before


def test_a_run_that_fails_records_why_and_starts_again_on_request(tmp_path):
    plan = Plan(tiny_runs.write_recipe(tmp_path), {}, change=["train.start_from=nowhere"])
    folder = BenchFolder(tmp_path / "bench")
    (trial,) = trials_of(plan, load_registry(plugged.builtin()))
    folder.make()
    prepare([trial], folder, again=False)
    work_on(folder.recipe(trial.name), folder.run(trial).path, "")
    assert folder.state(trial) == "failed"
    assert folder.reason(trial) in folder.log(trial.name).read_text()
    assert folder.reason(trial) == f"{tmp_path}/nowhere: there is no such file"
    prepare([trial], folder, again=False)
    assert folder.state(trial) == "failed"
    assert skipped([trial], folder) == [
        f"skipped: {trial.title} failed: {tmp_path}/nowhere: there is no such file",
        "--again runs what failed anew, if the cause is gone",
    ]
    prepare([trial], folder, again=True)
    assert folder.state(trial) == "waiting"
    assert skipped([trial], folder) == []


def test_a_half_written_result_is_no_result(tmp_path):
    folder = BenchFolder(tmp_path / "bench")
    (trial,) = trials_of(Plan(tiny_runs.write_recipe(tmp_path), {}), load_registry(plugged.builtin()))
    folder.make()
    directory = folder.run(trial)
    directory.path.mkdir(parents=True)
    directory.results.write_text('{"scored_on": "te')
    assert folder.state(trial) == "waiting"
    directory.results.write_text(json.dumps({"scored_on": None}))
    assert folder.state(trial) == "waiting"
    directory.results.write_text(json.dumps({"scored_on": "test"}))
    assert folder.state(trial) == "finished"


def test_an_edited_plugin_is_another_model(plugin, tmp_path, installed):
    """Also where its version stays: its runs begin anew, and runs of what it was are named and not counted."""
    lab = plugin(plugged.OFFERING.format(name="hinge"))
    folder, plan = BenchFolder(tmp_path / "bench"), Plan(tiny_runs.write_recipe(tmp_path), {"loss": ["hinge", "bce"]})
    points = [*plugged.builtin(), lab]
    hinge, bce = trials_of(plan, load_registry(points))
    (folder.run(hinge).path).mkdir(parents=True)
    assert skipped([hinge, bce], folder) == []
    file = tmp_path / "site-packages" / f"{lab.module}.py"
    file.write_text(f"{file.read_text()}# edited\n")
    _digest_of_files.cache_clear()
    edited, same = trials_of(plan, load_registry(points))
    assert (edited.key == hinge.key, same.key == bce.key, same.source) == (False, True, "")
    assert skipped([edited, same], folder) == [
        f"not counted, since the source of a plugin was another: hinge in {folder.run(hinge).path.parent}"
    ]
    installed(*points)
    folder.make()
    prepare([hinge], folder, again=False)
    work_on(folder.recipe(hinge.name), folder.run(hinge).path.with_name("new"), hinge.source)
    assert folder.reason(hinge).startswith('the source of "segreg-lab:parts" is not the one that this began with')


def test_gpus_are_distributed_evenly():
    assert least_busy([], []) == ""
    taken: list[str] = []
    for _ in range(5):
        taken.append(least_busy(["0", "1"], taken))
    assert taken == ["0", "1", "0", "1", "0"]
    assert least_busy(["0", "1"], ["0", "1", "1"]) == "0"


def test_runs_take_the_gpus_that_are_visible_and_share_their_memory(tmp_path, monkeypatch):
    plan = Plan(tiny_runs.write_recipe(tmp_path), {}, seeds=range(3), change=["train.device=auto"])
    trials = trials_of(plan, load_registry(plugged.builtin()))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert _gpus(trials) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-5")
    assert _gpus(trials) == ["2", "GPU-5"]
    asked = []
    monkeypatch.setattr("segreg.benchmark.cost.running.check_memory", lambda _, *, jobs: asked.append(jobs) or "")
    for jobs in (1, 2, 3):
        look(plan, trials, BenchFolder(tmp_path / "bench"), jobs=jobs, progress=Quiet())
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    for jobs in (3, 8):
        look(plan, trials, BenchFolder(tmp_path / "bench"), jobs=jobs, progress=Quiet())
    assert asked == [1, 1, 2, 3, 3]


def test_the_board_knows_which_value_is_the_best_and_reads_a_finished_run_once(tmp_path):
    recipe = tiny_runs.write_recipe(tmp_path)
    changes = {"mse": "evaluate.metrics=[mse]", "iou": "evaluate.metrics=[iou]"}
    folder, registry, rows = BenchFolder(tmp_path / "bench"), load_registry(plugged.builtin()), {}
    for name, change in changes.items():
        (trial,) = trials_of(Plan(recipe, {}, change=[change, f"train.monitor=val.{name}.pooled"]), registry)
        path = folder.run(trial).path
        path.mkdir(parents=True)
        for epoch, value in enumerate((0.5, 0.2, 0.3), start=1):
            history.append(path, {"epoch": epoch, f"val.{name}.pooled": value, "seconds": 1.0})
        rows[name] = followed([trial], folder)
        assert rows[name]()[0].epoch == 3
    assert {name: read()[0].value for name, read in rows.items()} == {"mse": 0.2, "iou": 0.5}
    folder.run(trial).results.write_text(json.dumps({"scored_on": "test"}))
    assert rows["iou"]()[0].state == "finished"
    history.append(path, {"epoch": 4, "val.iou.pooled": 0.9, "seconds": 1.0})
    assert rows["iou"]()[0].epoch == 3
