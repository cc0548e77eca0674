"""`segreg report`."""

from __future__ import annotations

import shutil

import pytest

import tiny_runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tiny_runs.finished(tmp_path_factory).directory


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished.path, tmp_path / "run")


@pytest.fixture
def unwritten(monkeypatch):
    """Leave the page empty."""
    monkeypatch.setattr("segreg.reports.run.page", lambda *_: "")


def test_it_writes_the_report_again_and_prints_where(run, segreg):
    (run / "report.html").unlink()
    printed = segreg("report", run)
    assert (printed.status, printed.out, printed.err) == (0, f"{run / 'report.html'}\n", "")
    text = (run / "report.html").read_text(encoding="utf-8")
    assert "<h2>Scores</h2>" in text
    assert "<mark>channels: 16</mark>" in text


def test_out_names_another_file(run, segreg, tmp_path):
    (run / "report.html").unlink()
    printed = segreg("report", run, "--out", tmp_path / "new" / "page.html")
    assert printed.out == f"{tmp_path / 'new' / 'page.html'}\n"
    assert "</html>" in (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert not (run / "report.html").exists()


@pytest.mark.usefixtures("unwritten")
def test_figures_are_written_beside_it(run, segreg, tmp_path):
    printed = segreg("report", run, "--figures", tmp_path / "drawn")
    files = sorted((tmp_path / "drawn").iterdir())
    assert {file.name for file in files} >= {"learning_curves.pdf", "learning_curves.svg", "per_image.svg"}
    assert sorted(printed.out.splitlines()[1:]) == [f"wrote {file}" for file in files]


@pytest.mark.usefixtures("unwritten")
def test_open_shows_it(run, segreg, monkeypatch):
    shown = []
    monkeypatch.setattr("webbrowser.open", lambda address: shown.append(address) or True)
    assert segreg("report", run, "--open").status == 0
    assert shown == [(run / "report.html").as_uri()]
    monkeypatch.setattr("webbrowser.open", lambda address: False)
    assert segreg("report", run, "--open").err == f"warning: no browser could be started; open {run / 'report.html'}\n"


def test_a_run_whose_plugin_is_gone_is_still_reported(run, segreg):
    file = run / "resolved.yaml"
    file.write_text(file.read_text().replace("name: dice_bce", "name: loss_of_a_plugin"))
    printed = segreg("report", run)
    assert printed.status == 0
    assert printed.err.startswith("warning: what differs from the defaults is not marked: ")
    text = (run / "report.html").read_text(encoding="utf-8")
    assert "name: loss_of_a_plugin" in text
    assert "<mark>" not in text


def test_mistakes_are_reported(run, segreg, tmp_path):
    assert segreg("report", tmp_path / "nothing").err == f"error: there is no run {tmp_path / 'nothing'}\n"
    printed = segreg("report", run, "--out", tmp_path)
    assert (printed.status, printed.err) == (
        2, f"error: {tmp_path} is a folder\n  name a file: --out {tmp_path / 'report.html'}\n",
    )  # fmt: skip
    (run / "environment.json").write_text("[]")
    printed = segreg("report", run)
    assert printed.status == 2
    assert printed.err == (
        f"error: {run / 'environment.json'}: damaged: it does not hold an object\n  it should be what the run ran on\n"
    )
