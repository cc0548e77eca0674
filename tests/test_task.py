"""The one place that knows how logits become probabilities and labels."""

import pytest
import torch
from torch import tensor

from segreg.errors import SegregError
from segreg.task import IGNORE_INDEX, Task

BINARY = Task(("lesion",), "binary")
MULTICLASS = Task(("background", "cup", "disc"), "multiclass")
MULTILABEL = Task(("cup", "disc"), "multilabel")


@pytest.mark.parametrize(
    ("classes", "mode", "says"),
    [
        ((), "binary", "a binary task has one class name, the foreground; it was given 0"),
        (("a", "b"), "binary", "a binary task has one class name, the foreground; it was given 2"),
        (("a",), "multiclass", "a multiclass task has 2 to 255 classes; it was given 1"),
        (tuple(map(str, range(256))), "multiclass", "a multiclass task has 2 to 255 classes; it was given 256"),
        ((), "multilabel", "a task needs at least one class name"),
        (("a", " "), "multilabel", "class 1 has an empty name"),
        (("a", "b", "a", "b"), "multilabel", 'class names must differ: "a" and "b" stand more than once'),
        (("a", "b" * 5000), "multilabel", f'the class name "{"b" * 40}..." has 5000 characters; at most 200 are taken'),
        (("a", "b", "a"), "multilabel", 'class names must differ: "a" stands more than once'),
        (
            ("a", "a.pooled"),  # a single image's dice.class.a would be both
            "multilabel",
            (
                'no class can be called "a.pooled": names of scores end in pooled and per_image_mean\n'
                "  dice.class.a.pooled would be taken for another score; give the class another name"
            ),
        ),
    ],
)
def test_classes_that_do_not_fit_the_mode_are_refused(classes, mode, says):
    with pytest.raises(SegregError) as reported:
        Task(classes, mode)
    assert str(reported.value) == says


@pytest.mark.parametrize(
    ("classes", "mode", "says"),
    [
        (
            ("a", "b"),
            "multi-class",
            'the mode of a task is "binary", "multiclass" or "multilabel", not \'multi-class\'',
        ),
        ("ab", "multiclass", "the classes of a task are names, such as ('road', 'tree'), not 'ab'"),
        ((1, 2), "multiclass", "the classes of a task are names, such as ('road', 'tree'), not (1, 2)"),
    ],
)
def test_what_is_no_task_is_refused(classes, mode, says):
    with pytest.raises(SegregError) as refused:
        Task(classes, mode)
    assert says in str(refused.value)


def test_classes_are_a_tuple_from_whatever_they_are_given_in():
    assert Task(["a", "b"], "multiclass") == Task(("a", "b"), "multiclass")


def test_a_logit_for_each_class_name():
    assert [task.channels for task in (BINARY, MULTICLASS, MULTILABEL)] == [1, 3, 2]
    assert Task(tuple(map(str, range(255))), "multiclass").channels == 255


def test_probabilities_by_hand():
    logits = tensor([0.0, 1.0986122886681098, -1.0986122886681098]).reshape(1, 1, 1, 3)
    torch.testing.assert_close(BINARY.probabilities(logits), tensor([0.5, 0.75, 0.25]).reshape(1, 1, 1, 3))
    logits = tensor([1.0, 2.0, 5.0]).log().reshape(1, 3, 1, 1)
    torch.testing.assert_close(MULTICLASS.probabilities(logits), tensor([0.125, 0.25, 0.625]).reshape(1, 3, 1, 1))
    logits = tensor([[1.0, 3.0]]).log().reshape(1, 2, 1, 1)
    torch.testing.assert_close(MULTILABEL.probabilities(logits), tensor([0.5, 0.75]).reshape(1, 2, 1, 1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("task", [BINARY, MULTICLASS, MULTILABEL], ids=lambda task: task.mode)
def test_probabilities_are_float32_whatever_the_precision(task, dtype):
    probabilities = task.probabilities(torch.full((2, task.channels, 3, 4), 60000.0, dtype=dtype))
    assert probabilities.dtype == torch.float32
    assert probabilities.isfinite().all()


def test_binary_labels_are_foreground_from_the_threshold_on():
    logits = tensor([-1.0, 0.0, 1.0]).reshape(1, 1, 1, 3)
    assert BINARY.labels(logits).tolist() == [[[0, 1, 1]]]  # a probability of exactly 0.5 is foreground
    assert BINARY.labels(logits, threshold=0.7).tolist() == [[[0, 0, 1]]]
    assert BINARY.labels(logits, threshold=0.0).tolist() == [[[1, 1, 1]]]
    assert BINARY.labels(logits).dtype == torch.int64


def test_multiclass_labels_are_the_largest_whatever_the_threshold():
    logits = tensor([[3.0, 1.0], [2.0, 5.0], [1.0, 9.0]]).reshape(1, 3, 1, 2)
    assert MULTICLASS.labels(logits, threshold=0.99).tolist() == [[[0, 2]]]


def test_multilabel_labels_stand_beside_each_other():
    logits = tensor([[1.0, -1.0], [2.0, 5.0]]).reshape(1, 2, 1, 2)
    assert MULTILABEL.labels(logits).tolist() == [[[[1, 0]], [[1, 1]]]]


def test_one_hot_of_binary_targets():
    ones, counts = BINARY.one_hot(tensor([[[0, 1, IGNORE_INDEX]]]))
    assert ones.tolist() == [[[[0, 1, 0]]]]
    assert counts.tolist() == [[[[1, 1, 0]]]]


def test_one_hot_of_multiclass_targets():
    ones, counts = MULTICLASS.one_hot(tensor([[[0, 2, IGNORE_INDEX]]]))
    assert ones.tolist() == [[[[1, 0, 0]], [[0, 0, 0]], [[0, 1, 0]]]]
    assert counts.tolist() == [[[[1, 1, 0]]] * 3]


def test_one_hot_of_multilabel_targets():
    ones, counts = MULTILABEL.one_hot(tensor([[[[0, 1]], [[1, IGNORE_INDEX]]]]))
    assert ones.tolist() == [[[[0, 1]], [[1, 0]]]]
    assert counts.tolist() == [[[[1, 1]], [[1, 0]]]]


@pytest.mark.parametrize("task", [BINARY, MULTICLASS, MULTILABEL], ids=lambda task: task.mode)
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
def test_one_hot_undoes_labels(task, dtype):
    labels = task.labels(torch.randn(2, task.channels, 5, 7, generator=torch.Generator().manual_seed(0)))
    ones, counts = task.one_hot(labels.to(dtype))
    assert ones.dtype == counts.dtype == torch.float32
    assert ones.shape == counts.shape == (2, task.channels, 5, 7)
    assert (counts == 1).all()
    assert (task.labels(ones * 2 - 1) == labels).all()
