"""Several processes with each setting of training, on several machines, and with the commands that are for one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from types import SimpleNamespace

import pytest
import torch
from test_distributed import RECIPE, assert_same_training, ended, start

import segreg
import tiny_runs
from segreg.config.resolve import resolve
from segreg.registry.registry import load_registry
from segreg.runs.assembly import Assembly
from segreg.runtime import distributed
from segreg.runtime.progress import Quiet
from segreg.training import history
from segreg.training.checkpoint import read_weights

NORMALISED = """\
seed: 3
dataset: {name: synthetic_lesions, root: images, samples: 23, size: 40}
split: {method: random, val: 0.2, test: 0.1}
input: {size: [64, 64]}
augment: [{name: HorizontalFlip, p: 0.5}]
encoder: timm/test_resnet
decoder: {name: smp.unet, channels: [16, 8, 8, 8, 4]}
loss: dice_bce
optimizer: {name: sgd, lr: 0.1}
train: {epochs: 2, batch_size: 8, precision: float32, device: cpu, monitor: val.dice.pooled}
evaluate: {metrics: [dice], overlays: 1}
"""
"""With BatchNorm everywhere, and a loss over the batch. 16 images train, in batches of 8."""


@pytest.fixture(autouse=True)
def _a_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))


def of_two(folder, *overrides, text, **more):
    """Run a recipe in two processes and gives the run's folder."""
    recipe = tiny_runs.write_recipe(folder, text)
    statuses, said = ended(start(2, "run", recipe, *overrides, "--out", folder / "two", out=folder / "said", **more))
    assert statuses == [0, 0], said
    (path,) = (folder / "two" / "tiny").iterdir()
    return path


def assert_same_weights(file, other):
    (mine, _), (theirs, _) = read_weights(file), read_weights(other)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, theirs[name], atol=1e-5, rtol=1e-4, msg=lambda text, of=name: f"{of} {text}")


def test_gradients_of_several_batches_clipped_frozen_and_averaged_weights_are_those_of_one(tmp_path):
    # 13 images in batches of 4, 4 and 5, of which the first two make one step and the last one another.
    settings = ["train.batch_size=4", "train.accumulate=2", "train.ema=0.9", "train.clip_gradient_norm=0.05",
                "train.freeze_encoder_epochs=1", "train.epochs=3", "input.normalize=dataset"]  # fmt: skip
    two = of_two(tmp_path, *settings, text=RECIPE)
    one = tiny_runs.run(tmp_path, *settings, text=RECIPE)
    assert segreg.load_run(two).recipe.input == one.recipe.input
    assert one.recipe.input.mean
    assert_same_training(history.read(two), one.history)
    assert_same_weights(two / "last.safetensors", one.directory.last)


def test_a_batch_shared_by_two_is_two_batches_of_one_that_make_a_step(tmp_path):
    """Then BatchNorm and Dice see what they see in each process, by way of other lines."""
    two = of_two(tmp_path, text=NORMALISED)
    one = tiny_runs.run(tmp_path, "train.batch_size=4", "train.accumulate=2", text=NORMALISED)
    for row, its in zip(history.read(two), one.history, strict=True):
        for name in ("train.loss", "lr.encoder"):
            assert row[name] == pytest.approx(its[name], abs=1e-5), name
    of_statistics = ("running_mean", "running_var", "num_batches_tracked")
    (mine, _), (its, _) = read_weights(two / "last.safetensors"), read_weights(one.directory.last)
    for name in mine:
        same = torch.allclose(mine[name].float(), its[name].float(), atol=1e-5)
        assert same != name.endswith(of_statistics), name


def test_a_decoders_own_losses_train_in_two_processes(tmp_path):
    """Points are drawn by each process alone; what they then have in common is the weights that came out.

    Where no device is named, they agree on it.
    """
    decoder = "{name: mask_transformer, queries: 3, layers: 2, channels: 8, heads: 2, feedforward: 8, points: 32}"
    settings = [f"decoder={decoder}", "train.epochs=1", "train.device=auto"]
    path = of_two(tmp_path, *settings, text=NORMALISED, CUDA_VISIBLE_DEVICES="")
    (row,) = history.read(path)
    weighted = 2 * row["train.loss.class"] + 5 * (row["train.loss.mask_bce"] + row["train.loss.mask_dice"])
    assert row["train.loss"] == pytest.approx(weighted, rel=1e-5)
    recipe = resolve(loaded(tmp_path, f"decoder={decoder}"), load_registry())
    with Assembly.of(recipe, Quiet()) as assembly:
        first = assembly.objective.model.state_dict()
    last, _ = read_weights(path / "last.safetensors")
    assert all(not torch.equal(first[name], value) for name, value in last.items() if value.ndim > 1)


def test_statistics_are_those_of_the_main_processs_share_and_it_is_they_that_are_judged(tmp_path, segreg):
    path = of_two(tmp_path, "train.epochs=1", "train.batch_size=16", text=NORMALISED)  # one step
    recipe = resolve(loaded(tmp_path, "train.batch_size=8"), load_registry())
    with Assembly.of(recipe, Quiet()) as assembly:
        share = next(iter(assembly.train.epoch(1)))
        assembly.objective.train()(share.images, share.targets)
        expected = dict(assembly.objective.model.named_buffers())
    saved, _ = read_weights(path / "best.safetensors")
    means = [name for name in expected if name.endswith("running_mean")]
    assert len(means) > 10
    for name in means:
        torch.testing.assert_close(saved[name], expected[name], atol=1e-5, rtol=1e-4)
    reported = segreg("evaluate", path, "--split", "val", "--out", tmp_path / "alone", "--json")
    assert reported.status == 0, reported.err
    (row,) = history.read(path)
    alone = json.loads(reported.out)["metrics"]["val"]
    assert row["val.dice.pooled"] == pytest.approx(alone["dice.pooled"], abs=1e-12)


def loaded(folder, *overrides):
    return segreg.load_recipe(folder / "tiny.yaml", overrides)


# several machines


def test_two_processes_on_two_machines(python, tmp_path):
    recipe = tiny_runs.write_recipe(tmp_path, RECIPE)
    out = tmp_path / "said"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = ["--master-addr=127.0.0.1", f"--master-port={free.getsockname()[1]}"]
    with out.open("w") as file:
        launched = [
            subprocess.Popen(
                [*python, "-m", "torch.distributed.run", "--nnodes=2", f"--node-rank={node}", "--nproc-per-node=1",
                 *place, "-m", "segreg", "run", recipe, "train.epochs=1", "--out", tmp_path / "runs"],
                stdout=file, stderr=file, env={**os.environ, "PYTHON_EXEC": python[0], "OMP_NUM_THREADS": "1"},
            )
            for node in range(2)
        ]  # fmt: skip
    assert [process.wait(400) for process in launched] == [0, 0], out.read_text()
    said = out.read_text()
    assert "processes  2 on 2 machines, which share each batch of 11\n" in said
    assert said.count("everything is in ") == 1
    (path,) = (tmp_path / "runs" / "tiny").iterdir()
    assert json.loads((path / "environment.json").read_text())["processes"]["nodes"] == 2
    one = tiny_runs.run(tmp_path, "train.epochs=1", text=RECIPE)
    assert_same_training(history.read(path), one.history)


def test_a_device_is_by_the_number_on_the_own_machine(monkeypatch):
    monkeypatch.setattr(distributed, "count", lambda: 16)
    monkeypatch.setattr(distributed, "rank", lambda: 11)
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(distributed, "gathered", lambda value: [value] * 16)
    assert distributed.own_device("auto") == "cuda:3"


@pytest.mark.parametrize(("others", "device"), [(["b", "c", ""], "cuda:0"), (["b", "a", "c"], "cuda:3")])
def test_a_process_that_sees_one_gpu_takes_it_where_no_other_has_the_same(others, device, monkeypatch):
    monkeypatch.setattr(distributed, "count", lambda: 4)
    monkeypatch.setattr(distributed, "rank", lambda: 3)
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: SimpleNamespace(uuid="a"))
    monkeypatch.setattr(distributed, "gathered", lambda value: [*others, value])
    assert [distributed.own_device(name) for name in ("auto", "cuda")] == [device, device]


# what is for one process


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (("evaluate", "runs/there"), "evaluate"),
        (("predict", "runs/there", "photos", "--out", "predicted"), "predict"),
        (("list", "loss"), "list"),
    ],
)
def test_a_command_for_one_process_is_refused_once(arguments, command, tmp_path):
    statuses, said = ended(start(2, *arguments, out=tmp_path / "said"))
    assert statuses == [2, 2]
    assert said == (
        f"error: segreg {command} is for one process, and torchrun started 2\n"
        '  leave torchrun out; several processes share "segreg run" alone\n'
    )


def test_a_mistake_on_the_command_line_is_reported_once(tmp_path):
    statuses, said = ended(start(2, "run", "one.yaml", "two.yaml", out=tmp_path / "said"))
    assert statuses == [2, 2]
    assert said == "error: run takes one recipe; these are 2\n"
