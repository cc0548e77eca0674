"""What a tune searches: settings of a recipe, each with a range or with choices, checked before anything trains."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from segreg.benchmark.bench.plan import override, read_values, written_as
from segreg.config.recipe import Recipe, as_written, plain_scalar
from segreg.config.resolve import Resolved, resolve
from segreg.errors import Place, Problem, SegregError, did_you_mean
from segreg.registry.registry import Registry
from segreg.settings import format_value

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Scale = Literal["uniform", "log", "int"]
_SCALES = ("log", "int")
_FORMS = "write 1e-5..1e-2 (evenly), log:1e-5..1e-2 (evenly in the logarithm), int:1..8, or choices: a,b"
_NOT_SEARCHED = {
    "seed": "the seed that is luckiest would win",
    "dataset": "all trials must be scored on the same images",
    "split": "all trials must be scored on the same images",
    "evaluate": "all trials must be scored in the same way",
    "train.monitor": "all trials must be compared by the same value",
    "train.validate_on": "all trials must be scored on the same images",
}
"""Settings that change what a trial's value means, so that the largest is not the best."""


@dataclass(frozen=True)
class Range:
    """A setting that takes numbers between two, both included."""

    path: str
    low: float
    high: float
    scale: Scale

    def __str__(self) -> str:
        ends = "..".join(
            f"{end:g}" if end == float(f"{end:g}") and self.scale != "int" else str(end) for end in self.tried
        )
        return ends if self.scale == "uniform" else f"{self.scale}:{ends}"

    @property
    def tried(self) -> tuple[Any, Any]:
        """Return the lowest and the highest value, with which the recipe is checked."""
        return (int(self.low), int(self.high)) if self.scale == "int" else (self.low, self.high)


@dataclass(frozen=True)
class Choices:
    """A setting that takes one of several values, as a recipe has them."""

    path: str
    values: tuple[Any, ...]

    def __str__(self) -> str:
        return ",".join(map(written_as, self.values))

    @property
    def tried(self) -> tuple[Any, ...]:
        """Return all values, with which the recipe is checked."""
        return self.values


Axis = Range | Choices


def axes_of(words: Sequence[str]) -> list[Axis]:
    """Return the axes of `--search` options, such as "optimizer.lr=log:1e-5..1e-2" and "loss=dice_bce,lovasz".

    Raises:
        SegregError: one is not of these forms, names a setting twice, or one that can't be searched.
    """
    pairs = [word.partition("=") for word in words]
    for word, (path, equals, values) in zip(words, pairs, strict=True):
        if not equals or not path.strip() or not values.strip():
            hint = "write path=values, such as optimizer.lr=log:1e-5..1e-2 or loss=dice_bce,lovasz"
            raise SegregError(f'"{word}" searches nothing', hint=hint)
    return _checked([_axis(path.strip(), values.strip()) for path, _, values in pairs])


def axes_of_mapping(search: Mapping[str, Any]) -> list[Axis]:
    """Return the axes of `{"optimizer.lr": "log:1e-5..1e-2", "loss": ["dice_bce", "lovasz"]}`.

    Raises:
        SegregError: as `axes_of`.
    """
    axes: list[Axis] = []
    for path, given in search.items():
        if isinstance(given, str):
            axes.append(_axis(path, given.strip()))
        elif isinstance(given, Sequence):
            axes.append(_choices(path, as_written(list(given))))
        else:
            raise SegregError(f'"{path}" is searched over a range or a list, not {format_value(given)}', hint=_FORMS)
    return _checked(axes)


def _axis(path: str, text: str) -> Axis:
    word, colon, rest = text.partition(":")
    scale, ends = ("uniform", text) if not colon or " " in word else (word, rest)
    low, dots, high = (part.strip() for part in ends.partition(".."))
    numbers = [plain_scalar(low), plain_scalar(high)] if dots else []
    numeric = bool(numbers) and all(type(one) in (int, float) for one in numbers)
    if not numeric and scale not in _SCALES:
        return _choices(path, read_values(text, f"{path}={text}"))
    if scale not in ("uniform", *_SCALES):
        raise _wrong(path, text, f'"{scale}" is not a scale', did_you_mean(scale, _SCALES))
    if not numeric:
        raise _wrong(path, text, "a range is two numbers with two dots between")
    least, most = numbers
    if not least < most:
        raise _wrong(path, text, f"{least:g} is not below {most:g}")
    if scale == "log" and least <= 0:
        raise _wrong(path, text, "a logarithm needs numbers above 0")
    if scale == "int" and not all(type(one) is int for one in numbers):
        raise _wrong(path, text, "its ends must be integers")
    return Range(path, float(least), float(most), scale)  # type: ignore[arg-type]


def _choices(path: str, values: Sequence[Any]) -> Choices:
    written = [written_as(value) for value in values]
    text = ",".join(written)
    if len(values) < 2:
        raise _wrong(path, text, "a search has a range or two choices at least")
    if twice := next((one for one in written if written.count(one) > 1), None):
        raise _wrong(path, text, f"{twice} is given twice")
    return Choices(path, tuple(values))


def _wrong(path: str, text: str, what: str, hint: str = "") -> SegregError:
    return SegregError(f"{path}={text}: {what}", place=Place("--search"), hint=hint or _FORMS)


def _checked(axes: list[Axis]) -> list[Axis]:
    if not axes:
        raise SegregError("nothing is searched", hint="for example: --search optimizer.lr=log:1e-5..1e-2")
    paths = [axis.path for axis in axes]
    for axis in axes:
        if paths.count(axis.path) > 1:
            raise SegregError(f'--search names "{axis.path}" twice', hint="give all of its values at once")
        for fixed, reason in _NOT_SEARCHED.items():
            if f"{axis.path}.".startswith(f"{fixed}.") or fixed.startswith(f"{axis.path}."):
                raise SegregError(
                    f'"{fixed}" is not searched: {reason}', place=Place("--search"), hint="set it for all: key=value"
                )
    return axes


def distribution(axis: Axis) -> BaseDistribution:
    """Return an axis as Optuna has it; choices go by how they are written."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(axis, Choices):
        return CategoricalDistribution([written_as(value) for value in axis.values])
    if axis.scale == "int":
        return IntDistribution(*axis.tried)
    return FloatDistribution(axis.low, axis.high, log=axis.scale == "log")


def values_of(axes: Sequence[Axis], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return each axis' value, as a recipe has it, for what Optuna proposes."""
    found = {}
    for axis in axes:
        value = parameters[axis.path]
        if isinstance(axis, Choices):
            value = next(one for one in axis.values if written_as(one) == value)
        found[axis.path] = value
    return found


def with_values(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """Return the recipe with these settings; parts come before their own settings, which a part's name would drop."""
    ordered = sorted(values, key=lambda path: path.count("."))
    return recipe.changed([override(path, values[path]) for path in ordered])


def check_space(axes: Sequence[Axis], recipe: Recipe, registry: Registry) -> Resolved:
    """Check that what the search may propose resolves, and return the recipe as it is.

    Every pair of the axes' values is tried, of ranges their ends; a problem of three settings at once is left to the
    trial that has it.

    Raises:
        SegregError: everything that is wrong, each problem once, with the search it comes from.
    """
    resolved = resolve(recipe, registry)
    problems: dict[str, Problem] = {}
    for values in _pairs(axes):
        try:
            resolve(_placed(with_values(recipe, values), axes), registry)
        except SegregError as error:
            for problem in error.problems:
                problems.setdefault(str(problem), problem)
    if problems:
        raise SegregError.of(map(_hinted, problems.values()))
    return resolved


def _pairs(axes: Sequence[Axis]) -> Iterator[dict[str, Any]]:
    options = {axis.path: axis.tried for axis in axes}
    first = {path: values[0] for path, values in options.items()}
    for paths in itertools.combinations(options, min(2, len(options))):
        for values in itertools.product(*(options[path] for path in paths)):
            yield first | dict(zip(paths, values, strict=True))


def _placed(recipe: Recipe, axes: Sequence[Axis]) -> Recipe:
    """Return the recipe with the search as the place of what it sets."""
    places = {
        tuple(int(step) if step.isdecimal() else step for step in axis.path.split(".")): Place(
            f"--search {axis.path}={axis}"
        )
        for axis in axes
    }
    return dataclasses.replace(recipe, keys={**recipe.keys, **places}, places={**recipe.places, **places})


def _hinted(problem: Problem) -> Problem:
    """Return the problem with what to do where a range gives numbers to a setting that takes integers."""
    if "an integer" not in problem.message or ".." not in str(problem.place):
        return problem
    return dataclasses.replace(problem, hint=f"{problem.hint}\nint:1..8 takes integers only".strip())
