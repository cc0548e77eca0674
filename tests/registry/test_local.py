"""Plugin files and entries made in Python: what they offer, what is wrong with them, who takes part in them."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
from types import SimpleNamespace
from unittest import mock

import pytest

import plugged
import segreg
import tiny_runs
from segreg.errors import SegregError
from segreg.registry import local
from segreg.registry.registry import load_registry
from segreg.runs.directory import RunDirectory
from segreg.runs.plugin_files import keep, plugins_of
from segreg.runtime.files import write_json
from segreg.testing import package_checks

PARTS = '''
import torch, albumentations
from segreg import Entry

def hinge(task, *, margin: float = 1.0):
    """Hinge loss.

    Args:
        margin: how far logits are to be from 0.
    """
    return lambda logits, target: torch.relu(margin - (2.0 * target.unsqueeze(1) - 1) * logits).mean()

class Flip(albumentations.HorizontalFlip):
    pass

def flip():
    """Flip half of the images."""
    return Flip(p=0.5)

OFFERS = [Entry("loss", "hinge", hinge), Entry("augmentation", "my_flip", flip)]
'''


@pytest.fixture(autouse=True)
def _of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(local.VARIABLE, raising=False)
    monkeypatch.setattr(local, "_registered", {})
    monkeypatch.setattr("segreg.registry.registry.entry_points", lambda group: plugged.builtin())


@pytest.fixture
def parts(tmp_path):
    file = tmp_path / "my_parts.py"
    file.write_text(PARTS, encoding="utf-8")
    return file


def test_a_file_offers_the_entries_that_it_defines_within_the_context_alone(parts):
    with local.using([parts]):
        part = load_registry().find("loss", "hinge")
        assert part.plugin.title.startswith("my_parts.py ")
        assert part.offer.place == f"{parts}:5"
        assert list(part.settings) == ["margin"]
        assert load_registry().find("loss", "hinge@my_parts.py").name == "hinge"
    with pytest.raises(SegregError, match='there is no loss "hinge"'):
        load_registry().find("loss", "hinge")
    assert not (parts.parent / "__pycache__").exists()


def test_an_edited_file_is_another_plugin_though_name_and_size_stay(parts):
    with local.using([parts]):
        before = load_registry().find("loss", "hinge").plugin
        parts.write_text(PARTS.replace("Hinge loss.", "Hinge Loss."), encoding="utf-8")
        after = load_registry().find("loss", "hinge")
    assert after.summary == "Hinge Loss."
    assert before.digest != after.plugin.digest


def test_a_file_with_hooks_offers_what_they_return(tmp_path):
    file = tmp_path / "observer.py"
    file.write_text(plugged.OFFERING.format(name="quartic"), encoding="utf-8")
    with local.using([file]):
        assert load_registry().find("loss", "quartic").plugin.distribution == "observer.py"


def test_a_name_that_segreg_has_too_is_chosen_by_the_files_name(tmp_path, parts):
    parts.write_text(PARTS.replace('"hinge", hinge', '"dice", hinge'), encoding="utf-8")
    with local.using([parts]):
        with pytest.raises(SegregError, match="is offered more than once: by ") as error:
            load_registry().find("loss", "dice")
        assert '"dice@my_parts.py"' in error.value.problems[0].hint
        assert load_registry().find("loss", "dice@my_parts.py").plugin.file == parts


HOSTILE = {
    "a syntax error": ("def f(:\n", "bad.py:1: SyntaxError"),
    "no entry": ("x = 1\n", "bad.py offers nothing"),
    "what raises": ("x = 1\n1 / 0\n", "bad.py:2: ZeroDivisionError"),
    "what exits": ("raise SystemExit(0)\n", "bad.py:1: SystemExit"),
    "what ends the process": ("import os\nos._exit(3)\n", "os._exit(3)"),
    "an import of nothing": ("import no_such_module_here\n", "bad.py:1: ModuleNotFoundError"),
    "a hook without its mark": ("def segreg_entries():\n    return []\n", "it implements no hook"),
    "null bytes": ("x = 1\n\0", "null bytes"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_can_not_be_used_is_an_error_with_its_line(name, tmp_path):
    source, reported = HOSTILE[name]
    file = tmp_path / "bad.py"
    file.write_text(source, encoding="utf-8")
    with local.using([file]), pytest.raises(SegregError) as error:
        load_registry()
    assert str(error.value).startswith("the plugin file bad.py can't be used: ")
    assert reported in str(error.value)


def test_an_entry_that_breaks_its_contract_is_reported_where_it_is_named_and_the_others_are_there(parts):
    parts.write_text(PARTS.replace("def flip():", "def flip(size):"), encoding="utf-8")
    with local.using([parts]):
        registry = load_registry()
        assert registry.find("loss", "hinge").name == "hinge"
        with pytest.raises(SegregError, match=r'augmentation "my_flip" of my_parts.py \w+ can.t be used') as error:
            registry.find("augmentation", "my_flip")
    assert f"{parts}:16: " in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "reported"),
    [
        ("missing.py", None, "there is no plugin file"),
        ("parts.txt", b"", "its name doesn't end in .py"),
        ("latin.py", b"# \xe9", "is not UTF-8 text"),
    ],
)
def test_a_file_that_can_not_be_read_is_reported(name, content, reported, tmp_path, segreg):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    printed = segreg("list", "loss", "--plugin", tmp_path / name)
    assert printed.status == 2
    assert reported in printed.err
    assert str(tmp_path / name) in printed.err


def test_two_files_of_one_name_are_refused(tmp_path, parts, segreg):
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / parts.name
    other.write_text(PARTS, encoding="utf-8")
    printed = segreg("list", "--plugin", parts, "--plugin", other)
    assert printed.err.startswith(f"error: two plugin files are called my_parts.py: {parts} and {other}")


def test_what_a_file_prints_stays_out_of_json(parts, segreg):
    parts.write_text("print('noise')\n" + PARTS, encoding="utf-8")
    printed = segreg("show", "loss", "hinge", "--json", f"--plugin={parts}")
    assert json.loads(printed.out)["distribution"] == "my_parts.py"
    assert local.VARIABLE not in os.environ


def test_another_process_reads_an_object_of_a_files_class(parts, python):
    with local.using([parts]):
        made = pickle.dumps(load_registry().find("augmentation", "my_flip").build())
        code = f"import pickle; print(type(pickle.loads({made!r})).__name__)"
        done = subprocess.run([*python, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "Flip\n"


# entries made in Python


def quartic(task):
    """Fourth power of the error."""
    return lambda logits, target: ((logits.sigmoid()[:, 0] - target) ** 4).mean()


def cubic(task):
    """Third power of the error."""
    return lambda logits, target: ((logits.sigmoid()[:, 0] - target).abs() ** 3).mean()


def test_a_registered_entry_is_offered_and_another_of_its_name_takes_its_place():
    segreg.register(segreg.Entry("loss", "mine", quartic))
    first = load_registry().find("loss", "mine")
    segreg.register(segreg.Entry("loss", "mine", cubic))
    second = load_registry().find("loss", "mine")
    assert (first.summary, second.summary) == ("Fourth power of the error.", "Third power of the error.")
    assert first.plugin.title == "registered in this process"
    assert first.plugin.digest != second.plugin.digest
    assert callable(segreg.build_part("loss", "mine", segreg.Task(("a",), "binary")))


def test_a_builder_of_code_that_exec_ran_has_no_module_and_is_offered(monkeypatch):
    monkeypatch.setattr(quartic, "__module__", None)
    segreg.register(segreg.Entry("loss", "quarter", quartic))
    assert load_registry().find("loss", "quarter").plugin.title == "registered in this process"


def test_a_file_is_registered_by_its_path(parts, monkeypatch):
    monkeypatch.setenv(local.VARIABLE, "")
    segreg.register(parts)
    assert load_registry().find("loss", "hinge").plugin.file == parts


@pytest.mark.parametrize("stranger", [3, quartic, None])
def test_what_is_no_entry_is_refused(stranger):
    with pytest.raises(SegregError, match=r"can.t be registered\n  for example: segreg.register"):
        segreg.register(stranger)


# runs


@pytest.fixture
def recipe(tmp_path):
    return tiny_runs.write_recipe(tmp_path)


@pytest.fixture
def undrawn(monkeypatch):
    """Draw no diagrams and no reports."""
    monkeypatch.setattr("segreg.runs.evaluate_run.plot_metrics", lambda *_: None)
    monkeypatch.setattr("segreg.reports.comparison.page", lambda *_: "")
    with tiny_runs.undrawn():
        yield


SMALL = ("decoder={name: mlp, channels: 8}", "train.epochs=1", "evaluate.overlays=0")
SHORT = ("loss=hinge", "augment=[my_flip]", "train.workers=1", *SMALL)


def test_a_new_file_trains_and_its_run_finds_it_again(
    tmp_path, parts, recipe, segreg, monkeypatch, warm_workers, undrawn
):
    """A run keeps the file's text; who has run it uses the run without naming the file, and nobody else does."""
    monkeypatch.chdir(tmp_path)
    done = segreg("run", recipe, *SHORT, "--plugin", "my_parts.py", "--json")
    assert done.status == 0, done.err
    run = tmp_path / json.loads(done.out)["run"]
    assert (run / "plugins" / "my_parts.py").read_text(encoding="utf-8") == PARTS
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    assert str(parts) in [row.get("file") for row in environment["plugins"]]
    assert "my_parts.py:my_parts" in environment["sources"]

    again = segreg("run", "--resume", run, "train.epochs=2", "--quiet")
    assert (again.status, "warning" in again.err) == (0, False)
    parts.write_text(PARTS.replace("p=0.5", "p=0.25"), encoding="utf-8")  # the text of then is known all the same
    assert segreg("evaluate", run, "--quiet").status == 0
    compared = segreg("compare", run, "--rounds", "1", "--json")
    assert compared.status == 0, compared.err
    assert "latency_p50_ms" in json.loads(compared.out)["models"][0]["costs"], "measured in another process"
    edited = segreg("evaluate", run, "--quiet", "--plugin", parts)
    assert edited.status == 0
    assert f"note: {parts} is not the my_parts.py that {run} was made with" in edited.err
    continued = segreg("run", "--resume", run, "train.epochs=3", "--plugin", parts)
    assert 'warning: the source of "my_parts.py:my_parts" has changed' in continued.out
    assert len(list((run / "plugins").iterdir())) == 2

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "stranger's"))
    kept = run / "plugins" / "my_parts.py"
    for words in (("evaluate", run), ("run", "--resume", run)):
        refused = segreg(*words)
        assert refused.status == 2
        assert f"add: --plugin {kept}" in refused.err
    assert segreg("evaluate", run, "--quiet", "--plugin", kept).status == 0


def test_a_run_directory_that_was_changed_runs_nothing(tmp_path, parts, recipe, segreg, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with tiny_runs.undrawn():
        run = tmp_path / json.loads(segreg("run", recipe, *SHORT, "--plugin", parts, "--json").out)["run"]
    (run / "plugins" / "my_parts.py").write_text(f"open({str(tmp_path / 'proof')!r}, 'w')\n{PARTS}", encoding="utf-8")
    assert segreg("evaluate", run).status == 2
    assert segreg("report", run).status == 0
    assert not (tmp_path / "proof").exists()


def test_a_run_of_a_registered_entry_says_so_where_it_is_missing(tmp_path, recipe, monkeypatch, undrawn):
    segreg.register(segreg.Entry("loss", "mine", quartic))
    run = segreg.run_recipe(recipe, ["loss=mine", *SMALL], out=tmp_path / "runs", progress="quiet")
    environment = json.loads(run.directory.environment.read_text(encoding="utf-8"))
    (row,) = [row for row in environment["plugins"] if row["distribution"] == "registered"]
    assert (row["name"], "def quartic" in row["text"]) == ("loss.mine", True)
    monkeypatch.setattr(local, "_registered", {})
    with pytest.raises(SegregError, match=r"loss\.mine that a Python process had registered\n  segreg.register it"):
        segreg.evaluate(run)


def test_a_bench_takes_part_in_a_file(tmp_path, parts, recipe, segreg, monkeypatch, warm_workers):
    monkeypatch.chdir(tmp_path)
    words = (*SMALL, "--vary", "loss=hinge", "--rounds", "0", "--quiet")
    done = segreg("bench", recipe, *words, "--plugin", parts)
    assert done.status == 0, done.err
    assert "hinge" in done.out


SCRIPT = """
import sys
import segreg
from segreg.benchmark.cost import running
running.check_memory = lambda *_, **__: ""
print("begins")
segreg.register("my_parts.py")

def mine(task):
    "Nothing."

segreg.register(segreg.Entry("loss", "mine", mine))
options = {"loss": ["hinge"], "epochs": 1, "cost": False, "progress": "quiet"}
try:
    segreg.bench("tiny.yaml", **{**options, "loss": ["mine"]})
except segreg.SegregError as error:
    print(error)
small = {"evaluate.overlays": 0, "decoder": {"name": "mlp", "channels": 8}}
found = segreg.bench("tiny.yaml", small, out="out", **options)
print(sorted(model.name for model in found.models), found.failures)
"""


AS_A_PROGRAM = """
import multiprocessing, runpy
multiprocessing.get_context = multiprocessing.context._default_context.get_context
runpy.run_path("script.py", run_name="__main__")
"""
"""Run the script by a Python that has the imports, but whose workers are no forks of it."""


@pytest.mark.slow
def test_a_script_without_a_guard_starts_one_bench_that_knows_the_file_and_not_the_entry(
    tmp_path, parts, recipe, python
):
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    program = [*python, "-c", AS_A_PROGRAM]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    begins, refused, hint, found = done.stdout.splitlines()
    assert begins == "begins"
    assert refused.startswith("only this process knows the loss mine, and models are trained and measured in processes")
    assert 'segreg.register("my_parts.py")' in hint
    assert found == "['hinge'] ()"
    assert not (tmp_path / "benches").exists()
    logs = "".join(log.read_text(encoding="utf-8") for log in (tmp_path / "out" / "trials").glob("*.log"))
    assert "begins" not in logs
    assert len(list((tmp_path / "out" / "runs").glob("*/seed-0"))) == 1


def test_costs_of_a_run_of_a_registered_entry_are_refused(tmp_path, recipe, undrawn):
    segreg.register(segreg.Entry("loss", "mine", quartic))
    run = segreg.run_recipe(recipe, ["loss=mine", *SMALL], out=tmp_path / "runs", progress="quiet")
    assert segreg.compare(run).models[0].costs.keys() == {"seconds_to_best_epoch"}
    with pytest.raises(SegregError, match=r"only this process knows the loss mine.*\n.*segreg\.register\(\"my_parts"):
        segreg.compare(run, cost=True)


def test_a_failed_check_of_the_kit_points_into_the_file(tmp_path):
    file = tmp_path / "my_parts.py"
    file.write_text(PARTS.replace("torch.relu", "torch.rleu"))
    with local.using([file]):
        check = next(c for c in package_checks("my_parts.py", ["loss.*"]) if c.name == "it_is_finite_everywhere")
        assert check.outcome().place == f"{file}:11"


def test_a_user_without_a_home_names_the_files_of_a_run(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr("pathlib.Path.home", mock.Mock(side_effect=RuntimeError("Could not determine home directory.")))
    file = tmp_path / "own.py"
    file.write_text("")
    directory = RunDirectory(tmp_path / "run")
    directory.path.mkdir()
    keep(directory, SimpleNamespace(plugins=[SimpleNamespace(file=file)]))
    write_json(directory.environment, {"plugins": [{"file": str(file)}]})
    kept = directory.path / "plugins" / "own.py"
    with pytest.raises(SegregError, match=re.escape(f"add: --plugin {kept}")), plugins_of(directory):
        raise SegregError('there is no encoder "own"')
    with plugins_of(directory) as taking_part:
        assert not taking_part
