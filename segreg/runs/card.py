"""The model card of a run on the Hugging Face hub, written from what the run noted; the rest is left to its owner.

Metadata as https://huggingface.co/docs/hub/model-cards has it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import yaml

from segreg.errors import SegregError
from segreg.registry.compatibility import DISTRIBUTION
from segreg.runs.trained_run import Run

OWNERS = {
    "Data": "<!-- For the owner: where the images come from, what they show, who labelled them, under which terms. -->",
    "Intended use": "Not stated by the owner yet.\n\n<!-- For the owner: what it is meant for, what it must not be "
    "used for, on which images it is known to fail. -->",
    "Licence": "Not stated by the owner yet.\n\n<!-- For the owner: write it here, and as `license:` between the lines "
    "of --- at the top. It depends on the data and on pretrained weights as well. -->",
}
"""What a card leaves to its owner; a card that is written again keeps what the owner has written there."""
_WRITTEN = ("library_name", "pipeline_tag", "tags", "model-index")
"""Metadata that segreg writes; every other is the owner's."""


def write_card(run: Run, sidecar: Mapping[str, Any], repository: str, *, before: str = "") -> str:
    """Return the text of README.md.

    Args:
        run: whose card it is.
        sidecar: what `describe_run` says of it.
        repository: `user/name` on the hub.
        before: the card that is there already, of which the owner's metadata and sections are kept.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    results = _results(run)
    provenance, scores = sidecar["provenance"], sidecar["scores"]
    environment = Environment(  # noqa: S701 - Markdown; names are escaped by `cell`
        loader=PackageLoader("segreg.runs", "."), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters.update(cell=cell, numbers=_numbers)
    metrics = {name: value for name, value in scores.get("metrics", {}).items() if _is_number(value)}
    foreign = sorted(
        {str(row["name"]) for row in run.environment.get("plugins", []) if row.get("distribution") != DISTRIBUTION}
    )
    best = results.get("best_epoch")
    text = environment.get_template("card.md.j2").render(
        name=repository.partition("/")[2],
        repository=repository,
        front_matter=_front_matter(sidecar, metrics, repository, before),
        notices=notices_of(run),
        network=" on ".join(
            provenance[part]["name"] for part in ("network", "decoder", "encoder") if part in provenance
        ),
        version=version(DISTRIBUTION),
        exported=sidecar.get("network", {}).get("file", ""),
        plugins=foreign,
        mode=sidecar["mode"],
        classes=sidecar["classes"],
        input=sidecar["input"],
        normalize=sidecar["normalize"],
        threshold=sidecar["evaluate"].get("threshold"),
        labels=[(i, name, f"#{bytes(rgb).hex()}") for i, (name, rgb) in enumerate(sidecar["colours"].items())],
        dataset=provenance["dataset"],
        images=results.get("images", {}),
        sections=_owners_sections(before),
        metrics=[
            (name, f"{value:.4f}", _interval(scores.get("intervals", {}).get(name))) for name, value in metrics.items()
        ],
        definitions=[(name, scores["definitions"][name]) for name in metrics if name in scores["definitions"]],
        split=scores.get("split"),
        scored_images=scores.get("images"),
        resolution=scores.get("resolution"),
        intervals_over=scores.get("intervals_over", "images"),
        epochs=results.get("epochs"),
        stopped=results.get("stopped_because", ""),
        weights=f"epoch {best}" if best and provenance["weights"] == "best" else "the last epoch",
        packages=[f"{name} {of}" for name, of in run.environment.get("packages", {}).items() if of],
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def notices_of(run: Run) -> list[str]:
    """Return what must not be overlooked: synthetic data, random weights, alerts of the data."""
    results = _results(run)
    found = [run.notice, results.get("weights", ""), *results.get("alerts", ())]
    return [notice for notice in dict.fromkeys(found) if notice]


def _results(run: Run) -> Mapping[str, Any]:
    return run.results if run.directory.results.is_file() else {}


def _front_matter(sidecar: Mapping[str, Any], metrics: Mapping[str, float], repository: str, before: str) -> str:
    """Return the YAML between the lines of `---`, checked by the hub's own classes."""
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    dataset, notice = sidecar["provenance"]["dataset"], sidecar["provenance"]["notice"]
    tags = ["segreg", "semantic-segmentation", "pytorch", *(["synthetic-data"] if "SYNTHETIC" in notice else [])]
    try:
        # Of a text without metadata the hub's client warns.
        theirs: dict[str, Any] = (
            ModelCard(before, ignore_metadata_errors=True).data.to_dict() if before else {}  # type: ignore[no-untyped-call]
        )
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise SegregError(f"the metadata of README.md in {repository} is not valid YAML: {reason}") from None
    results = [
        EvalResult(
            task_type="image-segmentation", task_name="Semantic segmentation", dataset_type=dataset,
            dataset_name=dataset, dataset_split=sidecar["scores"]["split"], metric_type=name.partition(".")[0],
            metric_name=name, metric_value=round(value, 6),
        )
        for name, value in metrics.items()
        if ".class." not in name
    ]  # fmt: skip
    data = ModelCardData(
        library_name="segreg",
        pipeline_tag="image-segmentation",
        tags=[*tags, *(tag for tag in theirs.get("tags") or () if tag not in tags)],
        model_name=repository.partition("/")[2],
        eval_results=results or None,
        **{key: value for key, value in theirs.items() if key not in _WRITTEN},
    )
    content: dict[str, Any] = data.to_dict()  # type: ignore[no-untyped-call]
    content.pop("model_name", None)
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _owners_sections(before: str) -> dict[str, str]:
    """Return the text of each section that is the owner's: what they wrote, or what asks them to."""
    found = dict(re.findall(r"^## (.+)\n([\s\S]*?)(?=^## |\Z)", before, re.MULTILINE))
    if "Training data" in found:  # whose first paragraph is the run's
        found["Data"] = found["Training data"].strip().partition("\n\n")[2]
    return {name: found.get(name, "").strip() or text for name, text in OWNERS.items()}


def _interval(ends: Any) -> str:
    return f"[{ends[0]:.4f}, {ends[1]:.4f}]" if ends and None not in ends else ""


def _numbers(values: Any) -> str:
    return "[" + ", ".join(f"{value:.6g}" for value in values) + "]"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def cell(text: Any) -> str:
    """Return a name or sentence as one line of Markdown that is neither a table's border nor HTML."""
    one_line = " ".join(str(text).split())
    return one_line.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
