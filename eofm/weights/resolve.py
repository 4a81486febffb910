"""Resolve names of weights, for pretraining, benchmark, embedding, hub and export.

    softcon_vits14_s2               a published name of `eofm models list`
    softcon_vits14_s2@torchgeo      the same weights under another claim about their input
    torchgeo:ResNet50_Weights.X     torchgeo's name of published weights
    timm:NAME, timm:NAME@FILE       a network of timm with timm's weights, or with a file of them
    random:ARCHITECTURE             untrained weights, the control
    runs/mine                       a run: its exported student
    runs/mine/export/teacher        an export, or its card.json
    runs/mine/checkpoints/last.ckpt a checkpoint of a run: its student; `@teacher` for the other
    weights.pth, ./name             a file; `./` distinguishes it from a published name
    softcon_vits14_s2@weights.pth   a file that this card describes, such as weights trained further
    https://..., file://...         an address
    hf:OWNER/NAME/FILE@REVISION     a file of a model on the Hugging Face hub
    module:function, file.py:name   a user's own function that returns an encoder

Nothing is opened or downloaded; only the names in a folder are read. No torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from eofm.errors import WeightsError
from eofm.io import names_own
from eofm.weights.cards import WEIGHTS

__all__ = [
    "BRANCHES",
    "CARD_FILE",
    "HUGGING_FACE",
    "RANDOM",
    "TIMM",
    "TORCHGEO",
    "TORCHGEO_NAMES",
    "WEIGHTS_FILE",
    "Reference",
    "WeightsKind",
    "is_function",
    "resolve",
    "torchgeo_card",
]

CARD_FILE: Final = "card.json"
WEIGHTS_FILE: Final = "weights.safetensors"
RANDOM: Final = "random"
TIMM: Final = "timm:"
HUGGING_FACE: Final = "hf:"
BRANCHES: Final = ("student", "teacher")

_CHECKPOINT: Final = ".ckpt"
_SUFFIXES: Final = frozenset({".pth", ".pt", ".bin", ".safetensors", _CHECKPOINT})
_EXPORTS: Final = "export"


class WeightsKind(StrEnum):
    """Kind of reference to weights."""

    CARD = "published name"
    TIMM = "network of timm"
    RANDOM = "untrained network"
    EXPORT = "export"
    CHECKPOINT = "checkpoint of a run"
    FILE = "file"
    ADDRESS = "address"
    FUNCTION = "function"


@dataclass(frozen=True)
class Reference:
    """A reference to weights.

    Args:
        text: The user's text.
        kind: Kind of reference.
        name: Name of a card with its alternative (of a file, if one is stated), of a timm network,
            an architecture, a function, or an address; else empty.
        path: Path of an export, a checkpoint, a file, or a file of timm's weights; else None.
        branch: Branch of a checkpoint; else empty.
    """

    text: str
    kind: WeightsKind
    name: str = ""
    path: Path | None = None
    branch: str = ""

    @property
    def takes_card(self) -> bool:
        """Whether it is an address or a file for which no card is named."""
        return self.kind is WeightsKind.ADDRESS or (self.kind is WeightsKind.FILE and not self.name)


def resolve(weights: str | Path) -> Reference:
    """Return the reference to weights for a name.

    Args:
        weights: One of the forms of this module. A `Path` is never a published name.

    Raises:
        WeightsError: If there are none of that name; the message suggests the nearest.
    """
    text = str(weights)
    if isinstance(weights, str):
        by_prefix = _by_prefix(text)
        if by_prefix is not None:
            return by_prefix
        if text.partition("@")[0] in WEIGHTS:
            return _by_card(text)
    path = Path(text)
    here = _here(text, path)
    if here is not None:
        return here
    if isinstance(weights, str) and names_own(text):
        return Reference(text, WeightsKind.FUNCTION, text)
    if path.suffix in _SUFFIXES:
        # looks like a path: opening it will raise the error
        return Reference(text, WeightsKind.FILE, path=path)
    raise _unknown(weights)


def is_function(text: str) -> bool:
    """Return whether a text has the form `module:function` or `file.py:function` without a prefix.

    >>> is_function("mine.py:encoder"), is_function("timm:vit_small_patch14_dinov2")
    (True, False)
    """
    return _by_prefix(text) is None and names_own(text)


def _by_prefix(text: str) -> Reference | None:
    """Return the reference of a text with a prefix."""
    if text.startswith(TORCHGEO):
        return Reference(text, WeightsKind.CARD, torchgeo_card(text))
    if text.startswith(TIMM):
        name, _, file = text.partition("@")
        return Reference(text, WeightsKind.TIMM, name, Path(file) if file else None)
    if text == RANDOM or text.startswith(f"{RANDOM}:"):
        return Reference(text, WeightsKind.RANDOM, text.removeprefix(RANDOM).removeprefix(":"))
    if text.startswith(HUGGING_FACE):
        return Reference(text, WeightsKind.ADDRESS, _hugging_face(text))
    if "://" in text:
        return Reference(text, WeightsKind.ADDRESS, text)
    return None


def _by_card(text: str) -> Reference:
    """Return the reference of a published name, with an alternative, a file or both behind it."""
    name, _, rest = text.partition("@")
    alternative, _, file = rest.partition("@")
    if alternative in WEIGHTS[name].alternatives:
        name, rest = f"{name}@{alternative}", file
    if _is_file(rest):
        return Reference(text, WeightsKind.FILE, name, Path(rest))
    return Reference(text, WeightsKind.CARD, text)


def _is_file(text: str) -> bool:
    """Return whether what follows a published name is a file, though there may be none."""
    return Path(text).suffix in _SUFFIXES or Path(text).is_file()


def _hugging_face(text: str) -> str:
    """Return the address of OWNER/NAME/FILE@REVISION on the Hugging Face hub."""
    place, _, revision = text.removeprefix(HUGGING_FACE).partition("@")
    owner, _, rest = place.partition("/")
    name, _, file = rest.partition("/")
    if not (owner and name and file):
        raise WeightsError(
            "a file on the Hugging Face hub is named by owner, model and file",
            found=text,
            expected="hf:OWNER/NAME/FILE, or hf:OWNER/NAME/FILE@REVISION",
        )
    return f"https://huggingface.co/{owner}/{name}/resolve/{revision or 'main'}/{file}"


def _here(text: str, path: Path) -> Reference | None:
    """Return the reference to an existing file or folder, if there is one."""
    if path.is_dir():
        return Reference(text, WeightsKind.EXPORT, path=_export_in(path))
    if path.name == CARD_FILE or (path.name == WEIGHTS_FILE and _has_card(path.parent)):
        return Reference(text, WeightsKind.EXPORT, path=path.parent)
    stem, _, branch = text.rpartition("@")
    if branch in BRANCHES and stem.endswith(_CHECKPOINT):
        return Reference(text, WeightsKind.CHECKPOINT, path=Path(stem), branch=branch)
    if path.suffix == _CHECKPOINT:
        return Reference(text, WeightsKind.CHECKPOINT, path=path, branch=BRANCHES[0])
    if path.is_file():
        return Reference(text, WeightsKind.FILE, path=path)
    return None


def _has_card(folder: Path) -> bool:
    return (folder / CARD_FILE).is_file()


def _export_in(folder: Path) -> Path:
    """Return a folder itself, or the export of the student in the folder of a run."""
    students = [folder / _EXPORTS / BRANCHES[0], folder / BRANCHES[0]]
    if _has_card(folder):
        return folder
    return next((place for place in students if _has_card(place)), folder)


def _unknown(weights: str | Path) -> WeightsError:
    text = str(weights)
    own = text.partition("@")[0]
    near = difflib.get_close_matches(Path(own).name, list(WEIGHTS), n=3)
    remedy = f"did you mean {' or '.join(near)}?" if near else "see `eofm models list`"
    if isinstance(weights, Path) and own in WEIGHTS:
        remedy = f"a published name is given as text, not as a path: {text!r}"
    return WeightsError(
        "there are no such weights",
        found=text,
        expected="a name of `eofm models list`, a run, an export, a checkpoint, a weights file, "
        "an address, torchgeo:..., timm:..., random:..., or module:function",
        remedy=remedy,
    )


# ---------------------------------------------------------------------------------------- torchgeo


TORCHGEO: Final = "torchgeo:"

# Weights that torchgeo distributes under a name, with the preprocessing of their authors; the
# transform that torchgeo attaches is the alternative `@torchgeo` or `@torchgeo-zscore` of the card.
# Weights not in the table have no recipe from their authors here, and are rejected, not guessed.
TORCHGEO_NAMES: Final[Mapping[str, str]] = {
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


def torchgeo_card(reference: str) -> str:
    """Return the name of the card, with its alternative: `torchgeo:X.Y@torchgeo` -> `...@torchgeo`.

    Raises:
        WeightsError: If no card describes those weights.
    """
    member, at, alternative = reference.removeprefix(TORCHGEO).partition("@")
    if member not in TORCHGEO_NAMES:
        near = difflib.get_close_matches(member, list(TORCHGEO_NAMES), n=3)
        raise WeightsError(
            "no card describes these weights of torchgeo, so their recipe is unknown",
            found=member,
            expected="one of " + ", ".join(near or sorted(TORCHGEO_NAMES)[:5]) + ", ...",
            remedy="hand them over with a recipe, as module:function",
        )
    return TORCHGEO_NAMES[member] + at + alternative
