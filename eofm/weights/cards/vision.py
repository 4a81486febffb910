"""The cards of vision models for RGB photographs, as starts and for comparison. No torch.

They expect red, green and blue with ImageNet's statistics. For other bands they are a start:
`eofm pretrain` adapts the input layer. Meta publishes no hashes of DINO and DINOv2: the first
download is recorded and later ones are compared with it.
"""

from __future__ import annotations

from typing import Final

from eofm.contract.recipe import Kernel, Pooling, Recipe, ResizeRule
from eofm.contract.spec import STATISTICS, Normalization, Sensor, Unit
from eofm.weights.cards.card import Score, StateLayout, WeightCard

__all__ = ["CARDS"]

_META: Final = "https://dl.fbaipublicfiles.com"
_IMAGENET: Final = STATISTICS["imagenet"]
_ZSCORE: Final = Normalization.zscore(_IMAGENET.mean, _IMAGENET.std, _IMAGENET.source)


def _rgb(
    size: int,
    kernel: Kernel,
    pooling: Pooling,
    normalization: Normalization = _ZSCORE,
) -> Recipe:
    return Recipe(
        sensor=Sensor.RGB,
        bands=("R", "G", "B"),
        unit=Unit.UINT8,
        size=(size, size),
        normalization=normalization,
        resize=ResizeRule(kernel),
        pooling=pooling,
    )


def _imagenet(probe: str, value: float, source: str) -> Score:
    return Score("imagenet-1k", probe, "top-1 accuracy", value, source)


# ------------------------------------------------------------------------------- DINOv2


def _dinov2(model: str, registers: bool, parameters: str, knn: float, linear: float) -> WeightCard:
    file = f"dinov2_{model}{'_reg4' if registers else ''}_pretrain.pth"
    readme = "README of facebookresearch/dinov2"
    giant = model == "vitg14"
    return WeightCard(
        name=f"dinov2_{model}{'_reg' if registers else ''}",
        architecture=f"{model}{'_reg4' if registers else ''}",
        url=f"{_META}/dinov2/dinov2_{model}/{file}",
        layout=StateLayout.DINOV2,
        recipe=_rgb(224, Kernel.BICUBIC, Pooling.CLS),
        recipe_source=(
            "facebookresearch/dinov2, dinov2/data/transforms.py: bicubic, 224, ImageNet mean and "
            "std. Its Resize(256) and CenterCrop(224) crop; here the whole image is resized."
        ),
        objective="self-distillation (DINOv2, arXiv 2304.07193)"
        + ("" if giant else ", distilled from ViT-g/14")
        + (", with registers (arXiv 2309.16588)" if registers else ""),
        training_data="LVD-142M: 142 million photographs from the web",
        licence="Apache-2.0",
        paper="2309.16588" if registers else "2304.07193",
        alternatives={"native-518": _rgb(518, Kernel.BICUBIC, Pooling.CLS)},
        scores=(_imagenet("knn", knn, readme), _imagenet("linear", linear, readme)),
        note=(
            f"{parameters} parameters. The position table is that of 518 px. At 224 px, the size "
            "Meta evaluates at, it is interpolated by Meta's own rule, and an image costs a fifth; "
            "@native-518 takes the table as it is, as timm does."
        ),
    )


# ------------------------------------------------------------------------------- DINOv3

_SAT: Final = Normalization.zscore(
    tuple(255 * mean for mean in (0.430, 0.411, 0.296)),
    tuple(255 * std for std in (0.213, 0.156, 0.143)),
    "README of facebookresearch/dinov3, transform for SAT-493M, times 255",
)


def _dinov3(size: str, letter: str, data: str) -> WeightCard:
    satellite = data == "sat493m"
    return WeightCard(
        name=f"dinov3_vit{letter}16{'_sat' if satellite else ''}",
        architecture=f"timm:vit_{size}_patch16_dinov3",
        url=(
            f"https://huggingface.co/timm/vit_{size}_patch16_dinov3.{data}/resolve/main/"
            "model.safetensors"
        ),
        layout=StateLayout.TIMM,
        recipe=_rgb(256, Kernel.BILINEAR, Pooling.CLS, _SAT if satellite else _ZSCORE),
        recipe_source=(
            "README of facebookresearch/dinov3: whole image to 256 px, bilinear with antialiasing, "
            + ("mean and std of SAT-493M" if satellite else "ImageNet mean and std")
        ),
        objective="self-distillation (DINOv3, arXiv 2508.10104), distilled from ViT-7B/16",
        training_data=(
            "SAT-493M: 493 million satellite images in red, green and blue, 0.6 m"
            if satellite
            else "LVD-1689M: 1,689 million photographs from the web"
        ),
        licence="DINOv3 License",
        paper="2508.10104",
        note=(
            "Read the DINOv3 License before you use or pass on the weights. The file is timm's "
            "conversion (biases of q, k and v, all zero, left out); its address names no revision, "
            "so the first download is recorded and later ones are compared with it."
        ),
    )


# ------------------------------------------------------------------------------- ResNet-50


def _resnet50(version: int, digits: str, top1: float) -> WeightCard:
    return WeightCard(
        name=f"resnet50_imagenet_v{version}",
        architecture="resnet50",
        url=f"https://download.pytorch.org/models/resnet50-{digits}.pth",
        layout=StateLayout.RESNET,
        recipe=_rgb(224, Kernel.BILINEAR, Pooling.MEAN),
        recipe_source=(
            f"torchvision, ResNet50_Weights.IMAGENET1K_V{version}: bilinear, 224, ImageNet mean "
            "and std. Its resize and centre crop crop; here the whole image is resized."
        ),
        objective="supervised classification (arXiv 1512.03385)"
        + (", torchvision's longer recipe" if version == 2 else ""),
        training_data="ImageNet-1k: 1.28 million photographs with labels",
        licence="BSD-3-Clause",
        paper="1512.03385",
        sha256=digits,
        scores=(_imagenet("supervised", top1, "torchvision, meta of the weights"),),
        note="Licence of torchvision's code; none is stated for the weights. The classifier (fc) "
        "is left out.",
    )


_DINO_README: Final = "README of facebookresearch/dino"

CARDS: Final = (
    _dinov2("vits14", False, "21 M", 79.0, 81.1),
    _dinov2("vitb14", False, "86 M", 82.1, 84.5),
    _dinov2("vitl14", False, "300 M", 83.5, 86.3),
    _dinov2("vitg14", False, "1,100 M", 83.5, 86.5),
    _dinov2("vits14", True, "21 M", 79.1, 80.9),
    _dinov2("vitb14", True, "86 M", 82.0, 84.6),
    _dinov2("vitl14", True, "300 M", 83.8, 86.7),
    _dinov2("vitg14", True, "1,100 M", 83.7, 87.1),
    WeightCard(
        name="dino_rn50",
        architecture="resnet50",
        url=f"{_META}/dino/dino_resnet50_pretrain/dino_resnet50_pretrain.pth",
        layout=StateLayout.RESNET,
        recipe=_rgb(224, Kernel.BICUBIC, Pooling.MEAN),
        recipe_source=(
            "facebookresearch/dino, eval_knn.py: bicubic, 224, ImageNet mean and std. Its "
            "Resize(256) and CenterCrop(224) crop; here the whole image is resized."
        ),
        objective="self-distillation (DINO, arXiv 2104.14294)",
        training_data="ImageNet-1k: 1.28 million photographs, without labels",
        licence="Apache-2.0",
        paper="2104.14294",
        scores=(_imagenet("knn", 67.5, _DINO_README), _imagenet("linear", 75.3, _DINO_README)),
    ),
    _resnet50(1, "0676ba61", 76.13),
    _resnet50(2, "11ad3fa6", 80.858),
    _dinov3("small", "s", "lvd1689m"),
    _dinov3("base", "b", "lvd1689m"),
    _dinov3("large", "l", "lvd1689m"),
    _dinov3("large", "l", "sat493m"),
)
