"""Whole networks are those of torchvision and transformers, on the same weights; SegFormer is also our own parts'."""

import re

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import segmentation

import plugged
import segreg
import tiny_runs
from exported import remembered_operators
from segreg import Task
from segreg.config.recipe import Recipe, read_recipe
from segreg.config.resolve import resolve
from segreg.errors import SegregError
from segreg.models.layers import layers_of
from segreg.models.segmenter import Segmenter, describe
from segreg.registry.registry import load_registry
from segreg.runs.environment import network_lines, weights_notice
from segreg.training.checkpoint import load_weights, save_weights
from segreg_plugins.networks import torchvision_family

REGISTRY = load_registry(plugged.builtin())
TWENTY_ONE = Task(tuple(map(str, range(21))), "multiclass")


def network(name, in_channels=3, **settings):
    part = REGISTRY.find("network", name)
    defaults = {key: setting.default for key, setting in part.settings.items()}
    return part.build(in_channels, **{**defaults, **settings})


def image(channels=3, size=(65, 97)):
    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(2))


def shaken(model):
    """Statistics and affine parameters away from their neutral start, so that every one of them shows."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.data.copy_(torch.rand(tensor.shape, generator=generator) * 0.5 + 0.5)
    return model.eval()


def test_members_of_torchvision_are_its_models_with_weights_that_a_part_takes():
    theirs = {name.removesuffix("_Weights").lower() for name in dir(segmentation) if name.endswith("_Weights")}
    assert set(torchvision_family.members()) == theirs - {"lraspp_mobilenet_v3_large"}


@pytest.mark.usefixtures("quick_networks")
@pytest.mark.parametrize("member", ["deeplabv3_mobilenet_v3_large", "fcn_resnet50"])
def test_torchvisions_checkpoint_gives_torchvisions_logits(member, tmp_path):
    theirs = shaken(getattr(segmentation, member)(weights=None, weights_backbone=None, num_classes=21, aux_loss=False))
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    encoder, decoder = network(f"torchvision/{member}", weights=str(tmp_path / "model.safetensors"))
    model = Segmenter(encoder, decoder, TWENTY_ONE).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(image()), theirs(image())["out"], rtol=0, atol=1e-5)
    assert describe(model)["decoder"]["weights"].endswith("decoder: loaded; encoder: loaded; last layer: loaded")


WHOLE = ["encoder=null", "decoder=null"]


def test_a_network_goes_with_no_encoder_and_no_decoder(tmp_path):
    recipe = read_recipe(tiny_runs.write_recipe(tmp_path), ["network=torchvision/fcn_resnet50"])
    with pytest.raises(SegregError) as reported:
        resolve(recipe, REGISTRY)
    for name in ("encoder", "decoder"):
        assert f'"network" names a whole network, which goes with no "{name}"' in str(reported.value)
    chosen = resolve(recipe.changed([*WHOLE, "network.lora={targets: [conv1]}"]), REGISTRY)
    assert [*chosen.network_parts] == ["network"]
    assert (chosen.encoder, chosen.decoder, chosen.trunk.beside.lora.targets) == (None, None, ("conv1",))
    assert resolve(Recipe(chosen.plain()), REGISTRY).plain() == chosen.plain()
    assert not {"encoder", "decoder", "auxiliary"} & set(chosen.plain())


SMALL_NETWORK = '''
from segreg import Entry, hookimpl
from segreg.testing.inputs import Finest, Levels

def small(in_channels):
    """Three levels, of which the finest is shown."""
    encoder = Levels(2, 4, 8, in_channels=in_channels)
    return encoder, Finest(encoder)

@hookimpl
def segreg_entries():
    return [Entry("network", "small", small)]
'''


def test_a_network_trains_predicts_and_is_exported_as_any_other(tmp_path, installed, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    installed(*plugged.builtin(), plugged.point(plugged.write_module(tmp_path, SMALL_NETWORK)))
    changes = ["network=small", *WHOLE, "train.freeze_encoder_epochs=1", "train.lr_factors={head: 10}"]
    run = tiny_runs.run(tmp_path, *changes, "train.epochs=2", "dataset.samples=12")
    assert {name.partition(".")[0] for name in load_file(run.directory.best)} == {"encoder", "head"}
    assert run.recipe.network.part.name == "small"
    assert "that of small" in "".join(network_lines(run.recipe, run.environment["model"]))
    with remembered_operators():
        exported = segreg.export(run, out=tmp_path / "exported", progress="quiet")
    image_file = next((tmp_path / "images").rglob("*.png"))
    assert (exported.predict(image_file) == run.predict(image_file)).all()
    started = (f"train.start_from={run.directory.path}", "train.start_part=encoder", "train.epochs=1")
    other = tiny_runs.run(tmp_path, *changes, *started)
    assert "encoder" in other.environment["initial_weights"]


# transformers


@pytest.fixture(scope="module")
def library():
    return pytest.importorskip("transformers")


@pytest.fixture
def small(monkeypatch):
    """Let every member be as small as can be."""
    monkeypatch.setattr("segreg_plugins.networks.transformers_network.sizes_of", lambda _: SMALL)
    monkeypatch.setattr("segreg_plugins.networks.transformers_network.plain_sizes_of", lambda _: SMALL_PLAIN)


SMALL = ([8, 16, 32, 64], [1, 2, 1, 1], 32)
SMALL_PLAIN = (32, 5, 2)


def theirs_of(library, member, classes):
    channels, depths, width = SMALL
    sizes = {"hidden_sizes": channels, "depths": depths}
    if member.startswith("segformer"):
        made = library.SegformerConfig(**sizes, decoder_hidden_size=width, num_labels=classes)
        return shaken(library.SegformerForSemanticSegmentation(made))
    if member.startswith("mask2former"):
        backbone = library.SwinConfig(
            embed_dim=8, depths=depths, num_heads=[1, 1, 1, 2], window_size=7, drop_path_rate=0.3,
            out_features=["stage1", "stage2", "stage3", "stage4"],
        )  # fmt: skip
        made = library.Mask2FormerConfig(
            backbone_config=backbone,
            hidden_dim=32,
            feature_size=32,
            mask_feature_size=32,
            num_labels=classes,
            num_queries=30,
        )
        return shaken(library.Mask2FormerForUniversalSegmentation(made))
    backbone = library.ConvNextConfig(**sizes, out_features=["stage1", "stage2", "stage3", "stage4"])
    made = library.UperNetConfig(
        backbone_config=backbone, hidden_size=width, use_auxiliary_head=False, num_labels=classes
    )
    return shaken(library.UperNetForSemanticSegmentation(made))


def eomt_of(library, classes):
    """Return transformers' EoMT for images of 64x64; as after its training, no query is masked in evaluation mode."""
    width, layers, with_queries = SMALL_PLAIN
    made = library.EomtConfig(
        hidden_size=width, num_hidden_layers=layers, num_blocks=with_queries, num_attention_heads=1, image_size=64,
        num_queries=30, num_labels=classes,
    )  # fmt: skip
    network = library.EomtForUniversalSegmentation(made).eval()
    network.attn_mask_probs.zero_()
    return network


def logits_of(output):
    """Return the logits; those of masks with classes are the logarithms of what its own semantic inference adds up."""
    if hasattr(output, "logits"):
        return output.logits
    classes, masks = output.class_queries_logits.softmax(2)[..., :-1], output.masks_queries_logits.sigmoid()
    return torch.einsum("bqk,bqhw->bkhw", classes, masks).log()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("member", ["segformer_b0", "upernet_convnext_tiny", "mask2former_swin_tiny"])
def test_the_hubs_weights_give_transformers_logits(member, library, hub, tmp_path):
    theirs = theirs_of(library, member, 21)
    theirs.save_pretrained(tmp_path / "saved")
    hub.commit_folder("lab/network", tmp_path / "saved")
    encoder, decoder = network(f"hf/{member}", weights="lab/network")
    model = Segmenter(encoder, decoder, TWENTY_ONE).eval()
    with torch.no_grad():
        wanted = F.interpolate(logits_of(theirs(image())), size=(65, 97), mode="bilinear", align_corners=False)
        torch.testing.assert_close(model(image()), wanted, rtol=0, atol=1e-5)
        # Other classes: all but the last layer. A grey image is three equal colours.
        other = Segmenter(*network(f"hf/{member}", 1, weights="lab/network"), 2).eval()
        grey = image(1)
        levels = encoder(grey.expand(-1, 3, -1, -1))
        for own, of_colours in zip(other.encoder(grey), levels, strict=True):
            torch.testing.assert_close(own, of_colours, rtol=0, atol=1e-5)
    assert other(image(1)).shape == (2, 2, 65, 97)
    assert weights_notice(describe(model)) == ""


@pytest.mark.usefixtures("small")
def test_mask2formers_published_files_lack_a_layer_that_nothing_uses(library, hub, tmp_path):
    theirs = theirs_of(library, "mask2former_swin_tiny", 21)
    theirs.save_pretrained(tmp_path / "saved")
    file = tmp_path / "saved/model.safetensors"
    state = load_file(file)
    published = {
        name.replace("encoder.swin.", "encoder."): value
        for name, value in state.items()
        if "encoder.swin.layernorm." not in name and "encoder.layernorm." not in name
    }
    assert len(published) == len(state) - 2
    save_file(published, file, metadata={"format": "pt"})
    hub.commit_folder("facebook/mask2former-swin-tiny-ade-semantic", tmp_path / "saved")
    model = Segmenter(*network("hf/mask2former_swin_tiny", weights="ade20k"), TWENTY_ONE).eval()
    with torch.no_grad():
        wanted = F.interpolate(logits_of(theirs(image())), size=(65, 97), mode="bilinear", align_corners=False)
        torch.testing.assert_close(model(image()), wanted, rtol=0, atol=1e-5)
    assert not [name for name, _ in model.named_parameters() if "swin.layernorm" in name]
    # A run is opened without the published weights, which had their own number of queries.
    save_weights(model.state_dict(), tmp_path / "best.safetensors", notes={})
    opened = Segmenter(*network("hf/mask2former_swin_tiny"), TWENTY_ONE).eval()
    load_weights(opened, tmp_path / "best.safetensors")
    with torch.no_grad():
        assert torch.equal(opened(image()), model(image()))


@pytest.mark.usefixtures("small")
def test_weights_of_the_encoder_alone_are_said_to_be_so(library, hub, tmp_path):
    theirs = theirs_of(library, "segformer_b0", 5)
    theirs.segformer.save_pretrained(tmp_path / "saved")
    hub.commit_folder("nvidia/mit-b0", tmp_path / "saved")
    encoder, _ = network("hf/segformer_b0", weights="imagenet")
    torch.testing.assert_close(
        dict(encoder.network.named_parameters()), dict(theirs.segformer.named_parameters()), rtol=0, atol=0
    )
    assert encoder.weights_note == '"imagenet" fills the encoder alone'


@pytest.mark.usefixtures("library", "small")
def test_weights_that_are_not_the_networks_are_refused(hub, tmp_path):
    save_file({"something.weight": torch.zeros(3)}, tmp_path / "model.safetensors")
    hub.commit_folder("lab/other", tmp_path)
    with pytest.raises(SegregError, match=r"model.safetensors: these are not the weights of hf/segformer_b0: "):
        network("hf/segformer_b0", weights="lab/other")
    with pytest.raises(SegregError, match=r'hf/segformer_b0 has no weights "ade"; it has "imagenet", "ade20k" and'):
        network("hf/segformer_b0", weights="ade")
    for place in ("./lab/other", str(tmp_path), "hf://lab/other/model.safetensors"):
        with pytest.raises(SegregError, match=r"has no weights(.|\n)*user/name@revision"):
            network("hf/segformer_b0", weights=place)
    with pytest.raises(SegregError, match=r"model.safetensors: these are not the weights of hf/segformer_b0: "):
        network("hf/segformer_b0", weights="hf://lab/other")
    with pytest.raises(SegregError, match=r'the weights "lab/none" of the network hf/segformer_b0 are not available'):
        network("hf/segformer_b0", weights="lab/none")
    encoder, _ = network("hf/segformer_b0", weights="lab/none", weights_fallback="random")
    assert encoder.weights_note.startswith("RANDOM weights")


@pytest.mark.usefixtures("small")
def test_eomt_is_transformers_also_with_masked_attention(library, hub, tmp_path):
    theirs = eomt_of(library, 21)
    theirs.save_pretrained(tmp_path / "saved")
    hub.commit_folder("lab/network", tmp_path / "saved")
    encoder, decoder = network("hf/eomt_small", weights="lab/network")
    model = Segmenter(encoder, decoder, TWENTY_ONE).eval()
    square = image(size=(64, 64))
    with torch.no_grad():
        wanted = F.interpolate(logits_of(theirs(square)), size=(64, 64), mode="bilinear", align_corners=False)
        torch.testing.assert_close(model(square), wanted, rtol=0, atol=1e-5)
        assert model(image()).isfinite().all(), "any size, where transformers takes one"
        # A run is opened without the published weights, which had their own numbers of positions and queries.
        save_weights(model.state_dict(), tmp_path / "best.safetensors", notes={})
        opened = Segmenter(*network("hf/eomt_small"), TWENTY_ONE).eval()
        load_weights(opened, tmp_path / "best.safetensors")
        assert torch.equal(opened(square), model(square))
    theirs.train().attn_mask_probs.fill_(1)
    model.train().set_epoch(1, 100)
    pixels, states, embeddings, of_steps = decoder(encoder(square))
    assert states.shape == (2, 3, 30, 32)
    assert of_steps.shape == (2, 3, 32, 16, 16)
    given = theirs(square)
    masks = torch.einsum("bqc,bchw->bqhw", embeddings[:, -1], pixels)
    torch.testing.assert_close(masks, given.masks_queries_logits, rtol=0, atol=1e-5)
    theirs.eval().attn_mask_probs.zero_()
    assert not torch.allclose(masks, theirs(square).masks_queries_logits, atol=1e-3), "the masks count"


@pytest.mark.usefixtures("small", "library")
def test_eomts_masks_fall_layer_by_layer_and_every_step_is_trained():
    torch.manual_seed(0)
    model = Segmenter(*network("hf/eomt_small"), TWENTY_ONE)
    shares = []
    for epoch in (0, 3, 10):
        model.set_epoch(epoch, 10)
        shares.append(model.decoder.masked.tolist())
    assert shares[0] == [1, 1]
    assert shares[1][0] < 1 == shares[1][1]
    assert shares[2] == [0, 0]
    targets = torch.randint(0, 21, (2, 65, 97), generator=torch.Generator().manual_seed(1))
    _, terms = model.supervised(image(), targets)
    sum(terms.values()).backward()
    assert set(terms) == {"class", "mask_bce", "mask_dice"}
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters()), "also class and registers"


@pytest.mark.usefixtures("small", "library")
@pytest.mark.parametrize("member", ["segformer_b0", "upernet_convnext_tiny", "mask2former_swin_tiny", "eomt_small"])
def test_layers_are_the_networks_stages(member):
    encoder, _ = network(f"hf/{member}")
    numbers, layers = layers_of(encoder, "train.layer_decay")
    assert layers == 4
    assert set(numbers.values()) >= set(range(layers))
    first = next(name for name in numbers if name.endswith(("proj.weight", "projection.weight", "embeddings.weight")))
    assert numbers[first] == 0
    assert all(name in dict(encoder.named_parameters()) for name in encoder.no_weight_decay())


NAMES = (
    (r"stages\.(\d)\.patch_embeddings\.proj", r"patch_embed\1.proj"),
    (r"stages\.(\d)\.patch_embeddings\.layer_norm", r"patch_embed\1.norm"),
    (r"stages\.(\d)\.layer_norm", r"norm\1"),
    (r"stages\.(\d)\.blocks\.(\d+)\.", r"block\1.\2."),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"attention\.sequence_reduction\.sequence_reduction", "attn.sr"),
    (r"attention\.sequence_reduction\.layer_norm", "attn.norm"),
    (r"attention\.q_proj", "attn.q"),
    (r"attention\.o_proj", "attn.proj"),
)
"""Names of transformers' SegFormer and those of the mit_b0 of segmentation_models_pytorch, whose stages begin at 1."""


def test_segformer_of_transformers_and_of_our_own_parts_agree_on_shared_weights(library):
    """The all-MLP head of our parts takes the levels from coarse to fine, as transformers' does."""
    theirs = shaken(library.SegformerForSemanticSegmentation(library.SegformerConfig(num_labels=4)))
    encoder = REGISTRY.find("encoder", "mit_b0").build(3, weights=None, depth=5, weights_fallback="error")
    decoder = REGISTRY.find("decoder", "mlp").build(encoder, channels=256)
    ours = Segmenter(encoder, decoder, 4).eval()
    state = {}
    for name, value in theirs.segformer.state_dict().items():
        for pattern, ours_name in NAMES:
            name = re.sub(pattern, ours_name, name)
        name = re.sub(r"^(patch_embed|norm|block)(\d)", lambda found: f"{found[1]}{int(found[2]) + 1}", name)
        state[name] = value
    for name in [name for name in state if "k_proj" in name]:
        value = state.pop(name.replace("k_proj", "v_proj"))
        state[name.replace("attention.k_proj", "attn.kv")] = torch.cat([state.pop(name), value])
    encoder.network.load_state_dict(state)
    head = theirs.decode_head
    for linear, projection in zip(decoder.linear, head.linear_projections, strict=True):
        linear.load_state_dict({"weight": projection.proj.weight[..., None, None], "bias": projection.proj.bias})
    fuse = head.linear_fuse.weight.unflatten(1, (4, 256)).flip(1).flatten(1, 2)  # from the coarsest level on
    decoder.fuse[0].load_state_dict({"weight": fuse})
    decoder.fuse[1].load_state_dict(head.batch_norm.state_dict())
    ours.head.load_state_dict(head.classifier.state_dict())
    with torch.no_grad():
        wanted = F.interpolate(theirs(image()).logits, size=(65, 97), mode="bilinear", align_corners=False)
        found = ours(image())
    assert wanted.std() > 0.02
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
