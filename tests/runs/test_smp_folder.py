"""Folders that SMP's `save_pretrained` wrote are runs whose logits are SMP's, and nothing is downloaded for them."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import segreg
from segreg.errors import SegregError
from segreg.runs.smp_folder import ARCHITECTURES, recipe_of, run_of_smp


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))


TINY = "tu-test_resnet"
PLAIN = "resnet18"  # one of SMP's own


def saved(folder, architecture, encoder=TINY, **settings):
    """Write a network of SMP with random weights, and return it; `encoder_weights` is only in its config."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = getattr(smp, architecture)(encoder_name=encoder, encoder_weights=None, **settings)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                    tensor.data.copy_(torch.rand(tensor.shape) + 0.5)
        model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"encoder_weights": "imagenet"}))
    return model.eval()


SMALL = {"decoder_channels": (32, 16, 16, 8, 8)}
SCSE = {"decoder_channels": (32, 16, 16, 16, 16), "decoder_attention_type": "scse"}
FUSION = {"decoder_intermediate_channels": (8, 8, 8, 8), "decoder_fusion_channels": 8}
CASES = [
    ("Unet", {**SMALL, "classes": 3, "decoder_interpolation": "bilinear"}),
    ("Unet", {"encoder": PLAIN, "encoder_depth": 3, "decoder_channels": (32, 16, 8), "decoder_use_norm": False}),
    ("Unet", {**SCSE, "in_channels": 4}),
    ("UnetPlusPlus", {**SMALL, "classes": 2}),
    ("MAnet", {**SMALL, "decoder_pab_channels": 16}),
    ("Linknet", {"classes": 2}),
    ("FPN", {"decoder_pyramid_channels": 32, "decoder_segmentation_channels": 32, "decoder_merge_policy": "cat"}),
    ("PSPNet", {"encoder": PLAIN, "psp_out_channels": 16, "classes": 5, "activation": "softmax2d"}),
    ("DeepLabV3", {"decoder_channels": 16, "encoder_output_stride": 16}),
    ("DeepLabV3Plus", {"decoder_channels": 16, "decoder_atrous_rates": (6, 12, 18), "classes": 3}),
    ("PAN", {"decoder_channels": 16}),
    ("UPerNet", {"decoder_channels": 16, "encoder": "mit_b0"}),
    ("Segformer", {"decoder_segmentation_channels": 16, "classes": 4, "activation": "sigmoid"}),
    ("DPT", {"encoder": "tu-test_vit", "decoder_readout": "ignore", **FUSION}),
]


def test_the_sample_has_every_architecture():
    assert (
        {name for name, _ in CASES}
        == set(ARCHITECTURES)
        == {each.__name__ for each in smp.MODEL_ARCHITECTURES_MAPPING.values()}
    )


@pytest.mark.parametrize(("architecture", "settings"), CASES)
@pytest.mark.usefixtures("quick_networks")
def test_logits_are_smps(architecture, settings, tmp_path):
    model = saved(tmp_path / "smp", architecture, **settings)
    run = segreg.load_run(tmp_path / "smp")
    if "activation" in settings:
        model.segmentation_head[-1] = nn.Identity()  # our networks give logits
    # PAN needs a map of 8x8; atrous convolutions of a small one have no taps to differ in.
    size = (128, 160) if architecture in ("PAN", "DeepLabV3", "DeepLabV3Plus") else (64, 96)
    image = torch.randn(1, settings.get("in_channels", 3), *size)
    if architecture == "DPT":
        image = torch.randn(1, 3, *model.encoder.input_size[1:])
    with torch.no_grad():
        assert torch.equal(run.model()(image), model(image))
    assert len(run.task.classes) == settings.get("classes", 1)


def test_it_is_a_run_like_any_other(tmp_path):
    model = saved(tmp_path / "smp", "Unet", **SMALL, classes=3, aux_params={"classes": 2})
    run = segreg.load_run(tmp_path / "smp")
    assert run.task == segreg.Task(("class_0", "class_1", "class_2"), "multiclass")
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    with torch.no_grad():
        given = run.normalize(torch.from_numpy(image).permute(2, 0, 1)[None])
        labels = model(given)[0].argmax(dim=1)[0].numpy()
    assert (run.predict(image) == labels).mean() > 0.999  # another layout of memory rounds otherwise
    assert segreg.load_run(tmp_path / "smp").directory.path == run.directory.path
    assert run.recipe.decoder.part.name == "smp.unet"


def test_from_the_hub_and_without_its_imagenet_weights(tmp_path, hub):
    saved(tmp_path / "smp", "Linknet", encoder_depth=5)
    hub.commit_folder("smp-hub/linknet", tmp_path / "smp")
    run = segreg.load_run("hf://smp-hub/linknet")
    assert run.predict(np.zeros((32, 32, 3), dtype=np.uint8)).shape == (32, 32)
    assert all("/smp-hub/linknet/" in request for request in hub.requests if "/resolve/" in request)


def config(**changes):
    return {"_model_class": "Unet", "encoder_name": "resnet18", "classes": 1, **changes}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"_model_class": "UnetPlus"}, ["UnetPlus", 'did you mean "UnetPlusPlus"']),
        ({"encoder_name": "timm-efficientnet-b0"}, ["timm-efficientnet-b0"]),
        ({"decoder_use_norm": "layernorm"}, ["decoder_use_norm", "layernorm"]),
        ({"decoder_use_norm": {"type": "batchnorm", "eps": 1}}, ["decoder_use_norm"]),
        ({"_model_class": "FPN", "encoder_depth": 4}, ["FPN", "encoder_depth"]),
        ({"_model_class": "FPN", "upsampling": 2}, ["upsampling"]),
        ({"_model_class": "DPT"}, ["decoder_readout: ignore"]),
        ({"encoder_name": "tu-test_resnet", "encoder_depth": 3}, ["encoder_depth", "timm"]),
        ({"activation": "tanh"}, ["tanh"]),
        ({"new_thing": 3}, ["new_thing"]),
    ],
)
def test_what_has_no_counterpart_is_named(changes, words):
    with pytest.raises(SegregError) as caught:
        recipe_of(config(**changes), "config.json")
    assert all(word in str(caught.value) for word in ["config.json", *words])


def test_old_names_and_norms_are_understood():
    values, _ = recipe_of(config(decoder_use_batchnorm=True), "config.json")
    assert values["decoder"] == {"name": "smp.unet", "norm": "batchnorm"}
    values, _ = recipe_of(config(encoder_name="vgg11", encoder_weights="advprop"), "config.json")
    assert values["decoder"]["center"] == "block"
    assert values["input"]["mean"] == [0.5] * 3


def test_weights_of_another_network_are_refused_with_their_names(tmp_path):
    saved(tmp_path / "smp", "Unet", **SMALL)
    file = tmp_path / "smp" / "model.safetensors"
    tensors = load_file(file)
    del tensors[next(iter(tensors))]
    tensors["decoder.extra"] = torch.zeros(1)
    save_file(tensors, file)
    with pytest.raises(SegregError, match=r"(encoder|decoder)\.network\.\S+ is missing") as caught:
        run_of_smp(tmp_path / "smp")
    assert "decoder.extra" in str(caught.value)
    file.unlink()
    with pytest.raises(SegregError, match=r"no model\.safetensors"):
        segreg.load_run(tmp_path / "smp")
