"""Training killed again and again: what `--run.resume` finishes is the run that was not disturbed.

    python tests/campaigns/kill_training.py --kills 150 --seed 0

As in `kill_writers`: a run dies by SIGKILL at an event of the file system or at a moment, four
times of ten once more while it resumes, and is resumed to its end. Weights, metrics, evaluations,
checkpoints and the files of the folder must then be those of an undisturbed run, bit for bit (each
process has one thread). Of two processes the first, the second or both die.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import kill_writers
import torch
from kill_writers import Scenario, digests
from miniature_files import Miniature

from eofm.contract.imagery import NativeImagery
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.formats.arrays import read_torch
from eofm.method import SoftUnit
from eofm.store.format import LabelRule, StoreCard
from eofm.train import distributed
from eofm.train import run as train_run
from eofm.train.config import (
    DataConfig,
    ModelConfig,
    MonitorConfig,
    OptimConfig,
    PretrainConfig,
    RunConfig,
    SoftConConfig,
    TrainerConfig,
)
from eofm.train.run import pretrain

_SIZE: Final = 36
_SCENES: Final = 32
# Files that say when something was, or how long it took.
_TIMED: Final = frozenset({"environment.json", "pace.jsonl", "pace.csv", "report.md"})


@dataclass(frozen=True)
class Textured(Miniature):
    """Images that differ in every pixel: another image, or another view of it, is another loss."""

    def imagery(self, i: int) -> NativeImagery:
        """Return image number i."""
        generator = torch.Generator().manual_seed(i)
        planes = {}
        for gsd, bands in self.card.groups.items():
            shape = (1, len(bands), _SIZE * 10 // gsd, _SIZE * 10 // gsd)
            drawn = torch.randint(300, 3000, shape, generator=generator)
            planes[gsd] = drawn.to(torch.uint16)
        valid = torch.ones(1, _SIZE, _SIZE, dtype=torch.bool)
        return NativeImagery(planes, dict(self.card.groups), self.card.spec, valid)


def write_store(path: Path) -> Path:
    """Write what is trained on: 16 places of two images each."""
    spec = ImageSpec(Sensor.S2_L1C, ("B02", "B8A", "B09"), Unit.DN, (_SIZE, _SIZE), 10.0)
    groups = {10: ("B02",), 20: ("B8A",), 60: ("B09",)}
    rule = LabelRule("mine", ("water", "trees", "crops"), 0.0, 0.25)
    return Textured(StoreCard(spec, groups, rule, {"n": 1})).store(path, _SCENES)


def settings(store: Path) -> PretrainConfig:
    """Two epochs of few steps in the folder `out` of the working directory, a second on a CPU."""
    return PretrainConfig(
        data=DataConfig(store=str(store), holdout=0.25),
        model=ModelConfig(architecture="vit-tiny-14-2blocks", size=28),
        method=SoftConConfig(hidden=16, dim=8, mask_ratio=0.5, soft_unit=SoftUnit.PLAIN),
        optim=OptimConfig(epochs=2, batch=8, lr=1e-2),
        trainer=TrainerConfig(accelerator="cpu"),
        run=RunConfig(
            out="out", figures=False, threads=1, checkpoint_steps=1, checkpoint_minutes=0.0
        ),
        monitor=MonitorConfig(scenes=8, collapse_std=0.0),
    )


def train(config: PretrainConfig, folder: Path) -> None:
    """Begin a run in a folder, or resume the one that is there: what matters is in the folder."""
    os.chdir(folder)
    begun = (folder / "out" / "config.yaml").is_file()
    pretrain(PretrainConfig(run=replace(config.run, resume=True)) if begun else config)


# ----------------------------------------------------------------------------- what is compared


def finished(folder: Path) -> dict[str, object]:
    """All that a finished run has, in a form that can be compared."""
    out = folder / "out"
    said: dict[str, object] = {
        name: sha256
        for name, sha256 in digests(out).items()
        if name not in _TIMED and not name.startswith("checkpoints/")
    }
    said["config.yaml"] = sorted((out / "config.yaml").read_text().splitlines())
    said["results.json"] = _untimed(json.loads((out / "results.json").read_text()))
    said["files"] = sorted(digests(out))
    for file in sorted((out / "checkpoints").iterdir()):
        said[f"checkpoints/{file.name}"] = _tensors(read_torch(file))
    return said


def _untimed(record: Mapping[str, Any]) -> dict[str, Any]:
    # the checksum covers the times
    kept = {key: value for key, value in record.items() if key != "checksum"}
    return {key: value for key, value in kept.items() if "seconds" not in key}


def _tensors(saved: Mapping[str, Any]) -> str:
    """The sha256 of networks, optimizer and random states, and of the step."""
    content = hashlib.sha256()

    def take(value: object) -> None:
        if isinstance(value, torch.Tensor):
            content.update(value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(value, Mapping):
            for key in sorted(value, key=str):
                content.update(str(key).encode())
                take(value[key])
        elif isinstance(value, list | tuple):
            for part in value:
                take(part)
        else:
            content.update(repr(value).encode())

    for key in ("epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers"):
        take(saved[key])
    take(saved["random_sources"])
    return content.hexdigest()


# ---------------------------------------------------------------------------- several processes


class Forked:
    """The second process of a run, without the seconds in which it would import libraries.

    Args:
        words: How it would be started: Python, -m, module and accelerator.
        env: Its environment.
        stdout: Where its output goes: nowhere.
    """

    def __init__(self, words: Sequence[str], env: Mapping[str, str], stdout: int) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os._exit(self._main(words, env))

    @staticmethod
    def _main(words: Sequence[str], env: Mapping[str, str]) -> int:
        kill_writers.disarm()
        os.closerange(3, 4096)  # sockets of the first process, which must close with it
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.environ.clear()
        os.environ.update(env)
        sys.argv = list(words[2:])
        try:
            return train_run.main()
        except SystemExit as done:
            return int(done.code or 0)
        except BaseException:
            traceback.print_exc()
            return 70

    def poll(self) -> int | None:
        """Return how it ended, None if it has not."""
        if self.returncode is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float = float("inf")) -> int:
        """Wait until it has ended."""
        until = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("the second process", timeout)
            time.sleep(0.01)
        return int(self.returncode or 0)

    def kill(self) -> None:
        """Kill it."""
        if self.poll() is None:
            os.kill(self.pid, 9)


def _together(folder: Path, config: PretrainConfig) -> None:
    names = ("DEVNULL", "TimeoutExpired")
    plain = {name: getattr(subprocess, name) for name in names}
    distributed.subprocess = SimpleNamespace(Popen=Forked, **plain)  # type: ignore[assignment]
    train(config, folder)


# ------------------------------------------------------------------------------- the scenarios


def scenarios(store: Path) -> dict[str, Scenario]:
    """A plain run, one with everything that is kept beside it, and one of two processes."""
    plain = settings(store)
    rich = replace(
        plain,
        data=replace(plain.data, balance="rarity", views="seasons"),
        method=replace(plain.method, queue=4),
        optim=replace(plain.optim, batch=4, schedule="wsd", anneal=0.4),
        trainer=replace(plain.trainer, accumulate=2),
        run=replace(plain.run, checkpoint_steps=1, checkpoint_keep=1),
    )
    two = replace(  # nothing is held out and evaluated: there is more training in a second
        plain,
        data=replace(plain.data, holdout=0.0),
        trainer=replace(plain.trainer, devices=2),
        monitor=replace(plain.monitor, every_epochs=0),
    )

    def alone(config: PretrainConfig) -> Callable[[Path], None]:
        return lambda folder: train(config, folder)

    return {
        "one process": Scenario(alone(plain), outcome=finished, by_clock=0.5),
        "one process, all options": Scenario(alone(rich), outcome=finished, by_clock=0.5),
        "two processes": Scenario(
            lambda folder: _together(folder, two),
            outcome=finished,
            by_clock=0.6,
            victims=("process", "other", "all"),
        ),
    }


def make(folder: Path) -> dict[str, Scenario]:
    """Write what is trained on, and return the runs."""
    return scenarios(write_store(folder / "store"))


if __name__ == "__main__":
    sys.exit(kill_writers.command(__doc__.splitlines()[0], 150, make))
