"""Start a training from existing weights: those of another run, or any file of tensors.

Names differ between frameworks by prefixes (`module.`, `model.`, `_orig_mod.`, `backbone.`, `segmentation_head.`), so
each component of the network (encoder, decoder, head) is matched by itself: of all pairs of a prefix of its own names
and one of the file's, that pair is taken under which most names and shapes agree.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from segreg.errors import SegregError, listed
from segreg.models.lora import merged, plain_name
from segreg.models.trained import BASE, digest_of_frozen, trained_tensors
from segreg.runtime.hub import SMP_WEIGHTS, local_path
from segreg.training.checkpoint import BEST, LAST, read_weights, refuse_not_finite

if TYPE_CHECKING:
    from torch import Tensor

    from segreg.models.segmenter import Segmenter
    from segreg.task import Task


@dataclass(frozen=True)
class Start:
    """Which tensors of a file a training started from.

    Attributes:
        loaded: names of the network whose values are the file's, by component.
        missing: names of the network that keep their first values, because the file has nothing for them.
        mismatched: names of the network that keep their first values because a shape or type in their layer differs,
            with both.
        unused: names in the file whose values were not loaded.
        remarks: what else a reader should know, such as other classes.
    """

    loaded: Mapping[str, Sequence[str]]
    missing: tuple[str, ...]
    mismatched: tuple[str, ...]
    unused: tuple[str, ...]
    remarks: tuple[str, ...]

    def __str__(self) -> str:
        count = sum(map(len, self.loaded.values()))
        total = count + len(self.missing) + len(self.mismatched)
        each = ", ".join(f"{name} {len(names)}" for name, names in self.loaded.items())
        lines = [f"{count} of the network's {total} tensors loaded ({each})"]
        rest = {
            "not in the file": self.missing,
            "left, as a shape or type in their layer differs": self.mismatched,
            "of the file not used": self.unused,
        }
        lines += [f"{len(names)} {word}: {listed(names, quote='', most=6)}" for word, names in rest.items() if names]
        return "\n".join([*lines, *self.remarks])


def start_from(model: Segmenter, source: Path | str, component: Literal["model", "encoder"], task: Task) -> Start:
    """Load what fits of a run's best weights, or of a weights file, and report it.

    What does not fit stays as it is. A head is loaded by the names of its classes where the file has them: its
    outputs are reordered if the classes are the same in another order, and left out if there are others.

    Args:
        model: the network, which is changed in place.
        source: a run's directory, a safetensors file, or a PyTorch file of tensors, which is read without running code;
            on the disk or on the hub.
        component: the whole network, or only its encoder.
        task: what the network is trained for.

    Raises:
        SegregError: the file can't be read, nothing in it fits, or what fits is not finite.
    """
    file = _weights_file(local_path(source))
    given, notes = read_weights(file)
    state = model.state_dict()
    _refuse_other_base(file, notes, given, model)
    if not _has_changes_of(given, state):
        given = merged(given)
    # What LoRA is put around is called as without it, unless the file has the same.
    names = {(key if key in given else plain_name(key, state)): key for key in state}
    own = {name: state[key] for name, key in names.items()}
    chosen = ("encoder",) if component == "encoder" else tuple(_COMPONENTS)
    loaded: dict[str, list[str]] = {}
    values: dict[str, Tensor] = {}
    used: set[str] = set()
    mismatched: list[str] = []
    remarks: list[str] = []
    order = _order_of_classes(notes, task, remarks)
    for name in chosen:
        mine = [key for key in own if key.startswith(f"{name}.")]
        left = {key: value for key, value in given.items() if key not in used}
        # A file of trained weights has few of a component's names, and those are the network's.
        pairs = {key: key for key in mine if key in left} if given.keys() <= own.keys() else _pairs(own, mine, left)
        loaded[name] = []
        if name in _HEADS and order is None:
            continue
        unlike = {key: how for key, theirs in pairs.items() if (how := _unlike(given[theirs], own[key]))}
        layers = {key.rpartition(".")[0] for key in unlike}  # loaded whole or not at all
        for key, theirs in pairs.items():
            if key.rpartition(".")[0] in layers:
                mismatched.append(key + unlike.get(key, ""))
                continue
            values[key] = _in_order(given[theirs], order) if name in _HEADS and order else given[theirs]
            used.add(theirs)
            loaded[name].append(key)
    loaded = {name: names for name, names in loaded.items() if any(key.startswith(f"{name}.") for key in own)}
    absent = {key.partition(" ")[0] for key in mismatched}
    keys = [key for key in own if key.partition(".")[0] in chosen]
    start = Start(
        loaded,
        tuple(key for key in keys if key not in values and key not in absent),
        tuple(mismatched),
        tuple(key for key in given if key not in used),
        (*([notes["chosen"]] if "chosen" in notes else []), *remarks),
    )
    if not any(value.ndim > 1 for value in values.values()):  # a BatchNorm of the right width is not a match
        raise SegregError(f"train.start_from: nothing in {file} fits the {component}", hint=str(start))
    refuse_not_finite(values, file)
    model.load_state_dict({names[key]: value for key, value in values.items()}, strict=False)
    return start


def _unlike(theirs: Tensor, own: Tensor) -> str:
    """Return in what a tensor of a file does not fit the network's: its shape, or whole numbers for fractions."""
    if theirs.shape != own.shape:
        return f" {list(theirs.shape)} for {list(own.shape)}"
    return f" {theirs.dtype} for {own.dtype}" if own.is_floating_point() and not theirs.is_floating_point() else ""


def _has_changes_of(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> bool:
    """Whether what a file has beside its weights by LoRA is what the network has, in names and shapes."""
    changes = [{name: t.shape for name, t in each.items() if ".lora_" in name} for each in (given, own)]
    return changes[0] == changes[1]


def _refuse_other_base(file: Path, notes: Mapping[str, str], given: Mapping[str, Tensor], model: Segmenter) -> None:
    """Refuse trained weights alone where the network has other frozen ones than those that they were trained beside.

    Raises:
        SegregError: the digest in the file's notes is of others.
    """
    if BASE not in notes:
        return
    trained = trained_tensors(model)
    if (
        given.keys() != set(trained)
        or not _has_changes_of(given, model.state_dict())
        or (notes[BASE] != digest_of_frozen(model, trained))
    ):
        raise SegregError(
            f"train.start_from: what {file} has was trained beside other weights than this network has, or in another "
            "way",
            hint="give the encoder the settings of that run, `weights` and `lora` too; or name the run, whose weights "
            "are complete",
        )


_COMPONENTS = ("encoder", "decoder", "auxiliary", "head", "auxiliary_head")
"""In the order in which they take tensors: the heads last, whose few names are found in many places."""
_HEADS = ("head", "auxiliary_head")


def _weights_file(source: Path) -> Path:
    if not source.is_dir():
        return source
    for file in (source / BEST, source / LAST, source / SMP_WEIGHTS):
        if file.is_file():
            return file
    raise SegregError(f"train.start_from: {source} holds no weights", hint=f"a run's folder has {BEST} or {LAST}")


def _order_of_classes(notes: Mapping[str, str], task: Task, remarks: list[str]) -> list[int] | None:
    """Return the file's outputs in the order of this task's classes, [] to take them as they are, None to leave them.

    Only a run's own weights name their classes.
    """
    try:
        theirs = json.loads(notes["task"])
        classes, mode = [str(name) for name in theirs["classes"]], theirs["mode"]
    except (KeyError, TypeError, ValueError):
        return []
    if (classes, mode) == (list(task.classes), task.mode):
        return []
    if mode == task.mode and sorted(classes) == sorted(task.classes) and len(set(classes)) == len(classes):
        remarks.append(f"the head's outputs were reordered: the file's classes are {listed(classes, most=12)}")
        return [classes.index(name) for name in task.classes]
    remarks.append(f"the head was left out: the file's classes are {listed(classes, most=12)} ({mode})")
    return None


def _in_order(value: Tensor, order: Sequence[int]) -> Tensor:
    """Return a tensor of a head with its classes in an order; one for no class, as queries have, stays behind them."""
    further = len(value) - len(order) if value.ndim else -1
    return value[[*order, *range(len(order), len(value))]] if further in (0, 1) else value


def _pairs(own: Mapping[str, Tensor], mine: Sequence[str], given: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the names of a component with the file's name for each, or nothing where too little agrees.

    Shapes decide; where several pairs of prefixes are as good, names that agree without their shapes, then the fewest
    names of the file that are left over, then the shortest prefix in the file.
    """
    shapes = {name: tuple(value.shape) for name, value in given.items()}
    beginnings = _by_suffix(mine)
    best: tuple[int, int, int, int] = (0, 0, 0, 0)
    chosen: dict[str, str] = {}
    for theirs, inside in _by_prefix(given).items():
        if 2 * len(inside) < len(mine):  # a few names that agree by chance are not the component
            continue
        candidates: dict[str, dict[str, str]] = defaultdict(dict)
        for name in inside:
            for prefix in beginnings.get(name.removeprefix(theirs), ()):
                candidates[prefix][prefix + name.removeprefix(theirs)] = name
        for pairs in candidates.values():
            fitting = sum(tuple(own[key].shape) == shapes[name] for key, name in pairs.items())
            if 2 * len(pairs) < len(mine):
                continue
            score = (fitting, len(pairs), -len(inside), -len(theirs))
            if score > best or not chosen:
                best, chosen = score, pairs
    return chosen


def _by_prefix(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the names by their beginnings, "" and those of whole words, such as "encoder." or "encoder.conv1."."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        words = name.split(".")
        for length in range(len(words)):
            found["".join(f"{word}." for word in words[:length])].append(name)
    return found


def _by_suffix(names: Iterable[str]) -> dict[str, list[str]]:
    """Return each ending of the names, whole words, with the beginnings that it has."""
    found: dict[str, list[str]] = defaultdict(list)
    for prefix, members in _by_prefix(names).items():
        for name in members:
            found[name.removeprefix(prefix)].append(prefix)
    return found
