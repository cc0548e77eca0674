"""Plugins of every kind of making: loaded, reported, distinguished, switched off, and notified."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import re
import signal
from importlib.metadata import PackageNotFoundError, PathDistribution
from pathlib import Path

import pytest

import plugged
from segreg.errors import SegregError
from segreg.registry.registry import _digest_of_files, load_registry, source_digest

GOOD = plugged.OFFERING.format(name="ours")


def only(registry):
    (plugin,) = registry.plugins
    return plugin


# what a good plugin leaves


def test_a_part_knows_who_brought_it_and_where_it_stands(plugin):
    source = plugin(GOOD, name="losses", distribution="segreg-foo", version="2.1")
    part = load_registry([source]).find("loss", "ours")
    assert part.summary == "A loss of the tests."
    assert part.plugin.title == "segreg-foo 2.1"
    assert (part.plugin.name, part.plugin.module) == ("losses", source.value)
    assert part.offer.place.endswith(f"{source.value}.py:5")
    assert part.defined == f"{part.offer.place} (segreg-foo 2.1)"
    assert list(part.settings) == ["power"]
    assert part.plugin.error == ""
    assert part.plugin.seconds > 0


def test_a_part_is_built_from_what_is_given_and_set(plugin):
    source = plugin("""
from segreg.registry.entry import Entry, Family
from segreg.registry.hooks import hookimpl

def one(task, *, power: float = 1.0):
    '''A loss.

    Args:
        power: of something.
    '''
    return task, power

def many(member, task, *, power: float = 1.0):
    '''A loss.

    Args:
        power: of something.
    '''
    return member, task, power

@hookimpl
def segreg_entries():
    yield Entry("loss", "one", one)
    yield Family("loss", "zoo", "zoo/", many, lambda: ["a", "b"])
""")
    registry = load_registry([source])
    assert registry.find("loss", "one").build("task", power=2.0) == ("task", 2.0)
    assert registry.find("loss", "zoo/b").build("task", power=2.0) == ("b", "task", 2.0)
    assert registry.find("loss", "zoo/b").member == "b"


def test_an_object_in_a_module_may_be_the_plugin(plugin):
    source = plugin("""
from segreg.registry.hooks import hookimpl

class Plugin:
    @hookimpl
    def segreg_entries(self):
        return []

plugin = Plugin()
""")
    reported = only(load_registry([plugged.point(source.value + ":plugin")]))
    assert (reported.error, reported.parts) == ("", ())


def test_the_entry_points_of_the_group_are_loaded(plugin, installed):
    installed(plugin(GOOD))
    assert load_registry().names("loss") == ["ours"]


def test_no_plugins_at_all():
    registry = load_registry([])
    assert registry.plugins == ()
    with pytest.raises(SegregError) as output:
        registry.find("loss", "dice")
    assert (
        str(output.value) == 'there is no loss "dice"\n  no plugin offers a loss\n  `segreg list loss` shows every loss'
    )


def test_the_order_is_that_of_names_whatever_the_order_of_loading(plugin):
    points = [
        plugin(plugged.OFFERING.format(name=f"loss{n}"), name=name, distribution=distribution)
        for n, (distribution, name) in enumerate([("b", "y"), ("b", "x"), ("a", "z")])
    ]
    forwards, backwards = load_registry(points), load_registry(reversed(points))
    assert [(p.distribution, p.name) for p in forwards.plugins] == [("a", "z"), ("b", "x"), ("b", "y")]
    assert [(p.distribution, p.name) for p in backwards.plugins] == [("a", "z"), ("b", "x"), ("b", "y")]
    assert [part.name for part in backwards.parts("loss")] == ["loss0", "loss1", "loss2"]


def test_every_loading_is_a_fresh_one(plugin):
    source = plugin(GOOD)
    assert load_registry([source]).names("loss") == load_registry([source]).names("loss") == ["ours"]


# two that offer the same


def test_two_packages_may_have_an_entry_point_of_the_same_name(plugin):
    # pluggy's own loading of entry points drops the second without a word
    first = plugin(plugged.OFFERING.format(name="one"), name="losses", distribution="segreg-foo")
    second = plugin(plugged.OFFERING.format(name="two"), name="losses", distribution="segreg-bar")
    assert load_registry([first, second]).names("loss") == ["one", "two"]


def test_a_name_offered_twice_is_an_error_when_it_is_used_and_a_package_can_be_chosen(plugin):
    registry = load_registry([plugin(GOOD, distribution="segreg-foo"), plugin(GOOD, distribution="segreg-bar")])
    assert registry.names("loss") == ["ours"]
    bar, foo = (part.offer.place for part in registry.parts("loss"))
    with pytest.raises(SegregError) as output:
        registry.find("loss", "ours")
    assert str(output.value) == (
        f'the loss "ours" is offered more than once: by segreg-bar 1.0 ({bar}) and by segreg-foo 1.0 ({foo})\n'
        '  say which one: "ours@segreg-bar" or "ours@segreg-foo"'
    )
    assert registry.find("loss", "ours@segreg-foo").plugin.distribution == "segreg-foo"
    assert registry.find("loss", "ours@segreg-foo").name == "ours"
    with pytest.raises(SegregError) as output:
        registry.find("loss", "ours@segreg-baz")
    assert str(output.value) == (
        'there is no loss "ours@segreg-baz"\n'
        '  "ours" is offered by "segreg-bar" and "segreg-foo"\n'
        "  `segreg list loss` shows every loss"
    )


def test_a_name_offered_twice_by_one_package_says_so_without_a_choice(plugin):
    registry = load_registry([plugin(GOOD, name="a"), plugin(GOOD, name="b")])
    first, second = (part.offer.place for part in registry.parts("loss"))
    with pytest.raises(SegregError) as output:
        registry.find("loss", "ours")
    assert str(output.value) == (
        f'the loss "ours" is offered more than once: by segreg-lab 1.0 ({first}) and by segreg-lab 1.0 ({second})'
    )


def test_one_module_under_two_entry_points_counts_once_and_stays_in_use(plugin):
    source = plugin(GOOD + "\n@hookimpl\ndef segreg_run_end(run):\n    raise ValueError(run)\n", name="a")
    again = plugged.point(source.value, name="b")
    registry = load_registry([source, again])
    assert [plugin.error for plugin in registry.plugins] == [
        "",
        f"{source.value} is in use already, through segreg-lab:a",
    ]
    assert registry.find("loss", "ours").plugin.name == "a"
    assert len(registry.notify("segreg_run_end", run="run", results={})) == 1


def test_one_package_with_two_entry_points_of_one_name_keeps_the_first(plugin):
    registry = load_registry([plugin(GOOD), plugin(plugged.OFFERING.format(name="theirs"))])
    assert [p.error for p in registry.plugins] == ["", "the package has an entry point of this name already"]
    assert registry.names("loss") == ["ours"]


# broken ones

HOOK = "from segreg.registry.hooks import hookimpl\n@hookimpl\n"
NO_HOOK = "it implements no hook\n  put @segreg.hookimpl above `def segreg_entries(): ...` in the module"
HOOKS = (
    '  the hooks are "segreg_entries", "segreg_commands", "segreg_run_start", "segreg_epoch_end", "segreg_overlay" and '
    '"segreg_run_end"'
)
MISSPELLED = "{file}:2: it implements a hook that does not exist: "
BROKEN = [
    ("raise ValueError('no')", "{file}:1: ValueError: no"),
    ("import a_module_that_nobody_has", "{file}:1: ModuleNotFoundError: No module named 'a_module_that_nobody_has'"),
    ("x = 1\nimport email.nothing", "{file}:2: ModuleNotFoundError: No module named 'email.nothing'"),
    ("import json\njson.loads('a')", "{file}:2: JSONDecodeError: Expecting value: line 1 column 1 (char 0)"),
    ("def f(:", "{file}:1: SyntaxError: invalid syntax"),
    ("raise SystemExit('bye')", "{file}:1: SystemExit: bye"),
    ("import sys\nsys.exit(0)", "{file}:2: SystemExit: 0"),
    ("x = 1", NO_HOOK),
    ("def segreg_entries():\n    return []", NO_HOOK),
    (HOOK + "def segreg_entrys(): return []", MISSPELLED + 'segreg_entrys\n  did you mean "segreg_entries"?'),
    (HOOK + "def zzz(): return []", MISSPELLED + "zzz\n" + HOOKS),
    (HOOK + "def segreg_entries(): raise RuntimeError('not today')", "{file}:3: RuntimeError: not today"),
    (HOOK + "def segreg_entries(): raise SystemExit", "{file}:3: SystemExit: "),
    (
        HOOK + "def segreg_entries(): pass",
        "{file}:2: segreg_entries returned None, which is not a list of segreg.Entry",
    ),
    (
        HOOK + "def segreg_entries(): return 3",
        "{file}:2: segreg_entries returned 3, which is not a list of segreg.Entry",
    ),
    ("raise KeyboardInterrupt", "{file}:1: KeyboardInterrupt: "),
    ("import os\nos._exit(3)", "{file}:2: SystemExit: os._exit(3)"),
    ("class Fatal(BaseException): pass\nraise Fatal('now')", "{file}:2: Fatal: now"),
]


@pytest.mark.parametrize(("source", "says"), BROKEN, ids=[says.split("\n")[0][:60] for _, says in BROKEN])
def test_a_broken_plugin_is_reported_and_stops_nobody_else(source, says, plugin, tmp_path):
    broken = plugin(source, name="broken", distribution="segreg-broken")
    registry = load_registry([broken, plugin(GOOD)])
    reported = registry.plugins[0]
    assert reported.error == says.format(file=tmp_path / "site-packages" / f"{broken.value}.py")
    assert reported.parts == ()
    assert reported.detail.startswith("Traceback (most recent call last):\n")
    assert registry.names("loss") == ["ours"]
    assert registry.find("loss", "ours").plugin.distribution == "segreg-lab"


def test_a_module_that_is_not_there_is_reported():
    reported = only(load_registry([plugged.point("a_module_that_nobody_has")]))
    begin, again = "its entry point names the module", "\n  where pyproject.toml names another one by now, install the "
    assert reported.error == f"{begin} a_module_that_nobody_has, which is not there{again}package again"
    reported = only(load_registry([plugged.point("a_module_that_nobody_has.parts")]))
    assert reported.error == (
        f"{begin} a_module_that_nobody_has.parts, and there is no a_module_that_nobody_has{again}package again"
    )


def test_a_hook_that_asks_for_what_it_is_not_reported_is_reported(plugin):
    reported = only(
        load_registry(
            [
                plugin("""
from segreg.registry.hooks import hookimpl

@hookimpl
def segreg_run_end(run, model):
    pass
""")
            ]
        )
    )
    assert reported.error.startswith("PluginValidationError: Plugin 'segreg-lab:parts' for hook 'segreg_run_end'\n")
    assert "Argument(s) {'model'} are declared in the hookimpl but can not be found in the hookspec" in reported.error


def test_a_broken_plugin_is_not_reported_about_runs(plugin):
    source = plugin("""
from segreg.registry.hooks import hookimpl

@hookimpl
def segreg_entries():
    raise ValueError

@hookimpl
def segreg_run_end(run):
    raise ValueError
""")
    assert load_registry([source]).notify("segreg_run_end", run="run", results={}) == []


def test_a_part_that_nobody_offers_is_blamed_on_broken_plugins_too(plugin, tmp_path):
    broken = plugin("raise ValueError('no')", distribution="segreg-broken")
    registry = load_registry([broken, plugin(GOOD)])
    with pytest.raises(SegregError) as output:
        registry.find("loss", "theirs")
    assert str(output.value) == (
        'there is no loss "theirs"\n'
        '  it can be "ours"\n'
        "  `segreg list loss` shows every loss\n"
        f"  segreg-broken 1.0 could not be loaded and may offer it: {tmp_path}/site-packages/{broken.value}.py:1: "
        "ValueError: no"
    )


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("around", ["{}", "try:\n    {}\nexcept BaseException:\n    raise ValueError"])
def test_an_interrupt_of_the_user_while_plugins_load_is_no_broken_plugin(number, around, plugin):
    send = f"import os, signal, time; os.kill(os.getpid(), signal.{number}); time.sleep(5)"
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as training has it
    try:
        with pytest.raises(KeyboardInterrupt):
            load_registry([plugin(around.format(send))])
    finally:
        signal.signal(signal.SIGTERM, before)


# what can't be used of a package whose other parts can

ONE_BAD = """
from segreg.registry.entry import Command, Entry, Family
from segreg.registry.hooks import hookimpl

def good(task):
    '''A loss.'''

def bad(task):
    pass

@hookimpl
def segreg_entries():
    {entries}

@hookimpl
def segreg_commands():
    {commands}
"""
GOOD_ENTRY = "Entry('loss', 'good', good)"
COMMAND = "Command('{name}', 'do something', lambda parser: None, good)"
NO_DOCSTRING = "{file}:8: loss 'bad' has no docstring; its first line is what `segreg list` prints"

FAULTS = [
    (f"return [{GOOD_ENTRY}, Entry('loss', 'bad', bad)]", ("loss", "bad", NO_DOCSTRING)),
    (
        f"return [Family('loss', 'bad', 'bad/', good, lambda: []), {GOOD_ENTRY}]",
        ("loss", "bad", "{file}:5: loss family 'bad' is given member, task by position, but its builder"),
    ),
    (f"return [Entry('los', 'bad', good), {GOOD_ENTRY}]", ("los", "bad", "{file}:5: 'los' is not a kind of part")),
    (f"return [Entry('loss', None, good), {GOOD_ENTRY}]", ("loss", "None", "{file}:5: None can't be a name")),
    (f"return [Entry('loss', 'bad', 7), {GOOD_ENTRY}]", ("loss", "bad", "loss 'bad': its builder must be a function")),
    (f"return [Entry('loss', 'bad', int), {GOOD_ENTRY}]", ("loss", "bad", "")),
    (
        f"return [{GOOD_ENTRY}, 'dice']",
        ("", "", "{file}:11: segreg_entries returned 'dice', which is not a segreg.Entry or segreg.Family"),
    ),
    (
        f"return [Entry('loss', 'x', good), Entry('loss', 'x', good), {GOOD_ENTRY}]",
        ("loss", "x", "{file}:11: segreg_entries returned loss 'x' twice; name one otherwise"),
    ),
    (
        f"yield {GOOD_ENTRY}\n    yield Entry('loss', 'bad')",
        ("", "", "segreg_entries stopped after 1 offers: {file}:14: TypeError: "),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("entries", "fault"), FAULTS, ids=[" ".join(fault)[:50] for _, fault in FAULTS])
def test_a_part_that_is_wrong_leaves_the_others_of_its_package_in_use(entries, fault, plugin, tmp_path):
    source = plugin(ONE_BAD.format(entries=entries, commands="return [" + COMMAND.format(name="go") + "]"))
    registry = load_registry([source])
    (reported,) = registry.plugins
    assert reported.error == ""
    assert registry.names("loss") == ["good"]
    assert list(registry.commands()) == ["go"]
    (found,) = reported.faults
    kind, name, message = fault
    assert (found.kind, found.name) == (kind, name)
    message = message.format(file=tmp_path / "site-packages" / f"{source.value}.py")
    assert found.message.startswith(message)
    # a module that is imported already makes the same again
    assert load_registry([source]).plugins[0].faults == reported.faults
    wanted = name or "other"
    with pytest.raises(SegregError) as output:
        registry.find(kind if kind == "loss" else "loss", wanted)
    assert found.message.splitlines()[0] in str(output.value) or kind == "los"


@pytest.mark.parametrize(
    ("commands", "says"),
    [
        ("raise ValueError('no')", "{file}:17: ValueError: no"),
        ("raise SystemExit", "{file}:17: SystemExit: "),
        ("return 7", "{file}:15: segreg_commands returned 7, which is not a list of segreg.Command"),
        ("return [" + COMMAND.format(name="Say it") + "]", "{file}:5: 'Say it' can't be a command's name"),
    ],
)
def test_commands_that_are_wrong_leave_the_parts_in_use(commands, says, plugin, tmp_path):
    source = plugin(ONE_BAD.format(entries=f"return [{GOOD_ENTRY}]", commands=commands))
    registry = load_registry([source])
    assert registry.names("loss") == ["good"]
    (fault,) = registry.plugins[0].faults
    assert fault.kind == "command"
    assert fault.message.startswith(says.format(file=tmp_path / "site-packages" / f"{source.value}.py"))


def test_where_two_packages_offer_a_name_the_one_that_can_be_used_is_found(plugin):
    bad = plugin(ONE_BAD.format(entries="return [Entry('loss', 'good', bad)]", commands="return []"),
                 distribution="segreg-bad")  # fmt: skip
    good = plugin(ONE_BAD.format(entries=f"return [{GOOD_ENTRY}]", commands="return []"), distribution="segreg-good")
    registry = load_registry([bad, good])
    assert registry.find("loss", "good").plugin.distribution == "segreg-good"
    with pytest.raises(SegregError, match=r'loss "good" of segreg-bad 1\.0 can.t be used: .*no docstring'):
        registry.find("loss", "good@segreg-bad")


# what loading must not do


def test_what_a_plugin_prints_while_it_is_loaded_is_kept_aside(plugin, capfd):
    loud = "import os, sys\nprint('hello')\nos.write(1, b'from C\\n')\nos.system('echo a child')\n"
    registry = load_registry([plugin(loud + GOOD, name="a"), plugin(GOOD, name="b")])
    assert [p.output for p in registry.plugins] == ["hello\nfrom C\na child", ""]
    assert capfd.readouterr().out == ""
    print("after")
    assert capfd.readouterr().out == "after\n"


def test_a_handler_that_a_plugin_has_made_works_when_it_is_loaded(plugin, capsys):
    source = plugin("import logging, sys\nhandler = logging.StreamHandler(sys.stdout)\n" + GOOD)
    load_registry([source])
    handler = importlib.import_module(source.value).handler
    handler.emit(logging.LogRecord("a", logging.INFO, "", 1, "later", None, None))
    assert capsys.readouterr().out == "later\n"


def test_the_working_directory_and_the_handlers_of_signals_are_restored(plugin, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    moving = "import os, signal\nos.chdir('/')\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    hook = "\n@hookimpl\ndef segreg_run_end(run):\n    os.chdir('/')\n"
    registry = load_registry([plugin(moving + GOOD + hook)])
    assert Path.cwd() == tmp_path
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert registry.notify("segreg_run_end", run="run", results={}) == []
    assert Path.cwd() == tmp_path


def test_a_builder_that_changes_the_directory_does_not_move_the_run(plugin, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    body = "def ours(task):\n    '''A loss.'''\n    import os\n    os.chdir('/')\n    return task\n"
    source = plugin(body + HOOK.replace("@", "from segreg.registry.entry import Entry\n@")
                    + "def segreg_entries(): return [Entry('loss', 'ours', ours)]")  # fmt: skip
    assert load_registry([source]).find("loss", "ours").build("task") == "task"
    assert Path.cwd() == tmp_path


@pytest.mark.parametrize("moment", ["load", "members", "hook"])
def test_one_that_takes_long_is_named_again_and_again(moment, plugin, monkeypatch, capsys):
    monkeypatch.setattr("segreg.registry.guard.PATIENCE", 0.1)
    monkeypatch.setattr("segreg.registry.guard.AGAIN", 0.1)
    slow = "__import__('time').sleep(0.5)"
    source = zoo(plugin, PREFIX, distribution="segreg-slow", name="beasts")
    file = Path(importlib.util.find_spec(source.value).origin)
    text = file.read_text()
    if moment == "load":
        text = f"{slow}\n{text}"
    elif moment == "members":
        text = text.replace("return ['lion'", f"return {slow} or ['lion'").replace(
            'return ["l', f'return {slow} or ["l'
        )
    else:
        text += f"\n@hookimpl\ndef segreg_run_end(run):\n    {slow}\n"
    file.write_text(text)
    registry = load_registry([source])
    registry.members("encoder")
    registry.notify("segreg_run_end", run="run", results={})
    lines = capsys.readouterr().err.splitlines()
    title = {
        "load": f"loading beasts = {source.value} of segreg-slow 1.0",
        "members": "asking segreg-slow 1.0 for the members of its family animals",
        "hook": "segreg_run_end of segreg-slow:beasts",
    }[moment]
    assert len(lines) > 1
    assert all(re.match(rf"{re.escape(title)} has taken \d+ s so far", line) for line in lines)
    if moment != "hook":
        assert all(line.endswith("; SEGREG_DISABLE_PLUGINS=segreg-slow continues without it") for line in lines)


def test_a_package_without_metadata_takes_nothing_down(plugin, tmp_path, installed):
    folder = tmp_path / "site-packages" / "segreg_torn-1.0.dist-info"
    folder.mkdir()
    (folder / "entry_points.txt").write_text("[segreg]\nparts = json\n")
    torn = next(iter(PathDistribution(folder).entry_points))
    registry = load_registry([torn, plugin(GOOD)])
    assert [p.error for p in registry.plugins] == [NO_HOOK, ""]
    assert registry.names("loss") == ["ours"]


# switched off


@pytest.mark.parametrize(
    "pattern",
    ["segreg-foo", "losses", "segreg-f*", " segreg-foo , other", "*", "segreg_foo", "Segreg.F*"],
)
def test_plugins_are_switched_off_by_package_or_entry_point(pattern, plugin, monkeypatch):
    monkeypatch.setenv("SEGREG_DISABLE_PLUGINS", pattern)
    # a plugin that is off isn't even imported
    reported = only(load_registry([plugin("raise SystemExit", name="losses", distribution="segreg-foo")]))
    assert reported.error == "switched off by SEGREG_DISABLE_PLUGINS"
    assert reported.detail == ""


@pytest.mark.parametrize("pattern", ["", ",", "segreg", "segreg-foobar", "foo"])
def test_no_other_plugin_is_switched_off(pattern, plugin, monkeypatch):
    monkeypatch.setenv("SEGREG_DISABLE_PLUGINS", pattern)
    assert only(load_registry([plugin(GOOD, distribution="segreg-foo")])).error == ""


def test_a_package_that_is_written_with_underscores_is_switched_off_with_hyphens(plugin, monkeypatch):
    monkeypatch.setenv("SEGREG_DISABLE_PLUGINS", "segreg-foo-bar,my-losses")
    offs = [plugin(GOOD, distribution="segreg_Foo.bar"), plugin(GOOD, name="my_losses", distribution="other")]
    assert [p.error for p in load_registry(offs).plugins] == ["switched off by SEGREG_DISABLE_PLUGINS"] * 2


# made for another segreg


@pytest.fixture
def running(monkeypatch):
    """Let segreg be of a version: `running("1.4")`."""
    return lambda version: monkeypatch.setattr(
        "segreg.registry.compatibility.version", lambda name: {"segreg-toolkit": version}[name]
    )


@pytest.mark.parametrize(
    ("requires", "wanted"),
    [
        (["segreg-toolkit>=2"], ">=2"),
        (["torch", "Segreg_Toolkit (<1.4,>=1)"], "<1.4,>=1"),
        (["segreg-toolkit[mlflow]==1.3.*"], "==1.3.*"),
        (["segreg-toolkit>=1", "segreg-toolkit!=1.4 ; python_version >= '3'"], "!=1.4"),
    ],
)
def test_a_plugin_that_does_not_fit_this_segreg_is_reported_and_not_even_imported(requires, wanted, plugin, running):
    running("1.4")
    source = plugin("raise SystemExit", distribution="segreg-foo", requires=requires)
    registry = load_registry([source, plugin(GOOD)])
    refused = next(p for p in registry.plugins if p.distribution == "segreg-foo")
    output = (
        f"it is made for segreg-toolkit{wanted}, and this is segreg-toolkit 1.4\n"
        "  pip install --upgrade segreg-toolkit segreg-foo brings two that fit, where there are such"
    )
    assert (refused.error, refused.parts) == (output, ())
    assert registry.names("loss") == ["ours"]
    with pytest.raises(SegregError) as error:
        registry.find("loss", "theirs")
    assert str(error.value).endswith(
        "\n  segreg-foo 1.0 could not be loaded and may offer it: it is made for "
        f"segreg-toolkit{wanted}, and this is segreg-toolkit 1.4\n"
        "    pip install --upgrade segreg-toolkit segreg-foo brings two that fit, where there are such"
    )


@pytest.mark.parametrize(
    "line",
    [
        "segreg",
        "segreg-toolkit>=1.4,<2",
        "segreg-toolkit @ https://example.org/segreg.whl",
        "segreg-toolkit>=2 ; extra == 'new'",
        "segreg-toolkit>=2 ; python_version < '3'",
        "segreg-other>=2",
        "segreg_plugins>=2",
        "segreg-toolkit~~nonsense",
        "torch>=2",
    ],
)
@pytest.mark.parametrize("version", ["1.4", "1.5.dev3+gabc"])
def test_a_plugin_that_fits_or_does_not_say_is_loaded(line, version, plugin, running):
    running(version)
    assert only(load_registry([plugin(GOOD, requires=[line])])).error == ""


def test_where_segreg_is_not_installed_nobody_is_refused(plugin, monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("segreg.registry.compatibility.version", missing)
    assert only(load_registry([plugin(GOOD, requires=["segreg-toolkit>=99"])])).error == ""


# families

ALL = "\n  `segreg list encoder` shows every encoder"
ZOO = """
from segreg.registry.entry import Entry, Family
from segreg.registry.hooks import hookimpl

def build(member, in_channels):
    '''An animal.'''

def entry(in_channels):
    '''A plant.'''

def lost():
    raise OSError("the list is gone")

def members():
    return ["lion", "tiger", "tigress"]

@hookimpl
def segreg_entries():
    return [{offers}]
"""
PREFIX = "Family('encoder', 'animals', 'zoo/', build, members)"
BARE = "Family('encoder', 'animals', '', build, members)"
LOST = "Family('encoder', 'ghosts', '{prefix}', build, lost)"
ENTRY = "Entry('encoder', '{name}', entry)"


def zoo(plugin, *offers, **named):
    return plugin(ZOO.format(offers=", ".join(offers)), **named)


def test_members_of_a_family_with_a_prefix_are_found_and_listed_on_request(plugin):
    registry = load_registry([zoo(plugin, PREFIX, ENTRY.format(name="fern"))])
    assert registry.find("encoder", "zoo/tiger").summary == "An animal."
    assert registry.names("encoder") == ["fern", "zoo/*"]
    assert registry.members("encoder") == ["zoo/lion", "zoo/tiger", "zoo/tigress"]
    assert [part.name for part in registry.parts("encoder")] == ["fern"]
    assert [part.name for part in registry.parts("encoder", "zoo/TIG*")] == ["zoo/tiger", "zoo/tigress"]
    assert [family.name for _, family in registry.families("encoder")] == ["animals"]


def test_members_of_a_bare_family_are_found_and_listed_like_entries(plugin):
    registry = load_registry([zoo(plugin, BARE, ENTRY.format(name="fern"))])
    assert registry.find("encoder", "tiger").member == "tiger"
    assert registry.names("encoder") == ["fern", "lion", "tiger", "tigress"]
    assert [part.name for part in registry.parts("encoder", "tig*")] == ["tiger", "tigress"]
    assert registry.families("encoder") == []


def test_an_entry_goes_before_a_member_of_the_same_name(plugin):
    registry = load_registry([zoo(plugin, BARE, ENTRY.format(name="lion"))])
    assert registry.find("encoder", "lion").summary == "A plant."


@pytest.mark.parametrize(
    ("offer", "name", "says"),
    [
        (PREFIX, "zoo/tigre", 'animals has no encoder "tigre"\n  did you mean "zoo/tigress" or "zoo/tiger"?'),
        (PREFIX, "zoo/qqq", "animals has no encoder \"qqq\"\n  `segreg list encoder 'zoo/*'` lists them all"),
        (PREFIX, "tiger", 'there is no encoder "tiger"\n  did you mean "zoo/tiger"?' + ALL),
        (BARE, "tigre", 'there is no encoder "tigre"\n  did you mean "tigress" or "tiger"?' + ALL),
    ],
)  # fmt: skip
def test_a_member_that_is_none_is_reported_with_near_names(offer, name, says, plugin):
    with pytest.raises(SegregError) as output:
        load_registry([zoo(plugin, offer)]).find("encoder", name)
    assert str(output.value) == says


@pytest.mark.parametrize("prefix", ["zoo/", ""])
def test_a_family_that_has_lost_its_members_says_so_and_spares_entries(prefix, plugin):
    registry = load_registry([zoo(plugin, LOST.format(prefix=prefix), ENTRY.format(name="fern"))])
    assert registry.find("encoder", "fern").summary == "A plant."
    with pytest.raises(SegregError) as output:
        registry.find("encoder", f"{prefix}tiger")
    lost = "segreg-lab 1.0 can't tell the members of its family ghosts: OSError: the list is gone"
    way_out = "SEGREG_DISABLE_PLUGINS=segreg-lab continues without it"
    unknown = f'there is no encoder "tiger"\n  it can be "fern"{ALL}\n  {lost}; {way_out}'
    assert str(output.value) == (f"{lost}\n  {way_out}" if prefix else unknown)
    assert registry.names("encoder") == ["fern", *([f"{prefix}*"] if prefix else [])]
    assert [part.name for part in registry.parts("encoder", f"{prefix}*")] == ([] if prefix else ["fern"])
    assert registry.lost_families("encoder") == [f"{lost}; {way_out}"]


def test_a_family_that_fails_spares_the_names_of_others(plugin):
    broken = zoo(plugin, LOST.format(prefix=""), "Family('encoder', 'odd', 'odd/', build, lambda: [1, 2])")
    registry = load_registry([broken, zoo(plugin, BARE, name="other", distribution="segreg-other")])
    assert registry.find("encoder", "lion").plugin.distribution == "segreg-other"
    with pytest.raises(SegregError) as output:
        registry.find("encoder", "lionn")
    assert 'did you mean "lion"?' in str(output.value)
    assert "can't tell the members of its family odd: TypeError: 1 is not a string" in str(output.value)


def test_what_can_not_be_used_and_facts_are_asked_with_care(plugin):
    unfit = "Family('encoder', 'animals', 'zoo/', build, members, unfit={}, facts=lambda member: {{'legs': 4}})"
    registry = load_registry([zoo(plugin, unfit.format("lost"))])
    with pytest.raises(SegregError, match="can't tell what of its family animals can't be used: OSError"):
        registry.find("encoder", "zoo/tigre")
    with pytest.raises(SegregError, match="can't tell facts about zoo/tiger: TypeError: 4 is not a string"):
        registry.find("encoder", "zoo/tiger").facts()


def test_an_entry_and_another_packages_member_of_one_name_are_two_offers(plugin):
    lab = zoo(plugin, ENTRY.format(name="lion"), distribution="segreg-lab")
    registry = load_registry([zoo(plugin, BARE, name="zoo", distribution="segreg-zoo"), lab])
    with pytest.raises(SegregError) as output:
        registry.find("encoder", "lion")
    assert 'the encoder "lion" is offered more than once' in str(output.value)
    assert 'say which one: "lion@segreg-lab" or "lion@segreg-zoo"' in str(output.value)
    assert registry.find("encoder", "lion@segreg-zoo").summary == "An animal."
    assert registry.find("encoder", "lion@segreg-lab").summary == "A plant."


def test_a_member_offered_by_two_packages_is_chosen_like_an_entry(plugin):
    registry = load_registry([zoo(plugin, PREFIX, distribution=f"segreg-{name}") for name in ("foo", "bar")])
    with pytest.raises(SegregError, match='say which one: "zoo/lion@segreg-bar" or "zoo/lion@segreg-foo"'):
        registry.find("encoder", "zoo/lion")
    assert registry.find("encoder", "zoo/lion@segreg-foo").plugin.distribution == "segreg-foo"


# observers


def test_observers_are_reported_what_they_ask_for_and_one_that_fails_stops_nobody(plugin, tmp_path):
    good = plugin(
        """
from segreg.registry.hooks import hookimpl

@hookimpl
def segreg_run_start(run):
    (run / "start").touch()

@hookimpl
def segreg_epoch_end(values, run, epoch):
    (run / "epoch").write_text(f"{epoch} {values}")
""",
        name="good",
    )
    bad, worse, worst, gone = (
        plugin(f"""
from segreg.registry.hooks import hookimpl

@hookimpl
def segreg_epoch_end():
    {statement}
""", name=name)
        for name, statement in [
            ("bad", "raise ValueError('disk full')"), ("worse", "raise SystemExit(3)"),
            ("worst", "raise KeyboardInterrupt"), ("gone", "import os; os._exit(4)"),
        ]
    )  # fmt: skip
    registry = load_registry([bad, good, worse, worst, gone])
    assert [plugin.parts for plugin in registry.plugins] == [()] * 5
    assert registry.notify("segreg_run_start", run=tmp_path, recipe={}) == []
    assert (tmp_path / "start").exists()
    assert sorted(registry.notify("segreg_epoch_end", run=tmp_path, epoch=3, values={"loss": 1.0})) == [
        "segreg_epoch_end of segreg-lab:bad failed: ValueError: disk full",
        "segreg_epoch_end of segreg-lab:gone failed: SystemExit: os._exit(4)",
        "segreg_epoch_end of segreg-lab:worse failed: SystemExit: 3",
        "segreg_epoch_end of segreg-lab:worst failed: KeyboardInterrupt: ",
    ]
    assert (tmp_path / "epoch").read_text() == "3 {'loss': 1.0}"
    assert registry.notify("segreg_run_end", run=tmp_path, results={}) == []


# the digest of a plugin's source


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that writes a package's files, and forgets what was read of them before."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(**files):
        for name, text in files.items():
            file = tmp_path / (name.replace("__", "/").rstrip("/") + ".py")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        _digest_of_files.cache_clear()
        importlib.invalidate_caches()

    (tmp_path / "digested").mkdir()
    (tmp_path / "digested" / "__init__.py").touch()
    return write


def test_the_digest_of_a_package_is_that_of_all_its_source_files(package):
    package(digested__a="one = 1\n", digested__deep__b="two = 2\n")
    first = source_digest("digested")
    assert first == source_digest("digested.a")
    package(digested__deep__b="two = 3\n")
    second = source_digest("digested.a")
    package(digested__c="")
    third = source_digest("digested.a")
    assert len({first, second, third}) == 3
    package(alone="x = 1\n")
    assert source_digest("alone") not in ("", first)
    assert source_digest("digested.a") == third


def test_of_a_namespace_the_part_that_is_a_package_counts(package, tmp_path):
    for name in ("one", "two"):
        (tmp_path / "spaced" / name).mkdir(parents=True)
        (tmp_path / "spaced" / name / "__init__.py").write_text(f"name = '{name}'\n")
    first = source_digest("spaced.one.parts")
    (tmp_path / "spaced" / "two" / "__init__.py").write_text("")
    package()
    assert source_digest("spaced.one.parts") == first != source_digest("spaced.two") != ""


def test_where_there_is_no_source_there_is_no_digest():
    assert source_digest("there_is_no_such_module.at_all") == ""
    assert source_digest("sys") == ""


def test_a_plugin_has_the_digest_of_its_module(plugin):
    source = plugin(GOOD)
    assert only(load_registry([source])).digest == source_digest(source.value) != ""
    assert load_registry(plugged.builtin()).plugins[0].digest != ""
