"""Pretrained weights: from the local cache without a network, and a quick, plain answer where they are missing."""

import http.server
import threading

import huggingface_hub
import pytest
import safetensors.torch
import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from segreg.errors import SegregError
from segreg_plugins import pretrained as weights
from segreg_plugins.encoders import smp_family, timm_family, torchvision_resnets
from segreg_plugins.pretrained import HubFile, WebFile

pytestmark = pytest.mark.usefixtures("quick_networks")


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """An empty cache, no connection, and a test that fails when a download begins all the same."""

    def forbidden(*_, **__):
        raise AssertionError("a download was tried")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(weights, "_asked", lambda address: "no route to host")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", forbidden)
    monkeypatch.setattr(torch.hub, "download_url_to_file", forbidden)
    return tmp_path


def put_on_hub(root, repository, revision, state, name="model.safetensors"):
    """Write weights where the hub's client keeps them."""
    folder = root / "hub" / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / (revision or "0" * 40)
    snapshot.mkdir(parents=True)
    if revision is None:
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("0" * 40)
    if name.endswith(".safetensors"):
        safetensors.torch.save_file({key: value.contiguous() for key, value in state.items()}, snapshot / name)
    else:
        torch.save(state, snapshot / name)
    return snapshot / name


def smp_weights():
    return smp.encoders.encoders["resnet18"]["pretrained_settings"]["imagenet"]


def put_resnet18(root):
    state = torchvision.models.resnet18(weights=None).state_dict()
    return state, put_on_hub(root, smp_weights()["repo_id"], smp_weights()["revision"], state)


def test_smp_weights_from_the_cache(tmp_path):
    state, _ = put_resnet18(tmp_path)
    encoder = smp_family.smp_encoder("resnet18", 3, weights="imagenet")
    assert encoder.weights_note == ""
    loaded = encoder.network.state_dict()
    assert set(loaded) == {key for key in state if not key.startswith("fc")}
    assert all(torch.equal(value, state[key]) for key, value in loaded.items())


@pytest.mark.parametrize("in_channels", [1, 4])
def test_smp_weights_with_other_channels_are_adapted_as_smp_does(tmp_path, in_channels):
    state, _ = put_resnet18(tmp_path)
    encoder = smp_family.smp_encoder("resnet18", in_channels, weights="imagenet", depth=4)
    first = state["conv1.weight"]
    wanted = first.sum(1, keepdim=True) if in_channels == 1 else first[:, [0, 1, 2, 0]] * (3 / 4)
    torch.testing.assert_close(encoder.network.conv1.weight.detach(), wanted)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize(("tag", "in_channels"), [("r160_in1k", 3), ("default", 1)])
def test_timm_weights_from_the_cache(tmp_path, tag, in_channels, name):
    model = timm.create_model("test_resnet", pretrained=False)
    put_on_hub(tmp_path, "timm/test_resnet.r160_in1k", None, model.state_dict(), name)
    encoder = timm_family.timm_encoder("test_resnet", in_channels, weights=tag)
    assert encoder.weights_note == ""
    image = torch.rand(1, in_channels, 64, 64)
    wanted = model.eval().forward_intermediates(image.expand(-1, 3, -1, -1), intermediates_only=True)
    got = encoder.eval()(image)
    torch.testing.assert_close(got[-1], wanted[-1])
    torch.testing.assert_close(got[1], wanted[1])


def test_timm_weights_survive_dilation(tmp_path):
    model = timm.create_model("test_efficientnet", pretrained=False)
    put_on_hub(tmp_path, "timm/test_efficientnet.r160_in1k", None, model.state_dict())
    encoder = timm_family.timm_encoder("test_efficientnet", 3, weights="r160_in1k")
    assert encoder.dilate(16)
    assert torch.equal(encoder.network.conv_stem.weight, model.conv_stem.weight)


def test_a_vits_weights_load_whatever_the_size(tmp_path):
    model = timm.create_model("test_vit", pretrained=False)
    put_on_hub(tmp_path, "timm/test_vit.r160_in1k", None, model.state_dict())
    encoder = timm_family.timm_encoder("test_vit", 3, weights="r160_in1k").eval()
    image = torch.rand(1, 3, 160, 160)
    wanted = model.eval().forward_intermediates(image, intermediates_only=True, norm=False)
    torch.testing.assert_close(encoder(image)[-1], wanted[-1])
    assert encoder(torch.rand(1, 3, 96, 64))[-1].shape[2:] == (6, 4)


def test_torchvision_weights_from_the_cache(tmp_path):
    state = torchvision.models.resnet50(weights=None).state_dict()
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(state, folder / "resnet50-0676ba61.pth")
    encoder = torchvision_resnets.resnet50(3, weights="IMAGENET1K_V1")
    assert all(torch.equal(value, state[key]) for key, value in encoder.state_dict().items())


def test_nothing_is_asked_for_without_weights(monkeypatch):
    monkeypatch.setattr(weights, "obtain", lambda *_, **__: pytest.fail("weights were looked for"))
    smp_family.smp_encoder("resnet18", 3)
    timm_family.timm_encoder("test_resnet", 3)
    torchvision_resnets.resnet50(3)


OFFLINE = {
    "smp": (
        lambda **s: smp_family.smp_encoder("resnet18", 3, weights="imagenet", **s),
        'the weights "imagenet" of the encoder resnet18 are not available: huggingface.co can\'t be reached',
        "hf download smp-hub/resnet18.imagenet model.safetensors --revision",
    ),
    "timm": (
        lambda **s: timm_family.timm_encoder("test_resnet", 3, weights="r160_in1k", **s),
        'the weights "r160_in1k" of the encoder timm/test_resnet are not available: huggingface.co can\'t be reached',
        "hf download timm/test_resnet.r160_in1k model.safetensors`",
    ),
    "torchvision": (
        lambda **s: torchvision_resnets.resnet50(3, weights="IMAGENET1K_V2", **s),
        (
            'the weights "IMAGENET1K_V2" of the encoder torchvision.resnet50 are not available: '
            "download.pytorch.org can't"
        ),
        "download https://download.pytorch.org/models/resnet50-11ad3fa6.pth and put it here as",
    ),
}


@pytest.mark.parametrize("kind", OFFLINE)
def test_offline_the_ways_out_are_named(kind):
    build, message, by_hand = OFFLINE[kind]
    with pytest.raises(SegregError) as caught:
        build()
    text = str(caught.value)
    assert message in text
    assert "(no route to host)" in text
    assert "- weights: null starts from random weights" in text
    assert "- weights_fallback: random" in text
    assert by_hand in text
    assert ("TORCH_HOME" if kind == "torchvision" else "HF_HOME") in text


@pytest.mark.parametrize("kind", OFFLINE)
def test_offline_random_weights_on_demand_and_said(kind):
    encoder = OFFLINE[kind][0](weights_fallback="random")
    assert encoder.weights_note.startswith("RANDOM weights: ")
    assert "no route to host" in encoder.weights_note
    encoder(torch.rand(1, 3, 64, 64))


def test_the_hubs_offline_switch_is_obeyed(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(weights, "_asked", lambda address: pytest.fail("the network was asked"))
    with pytest.raises(SegregError, match="HF_HUB_OFFLINE forbids the network"):
        smp_family.smp_encoder("resnet18", 3, weights="imagenet")


def test_a_server_that_never_answers_is_not_waited_for(monkeypatch):
    never = threading.Event()
    monkeypatch.setattr(weights, "PATIENCE", 0.05)
    monkeypatch.setattr(weights, "_asked", lambda address: str(never.wait(20)))
    assert (
        weights.unreachable("https://example.org/a") == "example.org can't be reached (no answer within 0.05 seconds)"
    )
    never.set()


@pytest.fixture
def server():
    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(403)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()
        thread.join()


def test_asking_a_server(monkeypatch, server):
    monkeypatch.undo()  # the real question
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert weights._asked(server) == ""  # it refuses, so it is there


def test_asking_where_nobody_listens(monkeypatch):
    monkeypatch.undo()
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert "refused" in weights._asked("http://127.0.0.1:9/")


def test_a_download_that_fails_names_the_ways_out_too(monkeypatch):
    def broken(*_, **__):
        raise OSError("connection reset\nby peer")

    monkeypatch.setattr(weights, "_asked", lambda address: "")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", broken)
    with pytest.raises(SegregError, match=r"could not be downloaded: OSError: connection reset\n") as caught:
        smp_family.smp_encoder("resnet18", 3, weights="imagenet")
    assert "- weights: null" in str(caught.value)


def test_online_the_file_is_fetched_and_read(monkeypatch, tmp_path):
    state = torchvision.models.resnet18(weights=None).state_dict()
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    asked = []

    def fetched(repository, name, revision):
        asked.append((repository, name, revision))
        return str(tmp_path / "model.safetensors")

    monkeypatch.setattr(weights, "_asked", lambda address: "")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetched)
    encoder = smp_family.smp_encoder("resnet18", 3, weights="imagenet")
    assert asked == [(smp_weights()["repo_id"], "model.safetensors", smp_weights()["revision"])]
    assert torch.equal(encoder.network.conv1.weight, state["conv1.weight"])


def test_the_second_name_is_tried_where_the_first_does_not_exist(monkeypatch):
    def fetched(repository, name, revision):
        if name == "model.safetensors":
            raise EntryNotFoundError("404")
        return f"/cache/{name}"

    file = HubFile("timm/x", ("model.safetensors", "pytorch_model.bin"))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetched)
    assert file.download().name == "pytorch_model.bin"

    def broken(repository, name, revision):
        raise LocalEntryNotFoundError(name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", broken)
    with pytest.raises(LocalEntryNotFoundError, match=r"model\.safetensors"):
        file.download()


def test_a_web_file_is_fetched_with_its_hash(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *args, **more: asked.append((args, more)))
    place = WebFile("https://download.pytorch.org/models/resnet50-11ad3fa6.pth").download()
    assert place == tmp_path / "torch" / "hub" / "checkpoints" / "resnet50-11ad3fa6.pth"
    assert asked == [
        (("https://download.pytorch.org/models/resnet50-11ad3fa6.pth", str(place)), {"hash_prefix": "11ad3fa6"})
    ]


def test_a_damaged_file_is_named(tmp_path):
    _, path = put_resnet18(tmp_path)
    path.write_bytes(b"<html>captive portal</html>")
    with pytest.raises(SegregError, match=r"model\.safetensors: these weights can't be loaded") as caught:
        smp_family.smp_encoder("resnet18", 3, weights="imagenet", weights_fallback="random")
    assert "delete the file" in str(caught.value)


def test_another_networks_weights_are_refused(tmp_path):
    put_on_hub(tmp_path, smp_weights()["repo_id"], smp_weights()["revision"], {"conv1.weight": torch.zeros(1)})
    with pytest.raises(SegregError, match='these are no weights of encoder "resnet18"'):
        smp_family.smp_encoder("resnet18", 3, weights="imagenet")
    put_on_hub(tmp_path, "timm/test_resnet.r160_in1k", None, {"x": torch.zeros(1)})
    with pytest.raises(SegregError, match='these are no weights of timm\'s "test_resnet": no parameter was found'):
        timm_family.timm_encoder("test_resnet", 3, weights="r160_in1k")


def test_weights_that_fit_in_part_only_are_not_passed_over(tmp_path):
    state = timm.create_model("test_resnet", pretrained=False).state_dict()
    del state["layer3.0.conv2.weight"]
    put_on_hub(tmp_path, "timm/test_resnet.r160_in1k", None, state)
    encoder = timm_family.timm_encoder("test_resnet", 3, weights="r160_in1k")
    assert encoder.weights_note == (
        'RANDOM weights in "layer3.0.conv2.weight": "r160_in1k" of timm/test_resnet does not fit there'
    )


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("code in a checkpoint was run",))

    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save({"conv1.weight": Trap()}, folder / "resnet50-0676ba61.pth")
    with pytest.raises(SegregError, match=r"resnet50-0676ba61\.pth: these weights can't be loaded"):
        torchvision_resnets.resnet50(3, weights="IMAGENET1K_V1")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: smp_family.smp_encoder("resnet34", 3, weights="swsl"),
            'encoder "resnet34" has no weights "swsl"; it has "imagenet", or null',
        ),
        (
            lambda: timm_family.timm_encoder("test_resnet", 3, weights="imagenet"),
            'has no weights "imagenet" for "test_resnet"; it has "r160_in1k" and "default", or null',
        ),
        (
            lambda: timm_family.timm_encoder("resnet50_clip_gap", 3, weights="imagenet"),
            'has no weights "imagenet" for "resnet50_clip_gap"; it has "openai"',
        ),
    ],
)
def test_unknown_weights_list_those_that_there_are(build, message):
    with pytest.raises(SegregError) as caught:
        build()
    assert message in str(caught.value)
