"""The cards of DOFA, CROMA, Panopticon and Copernicus-FM, the files torchgeo downloads. No torch.

torchgeo attaches no normalisation to any of them. Their recipes are taken from the authors' own
repositories; `@copernicus-bench` is the preprocessing of that benchmark (arXiv 2503.11849), for
which its scores hold. The networks need torchgeo: `pip install 'eofm[torchgeo]'`. Sentinel-1
and Sentinel-2 are two cards of one file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from eofm.contract.recipe import Pooling, Recipe
from eofm.contract.spec import SENSOR_BANDS, STATISTICS, Normalization, Sensor, Unit
from eofm.weights.cards.card import Score, StateLayout, WeightCard

__all__ = ["CARDS"]

_L1C: Final = SENSOR_BANDS[Sensor.S2_L1C]
_L2A: Final = SENSOR_BANDS[Sensor.S2_L2A]
_S1: Final = SENSOR_BANDS[Sensor.S1_GRD]


def _eats(
    sensor: Sensor,
    bands: tuple[str, ...],
    normalization: Normalization,
    size: int = 224,
    pooling: Pooling = Pooling.MEAN,
) -> Recipe:
    return Recipe(
        sensor=sensor,
        bands=bands,
        unit=Unit.DB if sensor is Sensor.S1_GRD else Unit.DN,
        size=(size, size),
        normalization=normalization,
        pooling=pooling,
    )


# ---------------------------------------------------------------------------- Copernicus-Bench

_CONFIGS: Final = "zhu-xlab/Copernicus-FM, Copernicus-Bench/src/configs/dataset"
# per band, mean and std of cobench_eurosat_s2.yaml
_EUROSAT: Final[Mapping[str, tuple[float, float]]] = {
    "B01": (1353.7, 897.3), "B02": (1117.2, 736.0), "B03": (1041.8, 684.8), "B04": (946.5, 620.0),
    "B05": (1199.1, 791.9), "B06": (2003.0, 1341.3), "B07": (2374.0, 1595.4),
    "B08": (2301.2, 1545.5), "B8A": (2599.7, 1750.1), "B09": (732.1, 475.1), "B10": (12.1, 98.3),
    "B11": (1820.6, 1216.5), "B12": (1118.2, 736.7),
}  # fmt: skip
_BENCH_S1: Final = Normalization.zscore(
    (-12.548, -20.192), (5.257, 5.912), f"{_CONFIGS}/cobench_eurosat_s1.yaml"
)


def _bench_s2(bands: tuple[str, ...], size: int = 224) -> Recipe:
    mean, std = zip(*(_EUROSAT[band] for band in bands), strict=True)
    source = f"{_CONFIGS}/cobench_eurosat_s2.yaml"
    return _eats(Sensor.S2_L1C, bands, Normalization.zscore(mean, std, source), size)


def _bench_s1(size: int = 224) -> Recipe:
    return _eats(Sensor.S1_GRD, _S1, _BENCH_S1, size)


_BENCH: Final = (
    "arXiv 2503.11849, Copernicus-Bench/results/README.md: frozen, linear head trained by SGD, "
    "mean of 3 runs"
)
_EUROSAT_BENCH: Final = f"{_BENCH}; recipe @copernicus-bench"
_BATCHES: Final = f"{_BENCH}; mean over batches of 64 of micro average precision, 5 % of v2"
_WRONG: Final = f"{_BATCHES}, with the statistics of EuroSAT"


def _scores_s2(eurosat: float, bigearthnet: float, lcz: float) -> tuple[Score, ...]:
    return (
        Score("copernicus-bench/eurosat-s2", "linear", "overall accuracy", eurosat, _EUROSAT_BENCH),
        Score(
            "copernicus-bench/bigearthnet-s2",
            "linear",
            "ap_micro, mean of batches",
            bigearthnet,
            _WRONG,
        ),
        Score("copernicus-bench/lcz-s2", "linear", "overall accuracy", lcz, _BENCH),
    )


def _scores_s1(eurosat: float, bigearthnet: float) -> tuple[Score, ...]:
    return (
        Score("copernicus-bench/eurosat-s1", "linear", "overall accuracy", eurosat, _BENCH),
        Score(
            "copernicus-bench/bigearthnet-s1",
            "linear",
            "ap_micro, mean of batches",
            bigearthnet,
            _BATCHES,
        ),
    )


# ---------------------------------------------------------------------------------------- DOFA

_DOFA_HOST: Final = "https://hf.co/torchgeo/dofa/resolve/b8db318b64a90b9e085ec04ba8851233c5893666"
# DN of one step of SatlasPretrain's 8-bit images: 255 is DN 3558 in ESA's true-colour image of L1C,
# and the other bands are DN / 32 (allenai/satlas, Normalization.md)
_VISIBLE: Final = 3558 / 255
_OTHER: Final = 32.0
_SATLAS: Final[Mapping[str, tuple[float, float, float]]] = {
    # band: mean and std in 8-bit steps, DN per step
    "B04": (114.1099739, 77.84352553, _VISIBLE),
    "B03": (114.81779093, 69.96844919, _VISIBLE),
    "B02": (126.63977424, 67.42465279, _VISIBLE),
    "B05": (84.33539309, 64.57022983, _OTHER),
    "B06": (97.84789168, 61.72545487, _OTHER),
    "B07": (103.94461911, 61.34187099, _OTHER),
    "B08": (101.435633, 60.29744676, _OTHER),
    "B11": (72.32804172, 47.88519516, _OTHER),
    "B12": (56.66528851, 42.55886798, _OTHER),
}
_DOFA_S2: Final = _eats(
    Sensor.S2_L1C,
    tuple(_SATLAS),
    Normalization.zscore(
        [mean * step for mean, _, step in _SATLAS.values()],
        [std * step for _, std, step in _SATLAS.values()],
        "zhu-xlab/DOFA, normalize_dataset.py: SatlasPretrain in 8 bits, here in digital numbers",
    ),
)
_DOFA_S2_SOURCE: Final = (
    "zhu-xlab/DOFA, normalize_dataset.py and README: nine bands, z-score of SatlasPretrain's 8-bit "
    "images, 224 px; issue 13 for the way from digital numbers to 8 bits (allenai/satlas, "
    "Normalization.md; ESA's true-colour image saturates at DN 3558). Wavelengths: "
    "pretraining/datasets/waves.json. Pooling: mean over patches, then a norm (models_dwv.py)."
)
_DOFA_S2_NOTE: Final = (
    "SatlasPretrain truncates to 8 bits and clips the visible bands at DN 3558, the others at 8160;"
    " here neither is done: a cloud is brighter than what the network has seen. @copernicus-bench "
    "takes all 13 bands, four of them never seen in training. "
)
_DOFA_S1_SOURCE: Final = (
    f"{_CONFIGS}/cobench_eurosat_s1.yaml and dofa_wrapper.py, by the same group: z-score of dB, "
    "224 px. Wavelength of both channels: the placeholder 3.75 of zhu-xlab/DOFA, waves.json; the "
    "5.405 of its README belongs to DOFA v2 (torchgeo issue 3931). Pooling: as for Sentinel-2."
)
_DOFA_S1_NOTE: Final = (
    "DOFA was trained on uncalibrated amplitudes of SatlasPretrain in 8 bits (zhu-xlab/DOFA, "
    "normalize_dataset.py), which cannot be computed from dB or power: this is how it was "
    "evaluated. "
    "Both channels have one wavelength: the network cannot tell VV from VH. "
)
_DOFA_DATA: Final = (
    "SatlasPretrain (Sentinel-1 and -2, NAIP), Five-Billion-Pixels (Gaofen), HySpecNet-11k (EnMAP)"
)
_UNIT_NORM: Final = (
    "The norm behind the pooling is in no published file: it standardises, without weights. "
)


def _dofa(size: str, digits: str, s2: tuple[Score, ...], s1: tuple[Score, ...]) -> list[WeightCard]:
    return [
        WeightCard(
            name=f"dofa_{size}_{modality}",
            architecture=f"dofa-{size}",
            url=f"{_DOFA_HOST}/dofa_{size}_patch16_224-{digits}.pth",
            layout=StateLayout.DOFA,
            recipe=recipe,
            recipe_source=source,
            objective="masked autoencoder with weights generated from wavelengths, distilled from "
            "an ImageNet network (DOFA, arXiv 2403.15356)",
            training_data=_DOFA_DATA,
            licence="CC-BY-4.0",
            paper="2403.15356",
            sha256=digits,
            alternatives=alternatives,
            scores=scores,
            note=note + _UNIT_NORM,
        )
        for modality, recipe, source, alternatives, scores, note in (
            (
                "s2",
                _DOFA_S2,
                _DOFA_S2_SOURCE,
                {"copernicus-bench": _bench_s2(_L1C)},
                s2,
                _DOFA_S2_NOTE,
            ),
            ("s1", _bench_s1(), _DOFA_S1_SOURCE, {}, s1, _DOFA_S1_NOTE),
        )
    ]


# --------------------------------------------------------------------------------------- CROMA

_CROMA_BASE: Final = (
    "https://hf.co/torchgeo/croma/resolve/387883f08af79d777167519c57cd826eda89a16f/"
    "CROMA_base-0238d814.pt"
)
_CROMA_LARGE: Final = (
    "https://huggingface.co/torchgeo/croma/resolve/92cb1a0f4e34c6c01558baf070197c01255382f6/"
    "CROMA_large-921e69ad.pt"
)
_CROMA_SOURCE: Final = (
    "README of antofuller/CROMA: 120 px, 12 bands without the cirrus band, or VV and VH; per band "
    "mean - 2 std .. mean + 2 std to 0..255, clipped, cast to uint8, then 0..1. There the "
    "statistics are those of the images given; here those of SSL4EO-S12, on which it was trained. "
)
_CROMA_NOTE: Final = (
    "That the 12 bands are those of L2A is inferred from their number. The vector is the mean over "
    "the patches; which vector the paper's probes take could not be verified: Copernicus-Bench "
    "puts its head on this mean, behind the first norm of the contrastive head, which is left out "
    "here. The unit of Sentinel-1, dB, is that of SSL4EO-S12. @copernicus-bench is a z-score, which"
    " is not what the README prescribes. "
)


def _croma(size: str, url: str, s2: tuple[Score, ...], s1: tuple[Score, ...]) -> list[WeightCard]:
    rows = (
        ("s2", STATISTICS["ssl4eo-s12-l2a"], StateLayout.CROMA_S2, _bench_s2(_L2A, 120), s2),
        ("s1", STATISTICS["ssl4eo-s12-grd"], StateLayout.CROMA_S1, _bench_s1(120), s1),
    )
    return [
        WeightCard(
            name=f"croma_{size}_{modality}",
            architecture=f"croma-{size}-{modality}",
            url=url,
            layout=layout,
            recipe=_eats(
                had.sensor,
                had.bands,
                Normalization.two_sigma(had.mean, had.std, had.source),
                size=120,
            ),
            recipe_source=_CROMA_SOURCE,
            objective="contrast of radar and optical, and masked autoencoder of both (CROMA, "
            "arXiv 2311.00566)",
            training_data="SSL4EO-S12: Sentinel-1 GRD and Sentinel-2",
            licence="MIT",
            paper="2311.00566",
            sha256=url.removesuffix(".pt").rsplit("-", 1)[1],
            alternatives={"copernicus-bench": bench},
            scores=scores,
            note=_CROMA_NOTE,
        )
        for modality, had, layout, bench, scores in rows
    ]


# ---------------------------------------------------------------------------------- Panopticon

_FMOW: Final = Normalization.zscore(
    (1569.1970, 1383.9951, 1338.4231, 1408.1113, 1537.2856, 1926.5183, 2136.5127, 2033.4019,
     2262.4558, 674.1297, 16.7465, 2027.3674, 1501.4686),
    (517.7932, 595.0351, 690.2477, 994.7734, 994.4599, 1079.4558, 1192.3668, 1170.9979,
     1278.2103, 474.7933, 15.1294, 1362.3807, 1134.5983),
    "fMoW-Sentinel: Panopticon-FM/panopticon, dinov2/data/datasets/fmow.py",
)  # fmt: skip
_EUROSAT_SAR: Final = Normalization.zscore(
    (-11.6568, -18.4975),
    (6.0908, 6.1924),
    "EuroSAT-SAR, train split: Panopticon-FM/panopticon, dinov2/data/datasets/eurosat_sar.py",
)
_PANOPTICON_SOURCE: Final = (
    "README of Panopticon-FM/panopticon: 224 px, z-score, the CLS token; its loaders take the "
    "statistics of the data set at hand. "
)


def _panopticon(modality: str, recipe: Recipe, statistics: str, note: str) -> WeightCard:
    return WeightCard(
        name=f"panopticon_vitb14_{modality}",
        architecture="panopticon-base",
        url="https://hf.co/lewaldm/panopticon/resolve/c8c2bb9555819e8b2bcedf5b3b00e3bf531554e7/"
        "panopticon_vitb14_teacher.pth",
        layout=StateLayout.PANOPTICON,
        recipe=recipe,
        recipe_source=_PANOPTICON_SOURCE + statistics,
        objective="DINOv2 over sensors, with attention over channels (Panopticon, arXiv "
        "2503.10845), continued from DINOv2",
        training_data="fMoW and fMoW-Sentinel, MMEarth, SatlasPretrain, SpectralEarth",
        licence="CC-BY-4.0",
        paper="2503.10845",
        note=note
        + "Positions are interpolated as the authors do; torchgeo antialiases. No hash is in the "
        "file name: the first download is recorded. ",
    )


_PANOPTICON: Final = (
    _panopticon(
        "s2",
        _eats(Sensor.S2_L1C, _L1C, _FMOW, pooling=Pooling.CLS),
        "Here those of fMoW-Sentinel, one of its training sets (fmow.py).",
        "",
    ),
    _panopticon(
        "s1",
        _eats(Sensor.S1_GRD, _S1, _EUROSAT_SAR, pooling=Pooling.CLS),
        "Here those of EuroSAT-SAR, in dB (eurosat_sar.py).",
        "Channel ids are those for either orbit. The statistics of its own Sentinel-1 training "
        "data are not in its repository in dB. ",
    ),
)

# ------------------------------------------------------------------------------- Copernicus-FM

_COPERNICUS_SOURCE: Final = (
    "zhu-xlab/Copernicus-FM, main_pretrain.py: 224 px, z-score with the statistics of SSL4EO-S12; "
    "engine_pretrain.py: wavelengths and bandwidths, patches of 16 px. Pooling: mean over patches, "
    "then a norm (model_vit.py)."
)
_COPERNICUS_NOTE: Final = (
    "Place, date and patch area are given as unknown, for which the network has learned tokens; the"
    " scores were measured with place and area known. torchgeo 0.8.1 builds its norms with epsilon "
    "1e-5, the authors and eofm with 1e-6. VV and VH have one wavelength and bandwidth: the "
    "network cannot tell them apart. " + _UNIT_NORM
)


def _copernicus(
    modality: str, statistics: str, bench: Recipe, scores: tuple[Score, ...]
) -> WeightCard:
    had = STATISTICS[statistics]
    return WeightCard(
        name=f"copernicus_fm_base_{modality}",
        architecture="copernicus-fm-base",
        url="https://huggingface.co/torchgeo/copernicus-fm/resolve/"
        "f395812cc990ba25a451dbb9c9e6d95c8482947e/CopernicusFM_ViT_base_varlang-085350e4.pth",
        layout=StateLayout.COPERNICUS_FM,
        recipe=_eats(had.sensor, had.bands, Normalization.zscore(had.mean, had.std, had.source)),
        recipe_source=_COPERNICUS_SOURCE,
        objective="masked autoencoder of all Sentinels, distilled from DINOv2 (Copernicus-FM, "
        "arXiv 2503.11849)",
        training_data="Copernicus-Pretrain: 18.7 million images of Sentinel-1 to -5P and elevation",
        licence="CC-BY-4.0",
        paper="2503.11849",
        sha256="085350e4",
        alternatives={"copernicus-bench": bench},
        scores=scores,
        note=_COPERNICUS_NOTE,
    )


CARDS: Final = (
    *_dofa("base", "a0275954", _scores_s2(97.2, 75.5, 83.0), _scores_s1(81.7, 70.5)),
    *_dofa("large", "0ff904d3", (), ()),
    *_croma("base", _CROMA_BASE, _scores_s2(97.0, 76.4, 84.1), _scores_s1(83.9, 70.8)),
    *_croma("large", _CROMA_LARGE, (), ()),
    *_PANOPTICON,
    _copernicus("s2", "ssl4eo-s12-l1c", _bench_s2(_L1C), _scores_s2(97.9, 79.0, 84.4)),
    _copernicus("s1", "ssl4eo-s12-grd", _bench_s1(), _scores_s1(87.2, 77.9)),
)
