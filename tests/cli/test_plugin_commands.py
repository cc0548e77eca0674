"""Commands that plugins add: found, run, clashing, broken."""

from __future__ import annotations

import re

import pytest

import plugged
from segreg.registry.registry import load_registry

GREET = """
from segreg import Command, SegregError, hookimpl

def arguments(parser):
    parser.add_argument("name")

def execute(chosen):
    if chosen.name == "nobody":
        raise SegregError("there is nobody to greet", hint="name somebody")
    if chosen.name == "bug":
        raise ZeroDivisionError
    print("hello", chosen.name)
    return 1 if chosen.name == "half" else 0

@hookimpl
def segreg_commands():
    return [Command("{name}", "greet somebody", arguments, execute, examples="examples:\\n  segreg {name} you\\n")]
"""


@pytest.fixture
def greet(plugin, installed):
    """Install a package that adds a command: `greet("hello")`."""

    def install(*names, distribution="segreg-lab"):
        points = [plugin(GREET.replace("{name}", name), name=name, distribution=distribution) for name in names]
        installed(*plugged.builtin(), *points)
        return points

    return install


def test_a_command_runs_with_its_arguments_and_its_exit_status(greet, segreg):
    greet("hello")
    assert segreg("hello", "you").out == "hello you\n"
    assert [segreg("hello", name).status for name in ("you", "half")] == [0, 1]


def test_a_command_of_a_plugin_file_prints_its_own_json(segreg, tmp_path):
    file = tmp_path / "count.py"
    file.write_text(
        "import segreg\n"
        "def arguments(parser): parser.add_argument('--json', action='store_true')\n"
        "def execute(chosen): print('[3]')\n"
        "count = segreg.Command('count', 'count', arguments, execute)\n"
    )
    assert segreg("count", "--json", "--plugin", str(file)).out == "[3]\n"


def test_help_lists_it_and_it_has_help_of_its_own(greet, segreg):
    greet("hello")
    assert re.search(r"^    hello +greet somebody$", segreg("--help").out, re.MULTILINE)
    printed = segreg("hello", "--help")
    assert printed.status == 0
    assert "Greet somebody." in printed.out
    assert "  segreg hello you\n" in printed.out


def test_a_users_mistake_is_printed_without_a_traceback_and_a_bug_keeps_it(greet, segreg):
    greet("hello")
    printed = segreg("hello", "nobody")
    assert (printed.status, printed.out, printed.err) == (2, "", "error: there is nobody to greet\n  name somebody\n")
    assert segreg("hello").err.startswith("usage: segreg hello")
    with pytest.raises(ZeroDivisionError):
        segreg("hello", "bug")


def test_under_torchrun_it_is_refused(greet, segreg, monkeypatch):
    greet("hello")
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused = []
    monkeypatch.setattr("segreg.runtime.distributed.refuse_several", refused.append)
    segreg("hello", "you")
    assert refused == ["hello"]


def test_the_benchmarks_commands_come_the_same_way(greet, segreg):
    greet("hello")
    offered = load_registry(plugged.builtin()).commands()
    assert list(offered) == ["bench", "best", "compare", "matrix", "tune"]
    out = segreg("--help").out
    assert all(f"\n    {name} " in out for name in offered)


def test_two_packages_with_one_name_are_named_with_their_places(plugin, installed, segreg):
    one = plugin(GREET.replace("{name}", "hello"), distribution="segreg-one")
    other = plugin(
        GREET.replace("{name}", "hello").replace('hello", chosen', 'bye", chosen'), distribution="segreg-two"
    )
    installed(one, other)
    printed = segreg("hello", "you")
    assert printed.status == 2
    assert 'the command "hello" is offered more than once: by segreg-one 1.0 (' in printed.err
    assert f"{one.value}.py:7) and by segreg-two 1.0 (" in printed.err
    assert 'say which one: "segreg hello@segreg-one" or "segreg hello@segreg-two"' in printed.err
    assert segreg("hello@segreg-two", "you").out == "bye you\n"
    assert "hello@segreg-one" in segreg("--help").out


def test_a_clash_with_a_command_of_the_benchmark_is_one_too(greet, segreg):
    greet("matrix")
    printed = segreg("matrix", "you")
    assert printed.status == 2
    assert 'the command "matrix" is offered more than once' in printed.err
    assert segreg("matrix@segreg-lab", "you").out == "hello you\n"


def test_a_command_that_is_always_there_is_not_replaced(greet, segreg):
    greet("recipes")
    assert "isic_v3plus" in segreg("recipes").out
    assert segreg("recipes@segreg-lab", "you").out == "hello you\n"
    assert "recipes@segreg-lab" in segreg("--help").out


def test_a_broken_package_takes_no_other_command_down_and_is_named(plugin, installed, segreg):
    good = plugin(GREET.replace("{name}", "hello"))
    installed(good, plugin("import nowhere_to_be_found", name="other", distribution="segreg-broken"))
    assert segreg("hello", "you").out == "hello you\n"
    printed = segreg("helo", "you")
    assert printed.status == 2
    assert 'there is no command "helo"' in printed.err
    assert 'did you mean "hello"?' in printed.err
    assert "segreg-broken 1.0 could not be loaded and may offer it" in printed.err


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (('Command("{name}"', 'Command("Say Hello"'), "'Say Hello' can't be a command's name"),
        (('"greet somebody"', '""'), "the command 'hello' needs a help text of one line"),
        (("return [Command", "return 7 or [Command"), "segreg_commands returned 7, which is not a list"),
        (
            ("return [Command", "return ['x'] or [Command"),
            "segreg_commands returned 'x', which is not a segreg.Command",
        ),
        (("return [", "return 2 * ["), "segreg_commands returned 'hello' twice"),
    ],
)
def test_what_cannot_be_a_command_is_refused_with_its_place(changed, expected, plugin):
    (found,) = load_registry([plugin(GREET.replace(*changed).replace("{name}", "hello"))]).plugins
    (fault,) = found.faults
    assert expected in fault.message
    assert ".py:" in fault.message


def test_a_command_whose_arguments_fail_takes_no_other_down(plugin, installed, segreg):
    failing = GREET.replace("parser.add_argument", "raise SystemExit(0) or parser.add_argument")
    bad = plugin(failing.replace("{name}", "bad").replace("greet somebody", "50% faster"), distribution="segreg-bad")
    installed(plugin(GREET.replace("{name}", "hello")), bad)
    assert segreg("hello", "you").out == "hello you\n"
    assert "50% faster" in segreg("--help").out
    printed = segreg("bad")
    assert printed.status == 2
    assert re.search(r'error: .*\.py:4: the arguments of the command "bad" can.t be added: SystemExit: 0', printed.err)


def test_segreg_plugins_lists_commands(greet, segreg):
    greet("hello")
    printed = segreg("plugins").out
    assert "offers commands: hello (" in printed
    assert "offers commands: bench, best, compare, matrix, tune (" in printed
