"""segreg.models.pyramid: which levels are taken, when they are resampled, and when nothing is."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segreg.errors import SegregError
from segreg.models.pyramid import (
    at_output_stride,
    check_encoder,
    level_at_stride,
    on_grid,
    pyramid_of,
    resampled,
    with_strides,
)


class Toy(nn.Module):
    """Levels of any strides, each a 1x1 convolution of the pooled image."""

    def __init__(self, *strides: int, dilates: bool = False) -> None:
        super().__init__()
        self.strides = strides
        self.channels = tuple(8 * (i + 1) for i in range(len(strides)))
        self.convolutions = nn.ModuleList(nn.Conv2d(3, c, 1) for c in self.channels)
        self.asked: list[int] = []
        if dilates:
            self.dilate = self._dilate

    def _dilate(self, output_stride: int) -> bool:
        self.asked.append(output_stride)
        self.strides = tuple(min(stride, output_stride) for stride in self.strides)
        return True

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        pooled = [F.avg_pool2d(image, stride, ceil_mode=True) for stride in self.strides]
        return [convolution(p) for convolution, p in zip(self.convolutions, pooled, strict=True)]


CNN = (2, 4, 8, 16, 32)


def sizes(levels):
    return [tuple(level.shape[-2:]) for level in levels]


def test_nothing_is_computed_where_the_encoder_has_what_is_wanted():
    encoder = Toy(*CNN)
    levels = encoder(torch.randn(1, 3, 64, 96))
    pyramid = with_strides(pyramid_of(encoder), (4, 8, 16, 32), divisor=32)
    assert [a is b for a, b in zip(pyramid(levels), levels[1:], strict=True)] == [True] * 4
    assert pyramid.channels == (16, 24, 32, 40)
    assert pyramid.notes == ()
    assert list(pyramid.state_dict()) == []


def test_an_encoder_that_can_is_dilated_and_nothing_is_resampled():
    encoder = Toy(*CNN, dilates=True)
    pyramid = at_output_stride(encoder, 8)
    assert encoder.asked == [8]
    assert pyramid.strides == pyramid.encoder_strides == (2, 4, 8, 8, 8)
    assert pyramid.notes == ()
    levels = encoder(torch.randn(1, 3, 65, 97))
    assert all(a is b for a, b in zip(pyramid(levels), levels, strict=True))


def test_an_encoder_that_is_fine_enough_is_not_asked():
    encoder = Toy(2, 4, 8, dilates=True)
    assert at_output_stride(encoder, 16).strides == (2, 4, 8)
    assert encoder.asked == []


def test_an_encoder_that_cannot_dilate_has_its_coarse_levels_resampled():
    encoder = Toy(4, 8, 16, 32)
    pyramid = at_output_stride(encoder, 16)
    levels = encoder(torch.randn(1, 3, 65, 97))
    given = pyramid(levels)
    assert pyramid.strides == (4, 8, 16, 16)
    # The last takes the size of the encoder's own level of stride 16, with its rounding.
    assert sizes(given) == [(17, 25), (9, 13), (5, 7), (5, 7)]
    assert torch.equal(given[3], F.interpolate(levels[3], size=(5, 7), mode="bilinear", align_corners=False))
    assert pyramid.notes == ("the encoder's level 4 of 4 is resampled from stride 32 to 16",)


def test_a_dilate_that_says_no_is_served_as_well():
    encoder = Toy(*CNN)
    encoder.dilate = lambda stride: False
    assert at_output_stride(encoder, 16).strides == (2, 4, 8, 16, 16)


@pytest.mark.parametrize(
    ("have", "want", "sources"),
    [
        (CNN, (4, 8, 16, 32), [1, 2, 3, 4]),
        (CNN, (8,), [2]),
        ((1, *CNN), CNN, [1, 2, 3, 4, 5]),
        ((4, 8, 16, 32), (2, 4, 8, 16, 32), [0, 0, 1, 2, 3]),
        ((16,) * 4, (16,) * 4, [0, 1, 2, 3]),
        ((14,) * 12, (16,) * 4, [0, 4, 7, 11]),
        ((16,) * 4, (4, 8, 16, 32), [3, 3, 3, 3]),
        ((16,), (4, 8, 16, 32), [0, 0, 0, 0]),
        ((16,) * 4, (8,), [3]),
        ((2, 4, 8, 8, 8), CNN, [0, 1, 2, 3, 4]),
        ((2, 4, 8, 16, 16), (4, 8, 16, 16), [1, 2, 3, 4]),
        ((4, 8, 16, 16), (4, 8, 16, 16), [0, 1, 2, 3]),
    ],
)
def test_each_stride_is_served_by_the_nearest_level(have, want, sources):
    pyramid = with_strides(pyramid_of(Toy(*have)), want)
    assert [level.source for level in pyramid.levels] == sources
    assert pyramid.strides == want


@pytest.mark.parametrize(
    ("have", "divisor"),
    [((16,) * 4, 32), ((14,) * 4, 28), ((7, 14, 28), 28), ((32,), 32), ((2, 4, 8, 8, 8), 32), ((12, 17), 32)],
)
@pytest.mark.parametrize("cells", [(2, 3), (8, 1)])
def test_levels_fit_each_other_whatever_they_are_made_from(have, divisor, cells):
    encoder = Toy(*have)
    pyramid = with_strides(pyramid_of(encoder), CNN, divisor=32)
    assert pyramid.size_divisor == divisor
    levels = encoder(torch.randn(1, 3, *(divisor * n for n in cells)))
    assert pyramid.image_size(levels) == tuple(32 * n for n in cells)
    assert sizes(pyramid(levels)) == [(32 * cells[0] // s, 32 * cells[1] // s) for s in CNN]


@pytest.mark.parametrize(
    ("strides", "grid"),
    [
        (CNN, CNN),
        ((1, *CNN), (1, *CNN)),
        ((14,) * 4, (16,) * 4),
        ((7, 14, 28), (8, 16, 32)),
        ((12, 12), (16, 16)),
        ((12, 17), (12, 17)),
        ((4, 8, 24), (4, 8, 24)),
    ],
)
def test_strides_are_powers_of_two_but_for_one_common_factor(strides, grid):
    assert on_grid(strides) == grid


def test_a_map_of_stride_14_is_passed_on_as_one_of_16_and_that_is_said():
    encoder = Toy(*(14,) * 4)
    pyramid = with_strides(pyramid_of(encoder), (16,) * 4)
    levels = encoder(torch.randn(1, 3, 28, 42))
    assert all(a is b for a, b in zip(pyramid(levels), levels, strict=True))
    assert pyramid.scale == 16 / 14
    assert pyramid.notes == ("the encoder's stride 14 is taken as 16",)


def test_one_scale_becomes_several_by_the_papers_simple_feature_pyramid():
    """Against section 3 of arXiv:2203.16527 written out, on the last of four equal maps."""
    torch.manual_seed(0)
    encoder = Toy(*(16,) * 4)
    pyramid = with_strides(pyramid_of(encoder), (4, 8, 16, 32), divisor=32)
    levels = encoder(torch.randn(2, 3, 64, 96))
    last = levels[3]

    def norm(x, weight, bias):
        mean, var = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
        return (x - mean) / (var + 1e-6).sqrt() * weight[:, None, None] + bias[:, None, None]

    def after(x, one, one_norm, three, three_norm):
        x = norm(F.conv2d(x, one.weight), one_norm.weight, one_norm.bias)
        return norm(F.conv2d(x, three.weight, padding=1), three_norm.weight, three_norm.bias)

    def doubled(x, up):
        return F.conv_transpose2d(x, up.weight, up.bias, stride=2)

    for made in pyramid.made.values():
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    quarter, eighth, same, half = pyramid.made.values()
    expected = [
        after(
            doubled(F.gelu(norm(doubled(last, quarter[0]), quarter[1].weight, quarter[1].bias)), quarter[3]),
            *quarter[4:],
        ),
        after(doubled(last, eighth[0]), *eighth[1:]),
        after(last, *same),
        after(F.max_pool2d(last, 2), *half[1:]),
    ]
    for level, reference in zip(pyramid(levels), expected, strict=True):
        assert torch.allclose(level, reference, atol=1e-5)
    assert pyramid.channels == (256,) * 4
    assert [up.weight.shape[:2] for up in (quarter[0], quarter[3])] == [(32, 16), (16, 8)]
    assert pyramid.notes == ("a simple feature pyramid makes stride 4, 8, 16, 32 from the encoder's last level",)


def test_a_single_scale_is_refined_for_an_output_stride_and_left_alone_where_it_has_it():
    encoder = Toy(16, 16)
    assert [level.way for level in at_output_stride(encoder, 8).pick((-1, 8)).levels] == ["simple_pyramid"]
    assert [level.way for level in at_output_stride(encoder, 16).pick((-1, 16)).levels] == ["own"]
    assert [level.way for level in at_output_stride(encoder, 16).pick((0, 4), (-1, 16)).levels] == [
        "simple_pyramid"
    ] * 2


def test_coarser_levels_are_means_of_their_cells():
    features = torch.randn(1, 2, 8, 8)
    assert torch.allclose(resampled(features, (2, 2)), F.avg_pool2d(features, 4))


def test_picking_twice_resamples_once():
    encoder = Toy(4, 32)
    pyramid = at_output_stride(encoder, 8).pick((-1, 16))
    levels = encoder(torch.randn(1, 3, 64, 64))
    expected = F.interpolate(levels[1], size=(4, 4), mode="bilinear", align_corners=False)
    assert torch.equal(pyramid(levels)[0], expected)


def test_level_at_stride_takes_the_nearest_and_of_several_the_shallowest():
    assert level_at_stride(pyramid_of(Toy(*CNN)), 4) == 1
    assert level_at_stride(pyramid_of(Toy(16, 16, 16)), 4) == 0
    assert level_at_stride(pyramid_of(Toy(8, 16, 32)), 4) == 0
    assert level_at_stride(pyramid_of(Toy(2, 8)), 4) == 0


def broken(**attributes):
    encoder = Toy(4, 8)
    for name, value in attributes.items():
        setattr(encoder, name, value)
    return encoder


@pytest.mark.parametrize(
    ("encoder", "says"),
    [
        (object(), "encoder object is not a nn.Module"),
        (nn.Identity(), "encoder Identity has no sequence 'channels'"),
        (broken(channels=(8,)), "encoder Toy has 1 channels for 2 strides"),
        (broken(channels=(), strides=()), "encoder Toy has 0 channels for 0 strides"),
        (broken(strides=(8, 4)), "encoder Toy has strides [8, 4], which are not finest first"),
        (broken(channels=(3, 0)), "encoder Toy has channels [3, 0], of which 0 can't be"),
        (broken(strides=(4, 8.0)), "encoder Toy has strides [4, 8.0], of which 8.0 can't be"),
        (broken(strides=8), "encoder Toy has no sequence 'strides'"),
        (broken(image_size=224), "encoder Toy has image_size 224"),
        (broken(image_size=(224, None)), "encoder Toy has image_size (224, None)"),
        (broken(size_divisor=None), "encoder Toy has size_divisor None"),
    ],
)
def test_what_is_no_encoder_is_refused_by_name(encoder, says):
    with pytest.raises(SegregError) as raised:
        check_encoder(encoder)
    assert str(raised.value) == f"{says}\n  {raised.value.problems[0].hint}"
