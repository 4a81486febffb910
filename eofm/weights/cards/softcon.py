"""The cards of SoftCon's published weights (arXiv 2405.20462, zhu-xlab/softcon). No torch.

Six files of the authors, and the four ViT files that torchgeo downloads: the same networks under
timm's names. Hashes are those of the large files in the commits 62ff465 and ed1ab3a of
`wangyi111/softcon` on Hugging Face; none is known for the `_enc` files.
"""

from __future__ import annotations

from typing import Final

from eofm.contract.recipe import Pooling, Recipe
from eofm.contract.spec import STATISTICS, Normalization, Statistics
from eofm.weights.cards.card import Score, StateLayout, WeightCard

__all__ = ["CARDS"]

_HOST: Final = "https://huggingface.co/wangyi111/softcon/resolve"
_PLAIN: Final = f"{_HOST}/62ff465b2e7467dbfc70758ec1e9d08ab87fc46b"
_ENC: Final = f"{_HOST}/bae909781911f8ec034b4b959992fae17b973c0c"

_OBJECTIVE: Final = "soft contrastive learning guided by multi-labels (SoftCon, arXiv 2405.20462)"
_STARTED_FROM: Final = {
    "resnet50": "continued from DINO (arXiv 2104.14294)",
    "vits14": "continued from DINOv2 (arXiv 2304.07193)",
    "vitb14": "continued from DINOv2 (arXiv 2304.07193)",
}
_S2: Final = STATISTICS["ssl4eo-s12-l1c"]
_S1: Final = STATISTICS["ssl4eo-s12-grd"]
_RECIPE_SOURCE: Final = (
    "README of zhu-xlab/softcon: mean - 2 std .. mean + 2 std of SSL4EO-S12 to 0..255, clipped, "
    "cast to uint8; that the networks take this divided by 255 is the first author's word in "
    "The-AI-Alliance/GEO-Bench-2 issue 45. Size and CLS token: the same README. Which statistics "
    "of SSL4EO-S12 is not said: the later, full-set ones are taken. Resizing is not said either."
)
_NOTE: Final = (
    "Licence as listed by torchgeo for these weights; the authors' code is Apache-2.0. "
    "@torchgeo-zscore is what torchgeo 0.8 attaches to the same weights, a z-score without "
    "clipping, but for its Resize(256) and CenterCrop(224): here the whole image is resized to 224."
)
_EARTH_INDEX: Final = (
    " The embeddings of Earth Index are CLS tokens of these weights, of chips of 320 m of yearly "
    "Level-2A mosaics; how these were fed to a network of 13 bands of Level-1C (B10, which "
    "Level-2A lacks, the offset of baseline 04.00, the resize from 32 pixels) is documented "
    "nowhere. eofm refuses Level-2A here. Forced (`eofm embed --chips 32 --force sensor "
    "missing-band`), the offset is taken away by the stated unit, B10 is 0 after normalisation "
    "(two standard deviations below its mean in Level-1C), 32 pixels are resized to 224 "
    "bilinearly, and the exceptions are written beside the vectors: they are like those of Earth "
    "Index, not known to be the same."
)
_ENC_NOTE: Final = (
    "The file torchgeo fetches. No hash of it is published: the first download is recorded. "
)

_PLAIN_HEAD: Final = "linear head on the last layer"
_FOUR_LAYERS: Final = "linear head on 4 layers (DINOv2, appendix B.3): starred there"


def _recipe(statistics: Statistics, architecture: str, *, zscore: bool = False) -> Recipe:
    rule = Normalization.zscore if zscore else Normalization.two_sigma
    return Recipe(
        sensor=statistics.sensor,
        bands=statistics.bands,
        unit=statistics.unit,
        size=(224, 224),
        normalization=rule(statistics.mean, statistics.std, statistics.source),
        pooling=Pooling.MEAN if architecture == "resnet50" else Pooling.CLS,
    )


def _scores(modality: str, bigearthnet: float, eurosat: float, head: str) -> tuple[Score, ...]:
    source = f"README of zhu-xlab/softcon, as in arXiv 2405.20462; {head}"
    probe = "linear" if head == _PLAIN_HEAD else "linear, 4 layers"
    on = "" if modality == "s2" else "-sar"
    return (
        Score(
            f"bigearthnet-10%{on}",
            probe,
            "not named; micro average precision is assumed",
            bigearthnet,
            f"{source}; 19 classes, split as the lab's other work has it",
        ),
        Score(f"eurosat{on}", probe, "overall accuracy", eurosat, source),
    )


def _card(
    name: str,
    architecture: str,
    url: str,
    statistics: Statistics,
    scores: tuple[Score, ...],
    sha256: str = "",
) -> WeightCard:
    enc = name.endswith("_enc")
    vit_layout = StateLayout.TIMM_DINOV2 if enc else StateLayout.DINOV2
    s2 = statistics is _S2
    return WeightCard(
        name=name,
        architecture=architecture,
        url=url,
        layout=StateLayout.RESNET if architecture == "resnet50" else vit_layout,
        recipe=_recipe(statistics, architecture),
        recipe_source=_RECIPE_SOURCE,
        objective=f"{_OBJECTIVE}, {_STARTED_FROM[architecture]}",
        training_data=(
            "SSL4EO-S12 with SSL4EO-S12-ML: 780,371 labelled Sentinel-2 L1C images of 247,377 "
            "places, labels from Dynamic World"
            if s2
            else "SSL4EO-S12: Sentinel-1 GRD, labels from Dynamic World; which images got which "
            "is not said"
        ),
        licence="CC-BY-4.0",
        paper="2405.20462",
        sha256=sha256,
        alternatives={"torchgeo-zscore": _recipe(statistics, architecture, zscore=True)},
        scores=scores,
        note=(_ENC_NOTE if enc else "")
        + _NOTE
        + (_EARTH_INDEX if s2 and architecture == "vits14" else ""),
    )


_RN50_S2: Final = _scores("s2", 84.8, 98.6, _PLAIN_HEAD)
_VITS14_S2: Final = _scores("s2", 85.0, 97.1, _PLAIN_HEAD)
_VITB14_S2: Final = _scores("s2", 86.8, 98.0, _FOUR_LAYERS)
_RN50_S1: Final = _scores("s1", 78.9, 87.1, _PLAIN_HEAD)
_VITS14_S1: Final = _scores("s1", 80.3, 87.1, _PLAIN_HEAD)
_VITB14_S1: Final = _scores("s1", 82.5, 89.1, _FOUR_LAYERS)

CARDS: Final = (
    _card(
        "softcon_rn50_s2",
        "resnet50",
        f"{_PLAIN}/B13_rn50_softcon.pth",
        _S2,
        _RN50_S2,
        "5f64839824b539fe9c3d93dc651ffd6bfa2a80fb2a88aca1dad56a37946622e6",
    ),
    _card(
        "softcon_vits14_s2",
        "vits14",
        f"{_PLAIN}/B13_vits14_softcon.pth",
        _S2,
        _VITS14_S2,
        "05f9da0e999aff9aaf8bfd043ce4b8c58b3fca8a45bf8d67c1e79a3b8f8feb2e",
    ),
    _card(
        "softcon_vitb14_s2",
        "vitb14",
        f"{_PLAIN}/B13_vitb14_softcon.pth",
        _S2,
        _VITB14_S2,
        "1b9a18e22bdb02281d19e2b08ecf3d903ad6772028b5500699287886b534bded",
    ),
    _card(
        "softcon_rn50_s1",
        "resnet50",
        f"{_PLAIN}/B2_rn50_softcon.pth",
        _S1,
        _RN50_S1,
        "b61c106107a1f8edb58dc62d3050d119cf6aef6a8a432705b8e0e74a67334521",
    ),
    _card(
        "softcon_vits14_s1",
        "vits14",
        f"{_PLAIN}/B2_vits14_softcon.pth",
        _S1,
        _VITS14_S1,
        "bdac4d543e0271e12dce0c975575102201b8e6a016ec72ffccb92c4819c72298",
    ),
    _card(
        "softcon_vitb14_s1",
        "vitb14",
        f"{_PLAIN}/B2_vitb14_softcon.pth",
        _S1,
        _VITB14_S1,
        "1e5eaf15f0b49a0c669caf98d0fad53f8decf2acc3e909a03b08a0c5c8c8e698",
    ),
    _card("softcon_vits14_s2_enc", "vits14", f"{_ENC}/B13_vits14_softcon_enc.pth", _S2, _VITS14_S2),
    _card("softcon_vitb14_s2_enc", "vitb14", f"{_ENC}/B13_vitb14_softcon_enc.pth", _S2, _VITB14_S2),
    _card("softcon_vits14_s1_enc", "vits14", f"{_ENC}/B2_vits14_softcon_enc.pth", _S1, _VITS14_S1),
    _card("softcon_vitb14_s1_enc", "vitb14", f"{_ENC}/B2_vitb14_softcon_enc.pth", _S1, _VITB14_S1),
)
