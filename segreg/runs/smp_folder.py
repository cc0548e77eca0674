"""A folder that segmentation_models_pytorch (SMP) wrote by `save_pretrained` becomes a run, whose outputs are SMP's.

Its config.json names architecture, encoder and settings. They become a recipe of our parts, and the tensors of
model.safetensors get our names. What the config does not say is chosen: images are taken at their own size, and classes
are called class_0, class_1 and so on. ImageNet's weights are never fetched only to be replaced.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segreg.config.recipe import Recipe, to_yaml
from segreg.config.resolve import resolve
from segreg.data.cache_folder import cache_folder
from segreg.errors import SegregError, did_you_mean, listed
from segreg.registry.registry import load_registry
from segreg.runs.directory import RunDirectory
from segreg.runtime.files import cannot_read, read_json, write_text
from segreg.runtime.hub import SMP_CONFIG, SMP_WEIGHTS
from segreg.task import Task
from segreg.training.checkpoint import notes_for_weights, read_weights, save_weights

if TYPE_CHECKING:
    from torch import Tensor

_FORMAT = 1
"""Of the runs that are made; raised where an older one would be wrong."""
_CLASS = "_model_class"

_CHANNELS, _NORM = {"decoder_channels": "channels"}, {"decoder_use_norm": "norm"}
_INTERPOLATION, _STRIDE = {"decoder_interpolation": "interpolation"}, {"encoder_output_stride": "output_stride"}
_UNET = {**_CHANNELS, **_NORM, **_INTERPOLATION}
_ASPP = {
    **_CHANNELS, **_STRIDE, "decoder_atrous_rates": "rates", "decoder_aspp_separable": "convolution",
    "decoder_aspp_dropout": "dropout",
}  # fmt: skip
ARCHITECTURES: Mapping[str, Mapping[str, str]] = {
    "Unet": {**_UNET, "decoder_attention_type": "attention"},
    "UnetPlusPlus": {**_UNET, "decoder_attention_type": "attention"},
    "MAnet": {**_UNET, "decoder_pab_channels": "attention_channels"},
    "Linknet": _NORM,
    "FPN": {
        "decoder_pyramid_channels": "pyramid_channels", "decoder_segmentation_channels": "channels",
        "decoder_merge_policy": "merge", "decoder_dropout": "dropout", **_INTERPOLATION,
    },
    "PSPNet": {"psp_out_channels": "channels", "psp_dropout": "dropout", **_NORM},
    "DeepLabV3": _ASPP,
    "DeepLabV3Plus": _ASPP,
    "PAN": {**_CHANNELS, **_STRIDE, **_INTERPOLATION},
    "UPerNet": {**_CHANNELS, **_NORM},
    "Segformer": {"decoder_segmentation_channels": "channels"},
    "DPT": {"decoder_intermediate_channels": "intermediate_channels", "decoder_fusion_channels": "channels"},
}  # fmt: skip
"""SMP's classes, each with its settings by SMP's names and what they are called in the recipe of `smp.<class>`."""
_OLD_NAMES = {
    "decoder_use_batchnorm": "decoder_use_norm", "psp_use_batchnorm": "decoder_use_norm",
    "upscale_mode": "decoder_interpolation",
}  # fmt: skip
_UNDERSTOOD = {
    "encoder_name", "encoder_depth", "encoder_weights", "in_channels", "classes", "activation", "upsampling",
    "aux_params", "decoder_readout",
}  # fmt: skip
_DEPTHS = {"PSPNet": 3, "DPT": 4}
"""SMP's default of `encoder_depth` where it is not 5."""
_MOST_CLASSES = 4096
_ANY_DEPTH = ("Unet", "UnetPlusPlus", "MAnet", "Linknet", "PSPNet")
_UPSAMPLINGS = {"FPN": 4, "DeepLabV3Plus": 4, "PAN": 4, "UPerNet": 4, "Segformer": 4}
"""How much the head enlarges its map, in SMP by default and in our decoders always."""


def is_smp_folder(folder: Path) -> bool:
    """Whether a folder holds a network of SMP, and is not a run."""
    config = folder / SMP_CONFIG
    return config.is_file() and not (folder / "resolved.yaml").is_file() and _CLASS in read_json(config)


def run_of_smp(folder: Path) -> Path:
    """Return the folder of a run that is SMP's network; it is made in the cache, once for each content.

    Raises:
        SegregError: the network has no counterpart among our parts, or the weights don't fit it; the message names the
            setting or the tensors.
    """
    config, weights = folder / SMP_CONFIG, folder / SMP_WEIGHTS
    if not weights.is_file():
        raise SegregError(
            f"{folder} has {SMP_CONFIG} but no {SMP_WEIGHTS}", hint="SMP 0.4 and later write both by save_pretrained"
        )
    digest = hashlib.sha256(f"{_FORMAT}".encode() + config.read_bytes())
    with weights.open("rb") as content:
        digest.update(hashlib.file_digest(content, "sha256").digest())
    made = RunDirectory(cache_folder() / "smp" / digest.hexdigest()[:32])
    if not made.resolved.is_file():
        try:
            values, task = recipe_of(read_json(config), str(config))
        except (TypeError, ValueError) as error:
            raise cannot_read(error, config, "what SMP's save_pretrained writes") from None
        recipe = to_yaml(values, header=f"the network of {config}")
        tensors, notes = _network(Recipe(values, source=str(config)), task, recipe, weights)
        made.path.mkdir(parents=True, exist_ok=True)
        save_weights(tensors, made.best, notes=notes)
        write_text(made.resolved, recipe)  # last, because it says that the folder is a run
    return made.path


def recipe_of(config: Mapping[str, Any], source: str) -> tuple[dict[str, Any], Task]:
    """Return a whole recipe whose network is that of SMP's config, and the classes; data and training are stand-ins.

    Args:
        config: what config.json holds.
        source: the file, for messages.

    Raises:
        SegregError: there is no such architecture, encoder or setting among our parts.
    """
    name = str(config[_CLASS])
    if name not in ARCHITECTURES:
        known = list(ARCHITECTURES)
        raise SegregError(
            f'{source}: there is no decoder for SMP\'s architecture "{name}"',
            hint=did_you_mean(name, known) or f"there are {listed(known)}",
        )
    given = {_OLD_NAMES.get(key, key): value for key, value in config.items() if not key.startswith("_")}
    names = ARCHITECTURES[name]
    other = [key for key, value in given.items() if key not in names and key not in _UNDERSTOOD and value is not None]
    if other:
        raise SegregError(f"{source}: {listed(other)} of SMP's {name} has no counterpart in segreg")
    settings = {names[key]: _value(key, given[key], source) for key in names if key in given}
    encoder, depth = _encoder(given, name, source)
    if name in ("Linknet", "PSPNet"):
        settings["depth"] = depth
    elif name.startswith("DeepLab"):
        settings["dead_taps"] = "compute"  # SMP's outputs to the last bit
    elif name.startswith("Unet") and str(given.get("encoder_name", "")).startswith("vgg"):
        settings["center"] = "block"
    if name == "DPT" and given.get("decoder_readout", "cat") != "ignore":
        raise SegregError(
            f"{source}: SMP's DPT uses its encoder's class token, which an encoder of segreg does not pass on",
            hint="decoder_readout: ignore has a counterpart",
        )
    stride = settings.get("output_stride", 8)
    expected = {"DeepLabV3": stride, "PSPNet": 2**depth, **_UPSAMPLINGS}.get(name)
    if expected is not None and given.get("upsampling") not in (None, expected):
        raise SegregError(f"{source}: upsampling is {given['upsampling']}; only {expected} has a counterpart in segreg")
    task = _task(given, source)
    channels = int(given.get("in_channels", 3))
    normalize: dict[str, Any] = {}
    if given.get("encoder_weights") == "advprop":
        normalize = {"mean": [0.5] * channels, "std": [0.5] * channels}
    values = {
        "dataset": {"name": "folder", "images": "images", "masks": "masks", "classes": list(task.classes)},
        "input": {"size": [256, 256], "resize": "crop", "channels": channels, **normalize},
        "encoder": encoder,
        "decoder": {"name": f"smp.{name.lower()}", **settings},
        "loss": "cross_entropy" if task.mode == "multiclass" else "bce",
        "optimizer": {"name": "adamw", "lr": 1e-4},
        "evaluate": {"metrics": ["dice", "iou"], "resolution": "original"},
    }
    return values, task


def _encoder(given: Mapping[str, Any], architecture: str, source: str) -> tuple[dict[str, Any], int]:
    """Return our encoder, and how deep it goes."""
    name = str(given.get("encoder_name", "resnet34"))
    depth = int(given.get("encoder_depth", _DEPTHS.get(architecture, 5)))
    usual = _DEPTHS.get(architecture, 5)
    if depth != usual and (architecture not in _ANY_DEPTH or not 3 <= depth <= 5):
        raise SegregError(
            f"{source}: SMP's {architecture} has a counterpart for encoder_depth {usual} only, not {depth}"
        )
    if name.startswith("timm-"):
        raise SegregError(
            f'{source}: the encoder "{name}" is one that SMP has deprecated, and segreg does not have it',
            hint="load it with SMP",
        )
    if not name.startswith("tu-"):
        return {"name": name, "depth": depth}, depth
    if depth < (4 if architecture == "DPT" else 5):
        raise SegregError(
            f"{source}: encoder_depth is {depth}, and an encoder of timm has no counterpart without its deepest levels"
        )
    return {"name": f"timm/{name[3:].partition('.')[0]}"}, depth


def _value(key: str, value: Any, source: str) -> Any:
    """Return a setting as our decoders have it."""
    if key == "decoder_aspp_separable":
        return "separable" if value else "plain"
    if key == "decoder_use_norm":
        norm = value.get("type") if isinstance(value, Mapping) and len(value) == 1 else value
        norm = ("batchnorm" if norm else "identity") if isinstance(norm, bool) else norm
        if norm not in ("batchnorm", "identity"):
            raise SegregError(f"{source}: {key} is {value!r}; only batchnorm and identity have a counterpart in segreg")
        return norm
    return value


def _task(given: Mapping[str, Any], source: str) -> Task:
    classes, activation = int(given.get("classes", 1)), given.get("activation")
    if activation not in (None, "identity", "sigmoid", "softmax", "softmax2d"):
        raise SegregError(f'{source}: activation "{activation}" has no counterpart: segreg\'s networks give logits')
    if not 1 <= classes <= _MOST_CLASSES:
        raise SegregError(f"{source}: classes is {classes}; 1 to {_MOST_CLASSES} were expected")
    if classes == 1:
        return Task(("foreground",), "binary")
    return Task(tuple(f"class_{i}" for i in range(classes)), "multilabel" if activation == "sigmoid" else "multiclass")


def _network(written: Recipe, task: Task, text: str, weights: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the network's tensors by our names, and the notes of their file."""
    from segreg.models.build import build_model, build_normalize, without_pretrained

    recipe = without_pretrained(resolve(written, load_registry()))
    model = build_model(recipe, task)
    given, _ = read_weights(weights)
    own = model.state_dict()
    ours = {key: _our_name(key, own) for key in given}
    tensors = {ours[key]: value for key, value in given.items() if ours[key] in own}
    wrong = [f"{key} is missing" for key in own if key not in tensors]
    wrong += [
        f"{key} has no counterpart" for key in given
        if ours[key] not in own and not key.startswith(("encoder.", "classification_head."))
    ]  # fmt: skip
    wrong += [
        f"{key} is {list(value.shape)} where {list(own[key].shape)} was expected"
        for key, value in tensors.items() if value.shape != own[key].shape
    ]  # fmt: skip
    if wrong:
        raise SegregError(f"{weights}: these tensors are not those of the network: {listed(wrong, quote='', most=5)}")
    normalize: Any = build_normalize(recipe, model.encoder)  # type: ignore[arg-type]
    return tensors, notes_for_weights(text, task, "", normalize, model.size_divisor)


_PREFIXES: Mapping[str, Sequence[str]] = {
    "encoder.model.": ("encoder.network.", "encoder.network.model."),  # timm's, through SMP
    "encoder.": ("encoder.network.",),
    "decoder.": ("decoder.network.",),
    "segmentation_head.": ("head.",),
}


def _our_name(key: str, own: Mapping[str, Any]) -> str:
    """Return our name of one of SMP's tensors, or an empty string where the network has none."""
    for theirs, prefixes in _PREFIXES.items():
        if key.startswith(theirs):
            for prefix in prefixes:
                if (name := prefix + key.removeprefix(theirs)) in own:
                    return name
    return ""
