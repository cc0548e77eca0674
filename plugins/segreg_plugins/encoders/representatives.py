"""Which members of a family stand for all of it where every one would be too many, known without importing torch."""

from __future__ import annotations

import re
from collections.abc import Iterable

from segreg_plugins.encoders import smp_family, timm_family, torchvision_family

# fmt: off
SMALLEST_OF_TIMM = (
    "beit_base_patch16_224", "cait_xxs24_224", "coat_tiny", "convit_tiny", "convmixer_768_32", "convnext_zepto_rms",
    "cpubone_nano", "crossvit_tiny_240", "cs3darknet_focus_s", "csatv2", "cspnext_tiny", "davit_tiny",
    "deepseek_vit_412m", "deit_tiny_patch16_224", "densenet121", "dla46x_c", "dpn48b", "edgenext_xx_small",
    "efficientformer_l1", "efficientformerv2_s0", "efficientvim_m1", "efficientvit_b0", "efficientvit_m0",
    "ese_vovnet19b_slim_dw", "fasternet_t0", "fastvit_t8", "focalnet_tiny_srf", "gcvit_xxtiny", "gemma4_vit_167m",
    "ghostnet_050", "gmlp_ti16_224", "halonet_h1", "hardcorenas_b", "hgnetv2_b0", "hiera_tiny_224", "hrnet_w18_small",
    "iformer_t", "inception_next_atto", "inception_resnet_v2", "inception_v3", "inception_v4", "lcnet_035",
    "lcnetv2_small", "legacy_seresnet18", "legacy_xception", "levit_128s", "lowformer_b0", "mambaout_femto",
    "maxvit_pico_rw_256", "mobilenetv2_035", "mobilenetv5_base", "mobileone_s1", "mobilevit_xxs", "mvitv2_tiny",
    "naflexvit_base_patch16_parfac_gap", "nasnetalarge", "nest_tiny", "nextvit_small", "nf_regnet_b0", "pit_ti_224",
    "pnasnet5large", "poolformerv2_s12", "pvt_v2_b0", "qwen3_vit_88m", "rdnet_tiny", "regnetx_002", "repghostnet_050",
    "repvit_m1", "res2next50", "resnest14d", "resnet10t", "resnetv2_18", "rexnet_100", "sam2_hiera_tiny",
    "samvit_base_patch16_224", "selecsls42", "sequencer2d_s", "shvit_s1", "skresnet18", "starnet_s050",
    "swiftformer_xs", "swin_tiny_patch4_window7_224", "swinv2_cr_tiny_224", "swinv2_tiny_window16_256",
    "tiny_vit_5m_224", "tnt_s_legacy_patch16_224", "tresnet_m", "twins_svt_small", "vgg11", "visformer_tiny",
    "vit_srelpos_small_patch16_224", "vit_tiny_patch16_224", "vit_tiny_patch16_dinov3_qkvb", "vit_tiny_r_s16_p8_224",
    "vitamin_small_224", "volo_d1_224", "xception41p", "xcit_nano_12_p8_224",
)
# fmt: on
"""Of each of timm's source files the model with the fewest parameters that gives features.

timm's `test_*` models are left out: nobody trains them. `python tests/plugins/test_encoders_representatives.py` prints
the table anew.
"""
SMALLEST_OF_TORCHVISION = (
    "convnext_tiny", "densenet121", "efficientnet_b0", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small",
    "regnet_y_400mf", "resnet18", "shufflenet_v2_x0_5", "swin_t", "vgg11",
)  # fmt: skip
"""Of each of torchvision's source files the network with the fewest parameters."""


def of_timm() -> Iterable[str]:
    """Return one model of each of timm's source files.

    A file that is younger than the table is represented by the first of its models in the order of their names.
    """
    catalogue = timm_family.catalogue()
    known = [name for name in SMALLEST_OF_TIMM if name in catalogue]
    covered = {catalogue[name] for name in known}
    first: dict[object, str] = {}
    for name in sorted(catalogue):
        first.setdefault(catalogue[name], name)
    return sorted([*known, *(name for file, name in first.items() if file not in covered)])


def of_smp() -> Iterable[str]:
    """Return the first of the encoders whose names begin with the same letters, by the numbers behind them."""
    first: dict[str, str] = {}
    for name in sorted(smp_family.members(), key=_by_number):
        first.setdefault(re.split(r"\d", name)[0], name)
    return sorted(first.values())


def of_torchvision() -> Iterable[str]:
    """Return the smallest network of each of torchvision's source files."""
    members = set(torchvision_family.members())
    return [name for name in SMALLEST_OF_TORCHVISION if name in members]


def _by_number(name: str) -> list[tuple[str, int]]:
    return [(letters, int(number or 0)) for letters, number in re.findall(r"(\D+)(\d*)", name)]
