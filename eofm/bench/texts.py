"""Zero-shot classification by text: class names in templates, cosine of image and text vectors.

The protocol is that of GeoRSCLIP (arXiv 2306.11300), whose 105 templates are 35 phrases of CLIP
(arXiv 2103.00020) with three words for an overhead image: the vectors of a class's texts are
averaged, then normalised to unit length; a logit is 100 times the cosine. CLIP itself normalises
every text to unit length before the mean (`text-unit`). Nothing is fitted and no label is read, so
there is one row for all label subsets.

Scores depend on the wording of class names, which may not describe what the classes look like.
Names are split into words here (`AnnualCrop`: annual crop), in lower case.

The networks of images and texts are loaded by `open_clip`, an optional library: CLIP and its
descendants.

    openclip:ViT-B-32@laion2b_s34b_b79k          weights that open_clip distributes by that name
    openclip:ViT-B-32@RS5M_ViT-B-32.pt           a file of weights
    openclip:ViT-B-32@RS5M_ViT-B-32.pt#RS5M      the same, with the name of their training data

Their input are 8-bit RGB images, with the size, mean and deviation that open_clip states for the
architecture or the weights. A file does not state its training data, so users name them after `#`;
without that the row is marked "training data not declared".

Shapes: B images, M test samples, D features, K classes, T texts.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final, cast, final

import torch
from torch import Tensor, nn

from eofm.bench.predictions import Archive, request_sha256
from eofm.bench.probes import Scored, resampled_metrics
from eofm.bench.sources import Candidate, taken_by
from eofm.contract.recipe import Kernel, Recipe, ResizeRule
from eofm.contract.spec import Normalization, Sensor, Unit
from eofm.datasets.base import Task
from eofm.environment import optional_library
from eofm.errors import WeightsError
from eofm.formats.arrays import read_torch
from eofm.formats.foreign import foreign
from eofm.probes.features import ProbeResult, check_features, unit_length

__all__ = [
    "OPEN_CLIP",
    "TEXT_KINDS",
    "ClipName",
    "ClipTowers",
    "class_words",
    "load_clip",
    "score_texts",
    "templates",
    "text_vectors",
    "with_texts",
    "zero_shot",
]

# --------------------------------------------------------------------- networks of images and texts

OPEN_CLIP: Final = "openclip:"

# CLIP's values (arXiv 2103.00020), used if open_clip states no others.
_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
_STD: Final = (0.26862954, 0.26130258, 0.27577711)
_FORMS: Final = f"{OPEN_CLIP}ARCHITECTURE@NAME or {OPEN_CLIP}ARCHITECTURE@FILE, then #CORPUS"


@final
class ClipTowers(nn.Module):
    """A frozen network of images and texts; as a module it is its image tower.

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
    """The parts of a name after `openclip:`.

    Args:
        architecture: Name in open_clip.
        weights: A file, or a name in open_clip.
        trained_on: Training data of the weights, stated by the user; empty if not stated.
    """

    architecture: str
    weights: str
    trained_on: str

    @classmethod
    def of(cls, target: str) -> ClipName:
        """Parse a name.

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
    """Return a network of images and texts with its recipe.

    Args:
        target: Word of `--model`, starting with `openclip:`.

    Raises:
        ConfigError: If open_clip is not installed.
        WeightsError: If there is no such architecture or weights, or they do not match.
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
    """Load the weights of a file, including distributed training, all or nothing."""
    with foreign(WeightsError, "these weights cannot be read", where=file):
        content: Any = read_torch(file)
        state: Mapping[str, Tensor] = content.get("state_dict", content)
        plain = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    own = model.state_dict()
    wrong = [n for n in own if n not in plain or plain[n].shape != own[n].shape]
    strange = [name for name in plain if name not in own]
    # of older versions: a constant mask, and names that open_clip no longer has
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
    """Return the recipe of a network, as stated by open_clip."""
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


# ------------------------------------------------------------------------------------------- scores

# Key of the probe -> whether every text is normalised to unit length before the mean.
TEXT_KINDS: Final[Mapping[str, bool]] = {"text": False, "text-unit": True}

_PICTURES: Final = ("remote sensing image", "aerial image", "satellite image")
_SEEN: Final = (
    *("low resolution", "bad", "cropped", "bright", "dark", "close-up", "black and white"),
    *("jpeg corrupted", "blurry", "good"),
)
_CLASS: Final = ("large", "nice", "small", "weird", "cool")
_SCALE: Final = 100.0


def templates() -> tuple[str, ...]:
    """Return the 105 templates; `{}` stands for the words of a class."""
    found = []
    for picture in _PICTURES:
        one = f"{'an' if picture[0] in 'aeiou' else 'a'} {picture} of"
        found += [f"{one} {words} {{}}." for words in ("many", "a", "the")]
        found += [f"{one} {article} hard to see {{}}." for article in ("the", "a")]
        found += [f"a {word} {picture} of {a} {{}}." for word in _SEEN for a in ("the", "a")]
        found += [f"{one} {article} {word} {{}}." for word in _CLASS for article in ("the", "a")]
    return tuple(found)


def class_words(name: str) -> str:
    """Return the words of a class name.

    >>> class_words("AnnualCrop"), class_words("sea_ice"), class_words("Urban/Built-up")
    ('annual crop', 'sea ice', 'urban built-up')
    """
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return " ".join(re.sub(r"[_/]", " ", apart).lower().split())


def text_vectors(towers: ClipTowers, classes: Sequence[str], *, unit: bool) -> Tensor:
    """Return a vector of unit length per class, float64 (K, D).

    Args:
        towers: A network of images and texts.
        classes: Names, K.
        unit: Normalise every text to unit length before the mean, as CLIP does.
    """
    found = []
    for name in classes:
        vectors = towers.texts([one.format(class_words(name)) for one in templates()]).double()
        vectors = unit_length(vectors) if unit else vectors
        found.append(vectors.mean(dim=0))
    return unit_length(torch.stack(found))


def zero_shot(kind: str, test_x: Tensor, vectors: Tensor, *, multi_label: bool) -> ProbeResult:
    """Return the predictions from texts for the test samples.

    Args:
        kind: A key of `TEXT_KINDS`.
        test_x: Image vectors, (M, D).
        vectors: Vectors of the classes, of unit length, (K, D).
        multi_label: Whether a sample may have several classes; then there is no probability.

    Raises:
        PixelError: If a feature is not finite, or all zero.
    """
    check_features(test_x)
    logits = _SCALE * unit_length(test_x) @ vectors.T
    return ProbeResult(
        probe=f"{kind}[cosine,{len(templates())} templates,scale={_SCALE:g}]",
        scores=logits,
        probability=None if multi_label else logits.softmax(dim=1),
        details={"templates": templates()[0] + " ... " + templates()[-1]},
    )


def with_texts(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates that have a text tower.

    Raises:
        ConfigError: If none has.
    """
    return taken_by(
        "--probe",
        candidates,
        lambda one: _towers(one) is not None,
        "this probe compares images with texts, and no model here has a tower of texts",
        "name one with --model openclip:ARCHITECTURE@WEIGHTS",
    )


def _towers(candidate: Candidate) -> ClipTowers | None:
    (network, *more) = [part.network for part in candidate.parts]
    return network if isinstance(network, ClipTowers) and not more else None


def score_texts(
    kinds: Sequence[str],
    candidates: Sequence[Candidate],
    features: Mapping[str, Mapping[str, Tensor]],
    task: Task,
    archive: Archive,
) -> dict[tuple[str, str], Scored]:
    """Return the scores of every candidate with a text tower.

    Args:
        kinds: Keys of `TEXT_KINDS`.
        candidates: Models to score.
        features: Name of the model -> split -> its image vectors.
        task: The task, whose class names are the texts.
        archive: Archive of predictions; texts of those in it are not computed again.

    Raises:
        DataError: If predictions cannot be stored.
        PixelError: If a feature is not finite, or all zero.
    """
    scored = {}
    target = archive.target
    assert target is not None  # noqa: S101 (whole images have labels)
    for one in candidates:
        towers = _towers(one)
        assert towers is not None  # noqa: S101 (`with_texts` chose them)
        for kind, unit in TEXT_KINDS.items():
            if kind not in kinds:
                continue
            choices = (kind, *templates())
            code = (sys.modules[__name__],)
            model = one.identity(task)
            request = request_sha256(archive.task, archive.sample, model, choices, code)

            def compare(
                towers: ClipTowers = towers,
                name: str = one.name,
                kind: str = kind,
                unit: bool = unit,
            ) -> Scored:
                start = time.monotonic()
                vectors = text_vectors(towers, task.classes, unit=unit)
                found = zero_shot(
                    kind, features[name]["test"], vectors, multi_label=target.ndim == 2
                )
                metrics = resampled_metrics(found, target, archive.metrics)
                return Scored(kind, found, metrics, len(target), time.monotonic() - start)

            scored[one.name, kind] = archive.kept(request, compare)
    return scored
