"""mask_transformer: matching, points, losses and scores against plain formulas; masks in attention; whole runs."""

from __future__ import annotations

import itertools
import signal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.export import Dim

import segreg
import tiny_runs
from segreg.errors import SegregError
from segreg.models.segmenter import Segmenter
from segreg.task import Task
from segreg.training.groups import undecayed
from segreg_plugins.decoders import mask_head, mask_matching
from segreg_plugins.decoders.mask_head import MaskHead, class_loss
from segreg_plugins.decoders.mask_matching import match, pair_costs
from segreg_plugins.decoders.mask_points import of_segments, uncertain_points
from segreg_plugins.decoders.mask_segments import Segments
from segreg_plugins.decoders.mask_transformer import mask_transformer
from segreg_plugins.decoders.mask_transformer_network import Layer, masked_share, sine_positions
from small_runs import encoder as three_convolutions

SMALL = {"queries": 6, "layers": 3, "channels": 16, "heads": 2, "feedforward": 32, "points": 64}
MULTICLASS, BINARY = Task(("a", "b", "c"), "multiclass"), Task(("a",), "binary")
MULTILABEL = Task(("a", "b"), "multilabel")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


class Levels(nn.Module):
    channels, strides = (8, 8, 8, 8), (4, 8, 16, 32)

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 1)

    def forward(self, image):
        return [F.avg_pool2d(self.convolution(image), stride, ceil_mode=True) for stride in self.strides]


def network(task=MULTICLASS, **settings):
    encoder = Levels()
    return Segmenter(encoder, mask_transformer(encoder, **{**SMALL, **settings}), task)


def pixel_centres(height, width):
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([(columns + 0.5) / width, (rows + 0.5) / height], dim=2).flatten(0, 1)


class TestSegments:
    def test_each_class_that_an_image_shows_is_one(self):
        targets = torch.tensor([[[0, 2], [2, 255]], [[255, 255], [255, 255]], [[1, 1], [1, 1]]])
        segments = Segments.of(targets, 3, overlapping=False)
        assert segments.image.tolist() == [0, 0, 2]
        assert segments.label.tolist() == [0, 2, 1]
        assert segments.counts == [2, 0, 1]
        truth, counts = segments.at(pixel_centres(2, 2).expand(3, -1, -1))
        assert truth.tolist() == [[1, 0, 0, 0], [0, 1, 1, 0], [1, 1, 1, 1]]
        assert counts.tolist() == [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1]]

    def test_labels_may_overlap_and_each_ignores_its_own_pixels(self):
        targets = torch.tensor([[[[1, 255]], [[1, 1]]], [[[0, 0]], [[0, 1]]]])
        segments = Segments.of(targets, 2, overlapping=True)
        assert (segments.image.tolist(), segments.label.tolist()) == ([0, 0, 1], [0, 1, 1])
        truth, counts = segments.at(pixel_centres(1, 2).expand(3, -1, -1))
        assert truth.tolist() == [[1, 0], [1, 1], [0, 1]]
        assert counts.tolist() == [[1, 0], [1, 1], [1, 1]]


class TestPoints:
    def test_a_map_at_a_point_is_the_mean_of_its_four_pixels_by_their_nearness(self):
        maps = torch.randn(2, 3, 5, 7)
        points = torch.rand(2, 3, 11, 2)
        found = of_segments(maps, points)
        padded = F.pad(maps, (1, 1, 1, 1), mode="replicate").numpy()
        for step, segment, point in itertools.product(range(2), range(3), range(11)):
            x, y = (points[step, segment, point] * torch.tensor([7, 5]) + 0.5).tolist()  # in pixels of the padded map
            left, top = int(x), int(y)
            u, v = x - left, y - top
            four = padded[step, segment, top : top + 2, left : left + 2]
            assert found[step, segment, point] == pytest.approx(
                np.array([1 - v, v]) @ four @ np.array([1 - u, u]), abs=1e-5
            )

    def test_three_quarters_are_where_a_mask_is_uncertain_and_count(self):
        # The logit is 0 on the line x = 1/2 and grows with the distance; the lower half is ignored.
        masks = (torch.arange(16) - 7.5).expand(1, 1, 16, 16).clone()
        targets = torch.zeros(1, 16, 16, dtype=torch.long)
        targets[:, 8:] = 255
        points = uncertain_points(masks, Segments.of(targets, 1, overlapping=False), 400)[0, 0]
        assert points.shape == (400, 2)
        chosen, random = points[:300], points[300:]
        assert (chosen[:, 1] < 0.5).all()
        # Of 1200 points the 300 nearest in the upper half: about every second of it, so within 1/4 of the line.
        assert 0.2 < (chosen[:, 0] - 0.5).abs().max() < 0.3
        assert (random[:, 0] - 0.5).abs().max() > 0.4
        assert random[:, 1].max() > 0.9


class TestMatching:
    def test_costs_are_those_of_a_plain_formula(self):
        probabilities, masks = torch.rand(2, 4, 3), torch.randn(2, 4, 9)
        counts = (torch.rand(3, 9) < 0.7).float()
        truth = (torch.rand(3, 9) < 0.5).float() * counts
        found = pair_costs(probabilities, masks, truth, counts)
        for step, query, segment in itertools.product(range(2), range(4), range(3)):
            kept = counts[segment].bool()
            logits, wanted = masks[step, query][kept], truth[segment][kept]
            entropy = F.binary_cross_entropy_with_logits(logits, wanted)
            inside = logits.sigmoid()
            dice = 1 - (2 * (inside * wanted).sum() + 1) / (inside.sum() + wanted.sum() + 1)
            expected = -2 * probabilities[step, query, segment] + 5 * entropy + 5 * dice
            assert found[step, query, segment] == pytest.approx(expected.item(), abs=1e-5)

    def test_it_finds_the_pairs_that_trying_all_of_them_finds(self, monkeypatch):
        costs = torch.randn(3, 5, 4)
        monkeypatch.setattr(mask_matching, "pair_costs", lambda *_: costs)
        targets = torch.arange(4).view(1, 2, 2)
        segments = Segments.of(targets, 4, overlapping=False)
        found = match(torch.zeros(1, 3, 5, 5), torch.zeros(1, 3, 5, 2), torch.zeros(1, 1, 2, 2, 2), segments, 7)
        for step in range(3):
            best = min(
                itertools.permutations(range(5), 4),
                key=lambda queries: sum(costs[step, query, segment] for segment, query in enumerate(queries)),
            )
            assert tuple(found[step].tolist()) == best

    def test_queries_that_show_the_segments_are_matched_with_them(self):
        """Pixels are embedded by their class, and queries 4, 2 and 0 look for classes 0, 1 and 2."""
        targets = torch.tensor([[[0, 1], [2, 255]], [[1, 1], [1, 1]]])
        pixels = F.one_hot(targets.clamp(max=2), 3).permute(0, 3, 1, 2).float() * 2 - 1
        embeddings = torch.full((2, 1, 5, 3), -5.0)
        for query, label in ((4, 0), (2, 1), (0, 2)):
            embeddings[:, :, query, label] = 9.0
        segments = Segments.of(targets, 3, overlapping=False)
        found = match(torch.zeros(2, 1, 5, 4), embeddings, pixels[:, None], segments, 200)
        assert found.tolist() == [[4, 2, 0, 2]]

    def test_a_training_that_diverges_is_left_to_the_loss_to_say(self):
        segments = Segments.of(torch.zeros(1, 2, 2, dtype=torch.long), 1, overlapping=False)
        bad = torch.full((1, 1, 3, 2), torch.nan)
        assert match(bad, bad, torch.zeros(1, 1, 2, 2, 2), segments, 5).shape == (1, 1)


@pytest.mark.parametrize(
    ("task", "shape", "maps"),
    [(MULTICLASS, (2,), 1), (MULTICLASS, (2,), 3), (BINARY, (2,), 1), (MULTILABEL, (2, 2), 1)],
)
def test_losses_are_those_of_a_slow_plain_formula(task, shape, maps, monkeypatch):
    """With the centres of all pixels for points, so that each mask is compared on its whole map."""
    head = MaskHead(task, queries=5, channels=8, points=36)
    pixels, states, embeddings = torch.randn(2, maps, 8, 6, 6), torch.randn(2, 3, 5, 8), torch.randn(2, 3, 5, 8)
    targets = torch.randint(0, task.highest_label + 1, (*shape, 6, 6)).masked_fill(torch.rand(*shape, 6, 6) < 0.2, 255)
    centres = pixel_centres(6, 6)
    monkeypatch.setattr(mask_head, "uncertain_points", lambda masks, *_: centres.expand(*masks.shape[:2], -1, -1))
    pairs = {}
    real = mask_head.match
    monkeypatch.setattr(mask_head, "match", lambda *given: pairs.setdefault("found", real(*given)))
    found = head.loss_terms((pixels[:, -1], states, embeddings, *([pixels] if maps > 1 else [])), targets)
    number, entropy, dice = 0, 0.0, 0.0
    wanted = torch.full((2, 3, 5), head.labels)
    for image in range(2):
        planes = targets[image] if task.mode == "multilabel" else [targets[image]] * head.labels
        for label, plane in enumerate(planes):
            value = 1 if task.mode == "multilabel" else label
            if not (plane == value).any():
                continue
            kept = plane != 255
            for step in range(3):
                query = pairs["found"][step, number]
                wanted[image, step, query] = label
                logits = torch.einsum("c,chw->hw", embeddings[image, step, query], pixels[image, step % maps])[kept]
                truth = (plane == value)[kept].float()
                entropy += F.binary_cross_entropy_with_logits(logits, truth)
                inside = logits.sigmoid()
                dice += 1 - (2 * (inside * truth).sum() + 1) / (inside.sum() + truth.sum() + 1)
            number += 1
    weights = torch.tensor([1.0] * head.labels + [0.1])
    logits = head.classify(states)
    classes = sum(F.cross_entropy(logits[:, s].flatten(0, 1), wanted[:, s].flatten(), weights) for s in range(3))
    torch.testing.assert_close(torch.stack(found), torch.stack([classes, entropy / number, dice / number]))


def test_an_image_of_which_nothing_counts_has_no_part_in_the_losses():
    model = network().train()
    image, targets = torch.randn(1, 3, 32, 32), torch.full((1, 32, 32), 255)
    _, terms = model.supervised(image, targets)
    assert [term.item() for term in terms.values()] == [0, 0, 0]
    sum(terms.values()).backward()
    assert all(not p.grad.any() for p in model.parameters())
    logits, wanted = torch.randn(2, 1, 3, 4), torch.full((2, 1, 3), 3)
    alone = class_loss(logits[:1], wanted[:1], torch.tensor([True]))
    torch.testing.assert_close(class_loss(logits, wanted, torch.tensor([True, False])), alone)


@pytest.mark.parametrize("task", [MULTICLASS, BINARY, MULTILABEL])
def test_logits_have_the_scores_that_numpy_computes(task):
    head = MaskHead(task, queries=5, channels=8, points=1)
    pixels, states, embeddings = torch.randn(2, 8, 3, 4), torch.randn(2, 3, 5, 8), torch.randn(2, 3, 5, 8)
    with torch.no_grad():
        logits = head((pixels, states, embeddings))
        classes = head.classify(states[:, -1]).numpy()
    classes = np.exp(classes) / np.exp(classes).sum(2, keepdims=True)
    masks = 1 / (1 + np.exp(-np.einsum("bqc,bchw->bqhw", embeddings[:, -1], pixels)))
    scores = np.einsum("bqk,bqhw->bkhw", classes[..., :-1], masks)
    if task.mode == "multilabel":
        expected = np.minimum(scores, 1 - 1e-6)
    else:
        expected = (scores / scores.sum(1, keepdims=True))[:, -task.channels :]
    assert logits.dtype == torch.float32
    np.testing.assert_allclose(task.probabilities(logits), expected, rtol=1e-4)


def test_logits_are_finite_where_no_query_shows_anything():
    for task in (MULTICLASS, BINARY, MULTILABEL):
        head = MaskHead(task, queries=5, channels=8, points=1)
        for sign in (-1, 1):
            given = torch.full((1, 8, 2, 2), 1e3), torch.zeros(1, 1, 5, 8), torch.full((1, 1, 5, 8), sign * 1e3)
            assert head(given).isfinite().all()


class TestAttention:
    def test_a_query_sees_nothing_of_what_is_hidden_from_it(self):
        layer = Layer(16, 2, 32)
        places = torch.randn(1, 10, 16, requires_grad=True)
        hidden = torch.zeros(1, 3, 10, dtype=torch.bool)
        hidden[..., 4:] = True
        layer(torch.randn(1, 3, 16), torch.randn(3, 16), places, torch.randn(10, 16), hidden).square().sum().backward()
        assert places.grad[:, :4].abs().amin(2).gt(0).all()
        assert not places.grad[:, 4:].any()

    def test_a_query_without_a_place_in_its_mask_sees_all(self):
        model = network().decoder.eval()
        pixels, scale = -torch.ones(1, 16, 8, 8), torch.zeros(1, 16, 2, 2)
        pixels[..., :4] = 1
        model.mask_embedding = nn.Identity()
        state = torch.stack([torch.ones(16), torch.zeros(16) + 1e-3, -torch.ones(16)])[None]
        assert model._hidden(0, state, pixels, scale)[0].tolist() == [
            [False, True] * 2,
            [False, True] * 2,
            [True, False] * 2,
        ]
        assert not model._hidden(0, state, -torch.ones(1, 16, 8, 8), scale)[0, :2].any()

    def test_shares_are_eomts_and_fall_layer_by_layer(self):
        """EoMT's configuration for Cityscapes: 4 layers, 107 epochs of 186 steps, from and to these steps."""
        begins, ends = [3317, 6634, 9951, 13268], [6634, 9951, 13268, 16585]
        for step in (0, 3317, 5000, 6634, 12000, 16585, 19902):
            done = [(step - begin) / (end - begin) for begin, end in zip(begins, ends, strict=True)]
            expected = [(1 - min(max(share, 0), 1)) ** 0.9 for share in done]
            assert masked_share(step / 19902, 4).tolist() == pytest.approx(expected, abs=1e-3)

    def test_annealed_masks_are_drawn_by_their_share_and_never_used_in_predictions(self):
        annealed, always = (network(masking=masking) for masking in ("annealed", "always"))
        always.load_state_dict(annealed.state_dict())
        image = torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            annealed.train(), always.train()
            annealed.set_epoch(1, 12)
            torch.testing.assert_close(annealed(image), always(image))
            annealed.set_epoch(12, 12)
            unmasked = annealed(image)
            torch.testing.assert_close(unmasked, annealed.eval()(image))
            assert not torch.allclose(unmasked, always(image))
            annealed.decoder.masked.fill_(0.5)
            state, pixels = torch.randn(50, 40, 16), torch.randn(50, 16, 8, 8)
            hidden = annealed.decoder.train()._hidden(0, state, pixels, torch.zeros(50, 16, 4, 4))
        assert hidden.any(2).float().mean() == pytest.approx(0.5, abs=0.05)

    def test_positions_are_detrs(self):
        found = sine_positions(2, 3, 8, torch.device("cpu")).view(2, 3, 8)
        x, y = 2 / 3 * 2 * np.pi, 2 / 2 * 2 * np.pi
        expected = [
            np.sin(y),
            np.sin(y / 100),
            np.cos(y),
            np.cos(y / 100),
            np.sin(x),
            np.sin(x / 100),
            np.cos(x),
            np.cos(x / 100),
        ]
        np.testing.assert_allclose(found[1, 1], expected, atol=1e-5)


def test_learned_embeddings_have_no_weight_decay():
    model = network()
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    assert len(embeddings) == 3
    assert embeddings <= undecayed(model)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"channels": 18}, "channels is 18; a multiple of 4 and of 2 heads was expected"),
        ({"queries": 2}, "2 queries can't show 3 classes\n  each class needs a query at least"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, says):
    with pytest.raises(SegregError) as raised:
        network(**settings)
    assert str(raised.value) == says


def test_it_learns_two_images_by_heart_in_bf16():
    """Halves of one colour; the losses are computed in float32 all the same."""
    model = network().train()
    image = torch.zeros(2, 3, 64, 64)
    image[0, 0, :, :32], image[1, 1, 32:] = 1, 1
    targets = torch.zeros(2, 64, 64, dtype=torch.long)
    targets[0, :, :32], targets[1, 32:] = 1, 2
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(30):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            _, terms = model.supervised(image, targets)
        total = sum(model.own_losses[name] * value for name, value in terms.items())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert (MULTICLASS.labels(model.eval()(image)) == targets).float().mean() > 0.97


def test_no_weights_are_cast_without_their_gradients():
    """Older versions of torch keep such a cast until autocast ends, and what was cast so learns nothing."""
    model = network().train()
    cast = []
    for layer in model.modules():
        layer.register_forward_hook(lambda *_: cast.append(torch.is_grad_enabled()))
    model.supervised(torch.zeros(1, 3, 64, 64), torch.zeros(1, 64, 64, dtype=torch.long))
    assert all(cast)


RECIPE = (
    tiny_runs.RECIPE.replace("timm/test_resnet", "three_convolutions")
    .replace("samples: 24", "samples: 12")
    .replace(
        "{name: deeplabv3plus, channels: 16}",
        "{name: mask_transformer, queries: 4, layers: 1, channels: 8, heads: 2, feedforward: 8, points: 32, "
        "masking: annealed}",
    )
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with three_convolutions():
        return tiny_runs.run(tmp_path_factory.mktemp("whole"), "train.epochs=2", text=RECIPE)


def test_a_run_trains_by_its_own_losses_and_is_validated_by_the_recipes(finished):
    terms = {name for name in finished.history[0] if ".loss" in name}
    assert terms == {
        "train.loss", "train.loss.class", "train.loss.mask_bce", "train.loss.mask_dice", "val.loss",
    }  # fmt: skip
    row = finished.history[0]
    weighted = 2 * row["train.loss.class"] + 5 * (row["train.loss.mask_bce"] + row["train.loss.mask_dice"])
    assert row["train.loss"] == pytest.approx(weighted, rel=1e-5)
    losses = [row["train.loss"] for row in finished.history]
    assert losses[-1] < losses[0]


def test_a_resumed_run_has_the_weights_of_one_that_never_stopped(finished, tmp_path, monkeypatch):
    import segreg.training.trainer as trainer

    whole = trainer.train_pass

    def interrupted(training, batches, epoch, progress):
        if epoch == 2:
            signal.raise_signal(signal.SIGINT)
        return whole(training, batches, epoch, progress)

    with three_convolutions():
        monkeypatch.setattr(trainer, "train_pass", interrupted)
        run = tiny_runs.run(tmp_path, "train.epochs=2", text=RECIPE)
        monkeypatch.setattr(trainer, "train_pass", whole)
        assert run.results["epochs"] == 1
        run = segreg.resume(run, progress="quiet")
        own, its = (each.model("last").state_dict() for each in (run, finished))
    assert all(torch.equal(own[name], value) for name, value in its.items())


def test_an_exported_network_gives_the_same_for_other_batches_and_sizes():
    model = network(masking="annealed", layers=1).eval()
    sizes = {0: Dim("batch"), 2: 32 * Dim("rows", min=2, max=64), 3: 32 * Dim("columns", min=2, max=64)}
    program = torch.export.export(model, (torch.randn(2, 3, 64, 96),), dynamic_shapes=(sizes,))
    image = torch.randn(3, 3, 128, 64)
    torch.testing.assert_close(program.module()(image), model(image))
