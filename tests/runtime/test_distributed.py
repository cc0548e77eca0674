"""Several processes on one run: what one process gets, they get; who fails or is stopped ends all, told once."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import segreg
import tiny_runs
from segreg.config.resolve import resolve
from segreg.errors import SegregError
from segreg.evaluation.counts import read_sums
from segreg.evaluation.scores import in_batch_order
from segreg.registry.registry import load_registry
from segreg.runs.assembly import Assembly
from segreg.runs.run import resume_run
from segreg.runtime import distributed
from segreg.runtime.progress import Quiet
from segreg.task import Task
from segreg.training import history
from segreg.training.setup import synchronise_batch_norm
from segreg.training.trainer import reached

RECIPE = """\
seed: 3
dataset: {name: synthetic_lesions, root: images, samples: 23, size: 40}
split: {method: random, val: 0.2, test: 0.2}
input: {size: [64, 64]}
augment: [{name: HorizontalFlip, p: 0.5}]
encoder: timm/test_convnext
decoder: {name: smp.fpn, pyramid_channels: 16, channels: 32, dropout: 0.0}
loss: bce
optimizer: {name: sgd, lr: 0.1}
train: {epochs: 3, batch_size: 11, precision: float32, device: cpu}
evaluate: {metrics: [dice, iou, accuracy, roc_auc, boundary_iou], batch_size: 2, overlays: 2}
"""
"""Without BatchNorm, dropout or a loss that is not a mean over pixels. 13 images train, in batches of 11 and 2."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(autouse=True)
def _one_cache(folder, monkeypatch):
    monkeypatch.setenv("SEGREG_CACHE", str(folder / "cache"))


@pytest.fixture(scope="module")
def one(folder):
    """A run of one process, of three epochs."""
    return tiny_runs.run(folder, text=RECIPE)


@pytest.fixture(scope="module")
def two(folder, one):
    """The same of two processes, of two epochs, and what it said."""
    arguments = ["run", folder / "tiny.yaml", "train.epochs=2", "--out", folder / "two"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SEGREG_CACHE", str(folder / "cache"))
        statuses, said = ended(start(2, *arguments, out=folder / "said", options={"drawn": True}))
    assert statuses == [0, 0], said
    (path,) = (folder / "two" / "tiny").iterdir()
    return segreg.load_run(path), said


def start(count, *arguments, out, **more):
    """Start a command in `count` processes as torchrun does; all write to one file."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(count):
        variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1",
                     "MASTER_PORT": port, "OMP_NUM_THREADS": 1}  # fmt: skip
        named = {name: str(value) for name, value in variables.items()}
        started.append(tiny_runs.process(*arguments, out=out, **more, **named))
    return started, out


def ended(running):
    """Return the exit statuses of processes and what they said."""
    started, out = running
    for process in started:
        process.join(400)
        assert not process.is_alive(), out.read_text()
    return [process.exitcode for process in started], out.read_text()


def wait_for(out, words, processes=()):
    end = time.monotonic() + 300
    while words not in (out.read_text() if out.exists() else ""):
        assert time.monotonic() < end, "it did not come"
        assert all(process.is_alive() for process in processes), out.read_text()
        time.sleep(0.02)


def assert_same_training(rows, other, *, within=1e-5):
    assert len(rows) == len(other)
    for row, its in zip(rows, other, strict=True):
        assert row.keys() == its.keys()
        for name in row:
            if name.startswith(("seconds", "images_per_second")):
                continue
            assert row[name] == pytest.approx(its[name], abs=within, nan_ok=True), name


def test_two_processes_train_as_one_does(one, two):
    run, said = two
    assert_same_training(run.history, one.history[:2])
    assert "processes  2 on 1 machine, which share each batch of 11\n" in said
    reported = json.loads(run.directory.environment.read_text())["processes"]
    assert (reported["count"], reported["nodes"]) == (2, 1)
    assert json.loads(one.directory.environment.read_text())["processes"] == {"count": 1, "nodes": 1, "launch": ""}


def test_two_processes_train_a_part_of_the_encoder_as_one_does(folder):
    lora, tricks = "encoder={name: timm/test_convnext, lora: {rank: 2, targets: [fc1, fc2]}}", "optimizer.lr=0.01"
    overrides = [lora, "optimizer=adamw", tricks, "train.layer_decay=0.8", "train.checkpoint_activations=true"]
    overrides += ["train.epochs=1"]
    alone = tiny_runs.run(folder, *overrides, text=RECIPE)
    arguments = ["run", folder / "tiny.yaml", *overrides, "--out", folder / "two of a part", "--quiet"]
    statuses, said = ended(start(2, *arguments, out=folder / "said of a part"))
    assert statuses == [0, 0], said
    (path,) = (folder / "two of a part" / "tiny").iterdir()
    assert_same_training(history.read(path), alone.history)


def test_one_of_them_writes_and_tells(two):
    run, said = two
    leaves = {file.name for file in run.directory.path.iterdir()}
    assert leaves == tiny_runs.LEAVES | {"roc_pr_curves.png", "sums.npz"}
    assert [row["epoch"] for row in run.history] == [1, 2]
    assert len(said.split("epoch 2/2  train.loss")) == 2
    assert len(said.split("everything is in ")) == 2


def test_two_processes_score_the_same_weights_as_one_does(two, folder, segreg):
    run, _ = two
    reported = segreg("evaluate", run.directory.path, "--out", folder / "alone", "--json")
    assert reported.status == 0, reported.err
    alone = json.loads(reported.out)["metrics"]["test"]
    own = run.results["metrics"]["test"]
    assert own.keys() == alone.keys()
    for name, value in alone.items():
        assert own[name] == pytest.approx(value, abs=1e-12), name
    for name in ("per_image.csv", "counts.csv"):  # 5 images in 3 batches, 3 images to one and 2 to the other
        assert (run.directory.path / name).read_text() == (folder / "alone" / name).read_text()
    (ids, mine), (same, its) = (read_sums(path / "sums.npz") for path in (run.directory.path, folder / "alone"))
    assert ids == same
    assert mine.keys() == its.keys() == {"boundary_iou"}
    np.testing.assert_array_equal(mine["boundary_iou"], its["boundary_iou"])
    with run.directory.per_image.open() as file:
        assert [row["id"] for row in csv.DictReader(file)] == json.loads(run.directory.split.read_text())["test"]


def longer(path, to, epochs):
    """Copy a run, for more epochs."""
    shutil.copytree(path, to)
    resolved = to / "resolved.yaml"
    text = re.sub(r"epochs: \d+", f"epochs: {epochs}", resolved.read_text(), count=1)
    resolved.write_text(text)
    return to


def test_one_goes_on_with_what_two_began(one, two, folder):
    path = longer(two[0].directory.path, folder / "two then one", 3)
    # Sums in another order: by the third epoch the losses are 1.2e-5 and some pixels apart on some CPUs.
    assert_same_training(resume_run(path, load_registry()).history, one.history, within=1e-3)


def test_three_go_on_with_what_one_began(one, folder):
    begun = tiny_runs.run(folder, "train.epochs=1", text=RECIPE)
    path = longer(begun.directory.path, folder / "one then three", 3)
    # In the last batch, of two images, the third process has none.
    statuses, said = ended(start(3, "run", "--resume", path, "--quiet", out=folder / "three"))
    assert statuses == [0, 0, 0], said
    assert_same_training(history.read(path), one.history)
    environment = json.loads((path / "environment.json").read_text())
    assert (environment["processes"]["count"], environment["previous"][0]["processes"]["count"]) == (3, 1)


def failing_in_the_second(arguments, out, variables):
    """Run a command of which the process of rank 1 finds something wrong in its second epoch."""
    from segreg.training import trainer as train

    looks = train.check_finite

    def check_finite(objective, epoch):
        looks(objective, epoch)
        if epoch == 2 and distributed.rank() == 1:
            raise SegregError("the second process met something", hint="look at it")

    train.check_finite = check_finite
    tiny_runs.command(arguments, out, variables)


def test_what_one_process_finds_wrong_ends_all_and_is_reported_once(one, folder):
    arguments = ["run", folder / "tiny.yaml", "--out", folder / "failed"]
    statuses, said = ended(start(2, *arguments, out=folder / "wrong", target=failing_in_the_second))
    assert statuses == [2, 2], said
    assert said.endswith("error: the second process met something\n  look at it\n")
    assert said.count("error") == 1
    assert "Traceback" not in said


def test_a_mistake_that_all_meet_is_reported_once(folder):
    statuses, said = ended(start(2, "run", folder / "nothing.yaml", out=folder / "mistake"))
    assert statuses == [2, 2]
    assert said.count("error: ") == 1
    assert "nothing.yaml" in said


def test_a_signal_to_one_process_stops_all_at_one_batch(one, folder):
    arguments = ["run", folder / "tiny.yaml", "train.epochs=5000", "--out", folder / "stopped"]
    running = start(2, *arguments, out=folder / "signal")
    wait_for(running[1], "epoch 2/5000  train.loss", running[0])
    os.kill(running[0][1].pid, signal.SIGINT)
    statuses, said = ended(running)
    (path,) = (folder / "stopped" / "tiny").iterdir()
    assert statuses == [130, 130], said
    assert said.splitlines()[-1].endswith(f"Go on with: segreg run --resume {path}")
    assert said.count("Go on with") == 1
    assert "Traceback" not in said
    assert segreg.load_run(path).results["stopped_because"] == "interrupted"


def soon_gone(arguments, out, variables):
    """Run a command whose main process does not wait long for another to say that it knows."""
    distributed.GRACE_SECONDS = 0.0
    tiny_runs.command(arguments, out, variables)


def test_a_process_that_is_killed_ends_the_others(one, folder):
    arguments = ["run", folder / "tiny.yaml", "train.epochs=5000", "--out", folder / "killed"]
    running = start(2, *arguments, out=folder / "kill", target=soon_gone)
    wait_for(running[1], "epoch 2/5000  train.loss", running[0])
    running[0][1].kill()
    statuses, said = ended(running)
    assert statuses == [2, -signal.SIGKILL], said
    assert "error: another process of this run ended without a word, or can't be reached\n" in said
    assert "Traceback" not in said


def workers_of(runs):
    """Return the two processes that torchrun has started for runs in this folder."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended since
            words = file.read_text()
            if str(runs) in words and "torch.distributed.run" not in words:
                found.append(int(file.parent.name))
    assert len(found) == 2
    return sorted(found)


@pytest.mark.slow
def test_torchrun_starts_them_again_and_they_go_on(one, folder, python):
    out, runs = folder / "torchrun", folder / "again"
    with out.open("w") as file:
        started = subprocess.Popen(
            [*python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
             "--max-restarts", "1", "-m", "segreg", "run", folder / "tiny.yaml", "train.epochs=5", "--out", runs],
            stdout=file, stderr=file, env={**os.environ, "PYTHON_EXEC": python[0], "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    wait_for(out, "epoch 2/5  train.loss")
    os.kill(workers_of(runs)[-1], signal.SIGKILL)
    assert started.wait(400) == 0, out.read_text()
    (path,) = (runs / "tiny").iterdir()
    assert [row["epoch"] for row in history.read(path)] == list(range(1, 6))
    environment = json.loads((path / "environment.json").read_text())
    assert environment["processes"]["count"] == 2
    assert len(environment["previous"]) == 1


# what needs no second process


def test_alone_nothing_is_asked_of_others(tmp_path):
    assert not distributed.launched()
    assert (distributed.count(), distributed.rank(), distributed.is_main()) == (1, 0, True)
    assert distributed.gathered("a") == ["a"]
    assert distributed.any_of(True, False) == (True, False)
    assert distributed.own_device("cuda:1") == "cuda:1"
    with distributed.processes(), distributed.one_of_each_node_first():
        assert not torch.distributed.is_initialized()


def test_a_device_is_each_processs_own(monkeypatch):
    monkeypatch.setattr(distributed, "count", lambda: 2)
    monkeypatch.setattr(distributed, "local_rank", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(distributed, "gathered", lambda value: [value] * 2)
    assert [distributed.own_device(name) for name in ("auto", "cuda", "cpu")] == ["cuda:1", "cuda:1", "cpu"]
    with pytest.raises(SegregError) as caught:
        distributed.own_device("cuda:1")
    assert str(caught.value) == (
        'train.device: 2 processes can\'t compute on "cuda:1"\n'
        '  "auto" and "cuda" give each process a GPU of its own; "cpu" works too'
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert distributed.own_device("auto") == "cpu"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "train.batch_size=1",
            (
                "train.batch_size: 1 image can't be shared by 2 processes\n"
                "  it is the batch of all processes together; each needs one image at least"
            ),
        ),
        (
            "train.batch_size=3 batch_augment=cutmix",
            (
                "batch_augment mixes the images that one process has of a batch, and of 3 some of 2 processes have "
                "one\n  train.batch_size is the batch of all processes together"
            ),
        ),
        (
            "train.sync_batch_norm=true",
            (
                'train.sync_batch_norm needs GPUs: PyTorch has no such BatchNorm for "cpu"\n'
                "  leave it out; each process then normalises with the statistics of its own share of the batch"
            ),
        ),
        (
            "train.sync_batch_norm=true batch_augment=mixup decoder=mask_transformer",
            (
                "train.sync_batch_norm: mixed batches differ from process to process, and a decoder with losses of its "
                "own sees some of them twice, so that processes would wait for each other for ever\n"
                "  leave out batch_augment or train.sync_batch_norm"
            ),
        ),
    ],
)
def test_what_several_processes_cannot_do_is_refused(override, words, one, folder, monkeypatch):
    monkeypatch.setattr("segreg.runs.assembly.count", lambda: 2)
    recipe = segreg.load_recipe(folder / "tiny.yaml", override.split())
    with pytest.raises(SegregError) as caught:
        Assembly.of(resolve(recipe, load_registry()), Quiet())
    assert str(caught.value) == words


def test_synchronised_batch_norm_keeps_names_and_numbers():
    import timm

    network = timm.create_model("test_resnet").eval()
    image = torch.randn(2, 3, 32, 32)
    before, names = network(image), list(network.state_dict())
    kinds = {type(module) for module in network.modules()}
    synchronise_batch_norm(network, torch.device("cuda"))
    assert list(network.state_dict()) == names
    assert {type(module) for module in network.modules()} != kinds
    assert any(isinstance(module, nn.SyncBatchNorm) for module in network.modules())
    torch.testing.assert_close(network(image), before)


class Doubled(nn.BatchNorm2d):
    """A BatchNorm of a plugin's own."""

    def forward(self, input):
        return 2 * super().forward(input)


def test_a_batch_norm_that_would_compute_something_else_is_refused():
    network = nn.Sequential(nn.BatchNorm1d(4), nn.BatchNorm2d(4), nn.BatchNorm3d(4), Doubled(4))
    with pytest.raises(SegregError) as caught:
        synchronise_batch_norm(network, torch.device("cuda"))
    assert str(caught.value) == "train.sync_batch_norm: test_distributed.Doubled can't be synchronised"
    synchronise_batch_norm(network[:3], torch.device("cuda"))


def test_parameters_that_a_loss_reaches():
    used, unused = nn.Linear(3, 3), nn.Linear(3, 3)
    used.bias.requires_grad_(False)
    loss = used(torch.ones(1, 3)).relu().sum() + 0 * unused.weight.detach().sum()
    assert reached(loss) == {used.weight}


def test_logits_that_others_kept_are_ranked_as_if_one_had_kept_them(monkeypatch):
    from segreg_plugins.metrics import curves
    from segreg_plugins.metrics.builders import roc_auc

    task = Task(("a", "b"), "multilabel")
    draw = torch.Generator().manual_seed(0)
    parts = [(torch.randn(n, 2, 8, 8, generator=draw), torch.randint(0, 2, (n, 2, 8, 8), generator=draw))
             for n in (3, 1, 2)]  # fmt: skip
    whole = roc_auc(task, 0.5)
    whole.update(torch.cat([logits for logits, _ in parts]), torch.cat([target for _, target in parts]))
    expected = whole.compute()
    for most in (1 << 21, 300, 0):  # none counts, the first one does and all together do, all do
        monkeypatch.setattr(curves, "MOST_KEPT", most)
        metrics = []
        for logits, target in parts:
            metrics.append(roc_auc(task, 0.5))
            metrics[-1].update(logits, target)
        metrics[0].merge_state(metrics[1])
        metrics[0].merge_state(dict(metrics[2].metric_state))
        for name, value in metrics[0].compute().items():
            assert float(value) == pytest.approx(float(expected[name]), abs=1e-12 if most > 300 else 1e-3), name
        monkeypatch.undo()


def test_rows_of_batches_that_were_dealt_come_in_the_images_order(monkeypatch):
    dealt = [([2, 1], ["a", "b", "e"]), ([2], ["c", "d"]), ([], [])]
    found = [
        (lengths, [{"id": name} for name in names], {"c": np.array([[ord(name)] for name in names]) if names else None})
        for lengths, names in dealt
    ]
    monkeypatch.setattr(distributed, "count", lambda: 3)
    monkeypatch.setattr(distributed, "gathered", lambda own: found)
    rows, blocks = in_batch_order(*found[0])
    assert [row["id"] for row in rows] == list("abcde")
    assert blocks["c"].tolist() == [[ord(name)] for name in "abcde"]
