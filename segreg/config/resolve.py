"""Turns a recipe into checked choices: every name looked up, every setting checked, every default filled in."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segreg.config.recipe import KeyPath, Overrides, Recipe, read_recipe, to_yaml
from segreg.config.sections import BESIDE, Crop, EncoderTraining, Evaluate, Input, Ramp, Split, Train
from segreg.errors import Place, Problem, SegregError, did_you_mean, listed, plural, with_article
from segreg.registry.compatibility import DISTRIBUTION
from segreg.registry.registry import Part, Registry, load_registry
from segreg.settings import Setting, check_value, default_of, format_type, format_value, nested, plain, settings_of

if TYPE_CHECKING:
    from segreg.runtime.device import PrecisionName

PARTS = ("dataset", "optimizer")
"""Sections that name one part of that kind, which a recipe must have."""
NETWORK = {"network": "network", "encoder": "encoder", "decoder": "decoder", "auxiliary": "decoder"}
"""Sections of the network, and the kind of each: a whole one, or an encoder with a decoder and maybe a second one."""
SETTINGS = {"split": Split, "input": Input, "crop": Crop, "train": Train, "evaluate": Evaluate}
"""Sections of plain settings, each optional."""
SECTIONS = (
    "seed", "dataset", "split", "input", "crop", "augment", "batch_augment", "network", "encoder", "decoder",
    "auxiliary", "loss", "optimizer", "schedule", "train", "evaluate",
)  # fmt: skip
"""Every section, in the order in which a recipe is written."""
LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class Choice:
    """A part that a recipe chose, with every setting.

    Attributes:
        part: the part.
        settings: its settings as Python values, defaults filled in.
        weight: its share in a sum, where it is a loss or an auxiliary decoder; a loss's may change with the epochs.
        place: where the recipe names it.
        distribution: the package that the recipe names it from (`name@distribution`), where it does.
        beside: what the recipe sets beside the part's own settings, of the type that `BESIDE` has for its kind.
    """

    part: Part
    settings: Mapping[str, Any]
    weight: float | Ramp = 1.0
    place: Place | None = None
    distribution: str = ""
    beside: Any = None

    def build(self, *given: Any) -> Any:
        """Build the part.

        Raises:
            SegregError: its builder raised one, reported with the recipe's place; or a builder of another package than
                segreg raised anything else, reported with its traceback for its author.
        """
        from segreg.runtime.device import without_garbage_collection

        try:
            with without_garbage_collection():  # most of it is importing libraries
                return self.part.build(*given, **self.settings)
        except SegregError as error:
            raise error.at(self.place) from error
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also SystemExit, which would end segreg as if all were done
            plugin = self.part.plugin
            if plugin.distribution == DISTRIBUTION:  # a bug of our own
                raise
            frames = (
                error.__traceback__.tb_next.tb_next if error.__traceback__ and error.__traceback__.tb_next else None
            )
            trace = "".join(traceback.format_exception(type(error), error, frames)).rstrip()
            raise SegregError(
                f'the {self.part.kind} "{self.part.name}" of {plugin.title} failed: {type(error).__name__}: {error}',
                place=self.place,
                hint=f"defined at {self.part.defined}\n{trace}",
            ) from error

    def plain(self) -> dict[str, Any]:
        """Return the choice as a recipe writes it."""
        settings = {n: plain(self.part.settings[n].hint, value) for n, value in self.settings.items()}
        at = f"@{self.distribution}" if self.distribution else ""
        return {"name": self.part.name + at, **settings, **(plain_section(self.beside) if self.beside else {})}

    def weighted(self) -> dict[str, Any]:
        """Return the choice as a recipe writes it, with its weight."""
        weight = plain_section(self.weight) if isinstance(self.weight, Ramp) else self.weight
        return {**self.plain(), "weight": weight}


@dataclass(frozen=True)
class NetworkRecipe:
    """What a recipe says of its network, checked and complete: either `network`, or `encoder` and `decoder`."""

    input: Input
    network: Choice | None
    encoder: Choice | None
    decoder: Choice | None
    auxiliary: Choice | None

    @property
    def auxiliary_weight(self) -> float:
        """Return the factor of the losses of the auxiliary decoder; 0 where there is none."""
        weight = self.auxiliary.weight if self.auxiliary else 0.0
        assert not isinstance(weight, Ramp)
        return weight

    @property
    def trunk(self) -> Choice:
        """Return the part that has the encoder: it, or the whole network."""
        found = self.encoder or self.network
        assert found is not None
        return found

    @property
    def network_parts(self) -> dict[str, Choice]:
        """Return the parts of the network by their sections."""
        return {name: choice for name in NETWORK if (choice := getattr(self, name)) is not None}


@dataclass(frozen=True)
class InferenceRecipe(NetworkRecipe):
    """What predicting needs of a recipe: the network, two settings of the section train, and how it is evaluated."""

    precision: PrecisionName
    channels_last: bool
    evaluate: Evaluate


@dataclass(frozen=True)
class Resolved(NetworkRecipe):
    """A recipe, checked and complete."""

    seed: int
    dataset: Choice
    split: Split
    crop: Crop
    augment: tuple[Choice, ...]
    batch_augment: tuple[Choice, ...]
    loss: tuple[Choice, ...]
    optimizer: Choice
    schedule: Choice | None
    train: Train
    evaluate: Evaluate
    metrics: tuple[Choice, ...]
    source: str = "recipe"

    def plain(self) -> dict[str, Any]:
        """Return the complete recipe as plain values: every default, runs again alone."""
        sections = {name: plain_section(getattr(self, name)) for name in SETTINGS}
        sections["evaluate"] = {"metrics": [choice.plain() for choice in self.metrics], **sections["evaluate"]}
        return {
            "seed": self.seed,
            "dataset": self.dataset.plain(),
            "split": sections["split"],
            "input": sections["input"],
            **({"crop": sections["crop"]} if self.input.resize == "crop" else {}),
            "augment": [choice.plain() for choice in self.augment],
            "batch_augment": [choice.plain() for choice in self.batch_augment],
            **{
                name: choice.weighted() if name == "auxiliary" else choice.plain()
                for name, choice in self.network_parts.items()
            },
            **({} if self.network or self.auxiliary else {"auxiliary": None}),
            "loss": [choice.weighted() for choice in self.loss],
            "optimizer": self.optimizer.plain(),
            "schedule": self.schedule.plain() if self.schedule else None,
            "train": sections["train"],
            "evaluate": sections["evaluate"],
        }

    def yaml(self, *, header: str = "") -> str:
        """Return the complete recipe as a file's text."""
        return to_yaml(self.plain(), header=header)

    def choices(self) -> tuple[Choice, ...]:
        """Return every part that the recipe chose."""
        schedule = (self.schedule,) if self.schedule else ()
        network = self.network_parts.values()
        lists = (*self.augment, *self.batch_augment, *self.loss, *self.metrics)
        return (self.dataset, *network, self.optimizer, *schedule, *lists)


def resolve(recipe: Recipe, registry: Registry) -> Resolved:
    """Check a whole recipe and fill in its defaults. Nothing heavy is imported.

    Raises:
        SegregError: everything that is wrong, together, each with its place.
    """
    return _Check(recipe, registry).whole()


def resolve_begun(recipe: Recipe, registry: Registry) -> Resolved:
    """Check the recipe of a run that began with it: a setting without an effect, which is refused now, had none then.

    Raises:
        SegregError: everything else that is wrong, together, each with its place.
    """
    return _Check(recipe, registry, begun=True).whole()


def resolve_inference(recipe: Recipe, registry: Registry) -> InferenceRecipe:
    """Check what predicting needs of a recipe, and nothing else: other parts and settings may be gone by now.

    The auxiliary decoder, which only training uses, is left out.

    Raises:
        SegregError: everything that is wrong with it, together, each with its place.
    """
    return _Check(recipe, registry).inference()


def read_resolved(file: Path | str, overrides: Overrides = ()) -> Resolved:
    """Read a recipe file, and resolve it with the installed plugins.

    Raises:
        SegregError: the file can't be read, or everything that is wrong in it, together, each with its place.
    """
    return resolve(read_recipe(file, overrides), load_registry())


def read_section(name: str, values: Mapping[str, Any], source: str) -> Any:
    """Return one of `SETTINGS` from plain values, with its defaults; `source` is where they are, for messages.

    Raises:
        SegregError: a setting is unknown or of the wrong type.
    """
    check = _Check(Recipe({name: values}, source=source), load_registry(()))  # such settings name no parts
    section = check.section(name, values)
    check.finish()
    return section


def choose(kind: str, name: str, settings: Mapping[str, Any], registry: Registry) -> Choice:
    """Return one part with its settings checked as a recipe's are.

    Raises:
        SegregError: there is no such part, or a setting is unknown, missing or of the wrong type.
    """
    check = _Check(Recipe({}, source=f"{kind} {name}"), registry)
    choice = check.part(kind, (), {"name": name, **settings})
    if choice is None:
        raise SegregError.of(Problem(p.message, None, p.hint) for p in check.problems)
    return choice


def plain_section(section: Any) -> dict[str, Any]:
    """Return a section of plain settings as a recipe writes it."""
    settings = settings_of(type(section))
    return {name: plain(setting.hint, getattr(section, name)) for name, setting in settings.items()}


class _Check:
    """One pass over a recipe that gathers problems rather than stopping at the first."""

    def __init__(self, recipe: Recipe, registry: Registry, *, begun: bool = False) -> None:
        self.recipe = recipe
        self.registry = registry
        self.begun = begun
        self.problems: list[Problem] = []

    def whole(self) -> Resolved:
        values = self.recipe.values
        for key in values:
            if key not in SECTIONS:
                hint = did_you_mean(str(key), SECTIONS) or f"the sections are {listed(SECTIONS, most=20)}"
                self.wrong(f'"{key}" is not a section of a recipe', (key,), hint, at_key=True)
        evaluate = dict(values["evaluate"]) if isinstance(values.get("evaluate"), Mapping) else values.get("evaluate")
        metrics = evaluate.pop("metrics", None) if isinstance(evaluate, dict) else None
        scored = evaluate is None or isinstance(evaluate, dict)
        found: dict[str, Any] = {
            "seed": self.seed(values.get("seed", 0)),
            "dataset": self.needed_part("dataset"),
            **self.network(),
            "optimizer": self.needed_part("optimizer"),
            "auxiliary": self.optional_part("decoder", "auxiliary", weighted=True),
            **{name: self.section(name, values.get(name)) for name in SETTINGS if name != "evaluate"},
            "evaluate": self.section("evaluate", evaluate),
            "augment": self.many("augmentation", ("augment",), values.get("augment")),
            "batch_augment": self.many("batch_augmentation", ("batch_augment",), values.get("batch_augment")),
            "schedule": self.optional_part("schedule", "schedule"),
            "loss": self.many("loss", ("loss",), values.get("loss"), weighted=True, needed=True),
            "metrics": self.many("metric", ("evaluate", "metrics"), metrics, needed=scored),
        }
        self.across(found)
        self.finish()
        if found["input"].resize == "crop":
            found["evaluate"] = replace(found["evaluate"], resolution="original")
        return Resolved(**found, source=self.recipe.source)

    def inference(self) -> InferenceRecipe:
        found: dict[str, Any] = {
            **self.network(),
            "input": self.section("input", self.recipe.values.get("input")),
        }
        train = self.section("train", self.some("train", "precision", "channels_last"))
        evaluate = self.section("evaluate", self.some("evaluate", "threshold", "tile", "overlap", "scales", "flips"))
        self.finish()
        return InferenceRecipe(
            **found, auxiliary=None,
            precision=train.precision, channels_last=train.channels_last, evaluate=evaluate,
        )  # fmt: skip

    def network(self) -> dict[str, Choice | None]:
        """Return the parts of the network but an auxiliary decoder: a whole one, or an encoder and a decoder."""
        if self.recipe.values.get("network") is None:
            return {"network": None, **{name: self.needed_part(name) for name in ("encoder", "decoder")}}
        for name in ("encoder", "decoder", "auxiliary"):
            if self.recipe.values.get(name) is not None:
                hint = f"leave one of them out, or write {name}: null"
                self.wrong(f'"network" names a whole network, which goes with no "{name}"', (name,), hint, at_key=True)
        return {"network": self.optional_part("network", "network"), "encoder": None, "decoder": None}

    def some(self, name: str, *keys: str) -> Any:
        """Return some of a section's settings."""
        value = self.recipe.values.get(name)
        return {key: value[key] for key in keys if key in value} if isinstance(value, Mapping) else value

    def finish(self) -> None:
        if self.problems:
            raise SegregError.of(sorted(self.problems, key=_reading_order))

    def wrong(self, message: str, path: KeyPath, hint: str = "", *, at_key: bool = False) -> None:
        place = self.recipe.key_place(path) if at_key else self.recipe.place(path)
        self.problems.append(Problem(message, place, hint))

    def seed(self, value: Any) -> int:
        if type(value) is not int or not 0 <= value <= LARGEST_SEED:
            self.wrong(f'"seed" must be an integer from 0 to {LARGEST_SEED}, not {format_value(value)}', ("seed",))
            return 0
        return value

    def section(self, name: str, value: Any) -> Any:
        section, path = SETTINGS[name], (name,)
        value = {} if value is None else value
        if not isinstance(value, Mapping):
            hint = "a colon is followed by a blank" if isinstance(value, str) and ":" in value else ""
            self.wrong(f'the section "{name}" holds settings, not {format_value(value)}', path, hint)
            return None
        problems_before = len(self.problems)
        checked = self.settings(f'the section "{name}"', settings_of(section), value, path)
        return None if len(self.problems) > problems_before else section(**checked)

    def needed_part(self, kind: str) -> Choice | None:
        """Return the part of a section that has its kind's name."""
        if self.recipe.values.get(kind) is None:
            place = (kind,) if kind in self.recipe.values else ()
            self.wrong(f'the section "{kind}" is missing: it names {with_article(kind)}', place, self.choice_of(kind))
            return None
        return self.part(kind, (kind,), self.recipe.values[kind])

    def optional_part(self, kind: str, name: str, *, weighted: bool = False) -> Choice | None:
        value = self.recipe.values.get(name)
        return None if value is None else self.part(kind, (name,), value, weighted=weighted)

    def many(
        self, kind: str, path: KeyPath, value: Any, *, weighted: bool = False, needed: bool = False
    ) -> tuple[Choice | None, ...]:
        dotted = ".".join(map(str, path))
        if value is None or value == []:
            if needed:
                at = path if value == [] else path[:-1]
                self.wrong(f'"{dotted}" is missing: it names one {kind} or several', at, self.choice_of(kind))
            return ()
        if not isinstance(value, list):
            return (self.part(kind, path, value, weighted=weighted),)
        return tuple(self.part(kind, (*path, i), item, weighted=weighted) for i, item in enumerate(value))

    def choice_of(self, kind: str) -> str:
        names = self.registry.names(kind)
        return f"it can be {listed(names, most=6, last='or')}" if names else f"no plugin offers {with_article(kind)}"

    def part(self, kind: str, path: KeyPath, value: Any, *, weighted: bool = False) -> Choice | None:
        given: Any = {"name": value} if isinstance(value, str) else value
        if not isinstance(given, Mapping):
            self.wrong(
                f"{with_article(kind)} is a name or a mapping with a name, not {format_value(value)}", path,
                f"for example {{name: {(self.registry.names(kind) or ['...'])[0]}}}",
            )  # fmt: skip
            return None
        if "name" not in given:
            written = [key for key in given if key in self.registry.names(kind)]
            hint = f"write `name: {written[0]}`, and its settings beside it" if written else self.choice_of(kind)
            self.wrong(f"{with_article(kind)} needs a name", path, hint)
            return None
        name_path = (*path, "name") if isinstance(value, Mapping) else path
        name = given["name"]
        if not isinstance(name, str):
            self.wrong(f"the name of {with_article(kind)} must be a string, not {format_value(name)}", name_path)
            return None
        try:
            part = self.registry.find(kind, name)
            known = part.settings
        except SegregError as error:
            self.problems += error.at(self.recipe.place(name_path)).problems
            return None
        section = BESIDE.get(kind)
        beside = settings_of(section) if section else {}
        own = {key: v for key, v in given.items() if key != "name" and not (weighted and key == "weight")}
        problems_before = len(self.problems)
        checked = self.settings(f'the {kind} "{name}"', {**known, **beside}, own, path, part)
        weight: float | Ramp = 1.0
        if weighted:
            title, value = f'the {kind} "{name}"', given.get("weight", 1.0)
            changes = kind == "loss" and isinstance(value, Mapping)
            weight = (self.ramp if changes else self.weight)(title, value, (*path, "weight"))
        if len(self.problems) > problems_before:
            return None
        complete = {n: checked[n] if n in checked else default_of(s) for n, s in known.items()}
        around = section(**{n: value for n, value in checked.items() if n in beside}) if section else None
        return Choice(part, complete, weight, self.recipe.place(name_path), name.partition("@")[2], around)

    def weight(self, title: str, value: Any, path: KeyPath) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= sys.float_info.max:
            message = f'"weight" of {title} must be a finite number above 0, not {format_value(value)}'
            self.wrong(message, path)
            return 1.0
        return float(value)

    def ramp(self, title: str, value: Mapping[str, Any], path: KeyPath) -> float | Ramp:
        problems_before = len(self.problems)
        checked = self.settings(f'"weight" of {title}', settings_of(Ramp), value, path)
        if len(self.problems) > problems_before:
            return 1.0
        ramp = Ramp(**checked)
        if not ramp.epochs[0] < ramp.epochs[1]:
            message = f"goes from an epoch to a later one, not from {ramp.epochs[0]} to {ramp.epochs[1]}"
            self.wrong(f'"weight" of {title} {message}', (*path, "epochs"))
        elif ramp.start == ramp.end:
            hint = f"write weight: {ramp.start:g}" if ramp.start else "leave the loss out"
            self.wrong(f'"weight" of {title} is {ramp.start:g} in every epoch', path, hint)
        return ramp

    def settings(
        self,
        title: str,
        known: Mapping[str, Setting],
        given: Mapping[str, Any],
        path: KeyPath,
        part: Part | None = None,
    ) -> dict[str, Any]:
        defined = f"\ndefined at {part.defined}" if part else ""
        checked: dict[str, Any] = {}
        for key, value in given.items():
            if key not in known:
                accepted = f"it accepts {listed(list(known), most=30)}" if known else "it has no settings"
                hint = "\n".join(filter(None, (did_you_mean(str(key), known), accepted))) + defined
                self.wrong(f'{title} has no setting "{key}"', (*path, key), hint, at_key=True)
                continue
            if (section := nested(known[key].hint)) and isinstance(value, Mapping):
                checked[key] = section(**self.settings(f'"{key}"', settings_of(section), value, (*path, key)))
                continue
            try:
                checked[key] = check_value(known[key].hint, value)
            except ValueError as error:
                meaning = f"{key}: {known[key].meaning}" if known[key].meaning else ""
                own = part is None or key in part.settings
                self.wrong(f'"{key}" of {title} {error}', (*path, key), (meaning + defined * own).strip())
        for name, setting in known.items():
            if setting.required and name not in given:
                words = format_type(setting.hint)
                self.wrong(f'{title} needs "{name}", {words}', path, f"{name}: {setting.meaning}{defined}")
        return checked

    def across(self, found: Mapping[str, Any]) -> None:
        """Check what no single setting can tell."""
        names = [choice.part.name if choice else None for choice in found["metrics"]]
        for number, name in enumerate(names):
            if name is not None and name in names[:number]:
                self.wrong(f'the metric "{name}" is given twice', ("evaluate", "metrics", number))
        split, size, train = found["split"], found["input"], found["train"]
        if split is not None:
            self.split(split.complete())
        if train is not None:
            self.train(train, found["batch_augment"], found["loss"])
        self.crops(size, found["crop"], found["evaluate"])
        self.trained(found["encoder"] or found["network"], found["optimizer"], train)
        if size is not None:
            self.values(size)

    def train(self, train: Train, batch_augment: Sequence[object], losses: Sequence[Choice | None]) -> None:
        """Check the section train, and what depends on it of how batches are mixed and losses are weighted."""
        if train.batch_size == "auto" and train.accumulate > 1:
            hint = "set effective_batch_size to the images of a step, and leave accumulate out"
            self.wrong(
                '"accumulate" does not go with batch_size: auto, which adds up itself', ("train", "accumulate"), hint
            )
        if train.batch_size != "auto" and train.effective_batch_size is not None:
            hint = f"set batch_size: auto, or leave it out; the batch has {train.batch_size} images"
            self.wrong('"effective_batch_size" goes with batch_size: auto', ("train", "effective_batch_size"), hint)
        if train.start_part == "encoder" and train.start_from is None and not self.begun:
            self.wrong('"start_part" goes with start_from, which names the weights', ("train", "start_part"))
        if train.swa_start is not None and train.ema is not None:
            hint = "ema averages over steps and swa_start over epochs: leave one of them out"
            self.wrong('"swa_start" does not go with ema', ("train", "swa_start"), hint, at_key=True)
        if train.swa_start is not None and train.swa_start >= train.epochs:
            message = f'"swa_start": from epoch {train.swa_start} on, {train.epochs} epochs have no two to average'
            self.wrong(message, ("train", "swa_start"))
        if batch_augment and train.batch == 1:
            hint = "set train.batch_size to 2 or more, or leave the section out"
            self.wrong("batches of one image have nothing to be mixed with", ("batch_augment",), hint, at_key=True)
        changes = any(choice and isinstance(choice.weight, Ramp) for choice in losses)
        if changes and train.monitor in ("val.loss", "train.loss"):
            message = f'train.monitor: "{train.monitor}" can\'t choose the best epoch, as weights of its terms change'
            self.wrong(message, ("loss",), "monitor a metric such as val.dice.pooled, or a single term of the loss")

    def trained(self, trunk: Choice | None, optimizer: Choice | None, train: Train | None) -> None:
        """Check what of the network is trained, and how."""
        if optimizer and optimizer.beside.exclude_from_weight_decay and not optimizer.settings.get("weight_decay"):
            message = f'"exclude_from_weight_decay" of the optimizer "{optimizer.part.name}": it has no weight decay'
            self.wrong(message, ("optimizer", "exclude_from_weight_decay"), "set weight_decay, or leave this out")
        if train is not None and train.compile is True and train.checkpoint_activations:
            hint = "leave one of them out"
            self.wrong('"compile: true" does not go with "checkpoint_activations"', ("train", "compile"), hint)
        if trunk is not None:
            self.encoder(trunk.part.kind, trunk.beside, train)

    def encoder(self, section: str, chosen: EncoderTraining, train: Train | None) -> None:
        """Check which weights of the encoder are trained."""
        lora, trainable = chosen.lora, chosen.trainable
        if lora is not None and trainable == "all":
            message = '"trainable: all" does not go with "lora", which keeps weights as they are'
            self.wrong(message, (section, "trainable"), "leave it out; `norms` are trained beside lora")
        if lora is not None and not lora.targets:
            self.wrong('"targets" of "lora" names none', (section, "lora", "targets"), "[qkv, proj] is attention")
        if chosen.freeze_layers and (lora is not None or trainable in ("norms", "none")):
            other = "lora" if lora is not None else "trainable"
            message = f'"freeze_layers" and "{other}" of the encoder do not go together'
            self.wrong(message, (section, "freeze_layers"), "leave one of them out")
        for name in ("freeze_encoder_epochs", "layer_decay") if trainable == "none" and lora is None else ():
            if getattr(train, name, None):
                hint = "leave it out, or train something of the encoder"
                self.wrong(f'"{name}" says nothing where {section}.trainable is none', ("train", name), hint)

    def split(self, split: Split) -> None:
        """Check the section split, of which nothing is null that says something."""

        def wrong(message: str, *path: str, at_key: bool = False) -> None:
            self.wrong(f'in the section "split", {message}', ("split", *path), at_key=at_key)

        method, here = split.method, f"split.method is {split.method}"
        drawn, folds = method in ("auto", "random"), method == "folds"
        if drawn and split.val + (split.test or 0.0) >= 1:
            wrong(f"val and test are shares of all samples: {split.val:g} and {split.test:g} leave none to train")
        if split.stratify and not drawn and not folds:
            wrong(f'"stratify" goes with method: random; {here}', "stratify")
        if (method == "lists" or (folds and split.lists)) and not {"train", "val"} <= set(split.lists):
            self.wrong('"split.lists" must name a file for train and one for val', ("split", "lists"))
        if split.lists and method != "lists" and not folds and not self.begun:
            wrong(f'"lists" goes with method: lists; {here}', "lists", at_key=True)
        for name in ("folds", "fold") if not folds else ():
            if getattr(split, name) is not None:
                wrong(f'"{name}" goes with method: folds; {here}', name, at_key=True)
        if folds and split.folds is not None and not (split.fold or 0) < split.folds:
            wrong(f"there are {split.folds} folds, numbered from 0, and no fold {split.fold}", "fold")
        if folds and split.test == 1:
            wrong("the test takes all samples", "test")

    def values(self, size: Input) -> None:
        """Check the settings of which values the network gets."""
        if size.clip is not None and size.clip[0] >= size.clip[1]:
            self.wrong(
                f'"clip" of the section "input": {size.clip[0]:g} is not below {size.clip[1]:g}', ("input", "clip")
            )
        for name in ("mean", "std"):
            numbers = getattr(size, name)
            if numbers is not None and len(numbers) != size.channels:
                words = f"has {plural(len(numbers), 'value')}, but input.channels is {size.channels}"
                self.wrong(f'"{name}" of the section "input" {words}', ("input", name))
        if (size.mean is None) != (size.std is None):
            self.wrong('"mean" and "std" of the section "input" go together', ("input",))
        if size.mean is None and size.normalize == "imagenet" and size.channels != 3:
            hint = f"normalize: dataset computes them; or give mean and std with {plural(size.channels, 'value')}"
            self.wrong("ImageNet's statistics have 3 channels", ("input", "normalize"), hint)

    def crops(self, size: Input | None, crop: Crop | None, evaluate: Evaluate | None) -> None:
        """Check the settings that go with `input.resize: crop`, and those of the section crop."""
        if size is not None and size.resize != "crop":
            hint = f"input.resize is {size.resize}; set it to crop, or leave this out"
            if self.recipe.values.get("crop"):
                self.wrong('the section "crop" goes with input.resize: crop', ("crop",), hint, at_key=True)
            for section, name in (("evaluate", "tile"), ("evaluate", "overlap"), ("train", "validate_on")):
                given = self.recipe.values.get(section)
                if isinstance(given, Mapping) and given.get(name) not in (None, getattr(SETTINGS[section], name)):
                    self.wrong(f'"{name}" goes with input.resize: crop', (section, name), hint, at_key=True)
        if crop is not None and crop.scale[0] > crop.scale[1]:
            message = f'"scale" of the section "crop": {crop.scale[0]:g} is above {crop.scale[1]:g}'
            self.wrong(message, ("crop", "scale"))
        if crop is not None and crop.classes and not crop.foreground:
            self.wrong(
                '"classes" goes with "foreground", the share of crops', ("crop", "classes"), "nnU-Net takes 0.33"
            )
        if crop is not None and crop.cat_max_ratio == 0:
            self.wrong('"cat_max_ratio" of the section "crop" must be above 0', ("crop", "cat_max_ratio"))
        if evaluate is not None and not evaluate.scales:
            self.wrong(
                '"scales" of the section "evaluate" names none', ("evaluate", "scales"), "1.0 is the image as it is"
            )


def _reading_order(problem: Problem) -> tuple[bool, int, int]:
    place = problem.place or Place("")
    return (place.line is None, place.line or 0, place.column or 0)
