"""The rules that every built-in loss keeps, in every mode that it serves."""

from __future__ import annotations

import copy
import itertools
import pickle
import subprocess
import sys

import pytest
import torch
from torch._subclasses import FakeTensorMode

from segreg.errors import SegregError
from segreg.settings import check_value
from segreg.task import IGNORE_INDEX, Task
from segreg_plugins.losses import segreg_entries
from segreg_plugins.losses.pixels import float32_inside

BUILDERS = {entry.name: entry.build for entry in segreg_entries()}
TASKS = {
    "binary": Task(("lesion",), "binary"),
    "multiclass": Task(("background", "road", "car", "tree"), "multiclass"),
    "multilabel": Task(("cell", "nucleus", "wall"), "multilabel"),
}
SERVES = {
    "bce": ("binary", "multilabel"),
    "cross_entropy": ("multiclass",),
    "dice_bce": ("binary", "multilabel"),
    "dice_ce": ("multiclass",),
    "class_balanced_focal": (),  # a focal loss with weights
}
ON_THE_CPU = ("boundary", "hausdorff_dt")
"""Those that wait for the device, because they compute distances on the CPU."""
SETTINGS = {
    "dice": [{}, {"over": "image"}, {"absent": "skip"}, {"smooth": 1e-5}],
    "iou": [{}, {"over": "image"}],
    "tversky": [{}, {"over": "image", "absent": "skip"}],
    "lovasz": [{}, {"over": "image"}],
    "focal": [{}, {"gamma": 0.5}, {"gamma": 0.0}],
    "cross_entropy": [{}, {"label_smoothing": 0.1}, {"class_weights": (0.5, 1.0, 3.0, 1e-3)}],
    "bce": [{}, {"positive_weight": 4.0}, {"label_smoothing": 0.1}],
    "ohem": [{}, {"threshold": 0.3, "min_kept": 0.5}],
}
CASES = [
    pytest.param(name, mode, settings, id=f"{name}-{mode}" + "".join(f"-{k}={v}" for k, v in settings.items()))
    for name in BUILDERS
    for mode in SERVES.get(name, TASKS)
    for settings in SETTINGS.get(name, [{}])
]
every_loss = pytest.mark.parametrize(("name", "mode", "settings"), CASES)


def one_mode(name, number):
    """Return one of the modes that a loss serves, in turns: they differ in the probabilities alone."""
    modes = list(SERVES.get(name, TASKS))
    return modes[number % len(modes)]


every_setting = pytest.mark.parametrize(
    ("name", "mode", "settings"),
    [
        (name, one_mode(name, number + turn), settings)
        for number, name in enumerate(name for name in BUILDERS if SERVES.get(name, TASKS))
        for turn, settings in enumerate(SETTINGS.get(name, [{}]))
    ],
)


def draw(mode, *, images=3, size=(9, 7), ignored=0.2, seed=0, scale=2.0):
    """Return logits and a target of which a share is ignored."""
    generator = torch.Generator().manual_seed(seed)
    task = TASKS[mode]
    logits = scale * torch.randn(images, task.channels, *size, generator=generator)
    shape = (images, task.channels, *size) if mode == "multilabel" else (images, *size)
    target = torch.randint(0, task.channels if mode == "multiclass" else 2, shape, generator=generator)
    target[torch.rand(shape, generator=generator) < ignored] = IGNORE_INDEX
    return logits, target


def ignored_logits(mode, target, logits):
    ignored = target == IGNORE_INDEX
    return (ignored if mode == "multilabel" else ignored.unsqueeze(1)).expand_as(logits)


def right_logits(mode, target, channels, size):
    """Return logits that are confident of the truth."""
    if mode == "multiclass":
        truth = torch.nn.functional.one_hot(target.where(target != IGNORE_INDEX, 0), channels).movedim(-1, 1)
    else:
        truth = (target == 1).long() if mode == "multilabel" else (target == 1).long().unsqueeze(1)
    return size * (2.0 * truth - 1)


@every_loss
def test_ignored_pixels_have_exactly_no_gradient_and_no_influence(name, mode, settings):
    loss = BUILDERS[name](TASKS[mode], **settings)
    logits, target = draw(mode)
    ignored = ignored_logits(mode, target, logits)
    logits.requires_grad_()
    value = loss(logits, target)
    value.backward()
    assert logits.grad[ignored].eq(0).all()
    assert logits.grad[~ignored].abs().sum() > 0
    for odd in (123.0, -1e4, torch.inf, -torch.inf, torch.nan):
        changed = logits.detach().masked_fill(ignored, odd).requires_grad_()
        again = loss(changed, target)
        again.backward()
        assert torch.equal(again, value)
        assert torch.equal(changed.grad, logits.grad)


@every_loss
def test_a_wholly_ignored_image_changes_nothing(name, mode, settings):
    loss = BUILDERS[name](TASKS[mode], **settings)
    logits, target = draw(mode)
    more_logits, more_target = torch.cat([logits, logits[:1]]), torch.cat([target, torch.full_like(target[:1], 255)])
    torch.testing.assert_close(loss(more_logits, more_target), loss(logits, target))


@every_loss
def test_an_ignored_batch_is_zero_and_has_a_gradient_of_zero(name, mode, settings):
    logits, target = draw(mode, ignored=1.1)
    logits.requires_grad_()
    value = BUILDERS[name](TASKS[mode], **settings)(logits, target)
    value.backward()
    assert value.item() == 0
    assert logits.grad.eq(0).all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_value_and_gradient_are_finite(name, mode, settings, dtype):
    loss = BUILDERS[name](TASKS[mode], **settings)
    random_logits, random_target = draw(mode, images=2, size=(5, 4), scale=1.0)
    for scale, target in itertools.product(
        (1.0, 1e4), (random_target, random_target * 0, random_target * 0 + 1, random_target * 0 + IGNORE_INDEX)
    ):
        logits = (scale * random_logits).to(dtype).requires_grad_()
        value = loss(logits, target)
        value.backward()
        assert value.dtype == torch.float32
        assert value.isfinite()
        assert logits.grad.dtype == dtype
        assert logits.grad.isfinite().all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_logits_are_computed_in_float32(name, mode, settings, dtype):
    loss = BUILDERS[name](TASKS[mode], **settings)
    logits, target = draw(mode, images=2, size=(32, 32), scale=8.0)
    logits = logits.to(dtype)
    value = loss(logits, target)
    assert torch.equal(value, loss(logits.float(), target))
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(loss(logits, target), value)


def test_autocast_is_off_inside():
    class Product(torch.nn.Module):
        @float32_inside
        def forward(self, logits, target):
            return logits @ target

    ones = torch.ones(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (ones @ ones).dtype == torch.bfloat16
        assert Product()(ones.half(), ones).dtype == torch.float32
        assert Product()(ones.double(), ones.double()).dtype == torch.float64


@every_loss
def test_better_answers_have_lower_losses(name, mode, settings):
    loss = BUILDERS[name](TASKS[mode], **settings)
    logits, target = draw(mode)
    right = right_logits(mode, target, logits.shape[1], 1.0)
    values = [loss(scale * right, target).item() for scale in (-2.0, -1.0, 0.0, 0.4, 0.8)]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == len(values)
    if "label_smoothing" not in settings:
        assert loss(1e3 * right, target).item() == pytest.approx(0, abs=1e-6)


@every_loss
def test_a_step_down_the_gradient_lowers_the_loss(name, mode, settings):
    loss = BUILDERS[name](TASKS[mode], **settings)
    logits, target = draw(mode)
    logits.requires_grad_()
    value = loss(logits, target)
    (gradient,) = torch.autograd.grad(value, logits)
    with torch.no_grad():
        assert loss(logits - 1e-2 * gradient / gradient.norm(), target) < value


@every_loss
def test_gradients_are_those_of_the_value(name, mode, settings):
    loss = BUILDERS[name](TASKS[mode], **settings)
    logits, target = draw(mode, images=2, size=(3, 2))
    assert loss(logits.double(), target).dtype == torch.float64
    # Along random directions, which a wrong derivative of any logit changes.
    assert torch.autograd.gradcheck(loss, (logits.double().requires_grad_(), target), fast_mode=True)


@every_loss
def test_the_order_of_images_and_pixels_does_not_matter(name, mode, settings):
    loss = BUILDERS[name](TASKS[mode], **settings)
    logits, target = draw(mode)
    value = loss(logits, target)
    torch.testing.assert_close(loss(logits.flip(0), target.flip(0)), value)
    torch.testing.assert_close(loss(logits.flip(-1, -2), target.flip(-1, -2)), value)
    channels_last = logits.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(loss(channels_last, target), value)
    torch.testing.assert_close(loss(logits, target.to(torch.uint8)), value)


@pytest.mark.parametrize(("name", "mode", "settings"), [case for case in CASES if case.values[1] != "binary"])
def test_the_order_of_classes_does_not_matter(name, mode, settings):
    logits, target = draw(mode)
    order = torch.tensor([2, 0, 1, 3][: logits.shape[1]])
    inverse = order.argsort()
    if mode == "multiclass":
        moved = inverse[target.clamp(max=3)].where(target != IGNORE_INDEX, IGNORE_INDEX)
    else:
        moved = target[:, order]
    changed = dict(settings)
    if weights := settings.get("class_weights"):
        changed["class_weights"] = tuple(weights[i] for i in order)
    before = BUILDERS[name](TASKS[mode], **settings)(logits, target)
    after = BUILDERS[name](TASKS[mode], **changed)(logits[:, order], moved)
    torch.testing.assert_close(after, before)


@every_setting
def test_nothing_waits_for_the_device(name, mode, settings):
    # Fake tensors have no values, so that reading one, or a shape that depends on one, is an error.
    loss = BUILDERS[name](TASKS[mode], **settings)
    logits, target = draw(mode)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        fake_logits = fake.from_tensor(logits).requires_grad_()
        value = loss(fake_logits, fake.from_tensor(target))
        value.backward()
    assert value.shape == ()
    assert fake_logits.grad.shape == logits.shape


@every_loss
def test_it_survives_pickling_and_copying(name, mode, settings):
    loss = BUILDERS[name](TASKS[mode], **settings)
    logits, target = draw(mode)
    for other in (pickle.loads(pickle.dumps(loss)), copy.deepcopy(loss)):
        assert torch.equal(other(logits, target), loss(logits, target))
    assert loss.state_dict() == {}
    assert not list(loss.parameters())


COMPILED = {
    name: one_mode(name, number)
    for number, name in enumerate(BUILDERS)
    if SERVES.get(name, TASKS) and name not in ("dice", "bce", "cross_entropy", "focal")
}
"""Sums of two losses compile both."""


@pytest.mark.parametrize(("name", "mode"), COMPILED.items())
def test_it_compiles_into_one_graph(name, mode):
    loss = BUILDERS[name](TASKS[mode])
    logits, target = draw(mode)
    logits.requires_grad_()
    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    (expected,) = torch.autograd.grad(loss(logits, target), logits)
    value = compiled(logits, target)
    (gradient,) = torch.autograd.grad(value, logits)
    torch.testing.assert_close(value, loss(logits, target))
    torch.testing.assert_close(gradient, expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_loss
def test_the_gpu_agrees_and_is_never_waited_for(name, mode, settings):
    logits, target = draw(mode)
    expected = BUILDERS[name](TASKS[mode], **settings)(logits, target)
    loss = BUILDERS[name](TASKS[mode], **settings).cuda()
    logits, target = logits.cuda().requires_grad_(), target.cuda()
    loss(logits, target).backward()
    torch.cuda.set_sync_debug_mode("default" if name in ON_THE_CPU else "error")
    try:
        value = loss(logits, target)
        value.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(value.cpu(), expected)


@pytest.mark.parametrize(
    ("name", "mode", "settings", "message"),
    [
        (
            "bce",
            "multiclass",
            {},
            'bce does not serve a multiclass task\n  its classes exclude each other; use "cross_entropy"',
        ),
        (
            "cross_entropy",
            "binary",
            {},
            'cross_entropy does not serve a binary task\n  its logits are sigmoids; use "bce"',
        ),
        (
            "dice_bce",
            "multiclass",
            {},
            'dice_bce does not serve a multiclass task\n  its classes exclude each other; use "dice_ce"',
        ),
        (
            "dice_ce",
            "multilabel",
            {},
            'dice_ce does not serve a multilabel task\n  its logits are sigmoids; use "dice_bce"',
        ),
        (
            "cross_entropy",
            "multiclass",
            {"class_weights": (1.0, 2.0)},
            (
                "class_weights has 2 numbers, but the task has 4 classes\n"
                '  give one for each, in this order: "background", "road", "car" and "tree"'
            ),
        ),
        (
            "cross_entropy",
            "multiclass",
            {"class_weights": (0.0, 0.0, 0.0, 0.0)},
            "class_weights is 0 for every class, so that the loss is always 0",
        ),
        (
            "bce",
            "multilabel",
            {"positive_weight": (1.0, 2.0)},
            (
                "positive_weight has 2 numbers, but the task has 3 classes\n"
                '  give one for each, in this order: "cell", "nucleus" and "wall"'
            ),
        ),
        (
            "focal",
            "multiclass",
            {"alpha": 0.25},
            "focal's alpha does not serve a multiclass task\n  give class_weights instead",
        ),
        (
            "focal",
            "binary",
            {"class_weights": (1.0,)},
            "focal's class_weights does not serve a binary task\n  give alpha instead",
        ),
        (
            "dice",
            "multiclass",
            {"exclude": ("backgruond",)},
            (
                'exclude names "backgruond", which is not a class of this multiclass task\n'
                '  did you mean "background"? the classes are "background", "road", "car" and "tree"'
            ),
        ),
        (
            "iou",
            "binary",
            {"exclude": ("lesion",)},
            "exclude names every class, so that none is left\n  leave at least one class in",
        ),
        (
            "class_balanced_focal",
            "multilabel",
            {"class_counts": (5, 5, 5)},
            'class_balanced_focal does not serve a multilabel task\n  use "focal" with alpha',
        ),
        (
            "class_balanced_focal",
            "multiclass",
            {"class_counts": (10**6, 10**5, 10**4, 10**5), "beta": 0.999},
            (
                "beta 0.999 weights all classes alike: of 10000 examples and more each counts as 1000\n  give a beta "
                "nearer to 1, such as 1 - 1/N for N images; or count images, not pixels"
            ),
        ),
        (
            "cldice",
            "binary",
            {"exclude": ("lesion",)},
            "exclude names every class, so that none is left\n  leave at least one class in",
        ),
        (
            "tversky",
            "binary",
            {"alpha": 0.0, "beta": 0.0},
            "tversky with alpha and beta 0 is always 0\n  give at least one of them a weight",
        ),
    ],
)
def test_what_it_can_not_serve_is_refused(name, mode, settings, message):
    with pytest.raises(SegregError) as error:
        BUILDERS[name](TASKS[mode], **settings)
    assert str(error.value) == message


@pytest.mark.parametrize("name", ["dice", "bce", "lovasz", "focal"])
def test_shapes_that_do_not_belong_together_are_refused(name):
    logits, target = draw("binary")
    with pytest.raises(SegregError, match=r"logits \[3, 1, 9, 7\] and target \[3, 1, 9, 7\] do not belong together"):
        BUILDERS[name](TASKS["binary"])(logits, target.unsqueeze(1))


def test_every_default_is_a_value_of_its_setting():
    for entry in segreg_entries():
        for setting in entry.settings.values():
            assert setting.meaning
            if setting.required:
                continue
            value = list(setting.default) if isinstance(setting.default, tuple) else setting.default
            assert check_value(setting.hint, value) == setting.default


def test_the_table_imports_nothing_heavy():
    heavy = "{'torch', 'numpy', 'pydantic', 'timm', 'segmentation_models_pytorch', 'torchmetrics'}"
    script = (
        "import sys, segreg_plugins.losses as l, segreg_plugins.metrics as m; l.segreg_entries(), m.segreg_entries();"
        f"sys.exit(str({heavy} & set(sys.modules)) if {heavy} & set(sys.modules) else 0)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
