"""From the words of `--model` to what they name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from eofm.bench.config import BenchEurosatConfig
from eofm.bench.controls import IMAGESTATS, RANDOM, ImageStatistics, random_control
from eofm.bench.features import EncoderSource, FeatureSource
from eofm.errors import ConfigError
from eofm.models.encoder import Encoder, load_encoder
from eofm.recipe import Waiver

_FORMS: Final = f"FOLDER, {IMAGESTATS}, {RANDOM}, {RANDOM}:FOLDER, or NAME= before one of these"


def resolve_models(
    config: BenchEurosatConfig, waivers: Sequence[Waiver] = ()
) -> list[FeatureSource]:
    """Return what `config.model` names, in its order, then the controls it does not name.

    Args:
        config: The settings.
        waivers: Exceptions that the task grants every encoder.

    Raises:
        ConfigError: If two get the same name, `random` has nothing to be like, or the device is
            not there.
        WeightsError: If a folder holds no encoder.
    """
    device = device_of(config.device)
    named = [_named(word) for word in config.models]
    folders = [target for _, target in named if target not in {IMAGESTATS, RANDOM}]
    if config.controls:
        targets = [target for _, target in named]
        if IMAGESTATS not in targets:
            named.append((IMAGESTATS, IMAGESTATS))
        if folders and not any(t.partition(":")[0] == RANDOM for t in targets):
            named.append((RANDOM, RANDOM))
    _check_names([name for name, _ in named])
    encoders: dict[str, Encoder] = {}

    def load(folder: str) -> Encoder:
        if folder not in encoders:
            encoders[folder] = load_encoder(folder).to(device)
        return encoders[folder]

    sources: list[FeatureSource] = []
    for name, target in named:
        kind, _, like = target.partition(":")
        if target == IMAGESTATS:
            sources.append(ImageStatistics(name))
        elif kind == RANDOM:
            encoder = load(like or _first(folders))
            sources.append(random_control(encoder, config.seed, name, waivers))
        else:
            sources.append(EncoderSource(name, load(target), waivers=waivers))
    return sources


def _named(word: str) -> tuple[str, str]:
    """Split NAME=TARGET; without a name, a control is called what it is, a folder as it is."""
    name, equals, target = word.partition("=")
    if equals:
        if not name.strip() or not target.strip():
            raise ConfigError("a model needs a name and a target", found=word, expected=_FORMS)
        return name.strip(), target.strip()
    kind = word.partition(":")[0]
    return (kind if kind == RANDOM else Path(word).name or word), word


def _first(folders: Sequence[str]) -> str:
    if not folders:
        raise ConfigError(
            "a random encoder needs an architecture and a recipe to be like",
            found=RANDOM,
            expected=f"{RANDOM}:FOLDER, or the folder of an encoder among the models",
            where="--model",
        )
    return folders[0].removeprefix(f"{RANDOM}:")


def _check_names(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            "two models would have the same name in the table",
            found=", ".join(twice),
            where="--model",
            remedy="name them: --model first=FOLDER,second=FOLDER",
        )


def device_of(name: str) -> torch.device:
    """Return the device that `auto`, `cpu` or `cuda` means here.

    Raises:
        ConfigError: If it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "there is no GPU here", found="--device cuda", remedy="use --device cpu, or auto"
        )
    return torch.device(name)
