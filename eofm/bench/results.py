"""Results are records, appended and never edited; every table is made from them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from eofm.bench.features import Identity
from eofm.errors import DataError
from eofm.probes.bootstrap import Interval

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


@dataclass(frozen=True)
class Sample:
    """Which samples of a data set were used.

    Args:
        dataset: Data set and revision.
        split: How its samples were divided.
        ids_sha256: Of the ids in train, val and test.
        data_sha256: Of ids and bytes of all images.
        n_train: Number of training samples.
        n_val: Number of validation samples.
        n_test: Number of test samples scored.
        complete: Whether these are all samples of the data set.
        copies: Test samples whose file equals one of train or val.
        labels: Share of the training labels, in words; empty for all.
        draw: Which draw of that share.
        train_sha256: Of the ids in train.
        val_sha256: Of the ids in val.
        test_sha256: Of the ids in test.
    """

    dataset: str
    split: str
    ids_sha256: str
    data_sha256: str
    n_train: int
    n_val: int
    n_test: int
    complete: bool
    copies: int
    labels: str = ""
    draw: int = 0
    train_sha256: str = ""
    val_sha256: str = ""
    test_sha256: str = ""


@dataclass(frozen=True)
class Made:
    """How a record was made. None of this should change its value.

    Args:
        command: Repeats it.
        utc: When.
        versions: Of the libraries.
        git: Commit of eofm, if it ran from a checkout; `-dirty` if that had changes.
        device: What the networks ran on.
        feature_seconds: Spent on reading and embedding, for all models of the run together.
        probe_seconds: Spent on this probe.
        peak_memory_mb: Largest memory of the process so far.
    """

    command: str
    utc: str
    versions: Mapping[str, str]
    git: str
    device: str
    feature_seconds: float
    probe_seconds: float
    peak_memory_mb: float | None


@dataclass(frozen=True)
class Result:
    """One score, with all that is needed to judge and to repeat it.

    Args:
        task: Name of the task.
        version: Of the task.
        sample: What it was scored on.
        model: What was scored.
        probe: Id of the probe with all choices.
        strength: Chosen C of a linear probe.
        gradient_norm: Of the final linear fit.
        metric: Id of the metric.
        value: Between 0 and 1.
        interval: Percentile bootstrap over test samples.
        seed: Of the resampling and of untrained networks.
        flags: What a reader must be told.
        made: How.
        kind: Key of the probe in `eofm.bench.score.KINDS`.
        rank: Effective rank of the training features.
        predictions: File of the scores of every test sample, beside the records; empty if none.
        predictions_sha256: Of that file.
        of: Name of the model of which this is one with another input size; else empty.
        parameters: Number of parameters that took part in an embedding; None if not counted.
        chosen: What a probe that is no plain linear one has chosen on val, in words.
        details: Settings and sources of a probe, by name.
    """

    task: str
    version: str
    sample: Sample
    model: Identity
    probe: str
    strength: float | None
    gradient_norm: float | None
    metric: str
    value: float
    interval: Interval
    seed: int
    flags: tuple[str, ...]
    made: Made
    kind: str = ""
    rank: float | None = None
    predictions: str = ""
    predictions_sha256: str = ""
    of: str = ""
    parameters: int | None = None
    chosen: str = ""
    details: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """sha256 of what was scored and how: of all that determines the value."""
        sample, model = self.sample, self.model
        content = [
            *(self.task, self.version, self.probe, self.metric, self.seed),
            *(sample.dataset, sample.split, sample.ids_sha256, sample.data_sha256),
            *(model.name, model.weights_sha256, model.recipe_sha256, model.plan_sha256),
            *model.waivers,
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def to_line(self) -> str:
        """Return the record as one line of JSON."""
        return json.dumps({"key": self.key, **asdict(self)}, ensure_ascii=False) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Result:
        """Read what `to_line` wrote.

        Raises:
            DataError: If it is no record, or its key is not that of its content.
        """
        try:
            data = json.loads(line)
            key = data.pop("key")
            data["sample"] = Sample(**data["sample"])
            data["model"] = Identity(**_with_tuples(data["model"], "plan", "waivers"))
            data["interval"] = Interval(**data["interval"])
            data["made"] = Made(**data["made"])
            result = cls(**_with_tuples(data, "flags"))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError("this line is no result", found=error) from error
        if key != result.key:
            raise DataError(
                "this record was edited: its key is not that of its content",
                found=key,
                expected=result.key,
            )
        return result


def _with_tuples(data: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {**data, **{name: tuple(data[name]) for name in names}}


_SAME: Final = 1e-9


def read_results(path: Path) -> list[Result]:
    """Return the records of a file; none if there is no such file.

    Raises:
        DataError: If a line is torn or foreign.
    """
    if not path.is_file():
        return []
    results = []
    # not `splitlines`: a name may hold U+2028, which ends no line of JSON
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line:
            continue
        try:
            results.append(Result.from_line(line))
        except DataError as error:
            error.where = f"{path}, line {number}"
            error.remedy = "move that line away, or name another file with --out"
            raise
    return results


def append_results(path: Path, results: Sequence[Result]) -> int:
    """Append records that the file does not have; return how many that were.

    Either all of them are written or none. Other processes may append at the same time.

    Raises:
        DataError: If the file has one of them with another value (`conflicting duplicate`), is
            torn, or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            known = {result.key: result for result in read_results(path)}
            fresh = []
            for result in results:
                if _is_fresh(result, known, path):
                    fresh.append(result)
                    known[result.key] = result
            with path.open("ab") as file:
                file.write("".join(result.to_line() for result in fresh).encode())
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise DataError(
            "results cannot be written", found=error, where=path, remedy="name another --out"
        ) from error
    return len(fresh)


def _is_fresh(result: Result, known: Mapping[str, Result], path: Path) -> bool:
    if result.key not in known:
        return True
    old = known[result.key]
    if not math.isclose(old.value, result.value, rel_tol=0, abs_tol=_SAME):
        raise DataError(
            "conflicting duplicate: the same thing was scored before, with another value",
            found=f"{result.model.name}, {result.probe}, {result.metric} = {result.value:.6f}",
            expected=f"{old.value:.6f}, as on {old.made.utc} with eofm {old.made.versions['eofm']}",
            where=path,
            remedy="find out what changed (compare versions and git); "
            "name another --out to keep both",
        )
    return False


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with the process, on a file beside `path`."""
    with path.with_name(f".{path.name}.lock").open("a+b") as handle:
        if sys.platform == "win32":
            msvcrt.locking(handle.fileno(), msvcrt.LK_LOCK, 1)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
