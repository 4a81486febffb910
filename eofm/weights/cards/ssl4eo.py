"""The cards of MoCo, DINO, MAE, FG-MAE and DeCUR on SSL4EO-S12, as torchgeo fetches them. No torch.

Their recipes are taken from the authors' own loaders and scripts (zhu-xlab/SSL4EO-S12 at 2156913,
zhu-xlab/FGMAE at 1144e55, zhu-xlab/DeCUR at f190e9a); `@torchgeo` is what torchgeo 0.8.1 attaches
to the same file. The hashes are the digits in the file names; the `_enc` files carry none.
"""

from __future__ import annotations

from typing import Final

from eofm.contract.recipe import Kernel, Pooling, Recipe, ResizeOrder, ResizeRule
from eofm.contract.spec import STATISTICS, Normalization, Sensor, Unit
from eofm.weights.cards.card import Score, StateLayout, WeightCard

__all__ = ["CARDS"]

_TORCHGEO: Final = "https://hf.co/torchgeo"
_MAE: Final = (
    "https://huggingface.co/wangyi111/SSL4EO-S12/resolve/75c72195d35201dc1fb210818993518c25da566b"
)
_FGMAE: Final = (
    "https://huggingface.co/wangyi111/FGMAE/resolve/24dd3077d7a99ecd454eaec7adb83d045d7fa122"
)

_S2: Final = STATISTICS["ssl4eo-s12-l1c"]
_S2_50K: Final = STATISTICS["ssl4eo-s12-l1c-50k"]
_S1: Final = STATISTICS["ssl4eo-s12-grd"]
_RGB: Final = ("B04", "B03", "B02")

# ------------------------------------------------------------------------------ what they expect

_DIVIDED: Final = "zhu-xlab/SSL4EO-S12: reflectance is digital number / 10000"
# S1_MEAN and S1_STD of ssl4eo_dataset.py, in dB
_SIGMA_S1: Final = Normalization.two_sigma(
    (-12.54847273, -20.19237134),
    (5.25697717, 5.91150917),
    "SSL4EO-S12 GRD, 50k subset: zhu-xlab/SSL4EO-S12",
)
_SIGMA_S2: Final = Normalization.two_sigma(_S2_50K.mean, _S2_50K.std, _S2_50K.source)
# cv2's bilinear resize has no antialiasing, and the loaders resize after normalisation
_RESIZE: Final = ResizeRule(Kernel.BILINEAR, False, ResizeOrder.AFTER_NORMALIZATION)
_NOT_CROPPED: Final = (
    "Their evaluation resizes to 256 and cuts out the central 224; here the whole image is resized "
    "to 224. "
)


def _divided(bands: tuple[str, ...]) -> Normalization:
    """Reflectance in 8 bits: `uint8(255 x / 10000) / 255`."""
    zeros, tens = (0.0,) * len(bands), (10000.0,) * len(bands)
    return Normalization(zeros, tens, _DIVIDED, clip=(0.0, 1.0), levels=255)


def _eats(sensor: Sensor, normalization: Normalization, pooling: Pooling) -> Recipe:
    s1 = sensor is Sensor.S1_GRD
    bands = _S1.bands if s1 else _S2.bands if len(normalization.shift) == 13 else _RGB
    return Recipe(
        sensor=sensor,
        bands=bands,
        unit=Unit.DB if s1 else Unit.DN,
        size=(224, 224),
        normalization=normalization,
        resize=_RESIZE,
        pooling=pooling,
    )


def _torchgeo_eats(recipe: Recipe) -> Recipe:
    """Return torchgeo's transform, without its Resize(256) and CenterCrop(224)."""
    s1 = recipe.sensor is Sensor.S1_GRD
    return Recipe(
        sensor=recipe.sensor,
        bands=recipe.bands,
        unit=recipe.unit,
        size=recipe.size,
        normalization=(
            Normalization.zscore(_S1.mean, _S1.std, _S1.source)
            if s1
            else Normalization.divide(10000, len(recipe.bands), _DIVIDED)
        ),
        pooling=recipe.pooling,
    )


_DIVIDED_SOURCE: Final = (
    "README of zhu-xlab/SSL4EO-S12: input clipped to [0, 1] by dividing by 10000; ssl4eo_dataset.py"
    " and --dtype uint8 in every training script: truncated to 8 bits; issues 2 and 28: the same, "
    "in the first author's words. Size: --in_size 224. Order of bands: ssl4eo_dataset.py. "
)
_CAST_NOTE: Final = (
    "The authors' cast to 8 bits does not clip: above DN 10000 their pixels wrapped around to dark "
    "ones; here they are clipped, as their README says. "
)
_SIGMA_S1_SOURCE: Final = (
    "zhu-xlab/SSL4EO-S12, ssl4eo_dataset.py: dB, mean - 2 std .. mean + 2 std of 50k scenes to "
    "0..255, clipped, cast to uint8; issue 17: the network takes that scaled to 0..1. "
)
_QUANTILES_NOTE: Final = (
    "Before scaling, the authors' loader clips each location to its 1st and 99th percentile: left "
    "out here, as it depends on what else is in the image. "
)

# ---------------------------------------------------------------------------------- the cards

_DATA: Final = "SSL4EO-S12: 251,079 places, four seasons each, "
_MOCO_V2: Final = "momentum contrast (MoCo-v2, arXiv 2003.04297)"
_MOCO_V3: Final = "momentum contrast (MoCo-v3, arXiv 2104.02057)"
_DINO: Final = "self-distillation (DINO, arXiv 2104.14294)"
_FINE_TUNED: Final = "README of zhu-xlab/SSL4EO-S12"
_VAL: Final = (
    f"{_FINE_TUNED}; BigEarthNet v1, 19 classes, on the val list of SeCo, mean over batches of "
    "micro average precision: not comparable with a test score"
)


def _fine_tuned(bigearthnet: float, eurosat: float, so2sat: float) -> tuple[Score, ...]:
    metric = "overall accuracy"
    return (
        Score("bigearthnet-100%-val", "fine-tune", "ap_micro, mean of batches", bigearthnet, _VAL),
        Score("eurosat", "fine-tune", metric, eurosat, f"{_FINE_TUNED}; stratified 80/20"),
        Score("so2sat-culture-10", "fine-tune", metric, so2sat, _FINE_TUNED),
    )


def _card(
    name: str,
    architecture: str,
    url: str,
    recipe: Recipe,
    recipe_source: str,
    objective: str,
    *,
    paper: str = "2211.07044",
    scores: tuple[Score, ...] = (),
    note: str = "",
) -> WeightCard:
    resnet = architecture.startswith("resnet")
    encoder_only = url.endswith("_enc.pth")
    s1 = recipe.sensor is Sensor.S1_GRD
    plain_vit = StateLayout.MAE_ENCODER if encoder_only else StateLayout.MOCO_V3_VIT
    return WeightCard(
        name=name,
        architecture=architecture,
        url=url,
        layout=StateLayout.RESNET if resnet else plain_vit,
        recipe=recipe,
        recipe_source=recipe_source,
        objective=objective,
        training_data=_DATA + ("Sentinel-1 GRD" if s1 else "Sentinel-2 L1C"),
        licence="CC-BY-4.0",
        paper=paper,
        sha256="" if encoder_only else url.removesuffix(".pth").rsplit("-", 1)[1],
        alternatives={"torchgeo": _torchgeo_eats(recipe)},
        scores=scores,
        note=note + _NOT_CROPPED + ("" if encoder_only else "torchgeo's copy of the file. "),
    )


_L1C: Final = Sensor.S2_L1C
_GRD: Final = Sensor.S1_GRD
_S2_MEAN: Final = _eats(_L1C, _divided(_S2.bands), Pooling.MEAN)
_S2_CLS: Final = _eats(_L1C, _divided(_S2.bands), Pooling.CLS)
_RGB_MEAN: Final = _eats(_L1C, _divided(_RGB), Pooling.MEAN)
_S1_MEAN: Final = _eats(_GRD, _SIGMA_S1, Pooling.MEAN)
_S1_CLS: Final = _eats(_GRD, _SIGMA_S1, Pooling.CLS)

_POOLED: Final = "Pooling: the network's own average (linear_BE_moco.py, linear_BE_dino.py)."
_RGB_NOTE: Final = (
    "Which 8-bit RGB images the authors trained on is not in their repository: their published RGB "
    "set is scaled to mean ± 2 std, their answers (issue 2) speak of / 10000 for all models. "
)

_CONTRASTIVE: Final = (
    _card(
        "ssl4eo_moco_rn18_s2",
        "resnet18",
        f"{_TORCHGEO}/resnet18_sentinel2_all_moco/resolve/5b8cddc9a14f3844350b7f40b85bcd32aed75918/"
        "resnet18_sentinel2_all_moco-59bfdff9.pth",
        _S2_MEAN,
        _DIVIDED_SOURCE + _POOLED,
        _MOCO_V2,
        note=_CAST_NOTE,
    ),
    _card(
        "ssl4eo_moco_rn50_s2",
        "resnet50",
        f"{_TORCHGEO}/resnet50_sentinel2_all_moco/resolve/da4f3c9dbe09272eb902f3b37f46635fa4726879/"
        "resnet50_sentinel2_all_moco-df8b932e.pth",
        _S2_MEAN,
        _DIVIDED_SOURCE + _POOLED,
        _MOCO_V2,
        scores=_fine_tuned(91.8, 99.1, 60.9),
        note=_CAST_NOTE,
    ),
    _card(
        "ssl4eo_moco_rn18_rgb",
        "resnet18",
        f"{_TORCHGEO}/resnet18_sentinel2_rgb_moco/resolve/e1c032e7785fd0625224cdb6699aa138bb304eec/"
        "resnet18_sentinel2_rgb_moco-e3a335e3.pth",
        _RGB_MEAN,
        _DIVIDED_SOURCE + _POOLED,
        _MOCO_V2,
        note=_RGB_NOTE + _CAST_NOTE,
    ),
    _card(
        "ssl4eo_moco_rn50_rgb",
        "resnet50",
        f"{_TORCHGEO}/resnet50_sentinel2_rgb_moco/resolve/efd9723b59a88e9dc1420dc1e96afb25b0630a3c/"
        "resnet50_sentinel2_rgb_moco-2b57ba8b.pth",
        _RGB_MEAN,
        _DIVIDED_SOURCE + _POOLED,
        _MOCO_V2,
        note=_RGB_NOTE + _CAST_NOTE,
    ),
    _card(
        "ssl4eo_moco_rn50_s1",
        "resnet50",
        f"{_TORCHGEO}/resnet50_sentinel1_all_moco/resolve/e79862c667853c10a709bdd77ea8ffbad0e0f1cf/"
        "resnet50_sentinel1_all_moco-906e4356.pth",
        _S1_MEAN,
        _SIGMA_S1_SOURCE + _POOLED,
        _MOCO_V2,
    ),
    _card(
        "ssl4eo_moco_vits16_s2",
        "timm:vit_small_patch16_224",
        f"{_TORCHGEO}/vit_small_patch16_224_sentinel2_all_moco/resolve/"
        "1cb683f6c14739634cdfaaceb076529adf898c74/"
        "vit_small_patch16_224_sentinel2_all_moco-67c9032d.pth",
        _S2_CLS,
        _DIVIDED_SOURCE + "Pooling: the CLS token (linear_BE_moco_v3.py).",
        _MOCO_V3,
        scores=_fine_tuned(89.9, 98.6, 61.6),
        note=_CAST_NOTE,
    ),
    _card(
        "ssl4eo_dino_rn50_s2",
        "resnet50",
        f"{_TORCHGEO}/resnet50_sentinel2_all_dino/resolve/d7f14bf5530d70ac69d763e58e77e44dbecfec7c/"
        "resnet50_sentinel2_all_dino-d6c330e9.pth",
        _S2_MEAN,
        _DIVIDED_SOURCE + _POOLED,
        _DINO,
        scores=_fine_tuned(90.7, 99.1, 63.6),
        note=_CAST_NOTE,
    ),
    _card(
        "ssl4eo_dino_vits16_s2",
        "timm:vit_small_patch16_224",
        f"{_TORCHGEO}/vit_small_patch16_224_sentinel2_all_dino/resolve/"
        "5b41dd418a79de47ac9f5be3e035405a83818a62/"
        "vit_small_patch16_224_sentinel2_all_dino-36bcc127.pth",
        _S2_CLS,
        _DIVIDED_SOURCE + "Pooling: the CLS token; their linear probe takes the CLS tokens of the "
        "last four blocks (linear_BE_dino.py), here the last one's.",
        _DINO,
        scores=_fine_tuned(90.5, 99.0, 62.2),
        note=_CAST_NOTE,
    ),
)

# ---------------------------------------------------------------------------- MAE and FG-MAE

_VITS: Final = {
    "vits16": "timm:vit_small_patch16_224",
    "vitb16": "timm:vit_base_patch16_224",
    "vitl16": "timm:vit_large_patch16_224",
    "vith14": "timm:vit_huge_patch14_224",
}
_CLS_SOURCE: Final = (
    "Pooling: the CLS token, the default of linear_BE_mae.py and linear_EU_mae.py, which put a "
    "batch norm behind it."
)
_FGMAE_S1_SOURCE: Final = (
    "zhu-xlab/FGMAE, ssl4eo_dataset_lmdb.py: dB, mean - 2 std .. mean + 2 std of 50k scenes to "
    "0..255, clipped, cast to uint8, then 0..1. "
)


def _masked(
    objective: str, url: str, model: str, epochs: int, scores: tuple[Score, ...] = ()
) -> tuple[WeightCard, WeightCard]:
    """Return the Sentinel-2 and the Sentinel-1 card of a masked autoencoder."""
    fg = objective == "fgmae"
    what = (
        "masked autoencoder of gradients and spectral indices (FG-MAE, arXiv 2310.18653)"
        if fg
        else "masked autoencoder (MAE, arXiv 2111.06377)"
    )
    s1_note = _QUANTILES_NOTE + (
        ""
        if fg
        else "The loader of these files is not in zhu-xlab/SSL4EO-S12; that of FG-MAE, by the same "
        "authors, is taken. "
    )
    paper = "2310.18653" if fg else "2211.07044"
    s2_source = _DIVIDED_SOURCE + (
        "zhu-xlab/FGMAE, pretrain_fgmae.py, linear_EU_mae.py: the same. " if fg else ""
    )
    return (
        _card(
            f"ssl4eo_{objective}_{model}_s2",
            _VITS[model],
            f"{url}/B13_{model}_{objective}_ep{epochs}_enc.pth",
            _S2_CLS,
            s2_source + _CLS_SOURCE,
            what,
            paper=paper,
            scores=scores,
            note=_CAST_NOTE,
        ),
        _card(
            f"ssl4eo_{objective}_{model}_s1",
            _VITS[model],
            f"{url}/B2_{model}_{objective}_ep{epochs}_enc.pth",
            _S1_CLS,
            _FGMAE_S1_SOURCE + _CLS_SOURCE,
            what,
            paper=paper,
            note=s1_note,
        ),
    )


_AUTOENCODERS: Final = (
    *_masked("mae", _MAE, "vits16", 99, _fine_tuned(88.9, 98.7, 63.9)),
    *_masked("mae", _MAE, "vitb16", 99),
    *_masked("mae", _MAE, "vitl16", 99),
    *_masked("mae", _MAE, "vith14", 199),
    *_masked("fgmae", _FGMAE, "vits16", 99),
    *_masked("fgmae", _FGMAE, "vitb16", 99),
    *_masked("fgmae", _FGMAE, "vitl16", 99),
    *_masked("fgmae", _FGMAE, "vith14", 399),
)

# -------------------------------------------------------------------------------------- DeCUR

_DECUR: Final = (
    "decoupling of common and unique representations of radar and optical (DeCUR, arXiv "
    "2309.05300), started from ImageNet"
)
_DECUR_SOURCE: Final = (
    "zhu-xlab/DeCUR, src/pretrain/datasets/SSL4EO/readme.md and ssl4eo_dataset.py: both sensors to "
    "mean - 2 std .. mean + 2 std of 50k scenes, clipped, cast to uint8; then 0..1 "
    "(pretrain_mm.py). Pooling: the network's own average (linear_BE_resnet.py)."
)
_DECUR_S2_NOTE: Final = (
    "Not certain: the file comes from an earlier run (convert_backbone.py) whose branch, decur-old,"
    " reads 8-bit Sentinel-2 of unstated scaling, by default / 10000 as in SSL4EO-S12; the first "
    "author did not settle it in torchgeo pull request 2191. Compare with @torchgeo. "
)

CARDS: Final = (
    *_CONTRASTIVE,
    *_AUTOENCODERS,
    _card(
        "ssl4eo_decur_rn50_s2",
        "resnet50",
        "https://huggingface.co/torchgeo/decur/resolve/eba7ae5945d482a4319be046d34b552db5dd9950/"
        "rn50_ssl4eo-s12_ms_decur_ep100-fc6b09ff.pth",
        _eats(_L1C, _SIGMA_S2, Pooling.MEAN),
        _DECUR_SOURCE,
        _DECUR,
        paper="2309.05300",
        note=_DECUR_S2_NOTE,
    ),
    _card(
        "ssl4eo_decur_rn50_s1",
        "resnet50",
        "https://huggingface.co/torchgeo/decur/resolve/9328eeb90c686a88b30f8526ed757b4bc0f12027/"
        "rn50_ssl4eo-s12_sar_decur_ep100-f0e69ba2.pth",
        _S1_MEAN,
        _DECUR_SOURCE,
        _DECUR,
        paper="2309.05300",
        note=_QUANTILES_NOTE,
    ),
)
