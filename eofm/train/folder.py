"""The folder of a run: everything a run writes, safe to delete as a whole."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import torch
import yaml

from eofm.durable import replacing
from eofm.errors import ConfigError
from eofm.train.config import (
    AugmentConfig,
    DataConfig,
    MethodConfig,
    ModelConfig,
    OptimConfig,
    PretrainConfig,
    RunConfig,
)

LIBRARIES: Final = ("eofm", "torch", "timm", "lightning", "kornia", "numpy", "torchmetrics")


@dataclass(frozen=True)
class RunFolder:
    """Names of the files of a run."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved settings, as `--config` reads them."""
        return self.path / "config.yaml"

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def metrics(self) -> Path:
        """Loss terms and schedules per step."""
        return self.path / "metrics.jsonl"

    @property
    def export(self) -> Path:
        """Encoders: init, student, teacher."""
        return self.path / "export"

    @property
    def figures(self) -> Path:
        """PNG files."""
        return self.path / "figures"

    @property
    def done(self) -> Path:
        """Written last: the run is complete."""
        return self.path / "DONE"

    def start(self, config: PretrainConfig) -> None:
        """Make the folder with its settings: only a run that can begin leaves anything behind."""
        self.write("config.yaml", to_yaml(config))

    def write(self, name: str, text: str) -> Path:
        """Write a text file whole or not at all."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return path


def open_folder(config: PretrainConfig) -> tuple[RunFolder, PretrainConfig]:
    """Choose a new run's folder, or take up an old one; return it with the settings to obey.

    Nothing is written: `RunFolder.start` does that once everything is known to fit.

    Raises:
        ConfigError: If the folder holds another run, or there is nothing to resume.
    """
    out = config.run.out or time.strftime("runs/pretrain-%Y%m%d-%H%M%S")
    folder = RunFolder(Path(out))
    if config.run.resume:
        return folder, _resumed(folder, config)
    if folder.path.exists() and (not folder.path.is_dir() or any(folder.path.iterdir())):
        raise ConfigError(
            "the run folder holds something already",
            found=folder.path,
            expected="a new or empty folder",
            remedy="name another --run.out, delete it, or add --run.resume true to continue it",
        )
    return folder, replace(config, run=replace(config.run, out=str(folder.path)))


def _resumed(folder: RunFolder, asked: PretrainConfig) -> PretrainConfig:
    if not folder.config.is_file():
        raise ConfigError(
            "there is no run to resume",
            found=f"no config.yaml in {folder.path}",
            remedy="name the run's folder: --run.out runs/<name>",
        )
    saved = from_dict(yaml.safe_load(folder.config.read_text(encoding="utf-8")), folder.config)
    changed = [
        f"{group}.{key}"
        for group, values in asdict(asked).items()
        if group != "run"
        for key, value in values.items()
        if value != asdict(PretrainConfig())[group][key] and value != asdict(saved)[group][key]
    ]
    if changed:
        raise ConfigError(
            "a run is resumed with its own settings",
            found=f"other values of {', '.join(changed)}",
            expected=f"those of {folder.config}",
            remedy="leave them out, or start a new run",
        )
    return replace(saved, run=replace(asked.run, out=str(folder.path)))


def to_yaml(config: PretrainConfig) -> str:
    """Return the settings as YAML that `--config` reads."""
    plain = json.loads(json.dumps(asdict(config)))
    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    return text


def from_dict(data: Any, where: object) -> PretrainConfig:  # noqa: ANN401 (whatever YAML holds)
    """Read what `to_yaml` wrote.

    Raises:
        ConfigError: If a group or key is missing or unknown.
    """
    groups = {
        "data": DataConfig,
        "model": ModelConfig,
        "method": MethodConfig,
        "augment": AugmentConfig,
        "optim": OptimConfig,
        "run": RunConfig,
    }
    if not isinstance(data, dict) or set(data) != set(groups):
        raise ConfigError("these are not the settings of a run", found=data, where=where)
    made = {}
    for name, kind in groups.items():
        if set(data[name]) != {f.name for f in fields(kind)}:
            raise ConfigError(
                f"the group {name!r} has other keys than this version of eofm knows",
                found=", ".join(data[name]),
                expected=", ".join(f.name for f in fields(kind)),
                where=where,
            )
        made[name] = kind(
            **{k: tuple(v) if isinstance(v, list) else v for k, v in data[name].items()}
        )
    return PretrainConfig(**made)


def config_hash(config: PretrainConfig) -> str:
    """Return the sha256 of everything that can change the result."""
    content = {group: value for group, value in asdict(config).items() if group != "run"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def environment(device: str) -> dict[str, object]:
    """Return versions, command, machine and commit: what a result needs to be repeated."""
    return {
        "command": ["eofm", *sys.argv[1:]],
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device,
        "versions": {name: _version(name) for name in LIBRARIES},
        "commit": _commit(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit of a source checkout, or None for an installed package."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
