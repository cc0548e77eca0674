"""References to the Hugging Face hub: `hf://user/name[@revision][/path]` becomes a local folder or file.

Everything that takes a run or a file of weights comes here. What is fetched lies in the hub's own cache, one folder for
each commit, so that it is fetched once and is there without a connection. Nothing that could run code is fetched by
itself: plugin files of a run are, as text, and take part only where somebody names them.
"""

from __future__ import annotations

import contextlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from segreg.errors import SegregError, did_you_mean
from segreg.runtime.files import expanded
from segreg.runtime.output import say_once

SMP_CONFIG, SMP_WEIGHTS = "config.json", "model.safetensors"
"""What SMP's `save_pretrained` writes."""
FILES = (
    "resolved.yaml", "recipe.yaml", "split.json", "environment.json", "results.json", "history.*", "per_image.csv",
    "counts.csv", "sums.npz", "best.safetensors", "last.safetensors", "plugins/*.py", "network.*", SMP_CONFIG,
    SMP_WEIGHTS, "README.md",
)  # fmt: skip
"""What is fetched of a repository: the files of a run, of an exported network, and of SMP's `save_pretrained`."""

# A path that went through pathlib has one slash.
_REFERENCE = re.compile(r"hf:/{1,2}(?P<repository>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?(?:/(?P<path>.*))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Reference:
    """A repository on the hub, or a file or folder in it.

    Attributes:
        repository: `user/name`.
        revision: a branch, a tag or a commit; empty for the main branch.
        path: of a file or folder in the repository; empty for the repository itself.
    """

    repository: str
    revision: str = ""
    path: str = ""

    @classmethod
    def of(cls, source: Path | str) -> Reference:
        """Return what a string names.

        Raises:
            SegregError: it is not written as a reference.
        """
        found = _REFERENCE.fullmatch(str(source))
        if not found:
            raise SegregError(
                f"{source} is not a reference to the hub",
                hint="it is written hf://user/name, hf://user/name@revision or hf://user/name/path",
            )
        revision = unquote(found["revision"] or "")
        return cls(found["repository"], revision, (found["path"] or "").strip("/"))

    def __str__(self) -> str:
        revision = f"@{self.revision.replace('/', '%2F')}" if self.revision else ""
        return f"hf://{self.repository}{revision}" + (f"/{self.path}" if self.path else "")


def is_reference(source: Path | str | None) -> bool:
    """Whether something names a place on the hub, and not on the disk."""
    return str(source).startswith("hf:/")


def local_path(source: Path | str) -> Path:
    """Return the local folder or file that a path or a reference names; what a reference names is fetched first.

    Without a connection what is cached is taken. A reference without a commit is reported on standard error with the
    commit that it was.

    Raises:
        SegregError: there is no such repository, revision or file, it is gated, or the hub can't be reached and the
            cache does not have it.
    """
    if not is_reference(source):
        return expanded(source)
    reference = Reference.of(source)
    folder = _snapshot(reference)
    found = folder / reference.path
    if not found.exists():
        names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
        with contextlib.suppress(Exception):  # the hub knows more names than were fetched
            names = _api().list_repo_files(reference.repository, revision=folder.name)
        raise SegregError(
            f'{reference}: there is no file or folder "{reference.path}"', hint=did_you_mean(reference.path, names)
        )
    if not _COMMIT.fullmatch(reference.revision):
        say_once(f"note: {reference} is {pinned(reference, folder)}")
    return found


def pinned(source: Reference | Path | str, folder: Path | None = None) -> str:
    """Return a reference with the commit that it names now, which always means the same files.

    Args:
        source: the reference.
        folder: where its repository lies in the cache, if that is known.
    """
    reference = source if isinstance(source, Reference) else Reference.of(source)
    if _COMMIT.fullmatch(reference.revision):  # which needs neither a connection nor the files
        return str(reference)
    commit = (folder or _snapshot(reference)).name
    return str(Reference(reference.repository, commit, reference.path))


def in_cache(folder: Path) -> str:
    """Return the reference of a folder that lies in the hub's cache, or an empty string for any other folder."""
    found = re.search(r"/models--([^/]+)/snapshots/([0-9a-f]{40})(?:/(.*))?$", folder.absolute().as_posix())
    return str(Reference(found[1].replace("--", "/", 1), found[2], found[3] or "")) if found else ""


def refuse_to_write(folder: Path, option: str) -> None:
    """Refuse to write into the hub's cache, which holds what others have published.

    Raises:
        SegregError: the folder is in it; the message names the option that takes another place.
    """
    if reference := in_cache(folder):
        raise SegregError(
            f"{reference} is in the hub's cache, where nothing is written", hint=f"name another place with {option}"
        )


def _snapshot(reference: Reference) -> Path:
    """Return the folder of a repository at one commit, with what `FILES` or the reference's path name."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    show_bars_in_terminals()
    own = [] if reference.path.startswith("network.") or not reference.path else [reference.path, f"{reference.path}/*"]
    named: dict[str, Any] = {
        "repo_id": reference.repository, "revision": reference.revision or None, "allow_patterns": own or list(FILES),
    }  # fmt: skip
    if _COMMIT.fullmatch(reference.revision):  # which is the same as when it was fetched
        with contextlib.suppress(LocalEntryNotFoundError):
            return Path(snapshot_download(**named, local_files_only=True))
    try:
        return Path(snapshot_download(**named))
    except Exception as error:  # whichever of several network libraries failed
        raise hub_error(error, reference) from error


def show_bars_in_terminals() -> None:
    """Let the hub's client show its progress bars in a terminal only."""
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()


def _api() -> Any:
    from huggingface_hub import HfApi

    return HfApi()


def hub_error(error: Exception, reference: Reference) -> SegregError:
    """Return what is reported of an error that the hub or its client raised: what is wrong, close names, what to do."""
    from huggingface_hub import constants, errors

    name, host = reference.repository, constants.ENDPOINT
    status = getattr(getattr(error, "response", None), "status_code", None)
    login = "`hf auth login` stores an access token, and HF_TOKEN names one"
    if isinstance(error, errors.HFValidationError):
        return SegregError(f'"{name}" can\'t be the name of a repository: {_first_line(error)}')
    if isinstance(error, errors.GatedRepoError):
        return SegregError(
            f"{name} is gated: its owner asks for conditions to be accepted",
            hint=f"accept them at {host}/{name}; then {login}",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        user, _, own = name.partition("/")
        known: list[str] = []
        with contextlib.suppress(Exception):
            known = [each.id.partition("/")[2] for each in _api().list_models(author=user, limit=1000)]
        close = did_you_mean(own, known) or (f"{user} has {len(known)} public models" if known else "")
        return SegregError(
            f"{host} has no model {name} that you may see",
            hint="\n".join(filter(None, [close, f"if it is private: {login}"])),
        )
    if isinstance(error, errors.RevisionNotFoundError):
        revisions: list[str] = []
        with contextlib.suppress(Exception):
            refs = _api().list_repo_refs(name)
            revisions = [each.name for each in (*refs.branches, *refs.tags)]
        return SegregError(
            f'{name} has no revision "{reference.revision}"',
            hint=did_you_mean(reference.revision, revisions) or f"it has {', '.join(revisions)}" if revisions else "",
        )
    if status in (401, 403):
        return SegregError(f"{host} refuses access to {name}: {_first_line(error)}", hint=login)
    if constants.HF_HUB_OFFLINE:
        return SegregError(
            f"{reference} is not in the cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE forbids the network",
            hint=f"on a machine with a connection run `hf download {name}`, and copy its hub cache",
        )
    if isinstance(error, errors.LocalEntryNotFoundError):
        return SegregError(
            f"{host} can't be reached ({_first_line(error.__cause__ or error)}), and {reference} is not in the cache "
            f"{constants.HF_HUB_CACHE}",
            hint=f"try again, or on a machine with a connection run `hf download {name}`, and copy its hub cache",
        )
    if re.search("Connect|Timeout|Network", type(error).__name__):
        return SegregError(f"{host} can't be reached ({_first_line(error)})", hint="try again")
    cause = f", from {_first_line(error.__cause__)}" if error.__cause__ else ""
    return SegregError(f"{host}: {reference}: {_first_line(error)}{cause}", hint="the same command tries again")


def _first_line(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
