"""A run that was stopped, in any way and at any moment, and gone on with: it ends as one that was never stopped."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path
from unittest import mock

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import segreg
import small_runs
import tiny_runs
from segreg import load_run
from segreg.config.recipe import read_recipe, to_yaml
from segreg.errors import SegregError
from segreg.registry.registry import load_registry
from segreg.runs.directory import RunDirectory
from segreg.runs.run import _left_behind, resume_run
from segreg.runtime.lock import locked_folder
from segreg.training import history
from segreg.training import trainer as train
from segreg.training.checkpoint import load_state, read_notes
from segreg.visualize.plots import plot_history

pytestmark = pytest.mark.usefixtures("three_convolutions")
TEXT = small_runs.RECIPE.replace("samples: 24", "samples: 14").replace("epochs: 6", "epochs: 3")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _undrawn():
    with tiny_runs.undrawn():
        yield


@pytest.fixture(scope="module")
def finished(three_convolutions, tmp_path_factory):
    return small_runs.run(tmp_path_factory.mktemp("finished"), text=TEXT)


@pytest.fixture
def copied(finished, tmp_path):
    """Return the directory of a finished run that the test may change."""
    return Path(shutil.copytree(finished.directory.path, tmp_path / "copied"))


def resumed(path):
    return resume_run(Path(path), load_registry())


def assert_as_if_never_stopped(run, undisturbed):
    for name in ("best", "last"):
        ours = load_file(getattr(run.directory, name))
        theirs = load_file(getattr(undisturbed.directory, name))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name

    def rows(run):
        timed = ("seconds", "images_per_second")
        return [{key: value for key, value in row.items() if not key.startswith(timed)} for row in run.history]

    assert rows(run) == rows(undisturbed)  # neither a gap nor a row twice
    with run.directory.history.open() as file:
        assert [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)] == run.history
    for key in ("metrics", "best_epoch", "best_value", "epochs", "stopped_because", "scored_on"):
        assert run.results[key] == undisturbed.results[key], key
    assert run.directory.per_image.read_text() == undisturbed.directory.per_image.read_text()
    assert {file.name for file in run.directory.path.iterdir()} | tiny_runs.DRAWN == tiny_runs.LEAVES


def wait_for(condition, *, seconds=120):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)
    return found


def started_run(runs):
    """Return the run's directory once a `--resume` could take it."""
    found = [file.parent for file in runs.glob("*/[!.]*/resolved.yaml")]
    return found[0] if found else None


@pytest.mark.slow
def test_killed_at_random_moments_and_gone_on_with_it_ends_with_the_same_weights(tmp_path_factory, tmp_path):
    finished = tiny_runs.finished(tmp_path_factory)
    draw = random.Random(0)
    runs, log = tmp_path / "runs", tmp_path / "log"
    recipe = tiny_runs.write_recipe(tmp_path)
    process = tiny_runs.process("run", recipe, "--out", runs, out=log)
    path = wait_for(lambda: started_run(runs) or not process.is_alive())
    kills = 0
    for _ in range(3):
        time.sleep(draw.uniform(0.0, 0.15))  # a quick machine needs little longer for the rest
        kills += process.is_alive()
        process.kill()
        process.join()
        known = len(log.read_text())
        process = tiny_runs.process("run", "--resume", path, out=log)
        # Its header is out: data and network are there again, and training is about to begin.
        wait_for(lambda known=known, process=process: "device  " in log.read_text()[known:] or not process.is_alive())
    process.join()
    assert process.exitcode == 0, log.read_text()
    assert kills >= 2
    assert_as_if_never_stopped(segreg.load_run(path), finished)
    assert {file.name for file in path.iterdir()} == tiny_runs.LEAVES - tiny_runs.DRAWN
    before = json.loads((path / "environment.json").read_text())["previous"]
    assert len(before) == 3
    assert all("previous" not in environment for environment in before)


def test_killed_before_the_first_step_it_begins_anew(finished, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(*_, **__):
        raise Killed

    copied, runs = tmp_path / "copy", tmp_path / "runs" / "tiny"
    monkeypatch.setattr("segreg.runs.run.fit", kill)
    remove = shutil.rmtree
    monkeypatch.setattr(
        "shutil.rmtree", lambda path, **how: path.parent == runs or remove(path, **how)
    )  # killed, it removes nothing
    with pytest.raises(Killed):
        small_runs.run(tmp_path, text=TEXT)
    monkeypatch.undo()
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))
    (path,) = runs.iterdir()
    path.rename(copied)
    left = {file.name for file in copied.iterdir()}
    assert left == {".lock", "recipe.yaml", "resolved.yaml", "split.json", "environment.json"}
    assert_as_if_never_stopped(resumed(copied), finished)


def interrupted(tmp_path, monkeypatch, *, epoch, overrides=(), drawn=False):
    """Return a run that Ctrl-C stopped in an epoch."""
    train_pass = train.train_pass

    def pass_with_interrupt(training, batches, number, progress):
        if number == epoch:
            os.kill(os.getpid(), signal.SIGINT)
        return train_pass(training, batches, number, progress)

    monkeypatch.setattr("segreg.training.trainer.train_pass", pass_with_interrupt)
    run = small_runs.run(tmp_path, *overrides, text=TEXT, drawn=drawn)
    monkeypatch.setattr("segreg.training.trainer.train_pass", train_pass)
    assert run.results["stopped_because"] == "interrupted"
    return run


def test_ctrl_c_leaves_what_was_finished_and_the_run_can_go_on(finished, tmp_path, monkeypatch):
    with mock.patch("segreg.runs.results.plot_history", plot_history):
        run = interrupted(tmp_path, monkeypatch, epoch=3, drawn=True)
    assert run.results["epochs"] == 2
    assert run.results["metrics"] == {}
    assert [row["epoch"] for row in run.history] == [1, 2]
    assert run.directory.curves.is_file()
    assert read_notes(run.directory.last)["epoch"] == "2"
    labels = run.predict(next((tmp_path / "images").glob("*/*Input/*.jpg")), weights="last")
    assert labels.shape == (48, 48)
    copied = Path(shutil.copytree(run.directory.path, tmp_path / "copied"))
    assert_as_if_never_stopped(resumed(run.directory.path), finished)
    # Killed between a row and its checkpoint, the row is written once.
    history.append(copied, {**run.history[-1], "epoch": 3})
    assert_as_if_never_stopped(resumed(copied), finished)


def test_ctrl_c_in_the_first_epoch(finished, tmp_path, monkeypatch):
    run = interrupted(tmp_path, monkeypatch, epoch=1)
    assert run.results["epochs"] == 0
    assert run.history == []
    with pytest.raises(SegregError, match="has no best weights yet"):
        run.model()
    assert_as_if_never_stopped(resumed(run.directory.path), finished)


def test_ctrl_c_on_the_command_line_says_once_how_to_go_on_and_gives_130(tmp_path, monkeypatch, segreg):
    train_pass = train.train_pass

    def pass_with_interrupt(training, batches, number, progress):
        if number == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return train_pass(training, batches, number, progress)

    monkeypatch.setattr("segreg.training.trainer.train_pass", pass_with_interrupt)
    recipe, runs = small_runs.write_recipe(tmp_path, TEXT), tmp_path / "runs"
    printed = segreg("run", recipe, "--out", runs)
    (path,) = (runs / "tiny").iterdir()
    assert printed.status == 130
    assert printed.err == ""
    assert printed.out.count(f"segreg run --resume {path}") == 1
    assert printed.out.splitlines()[-1] == (
        f"interrupted in epoch 2; 1 finished. Go on with: segreg run --resume {path}"
    )
    quiet = segreg("run", recipe, "--quiet", "--out", tmp_path / "quiet")
    (path,) = (tmp_path / "quiet" / "tiny").iterdir()
    assert (quiet.status, quiet.err) == (130, "")
    assert quiet.out == f"interrupted after 1 epoch; segreg run --resume {path} continues\n"
    reported = segreg("run", recipe, "--json", "--out", tmp_path / "json")
    assert reported.status == 130
    assert json.loads(reported.out)["stopped_because"] == "interrupted"


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "number"), [(0, signal.SIGINT), (1, signal.SIGTERM)])
def test_a_signal_to_the_whole_process_group_ends_it_cleanly(workers, number, tmp_path):
    runs, log = tmp_path / "runs", tmp_path / "log"
    recipe = tiny_runs.write_recipe(tmp_path)
    arguments = ["run", recipe, "train.epochs=500", f"train.workers={workers}", "--out", runs]
    process = tiny_runs.process(*arguments, out=log, options={"own_group": True})
    wait_for(lambda: "epoch 3/500  train.loss" in (log.read_text() if log.exists() else "") or not process.is_alive())
    os.killpg(process.pid, number)  # as a terminal does, and a scheduler
    process.join()
    said = log.read_text()
    assert process.exitcode == 130, said
    path = started_run(runs)
    assert said.splitlines()[-1].endswith(f"Go on with: segreg run --resume {path}")
    assert "Traceback" not in said
    run = segreg.load_run(path)
    assert run.results["epochs"] == len(run.history) == load_state(path / "state.pt").epoch >= 3


def test_a_worker_that_is_killed_is_reported_and_the_run_can_go_on(tmp_path, monkeypatch, segreg):
    """Out of memory, the system kills the largest process, which may be a worker."""
    runs = tmp_path / "runs"
    real = train.run_epoch

    def epoch(training, data, before, **given):
        if before.epoch == 1:
            for child in multiprocessing.active_children():
                os.kill(child.pid, signal.SIGKILL)
        return real(training, data, before, **given)

    monkeypatch.setattr(train, "run_epoch", epoch)
    recipe = small_runs.write_recipe(tmp_path, TEXT)
    printed = segreg("run", recipe, "train.epochs=3", "train.workers=1", "--out", runs, "--quiet")
    monkeypatch.undo()
    assert printed.status == 2
    assert "DataLoader worker" in printed.err
    assert "Traceback" not in printed.err
    path = started_run(runs)
    assert f"segreg run --resume {path} continues" in printed.err
    assert resumed(path).results["epochs"] == 3


def test_ctrl_c_while_scoring_says_how_to_go_on(finished, tmp_path, monkeypatch, segreg):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("segreg.evaluation.evaluator.evaluate", interrupt)
    recipe, runs = small_runs.write_recipe(tmp_path, TEXT), tmp_path / "runs"
    printed = segreg("run", recipe, "--out", runs)
    monkeypatch.undo()
    (path,) = (runs / "tiny").iterdir()
    assert (printed.status, printed.err) == (130, "interrupted\n")
    assert printed.out.splitlines()[-1] == f"interrupted while scoring. Go on with: segreg run --resume {path}"
    assert_as_if_never_stopped(resumed(path), finished)


KEPT = ("recipe.yaml", "resolved.yaml", "split.json", "history.csv", "history.jsonl", "results.json", "per_image.csv",
        "counts.csv", "best.safetensors")  # fmt: skip


def test_going_on_with_a_finished_run_scores_it_again_and_changes_nothing(copied, segreg):
    run = load_run(copied)
    reported = {name: (run.directory.path / name).read_bytes() for name in KEPT}
    run.directory.results.unlink()
    run.directory.per_image.unlink()
    printed = segreg("run", "--resume", run.directory.path)
    assert printed.status == 0
    assert "epoch 4" not in printed.out
    assert {name: (run.directory.path / name).read_bytes() for name in KEPT} == reported


def test_a_plugin_that_was_edited_since_is_named(copied, segreg, monkeypatch):
    directory = load_run(copied).directory
    monkeypatch.setattr("segreg.runs.run.sources", lambda recipe: {"segreg-lab:parts": "b" * 32})
    warning = f'warning: the source of "segreg-lab:parts" has changed since {directory.path} stopped\n'
    assert warning in segreg("run", "--resume", directory.path).out
    assert warning not in segreg("run", "--resume", directory.path).out, "the run's environment has the new one"


def test_a_finished_run_whose_history_does_not_say_where_the_time_went_is_scored_again_too(copied, segreg):
    run = load_run(copied)
    reported = run.results
    rows = [json.loads(line) for line in (run.directory.path / "history.jsonl").read_text().splitlines()]
    old = [
        {name: row[name] for name in row if name != "micro_batches" and not name.startswith("seconds.")} for row in rows
    ]
    (run.directory.path / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old))
    run.directory.results.unlink()
    assert segreg("run", "--resume", run.directory.path).status == 0
    again = json.loads(run.directory.results.read_text())
    assert again["metrics"] == reported["metrics"]
    assert (again["time"], again["advice"], again["micro_batches"]) == ({}, "", 1)


def test_an_average_a_schedule_and_the_patience_go_on_too(tmp_path, monkeypatch):
    overrides = [
        "train.ema=0.9", "schedule={name: cosine, warmup_epochs: 1}", "train.freeze_encoder_epochs=1",
        "train.accumulate=2", "loss=[bce, dice]", "train.early_stopping=3", "train.lr_factors={encoder: 0.1}",
        "decoder={name: mlp, channels: 8, dropout: 0.5}",
    ]  # fmt: skip
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    whole = small_runs.run(tmp_path / "one", *overrides, text=TEXT)
    run = interrupted(tmp_path / "other", monkeypatch, epoch=3, overrides=overrides)
    assert_as_if_never_stopped(resumed(run.directory.path), whole)


def test_images_that_changed_and_samples_that_came_are_reported(tmp_path, segreg):
    images, masks = tiny_runs.folder_dataset(tmp_path)
    text = small_runs.RECIPE.replace(
        "{name: synthetic_lesions, root: images, samples: 24, size: 48}",
        f"{{name: folder, images: {tmp_path}/images, masks: {tmp_path}/masks}}",
    )
    path = small_runs.run(tmp_path, "train.epochs=1", "evaluate.overlays=0", text=text).directory.path
    before = (path / "environment.json").read_bytes()
    mask = (masks / "image 03.png").read_bytes()
    Image.new("L", (40, 40)).save(masks / "image 03.png")
    printed = segreg("run", "--resume", path)
    assert printed.status == 2
    assert f"the images or masks of folder have changed since {path} began" in printed.err
    assert (path / "environment.json").read_bytes() == before
    (masks / "image 03.png").write_bytes(mask)
    for folder in (images, masks):
        (folder / "image 00.png").rename(folder / "image 99.png")
    printed = segreg("run", "--resume", path)
    assert printed.status == 2
    assert f"the data of folder is split otherwise than when {path} began" in printed.err
    assert "Start a new run" in printed.err


def test_resume_takes_no_recipe(finished, segreg):
    path = finished.directory.path
    printed = segreg("run", "--resume", path, "tiny.yaml")
    assert printed.status == 2
    assert printed.err == f"error: --resume continues with the recipe of {path}; leave out tiny.yaml\n"


@pytest.mark.parametrize(
    "override", ["optimizer.lr=1", "train.batch_size=2", "dataset.samples=9", "dataset.name=folder", "seed=2"]
)
def test_what_is_past_can_not_be_changed(override, finished, segreg):
    path = finished.directory.path
    before = {file: file.read_bytes() for file in path.iterdir() if file.is_file()}
    printed = segreg("run", "--resume", path, override)
    assert printed.status == 2
    assert f'"{override.partition("=")[0]}" can\'t be changed: the finished epochs' in printed.err
    assert '"train.epochs"' in printed.err
    assert {file: file.read_bytes() for file in path.iterdir() if file.is_file()} == before


def test_a_finished_run_can_train_longer(finished, tmp_path, segreg):
    """Without a schedule it ends with the weights of a run that had as many epochs from the start."""
    run = small_runs.run(tmp_path, "train.epochs=2", text=TEXT)
    printed = segreg("run", "--resume", run.directory.path, "train.epochs=3")
    assert printed.status == 0, printed.err
    assert "changed from here on: train.epochs=3" in printed.out
    first, second = load_file(run.directory.last), load_file(finished.directory.last)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert load_run(run.directory.path).recipe.train.epochs == 3


def test_lists_of_a_split_that_moved_are_named_anew(copied):
    resolved, lists = copied / "resolved.yaml", {"train": "/then/train.txt", "val": "/then/val.txt"}
    resolved.write_text(to_yaml(read_recipe(resolved).changed({"split.lists": lists}).values))
    written, *_ = _left_behind(RunDirectory(copied), ["split.lists.train=/now/train.txt"], False)
    assert written.values["split"]["lists"] == {**lists, "train": "/now/train.txt"}
    with pytest.raises(SegregError, match="can't be changed"):
        _left_behind(RunDirectory(copied), ["split.lists={train: /now/train.txt}"], False)


def test_a_run_whose_data_moved_continues(copied, segreg):
    resolved, moved = copied / "resolved.yaml", load_run(copied).recipe.dataset.settings["root"]
    before = copied.with_name("where they were")
    resolved.write_text(resolved.read_text().replace(str(moved), str(before)))
    assert segreg("run", "--resume", copied, f"dataset.root={moved}").status == 0
    assert not before.exists()


@pytest.mark.parametrize("lost", ["state.pt", "history.jsonl", "one row"])
def test_a_file_that_is_missing_is_reported_and_nothing_is_overwritten(lost, copied, segreg):
    path = copied
    if lost == "one row":
        rows = (path / "history.jsonl").read_text().splitlines(keepends=True)
        (path / "history.jsonl").write_text("".join(rows[:1] + rows[2:]))
    else:
        (path / lost).unlink()
    before = {file: file.read_bytes() for file in path.iterdir() if file.is_file()}
    printed = segreg("run", "--resume", path)
    assert printed.status == 2
    assert "nothing was changed" in printed.err
    assert ("state.pt is missing" if lost == "state.pt" else "finished epochs are missing") in printed.err
    assert {file: file.read_bytes() for file in path.iterdir() if file.is_file()} == before
    if lost != "state.pt":
        assert segreg("run", "--resume", path, "--without-history").status == 0


def test_two_processes_don_t_work_on_one_run(finished, segreg):
    with locked_folder(finished.directory.path, "run"):
        printed = segreg("run", "--resume", finished.directory.path)
    assert printed.status == 2
    assert f"another process works on this run: process {os.getpid()} on " in printed.err


def test_what_is_no_run_is_reported(finished, tmp_path, segreg):
    path = finished.directory.path
    assert f"there is no run {path}x\n  did you mean" in segreg("run", "--resume", f"{path}x").err
    above = segreg("run", "--resume", path.parent)
    assert above.status == 2
    assert "is not the directory of a run" in above.err
    assert str(path) in above.err
    assert segreg("run", "--resume", tmp_path).status == 2


def test_a_damaged_state_is_reported_by_its_name(copied, segreg):
    path = copied
    state = (path / "state.pt").read_bytes()
    (path / "state.pt").write_bytes(state[: len(state) // 2])
    printed = segreg("run", "--resume", path)
    assert printed.status == 2
    assert f"{path / 'state.pt'}: " in printed.err


def test_a_recipe_that_was_changed_since_is_reported(copied, segreg):
    path = copied
    resolved = path / "resolved.yaml"
    resolved.write_text(resolved.read_text().replace("channels: 8", "channels: 24"))
    printed = segreg("run", "--resume", path)
    assert printed.status == 2
    assert "the training state does not fit this recipe" in printed.err


def test_a_state_that_was_not_kept_is_reported_with_the_setting(tmp_path, segreg):
    run = small_runs.run(tmp_path, "train.epochs=1", "train.keep_state=no", text=TEXT)
    assert not (run.directory.path / "state.pt").exists()
    assert run.results["scored_on"] == "test"
    printed = segreg("run", "--resume", run.directory.path, "train.epochs=2", "train.keep_state=resumable")
    assert printed.status == 2
    assert "train.keep_state is no, so it was deleted when the run had finished" in printed.err
    assert f"train.start_from={run.directory.path}" in printed.err
