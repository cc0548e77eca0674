"""Runs of folds: those of splits made by hand."""

from __future__ import annotations

import json

import pytest

import plugged
import small_runs

FOLDS = ("split.method=folds", "split.folds=3", "split.fold=2", "split.test=0.25", "split.stratify=true")


pytestmark = pytest.mark.usefixtures("three_convolutions")


@pytest.fixture(autouse=True)
def _parts(installed):
    installed(*plugged.builtin())


def test_a_run_of_a_fold_is_that_of_lists_made_by_hand(tmp_path):
    run = small_runs.run(tmp_path, *FOLDS, "train.epochs=1")
    split = json.loads(run.directory.split.read_text())
    for name, ids in split.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(ids))
    lists = ", ".join(f"{name}: {tmp_path}/{name}.txt" for name in split)
    by_hand = small_runs.run(tmp_path, "split.method=lists", f"split.lists={{{lists}}}", "train.epochs=1")
    for name in ("per_image.csv", "counts.csv", "split.json"):
        assert (run.directory.path / name).read_bytes() == (by_hand.directory.path / name).read_bytes()
    assert run.results["metrics"] == by_hand.results["metrics"]
    mine, its = (one.model().state_dict() for one in (run, by_hand))
    assert mine.keys() == its.keys()
    assert all(mine[name].equal(its[name]) for name in mine)
