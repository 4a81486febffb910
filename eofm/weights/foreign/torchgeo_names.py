"""torchgeo's names of published weights: which card describes the same file. No torch.

`torchgeo:ResNet50_Weights.SENTINEL2_ALL_MOCO` are the bytes torchgeo distributes under that name,
fed as their authors fed them; the transform that torchgeo attaches is the alternative
`@torchgeo` or `@torchgeo-zscore` of the card. What is not in the table has no recipe from its
authors here, and is refused rather than guessed.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Final

from eofm.errors import WeightsError

PREFIX: Final = "torchgeo:"

NAMES: Final[Mapping[str, str]] = {
    "ResNet18_Weights.SENTINEL2_ALL_MOCO": "ssl4eo_moco_rn18_s2",
    "ResNet18_Weights.SENTINEL2_RGB_MOCO": "ssl4eo_moco_rn18_rgb",
    "ResNet50_Weights.SENTINEL1_ALL_DECUR": "ssl4eo_decur_rn50_s1",
    "ResNet50_Weights.SENTINEL1_ALL_MOCO": "ssl4eo_moco_rn50_s1",
    "ResNet50_Weights.SENTINEL1_GRD_SOFTCON": "softcon_rn50_s1",
    "ResNet50_Weights.SENTINEL2_ALL_DECUR": "ssl4eo_decur_rn50_s2",
    "ResNet50_Weights.SENTINEL2_ALL_DINO": "ssl4eo_dino_rn50_s2",
    "ResNet50_Weights.SENTINEL2_ALL_MOCO": "ssl4eo_moco_rn50_s2",
    "ResNet50_Weights.SENTINEL2_ALL_SOFTCON": "softcon_rn50_s2",
    "ResNet50_Weights.SENTINEL2_RGB_MOCO": "ssl4eo_moco_rn50_rgb",
    "ViTBase14_DINOv2_Weights.SENTINEL1_GRD_SOFTCON": "softcon_vitb14_s1_enc",
    "ViTBase14_DINOv2_Weights.SENTINEL2_ALL_SOFTCON": "softcon_vitb14_s2_enc",
    "ViTBase16_Weights.SENTINEL1_GRD_FGMAE": "ssl4eo_fgmae_vitb16_s1",
    "ViTBase16_Weights.SENTINEL1_GRD_MAE": "ssl4eo_mae_vitb16_s1",
    "ViTBase16_Weights.SENTINEL2_ALL_FGMAE": "ssl4eo_fgmae_vitb16_s2",
    "ViTBase16_Weights.SENTINEL2_ALL_MAE": "ssl4eo_mae_vitb16_s2",
    "ViTHuge14_Weights.SENTINEL1_GRD_FGMAE": "ssl4eo_fgmae_vith14_s1",
    "ViTHuge14_Weights.SENTINEL1_GRD_MAE": "ssl4eo_mae_vith14_s1",
    "ViTHuge14_Weights.SENTINEL2_ALL_FGMAE": "ssl4eo_fgmae_vith14_s2",
    "ViTHuge14_Weights.SENTINEL2_ALL_MAE": "ssl4eo_mae_vith14_s2",
    "ViTLarge16_Weights.SENTINEL1_GRD_FGMAE": "ssl4eo_fgmae_vitl16_s1",
    "ViTLarge16_Weights.SENTINEL1_GRD_MAE": "ssl4eo_mae_vitl16_s1",
    "ViTLarge16_Weights.SENTINEL2_ALL_FGMAE": "ssl4eo_fgmae_vitl16_s2",
    "ViTLarge16_Weights.SENTINEL2_ALL_MAE": "ssl4eo_mae_vitl16_s2",
    "ViTSmall14_DINOv2_Weights.SENTINEL1_GRD_SOFTCON": "softcon_vits14_s1_enc",
    "ViTSmall14_DINOv2_Weights.SENTINEL2_ALL_SOFTCON": "softcon_vits14_s2_enc",
    "ViTSmall16_Weights.SENTINEL1_GRD_FGMAE": "ssl4eo_fgmae_vits16_s1",
    "ViTSmall16_Weights.SENTINEL1_GRD_MAE": "ssl4eo_mae_vits16_s1",
    "ViTSmall16_Weights.SENTINEL2_ALL_DINO": "ssl4eo_dino_vits16_s2",
    "ViTSmall16_Weights.SENTINEL2_ALL_FGMAE": "ssl4eo_fgmae_vits16_s2",
    "ViTSmall16_Weights.SENTINEL2_ALL_MAE": "ssl4eo_mae_vits16_s2",
    "ViTSmall16_Weights.SENTINEL2_ALL_MOCO": "ssl4eo_moco_vits16_s2",
}


def card_name(reference: str) -> str:
    """Return the name of the card, with its alternative: `torchgeo:X.Y@torchgeo` -> `...@torchgeo`.

    Raises:
        WeightsError: If no card describes those weights.
    """
    member, at, alternative = reference.removeprefix(PREFIX).partition("@")
    if member not in NAMES:
        near = difflib.get_close_matches(member, list(NAMES), n=3)
        raise WeightsError(
            "no card describes these weights of torchgeo, so what they expect is not known",
            found=member,
            expected="one of " + ", ".join(near or sorted(NAMES)[:5]) + ", ...",
            remedy="hand them over with a recipe, as module:function",
        )
    return NAMES[member] + at + alternative
