"""Checkpoint files: a network's weights, and the training state that a run resumes from.

Weights are safetensors. The training state is a PyTorch file of tensors and plain containers, read with
`weights_only=True`, so that neither can run code. Every file is written under another name, flushed and renamed:
after a crash at any moment there is the old file or the new one, complete.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segreg.errors import SegregError, listed, plural
from segreg.registry.compatibility import DISTRIBUTION
from segreg.runtime.files import replacing

if TYPE_CHECKING:
    from torch import Tensor, nn

    from segreg.task import Task

STATE = "state.pt"
"""The training state after the last finished epoch, from which a run resumes."""

BEST = "best.safetensors"
"""The weights of the epoch with the best monitored value."""

LAST = "last.safetensors"
"""The weights of the last finished epoch."""

ADAPTER = "adapter.safetensors"
"""Those of the best weights that are trained, where others of the encoder are not."""

FORMAT = 1

RECIPE, TASK, NORMALIZE, SIZE_DIVISOR = "recipe", "task", "normalize", "size_divisor"
"""Notes in a weights file by which it explains itself without its run directory."""


@dataclass
class State:
    """The state of a training after a finished epoch.

    Attributes:
        epoch: epochs finished.
        seconds: time they took, those before a resume included.
        objective: state of the network and the losses.
        ema: state of the moving average, or None.
        ema_steps: optimizer steps that the moving average has seen.
        optimizer: state of the optimizer.
        schedule: state of the schedule.
        scaler: state of the gradient scaler, empty without one.
        random_state: state of every random number generator.
        monitor: name of the value that chooses the best epoch.
        best_epoch: the epoch with the best monitored value; 0 before there is one.
        best_value: that value, negated where smaller is better.
        epochs_without_better: epochs since then.
        precision: name of the precision.
        values: the last row of the history.
    """

    epoch: int
    seconds: float
    objective: dict[str, Any]
    ema: dict[str, Any] | None
    ema_steps: int
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    scaler: dict[str, Any]
    random_state: dict[str, Any]
    monitor: str
    best_epoch: int
    best_value: float | None
    epochs_without_better: int
    precision: str
    values: dict[str, float]


def save_state(state: State, path: Path) -> None:
    """Write a training state, atomically.

    Raises:
        SegregError: it holds something that can't be read back without running code.
    """
    import torch

    content = {field.name: _plain(getattr(state, field.name), field.name) for field in fields(State)}
    with replacing(path, needed=_size(content)) as temporary:
        torch.save({"format": FORMAT, **content}, temporary)


def load_state(path: Path) -> State:
    """Read a training state, its tensors on the CPU.

    Raises:
        SegregError: the file is missing, damaged, holds code, or is not a training state.
    """
    content = _load_pickle(path)
    names = {field.name for field in fields(State)}
    if not isinstance(content, dict) or "format" not in content:
        raise SegregError(f"{path}: not a training state of segreg")
    if content.pop("format") != FORMAT or content.keys() != names:
        raise SegregError(f"{path}: a training state of another version of segreg; resume it with that one")
    return State(**content)


def notes_for_weights(recipe: str, task: Task, notice: str, normalize: Any, size_divisor: int) -> dict[str, str]:
    """Return what a weights file says of the network: recipe, classes, statistics of normalisation, padding.

    Args:
        recipe: the complete recipe, as YAML.
        task: the classes.
        notice: what must not be overlooked of the data.
        normalize: the `Normalize` before the network.
        size_divisor: what the sides of the network's images are multiples of.
    """
    statistics = {name: getattr(normalize, name).flatten().tolist() for name in ("mean", "std")}
    statistics["value_range"] = normalize.value_range
    return {
        RECIPE: recipe,
        TASK: json.dumps(asdict(task)),
        NORMALIZE: json.dumps(statistics),
        SIZE_DIVISOR: str(size_divisor),
        "notice": notice,
        "segreg": version(DISTRIBUTION),
    }


def save_weights(tensors: Mapping[str, Tensor], path: Path, *, notes: Mapping[str, Any]) -> None:
    """Write tensors as safetensors, atomically. Tensors that share memory are copied.

    Args:
        tensors: a module's `state_dict()`.
        path: the file.
        notes: metadata for the file's header, written as strings.
    """
    from safetensors.torch import save_file

    seen: set[int] = set()
    separate: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        # safetensors takes contiguous tensors with memory of their own.
        copy = tensor.detach().cpu().contiguous()
        storage = copy.untyped_storage().data_ptr()
        separate[name] = copy.clone() if storage in seen else copy
        seen.add(storage)
    with replacing(path, needed=_size(separate)) as temporary:
        save_file(separate, temporary, metadata={key: str(value) for key, value in notes.items()})
        _sort_notes(temporary)


def copy_weights(source: Path, path: Path) -> None:
    """Write the same weights under another name, atomically: as a hard link where the disk has them.

    Files of weights are replaced and never changed, so that either name keeps what it has.
    """
    with replacing(path) as temporary:
        temporary.unlink()
        try:
            temporary.hardlink_to(source)
        except OSError:
            with source.open("rb") as read, temporary.open("wb") as written:
                shutil.copyfileobj(read, written)


def _sort_notes(file: Path) -> None:
    """Sort the notes in a safetensors file's header, whose order is random, so that equal weights are equal files."""
    with file.open("r+b") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(length))
        header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= length:  # blanks may follow
            opened.seek(8)
            opened.write(text.ljust(length))


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return a weights file's tensors, on the CPU, and its notes.

    Takes safetensors, and PyTorch files that hold a mapping from names to tensors at any depth, such as
    `{"epoch": 3, "model_state_dict": {...}}`; what lies beside the tensors is left. Of several mappings the largest is
    taken, and the first of those as large, which the notes say as "chosen".

    Raises:
        SegregError: the file is missing, damaged, holds code, or holds no tensors, or one that is sparse or has no
            values.
    """
    import torch

    if path.suffix != ".safetensors":
        found = _tensors_in(_load_pickle(path))
        if not found:
            raise SegregError(f"{path}: holds no weights (a mapping from names to tensors)")
        chosen = max(found, key=lambda key: len(found[key]))  # the first of the largest
        for name, tensor in found[chosen].items():
            if tensor.is_meta:
                hint = "it was saved before its weights were loaded, or while they were elsewhere"
                raise SegregError(f'{path}: the tensor "{name}" is on the device meta and has no values', hint=hint)
            if tensor.layout != torch.strided:
                message = f'{path}: the tensor "{name}" has the layout {tensor.layout}, and weights are dense'
                raise SegregError(message, hint="save tensor.to_dense() instead")
        as_large = [key for key in found if len(found[key]) == len(found[chosen]) and key != chosen]
        return found[chosen], {"chosen": f'taken from "{chosen}"; there is also {listed(as_large)}'} if as_large else {}
    with _open_safetensors(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def _tensors_in(content: Any, where: str = "", depth: int = 4) -> dict[str, dict[str, Tensor]]:
    """Return the mappings from names to tensors in what a PyTorch file holds, by their place in it."""
    import torch

    if not isinstance(content, Mapping) or not depth:
        return {}
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, torch.Tensor)}
    found = {where: tensors} if tensors else {}
    for key, value in content.items():
        if isinstance(key, str):
            found |= _tensors_in(value, f"{where}.{key}" if where else key, depth - 1)
    return found


def read_notes(path: Path) -> dict[str, str]:
    """Return the notes in a safetensors file's header, without reading the weights.

    Raises:
        SegregError: the file is missing or damaged.
    """
    with _open_safetensors(path) as file:
        return file.metadata() or {}


@contextmanager
def _open_safetensors(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise SegregError(f"{path}: there is no such file")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise SegregError(f"{path}: damaged or not a safetensors file ({error})") from None


def load_weights(module: nn.Module, path: Path, *, without: tuple[str, ...] = ()) -> None:
    """Load a weights file into a module.

    Args:
        module: the network.
        path: the file.
        without: how names begin of tensors in the file that the module needs not have.

    Raises:
        SegregError: the file can't be read, a name or shape does not match, or a value is not finite; nothing is loaded
            then.
    """
    tensors, _ = read_weights(path)
    fit_to(module, tensors)
    own, given = module.state_dict(), {name: t for name, t in tensors.items() if not name.startswith(without)}
    shapes = {name: (given[name].shape, tensor.shape) for name, tensor in own.items() if name in given}
    wrong = {
        "missing": [name for name in own if name not in given],
        "unexpected": [name for name in given if name not in own],
        "of another shape": [f"{name} {list(a)} for {list(b)}" for name, (a, b) in shapes.items() if a != b],
    }
    if any(wrong.values()):
        lines = [f"{sum(a == b for a, b in shapes.values())} tensors fit"]
        lines += [f"{len(names)} {word}: {listed(names, quote='', most=6)}" for word, names in wrong.items() if names]
        raise SegregError(f"{path}: the weights do not fit the network", hint="\n".join(lines))
    refuse_not_finite(given, path)
    module.load_state_dict(given)


def fit_to(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Let parts take the sizes that come with tensors, before these are loaded.

    Some sizes, such as the number of queries, are those of published weights, and a network that is built to have other
    tensors loaded does not read these again. A part that has such sizes offers `fit_to(tensors)`, with its own names.
    """
    for name, part in module.named_modules():
        if callable(fit := getattr(part, "fit_to", None)):
            fit({key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")})


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that hold NaN or infinity. A sync."""
    import torch

    floats = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    finite = torch.stack([tensor.isfinite().all() for tensor in floats.values()]).tolist() if floats else []
    return [name for name, fine in zip(floats, finite, strict=True) if not fine]


def refuse_not_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights of a file with which a network would return NaN.

    Raises:
        SegregError: some are not finite.
    """
    if wrong := not_finite(tensors):
        raise SegregError(
            f"{path}: NaN or infinite values in {plural(len(wrong), 'tensor')}, first {listed(wrong, most=3)}",
            hint="the training that wrote it has diverged, or the file is damaged; take weights of an earlier epoch",
        )


def random_state() -> dict[str, Any]:
    """Return the state of every random number generator that training uses."""
    import numpy as np
    import torch

    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": (str(name), torch.from_numpy(np.array(keys, dtype=np.int64)), position, has_gauss, gauss),
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Restore every generator to what `random_state` returned; CUDA's only where there are as many devices."""
    import numpy as np
    import torch

    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))


def _load_pickle(path: Path) -> Any:
    """Read a PyTorch file without running code that it may hold."""
    import pickle
    import struct
    import warnings
    import zipfile
    import zlib

    import torch

    if not path.is_file():
        raise SegregError(f"{path}: there is no such file")
    try:
        # PyTorch does not verify the checksums that it writes.
        if zipfile.is_zipfile(path) and (wrong := zipfile.ZipFile(path).testzip()):
            raise zipfile.BadZipFile(f"checksum of {wrong}")
        with warnings.catch_warnings():
            # For files that others made; the errors below cover what matters.
            warnings.filterwarnings("ignore", message="Detected pickle protocol|Validating sparse tensor")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise SegregError(
            f"{path}: refused: it holds more than tensors and plain values, and reading it could run code",
            hint="a damaged file may look like this too",
        ) from None
    except (
        RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError, AssertionError, struct.error,
        zipfile.BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        why = str(error).partition("\n")[0] or type(error).__name__
        raise SegregError(f"{path}: damaged or not a PyTorch file ({why})") from None


def _size(value: Any) -> int:
    """Return the bytes of all tensors inside a value."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, (list, tuple)) else 0


def _plain(value: Any, where: str) -> Any:
    """Return a value made of what `weights_only` reads: tensors, numbers, strings, lists, tuples and mappings."""
    import numpy as np
    import torch

    if isinstance(value, np.generic):
        value = value.item()
    # Exactly these types: a subclass, such as an Enum, is written with its name and needs code to be read.
    if type(value) in (type(None), bool, int, float, complex, str, torch.dtype):
        return value
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, Mapping):
        return {_plain(key, where): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, (set, frozenset)):
        return {_plain(item, where) for item in value}
    raise SegregError(
        f"the training state can't be saved: {where} is a {type(value).__module__}.{type(value).__qualname__}",
        hint="state_dict() may hold only tensors, numbers, strings, lists and mappings, so that it loads without code",
    )
