"""segreg.pyramid: which levels are taken, when they are resampled, and when nothing is."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segreg.errors import SegregError
from segreg.pyramid import at_output_stride, check_encoder, level_at_stride, pyramid_of, resampled, with_strides


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
        ((16,) * 4, (4, 8, 16, 32), [0, 1, 2, 3]),
        ((14,) * 12, (4, 8, 16, 32), [0, 4, 7, 11]),
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


@pytest.mark.parametrize("have", [(16,) * 4, (14,) * 4, (7, 14, 28), (32,), (2, 4, 8, 8, 8)])
@pytest.mark.parametrize("size", [(64, 96), (256, 32)])
def test_levels_fit_each_other_whatever_they_are_made_from(have, size):
    encoder = Toy(*have)
    pyramid = with_strides(pyramid_of(encoder), CNN, divisor=32)
    levels = encoder(torch.randn(1, 3, *size))
    assert pyramid.image_size(levels) == size
    assert sizes(pyramid(levels)) == [(size[0] // s, size[1] // s) for s in CNN]


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
        (object(), "encoder object is no nn.Module"),
        (nn.Identity(), "encoder Identity has no sequence 'channels'"),
        (broken(channels=(8,)), "encoder Toy has 1 channels for 2 strides"),
        (broken(channels=(), strides=()), "encoder Toy has 0 channels for 0 strides"),
        (broken(strides=(8, 4)), "encoder Toy has strides [8, 4], which are not finest first"),
        (broken(channels=(3, 0)), "encoder Toy has channels [3, 0], of which 0 can't be"),
        (broken(strides=(4, 8.0)), "encoder Toy has strides [4, 8.0], of which 8.0 can't be"),
        (broken(strides=8), "encoder Toy has no sequence 'strides'"),
    ],
)
def test_what_is_no_encoder_is_refused_by_name(encoder, says):
    with pytest.raises(SegregError) as raised:
        check_encoder(encoder)
    assert str(raised.value) == f"{says}\n  {raised.value.problems[0].hint}"
