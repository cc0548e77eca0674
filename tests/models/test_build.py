"""Building what a recipe names, and refusing parts that are not what their kind promises."""

from __future__ import annotations

import pytest
import torch

import plugged
import tiny_runs
from segreg.config.recipe import read_recipe
from segreg.config.resolve import resolve
from segreg.errors import SegregError
from segreg.models import build
from segreg.registry.registry import load_registry
from segreg.task import Task

BINARY = Task(("lesion",), "binary")

STRANGERS = """
from pathlib import Path
from torch import nn
from segreg import Dataset, Entry, Sample, SegregError, Task, hookimpl
from segreg.settings import PositiveInt

def wrong_encoder(in_channels):
    '''No encoder.'''
    return nn.Conv2d(in_channels, 4, 3)

def liar(in_channels):
    '''An encoder that declares other channels than it gives.'''
    network = nn.Conv2d(in_channels, 4, 3, stride=2, padding=1)
    class Liar(nn.Module):
        channels, strides = (8,), (2,)
        def __init__(self):
            super().__init__()
            self.network = network
        def forward(self, image):
            return [self.network(image)]
    return Liar()

def flat(encoder):
    '''A decoder that gives no map.'''
    class Flat(nn.Module):
        channels, stride = 4, 4
        def forward(self, levels):
            return levels[0].new_zeros(1, 2)
    return Flat()

class Still(nn.Module):
    def __init__(self, image_size):
        super().__init__()
        self.channels, self.strides, self.image_size = (4,), (2,), image_size
        self.network = nn.Conv2d(3, 4, 2, stride=2)
    def forward(self, image):
        assert tuple(image.shape[2:]) == self.image_size
        return [self.network(image)]

def still(in_channels, *, img_size: tuple[PositiveInt, PositiveInt] | None = None):
    '''An encoder of one size that it is told.

    Args:
        img_size: the size.
    '''
    return Still(img_size or (48, 48))

def stubborn(in_channels, *, img_size: tuple[PositiveInt, PositiveInt] | None = None):
    '''An encoder of one size that it is told, a multiple of 20.

    Args:
        img_size: the size.
    '''
    if img_size and (img_size[0] % 20 or img_size[1] % 20):
        raise SegregError("a multiple of 20 was expected")
    return Still(img_size or (20, 40))

def square(in_channels, *, img_size: tuple[PositiveInt, PositiveInt] | None = None):
    '''An encoder of one size that it is told, a square.

    Args:
        img_size: the size.
    '''
    if img_size and img_size[0] != img_size[1]:
        raise SegregError("a square was expected")
    return Still(img_size or (48, 48))

def wrong_decoder(encoder):
    '''No decoder.'''
    return nn.Identity()

def wrong_loss(task):
    '''No loss.'''
    return "bce"

def wrong_dataset():
    '''No data set.'''
    return []

def doubled():
    '''A data set with an id twice.'''
    return Dataset(Task(("a",), "binary"), [Sample("one", Path("a")), Sample("one", Path("b"))], None, None)

def wrong_metric(task, threshold):
    '''No metric.'''
    return 0.5

def wrong_optimizer(parameter_groups):
    '''No optimizer.'''
    return None

def wrong_schedule(optimizer, steps_per_epoch, epochs):
    '''No schedule.'''
    return [0.1] * epochs

@hookimpl
def segreg_entries():
    return [
        Entry("encoder", "wrong", wrong_encoder), Entry("encoder", "liar", liar),
        Entry("encoder", "still", still), Entry("encoder", "stubborn", stubborn),
        Entry("encoder", "square", square),
        Entry("decoder", "wrong", wrong_decoder), Entry("decoder", "flat", flat), Entry("loss", "wrong", wrong_loss),
        Entry("dataset", "wrong", wrong_dataset), Entry("dataset", "doubled", doubled),
        Entry("metric", "wrong", wrong_metric), Entry("optimizer", "wrong", wrong_optimizer),
        Entry("schedule", "wrong", wrong_schedule),
    ]
"""


@pytest.fixture
def resolved(tmp_path, plugin):
    registry = load_registry([*plugged.builtin(), plugin(STRANGERS, distribution="segreg-strange", version="0.3")])

    def make(*overrides):
        return resolve(read_recipe(tiny_runs.write_recipe(tmp_path), overrides), registry)

    return make


def optimizer_of(recipe):
    return build.build_optimizer(recipe, [{"params": [torch.nn.Parameter(torch.zeros(2))], "name": "head"}])


WRONG = {
    "encoder=wrong": (lambda r: build.build_model(r, BINARY), "Conv2d", "an nn.Module with channels and strides"),
    "decoder=wrong": (lambda r: build.build_model(r, BINARY), "Identity", "an nn.Module with channels and stride"),
    "loss=wrong": (lambda r: build.build_losses(r, BINARY), "str", "a function of logits and target"),
    "dataset=wrong": (build.build_dataset, "list", "a segreg.Dataset"),
    "evaluate.metrics=wrong": (lambda r: build.build_metrics(r, BINARY), "float", "a torchmetrics.Metric"),
    "optimizer=wrong": (optimizer_of, "NoneType", "a torch.optim.Optimizer"),
    "schedule=wrong": (
        lambda r: build.build_schedule(r, optimizer_of(r), 3), "list", "a segreg.Schedule, with step and a state"
    ),
}  # fmt: skip


@pytest.mark.parametrize("override", WRONG)
def test_a_part_that_is_not_what_its_kind_promises_is_named(override, resolved):
    make, given, wanted = WRONG[override]
    kind = override.partition("=")[0].replace("evaluate.metrics", "metric")
    with pytest.raises(SegregError) as reported:
        make(resolved(override))
    lines = str(reported.value).splitlines()
    assert lines[0] == (
        f'command line: the {kind} "wrong" of segreg-strange 0.3 gave {given}, but it must give {wanted}'
    )
    assert lines[1].startswith("  defined at ")


def test_a_network_that_does_not_give_what_it_declares_is_refused(resolved):
    recipe = resolved("encoder=liar")
    with pytest.raises(SegregError) as reported:
        build.build_model(recipe, BINARY)
    assert str(reported.value) == (
        "command line: encoder Liar, level 1 of 1, declares 8 channels, but gives 4\n"
        f'  the encoder "liar" is defined at {recipe.encoder.part.offer.place} (segreg-strange 0.3)'
    )
    for setting, title in (("decoder", "decoder"), ("auxiliary", "auxiliary decoder")):
        recipe = resolved(f"{setting}=flat")
        with pytest.raises(SegregError) as reported:
            build.build_model(recipe, BINARY)
        place = recipe.decoder.part.offer.place if setting == "decoder" else recipe.auxiliary.part.offer.place
        assert str(reported.value) == (
            f"command line: {title} Flat gives [1, 2] where [B, C, H, W] was expected\n"
            f'  the decoder "flat" is defined at {place} (segreg-strange 0.3)'
        )


@pytest.mark.parametrize(
    ("encoder", "size", "built"),
    [
        ("{name: still}", "[64, 96]", (64, 96)),
        ("{name: still}", "[50, 70]", (64, 96)),
        ("{name: still}", "[48, 48]", (64, 64)),
        ("{name: still, img_size: [96, 96]}", "[64, 96]", (96, 96)),
        ("{name: square}", "[50, 70]", (96, 96)),
        ("{name: stubborn}", "[64, 96]", (160, 160)),
        ("{name: stubborn}", "[100, 170]", (160, 320)),
    ],
)
def test_an_encoder_of_one_size_is_built_for_the_recipes(resolved, encoder, size, built):
    recipe = resolved(f"encoder={encoder}", f"input.size={size}")
    assert build.build_trunk(recipe)[0].image_size == built
    assert build.build_model(recipe, BINARY).encoder.image_size == built


def test_an_id_twice_is_refused(resolved):
    with pytest.raises(SegregError, match='command line: the dataset "doubled" has two samples with the id "one"'):
        build.build_dataset(resolved("dataset=doubled"))


OURS = """
from segreg import Dataset, Entry, Sample, Task, hookimpl
from pathlib import Path

def ours():
    "A data set."
    return Dataset(Task(("a",), "binary"), [Sample("one", Path("a"))], None, None, reader="ours")

@hookimpl
def segreg_entries():
    return [Entry("dataset", "ours", ours)]
"""


def test_the_source_of_another_packages_dataset_is_part_of_its_reader(tmp_path, plugin):
    readers = []
    for text in (OURS, f"{OURS}# edited"):
        registry = load_registry([*plugged.builtin(), plugin(text, distribution="segreg-lab")])
        recipe = resolve(read_recipe(tiny_runs.write_recipe(tmp_path), ["dataset=ours"]), registry)
        readers.append(build.build_dataset(recipe).reader)
        assert recipe.dataset.part.plugin.digest in readers[-1]
    assert readers[0].startswith("ours (source ")
    assert readers[0] != readers[1]
    own = resolve(read_recipe(tiny_runs.write_recipe(tmp_path)), registry)
    assert "source" not in build.build_dataset(own).reader


def test_a_metric_twice_is_refused(resolved):
    with pytest.raises(SegregError, match='the metric "dice" is given twice'):
        build.build_metrics(resolved("evaluate.metrics=[dice, iou, {name: dice}]"), BINARY)


DOTTED = """
import torchmetrics
from segreg import Entry, hookimpl

class Seen(torchmetrics.MeanMetric):
    def update(self, logits, target):
        super().update(logits)

def seen(task, threshold):
    '''The mean logit.'''
    return Seen()

@hookimpl
def segreg_entries():
    return [Entry("metric", name, seen) for name in ("lab.seen", "lab_seen")]
"""


def test_a_metric_may_have_a_dot_in_its_name(tmp_path, plugin):
    registry = load_registry([*plugged.builtin(), plugin(DOTTED)])
    written = read_recipe(tiny_runs.write_recipe(tmp_path), ["evaluate.metrics=[lab.seen, lab_seen, iou]"])
    metrics = build.build_metrics(resolve(written, registry), BINARY)
    metrics.update(torch.full((1, 1, 2, 2), 3.0), torch.ones(1, 2, 2, dtype=torch.int64))
    values = metrics.compute()
    assert (values["lab_seen"], values["lab_seen_"], values["iou.pooled"]) == (3.0, 3.0, 1.0)


ALIKE = """
import torch
from torchmetrics import Metric
from segreg import Entry, hookimpl

class Beyond(Metric):
    def __init__(self, sign):
        super().__init__()
        self.sign = sign
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, logits, target):
        self.total += (self.sign * logits).clamp(min=0).sum()

    def compute(self):
        return self.total

def over(task, threshold):
    "Logits above 0."
    return Beyond(1)

def under(task, threshold):
    "Logits below 0."
    return Beyond(-1)

@hookimpl
def segreg_entries():
    return [Entry("metric", "over", over), Entry("metric", "under", under)]
"""


def test_metrics_of_others_are_not_taken_for_one_whose_first_image_scores_the_same(tmp_path, plugin):
    registry = load_registry([*plugged.builtin(), plugin(ALIKE)])
    written = read_recipe(tiny_runs.write_recipe(tmp_path), ["evaluate.metrics=[over, under, iou, dice]"])
    metrics = build.build_metrics(resolve(written, registry), BINARY)
    for logit in (0.0, 3.0):
        metrics.update(torch.full((1, 1, 2, 2), logit), torch.ones(1, 2, 2, dtype=torch.int64))
    values = metrics.compute()
    assert (values["over"], values["under"]) == (12.0, 0.0)
    assert ["dice", "iou"] in [sorted(names) for names in metrics.compute_groups.values()]


def test_losses_keep_their_order_names_and_weights(resolved):
    terms = build.build_losses(resolved("loss=[{name: dice, weight: 0.25}, bce]"), BINARY)
    assert [(name, weight) for name, weight, _ in terms] == [("dice", 0.25), ("bce", 1.0)]


@pytest.mark.parametrize(
    ("overrides", "mean", "std"),
    [
        (["input.normalize=imagenet"], (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        (["input.normalize=none"], (0, 0, 0), (1, 1, 1)),
        (["input.mean=[0.1, 0.2, 0.3]", "input.std=[1, 2, 3]"], (0.1, 0.2, 0.3), (1, 2, 3)),
        (["encoder=timm/test_resnet"], (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        (["encoder=resnet18"], (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        (["encoder=resnet18", "input.channels=1"], (0.449,), (0.226,)),
        (
            ["encoder=resnet18", "input.channels=5"],  # as the weights of its first layer are repeated
            (0.485, 0.456, 0.406, 0.485, 0.456),
            (0.229, 0.224, 0.225, 0.229, 0.224),
        ),
    ],
)
def test_statistics_are_those_asked_for(overrides, mean, std, resolved):
    recipe = resolved(*overrides)
    with torch.device("meta"):
        encoder = recipe.encoder.build(recipe.input.channels)
    normalize = build.build_normalize(recipe, encoder)
    assert normalize.mean.flatten().tolist() == pytest.approx(mean)
    assert normalize.std.flatten().tolist() == pytest.approx(std)


@pytest.mark.parametrize(
    ("overrides", "warned"),
    [
        (["input.channels=5"], True),
        (["input.channels=2"], True),
        (["encoder=timm/test_resnet", "input.channels=4"], True),
        (["input.channels=3"], False),
        (["input.channels=1"], False),
        (["input.channels=5", "input.normalize=none"], False),
        (["input.channels=5", "input.normalize=dataset"], False),
        (["input.channels=2", "input.mean=[0.1, 0.2]", "input.std=[1, 2]"], False),
    ],
)
def test_statistics_of_colours_for_other_bands_are_warned_of(overrides, warned, resolved):
    recipe = resolved("encoder=resnet18", *overrides)
    with torch.device("meta"):
        encoder = recipe.encoder.build(recipe.input.channels)
    warning = build.repeated_colours(recipe, encoder)
    assert bool(warning) == warned
    assert not warned or ("normalize: dataset" in warning and "input.mean and input.std" in warning)


def test_statistics_of_an_encoder_for_bands_are_not_warned_of(resolved):
    encoder = torch.nn.Identity()
    encoder.normalization = ((0.1, 0.2, 0.3, 0.4), (1, 2, 3, 4))
    assert not build.repeated_colours(resolved("input.channels=4"), encoder)
    assert "red, green and blue" in build.repeated_colours(resolved("input.channels=4"), torch.nn.Identity())


def test_an_encoder_that_names_no_statistics_has_imagenets(resolved):
    normalize = build.build_normalize(resolved(), torch.nn.Identity())
    assert normalize.mean.flatten().tolist() == pytest.approx((0.485, 0.456, 0.406))


def test_without_pretrained_weights_everything_else_is_the_same(resolved):
    recipe = resolved(
        "encoder={name: resnet18, weights: imagenet}",
        "decoder={name: torchvision.deeplabv3, weights: some.pth}",
        "auxiliary={name: torchvision.fcn, weights: some.pth, weight: 0.3}",
    )
    plain = build.without_pretrained(recipe)
    for part in (plain.encoder, plain.decoder, plain.auxiliary):
        assert part.settings["weights"] is None
    assert plain.auxiliary.weight == 0.3
    assert recipe.encoder.settings["weights"] == "imagenet"
    assert build.without_pretrained(resolved()).plain() == resolved().plain()


def test_an_optimizer_takes_copies_of_the_groups(resolved):
    group = {"params": [torch.nn.Parameter(torch.zeros(2))], "name": "head"}
    optimizer = build.build_optimizer(resolved(), [group])
    assert optimizer.param_groups[0]["lr"] == 0.01
    assert group.keys() == {"params", "name"}


def test_without_a_schedule_there_is_none(resolved):
    recipe = resolved()
    assert build.build_schedule(recipe, optimizer_of(recipe), 4) is None
