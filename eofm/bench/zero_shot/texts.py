"""Zero-shot classification by text: class names in templates, image and text vectors by cosine.

The protocol is that of GeoRSCLIP (arXiv 2306.11300), whose 105 templates are 35 phrases of CLIP
(arXiv 2103.00020) with three words for a picture from above: the vectors of a class's texts are
averaged, then brought to unit length; a logit is 100 times the cosine. CLIP itself brings every
text to unit length before the mean (`text-unit`). Nothing is fitted and no label is read, so there
is one row whatever share of the labels is asked for.

A data set's class names are not what its classes look like: another wording is another score.
Names are split into words here (`AnnualCrop`: annual crop), in lower case.

Shapes: M test samples, D features, K classes, T texts.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from eofm.bench.models import clip
from eofm.bench.models.clip import ClipTowers
from eofm.bench.models.sources import Candidate, taken_by
from eofm.bench.predictions import Archive, request_sha256
from eofm.bench.probes import Scored, resampled_metrics
from eofm.datasets.base import Task
from eofm.probes.linear import ProbeResult, check_features, unit_length

# Key of the probe -> whether every text is brought to unit length before the mean.
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
        unit: Bring every text to unit length before the mean, as CLIP does.
    """
    found = []
    for name in classes:
        vectors = towers.texts([one.format(class_words(name)) for one in templates()]).double()
        vectors = unit_length(vectors) if unit else vectors
        found.append(vectors.mean(dim=0))
    return unit_length(torch.stack(found))


def zero_shot(kind: str, test_x: Tensor, vectors: Tensor, *, multi_label: bool) -> ProbeResult:
    """Return what texts say of the test samples.

    Args:
        kind: A key of `TEXT_KINDS`.
        test_x: Image vectors, (M, D).
        vectors: Of the classes, of unit length, (K, D).
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
    """Return the candidates that have a tower of texts.

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
    """Return the scores of every candidate with a tower of texts.

    Args:
        kinds: Keys of `TEXT_KINDS`.
        candidates: What is scored.
        features: Name of the model -> split -> its image vectors.
        task: The task, whose class names are the texts.
        archive: Where it is kept; texts of what lies there are not computed again.

    Raises:
        DataError: If predictions cannot be kept.
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
            code = (sys.modules[__name__], clip)
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
