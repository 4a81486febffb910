"""Networks of images and texts through `open_clip`, an optional library: CLIP and its children.

    openclip:ViT-B-32@laion2b_s34b_b79k          weights that open_clip distributes by that name
    openclip:ViT-B-32@RS5M_ViT-B-32.pt           a file of weights
    openclip:ViT-B-32@RS5M_ViT-B-32.pt#RS5M      the same, and what they were trained on

They take pictures: red, green and blue of 8 bits, by the size, mean and deviation that open_clip
states of the architecture or of the weights. A file says nothing of its training data, so whoever
names one says it behind `#`; without it the row is marked "training data not declared".

Shapes: B images, T texts, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final, cast, final

import torch
from torch import Tensor, nn

from eofm.contract.recipe import Kernel, Recipe, ResizeRule
from eofm.contract.spec import Normalization, Sensor, Unit
from eofm.errors import WeightsError
from eofm.extras import optional_library
from eofm.formats.arrays import read_torch
from eofm.formats.foreign import foreign

OPEN_CLIP: Final = "openclip:"

# Of CLIP (arXiv 2103.00020), where open_clip states nothing else.
_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
_STD: Final = (0.26862954, 0.26130258, 0.27577711)
_FORMS: Final = f"{OPEN_CLIP}ARCHITECTURE@NAME or {OPEN_CLIP}ARCHITECTURE@FILE, then #CORPUS"


@final
class ClipTowers(nn.Module):
    """A network of images and texts, frozen; as a module it is its tower of images.

    Args:
        model: With `encode_image` and `encode_text`.
        tokenize: Texts -> int64 (T, L).
    """

    def __init__(self, model: nn.Module, tokenize: Callable[[list[str]], Tensor]) -> None:
        super().__init__()
        self.model, self._tokenize = model, tokenize
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the vectors of normalised images, (B, D), of any length."""
        encode = cast(Callable[[Tensor], Tensor], self.model.encode_image)
        return encode(pixels)

    @torch.no_grad()
    def texts(self, words: Sequence[str]) -> Tensor:
        """Return the vectors of texts, float32 (T, D), on the CPU, of any length.

        Args:
            words: T texts.
        """
        encode = cast(Callable[[Tensor], Tensor], self.model.encode_text)
        device = next(self.model.parameters()).device
        return encode(self._tokenize(list(words)).to(device)).float().cpu()


@dataclass(frozen=True)
class ClipName:
    """What words behind `openclip:` name.

    Args:
        architecture: As open_clip has it.
        weights: A file, or a name of open_clip.
        trained_on: What the weights saw, in words of the user; empty without.
    """

    architecture: str
    weights: str
    trained_on: str

    @classmethod
    def of(cls, target: str) -> ClipName:
        """Return what words name.

        Raises:
            WeightsError: If architecture or weights are missing.
        """
        rest, _, trained_on = target.removeprefix(OPEN_CLIP).partition("#")
        architecture, _, weights = rest.partition("@")
        if not architecture or not weights:
            raise WeightsError(
                "a network of open_clip is named by its architecture and its weights",
                found=target,
                expected=_FORMS,
                where="--model",
            )
        return cls(architecture, weights, trained_on.strip())


def load_clip(target: str) -> tuple[ClipTowers, Recipe]:
    """Return a network of images and texts with what it expects.

    Args:
        target: Words of `--model`, beginning with `openclip:`.

    Raises:
        ConfigError: If open_clip is not installed.
        WeightsError: If it knows no such architecture or weights, or they do not fit.
    """
    named = ClipName.of(target)
    library = optional_library("open_clip", "clip", "zero-shot text needs open_clip", target)
    known: list[str] = library.list_models()
    if named.architecture not in known:
        raise WeightsError(
            "open_clip knows no such architecture",
            found=named.architecture,
            expected=", ".join(known),
            where="--model",
        )
    file = Path(named.weights)
    tag = None if file.is_file() else _tag(library, named)
    with foreign(WeightsError, "open_clip cannot make this network", where=target):
        model: nn.Module = library.create_model(named.architecture, pretrained=tag)
        tokenize = library.get_tokenizer(named.architecture)
        recipe = _recipe(model, named)
    if tag is None:
        _load(model, file)
    return ClipTowers(model, tokenize), recipe


def _tag(library: ModuleType, named: ClipName) -> str:
    """Return a name of weights that open_clip distributes for the architecture."""
    known: list[str] = library.list_pretrained_tags_by_model(named.architecture)
    if named.weights not in known:
        raise WeightsError(
            "these weights are neither a file nor known to open_clip",
            found=named.weights,
            expected=", ".join(known) or "a file: open_clip distributes none",
            where=f"{OPEN_CLIP}{named.architecture}",
        )
    return named.weights


def _load(model: nn.Module, file: Path) -> None:
    """Load the weights of a file, also of a training by several processes, all or nothing."""
    with foreign(WeightsError, "these weights cannot be read", where=file):
        content: Any = read_torch(file)
        state: Mapping[str, Tensor] = content.get("state_dict", content)
        plain = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    own = model.state_dict()
    wrong = [n for n in own if n not in plain or plain[n].shape != own[n].shape]
    strange = [name for name in plain if name not in own]
    # of older versions: a constant mask, and names that open_clip no longer keeps
    wrong = [name for name in wrong if not name.endswith("attn_mask")]
    if wrong or [name for name in strange if not name.endswith(("attn_mask", "position_ids"))]:
        raise WeightsError(
            "these weights do not fit the architecture",
            found=f"{len(wrong)} missing or of another shape, {len(strange)} not in it: "
            + ", ".join([*wrong, *strange][:4]),
            where=file,
            remedy="name the architecture that they were trained with",
        )
    model.load_state_dict(plain, strict=False)


def _recipe(model: nn.Module, named: ClipName) -> Recipe:
    """Return what a network expects, as open_clip states it."""
    visual = model.visual
    stated: Mapping[str, Any] = getattr(visual, "preprocess_cfg", None) or {}
    size: Any = stated.get("size") or getattr(visual, "image_size", 224)
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    mean, std = stated.get("mean") or _MEAN, stated.get("std") or _STD
    return Recipe(
        Sensor.RGB,
        ("R", "G", "B"),
        Unit.UINT8,
        (int(height), int(width)),
        Normalization.zscore(
            [255 * float(one) for one in mean],
            [255 * float(one) for one in std],
            f"open_clip, {named.architecture}",
        ),
        resize=ResizeRule(Kernel(stated.get("interpolation") or Kernel.BICUBIC)),
    )
