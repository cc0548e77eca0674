"""benchmarks/: the scripts start, competitors do the same work, and the tables are the arithmetic that they claim."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def contest(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import contest

    return contest


def ran(*words):
    done = subprocess.run(
        [sys.executable, *map(str, words)], env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


WARM = """
import runpy, sys
sys.path.insert(0, {folder!r})
sys.executable, sys.argv = {python!r}, {words!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""What the script starts has imported the libraries already."""


@pytest.fixture
def ran_warm(python):
    def run(script, *words):
        words = [str(word) for word in (BENCHMARKS / script, *words)]
        code = WARM.format(folder=str(BENCHMARKS), python=python[0], words=words)
        done = subprocess.run([*python, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize("script", ["training.py", "evaluation.py"])
def test_help_says_what_is_measured(script):
    printed = ran(BENCHMARKS / script, "--help")
    assert "segreg: `segreg " in printed
    assert "--rounds" in printed


def test_the_bytes_of_a_crop_do_not_grow_with_the_image(tmp_path):
    words = ("reads", "--megapixels", 0.5, 2, "--crops", 5, "--crop", 64, "--folder", tmp_path)
    ran(BENCHMARKS / "crops.py", *words, "--json", tmp_path / "rows.json")
    small, large = json.loads((tmp_path / "rows.json").read_text())
    assert small["asked"] <= 1.5 * 4 * 128 * 128 * 4  # four blocks of 128 x 128 pixels, with their masks
    assert large["asked"] <= 1.5 * 4 * 128 * 128 * 4


def test_the_parent_imports_nothing_heavy():
    names = "training, evaluation"
    ran("-c", f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r}); import {names}; assert 'torch' not in sys.modules "
              "and 'numpy' not in sys.modules and 'cv2' not in sys.modules")  # fmt: skip


SAMPLES = [
    {"case": "c", "name": name, "round": number, "rate": rate, "others": others}
    for name, number, rate, others in (
        ("segreg", 1, 6.0, 0.0), ("naive", 1, 2.0, 0.5), ("naive", 2, 3.0, 0.01), ("segreg", 2, 12.0, 0.0),
        ("segreg", 3, 8.0, 0.02), ("naive", 3, 4.0, 0.05),
    )
]  # fmt: skip


def test_the_tables_have_medians_and_the_ratios_of_each_round(contest, capsys):
    contest.print_tables(SAMPLES, [contest.Column("rate", "images/s"), contest.Column("none", "absent")], "segreg")
    assert capsys.readouterr().out.splitlines() == [
        "",
        "c",
        "",
        "|  | images/s |",
        "| --- | --- |",
        "| segreg | 8 (6 to 12) |",
        "| naive | 3 (2 to 4) |",
        "",
        "segreg over another, round by round",
        "",
        "|  | images/s |",
        "| --- | --- |",
        "| naive | 3 (2 to 4) |",
        "",
        "Other processes had more than 6% of the machine in 1 of 6 samples, 50% at the most.",
    ]


def test_the_order_turns_and_the_first_case_warms_up(contest, monkeypatch):
    ran_jobs = []
    monkeypatch.setattr(contest, "sample", lambda job, _: ran_jobs.append(job.case + job.name) or {"whole_s": 1.0})
    jobs = [contest.Job(case, name, Path(), Path(case)) for case in "AB" for name in "xy"]
    samples = contest.contest(jobs, 2, None)
    assert ran_jobs == ["Ay", "Ax", "Ax", "Ay", "Bx", "By", "By", "Bx", "Ay", "Ax"]
    assert [sample["round"] for sample in samples] == [1, 1, 1, 1, 2, 2, 2, 2]


def test_one_that_fails_is_reported_and_excluded(contest, tmp_path, capsys):
    script = tmp_path / "job.py"
    script.write_text(
        "import sys, pathlib\nif sys.argv[1] == 'bad': sys.exit('no luck')\n"
        "held = bytearray(60 << 20)\npathlib.Path(sys.argv[4]).write_text('{\"found\": 7}')\n"
    )
    samples = contest.contest([contest.Job("c", name, script, tmp_path) for name in ("good", "bad")], 1, None)
    (only,) = samples
    assert (only["name"], only["found"]) == ("good", 7)
    assert only["peak_rss_mib"] > 60  # how much more is the parent's here: see segreg.runtime.device on `exec`
    printed = capsys.readouterr().err
    assert printed.count("bad failed and is excluded from: c\nno luck") == 1


def test_made_images_hold_their_classes(tmp_path):
    for classes, values in ((1, [0, 255]), (4, [0, 1, 2, 3])):
        folder = tmp_path / str(classes)
        ran(BENCHMARKS / "images.py", folder, 2, 48, 32, classes)
        assert [file.name for file in sorted((folder / "images").iterdir())] == ["00000.jpg", "00001.jpg"]
        with Image.open(folder / "images" / "00001.jpg") as image, Image.open(folder / "masks" / "00001.png") as mask:
            assert image.size == (48, 32)
            assert np.unique(np.array(mask)).tolist() == values


def test_steps_must_be_alike():
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "training.py", "--images", "9"], capture_output=True, text=True, check=False
    )
    printed = "--images must be a multiple of --batch, so that all steps are alike; not 9 by 8\n"
    assert (done.returncode, done.stderr) == (1, printed)


TINY = ("--cold", "--rounds", 1, "--encoder", "timm/test_resnet", "--size", 32, "--batch", 4, "--threads", 1)


@pytest.mark.slow
def test_training(tmp_path, ran_warm):
    kept = tmp_path / "samples.json"
    words = ("--images", 8, "--val", 4, "--epochs", 2, "--only", "segreg", "limit", "--json", kept)
    printed = ran_warm("training.py", *TINY, *words)
    assert "timm/test_resnet, 8 + 4 images, 1 class, 32x32, batch 4, epochs 2, cpu" in printed
    samples = {sample["name"]: sample for sample in json.loads(kept.read_text())["samples"]}
    assert set(samples) == {"segreg", "limit"}
    for sample in samples.values():
        assert len(sample["epochs_s"]) == 2
        assert 0 < sample["first_s"] < sample["whole_s"]
        assert sample["images_per_s"] > 0
        assert 0 < sample["val_loss"] < 5


@pytest.mark.slow
def test_evaluation_scores_what_scikit_learn_does(tmp_path, ran_warm):
    kept = tmp_path / "samples.json"
    words = ("--images", 6, "--classes", 3, "--only", "segreg", "by_hand", "--json", kept)
    ran_warm("evaluation.py", *TINY, *words)
    samples = json.loads(kept.read_text())["samples"]
    assert len(samples) == 2
    for case in {sample["case"] for sample in samples}:
        of_case = {sample["name"]: sample for sample in samples if sample["case"] == case}
        assert of_case["segreg"]["score"] == pytest.approx(of_case["by_hand"]["score"], abs=0.01)
        assert of_case["segreg"]["ms"] > of_case["segreg"]["scored_ms"] > 0
