"""Trackers on the hooks of a run: what each of them holds afterwards, read with its own readers."""

from __future__ import annotations

import json
import math
import struct
import time

import numpy as np
import pytest
import yaml
from PIL import Image

import plugged
import tiny_runs
from segreg.registry.registry import load_registry
from segreg.task import Task
from segreg.training import history
from segreg_plugins.trackers import flat, mlflow, tensorboard, trackio, wandb
from segreg_plugins.trackers.titles import titles

RECIPE = {
    "seed": 3,
    "augment": [{"name": "HorizontalFlip", "p": 0.5}, {"name": "Rotate", "limit": [-30, 30]}],
    "input": {"size": [32, 32], "mean": None},
    "optimizer": {"name": "adam", "lr": 0.0001},
}
RESULTS = {
    "epochs": 2,
    "stopped_because": "epochs",
    "metrics": {
        "val": {"dice.pooled": 0.5, "dice.class.a [b]": None},
        "test": {"dice.pooled": 0.25},
    },
}
TRACKERS = plugged.point("segreg_plugins.trackers", name="builtin-trackers", distribution="segreg-toolkit")


@pytest.fixture(scope="module")
def registry():
    return load_registry([TRACKERS])


@pytest.fixture
def run(tmp_path):
    """A run's folder, as far as trackers look into it."""
    folder = tmp_path / "runs" / "tiny" / "2026-01-31_12-00-00"
    (folder / "overlays").mkdir(parents=True)
    (folder / "resolved.yaml").write_text(yaml.safe_dump(RECIPE))
    (folder / "results.json").write_text("{}")
    (folder / "state.pt").write_bytes(b"large")
    for name in ("b", "a"):
        Image.new("RGB", (30, 20), "red").save(folder / "overlays" / f"{name}.png")
    return folder


@pytest.fixture
def asked(monkeypatch):
    def ask(names):
        monkeypatch.setenv("SEGREG_TRACKERS", names)

    return ask


@pytest.fixture
def mlflow_store(monkeypatch, tmp_path):
    """A folder that MLflow keeps its runs in, and a client that reads them."""
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # the database that it prefers needs more packages
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlflow").as_uri())
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    from mlflow.tracking import MlflowClient

    return MlflowClient()


def tell_whole_run(registry, run, epochs=(1, 2)):
    complaints = registry.notify("segreg_run_start", run=run, recipe=RECIPE)
    for epoch in epochs:
        values = {"epoch": epoch, "train.loss": 1 / epoch, "val.dice.pooled": epoch / 10, "lr.encoder": 1e-4}
        complaints += registry.notify("segreg_epoch_end", run=run, epoch=epoch, values=values)
    return complaints + registry.notify("segreg_run_end", run=run, results=RESULTS)


def events_of(run):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    return found.Reload()


def scalars(run):
    found = events_of(run)
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_they_offer_no_part_and_are_silent_unless_asked(registry, run, monkeypatch):
    assert [(plugin.error, plugin.parts) for plugin in registry.plugins] == [("", ())]
    for names in (None, "", " , "):
        monkeypatch.delenv("SEGREG_TRACKERS", raising=False)
        if names is not None:
            monkeypatch.setenv("SEGREG_TRACKERS", names)
        assert tell_whole_run(registry, run) == []
    assert not (run / "tensorboard").exists()
    assert not (run / "mlflow.json").exists()


def test_nested_values_become_flat_ones():
    assert flat.flat(RECIPE) == {
        "seed": 3,
        "augment.0.name": "HorizontalFlip", "augment.0.p": 0.5,
        "augment.1.name": "Rotate", "augment.1.limit": [-30, 30],
        "input.size": [32, 32], "input.mean": None,
        "optimizer.name": "adam", "optimizer.lr": 0.0001,
    }  # fmt: skip
    assert [flat.format_plain(value) for value in (None, True, 0.5, [1, 2], "text")] == [
        "null", "true", "0.5", "[1, 2]", "text",
    ]  # fmt: skip
    assert flat.final_metrics(RESULTS) == {"val.dice.pooled": 0.5, "test.dice.pooled": 0.25}


# TensorBoard


def test_tensorboard_holds_the_history_the_results_and_the_overlays(registry, run, asked):
    asked("tensorboard")
    assert tell_whole_run(registry, run) == []
    found = scalars(run)
    assert found["train/loss"] == [(1, 1.0), (2, 0.5)]
    assert found["val/dice.pooled"] == [(1, pytest.approx(0.1)), (2, pytest.approx(0.2))]
    assert found["lr/encoder"] == [(1, pytest.approx(1e-4)), (2, pytest.approx(1e-4))]
    assert found["final/val.dice.pooled"] == [(2, 0.5)]
    assert found["final/test.dice.pooled"] == [(2, 0.25)]
    assert len(found) == 5
    events = events_of(run)
    assert events.Tags()["images"] == ["overlays/a", "overlays/b"]
    image = events.Images("overlays/a")[0]
    assert (image.width, image.height) == (30, 20)
    assert image.encoded_image_string == (run / "overlays" / "a.png").read_bytes()
    text = events.Tensors("recipe/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "    augment.1.limit: [-30, 30]\n" in text
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    settings = HParamsPluginData.FromString(content).session_start_info.hparams
    assert settings["optimizer.lr"].number_value == 0.0001
    assert settings["augment.0.name"].string_value == "HorizontalFlip"


def test_tensorboard_has_an_event_on_the_disk_as_soon_as_it_is_reported(registry, run, asked):
    asked("tensorboard")
    registry.notify("segreg_run_start", run=run, recipe=RECIPE)
    for epoch in (1, 2, 3):
        registry.notify("segreg_epoch_end", run=run, epoch=epoch, values={"val.loss": math.nan if epoch == 2 else 1.0})
        assert len(scalars(run)["val/loss"]) == epoch
    assert math.isnan(scalars(run)["val/loss"][1][1])
    assert len(list((run / "tensorboard").iterdir())) == 1


def test_tensorboard_forgets_epochs_that_a_run_repeats_when_it_goes_on(registry, run, asked):
    asked("tensorboard")
    registry.notify("segreg_run_start", run=run, recipe=RECIPE)
    for epoch in (1, 2, 3):
        registry.notify("segreg_epoch_end", run=run, epoch=epoch, values={"val.loss": float(epoch)})
    registry.notify("segreg_run_start", run=run, recipe=RECIPE)  # killed before epoch 2 was saved
    for epoch in (2, 3, 4):
        registry.notify("segreg_epoch_end", run=run, epoch=epoch, values={"val.loss": 10.0 * epoch})
    assert len(list((run / "tensorboard").iterdir())) == 2
    assert scalars(run)["val/loss"] == [(1, 1.0), (2, 20.0), (3, 30.0), (4, 40.0)]


# MLflow


def test_mlflow_holds_parameters_metrics_and_files(registry, run, asked, mlflow_store):
    asked("mlflow")
    assert tell_whole_run(registry, run) == []
    note = json.loads((run / "mlflow.json").read_text())
    assert note["experiment"] == "tiny"
    found = mlflow_store.get_run(note["run_id"])
    assert (found.info.run_name, found.info.status) == ("2026-01-31_12-00-00", "FINISHED")
    assert found.data.tags["segreg.runs.run"] == str(run)
    assert found.data.params["optimizer.lr"] == "0.0001"
    assert found.data.params["augment.1.limit"] == "[-30, 30]"
    assert found.data.params["input.mean"] == "null"
    assert found.data.metrics["final.test.dice.pooled"] == 0.25
    rows = mlflow_store.get_metric_history(note["run_id"], "val.dice.pooled")
    assert [(row.step, row.value) for row in rows] == [(1, 0.1), (2, 0.2)]
    names = {file.path for file in mlflow_store.list_artifacts(note["run_id"])}
    assert names == {"resolved.yaml", "results.json", "overlays"}
    assert len(mlflow_store.list_artifacts(note["run_id"], "overlays")) == 2


def test_mlflow_goes_on_with_the_run_that_it_had(registry, run, asked, mlflow_store, monkeypatch):
    asked("mlflow")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "lesions")
    registry.notify("segreg_run_start", run=run, recipe=RECIPE)
    registry.notify("segreg_epoch_end", run=run, epoch=1, values={"val.loss": 1.0})
    registry.notify("segreg_run_end", run=run, results={"epochs": 1, "stopped_because": "interrupted", "metrics": {}})
    note = json.loads((run / "mlflow.json").read_text())
    assert mlflow_store.get_run(note["run_id"]).info.status == "KILLED"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///nowhere")  # its own store is remembered
    assert tell_whole_run(registry, run, epochs=(2, 3)) == []
    assert json.loads((run / "mlflow.json").read_text()) == note
    found = mlflow_store.get_run(note["run_id"])
    assert found.info.status == "FINISHED"
    assert found.info.experiment_id == mlflow_store.get_experiment_by_name("lesions").experiment_id
    assert found.data.metrics["val.dice.pooled"] == pytest.approx(0.3)


def test_mlflow_takes_names_and_values_of_any_kind(registry, run, asked, mlflow_store):
    asked("mlflow")
    many = {"classes": [f"class {number}" for number in range(200)], **{f"s{n}": n for n in range(250)}}
    assert registry.notify("segreg_run_start", run=run, recipe=many) == []
    values = {"val.iou.class.a [b] (c)": 0.5, **{f"m{n}": float(n) for n in range(1100)}}
    assert registry.notify("segreg_epoch_end", run=run, epoch=1, values=values) == []
    data = mlflow_store.get_run(json.loads((run / "mlflow.json").read_text())["run_id"]).data
    assert len(data.params) == 251
    assert len(data.params["classes"]) == 500
    assert data.metrics["val.iou.class.a _b_ _c_"] == 0.5
    assert data.metrics["m1099"] == 1099


def test_mlflow_keeps_classes_apart_whose_names_differ_in_what_it_refuses():
    assert mlflow._named({"iou.class.a+b": 1, "iou.class.a&b": 2, "lr": 3}) == {
        "iou.class.a_b": 1, "iou.class.a_b_": 2, "lr": 3,
    }  # fmt: skip


# W&B, offline: what it keeps is read from the record that `wandb sync` would send


def leveldb_log(data):
    """Return the records of W&B's file, a log of LevelDB: blocks of 32 kB, in which records are cut into fragments."""
    place, found, whole = 7, [], b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:  # too little for the head of a fragment
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last fragment
            found.append(whole)
            whole = b""
    return found


@pytest.fixture
def wandb_offline(monkeypatch, tmp_path):
    """W&B's variables for a run that needs no network, and a function that returns a run's records."""
    pytest.importorskip("wandb")
    for name in ("WANDB_PROJECT", "WANDB_DIR", "WANDB_ENTITY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")

    def records(run):
        from wandb.proto import wandb_internal_pb2

        until = time.monotonic() + 60
        while time.monotonic() < until:  # its own process writes the file
            files = sorted(run.glob("wandb/offline-run-*/run-*.wandb"))
            found = [wandb_internal_pb2.Record.FromString(d) for f in files for d in leveldb_log(f.read_bytes())]
            if sum(one.WhichOneof("record_type") == "exit" for one in found) == len(files):
                break
            time.sleep(0.05)
        return found

    return records


def rows_of(records):
    """Return what was logged by name, each value with its step."""
    found = {}
    for record in records:
        row = {}
        for item in record.history.item:
            inside, (*path, last) = row, [item.key] if item.key else item.nested_key
            for step in path:
                inside = inside.setdefault(step, {})
            inside[last] = json.loads(item.value_json)
        for name, value in row.items():
            found.setdefault(name, []).append((record.history.step.num, value))
    return found


def test_wandb_holds_the_config_the_history_the_results_and_masks(registry, run, asked, wandb_offline):
    asked("wandb")
    labels = np.zeros((20, 30), np.uint8)
    labels[5:9, 5:9], labels[0] = 1, 255
    pixels = np.zeros((20, 30, 3), np.uint8)
    overlapping = {"truth": np.stack([labels, 0 * labels]), "prediction": np.stack([labels, labels])}
    shown = [
        (Task(("cell",), "binary"), {"truth": labels, "prediction": labels}),
        (Task(("a", "b"), "multilabel"), overlapping),
    ]
    assert registry.notify("segreg_run_start", run=run, recipe=RECIPE) == []
    for epoch in (1, 2):
        values = {"epoch": epoch, "train.loss": 1 / epoch, "val.dice.pooled": epoch / 10}
        assert registry.notify("segreg_epoch_end", run=run, epoch=epoch, values=values) == []
    for task, masks in shown:
        file = run / "overlays" / f"{task.mode}.png"
        assert registry.notify("segreg_overlay", run=run, file=file, image=pixels, masks=masks, task=task) == []
    assert registry.notify("segreg_run_end", run=run, results=RESULTS) == []

    records = wandb_offline(run)
    rows = rows_of(records)
    assert rows["val/dice.pooled"] == [(1, 0.1), (2, 0.2)]
    ((step, image),) = rows["overlays/binary"]
    assert (step, image["_type"], image["width"], image["height"]) == (2, "image-file", 30, 20)
    assert set(image["masks"]) == {"truth", "prediction"}
    (file,) = run.glob(f"wandb/offline-run-*/files/{image['masks']['truth']['path']}")
    assert (np.asarray(Image.open(file)) == labels).all()
    ((_, image),) = rows["overlays/multilabel"]
    assert set(image["masks"]) == {"truth: a", "prediction: a", "prediction: b"}
    configs = {item.key: json.loads(item.value_json) for record in records for item in record.run.config.update}
    assert configs["optimizer.lr"] == 0.0001
    assert configs["augment.1.limit"] == [-30, 30]
    (begun,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    note = json.loads((run / "wandb.json").read_text())
    assert (begun.run_id, begun.project, begun.display_name) == (note["id"], "tiny", "2026-01-31_12-00-00")
    summary = {item.key: item.value_json for record in records for item in record.summary.update}
    assert json.loads(summary["final/test.dice.pooled"]) == 0.25
    assert next(run.glob("wandb/offline-run-*/files/resolved.yaml")).read_text() == (run / "resolved.yaml").read_text()


def test_wandb_goes_on_with_the_run_that_it_had(registry, run, asked, wandb_offline, monkeypatch):
    asked("wandb")
    monkeypatch.setenv("WANDB_PROJECT", "lesions")
    registry.notify("segreg_run_start", run=run, recipe=RECIPE)
    registry.notify("segreg_epoch_end", run=run, epoch=1, values={"val.loss": 1.0})
    registry.notify("segreg_run_end", run=run, results={"epochs": 1, "stopped_because": "interrupted", "metrics": {}})
    note = json.loads((run / "wandb.json").read_text())
    monkeypatch.delenv("WANDB_PROJECT")
    assert tell_whole_run(registry, run, epochs=(2, 3)) == []
    assert json.loads((run / "wandb.json").read_text())["id"] == note["id"]
    records = wandb_offline(run)
    begun = {(r.run.run_id, r.run.project) for r in records if r.WhichOneof("record_type") == "run"}
    assert begun == {(note["id"], "lesions")}
    assert [step for step, _ in rows_of(records)["train/loss"]] == [2, 3]
    assert [r.exit.exit_code for r in records if r.WhichOneof("record_type") == "exit"] == [1, 0]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        (
            "WANDB_MODE",
            "ofline",
            'WANDB_MODE is "ofline", which is not a mode of W&B\n  did you mean "offline" or "online"?',
        ),
        ("WANDB_PROJECT", "a/b#c", 'WANDB_PROJECT is "a/b#c", with "/" and "#" in it'),
    ],
)
def test_wandb_settings_are_checked(registry, run, asked, monkeypatch, name, value, says):
    monkeypatch.setattr(wandb, "find_spec", lambda module: True)
    asked("wandb")
    monkeypatch.setenv(name, value)
    (complaint,) = registry.notify("segreg_run_start", run=run, recipe=RECIPE)
    assert says in complaint
    assert not (run / "wandb.json").exists()


# Trackio


@pytest.fixture
def trackio_store(monkeypatch, tmp_path):
    """A folder that Trackio keeps its projects in, and its reader."""
    pytest.importorskip("trackio")
    from trackio import sqlite_storage, utils

    for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)
    for module in (utils, sqlite_storage):  # they read TRACKIO_DIR once, when they are imported
        monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "trackio")
    return sqlite_storage.SQLiteStorage


def test_trackio_holds_the_history_the_results_and_the_overlays(registry, run, asked, trackio_store):
    asked("trackio")
    assert tell_whole_run(registry, run) == []
    note = json.loads((run / "trackio.json").read_text())
    assert (note["project"], note["name"]) == ("tiny", "2026-01-31_12-00-00")
    rows = trackio_store.get_logs("tiny", note["name"])
    assert [(row["step"], row["val/dice.pooled"]) for row in rows if "val/dice.pooled" in row] == [(1, 0.1), (2, 0.2)]
    last = rows[-1]
    assert (last["step"], last["final/test.dice.pooled"]) == (2, 0.25)
    assert {name for name in last if name.startswith("overlays/")} == {"overlays/a", "overlays/b"}
    assert last["overlays/a"]["_type"] == "trackio.image"
    config = trackio_store.get_run_config("tiny", note["name"])
    assert config["optimizer.lr"] == 0.0001


def test_trackio_goes_on_with_the_run_that_it_had(registry, run, asked, trackio_store):
    asked("trackio")
    interrupted = {"epochs": 1, "stopped_because": "interrupted", "metrics": {}}
    registry.notify("segreg_run_start", run=run, recipe=RECIPE)
    registry.notify("segreg_epoch_end", run=run, epoch=1, values={"val.loss": 1.0})
    registry.notify("segreg_run_end", run=run, results=interrupted)
    note = (run / "trackio.json").read_text()
    assert tell_whole_run(registry, run, epochs=(2, 3)) == []
    assert (run / "trackio.json").read_text() == note
    assert len(trackio_store.get_runs("tiny")) == 1
    (run / "trackio.json").write_text(note.replace(json.loads(note)["id"], "another"))
    (complaint,) = registry.notify("segreg_run_start", run=run, recipe=RECIPE)
    assert "is not the one that" in complaint


# what goes wrong


def test_what_is_not_installed_is_reported_once_with_its_extra(registry, run, asked, monkeypatch):
    asked("tensorboard,mlflow,wandb,trackio")
    for module in (tensorboard, mlflow, wandb, trackio):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    complaints = tell_whole_run(registry, run)
    assert complaints == [
        (
            "segreg_run_start of segreg-toolkit:builtin-trackers failed: SegregError: TensorBoard is not installed\n"
            '  pip install "segreg-toolkit[tensorboard]"\n'
            'MLflow is not installed\n  pip install "segreg-toolkit[mlflow]"\n'
            'W&B is not installed\n  pip install "segreg-toolkit[wandb]"\n'
            'Trackio is not installed\n  pip install "segreg-toolkit[trackio]"'
        )
    ]
    assert not (run / "tensorboard").exists()


def test_a_tracker_that_fails_late_gets_nothing_more_of_the_run(registry, run, asked, monkeypatch):
    asked("tensorboard")
    clock = iter(range(0, 1000, 30))
    monkeypatch.setattr("segreg_plugins.trackers.time.monotonic", lambda: next(clock))
    called = []

    def unreachable(*_):
        called.append(1)
        raise ConnectionError("no answer")

    monkeypatch.setattr(tensorboard, "epoch", unreachable)
    (complaint,) = tell_whole_run(registry, run)
    assert "tensorboard: ConnectionError: no answer\n  tensorboard gets nothing more of this run" in complaint
    assert len(called) == 1
    assert len(tell_whole_run(registry, run)) == 1, "a run that is continued begins anew"


def test_projects_are_called_as_recipes_benches_and_tunes(tmp_path):
    for folder in ("plain/runs/isic/2026", "tunes/lr/runs/trial-0003", "benches/nets/runs/resnet18_ab/seed-0"):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ("tunes/lr", "benches/nets"):
        (tmp_path / folder / "trials").mkdir()
    assert titles(tmp_path / "plain/runs/isic/2026") == ("isic", "2026")
    assert titles(tmp_path / "tunes/lr/runs/trial-0003") == ("lr", "trial-0003")
    assert titles(tmp_path / "benches/nets/runs/resnet18_ab/seed-0") == ("nets", "resnet18_ab_seed-0")


@pytest.mark.parametrize("names", ["tensorbord, Tensorboard", "tensorbord Tensorboard"])
def test_a_misspelled_tracker_is_reported_once_and_the_others_are_reported_of_the_run(registry, run, asked, names):
    asked(names)
    complaints = tell_whole_run(registry, run)
    assert complaints == [
        (
            "segreg_run_start of segreg-toolkit:builtin-trackers failed: SegregError: "
            'SEGREG_TRACKERS names "tensorbord", which is not a tracker\n  did you mean "tensorboard"?'
        )
    ]
    assert scalars(run)["train/loss"] == [(1, 1.0), (2, 0.5)]


def test_a_tracker_that_fails_stops_no_other(registry, run, asked, mlflow_store, monkeypatch):
    asked("mlflow,tensorboard")

    def refuse(*_):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(mlflow, "_log", refuse)
    complaints = tell_whole_run(registry, run)
    assert [line.partition("SegregError: ")[2] for line in complaints] == [
        "mlflow: ConnectionError: no route to host"
    ] * 3
    assert scalars(run)["train/loss"] == [(1, 1.0), (2, 0.5)]


# a run


@pytest.mark.slow
def test_a_run_reports_its_history_by_name(tmp_path, installed, asked, mlflow_store):
    pytest.importorskip("tensorboard")
    builtin = [point for point in plugged.builtin() if point.value != TRACKERS.value]
    installed(*builtin, TRACKERS)
    asked("tensorboard,mlflow")
    finished = tiny_runs.run(tmp_path, "train.epochs=2")
    folder = finished.directory.path
    rows = history.read(folder)
    found = scalars(folder)
    for name in rows[0]:
        if name != "epoch":
            reported = found[name.replace(".", "/", 1)]
            shown = [(row["epoch"], pytest.approx(row[name], rel=1e-6)) for row in rows]
            # The time of the last checkpoint is added to the history when the epoch has been reported.
            count = -1 if name.startswith("seconds") else None
            assert reported[:count] == shown[:count], name
    assert found["final/test.dice.pooled"][0][1] == pytest.approx(finished.results["metrics"]["test"]["dice.pooled"])
    own = mlflow_store.get_run(json.loads((folder / "mlflow.json").read_text())["run_id"])
    assert own.data.params["encoder.name"] == "timm/test_resnet"
    assert own.data.metrics["final.test.dice.pooled"] == finished.results["metrics"]["test"]["dice.pooled"]
    assert "best.safetensors" in {file.path for file in mlflow_store.list_artifacts(own.info.run_id)}
