"""Runs that train a part of their encoder: what they save and note, how they go on, start, and are exported."""

from __future__ import annotations

import copy
import json
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

import segreg
import small_runs
import tiny_runs
from segreg.config.sections import Train
from segreg.errors import SegregError
from segreg.registry.registry import load_registry
from segreg.runs.push import pack
from segreg.runs.run import resume_run
from segreg.training.finetune import start_from
from segreg.training.groups import build_optimizer
from segreg_plugins.optimizers import from_torch

RECIPE = (
    tiny_runs.RECIPE.replace("timm/test_resnet", "{name: timm/test_vit, lora: {rank: 4}}")
    .replace("{name: deeplabv3plus, channels: 16}", "torchvision.fcn")
    .replace("{name: adam, lr: 0.01}", "{name: adamw, lr: 0.01}")
    .replace("samples: 24", "samples: 12")
    .replace("overlays: 2", "overlays: 0")
    .replace("{epochs: 6", "{epochs: 2, layer_decay: 0.8, freeze_encoder_epochs: 1, ema: 0.9")
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("finetuning")


@pytest.fixture(autouse=True)
def _one_cache(folder, monkeypatch):
    monkeypatch.setenv("SEGREG_CACHE", str(folder / "cache"))


@pytest.fixture(scope="module")
def finished(folder):
    return tiny_runs.run(folder, text=RECIPE)


def test_what_is_trained_is_noted_and_saved_beside_the_whole(finished):
    model, directory = finished.model(), finished.directory
    trained = {name for name, p in model.named_parameters() if ".lora_" in name or not name.startswith("encoder.")}
    parameters = json.loads(directory.environment.read_text())["model"]["parameters"]
    assert parameters["trained"] == sum(p.numel() for name, p in model.named_parameters() if name in trained)
    adapter, best = load_file(directory.adapter), load_file(directory.best)
    assert {name for name in adapter if name in dict(model.named_parameters())} == trained
    assert all(torch.equal(best[name], value) for name, value in adapter.items())
    assert directory.adapter.stat().st_size < directory.best.stat().st_size / 5
    rates = [(row["lr.encoder"], row["lr.decoder"]) for row in finished.history]
    assert rates == [(pytest.approx(0.008), 0.01)] * 2
    frozen = {name: t for name, t in best.items() if name.endswith("qkv.frozen.weight")}
    assert len(frozen) == 6


def test_it_goes_on_bit_for_bit_and_with_checkpointed_activations_too(finished, folder):
    begun = tiny_runs.run(folder, "train.epochs=1", "train.checkpoint_activations=true", text=RECIPE)
    longer = resume_run(begun.directory.path, load_registry(), overrides=["train.epochs=2"])
    once, twice = (load_file(run.directory.last) for run in (finished, longer))
    assert all(torch.equal(once[name], twice[name]) for name in once)


def network(folder, *overrides):
    return segreg.build_model(tiny_runs.write_recipe(folder, RECIPE), overrides)


def logits(model):
    image = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    with torch.no_grad():
        return model.eval()(image)


def test_another_training_starts_from_it(finished, folder):
    expected, directory, task = logits(finished.model()), finished.directory, finished.task
    lora, plain, other_rank = (network(folder, *one) for one in ([], ["encoder.lora=null"], ["encoder.lora.rank=2"]))
    for untouched in (plain, other_rank):  # the changes are merged
        whole = copy.deepcopy(untouched)
        start_from(whole, directory.path, "model", task)
        torch.testing.assert_close(logits(whole), expected, rtol=1e-4, atol=1e-4)
        with pytest.raises(SegregError, match="was trained beside other weights than this network has"):
            start_from(untouched, directory.adapter, "model", task)
    for file in (directory.path, directory.adapter):  # the frozen weights are those of the same seed
        again = copy.deepcopy(lora)
        start_from(again, file, "model", task)
        assert torch.equal(logits(again), expected)
    torch.save(plain.state_dict(), folder / "plain.pt")
    start_from(again, folder / "plain.pt", "model", task)
    weights = {name.replace(".frozen", ""): value for name, value in again.state_dict().items()}
    assert all(torch.equal(weights[name], value) for name, value in plain.state_dict().items())
    lora.encoder.network.model.blocks[0].attn.proj.frozen.weight.data *= 2
    with pytest.raises(SegregError, match="was trained beside other weights than this network has"):
        start_from(lora, directory.adapter, "model", task)


def test_what_is_published_has_its_changes_merged(finished, tmp_path):
    pack(finished, "someone/lesions", tmp_path / "hub")
    published = segreg.load_run(tmp_path / "hub")
    assert published.recipe.encoder.beside.lora is None
    torch.testing.assert_close(logits(published.model()), logits(finished.model()), rtol=1e-4, atol=1e-4)


def test_it_overfits_eight_images(folder):
    model = network(folder)
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    optimizer = build_optimizer(model, Train(layer_decay=0.8), partial(from_torch.build, "AdamW", lr=0.01))
    # Which quarters of an image of noise are foreground must be learnt by heart.
    quarters = torch.tensor([[number >> place & 1 for place in range(4)] for number in range(3, 11)]).float()
    truth = quarters.view(8, 1, 2, 2).repeat_interleave(16, 2).repeat_interleave(16, 3)
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model.train()
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(model(images), truth).backward()
        optimizer.step()
    found = (model.eval()(images) > 0).float()
    assert 2 * (found * truth).sum() / (found.sum() + truth.sum()) > 0.95
    assert all(torch.equal(p, frozen[name]) for name, p in model.named_parameters() if name in frozen)
    assert all(p.abs().max() > 0.001 for name, p in model.named_parameters() if name.endswith("lora_b"))


def test_a_run_that_an_earlier_segreg_began_continues_with_weight_decay_for_everything(three_convolutions, tmp_path):
    """Its recipe does not know of what is excluded; its optimizer has a group for each component."""
    text = small_runs.RECIPE.replace("{name: adam, lr: 0.01}", "{name: adamw, lr: 0.01}")
    run = small_runs.run(tmp_path, "train.epochs=1", "optimizer.exclude_from_weight_decay=false", text=text)
    written = run.directory.resolved.read_text()
    run.directory.resolved.write_text(written.replace("  exclude_from_weight_decay: false\n", ""))
    assert run.directory.resolved.read_text() != written
    with tiny_runs.undrawn():
        segreg.resume(run, {"train.epochs": 2}, progress="quiet")
    groups = torch.load(run.directory.path / "state.pt", weights_only=True)["optimizer"]["param_groups"]
    assert [(group["name"], group["weight_decay"]) for group in groups] == [
        ("encoder", 0.01), ("decoder", 0.01), ("head", 0.01)
    ]  # fmt: skip
    assert "exclude_from_weight_decay: false" in run.directory.resolved.read_text()
