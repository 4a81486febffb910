"""The folder of a run: everything a run writes, safe to delete as a whole."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shlex import quote
from typing import Any, Final, get_type_hints

import torch

from eofm.errors import ConfigError
from eofm.formats.arrays import read_torch
from eofm.formats.foreign import foreign
from eofm.formats.text import read_yaml, settings_text
from eofm.io import lock_alone, replacing, unfinished
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

# Groups of settings that change no result: a run may be resumed with others.
FREE: Final = frozenset({"run", "monitor"})
# Settings that came later, and whose default is what runs were before: older runs lack them.
# Runs of version 0.1 lack others too, as `trainer.attention`, and are refused: their views were
# drawn in another way.
LATER: Final = frozenset(
    {"method.terms", "augment.nested_scale", "augment.rgb_probability", "augment.season_pair"}
)
# Settings of `run` that belong to one start of a run: a later start has its own.
_OF_A_START: Final = ("out", "resume", "dry_run")
LIBRARIES: Final = ("eofm", "torch", "timm", "lightning", "kornia", "numpy")


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

    def is_free(self) -> bool:
        """Return whether nothing is there, or only a first file that a kill left half written."""
        mine = {unfinished(self.config), self.path / _OWNER}
        return self.path.is_dir() and mine.issuperset(self.path.iterdir())

    def check_free(self) -> None:
        """Check that a run can begin in the folder.

        Raises:
            ConfigError: If there is something in it.
        """
        if self.path.exists() and not self.is_free():
            raise ConfigError(
                "the run folder holds something already",
                found=self.path,
                expected="a new or empty folder",
                remedy="name another --run.out, delete it, or add --run.resume true to continue it",
            )

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Keep the folder for this process: two that write one run would mix their steps.

        A job that is put back into the queue may start before its first process has ended; that
        one gets some time for it.

        Raises:
            ConfigError: If another process has the folder, or it cannot be written.
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
        """Make the folder with its settings: only a run that can begin leaves anything behind."""
        self.write("config.yaml", settings_text(config))

    def write(self, name: str, text: str) -> Path:
        """Write a text file whole or not at all."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return path


_OWNER: Final = ".owner"
WAIT_S: float = 60.0


def _take(file: Path) -> int:
    """Open and lock a file that says who has its folder; return its handle."""
    until = time.monotonic() + WAIT_S
    while True:
        handle, owner = os.open(file, os.O_RDWR | os.O_CREAT, 0o666), ""
        if not lock_alone(handle):
            owner = os.read(handle, 200).decode(errors="replace") or "it does not say who it is"
        elif file.exists() and os.path.samestat(file.stat(), os.fstat(handle)):
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {platform.node()}".encode())
            return handle
        os.close(handle)  # its last owner has removed it meanwhile, or has it still
        if owner and time.monotonic() > until:
            raise ConfigError(
                "another process trains in this run folder",
                found=owner,
                where=file.parent,
                remedy="wait for it or end it, then resume; or name another --run.out",
            )
        time.sleep(0.1)


def open_folder(config: PretrainConfig) -> tuple[RunFolder, PretrainConfig]:
    """Choose a new run's folder, or resume an old one; return it with the settings to obey.

    Nothing is written: `RunFolder.start` does that once everything is known to fit.

    Returns:
        The folder, and the settings, whose `run.resume` is now plain: true or false.

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
    """Return the settings that the run has, with those that change no result where some are asked.

    Licence, checkpoints and what is evaluated stay too, though nothing is said of them: the line
    that a stopped run prints says nothing of any setting.
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
    """Return the settings of a group that are not the defaults, but for those of a start."""
    usual = asdict(type(asked)())
    return {
        key: value
        for key, value in asdict(asked).items()
        if value != usual[key] and key not in _OF_A_START
    }


def check_checkpoint(
    file: Path, config: PretrainConfig, key: str, teachers: Mapping[str, str]
) -> None:
    """Refuse a checkpoint of another run before anything of it is loaded.

    Args:
        file: The checkpoint.
        config: Of the run that is to resume.
        key: Under which a checkpoint keeps its settings.
        teachers: The sha256 of the frozen teacher's weights by term, as they are now.

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
        taught: dict[str, str] = saved[key].get("teachers", {})  # older ones do not say
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
                remedy="put the teacher's files of then back, or start a new run with another "
                "--run.out",
            )


def differing(one: PretrainConfig, other: PretrainConfig) -> list[str]:
    """Return the keys that can change the result, and are not alike."""
    left, right = _essence(one), _essence(other)
    return [
        f"{group}.{key}"
        for group, values in left.items()
        for key, value in values.items()
        if value != right[group][key]
    ]


def _essence(config: PretrainConfig) -> dict[str, dict[str, Any]]:
    """Return the settings that can change the result; of `trainer` those that do on purpose."""
    made = {group: value for group, value in asdict(config).items() if group not in FREE}
    made["trainer"] = {key: made["trainer"][key] for key in ("accumulate", "precision")}
    return made


def _value(config: PretrainConfig, key: str) -> object:
    group, _, name = key.partition(".")
    value: object = asdict(config)[group][name]
    return value


def from_dict(data: Any, where: Path | str) -> PretrainConfig:  # noqa: ANN401 (whatever YAML holds)
    """Read what `settings_text` wrote.

    Args:
        data: Settings by group and key.
        where: File they come from: config.yaml or a checkpoint of a run.

    Raises:
        ConfigError: If these are no settings, or those of another version of eofm.
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
        if name not in FREE:  # what changes no result has its default
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
    """Say how the networks of a run that another version began can be trained on."""
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
    """Return the sha256 of everything that can change the result."""
    return hashlib.sha256(json.dumps(_essence(config), sort_keys=True).encode()).hexdigest()


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
