"""What must not be overlooked in a comparison: how the runs differ besides their models."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from segreg.errors import listed
from segreg.runs.scored import Scored


def notices_of(scored: Mapping[str, Sequence[Scored]], metric: str, images: int) -> Iterator[str]:
    """Return the notices, the most important first.

    Args:
        scored: the runs' scores, by the model's name.
        metric: full name of what is compared.
        images: number of images on which all of them were scored.
    """
    every = [seed for seeds in scored.values() for seed in seeds]
    yield from dict.fromkeys(str(one.run.results["notice"]) for one in every if one.run.results.get("notice"))
    random = [name for name, seeds in scored.items() if any(one.run.results.get("weights") for one in seeds)]
    if random:
        which = "every model" if len(random) == len(scored) else listed(random, most=6)
        yield f"RANDOM weights were used instead of pretrained ones in {which}; see the runs' own reports."
    if len({one.ids for one in every}) > 1:
        most = max(len(one.ids) for one in every)
        yield (
            f"The runs were scored on different images. This comparison is of the {images} that all of them were "
            f"scored on, of at most {most}; scores that can't be computed from single images are each run's own."
        )
    if {one.split for one in every} != {"test"}:
        yield "Some runs have no test images: their scores are of the images that chose their weights."
    for name, words in (("resolution", "resolutions"), ("dataset", "datasets")):
        values = list(dict.fromkeys(str(one.run.results.get(name)) for one in every))
        if len(values) > 1:
            yield f"The runs were scored with different {words}: {listed(values)}."
    definitions = dict.fromkeys(str(one.run.results["definitions"].get(metric)) for one in every)
    if len(definitions) > 1:
        yield f"{metric} does not mean the same in all runs: {' / '.join(definitions)}"
    yield from _environments(every)


def _environments(every: Sequence[Scored]) -> Iterator[str]:
    every_facts = [_facts(one) for one in every]
    names = dict.fromkeys(name for facts in every_facts for name in facts)
    differ = {name: list(dict.fromkeys(facts.get(name, "none") for facts in every_facts)) for name in names}
    differ = {name: values for name, values in differ.items() if len(values) > 1}
    if differ:
        words = "; ".join(f"{name} {listed(values)}" for name, values in differ.items())
        yield f"The runs' environments differ: {words}."


def _facts(one: Scored) -> dict[str, str]:
    """Return device, precision and versions of a run, which may affect its scores."""
    file = one.run.directory.environment
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    plugins = {plugin["distribution"]: plugin["version"] for plugin in found.get("plugins", ())}
    return {
        "device": str(found.get("device", {}).get("model")),
        "precision": str(found.get("precision")),
        **{name: str(version) for name, version in (plugins | found.get("packages", {})).items()},
    }
