"""A bench on Ray: the resources of a run, runs on a local Ray, and files from workers that share no folder."""

from __future__ import annotations

import io
import json
import os
import zipfile
from unittest import mock

import pytest

import plugged
import tiny_runs
from segreg.benchmark.bench.bench import bench
from segreg.benchmark.bench.folder import BenchFolder
from segreg.benchmark.bench.plan import Plan
from segreg.benchmark.bench.ray import _connect, default_resources, pack, unpack
from segreg.benchmark.bench.trials import trials_of
from segreg.config.sections import Train
from segreg.errors import SegregError
from segreg.registry.registry import load_registry
from segreg.runtime.progress import Quiet


@pytest.mark.parametrize(
    ("train", "gpus", "asked"),
    [
        (Train(device="cpu"), 8, {"cpus": 1, "gpus": 0}),
        (Train(device="cpu", workers=3), 8, {"cpus": 4, "gpus": 0}),
        (Train(), 0, {"cpus": 1, "gpus": 0}),
        (Train(), 8, {"cpus": 5, "gpus": 1}),
        (Train(device="cuda", workers=2), 0, {"cpus": 3, "gpus": 1}),
    ],
)
def test_resources_that_a_recipe_needs(train, gpus, asked):
    assert default_resources(train, gpus) == asked


@pytest.fixture
def trial(tmp_path):
    (trial,) = trials_of(Plan(tiny_runs.write_recipe(tmp_path), {}), load_registry(plugged.builtin()))
    return trial


def test_a_run_comes_back_whole_without_its_training_state(tmp_path, trial):
    folder, place = BenchFolder(tmp_path / "bench"), tmp_path / "worker"
    folder.make()
    (place / "run" / "overlays").mkdir(parents=True)
    for name in ("results.json", "state.pt", "overlays/01.png"):
        (place / "run" / name).write_text('{"scored_on": "test"}')
    (place / f"{trial.name}.log").write_text("output")
    unpack(pack(place, trial.name), trial, folder)
    run = folder.run(trial).path
    assert sorted(str(file.relative_to(run)) for file in run.rglob("*.*")) == ["overlays/01.png", "results.json"]
    assert folder.log(trial.name).read_text() == "output"
    assert folder.state(trial) == "finished"


def test_a_run_that_had_begun_makes_way_for_one_that_has_finished(tmp_path, trial):
    folder, place = BenchFolder(tmp_path / "bench"), tmp_path / "worker"
    run = folder.run(trial).path
    folder.make()
    run.mkdir(parents=True)
    (run / "state.pt").touch()
    (place / "run").mkdir(parents=True)
    results = place / "run" / "results.json"
    for scored, left in ((None, ["state.pt"]), ("test", ["results.json"])):
        results.write_text(json.dumps({"scored_on": scored}))
        unpack(pack(place, trial.name), trial, folder)
        assert [file.name for file in run.iterdir()] == left


def test_what_comes_back_stays_in_the_folder(tmp_path, trial):
    folder = BenchFolder(tmp_path / "bench")
    folder.make()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("../../outside", "")
        archive.writestr(f"{tmp_path}/outside", "")
    unpack(content.getvalue(), trial, folder)
    assert not list(tmp_path.rglob("outside"))


def test_without_ray_the_hint_is_to_install_it(monkeypatch, tmp_path, trial):
    from segreg.benchmark.bench.ray import run_on_ray

    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(SegregError) as caught:
        run_on_ray([trial], BenchFolder(tmp_path), resources={}, retries=0, refresh=lambda: None)
    assert str(caught.value.problems[0]) == "Ray is not installed\n  pip install 'segreg-toolkit[ray]'"


@pytest.fixture(scope="module")
def local_ray(tmp_path_factory):
    """Start Ray on this machine once, whose workers are the same in all tests."""
    ray = pytest.importorskip("ray")
    cache = str(tmp_path_factory.mktemp("ray") / "cache")
    with mock.patch.dict(os.environ, {"SEGREG_CACHE": cache, "RAY_DEDUP_LOGS": "0"}):
        assert _connect(ray)
        assert not _connect(ray)
        yield
        ray.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shared", [True, False])
def test_a_bench_on_a_local_ray(warm_workers, local_ray, tmp_path, monkeypatch, shared):
    plan = Plan(tiny_runs.write_recipe(tmp_path), {"loss": ["bce", "dice"]}, change=["train.epochs=1"])
    folder = BenchFolder(tmp_path / "bench")
    if not shared:  # the worker does not find the token, as on a machine that doesn't share the folder
        monkeypatch.setattr("segreg.benchmark.bench.ray.Path.touch", lambda self: None)
    registry = load_registry(plugged.builtin())
    folder.make()
    found, _ = bench(
        plan, trials_of(plan, registry), folder, executor="ray", resources={"cpus": 1}, rounds=0,
        progress=Quiet(), stream=io.StringIO(), mode="quiet",
    )  # fmt: skip
    assert sorted(model.name for model in found.models) == ["bce", "dice"]
    states = {trial.name: (folder.state(trial), (folder.run(trial).path / "state.pt").exists())
              for trial in trials_of(plan, registry)}  # fmt: skip
    assert set(states.values()) == {("finished", shared)}
