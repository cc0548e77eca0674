"""A run goes to the Hugging Face hub: what is uploaded, without anything of the machine that it was trained on."""

from __future__ import annotations

import dataclasses
import getpass
import re
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segreg.config.recipe import to_yaml
from segreg.errors import Place, Problem, SegregError
from segreg.runs.card import write_card
from segreg.runs.sidecar import PATH_INSIDE, SIDECAR, are_scored, describe_run, read_sidecar, without_paths_inside
from segreg.runs.trained_run import Run, Weights
from segreg.runtime.files import cannot_write, write_json
from segreg.runtime.hub import FILES, Reference, hub_error, show_bars_in_terminals

CARD = "README.md"
_RESULTS = (
    "notice", "weights", "alerts", "dataset", "classes", "mode", "seed", "images", "epochs", "stopped_because",
    "monitor", "best_epoch", "best_value", "training_seconds", "time", "advice", "micro_batches", "precision",
    "scored_on", "resolution", "metrics", "definitions", "intervals", "intervals_over",
)  # fmt: skip
_ENVIRONMENT = ("python", "packages", "plugins", "sources", "precision", "model", "data_fingerprint")
_PLUGIN = ("name", "distribution", "version", "error", "digest", "file")
_OF_IMAGES = ("split.json", "per_image.csv", "counts.csv", "sums.npz")
"""Files that name the samples, whose names may say more than their owner wants to publish."""
_OF_SCORES = _OF_IMAGES[1:]
"""Those of them that hold scores."""


@dataclass(frozen=True)
class Package:
    """A folder that is ready to be uploaded.

    Attributes:
        folder: where it is.
        files: the names of its files with their sizes in bytes.
        left_out: what of the run is not in it, one sentence each.
        found: what in it may say something of the machine or its user.
    """

    folder: Path
    files: Mapping[str, int]
    left_out: tuple[str, ...]
    found: tuple[Problem, ...]

    @property
    def card(self) -> str:
        """Return the model card."""
        return (self.folder / CARD).read_text(encoding="utf-8")

    def refuse_private(self) -> None:
        """Refuse to publish what may say something of the machine or its user.

        Raises:
            SegregError: there is something, with its file and line.
        """
        if self.found:
            asked = Problem("nothing was uploaded", hint="change it in the run, or let a word pass with --allow WORD")
            raise SegregError.of([*self.found[:20], asked])


def pack(
    run: Run, repository: str, folder: Path, *,
    weights: Weights = "best", samples: bool = False, allowed: Sequence[str] = (), card: str = "",
) -> Package:  # fmt: skip
    """Write what is published of a run into a folder.

    Args:
        run: a run, or an exported network.
        repository: `user/name` on the hub.
        folder: is made, and must be empty.
        weights: of the best epoch or of the last one.
        samples: whether the names of the samples go along: the split, and the scores of each image.
        allowed: words that may occur although they look like something of this machine.
        card: the card that is on the hub already, of which the owner's sections are kept.

    Raises:
        SegregError: the run has no such weights, or the folder can't be written or is not empty.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(error, folder) from None
    if any(folder.iterdir()):
        raise SegregError(f"{folder} is not empty", hint="name another folder with --out")
    source, left_out = run.directory.path, []
    recipe, paths = without_paths(run.written.values)
    if isinstance(recipe.get("encoder"), dict):
        recipe["encoder"].pop("lora", None)  # it is merged into the weights
    left_out += [f"resolved.yaml: {place}: a path of this machine" for place in paths]
    target = dataclasses.replace(run, directory=type(run.directory)(folder), overrides=())
    text = to_yaml(recipe)
    target.directory.resolved.write_text(text, encoding="utf-8")
    scored = _write_records(run, target, weights, left_out, samples=samples)
    for file in sorted((source / "plugins").glob("*.py")):
        (folder / "plugins").mkdir(exist_ok=True)
        shutil.copyfile(file, folder / "plugins" / file.name)
    for name in ("history.csv", "history.jsonl", *_OF_IMAGES):
        if not (source / name).is_file():
            continue
        if name in _OF_IMAGES and not samples:
            left_out.append(f"{name}: it names the samples (--samples takes it along)")
        elif scored or name not in _OF_SCORES:
            shutil.copyfile(source / name, folder / name)
    sidecar = read_sidecar(source / SIDECAR) if (source / SIDECAR).is_file() else {}
    if "network" in sidecar:  # an exported one
        for file in sorted(source.glob("network.*")):
            shutil.copyfile(file, folder / file.name)
        sidecar = without_paths_inside(sidecar)
    else:
        _write_weights(run.weights_file(weights), target.directory.best, text)
        sidecar = describe_run(target)
        sidecar["provenance"]["weights"] = weights
    write_json(folder / SIDECAR, sidecar)
    (folder / CARD).write_text(write_card(target, sidecar, repository, before=card), encoding="utf-8")
    files = {
        file.relative_to(folder).as_posix(): file.stat().st_size for file in sorted(folder.rglob("*")) if file.is_file()
    }
    found = private_words(folder, allowed, known=repository.split("/"))
    return Package(folder, files, tuple(left_out), tuple(found))


def _write_weights(source: Path, file: Path, recipe: str) -> None:
    """Write the weights, LoRA merged, with the published recipe in their notes, without the machine's paths."""
    from segreg.models.lora import merged
    from segreg.training.checkpoint import read_weights, save_weights

    tensors, notes = read_weights(source)
    save_weights(merged(tensors), file, notes={**without_paths_inside(notes), "recipe": recipe} if notes else {})


def _write_records(run: Run, target: Run, weights: Weights, left_out: list[str], *, samples: bool) -> bool:
    """Write results and environment with the keys that say nothing of the machine.

    Return whether the scores go along, which they do with the weights that they are of.
    """
    scored = True
    if run.directory.results.is_file():
        kept = {key: run.results[key] for key in (*_RESULTS, *(["groups"] if samples else [])) if key in run.results}
        if not (scored := are_scored(weights, run.results)):
            kept |= {"scored_on": None, "metrics": {}, "definitions": {}, "intervals": {}, "groups": {}}
            left_out.append("results.json: the scores, which are of the best epoch's weights")
        name = Path(str(run.results.get("recipe", ""))).name
        write_json(
            target.directory.results, {"recipe": name, "warnings": [], "overlays": {}, **without_paths_inside(kept)}
        )
        left_out.append("results.json: warnings, the recipe's path, and which images were drawn")
    if environment := run.environment:
        kept = {key: environment[key] for key in _ENVIRONMENT if key in environment}
        kept["recipe"] = Path(str(environment.get("recipe", ""))).name
        kept["plugins"] = [
            {key: Path(value).name if key == "file" else value for key, value in row.items() if key in _PLUGIN}
            for row in kept.get("plugins", [])
        ]
        write_json(target.directory.environment, without_paths_inside(kept))
        dropped = sorted(set(environment) - set(kept))
        left_out += [f"environment.json: {', '.join(dropped)}"] if dropped else []
    return scored


_PATH = re.compile(r"(?:/|~|[A-Za-z]:[\\/]|\\\\|file:)")
"""How a path begins."""


def without_paths(recipe: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return a recipe with `path/to/<key>` for every path, and where the paths were."""
    found: list[str] = []

    def cleaned(value: Any, key: str, where: str) -> Any:
        if isinstance(value, Mapping):
            return {name: cleaned(item, str(name), f"{where}.{name}".strip(".")) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [cleaned(item, key, f"{where}[{index}]") for index, item in enumerate(value)]
        if isinstance(value, str) and _PATH.match(value):
            found.append(where)
            return f"path/to/{key}"
        return value

    return cleaned(recipe, "", ""), found


_IN_BYTES = re.compile(rb"/(?:home|Users|root|mnt|scratch|srv|tmp|work|opt|usr|media)/[\w./-]{3,}")
"""A path among the bytes of a file that is not text: by its first folder, which chance hardly writes."""
_TEXT = (".yaml", ".json", ".jsonl", ".csv", ".md", ".py")
_SUSPICIOUS = (
    (PATH_INSIDE, "a path"),
    (re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]*\w"), "an e-mail address"),
    (re.compile(r"://[^/\s:@]+:[^/\s@]+@"), "a password in an address"),
    (re.compile(r"\b(?:hf_|ghp_|github_pat_|sk-|AKIA)[A-Za-z0-9_]{16,}"), "an access token"),
)
_COMMON = {"root", "user", "admin", "home", "test", "runner", "ubuntu", "debian", "localhost", "docker", "python"}
"""Names of users and machines that say nothing."""


def private_words(folder: Path, allowed: Sequence[str] = (), *, known: Sequence[str] = ()) -> Iterator[Problem]:
    """Yield what in a folder's files may say something of this machine or its user, each with its file and line.

    Args:
        folder: what is to be published.
        allowed: words with which anything passes.
        known: words that pass by themselves, because everybody sees them: the user's name on the hub.
    """
    names = {"the name of this user": _user(), "the name of this machine": socket.gethostname().partition(".")[0]}
    patterns = [
        *_SUSPICIOUS,
        *(
            (re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE), what)
            for what, name in names.items()
            if len(name) > 2 and name.lower() not in _COMMON
        ),
    ]
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        for number, line in enumerate(_lines(file), start=1):
            for pattern, what in patterns:
                for found in dict.fromkeys(match.group() for match in pattern.finditer(line)):
                    passes = any(word and word.lower() in found.lower() for word in allowed)
                    if not passes and found.lower() not in map(str.lower, known):
                        place = Place(file.relative_to(folder).as_posix(), number)
                        yield Problem(f'"{found}" looks like {what}', place)


def _lines(file: Path) -> list[str]:
    """Return the lines of a text file, of the notes in a safetensors file, or what is a path in an exported network."""
    if file.suffix == ".safetensors":
        from segreg.training.checkpoint import read_notes

        return [line for note in read_notes(file).values() for line in note.splitlines()]
    if file.suffix not in _TEXT:
        return [found.decode() for found in dict.fromkeys(_IN_BYTES.findall(file.read_bytes()))]
    return file.read_text(encoding="utf-8", errors="replace").splitlines()


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user without a name, as in some containers
        return ""


@dataclass(frozen=True)
class Pushed:
    """What was uploaded: the repository's address, the commit, and whether everybody can see it."""

    url: str
    commit: str
    public: bool


def card_on_hub(repository: str, revision: str = "", *, public: bool = False) -> str:
    """Return the card that a repository has, or an empty string where it has none, or is not there yet.

    Raises:
        SegregError: the repository is public, and it was not said that it may be; or the hub can't be asked.
    """
    from huggingface_hub import HfApi, errors

    reference = Reference(repository, revision)
    try:
        found = HfApi().repo_info(repository)
    except errors.GatedRepoError as error:
        raise hub_error(error, reference) from error
    except errors.RepositoryNotFoundError:
        return ""
    except Exception as error:
        raise hub_error(error, reference) from error
    if not found.private and not public:
        raise SegregError(f"{repository} is public: everybody can see what is pushed to it", hint="--public does so")
    try:
        path = HfApi().hf_hub_download(repository, CARD, revision=revision or None)
    except (errors.EntryNotFoundError, errors.RevisionNotFoundError):
        return ""
    except Exception as error:
        raise hub_error(error, reference) from error
    return Path(path).read_text(encoding="utf-8")


def upload(package: Package, repository: str, *, public: bool = False, revision: str = "", message: str = "") -> Pushed:
    """Upload a folder as one commit; the repository and the branch are made where they are missing.

    Files of earlier pushes that this one does not have are removed; what else is in the repository stays.

    Raises:
        SegregError: something in the folder may be private, or the hub refuses or can't be reached.
    """
    from huggingface_hub import HfApi

    package.refuse_private()
    show_bars_in_terminals()
    api = HfApi()
    try:
        api.create_repo(repository, private=not public, exist_ok=True)
        if revision:
            api.create_branch(repository, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            folder_path=package.folder, repo_id=repository, revision=revision or None,
            commit_message=message or "Upload a run of segreg", delete_patterns=[n for n in FILES if n != CARD],
        )  # fmt: skip
        private = api.repo_info(repository).private
    except Exception as error:
        raise hub_error(error, Reference(repository, revision)) from error
    return Pushed(f"{api.endpoint}/{repository}", str(commit.oid), not private)
