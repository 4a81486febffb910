"""From the words of `--model` to sources of patch tokens."""

from __future__ import annotations

from typing import Final

from eofm.bench.config import BenchConfig
from eofm.bench.controls import IMAGESTATS, RCF, RCF_ZCA
from eofm.bench.dense_config import DenseConfig
from eofm.bench.dense_tokens import PIXELS, DenseModel, Part, PixelValues
from eofm.bench.features import EncoderSource
from eofm.bench.models import Candidate, resolve_models
from eofm.bench.task import Task
from eofm.contract.imagery import Imagery
from eofm.errors import ConfigError

_RANDOM: Final = "random"


def resolve_dense(config: DenseConfig, task: Task) -> list[DenseModel]:
    """Return what `config.model` names, in its order, then the controls it does not name.

    Args:
        config: The settings.
        task: What it is for: its images and the exceptions it grants.

    Raises:
        ConfigError: If a model has no patch tokens, two get the same name, or a word names
            nothing.
        WeightsError: If weights cannot be had, or do not fit.
    """
    words = list(config.models)
    targets = [word.partition("=")[2] or word for word in words]
    if config.controls:
        words += [PIXELS] if PIXELS not in targets else []
        controls = {PIXELS, _RANDOM, IMAGESTATS, RCF, RCF_ZCA}
        encoders = any(target.partition(":")[0] not in controls for target in targets)
        words += [_RANDOM] if encoders and _RANDOM not in targets else []
    others = [word for word in words if (word.partition("=")[2] or word) != PIXELS]
    made = {candidate.name: candidate for candidate in _candidates(config, task, others)}
    models = iter(made.values())
    return [
        _pixels(word, task) if (word.partition("=")[2] or word) == PIXELS else _dense(next(models))
        for word in words
    ]


def _candidates(config: DenseConfig, task: Task, words: list[str]) -> list[Candidate]:
    if not words:
        return []
    plain = BenchConfig(
        root=config.root,
        model=",".join(words),
        controls=False,
        seed=config.seed,
        device=config.device,
        recipe=config.recipe,
        force=config.force,
    )

    def no_images(sensor: int, index: int) -> Imagery:
        raise ConfigError(
            "this control has no patch tokens",
            found=f"image {index} of sensor {sensor} was asked for",
            expected=f"{PIXELS}, {_RANDOM}",
            where="--model",
        )

    return resolve_models(plain, task, no_images, 1)


def _pixels(word: str, task: Task) -> DenseModel:
    name = word.partition("=")[0]
    parts = []
    for spec in task.specs:
        assert spec.size is not None  # noqa: S101 (every task states a size)
        parts.append(PixelValues(name, spec.size))
    return DenseModel(name, tuple(parts))


def _dense(candidate: Candidate) -> DenseModel:
    parts: list[Part] = []
    for part in candidate.parts:
        if not isinstance(part, EncoderSource):
            raise ConfigError(
                "a dense task needs patch tokens, and this model has none",
                found=candidate.name,
                expected=f"an encoder; controls {PIXELS} and {_RANDOM}",
                where="--model",
                remedy="return an eofm.Encoder from your function: its trunk says what patches are",
            )
        parts.append(part)
    return DenseModel(candidate.name, tuple(parts))
