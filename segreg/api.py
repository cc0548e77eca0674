"""segreg from Python: load a recipe, change it, run it, build any part by its name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from segreg.config.recipe import Recipe, read_recipe
from segreg.config.resolve import choose, resolve
from segreg.errors import SegregError, did_you_mean, listed, with_article
from segreg.registry.protocols import KINDS
from segreg.registry.registry import load_registry
from segreg.runs.trained_run import Run
from segreg.task import Task


def load_recipe(file: Path | str, overrides: Iterable[str] = ()) -> Recipe:
    """Return a recipe file with `key.path=value` overrides applied; `Recipe.changed` applies more.

    Raises:
        SegregError: the file is not a recipe. What it names is checked when it runs.
    """
    return read_recipe(file, overrides)


def run_recipe(
    recipe: Recipe | Path | str,
    *,
    out: Path | str = "runs",
    progress: Literal["auto", "bar", "lines", "quiet"] = "auto",
) -> Run:
    """Run a recipe, or a recipe file, and return the finished run.

    Args:
        recipe: what to run.
        out: the folder in which the run's directory is made.
        progress: a moving bar, plain lines, nothing, or what fits the terminal.

    Raises:
        SegregError: anything in the recipe, its plugins or its data is wrong.
    """
    from segreg.runs.run import start_run
    from segreg.runtime.progress import progress as shown

    written = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    registry = load_registry()
    return start_run(written, resolve(written, registry), registry, out=Path(out), progress=shown(progress))


def build_part(kind: str, name: str, *given: Any, **settings: Any) -> Any:
    """Build one part by its name: `segreg.build_part("loss", "dice", task, smooth=1.0)`.

    Args:
        kind: one of `segreg.KINDS`.
        name: as recipes write it.
        *given: what segreg gives that kind, see `segreg.KINDS[kind].gives`.
        **settings: the part's settings, checked as a recipe's are.

    Raises:
        SegregError: there is no such part, a setting is unknown, missing or of the wrong type, or what is given does
            not serve.
    """
    if kind not in KINDS:
        hint = did_you_mean(kind, KINDS) or f"the kinds are {listed(list(KINDS))}"
        raise SegregError(f'"{kind}" is not a kind of part', hint=hint)
    wanted = KINDS[kind].gives
    if len(given) != len(wanted):
        words = ", ".join(wanted) or "nothing"
        raise SegregError(f"{kind} {name!r} is built from {words}; {len(given)} values were given")
    choice = choose(kind, name, {key: _as_written(value) for key, value in settings.items()}, load_registry())
    for argument, value in zip(wanted, given, strict=True):
        if expected := _misfit(argument, value):
            problem = f'{kind} "{name}" is built from {argument}: {expected[0]} was expected, not {_short(value)}'
            raise SegregError(problem, hint="\n".join(filter(None, (expected[1], f"defined at {choice.part.defined}"))))
    return choice.build(*given)


def _misfit(argument: str, value: Any) -> tuple[str, str] | None:
    """Return what was expected for one of `Kind.gives`, and a hint, where a value can't serve for it."""
    if argument in ("in_channels", "steps_per_epoch", "epochs"):
        fits = isinstance(value, int) and not isinstance(value, bool) and value > 0
        return None if fits else ("an integer above 0", "")
    if argument == "threshold":
        fits = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
        return None if fits else ("a number between 0 and 1", "0.5 is what recipes use")
    if argument == "task":
        hint = 'for example segreg.Task(("background", "lesion"), "multiclass")'
        return None if isinstance(value, Task) else ("a segreg.Task", hint)
    if argument == "encoder":
        fits = callable(value) and hasattr(value, "channels") and hasattr(value, "strides")
        return None if fits else ("a segreg.Encoder", 'for example segreg.build_part("encoder", "resnet18", 3)')
    if argument == "parameter_groups":
        fits = (
            isinstance(value, list)
            and bool(value)
            and all(isinstance(group, dict) and "params" in group for group in value)
        )
        hint = 'for example [{"params": list(network.parameters())}]'
        return None if fits else ('a list of groups, mappings with "params"', hint)
    fits = hasattr(value, "param_groups") and hasattr(value, "step")
    return None if fits else ("a torch.optim.Optimizer", "")


def _short(value: Any) -> str:
    """Return a value's words for a message: itself if it is plain, or else its type."""
    plain = value is None or isinstance(value, (bool, int, float, str))
    return repr(value)[:80] if plain else with_article(type(value).__name__)


def _as_written(value: Any) -> Any:
    """Return a Python value as a recipe writes it: a path as a string, a tuple as a list."""
    if isinstance(value, Path):
        return str(value)
    return [_as_written(item) for item in value] if isinstance(value, tuple) else value
