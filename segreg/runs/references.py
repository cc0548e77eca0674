"""References of what runs used: the papers that their parts name, and the libraries with their versions."""
# ruff: noqa: E501 - titles are as long as they are

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from segreg.config.recipe import read_recipe
from segreg.config.resolve import resolve
from segreg.registry.compatibility import DISTRIBUTION
from segreg.runs.directory import RunDirectory
from segreg.runs.plugin_files import check_recipe
from segreg.runs.records import read_environment
from segreg.runtime.output import printable

_PAPERS = {
    "arXiv:1405.0312": "Lin, Tsung-Yi and others|Microsoft COCO: Common Objects in Context|ECCV|2014",
    "arXiv:1411.4038": "Long, Jonathan and Shelhamer, Evan and Darrell, Trevor|Fully Convolutional Networks for Semantic "
    "Segmentation|CVPR|2015",
    "arXiv:1412.6980": "Kingma, Diederik P. and Ba, Jimmy|Adam: A Method for Stochastic Optimization|ICLR|2015",
    "arXiv:1505.04597": "Ronneberger, Olaf and Fischer, Philipp and Brox, Thomas|U-Net: Convolutional Networks for "
    "Biomedical Image Segmentation|MICCAI|2015",
    "arXiv:1512.03385": "He, Kaiming and Zhang, Xiangyu and Ren, Shaoqing and Sun, Jian|Deep Residual Learning for Image "
    "Recognition|CVPR|2016",
    "arXiv:1604.01685": "Cordts, Marius and others|The Cityscapes Dataset for Semantic Urban Scene Understanding|CVPR|2016",
    "arXiv:1606.00915": "Chen, Liang-Chieh and Papandreou, George and Kokkinos, Iasonas and Murphy, Kevin and Yuille, "
    "Alan L.|DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution, and Fully Connected "
    "CRFs|IEEE Transactions on Pattern Analysis and Machine Intelligence|2018",
    "arXiv:1606.04797": "Milletari, Fausto and Navab, Nassir and Ahmadi, Seyed-Ahmad|V-Net: Fully Convolutional Neural "
    "Networks for Volumetric Medical Image Segmentation|3DV|2016",
    "arXiv:1608.03983": "Loshchilov, Ilya and Hutter, Frank|SGDR: Stochastic Gradient Descent with Warm Restarts|ICLR|2017",
    "arXiv:1612.01105": "Zhao, Hengshuang and Shi, Jianping and Qi, Xiaojuan and Wang, Xiaogang and Jia, Jiaya|Pyramid "
    "Scene Parsing Network|CVPR|2017",
    "arXiv:1612.03144": "Lin, Tsung-Yi and Dollár, Piotr and Girshick, Ross and He, Kaiming and Hariharan, Bharath and "
    "Belongie, Serge|Feature Pyramid Networks for Object Detection|CVPR|2017",
    "arXiv:1705.08790": "Berman, Maxim and Rannen Triki, Amal and Blaschko, Matthew B.|The Lovász-Softmax Loss: A Tractable "
    "Surrogate for the Optimization of the Intersection-Over-Union Measure in Neural Networks|CVPR|2018",
    "arXiv:1706.04599": "Guo, Chuan and Pleiss, Geoff and Sun, Yu and Weinberger, Kilian Q.|On Calibration of Modern Neural "
    "Networks|ICML|2017",
    "arXiv:1706.05587": "Chen, Liang-Chieh and Papandreou, George and Schroff, Florian and Adam, Hartwig|Rethinking Atrous "
    "Convolution for Semantic Image Segmentation||2017",
    "arXiv:1706.05721": "Salehi, Seyed Sadegh Mohseni and Erdogmus, Deniz and Gholipour, Ali|Tversky Loss Function for Image "
    "Segmentation Using 3D Fully Convolutional Deep Networks|MLMI|2017",
    "arXiv:1707.03718": "Chaurasia, Abhishek and Culurciello, Eugenio|LinkNet: Exploiting Encoder Representations for "
    "Efficient Semantic Segmentation|VCIP|2017",
    "arXiv:1708.02002": "Lin, Tsung-Yi and Goyal, Priya and Girshick, Ross and He, Kaiming and Dollár, Piotr|Focal Loss for "
    "Dense Object Detection|ICCV|2017",
    "arXiv:1708.07120": "Smith, Leslie N. and Topin, Nicholay|Super-Convergence: Very Fast Training of Neural Networks Using "
    "Large Learning Rates||2017",
    "arXiv:1711.05101": "Loshchilov, Ilya and Hutter, Frank|Decoupled Weight Decay Regularization|ICLR|2019",
    "arXiv:1802.02611": "Chen, Liang-Chieh and Zhu, Yukun and Papandreou, George and Schroff, Florian and Adam, Hartwig|"
    "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation|ECCV|2018",
    "arXiv:1805.10180": "Li, Hanchao and Xiong, Pengfei and An, Jie and Wang, Lingxue|Pyramid Attention Network for Semantic "
    "Segmentation||2018",
    "arXiv:1807.10165": "Zhou, Zongwei and others|UNet++: A Nested U-Net Architecture for Medical Image Segmentation||2018",
    "arXiv:1807.10221": "Xiao, Tete and Liu, Yingcheng and Zhou, Bolei and Jiang, Yuning and Sun, Jian|Unified Perceptual "
    "Parsing for Scene Understanding|ECCV|2018",
    "arXiv:1809.06839": "Buslaev, Alexander and others|Albumentations: Fast and Flexible Image Augmentations|Information|2020",
    "arXiv:1809.10486": "Isensee, Fabian and others|nnU-Net: Self-adapting Framework for U-Net-Based Medical Image "
    "Segmentation||2018",
    "arXiv:1902.03368": "Codella, Noel and others|Skin Lesion Analysis Toward Melanoma Detection 2018: A Challenge Hosted by "
    "the International Skin Imaging Collaboration (ISIC)||2019",
    "arXiv:1905.02244": "Howard, Andrew and others|Searching for MobileNetV3|ICCV|2019",
    "arXiv:2103.13413": "Ranftl, René and Bochkovskiy, Alexey and Koltun, Vladlen|Vision Transformers for Dense Prediction|"
    "ICCV|2021",
    "arXiv:2103.16562": "Cheng, Bowen and Girshick, Ross and Dollár, Piotr and Berg, Alexander C. and Kirillov, Alexander|"
    "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation|CVPR|2021",
    "arXiv:2105.15203": "Xie, Enze and Wang, Wenhai and Yu, Zhiding and Anandkumar, Anima and Alvarez, Jose M. and Luo, "
    "Ping|SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers|NeurIPS|2021",
    "doi:10.1007/978-3-319-50835-1_22": "Rahman, Md Atiqur and Wang, Yang|Optimizing Intersection-Over-Union in Deep Neural "
    "Networks for Image Segmentation|ISVC|2016",
    "doi:10.1007/s11263-014-0733-5": "Everingham, Mark and others|The Pascal Visual Object Classes Challenge: A "
    "Retrospective|International Journal of Computer Vision|2015",
    "doi:10.1016/j.patrec.2008.04.005": "Brostow, Gabriel J. and Fauqueur, Julien and Cipolla, Roberto|Semantic Object "
    "Classes in Video: A High-Definition Ground Truth Database|Pattern Recognition Letters|2009",
    "doi:10.1038/s41592-019-0612-7": "Caicedo, Juan C. and others|Nucleus Segmentation Across Imaging Experiments: The 2018 "
    "Data Science Bowl|Nature Methods|2019",
}  # fmt: skip
"""What is known of the papers that segreg's own parts name: authors, title, where it appeared and in which year."""

_JOURNALS = (
    "IEEE Transactions on Pattern Analysis and Machine Intelligence", "Information",
    "International Journal of Computer Vision", "Pattern Recognition Letters", "Nature Methods",
)  # fmt: skip

_LIBRARIES = {
    DISTRIBUTION: "|segreg||",
    "segmentation-models-pytorch": "Iakubovskii, Pavel|Segmentation Models PyTorch||2019",
    "timm": "Wightman, Ross|PyTorch Image Models||2019",
    "torch": "Paszke, Adam and others|PyTorch: An Imperative Style, High-Performance Deep Learning Library|NeurIPS|2019",
}
_URLS = {
    "segmentation-models-pytorch": "https://github.com/qubvel-org/segmentation_models.pytorch",
    "timm": "https://github.com/huggingface/pytorch-image-models",
    "torch": "https://pytorch.org",
}


@dataclass
class Reference:
    """A paper or a library.

    Attributes:
        source: what names it: "arXiv:1802.02611", "doi:...", a URL, or a library.
        used_for: what it is the source of, such as "decoder deeplabv3plus".
        authors: as BibTeX has them; empty where they are not known here, as the rest.
        title: of the paper; where it is not known, what it is used for.
        venue: conference or journal.
        year: of its appearance.
        note: a library's version.
    """

    source: str
    used_for: list[str] = field(default_factory=list)
    authors: str = ""
    title: str = ""
    venue: str = ""
    year: str = ""
    note: str = ""

    @property
    def url(self) -> str:
        """Return where it can be read; empty where that is not known."""
        kind, _, rest = self.source.partition(":")
        bases = {"arXiv": "https://arxiv.org/abs/", "doi": "https://doi.org/"}
        if kind in bases and rest:
            return bases[kind] + rest
        return self.source if kind in ("http", "https") else _URLS.get(self.source, "")

    def bibtex(self) -> str:
        """Return it as a BibTeX entry; a `@misc` where it did not appear anywhere or that is not known."""
        venue = "journal" if self.venue in _JOURNALS else "booktitle"
        kind = {"journal": "article", "booktitle": "inproceedings"}[venue] if self.venue else "misc"
        values = {"author": self.authors, "title": f"{{{_bibtex(self.title)}}}", venue: self.venue, "year": self.year}
        of_source, _, number = self.source.partition(":")
        if of_source == "arXiv":
            values |= {"eprint": number, "archiveprefix": "arXiv"}
        elif of_source == "doi":
            values["doi"] = number
        values |= {"url": self.url, "note": _bibtex(self.note)}
        lines = [f"  {name} = {{{value}}}," for name, value in values.items() if value]
        # BibTeX takes an @ for the beginning of an entry, in comments too.
        used = [f"% {printable(', '.join(self.used_for)).replace('@', ' of ')}"] if self.used_for else []
        return "\n".join([*used, f"@{kind}{{{self.key},", *lines, "}"])

    @property
    def key(self) -> str:
        """Return what a paper cites it by."""
        family = re.sub(r"[^a-z]", "", self.authors.partition(",")[0].lower())
        word = re.sub(r"\W", "", self.title.split()[0].lower()) if self.authors and self.title else ""
        return f"{family}{self.year}{word}" if family else re.sub(r"\W+", "_", self.source)

    def text(self) -> str:
        """Return it as a sentence."""
        people = [" ".join(reversed(one.split(", "))) for one in self.authors.split(" and ") if one]
        if people[-1:] == ["others"]:
            people[-1] = "et al."
        parts = [
            ", ".join(people).replace(", et al.", " et al."),
            self.title,
            self.venue,
            self.year,
            self.note,
            self.url,
        ]
        sentence = ". ".join(part.rstrip(".") for part in parts if part)
        used = f" ({', '.join(self.used_for)})" if self.used_for and self.authors else ""
        return printable(f"{sentence}{used}")


def references_of(runs: Sequence[RunDirectory]) -> tuple[list[Reference], list[str]]:
    """Return the references of all parts and libraries that runs used, each once, and the parts that name no source.

    Raises:
        SegregError: a run's recipe or environment can't be read, or a plugin that it names is gone.
    """
    found: dict[str, Reference] = {}
    without: dict[str, None] = {}
    versions: dict[str, dict[str, None]] = {}
    for run in runs:
        for choice in check_recipe(run, read_recipe(run.resolved), resolve).choices():
            name, source = f"{choice.part.kind} {choice.part.name}", choice.part.offer.paper
            if not source:
                without[name] = None
                continue
            one = found.setdefault(source, _known(source, _PAPERS))
            if name not in one.used_for:
                one.used_for.append(name)
        environment: Mapping[str, Any] = read_environment(run.environment)
        for library in _LIBRARIES:
            if version := environment.get("packages", {}).get(library):
                versions.setdefault(library, {})[str(version)] = None
    for one in found.values():
        one.title = one.title or ", ".join(one.used_for)
    libraries = [_known(name, _LIBRARIES) for name in versions]
    for one in libraries:
        one.note = f"version {', '.join(versions[one.source])}"
    return [*found.values(), *libraries], list(without)


def _known(source: str, table: Mapping[str, str]) -> Reference:
    authors, title, venue, year = table.get(source, "|||").split("|")
    return Reference(source, authors=authors, title=title, venue=venue, year=year)


def _bibtex(text: str) -> str:
    return re.sub(r"([&%$#_{}])", r"\\\1", printable(text).replace("\\", "/"))
