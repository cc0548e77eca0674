"""A package outside of the repository takes part once it is installed, in a normal or an editable install."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pytest

PROJECT = Path(__file__).parent / "segreg_outside"
ROOT = Path(__file__).parents[2]

# Nothing here imports segreg_outside. `addsitedir` does to a folder what Python does to its own site-packages when it
# starts: the folder is searched for packages and their entry points, and its .pth files are obeyed.
PROGRAM = """
import contextlib, io, json, site, sys
site.addsitedir(sys.argv[1])
from segreg.cli import main
done = []
for words in json.loads(sys.argv[2]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(words)
    done.append((status, out.getvalue(), err.getvalue()))
print(json.dumps(done))
"""

RECIPE = """\
dataset: {name: outside.arrays, folder: arrays}
split: {method: random, val: 0.25, test: 0.25}
input: {size: [32, 32], normalize: none}
encoder: {name: outside.two_levels, width: 4}
decoder: {name: smp.fpn, pyramid_channels: 16, channels: 64}
loss:
  - {name: outside.squared_error, power: 1.5}
  - dice
optimizer: {name: adam, lr: 1e-2}
train: {epochs: 1, batch_size: 4, workers: 0, device: cpu}
evaluate: {metrics: [dice], overlays: 1}
"""


def dist_info(site_packages, *, files):
    """Write what an installer writes beside the package's files: METADATA, entry_points.txt and RECORD."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = site_packages / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    (info / "WHEEL").write_text("Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    (info / "INSTALLER").write_text("tests\n")
    groups = project["entry-points"].items()
    lines = [line for group, points in groups for line in (f"[{group}]", *(f"{n} = {m}" for n, m in points.items()))]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    rows = []
    for file in [*files, *sorted(info.iterdir())]:
        digest = base64.urlsafe_b64encode(hashlib.sha256(file.read_bytes()).digest()).rstrip(b"=").decode()
        rows.append(f"{file.relative_to(site_packages)},sha256={digest},{file.stat().st_size}")
    (info / "RECORD").write_text("\n".join([*rows, f"{info.name}/RECORD,,"]) + "\n")


@pytest.fixture(params=["normal", "editable"])
def run(request, tmp_path, python):
    """Install the package into a folder of its own and return what runs segreg's commands with it, in one process.

    `run(["list", "encoder"], ...)` returns the exit status, the output and the errors of each.
    """
    site_packages = tmp_path / "site-packages"
    site_packages.mkdir()
    if request.param == "normal":
        shutil.copytree(
            PROJECT / "src" / "segreg_outside",
            site_packages / "segreg_outside",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        files = sorted((site_packages / "segreg_outside").iterdir())
    else:
        path_file = site_packages / "__editable__.segreg_outside.pth"
        path_file.write_text(f"{PROJECT / 'src'}\n")
        files = [path_file]
    dist_info(site_packages, files=files)

    def program(*commands):
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONWARNINGS": "error",
            "SEGREG_CACHE": str(tmp_path / "cache"),
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(
            [*python, "-c", PROGRAM, str(site_packages), json.dumps(commands)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    program.installed = PROJECT / "src" if request.param == "editable" else site_packages
    return program


def test_it_appears_in_list_show_check_and_plugins(run, tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    done = run(
        ["list", "--json"], ["list", "encoder", "outside*"], ["show", "loss", "outside.squared_error", "--json"],
        ["plugins", "--json"], ["check", "recipe.yaml"], ["check", "recipe.yaml", "encoder.widht=3"],
    )  # fmt: skip
    assert [status for status, *_ in done] == [0, 0, 0, 0, 0, 2], done
    listed, encoders, shown, plugins, checked, _ = (out for _, out, _ in done)
    rows = [row for row in json.loads(listed) if row["distribution"] == "segreg-outside"]
    assert [(row["kind"], row["name"], row["version"]) for row in rows] == [
        ("encoder", "outside.two_levels", "1.2"),
        ("loss", "outside.squared_error", "1.2"),
        ("dataset", "outside.arrays", "1.2"),
    ]
    assert "outside.two_levels" in encoders

    shown = json.loads(shown)
    assert shown["defined"].startswith(f"{run.installed}/segreg_outside/__init__.py:")
    assert [(s["name"], s["type"], s["default"]) for s in shown["settings"]] == [("power", "a number above 0", 2.0)]

    plugins = {row["distribution"]: row for row in json.loads(plugins)}
    assert plugins["segreg-outside"]["error"] == ""
    assert plugins["segreg-outside"]["module"] == "segreg_outside"

    assert checked == "recipe.yaml: fine\n"
    said = done[-1][2]
    assert 'the encoder "outside.two_levels" has no setting "widht"\n  did you mean "width"?' in said
    assert "(segreg-outside 1.2)" in said


def test_it_can_be_switched_off(run, tmp_path, monkeypatch):
    monkeypatch.setenv("SEGREG_DISABLE_PLUGINS", "segreg-outside")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (status, listed, _), (refused, _, said) = run(["list"], ["check", "recipe.yaml"])
    assert (status, refused) == (0, 2)
    assert "outside" not in listed
    assert "switched off by SEGREG_DISABLE_PLUGINS" in said


@pytest.mark.slow
def test_a_recipe_of_its_parts_runs(run, tmp_path):
    folder = tmp_path / "arrays"
    folder.mkdir()
    chance = np.random.default_rng(0)
    for number in range(8):
        mask = np.zeros((32, 32), dtype=np.uint8)
        top, left = chance.integers(2, 14, 2)
        mask[top : top + 14, left : left + 14] = 1
        image = (chance.integers(0, 60, (32, 32, 3)) + 180 * mask[..., None]).astype(np.uint8)
        np.save(folder / f"square{number:02d}.image.npy", image)
        np.save(folder / f"square{number:02d}.mask.npy", mask)
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    ((status, out, err),) = run(["run", "recipe.yaml", "--json"])
    assert status == 0, err
    results = json.loads(out)
    directory = tmp_path / results["run"]
    assert (directory / "resolved.yaml").is_file()
    assert "outside.two_levels" in (directory / "resolved.yaml").read_text()
    environment = " ".join(f.read_text() for f in directory.glob("environment*"))
    assert "segreg-outside" in environment, "the run does not tell which plugin took part"
    ((_, out, err),) = run(["check", str(directory / "resolved.yaml")])
    assert out.endswith(": fine\n"), err
