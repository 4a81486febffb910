"""The folder of a run, which holds all its files and can be deleted as a whole."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from shlex import quote
from typing import Any, Final, get_type_hints

import torch

from eofm.environment import commit, versions_of
from eofm.errors import ConfigError
from eofm.formats.arrays import read_torch
from eofm.formats.foreign import foreign
from eofm.formats.text import read_yaml, settings_text
from eofm.io import open_locked, unfinished, write_file
from eofm.train.config import DEMO, MonitorConfig, PretrainConfig, RunConfig, TrainerConfig

__all__ = [
    "FREE",
    "LATER",
    "LIBRARIES",
    "WAIT_S",
    "RunFolder",
    "check_checkpoint",
    "config_hash",
    "differing",
    "environment",
    "from_dict",
    "open_folder",
]

# Groups of settings that do not affect results: a run may be resumed with other values.
FREE: Final = frozenset({"run", "monitor"})
# Settings that older runs lack; their defaults reproduce the earlier behaviour.
# Runs of version 0.1 lack further settings, such as `trainer.attention`, and are refused, as their
# views were drawn differently.
LATER: Final = frozenset(
    {"method.terms", "augment.nested_scale", "augment.rgb_probability", "augment.season_pair"}
)
# Settings of `run` that apply to one start only; a later start has its own values.
_OF_A_START: Final = ("out", "resume", "dry_run")
LIBRARIES: Final = ("eofm", "torch", "timm", "lightning", "kornia", "numpy")


@dataclass(frozen=True)
class RunFolder:
    """Paths of the files of a run."""

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
    def export(self) -> Path:
        """Encoders: init, student, teacher."""
        return self.path / "export"

    @property
    def figures(self) -> Path:
        """PNG files."""
        return self.path / "figures"

    @property
    def done(self) -> Path:
        """Marker of a complete run, written last."""
        return self.path / "DONE"

    def is_free(self) -> bool:
        """Return whether the folder is empty, or has only the first file of a killed run."""
        mine = {unfinished(self.config), self.path / _OWNER}
        return self.path.is_dir() and mine.issuperset(self.path.iterdir())

    def check_free(self) -> None:
        """Check that a run can start in the folder.

        Raises:
            ConfigError: If it is not empty.
        """
        if self.path.exists() and not self.is_free():
            raise ConfigError(
                "the run folder is not empty",
                found=self.path,
                expected="a new or empty folder",
                remedy="name another --run.out, delete it, or add --run.resume true to continue it",
            )

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Lock the folder for this process: two writing processes would mix their steps.

        A requeued job may start before its earlier process has ended, so the lock waits for some
        time.

        Raises:
            ConfigError: If another process has locked the folder, or it cannot be written.
        """
        file = self.path / _OWNER
        with foreign(ConfigError, "the run folder cannot be written", where=self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            handle = _take(file)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                file.unlink()
            os.close(handle)

    def start(self, config: PretrainConfig) -> None:
        """Create the folder with its settings, after all checks have passed."""
        self.write("config.yaml", settings_text(config))

    def write(self, name: str, text: str) -> Path:
        """Write a text file atomically.

        Raises:
            DataError: If it cannot be written.
        """
        return write_file(self.path / name, text.encode(), "name another --run.out")


_OWNER: Final = ".owner"
WAIT_S: float = 60.0


def _take(file: Path) -> int:
    """Open and lock the file that names the owner of the folder; return its handle."""
    until = time.monotonic() + WAIT_S
    while True:
        handle = open_locked(file)
        if handle is not None:
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {platform.node()}".encode())
            return handle
        owner = ""  # its last owner has just removed it
        with contextlib.suppress(FileNotFoundError):
            owner = file.read_bytes()[:200].decode(errors="replace") or "unknown process"
        if owner and time.monotonic() > until:
            raise ConfigError(
                "another process is training in this run folder",
                found=owner,
                where=file.parent,
                remedy="wait for it or end it, then resume; or name another --run.out",
            )
        time.sleep(0.1)


def open_folder(config: PretrainConfig) -> tuple[RunFolder, PretrainConfig]:
    """Choose the folder of a new run, or resume an old one; return it with the settings to use.

    Nothing is written here; `RunFolder.start` writes after all checks.

    Returns:
        The folder and the settings, with `run.resume` resolved to true or false.

    Raises:
        ConfigError: If the folder holds another run, or there is nothing to resume.
    """
    if config.run.resume == "auto" and config.run.out is None:
        raise ConfigError(
            "a run can only be found again by its folder",
            found="run.resume=auto without run.out",
            remedy="add --run.out runs/<name>",
        )
    out = config.run.out or time.strftime("runs/pretrain-%Y%m%d-%H%M%S")
    folder = RunFolder(Path(out))
    resume = folder.config.is_file() if config.run.resume == "auto" else config.run.resume
    config = replace(config, run=replace(config.run, out=str(folder.path), resume=resume))
    if resume:
        return folder, _resumed(folder, config)
    folder.check_free()
    return folder, config


def _resumed(folder: RunFolder, asked: PretrainConfig) -> PretrainConfig:
    """Return the settings of the run, with requested changes that do not affect results.

    Settings of licence, checkpoints and evaluation are kept if they are not given again, because
    the resume command that a stopped run prints has no settings.
    """
    if not folder.config.is_file():
        raise ConfigError(
            "there is no run to resume",
            found=f"no config.yaml in {folder.path}",
            remedy="name the run's folder: --run.out runs/<name>",
        )
    saved = from_dict(_read_yaml(folder.config), folder.config)
    unsaid = (PretrainConfig(), DEMO)
    differ = [
        key
        for key in differing(asked, saved)
        if all(_value(asked, key) != _value(each, key) for each in unsaid)
    ]
    if differ:
        raise ConfigError(
            "a run is resumed with its own settings",
            found=f"other values of {', '.join(differ)}",
            expected=f"those of {folder.config}",
            remedy="leave them out, or start a new run",
        )
    now = {key: getattr(asked.run, key) for key in _OF_A_START}
    return replace(
        saved,
        run=replace(saved.run, **_said(asked.run), **now),
        monitor=replace(saved.monitor, **_said(asked.monitor)),
        trainer=replace(saved.trainer, **_said(asked.trainer)),
    )


def _said(asked: RunConfig | MonitorConfig | TrainerConfig) -> dict[str, Any]:
    """Return the non-default settings of a group, except those of a single start."""
    usual = asdict(type(asked)())
    return {
        key: value
        for key, value in asdict(asked).items()
        if value != usual[key] and key not in _OF_A_START
    }


def check_checkpoint(
    file: Path, config: PretrainConfig, key: str, teachers: Mapping[str, str]
) -> None:
    """Refuse a checkpoint of another run before loading it.

    Args:
        file: The checkpoint.
        config: Settings of the run to resume.
        key: Checkpoint key of the settings.
        teachers: Current sha256 of the frozen teachers' weights, by term.

    Raises:
        ConfigError: If its settings or its frozen teachers differ, or it cannot be read.
    """
    with foreign(
        ConfigError,
        "the checkpoint cannot be read",
        where=file,
        remedy="delete it to begin the run again, or put another of this run in its place",
    ):
        saved = read_torch(file, mapped=True)
        theirs = from_dict(saved[key]["config"], file)
        taught: dict[str, str] = saved[key].get("teachers", {})  # older checkpoints lack it
    differ = differing(theirs, config)
    if differ:
        raise ConfigError(
            "the checkpoint is of another configuration",
            found=", ".join(f"{name}={_value(theirs, name)}" for name in differ),
            expected=", ".join(f"{name}={_value(config, name)}" for name in differ),
            where=file,
            remedy="start a new run; model.weights and model.continue_from take over networks",
        )
    for name, sha256 in taught.items():
        if teachers.get(name) != sha256:
            raise ConfigError(
                f"the frozen teacher of {name} has other weights than when the run began",
                found=f"sha256 {teachers.get(name)}",
                expected=f"sha256 {sha256}",
                where=f"method.terms.{name}.teacher, {file}",
                remedy="restore the teacher's original files, or start a new run with another "
                "--run.out",
            )


def differing(one: PretrainConfig, other: PretrainConfig) -> list[str]:
    """Return the keys of differing settings that can affect the result."""
    left, right = _essence(one), _essence(other)
    return [
        f"{group}.{key}"
        for group, values in left.items()
        for key, value in values.items()
        if value != right[group][key]
    ]


def _essence(config: PretrainConfig) -> dict[str, dict[str, Any]]:
    """Return the settings that can affect the result; of `trainer`, those that do by design."""
    made = {group: value for group, value in asdict(config).items() if group not in FREE}
    made["trainer"] = {key: made["trainer"][key] for key in ("accumulate", "precision")}
    return made


def _value(config: PretrainConfig, key: str) -> object:
    group, _, name = key.partition(".")
    value: object = asdict(config)[group][name]
    return value


def from_dict(data: Any, where: Path | str) -> PretrainConfig:  # noqa: ANN401 (whatever YAML holds)
    """Read settings written by `settings_text`.

    Args:
        data: Settings by group and key.
        where: Source file: config.yaml or a checkpoint of a run.

    Raises:
        ConfigError: If the data are not settings, or are those of another version of eofm.
    """
    groups = get_type_hints(PretrainConfig)
    if not isinstance(data, dict) or not all(isinstance(data.get(n), dict) for n in groups):
        raise ConfigError(
            "these are not the settings of a run",
            found=repr(data)[:200],
            expected=f"the groups {', '.join(groups)}",
            where=where,
        )
    other = [*sorted(map(str, set(data) - set(groups)))]
    for name, kind in groups.items():
        known, found = {f.name for f in fields(kind)}, set(map(str, data[name]))
        other += [f"{name}.{key} (unknown here)" for key in sorted(found - known)]
        if name not in FREE:  # settings that do not affect results get their defaults
            later = {key for key in known if f"{name}.{key}" in LATER}
            other += [f"no {name}.{key}" for key in sorted(known - found - later)]
    if other:
        raise _other_version(where, other)
    with foreign(ConfigError, "these settings cannot be those of a run", where=where):
        made = {
            name: kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in data[name].items()})
            for name, kind in groups.items()
        }
        return PretrainConfig(**made)


def _other_version(where: Path | str, differing: list[str]) -> ConfigError:
    """Return an error that states how to continue the networks of another version's run."""
    file = Path(where)
    run = RunFolder(file.parent if file.name == "config.yaml" else file.parent.parent)
    return ConfigError(
        "the run was begun by another version of eofm, and would not continue as it began",
        found=", ".join(differing),
        expected="the settings of this version",
        where=where,
        remedy="finish it with that version, or continue its networks in a new run: eofm pretrain "
        f"--config {quote(str(run.config))} --run.out {quote(f'{run.path}-continued')} "
        f"--model.weights null --model.continue_from {quote(str(run.checkpoint))}",
    )


def _read_yaml(file: Path) -> object:
    return read_yaml(
        file,
        ConfigError,
        "the settings of the run cannot be read",
        remedy="restore the file from a copy, or start a new run",
    )


def config_hash(config: PretrainConfig) -> str:
    """Return the sha256 of all settings that can affect the result."""
    return hashlib.sha256(json.dumps(_essence(config), sort_keys=True).encode()).hexdigest()


def environment(device: str) -> dict[str, object]:
    """Return versions, command, machine and commit, which are needed to reproduce a result."""
    return {
        "command": ["eofm", *sys.argv[1:]],
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device,
        "versions": versions_of(LIBRARIES),
        "commit": commit() or None,
    }
