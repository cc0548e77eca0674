"""The counts that a run leaves for statistics: read as written, and what the run's pooled scores are made of."""

import numpy as np
import pytest

import small_runs
from segreg.errors import SegregError
from segreg.evaluation.counts import read_counts, write_counts


def test_counts_are_read_as_they_were_written(tmp_path):
    counts = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    write_counts(tmp_path / "counts.csv", ['a "b", c', "d"], ["one", "two, too", "three"], counts)
    ids, classes, read = read_counts(tmp_path / "counts.csv")
    assert (ids, classes) == (['a "b", c', "d"], ["one", "two, too", "three"])
    assert np.array_equal(read, counts)


@pytest.mark.parametrize(
    "text",
    ["", "id,dice\na,1\n", "id,class,tp,fp,fn,tn\na,x,1,2,3\n", "id,class,tp,fp,fn,tn\na,x,1,2,3,4\nb,y,1,2,3,4\n"],
)
def test_another_file_is_refused(text, tmp_path):
    (tmp_path / "counts.csv").write_text(text)
    with pytest.raises(SegregError) as caught:
        read_counts(tmp_path / "counts.csv")
    assert str(caught.value.problems[0].message) == f"{tmp_path}/counts.csv does not hold the counts of images"


def test_the_pooled_scores_of_a_run_follow_from_its_counts(tmp_path):
    with small_runs.encoder():
        run = small_runs.run(tmp_path, "train.epochs=1", "evaluate.overlays=0")
    ids, classes, counts = read_counts(run.directory.counts)
    assert (len(ids), classes) == (run.results["images"]["test"], run.results["classes"])
    tp, fp, fn, _ = counts.sum((0, 1))
    assert run.results["metrics"]["test"]["dice.pooled"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    rows = np.genfromtxt(run.directory.per_image, delimiter=",", names=True, dtype=None, encoding="utf-8")
    assert list(rows["id"]) == ids
    tp, fp, fn, _ = counts[:, 0].T
    with np.errstate(invalid="ignore"):
        assert rows["iou"] == pytest.approx(tp / (tp + fp + fn), nan_ok=True)
