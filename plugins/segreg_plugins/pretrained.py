"""Where a file of pretrained weights is had: the local cache first, then the network, and never a long wait offline."""

from __future__ import annotations

import re
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import urlsplit

from segreg.errors import SegregError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
Fallback = Literal["error", "random"]

DEFAULT = "default"
"""The tag that stands for whichever weights a library itself would choose."""

FALLBACK_MEANING = (
    "what happens where the weights are not available, for instance offline: `error` stops and names the ways out, "
    "`random` continues with random weights and says so in the run's header and record"
)

PATIENCE = 3.5
"""Seconds that a server is given to answer before it counts as out of reach."""


@dataclass(frozen=True)
class HubFile:
    """A file on the Hugging Face hub. `names` are alternatives, the one to prefer first."""

    repository: str
    names: tuple[str, ...] = ("model.safetensors",)
    revision: str | None = None

    @property
    def address(self) -> str:
        """Return the URL of the preferred file."""
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self.repository, self.names[0], revision=self.revision)

    def cached(self) -> Path | None:
        """Return the file in the local cache, where it is there."""
        from huggingface_hub import try_to_load_from_cache

        for name in self.names:
            found = try_to_load_from_cache(self.repository, name, revision=self.revision)
            if isinstance(found, str):
                return Path(found)
        return None

    def download(self) -> Path:
        """Return the file after fetching it into the cache; whatever the hub's client raises goes through."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        *others, last = self.names
        for name in others:
            try:
                return Path(hf_hub_download(self.repository, name, revision=self.revision))
            except EntryNotFoundError as error:
                if isinstance(error, FileNotFoundError):  # the hub's word for a connection that broke
                    raise
        return Path(hf_hub_download(self.repository, last, revision=self.revision))

    def by_hand(self) -> str:
        """Return how the file is fetched on another machine."""
        from huggingface_hub import constants

        revision = f" --revision {self.revision}" if self.revision else ""
        return (
            f"on a machine with a connection run `hf download {self.repository} {self.names[0]}{revision}`, copy its "
            f"hub cache to {constants.HF_HUB_CACHE}, or set HF_HOME to the folder that holds the copied `hub`"
        )


@dataclass(frozen=True)
class WebFile:
    """A file behind a plain URL, kept where torch.hub keeps its checkpoints."""

    address: str

    @property
    def _place(self) -> Path:
        from torch.hub import get_dir

        return Path(get_dir()) / "checkpoints" / Path(urlsplit(self.address).path).name

    def cached(self) -> Path | None:
        """Return the file in the local cache, where it is there."""
        return self._place if self._place.is_file() else None

    def download(self) -> Path:
        """Return the file after fetching it into the cache; whatever the download raises goes through."""
        from torch.hub import download_url_to_file

        self._place.parent.mkdir(parents=True, exist_ok=True)
        # PyTorch's own file names end in the first digits of their SHA-256, so a torn download is noticed.
        digits = re.search(r"-([0-9a-f]{8,})\.\w+$", self._place.name)
        download_url_to_file(self.address, str(self._place), hash_prefix=digits.group(1) if digits else None)
        return self._place

    def by_hand(self) -> str:
        """Return how the file is fetched on another machine."""
        return (
            f"on a machine with a connection download {self.address} and put it here as {self._place}, "
            "or set TORCH_HOME to the folder that holds its `hub/checkpoints`"
        )


def obtain(file: HubFile | WebFile, *, part: str, weights: str, fallback: Fallback) -> tuple[Path | None, str]:
    """Return the file's path and an empty note, or None and a note that says why random weights take its place.

    Nothing but the local cache is touched where the file is in it. Offline this answers within about four seconds.

    Args:
        file: what is wanted.
        part: who wants it, for messages, such as "encoder resnet50".
        weights: the tag by which the recipe names it.
        fallback: whether random weights may take its place.

    Raises:
        SegregError: the file is not available and `fallback` is "error".
    """
    if path := file.cached():
        return path, ""
    reason = unreachable(file.address)
    if not reason:
        try:
            return file.download(), ""
        except Exception as error:  # whichever of several network libraries failed, the ways out are the same
            reason = f"{file.address} could not be downloaded: {_first_line(error)}"
    if fallback == "random":
        return None, f'RANDOM weights: "{weights}" of the {part} are not available ({reason})'
    raise SegregError(
        f'the weights "{weights}" of the {part} are not available: {reason}',
        hint="the ways out:\n"
        "- weights: null starts from random weights\n"
        "- weights_fallback: random, beside weights, does so only where they are not available, and says so\n"
        f"- {file.by_hand()}",
    )


def unreachable(address: str) -> str:
    """Return why the server of `address` can't be reached, or an empty string where it answered anything at all.

    The hub's and torch's own clients retry for up to a minute; this asks once. Proxies are honoured as urllib does,
    from the environment.
    """
    from huggingface_hub import constants

    parts = urlsplit(address)
    if constants.HF_HUB_OFFLINE and address.startswith(constants.ENDPOINT):
        return "HF_HUB_OFFLINE forbids the network, and the local cache does not have them"
    answer: list[str] = []
    # Looking up a host's name obeys no timeout, so the asking stands in a thread that may be left behind.
    asking = threading.Thread(target=lambda: answer.append(_asked(f"{parts.scheme}://{parts.netloc}/")), daemon=True)
    asking.start()
    asking.join(PATIENCE)
    reason = answer[0] if answer else f"no answer within {PATIENCE:g} seconds"
    return f"{parts.netloc} can't be reached ({reason})" if reason else ""


def _asked(address: str) -> str:
    request = urllib.request.Request(address, method="HEAD")  # noqa: S310 (https or the user's own HF_ENDPOINT)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE):  # noqa: S310
            return ""
    except urllib.error.HTTPError:
        return ""  # a server that refuses is there
    except urllib.error.URLError as error:
        # The downloading client brings certificates of its own; let it judge.
        return "" if isinstance(error.reason, ssl.SSLError) else str(error.reason)
    except Exception as error:
        return _first_line(error)


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a weights file, without unpickling code.

    Raises:
        SegregError: the file is damaged or holds more than tensors.
    """
    import safetensors.torch
    import torch

    if path.suffix == ".safetensors":
        return loading(path, lambda: safetensors.torch.load_file(path, device="cpu"))
    state: dict[str, Tensor] = loading(path, lambda: torch.load(path, map_location="cpu", weights_only=True))
    return state


def loading(path: Path, load: Callable[[], T]) -> T:
    """Return `load()`, which reads `path` into a network.

    Raises:
        SegregError: `load` failed; the message names the file.
    """
    try:
        return load()
    except Exception as error:  # safetensors, pickle, zipfile and torch each have their own errors for a bad file
        raise SegregError(
            f"{path}: these weights can't be loaded: {_first_line(error)}",
            hint="delete the file if it is damaged; it is then fetched again",
        ) from error


def _first_line(error: BaseException) -> str:
    text = str(error).strip().split("\n", 1)[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
