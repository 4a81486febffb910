"""Key maps, one per kind of weights file: map a state dict to the tensor names of this package.

Every function is pure and strict: a tensor is used, or named in `Mapped.dropped` with the reason
in the function; otherwise the function raises and lists it. Shapes are compared when the network
loads the result (`eofm.networks.state.load_strict`).

No files of the weights that SoftCon is compared with were available. Their names are derived from
the code that builds and loads the networks, which is cited at each map. It is therefore unknown
whether a file contains the tensors that are left out, and both cases are accepted.

Shapes: P patches, R registers, D width, as in the files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from eofm.errors import WeightsError
from eofm.networks.resnet import ResNet
from eofm.networks.state import State
from eofm.weights.cards.card import StateLayout

__all__ = [
    "KEY_MAPS",
    "MASK_TOKEN",
    "UNTRAINED_GAMMA",
    "KeyMap",
    "Mapped",
    "check_layer_scale",
    "check_names",
    "copernicus_fm",
    "croma_s1",
    "croma_s2",
    "detect_layout",
    "dinov2",
    "dinov2_to_vit",
    "dofa",
    "panopticon",
    "refuse_training_checkpoint",
    "resnet",
    "timm",
    "timm_dinov2",
    "transformers_dinov2",
    "vit_encoder",
    "vit_to_dinov2",
]

# ----------------------------------------------------------------------------- what a key map gives

# DINOv2 and timm initialise a transformer's LayerScale to 1e-5; trained values are far above.
UNTRAINED_GAMMA: Final = 1e-4
_LAYER_SCALE: Final = re.compile(r"\.(ls[12]\.gamma|gamma_[12])$")


@dataclass(frozen=True)
class Mapped:
    """Weights under the names of our networks, and the names of deliberately dropped tensors."""

    state: State
    dropped: tuple[str, ...]


KeyMap = Callable[[Mapping[str, Tensor]], Mapped]


def check_names(found: Collection[str], expected: Collection[str], what: str, remedy: str) -> None:
    """Raise an error for unknown or missing names; the first twelve are listed.

    Args:
        found: Names in the file.
        expected: Names needed by the network.
        what: Expected kind of file: "a DINOv2 ViT".
        remedy: Remedy for the error.

    Raises:
        WeightsError: If the two differ.
    """
    faults = [f"unknown {name}" for name in sorted(set(found) - set(expected))]
    faults += [f"missing {name}" for name in sorted(set(expected) - set(found))]
    if faults:
        more = f"; and {len(faults) - 12} more" if len(faults) > 12 else ""
        raise WeightsError(
            f"these are not the tensors of {what}",
            found="; ".join(faults[:12]) + more,
            expected=f"the {len(expected)} tensors of {what}",
            remedy=remedy,
        )


def check_layer_scale(state: Mapping[str, Tensor]) -> None:
    """Raise an error if a transformer's LayerScale still has its initial value.

    Raises:
        WeightsError: If the mean magnitude of a scale is below `UNTRAINED_GAMMA`: such a network
            is nearly the identity, but its training would raise no error.
    """
    scales = {key: value for key, value in state.items() if _LAYER_SCALE.search(key)}
    means = {key: value.float().abs().mean().item() for key, value in scales.items()}
    low = [f"{key} = {mean:.1e}" for key, mean in means.items() if not mean > UNTRAINED_GAMMA]
    if low:
        raise WeightsError(
            "LayerScale was not loaded or never trained: the network is nearly an identity",
            found=", ".join(low),
            expected=f"mean |gamma| > {UNTRAINED_GAMMA:g}",
            remedy="use the trained weights, with their LayerScale",
        )


def _depth(state: Mapping[str, Tensor], prefix: str) -> int:
    """Return the number of blocks: one more than the highest index."""
    found = (re.match(rf"{re.escape(prefix)}\.(\d+)\.", key) for key in state)
    depth = max((int(m[1]) for m in found if m), default=0) + 1
    return min(depth, len(state) + 1)  # a corrupt name must not produce billions of expected ones


# ------------------------------------------- transformers, of weights that SoftCon is compared with

_REMEDY: Final = "use the encoder's file at the card's address"


def _affine(*modules: str) -> tuple[str, ...]:
    return tuple(f"{module}.{kind}" for module in modules for kind in ("weight", "bias"))


_BLOCK: Final = _affine("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")


def _names(
    state: Mapping[str, Tensor], outer: Iterable[str], block: Iterable[str], blocks: str = "blocks"
) -> set[str]:
    """Return the names of a transformer with as many blocks as the state has."""
    depth = range(_depth(state, blocks))
    return set(outer) | {f"{blocks}.{i}.{name}" for i in depth for name in block}


def _take(
    state: Mapping[str, Tensor], left_out: re.Pattern[str], expected: set[str], what: str
) -> Mapped:
    """Return the expected tensors; raise an error for others that may not be dropped."""
    dropped = tuple(key for key in state if left_out.fullmatch(key))
    kept = {key: value for key, value in state.items() if key not in dropped}
    check_names(kept, expected, what, _REMEDY)
    return Mapped(kept, dropped)


# -------------------------------------------------------------------- SSL4EO-S12: MoCo, DINO, MAE

_VIT_OUTER: Final = ("cls_token", "pos_embed", *_affine("patch_embed.proj", "norm"))
_HEAD: Final = re.compile(r"head\.(weight|bias)")


def vit_encoder(state: Mapping[str, Tensor]) -> Mapped:
    """Return a plain ViT under the names of `TimmTrunk`: timm's, prefixed with `model.`.

    For MoCo-v3 and DINO (zhu-xlab/SSL4EO-S12, models/moco_v3/vits.py, models/dino) and for the
    encoders of MAE and FG-MAE (models/mae/models_mae.py there and in zhu-xlab/FGMAE), whose fixed
    sine-cosine positions are part of the file. torchgeo accepts a classifier in these files.

    Raises:
        WeightsError: If a tensor is unknown or missing, for example of a decoder, or LayerScale.
    """
    mapped = _take(state, _HEAD, _names(state, _VIT_OUTER, _BLOCK), "a plain ViT")
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
# The authors' demo lists the other tensors in their file: mask token, the norm of masked
# pretraining and a projector. torchgeo's copy lacks them and accepts a head and its norm.
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

    Its second hypernetwork is for variables without a spectrum (elevation, gases) and is dropped.
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
_PANOPTICON_REST: Final = re.compile("mask_token")


def panopticon(state: Mapping[str, Tensor]) -> Mapped:
    """Return the teacher of Panopticon under the names of `PanopticonTrunk`.

    From Panopticon-FM/panopticon, dinov2/models, and torchgeo, which loads the file strictly.

    Raises:
        WeightsError: If a tensor is unknown or missing.
    """
    block = (*_BLOCK, "ls1.gamma", "ls2.gamma")
    return _take(state, _PANOPTICON_REST, _names(state, _PANOPTICON_OUTER, block), "Panopticon")


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

    The file contains five state dicts (antofuller/CROMA, use_croma.py), read as one with their
    names as prefixes. Dropped: radar and joint encoder, and the heads of the contrastive loss.

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


# --------------------------------------------------------------------------- DINOv2's ViT

# Used by DINOv2's own objective; here tokens are dropped, never replaced.
MASK_TOKEN: Final = "mask_token"

_RELEASE: Final = (
    "use the released backbone: dinov2_vit{s,b,l,g}14[_reg4]_pretrain.pth, or its copy on a hub"
)
_TRAINING: Final = re.compile(r"^((module|teacher|student|backbone|encoder_[qk])\.)+")
_CHUNKED: Final = re.compile(r"^blocks\.\d+\.\d+\.")


@dataclass(frozen=True)
class _Kind:
    """Kind of DINOv2 vision transformer in a file."""

    depth: int
    registers: bool
    swiglu: bool

    def names(self) -> Iterator[str]:
        """Yield the names of `eofm.networks.vit.ViT`, which are Meta's without the mask token."""
        yield from ("cls_token", "pos_embed")
        if self.registers:
            yield "register_tokens"
        feed_forward = ("mlp.w12", "mlp.w3") if self.swiglu else ("mlp.fc1", "mlp.fc2")
        layers = ("norm1", "attn.qkv", "attn.proj", "norm2", *feed_forward)
        for block in (f"blocks.{i}" for i in range(self.depth)):
            yield from (f"{block}.ls1.gamma", f"{block}.ls2.gamma")
            yield from _affine(*(f"{block}.{layer}" for layer in layers))
        yield from _affine("patch_embed.proj", "norm")


def dinov2_to_vit(state: Mapping[str, Tensor]) -> State:
    """Return the weights of a DINOv2 ViT, with or without registers, under the names of `ViT`.

    The names are equal (arXiv 2304.07193, facebookresearch/dinov2) except for `MASK_TOKEN`.

    Args:
        state: `dinov2_vits14_pretrain.pth`, `dinov2_vitb14_reg4_pretrain.pth`, ...

    Raises:
        WeightsError: If a tensor is unknown or missing, the file is a training checkpoint, or a
            LayerScale was never trained.
    """
    refuse_training_checkpoint(state)
    kept = {key: value for key, value in state.items() if key != MASK_TOKEN}
    kind = _Kind(
        _depth(kept, "blocks"), "register_tokens" in kept, "blocks.0.mlp.w12.weight" in kept
    )
    check_names(kept, list(kind.names()), "a DINOv2 ViT", _RELEASE)
    check_layer_scale(kept)
    return kept


def vit_to_dinov2(state: Mapping[str, Tensor]) -> State:
    """Return the weights of a `ViT` as DINOv2's own code loads them; inverse of `dinov2_to_vit`.

    Args:
        state: State of a `ViT`.

    Returns:
        The same tensors and a mask token of zeros, (1, D).

    Raises:
        WeightsError: If these are not the tensors of a `ViT`.
    """
    kept = dinov2_to_vit(state)
    cls_token = kept["cls_token"]
    return {**kept, MASK_TOKEN: cls_token.new_zeros((1, cls_token.shape[-1]))}


def refuse_training_checkpoint(state: Mapping[str, Tensor]) -> None:
    """Raise an error for names of a training run instead of a released backbone.

    Raises:
        WeightsError: If names have a prefix like `teacher.backbone.`, or blocks come in chunks.
    """
    prefixes = {key: match[0] for key in state if (match := _TRAINING.match(key))}
    if prefixes:
        wrapped = list(prefixes)
        raise WeightsError(
            "this is a training checkpoint: its tensors carry the prefix of a larger model",
            found=", ".join(wrapped[:3]),
            expected="names such as blocks.0.norm1.weight or layer1.0.conv1.weight",
            remedy=f"keep the tensors under {prefixes[wrapped[0]]!r}, without that prefix",
        )
    chunked = [key for key in state if _CHUNKED.match(key)]
    if chunked:
        raise WeightsError(
            "this is a training checkpoint: its blocks come in chunks",
            found=", ".join(chunked[:3]),
            expected="names such as blocks.0.norm1.weight",
            remedy="rename blocks.CHUNK.BLOCK. to blocks.BLOCK., or use the released backbone",
        )


def dinov2(state: Mapping[str, Tensor]) -> Mapped:
    """Return Meta's DINOv2 weights, or SoftCon's ViT files, under the names of `ViT`.

    Raises:
        WeightsError: As `dinov2_to_vit`.
    """
    return Mapped(dinov2_to_vit(state), (MASK_TOKEN,) if MASK_TOKEN in state else ())


# ---------------------------------------------------------------- the same, under other names


def timm_dinov2(state: Mapping[str, Tensor]) -> Mapped:
    """Return timm's DINOv2 weights, or torchgeo's `_enc` files of SoftCon, under those of `ViT`.

    timm has no mask token. With registers it adds the position of CLS to the token and stores only
    positions of patches: here the position of CLS becomes zero, so that their sum is the same.
    the same.

    Raises:
        WeightsError: If a tensor is unknown or missing, or a LayerScale was never trained.
    """
    refuse_training_checkpoint(state)
    kind = _Kind(_depth(state, "blocks"), "reg_token" in state, _is_packed(state))
    sources = {ours: _timm_name(ours, kind) for ours in kind.names()}
    check_names(state, list(sources.values()), "timm's DINOv2 ViT", _RELEASE)
    mapped = {ours: state[theirs] for ours, theirs in sources.items()}
    if kind.registers:
        positions = mapped["pos_embed"]
        mapped["pos_embed"] = torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)
    check_layer_scale(mapped)
    return Mapped(mapped, ())


def _is_packed(state: Mapping[str, Tensor]) -> bool:
    """Whether `fc1` contains gate and value of a gated feed-forward net, judged by its shape."""
    first, second = state.get("blocks.0.mlp.fc1.weight"), state.get("blocks.0.mlp.fc2.weight")
    return first is not None and second is not None and first.shape[0] == 2 * second.shape[-1]


def _timm_name(ours: str, kind: _Kind) -> str:
    if ours == "register_tokens":
        return "reg_token"
    if kind.swiglu:
        return ours.replace("mlp.w12", "mlp.fc1").replace("mlp.w3", "mlp.fc2")
    return ours


_TRANSFORMERS: Final = (
    (r"^(cls_token|register_tokens)$", r"embeddings.\1"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^blocks\.", "encoder.layer."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.ls([12])\.gamma$", r".layer_scale\1.lambda1"),
    (r"\.mlp\.w12\.", ".mlp.weights_in."),
    (r"\.mlp\.w3\.", ".mlp.weights_out."),
    (r"^norm\.", "layernorm."),
)
_TRANSFORMERS_MASK: Final = "embeddings.mask_token"
_QKV: Final = ("query", "key", "value")


def transformers_dinov2(state: Mapping[str, Tensor]) -> Mapped:
    """Return the weights of Hugging Face's `Dinov2Model` under the names of `ViT`.

    Also those of `Dinov2WithRegistersModel`. Query, key and value become thirds of one layer. At
    sizes other than 518 that library interpolates positions in a third way; here it is DINOv2's.

    Raises:
        WeightsError: If a tensor is unknown or missing, or a LayerScale was never trained.
    """
    kept = {key: value for key, value in state.items() if key != _TRANSFORMERS_MASK}
    kind = _Kind(
        _depth(kept, "encoder.layer"),
        "embeddings.register_tokens" in kept,
        "encoder.layer.0.mlp.weights_in.weight" in kept,
    )
    sources = {ours: _transformers_names(ours) for ours in kind.names()}
    check_names(
        kept,
        [name for names in sources.values() for name in names],
        "transformers' Dinov2Model",
        # a network of transformers 5 has other names in memory than in the file it writes
        "use the model.safetensors that save_pretrained writes, of the backbone alone",
    )
    mapped = {ours: _joined(kept, names) for ours, names in sources.items()}
    check_layer_scale(mapped)
    return Mapped(mapped, (_TRANSFORMERS_MASK,) if _TRANSFORMERS_MASK in state else ())


def _joined(state: Mapping[str, Tensor], names: list[str]) -> Tensor:
    shapes = {tuple(state[name].shape) for name in names}
    if len(shapes) > 1:
        raise WeightsError(
            "query, key and value differ in shape",
            found=", ".join(f"{name} {tuple(state[name].shape)}" for name in names),
            expected="one shape",
        )
    return torch.cat([state[name] for name in names]) if len(names) > 1 else state[names[0]]


def _transformers_names(ours: str) -> list[str]:
    """Return the source names of one of our tensors: three for query, key and value."""
    theirs = ours
    for pattern, replacement in _TRANSFORMERS:
        theirs = re.sub(pattern, replacement, theirs)
    if ".attn.qkv." not in theirs:
        return [theirs]
    return [theirs.replace(".attn.qkv.", f".attention.attention.{part}.") for part in _QKV]


# ------------------------------------------------------------------------------- ResNets

_CLASSIFIER: Final = ("fc.weight", "fc.bias")  # of a task that is not ours
_COUNTER: Final = "num_batches_tracked"  # unused if there is a momentum; old files lack it


def resnet(state: Mapping[str, Tensor]) -> Mapped:
    """Return torchvision's, timm's, DINO's or SoftCon's ResNet under the names of `ResNet`.

    The names are equal except for the classifier.

    Raises:
        WeightsError: If a tensor is unknown or missing.
    """
    refuse_training_checkpoint(state)
    name = "resnet50" if "layer1.0.conv3.weight" in state else "resnet18"
    expected = _resnet_names(name)
    counters = {key: torch.tensor(0) for key in expected if key.endswith(_COUNTER)}
    kept = {key: value for key, value in state.items() if key not in _CLASSIFIER}
    mapped = {**counters, **kept}
    check_names(mapped, expected, name, "use a ResNet-18 or ResNet-50 without a prefix")
    return Mapped(mapped, tuple(key for key in _CLASSIFIER if key in state))


@lru_cache
def _resnet_names(name: str) -> tuple[str, ...]:
    with torch.device("meta"):
        return tuple(ResNet(name, 3, (224, 224)).state_dict())


# ---------------------------------------------------------------------------------- timm

# Classifiers and attention pooling: the vector is a CLS token or a mean.
_TIMM_HEAD: Final = re.compile(
    r"^((head|fc|classifier|head_dist|head\.fc)\.(weight|bias)|attn_pool\..*)$"
)


def timm(state: Mapping[str, Tensor]) -> Mapped:
    """Return the weights of a timm network under the names of `TimmTrunk`: prefix `model.`.

    The network's names are known only when it is built; they are compared when it is loaded.

    Raises:
        WeightsError: If the file is a training checkpoint, or a LayerScale was never trained.
    """
    refuse_training_checkpoint(state)
    kept = {f"model.{key}": value for key, value in state.items() if not _TIMM_HEAD.match(key)}
    check_layer_scale(kept)
    return Mapped(kept, tuple(key for key in state if _TIMM_HEAD.match(key)))


KEY_MAPS: Final[Mapping[StateLayout, KeyMap]] = {
    StateLayout.DINOV2: dinov2,
    StateLayout.TIMM_DINOV2: timm_dinov2,
    StateLayout.TRANSFORMERS_DINOV2: transformers_dinov2,
    StateLayout.RESNET: resnet,
    StateLayout.TIMM: timm,
    StateLayout.MOCO_V3_VIT: vit_encoder,
    StateLayout.MAE_ENCODER: vit_encoder,
    StateLayout.DOFA: dofa,
    StateLayout.COPERNICUS_FM: copernicus_fm,
    StateLayout.PANOPTICON: panopticon,
    StateLayout.CROMA_S2: croma_s2,
    StateLayout.CROMA_S1: croma_s1,
}

# ----------------------------------------------------------------------------- detection

# The first row whose names are all present is used; rows go from specific to general.
_SIGNS: Final = (
    (
        StateLayout.TRANSFORMERS_DINOV2,
        ("embeddings.cls_token", "encoder.layer.0.layer_scale1.lambda1"),
    ),
    (StateLayout.DINOV2, ("blocks.0.ls1.gamma", "pos_embed", MASK_TOKEN)),
    (StateLayout.DINOV2, ("blocks.0.ls1.gamma", "pos_embed", "register_tokens")),
    (StateLayout.DINOV2, ("blocks.0.ls1.gamma", "pos_embed", "blocks.0.mlp.w12.weight")),
    (StateLayout.TIMM_DINOV2, ("blocks.0.ls1.gamma", "pos_embed", "cls_token")),
    (StateLayout.RESNET, ("conv1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight")),
    (StateLayout.TIMM, ("patch_embed.proj.weight", "blocks.0.norm1.weight")),
    (StateLayout.TIMM, ("stages.0.blocks.0.conv_dw.weight",)),
)


def detect_layout(state: Mapping[str, Tensor]) -> StateLayout:
    """Return the layout of the tensor names of a file, judged by a few characteristic names.

    This only selects a key map; the map is as strict as if selected by the user.

    Raises:
        WeightsError: If no layout matches, or the file is a training checkpoint.
    """
    refuse_training_checkpoint(state)
    if "storage_tokens" in state:
        raise WeightsError(
            "this is DINOv3 under Meta's own names",
            found="storage_tokens",
            expected="timm's names",
            remedy="use timm's copy, for the architecture timm:vit_small_patch16_dinov3",
        )
    for layout, names in _SIGNS:
        if all(name in state for name in names):
            return layout
    raise WeightsError(
        "the tensor names do not match any known kind of weights",
        found=", ".join(list(state)[:6]) or "no tensors",
        expected=", ".join(dict.fromkeys(layout.value for layout, _ in _SIGNS)),
        remedy="state the layout, or give the plain state dict of one network",
    )
