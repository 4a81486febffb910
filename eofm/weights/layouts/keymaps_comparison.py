"""Key maps of the weights that SoftCon is compared with: state dicts in, ours out, pure and strict.

No file of theirs was at hand. The names are derived from the code that builds and loads the
networks, named at each map; whether a file holds one of the tensors that are left out is
therefore not known, and both are accepted.

Shapes: P patches, D width, as in the files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from torch import Tensor

from eofm.weights.cards.card import StateLayout
from eofm.weights.layouts.mapped import KeyMap, Mapped, check_names

_REMEDY: Final = "take the encoder's file that the card's address names"


def _affine(*modules: str) -> tuple[str, ...]:
    return tuple(f"{module}.{kind}" for module in modules for kind in ("weight", "bias"))


_BLOCK: Final = _affine("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")


def _depth(names: Iterable[str], blocks: str) -> int:
    """Return the number of blocks: one more than the highest index behind `blocks`."""
    found = [re.match(rf"{re.escape(blocks)}\.(\d+)\.", name) for name in names]
    return max((int(match[1]) for match in found if match), default=-1) + 1


def _names(
    state: Mapping[str, Tensor], outer: Iterable[str], block: Iterable[str], blocks: str = "blocks"
) -> set[str]:
    """Return the names of a transformer with as many blocks as the state has."""
    depth = max(_depth(state, blocks), 1)
    return set(outer) | {f"{blocks}.{i}.{name}" for i in range(depth) for name in block}


def _take(
    state: Mapping[str, Tensor], left_out: re.Pattern[str], expected: set[str], what: str
) -> Mapped:
    """Return the expected tensors; raise over any other that is not to be left out."""
    dropped = tuple(key for key in state if left_out.fullmatch(key))
    kept = {key: value for key, value in state.items() if key not in dropped}
    check_names(kept, expected, what, _REMEDY)
    return Mapped(kept, dropped)


# -------------------------------------------------------------------- SSL4EO-S12: MoCo, DINO, MAE

_VIT_OUTER: Final = ("cls_token", "pos_embed", *_affine("patch_embed.proj", "norm"))
_CLASSIFIER: Final = re.compile(r"head\.(weight|bias)")


def vit_encoder(state: Mapping[str, Tensor]) -> Mapped:
    """Return a plain ViT under the names of `TimmTrunk`: timm's, behind `model.`.

    For MoCo-v3 and DINO (zhu-xlab/SSL4EO-S12, models/moco_v3/vits.py, models/dino) and for the
    encoders of MAE and FG-MAE (models/mae/models_mae.py there and in zhu-xlab/FGMAE), whose fixed
    sine-cosine positions are part of the file. torchgeo tolerates a classifier in these files.

    Raises:
        WeightsError: If a tensor is unknown or missing: a decoder, say, or LayerScale.
    """
    mapped = _take(state, _CLASSIFIER, _names(state, _VIT_OUTER, _BLOCK), "a plain ViT")
    renamed = {f"model.{key}": value for key, value in mapped.state.items()}
    return Mapped(renamed, mapped.dropped)


# ---------------------------------------------------------------------- DOFA and Copernicus-FM

_HYPERNETWORK: Final = (
    "weight_generator.weight_tokens",
    "weight_generator.bias_token",
    *(
        f"weight_generator.transformer_encoder.layers.0.{name}"
        for name in (
            "self_attn.in_proj_weight",
            "self_attn.in_proj_bias",
            *_affine("self_attn.out_proj", "linear1", "linear2", "norm1", "norm2"),
        )
    ),
    *_affine("weight_generator.fc_weight", "weight_generator.fc_bias"),
    *_affine("fclayer.w1", "fclayer.w2"),
)
_DOFA_OUTER: Final = (
    "cls_token",
    "pos_embed",
    *(f"patch_embed.{name}" for name in _HYPERNETWORK),
)
# The authors' demo lists what their file holds beyond the encoder: mask token, the norm of masked
# pretraining and a projector. torchgeo's copy has them removed and accepts a head and its norm.
_DOFA_REST: Final = re.compile(r"mask_token|(norm|projector|fc_norm|head)\.(weight|bias)")


def dofa(state: Mapping[str, Tensor]) -> Mapped:
    """Return DOFA under the names of `DOFATrunk`: torchgeo's copy, or the authors' `e100` file.

    From torchgeo/models/dofa.py and the README of zhu-xlab/DOFA.

    Raises:
        WeightsError: If a tensor is unknown or missing.
    """
    return _take(state, _DOFA_REST, _names(state, _DOFA_OUTER, _BLOCK), "DOFA")


_COPERNICUS_OUTER: Final = (
    "cls_token",
    "pos_embed",
    *(f"patch_embed_spectral.{name}" for name in _HYPERNETWORK),
    *(f"{side}_token" for side in ("coord", "scale", "time")),
    *_affine("coord_fc", "scale_fc", "time_fc"),
)
_COPERNICUS_REST: Final = re.compile(
    r"patch_embed_variable\..+|mask_token|(norm|fc_norm|head)\.(weight|bias)"
)


def copernicus_fm(state: Mapping[str, Tensor]) -> Mapped:
    """Return Copernicus-FM under the names of `CopernicusFMTrunk`.

    Its second hypernetwork is for variables without a spectrum (elevation, gases) and is left out.
    From torchgeo/models/copernicusfm.py.

    Raises:
        WeightsError: If a tensor is unknown or missing.
    """
    names = _names(state, _COPERNICUS_OUTER, _BLOCK)
    return _take(state, _COPERNICUS_REST, names, "Copernicus-FM")


# ---------------------------------------------------------------------------------- Panopticon

_PANOPTICON_OUTER: Final = (
    "cls_token",
    "pos_embed",
    *_affine("patch_embed.conv3d.conv3d"),
    "patch_embed.chnfus.query",
    *(f"patch_embed.chnfus.chnemb.embed_{part}" for part in ("transmit", "receive", "orbit")),
    "patch_embed.chnfus.xattn.inproj_k.weight",
    "patch_embed.chnfus.xattn.inproj_v.weight",
    *_affine("patch_embed.proj", "norm"),
)
_MASK_TOKEN: Final = re.compile("mask_token")


def panopticon(state: Mapping[str, Tensor]) -> Mapped:
    """Return the teacher of Panopticon under the names of `PanopticonTrunk`.

    From Panopticon-FM/panopticon, dinov2/models, and torchgeo, which loads the file strictly.

    Raises:
        WeightsError: If a tensor is unknown or missing.
    """
    block = (*_BLOCK, "ls1.gamma", "ls2.gamma")
    return _take(state, _MASK_TOKEN, _names(state, _PANOPTICON_OUTER, block), "Panopticon")


# --------------------------------------------------------------------------------------- CROMA

_CROMA_PARTS: Final = ("s1_encoder", "s1_GAP_FFN", "s2_encoder", "s2_GAP_FFN", "joint_encoder")
_CROMA_BLOCK: Final = (
    "0.to_qkv.weight",
    *_affine("0.to_out", "0.input_norm", "1.net.0", "1.net.3", "1.input_norm"),
)


def _croma(state: Mapping[str, Tensor], part: str) -> Mapped:
    others = "|".join(other for other in _CROMA_PARTS if other != part)
    outer = _affine(f"{part}.linear_input", f"{part}.transformer.norm_out")
    names = _names(state, outer, _CROMA_BLOCK, blocks=f"{part}.transformer.layers")
    mapped = _take(state, re.compile(rf"({others})\..+"), names, f"CROMA's {part}")
    renamed = {key.removeprefix(f"{part}."): value for key, value in mapped.state.items()}
    return Mapped(renamed, mapped.dropped)


def croma_s2(state: Mapping[str, Tensor]) -> Mapped:
    """Return CROMA's optical encoder under the names of `CROMATrunk`.

    The file holds five state dicts (antofuller/CROMA, use_croma.py), read as one with their names
    in front. Left out: the radar and the joint encoder, and the heads of the contrastive loss.

    Raises:
        WeightsError: If a tensor is unknown or missing.
    """
    return _croma(state, "s2_encoder")


def croma_s1(state: Mapping[str, Tensor]) -> Mapped:
    """Return CROMA's radar encoder under the names of `CROMATrunk`: see `croma_s2`.

    Raises:
        WeightsError: If a tensor is unknown or missing.
    """
    return _croma(state, "s1_encoder")


COMPARISON: Final[Mapping[StateLayout, KeyMap]] = {
    StateLayout.MOCO_V3_VIT: vit_encoder,
    StateLayout.MAE_ENCODER: vit_encoder,
    StateLayout.DOFA: dofa,
    StateLayout.COPERNICUS_FM: copernicus_fm,
    StateLayout.PANOPTICON: panopticon,
    StateLayout.CROMA_S2: croma_s2,
    StateLayout.CROMA_S1: croma_s1,
}
