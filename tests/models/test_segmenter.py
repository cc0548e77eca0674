"""segreg.models.segmenter: sizes, padding, the auxiliary decoder, normalisation, and parts that do not fit."""

import re
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segreg.errors import SegregError
from segreg.models.pyramid import at_output_stride, pyramid_of
from segreg.models.segmenter import Normalize, Segmenter, describe
from segreg.models.verify import verify
from segreg.task import Task


class Encoder(nn.Module):
    """Levels of strides 4 and 8, and a count of how often it ran."""

    def __init__(self, in_channels: int = 3, dilates: bool = False) -> None:
        super().__init__()
        self.channels, self.strides = (8, 16), (4, 8)
        self.fine = nn.Sequential(nn.Conv2d(in_channels, 8, 4, stride=4), nn.BatchNorm2d(8))
        self.coarse = nn.Conv2d(8, 16, 2, stride=2)
        self.runs = 0
        if dilates:
            self.dilate = self._dilate

    def _dilate(self, output_stride: int) -> bool:
        self.coarse.stride, self.coarse.padding = (1, 1), "same"
        self.strides = (4, 4)
        return True

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        self.runs += 1
        fine = self.fine(image)
        return [fine, self.coarse(fine)]


class Decoder(nn.Module):
    """One level through a convolution."""

    def __init__(self, encoder, level: int = -1, size_divisor: int | None = None) -> None:
        super().__init__()
        self.pyramid = pyramid_of(encoder)
        self.level, self.channels, self.stride = level, 6, encoder.strides[level]
        self.convolution = nn.Conv2d(encoder.channels[level], 6, 1)
        if size_divisor:
            self.size_divisor = size_divisor

    def forward(self, levels):
        return self.convolution(levels[self.level])


def parts(**settings):
    encoder = Encoder()
    return encoder, Decoder(encoder, **settings)


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (13, 40), (9, 8)])
@pytest.mark.parametrize("divisor", [None, 32])
def test_logits_have_the_image_size(size, divisor):
    model = Segmenter(*parts(size_divisor=divisor), 5).eval()
    assert model(torch.randn(2, 3, *size)).shape == (2, 5, *size)


def test_without_a_divisor_logits_are_interpolated_once_and_nothing_is_padded():
    encoder, decoder = parts()
    model = Segmenter(encoder, decoder, 3).eval()
    image = torch.randn(1, 3, 50, 70)
    small = model.head(decoder(encoder(image)))
    assert model.pad(image) is image
    assert torch.equal(model(image), F.interpolate(small, size=(50, 70), mode="bilinear", align_corners=False))


def test_logits_of_bf16_are_interpolated_in_float32_so_that_no_border_has_ties():
    torch.manual_seed(0)
    encoder, decoder = parts()
    model = Segmenter(encoder, decoder, 5).eval()
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        small, logits = model.head(decoder(encoder(image))), model(image)
    assert small.dtype == torch.bfloat16
    exact = F.interpolate(small.double(), size=(64, 64), mode="bilinear", align_corners=False)
    assert torch.equal(logits.argmax(1), exact.argmax(1))


def test_padding_repeats_the_border_at_the_right_and_bottom_and_is_cropped():
    encoder, decoder = parts(size_divisor=16)
    model = Segmenter(encoder, decoder, 3).eval()
    image = torch.randn(1, 3, 30, 5)
    padded = model.pad(image)
    assert padded.shape == (1, 3, 32, 16)
    assert torch.equal(padded[..., :30, :5], image)
    assert torch.equal(padded[..., :30, 5:], image[..., 4:5].expand(-1, -1, -1, 11))
    assert torch.equal(padded[..., 30:, :], padded[..., 29:30, :].expand(-1, -1, 2, -1))
    assert torch.equal(model(image), model(padded)[..., :30, :5])


def test_the_divisors_of_all_parts_count():
    encoder, decoder = parts(size_divisor=4)
    encoder.size_divisor = 6
    assert Segmenter(encoder, decoder, 1, auxiliary=Decoder(encoder, 0, size_divisor=10)).size_divisor == 60


def test_an_encoder_of_one_size_gets_smaller_images_at_that_size_and_larger_ones_as_they_are():
    encoder, decoder = parts()
    encoder.image_size = (48, 64)
    model = Segmenter(encoder, decoder, 3).eval()
    image = torch.randn(1, 3, 30, 64)
    assert model.pad(image).shape == (1, 3, 48, 64)
    assert torch.equal(model.pad(image)[..., 29:, :], image[..., 29:, :].expand(-1, -1, 19, -1))
    assert model(image).shape == (1, 3, 30, 64)
    assert model.pad(torch.randn(1, 3, 50, 60)).shape == (1, 3, 50, 64)
    encoder.image_size = None
    assert model.pad(image) is image


def test_a_stride_that_is_no_power_of_two_is_checked_as_it_is():
    """Levels of stride 14 and 28 pass for 16 and 32; the decoder's stride is meant so too."""
    encoder = Encoder()
    encoder.fine[0] = nn.Conv2d(3, 8, 14, stride=14)
    encoder.strides = (14, 28)
    decoder = Decoder(encoder, 0)
    decoder.stride = 16
    model = Segmenter(encoder, decoder, 2)
    verify(model, (560, 280), 3)
    decoder.stride = 32
    with pytest.raises(SegregError) as caught:
        verify(model, (560, 280), 3)
    assert str(caught.value) == (
        "decoder Decoder declares stride 28, but gives 40x20 for an image of 560x280, where about 20x10 was expected"
    )


def test_all_logits_runs_the_encoder_once_and_gives_the_main_decoder_first():
    encoder, decoder = parts()
    model = Segmenter(encoder, decoder, 4, auxiliary=Decoder(encoder, 0)).eval()
    image = torch.randn(2, 3, 32, 32)
    main, auxiliary = model.all_logits(image)
    assert encoder.runs == 1
    assert torch.equal(main, model(image))
    assert auxiliary.shape == main.shape
    assert not torch.equal(auxiliary, main)
    assert len(Segmenter(encoder, decoder, 4).all_logits(image)) == 1


def test_parts_hold_every_parameter_once():
    encoder, decoder = parts()
    model = Segmenter(encoder, decoder, 4, auxiliary=Decoder(encoder, 0))
    assert list(model.parts()) == ["encoder", "decoder", "head", "auxiliary"]
    held = [p for part in model.parts().values() for p in part.parameters()]
    assert len(held) == len(set(held)) == len(list(model.parameters()))
    assert list(Segmenter(encoder, decoder, 4).parts()) == ["encoder", "decoder", "head"]


def test_a_decoder_may_bring_its_own_head():
    encoder, decoder = parts()
    decoder.head = lambda classes: nn.Conv2d(6, classes, 3, padding=1)
    assert Segmenter(encoder, decoder, 4).head.kernel_size == (3, 3)
    decoder.head = lambda classes: None
    with pytest.raises(SegregError, match=r"head\(classes\) of decoder Decoder gives no nn.Module"):
        Segmenter(encoder, decoder, 4)


def test_describe_counts_parameters_and_repeats_notes():
    encoder, decoder = parts()
    decoder.pyramid = at_output_stride(encoder, 4)
    decoder.weights_note = "loaded"
    facts = describe(Segmenter(encoder, decoder, 4))
    counted = {"encoder": 8 * 48 + 8 + 16 + 16 * 32 + 16, "decoder": 6 * 16 + 6, "head": 4 * 6 + 4}
    assert facts["parameters"] == {**counted, "total": sum(counted.values())}
    assert facts["encoder"] == {"class": "Encoder", "channels": [8, 16], "strides": [4, 8]}
    assert facts["decoder"] == {
        "class": "Decoder",
        "channels": 6,
        "stride": 8,
        "notes": ["the encoder's level 2 of 2 is resampled from stride 8 to 4"],
        "weights": "loaded",
    }


class TestNormalize:
    def test_it_is_the_formula_in_float32_from_uint8(self):
        image = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        given = Normalize(mean, std)(image)
        expected = (image.double() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        assert given.dtype == torch.float32
        assert torch.allclose(given.double(), expected, atol=1e-6)
        assert torch.equal(Normalize(mean, std)(image.float()), given)

    def test_it_keeps_channels_last(self):
        image = torch.zeros(2, 3, 8, 8, dtype=torch.uint8).to(memory_format=torch.channels_last)
        assert Normalize((0.5,) * 3, (0.5,) * 3)(image).is_contiguous(memory_format=torch.channels_last)

    def test_its_numbers_travel_with_the_weights(self):
        other = Normalize((0.0,), (1.0,))
        other.load_state_dict(Normalize((0.25,), (0.5,)).state_dict())
        assert other(torch.full((1, 1, 1, 1), 255.0)).item() == 1.5

    @pytest.mark.parametrize(
        ("mean", "std", "says"),
        [
            ((0.5,), (0.5, 0.5), "normalisation has 1 means for 2 standard deviations"),
            ((), (), "normalisation has 0 means for 0 standard deviations"),
            ((0.5,), (0.0,), "normalisation has a standard deviation of 0.0; it must be above 0"),
        ],
    )
    def test_it_refuses_numbers_that_cannot_be(self, mean, std, says):
        with pytest.raises(SegregError) as raised:
            Normalize(mean, std)
        assert str(raised.value) == says

    def test_it_refuses_other_channels(self):
        with pytest.raises(SegregError, match="an image has 1 channels, but normalisation has 3 means"):
            Normalize((0.5,) * 3, (0.5,) * 3)(torch.zeros(1, 1, 4, 4))


class TestVerify:
    def test_it_passes_a_sound_model_and_leaves_it_as_it_was(self):
        encoder, decoder = parts(size_divisor=8)
        model = Segmenter(encoder, decoder, 4, auxiliary=Decoder(encoder, 0))
        model.train()
        encoder.fine[1].eval()
        before = {k: v.clone() for k, v in model.state_dict().items()}
        modes = [m.training for m in model.modules()]
        verify(model, (65, 33), 3)
        assert [m.training for m in model.modules()] == modes
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
        assert all(p.grad is None for p in model.parameters())

    def says(self, change, size=(64, 64), in_channels=3):
        encoder, decoder = parts()
        model = Segmenter(encoder, decoder, 4)
        change(model)
        with pytest.raises(SegregError) as raised:
            verify(model, size, in_channels)
        return str(raised.value)

    def test_it_reports_levels_that_are_not_as_declared(self):
        assert self.says(lambda m: setattr(m.encoder, "channels", (8, 17))) == (
            "encoder Encoder, level 2 of 2, declares 17 channels, but gives 16"
        )
        assert self.says(lambda m: setattr(m.encoder, "strides", (4, 16))) == (
            "encoder Encoder, level 2 of 2, declares stride 16, but gives 8x8 for an image of 64x64, where about 4x4 "
            "was expected"
        )
        assert self.says(lambda m: (setattr(m.encoder, "strides", (4,)), setattr(m.encoder, "channels", (8,)))) == (
            "encoder Encoder gives 2 levels, but declares 1"
        )

    def test_it_reports_a_decoder_that_is_not_as_declared(self):
        assert self.says(lambda m: setattr(m.decoder, "channels", 7)) == (
            "decoder Decoder declares 7 channels, but gives 6"
        )
        assert "decoder Decoder declares stride 2, but gives 8x8" in self.says(
            lambda m: setattr(m.decoder, "stride", 2)
        )
        assert "gives list where [B, C, H, W] was expected" in self.says(
            lambda m: setattr(m.decoder, "forward", lambda levels: levels)
        )

    def test_it_reports_a_head_of_other_classes(self):
        said = self.says(lambda m: setattr(m, "head", nn.Conv2d(6, 9, 1)))
        assert said.startswith("the head of decoder Decoder gives [1, 9, 8, 8] for 4 classes\n  it is defined at /")
        assert re.search(r"test_segmenter\.py:\d+$", said)

    def test_it_reports_what_a_network_raises(self):
        said = self.says(lambda m: None, in_channels=1)
        assert said.startswith("encoder Encoder can't take an image of 64x64 with 1 channel: RuntimeError: ")
        said = self.says(lambda m: setattr(m.decoder, "convolution", nn.Conv2d(5, 6, 1)))
        assert said.startswith("decoder Decoder on Encoder can't take an image of 64x64 with 3 channels: RuntimeError")


class TestConstruction:
    def test_a_broken_encoder_is_refused(self):
        encoder, decoder = parts()
        encoder.strides = (8, 4)
        with pytest.raises(SegregError, match=r"encoder Encoder has strides \[8, 4\], which are not finest first"):
            Segmenter(encoder, decoder, 1)

    @pytest.mark.parametrize(
        ("name", "value"), [("channels", 0), ("stride", None), ("stride", True), ("size_divisor", 2.0)]
    )
    def test_a_broken_decoder_is_refused(self, name, value):
        encoder, decoder = parts()
        setattr(decoder, name, value)
        with pytest.raises(SegregError, match=f"decoder Decoder has {name} {value!r}; a positive integer was expected"):
            Segmenter(encoder, decoder, 1)

    def test_a_decoder_that_is_no_module_is_refused(self):
        with pytest.raises(SegregError, match=r"auxiliary decoder object is not a nn\.Module"):
            Segmenter(*parts(), 1, auxiliary=object())

    def test_an_auxiliary_that_dilates_the_encoder_under_the_decoder_is_refused(self):
        encoder = Encoder(dilates=True)
        decoder = Decoder(encoder)
        auxiliary = Decoder(encoder)
        auxiliary.pyramid = at_output_stride(encoder, 4)
        with pytest.raises(SegregError) as raised:
            Segmenter(encoder, decoder, 1, auxiliary=auxiliary)
        assert str(raised.value) == (
            "decoder Decoder was built on levels of strides [4, 8], but the encoder's have since become [4, 4]\n"
            "  give decoder and auxiliary decoder the same output_stride"
        )


class Mapped(nn.Module):
    """Give a mapping where one tensor is expected, in training alone if it is asked to."""

    def __init__(self, inner, *, training_alone=False):
        super().__init__()
        self.inner, self.training_alone = inner, training_alone

    def forward(self, given):
        found = self.inner(given)
        return {"out": found, "aux": found} if self.training or not self.training_alone else found


@pytest.mark.parametrize("training_alone", [True, False])
@pytest.mark.parametrize("role", ["head of decoder", "decoder"])
def test_a_decoder_or_a_head_that_gives_no_tensor_is_named_with_its_place(role, training_alone):
    encoder, decoder = parts()
    if role == "decoder":
        channels, stride = decoder.channels, decoder.stride
        decoder = Mapped(decoder, training_alone=training_alone)
        decoder.channels, decoder.stride = channels, stride
    model = Segmenter(encoder, decoder, 3)
    if role != "decoder":
        model.head = Mapped(model.head, training_alone=training_alone)
    if training_alone:
        verify(model, (32, 32), 3)
    use = (
        partial(model.train().all_logits, torch.randn(1, 3, 32, 32))
        if training_alone
        else partial(verify, model, (32, 32), 3)
    )
    with pytest.raises(SegregError) as reported:
        use()
    said = str(reported.value)
    assert "gives a dict" in said or "gives dict" in said
    assert "where [B, C, H, W] was expected" in said
    if training_alone or role != "decoder":
        assert f"the {role} " in said
        assert 'with "out" and "aux"' in said
        assert re.search(r"\n  return one tensor, in training too; it is defined at \S+test_segmenter\.py:\d+$", said)


@pytest.mark.parametrize(
    ("given", "words"),
    [(lambda levels: dict(enumerate(levels)), "a dict"), (lambda levels: levels[0], "a tensor [1, ")],
)
def test_an_encoder_that_gives_no_list_is_named_with_its_place(given, words):
    class Other(Encoder):
        def forward(self, image):
            return given(super().forward(image))

    encoder = Other()
    with pytest.raises(
        SegregError, match=r"where a list of levels was expected.*\n.*test_segmenter\.py:\d+$"
    ) as caught:
        verify(Segmenter(encoder, Decoder(encoder), 3), (32, 32), 3)
    assert f"encoder Other gives {words}" in str(caught.value)


class Several(Decoder):
    """A decoder whose head gives two further maps in training, or brings losses of its own."""

    epoch = None

    def __init__(self, encoder, level=-1, *, own=False):
        super().__init__(encoder, level)
        self.own = own

    def forward(self, levels):
        features = super().forward(levels)
        return features, features.mean((2, 3))

    def head(self, classes):
        return SeveralHead(classes, own=self.own)

    def set_epoch(self, epoch, epochs):
        self.epoch = epoch, epochs


class SeveralHead(nn.Module):
    def __init__(self, classes, *, own):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(6, classes, 1) for _ in range(3))
        if own:
            self.own_losses = {"fit": 2.0, "size": 0.5}
        else:
            self.further = {"second": 0.5, "third": 0.25}

    def forward(self, features):
        return self.layers[0](features[0])

    def further_logits(self, features):
        return [layer(features[0]) for layer in self.layers[1:]]

    def loss_terms(self, features, targets):
        assert {one.dtype for one in features} == {torch.float32}
        assert not torch.is_autocast_enabled("cpu")
        self.targets = targets
        return [features[0].square().mean(), features[1].mean()]


class TestWhatTrains:
    """What a decoder gives to be trained by: further logits, losses of its own, and what it does as an epoch begins."""

    def test_further_logits_have_names_and_weights_also_those_of_an_auxiliary_decoder(self):
        encoder = Encoder()
        model = Segmenter(encoder, Several(encoder), 3, auxiliary=Several(encoder, 0), auxiliary_weight=0.5)
        assert model.further == {
            "second": 0.5, "third": 0.25, "auxiliary": 0.5, "auxiliary.second": 0.25, "auxiliary.third": 0.125,
        }  # fmt: skip
        verify(model, (32, 32), 3)
        image = torch.randn(2, 3, 32, 30)
        maps, terms = model.supervised(image, torch.zeros(2, 32, 30, dtype=torch.long))
        assert terms == {}
        assert list(maps) == ["", *model.further]
        assert {tuple(logits.shape) for logits in maps.values()} == {(2, 3, 32, 30)}
        levels = model.encoder(image)
        third = model.auxiliary_head.layers[2](model.auxiliary(levels)[0])
        third = F.interpolate(third, size=(32, 30), mode="bilinear")
        torch.testing.assert_close(maps["auxiliary.third"], third)

    def test_own_losses_take_the_place_of_the_decoders_logits(self):
        encoder = Encoder()
        model = Segmenter(encoder, Several(encoder, own=True), 3, auxiliary=Decoder(encoder, 0), auxiliary_weight=0.5)
        assert (model.own_losses, model.further) == ({"fit": 2.0, "size": 0.5}, {"auxiliary": 0.5})
        model.size_divisor = 8
        targets = torch.ones(2, 32, 30, dtype=torch.long)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            maps, terms = model.supervised(torch.randn(2, 3, 32, 30), targets)
        assert list(maps) == ["auxiliary"]
        assert list(terms) == ["fit", "size"]
        assert model.head.targets.shape == (2, 32, 32)
        assert (model.head.targets[..., :30] == 1).all()
        assert (model.head.targets[..., 30:] == 255).all()
        assert len(model.all_logits(torch.randn(2, 3, 32, 30))) == 2
        note = "trained by its own losses, fit and size; the recipe's losses score validation"
        assert describe(model)["decoder"]["notes"] == [note]

    def test_decoders_are_told_the_epoch(self):
        encoder = Encoder()
        model = Segmenter(encoder, Decoder(encoder), 3, auxiliary=Several(encoder))
        model.set_epoch(3, 9)
        assert model.auxiliary.epoch == (3, 9)

    def test_a_head_may_ask_for_the_task(self):
        encoder, decoder = parts()
        decoder.task_head = lambda task: nn.Conv2d(6, task.channels + (task.mode == "multilabel"), 1)
        task = Task(("a", "b"), "multilabel")
        assert Segmenter(encoder, decoder, task).head.out_channels == 3
        assert Segmenter(encoder, decoder, 2).head.out_channels == 2

    @pytest.mark.parametrize(
        ("name", "value", "says"),
        [
            ("further", {"second": 0.5}, "the head of decoder Several gives 2 further maps, but names 1"),
            ("further", ["second"], "has further ['second']; names with weights above 0 were expected"),
            ("own_losses", {"fit": 0}, "has own_losses {'fit': 0}; names with weights above 0 were expected"),
            ("own_losses", {"fit": 1}, "the head of decoder Several gives 2 loss terms, but names 1"),
        ],
    )
    def test_what_does_not_fit_is_refused_with_its_place(self, name, value, says, monkeypatch):
        monkeypatch.setattr(SeveralHead, name, value, raising=False)
        monkeypatch.setattr(SeveralHead, "__setattr__", lambda self, key, given: None if key == name else
                            nn.Module.__setattr__(self, key, given))  # fmt: skip
        encoder = Encoder()
        targets = torch.zeros(2, 32, 32, dtype=torch.long)
        with pytest.raises(SegregError) as raised:
            Segmenter(encoder, Several(encoder), 3).supervised(torch.randn(2, 3, 32, 32), targets)
        assert says in str(raised.value)
        assert re.search(r"test_segmenter\.py:\d+$", str(raised.value))

    def test_a_tuple_without_a_head_of_its_own_is_refused(self):
        encoder, decoder = parts()
        decoder.forward = lambda levels: (levels[0], levels[1])
        with pytest.raises(SegregError, match=r"gives tuple where \[B, C, H, W\] was expected"):
            verify(Segmenter(encoder, decoder, 3), (32, 32), 3)
