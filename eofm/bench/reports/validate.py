"""`eofm bench validate`: check records by computing each of them again.

For every record the score and its interval are computed again from the predictions next to it, the
ids are hashed again and compared with the declared lists, and the plan is derived again from task
and recipe. A contradiction is a fault. Information that a record lacks, and that thus cannot be
checked, is a remark.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import eofm
from eofm.bench.config import ValidateConfig
from eofm.bench.predictions import Predictions, predictions_of
from eofm.bench.records import Result, has_checksum, record_lines, records_file
from eofm.bench.samples import whole_split
from eofm.bench.sources import CHANGED_WHY
from eofm.contract.preprocess import plan
from eofm.contract.recipe import FORCEABLE, FORCED_WHY, AcceptSize, Recipe, Waiver, waivers_for
from eofm.contract.spec import ImageSpec
from eofm.datasets.base import Task
from eofm.datasets.registry import TASKS, task_filter
from eofm.errors import ConfigError, DataError, EofmError
from eofm.formats.foreign import foreign
from eofm.formats.text import parse_json
from eofm.probes.metrics import Metric
from eofm.store.splits import SPLITS, subset_hash

__all__ = ["Checked", "Validation", "check_record", "validate"]

_SAME_INTERVAL: Final = 1e-6


@dataclass(frozen=True)
class Checked:
    """One line of a file of records.

    Args:
        line: Its number.
        about: Task, model, probe and metric, as far as they can be parsed.
        faults: Contradictions. None: the record can be trusted.
        remarks: What could not be checked, or notes for the reader.
    """

    line: int
    about: str
    faults: tuple[str, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Validation:
    """All lines of a file of records.

    Args:
        path: The file.
        checked: One per line.
    """

    path: Path
    checked: tuple[Checked, ...]

    @property
    def status(self) -> int:
        """0 if every record can be trusted, else 1."""
        return int(any(one.faults for one in self.checked))

    def describe(self) -> str:
        """Return every fault with its line, and each remark once with the number of its lines."""
        bad = [one for one in self.checked if one.faults]
        lines = [
            f"{self.path}: {len(self.checked)} records, {len(self.checked) - len(bad)} can be "
            f"trusted, {len(bad)} cannot"
        ]
        for one in bad:
            lines.append(f"line {one.line}: {one.about}")
            lines += [f"  {fault}" for fault in one.faults]
        remarks: dict[str, list[int]] = {}
        for one in self.checked:
            for remark in one.remarks:
                remarks.setdefault(remark, []).append(one.line)
        lines += [
            f"remark: {remark} ({len(numbers)} records, first line {numbers[0]})"
            for remark, numbers in remarks.items()
        ]
        return "\n".join(lines)


def validate(config: ValidateConfig) -> Validation:
    """Check every record of a file.

    Args:
        config: The settings, as on the command line.

    Raises:
        DataError: If there is no such file, or it has no record.
        ConfigError: If there is no such task, or no record of it.
    """
    path = records_file(config.results)
    lines = record_lines(path)
    if not lines:
        raise DataError("this file holds no record", where=path)
    seen: dict[str, int] = {}
    asked = task_filter(config.task)
    checked = [_line(number, line, path, seen, asked) for number, line in lines]
    kept = tuple(one for one in checked if one is not None)
    if not kept:
        raise ConfigError("no record is of this task", found=config.task, where=path)
    return Validation(path, kept)


def _line(
    number: int, line: str, path: Path, seen: dict[str, int], asked: Callable[[str], bool]
) -> Checked | None:
    """Return the check of a line; None if it is of another task than requested."""
    try:
        result = Result.from_line(line)
    except DataError as error:
        return Checked(number, "unreadable", (_first(error),), ())
    if not asked(result.task):
        return None
    faults, remarks = check_record(result, path)
    if not has_checksum(line):
        remarks = (*remarks, "has no checksum: edits of flags, plan and sample would not be seen")
    first = seen.setdefault(result.key, number)
    if first != number:
        faults = (*faults, f"the same thing was scored in line {first}")
    about = f"{result.task}, {result.model.name}, {result.probe}, {result.metric}"
    return Checked(number, about, faults, remarks)


def check_record(result: Result, path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return contradictions in a record, and what could not be checked.

    Args:
        result: The record.
        path: The file that contains it.
    """
    remarks: list[str] = []
    faults = [*_check_task(result, remarks), *_check_plan(result, remarks)]
    try:
        kept = predictions_of(result, path)
    except EofmError as error:
        faults.append(_first(error))
    else:
        faults += [*_check_ids(result, kept, remarks), *_check_interval(result, kept)]
    _remark_origin(result, remarks)
    return tuple(faults), tuple(remarks)


def _first(error: EofmError) -> str:
    """Return the problem with what was found and expected, in one line."""
    return "; ".join(line.strip() for line in str(error).splitlines()[:3] if line.strip())


# ------------------------------------------------------------------------- declarations


def _check_task(result: Result, remarks: list[str]) -> list[str]:
    task = TASKS.get(result.task)
    if task is None:
        remarks.append(f"no task is declared under the name {result.task}: nothing to hold it to")
        return []
    if task.version != result.version:
        return [f"version {result.version} of the task; this eofm declares {task.version}"]
    if task.dataset != result.sample.dataset:
        return [f"data set {result.sample.dataset}; declared is {task.dataset}"]
    return [*_check_lists(result, task)]


def _check_lists(result: Result, task: Task) -> list[str]:
    """Compare counts and hashes of a complete sample with the declared list of its split."""
    sample = result.sample
    declared = [one for one in task.splits if one.rule == whole_split(sample)]
    declared = [one for one in task.splits if one.rule == sample.split] or declared
    if not sample.complete or not declared:
        return []
    faults = []
    counts = dict(zip(SPLITS, (sample.n_train, sample.n_val, sample.n_test), strict=True))
    hashes = (sample.train_sha256, sample.val_sha256, sample.test_sha256)
    for name, found in zip(SPLITS, hashes, strict=True):
        if name == "train" and declared[0].rule != sample.split:
            continue  # a label subset without a shipped list
        if counts[name] != declared[0].counts[name]:
            faults.append(
                f"{counts[name]} {name} images; the list {declared[0].rule!r} has "
                f"{declared[0].counts[name]}"
            )
        wanted = declared[0].sha256.get(name, "")
        if found and wanted and found != wanted:
            faults.append(f"the {name} ids are not those of the list {declared[0].rule!r}")
    return faults


# -------------------------------------------------------------------------------- plans


def _check_plan(result: Result, remarks: list[str]) -> list[str]:
    model = result.model
    task = TASKS.get(result.task)
    if not model.plan_sha256:
        return []  # a control that uses images as they are
    words = [line.split()[-1] for line in model.plan if line.startswith("plan ")]
    if len(words) == 1 and not model.plan_sha256.startswith(words[0]):
        return ["the plan in words is not the one of its hash"]
    if not model.recipe:
        remarks.append("the recipe is not in the record: its plan cannot be made again")
        return []
    recipes = model.recipe.split("\n")
    if _joined([_sha256(text) for text in recipes]) != model.recipe_sha256:
        return ["the recipe is not the one of its hash"]
    if task is None:
        return []
    try:
        with foreign(DataError, "its recipe cannot be read", where=None):
            read = [Recipe.from_dict(parse_json(text)) for text in recipes]
            pairs = list(zip(task.specs, read, strict=True))
        hashes = [_replanned(result, task, spec, recipe) for spec, recipe in pairs]
    except EofmError as error:
        return [f"the plan cannot be made again: {str(error).splitlines()[0]}"]
    if _joined(hashes) != model.plan_sha256:
        return ["task, recipe and waivers give another plan than the record's"]
    return []


def _replanned(result: Result, task: Task, spec: ImageSpec, recipe: Recipe) -> str:
    """Return the hash of the plan from today's task, recipe and the record's waivers."""
    stated = result.model.waivers
    forced = FORCEABLE if any(FORCED_WHY in text for text in stated) else ()
    waivers: list[Waiver] = list(waivers_for(spec, recipe, task.waivers, forced))
    if result.of and any(text.startswith("AcceptSize(") for text in stated):
        waivers.append(AcceptSize((result.model.size, result.model.size), CHANGED_WHY))
    unstated = [str(waiver) for waiver in waivers if str(waiver) not in stated]
    if unstated:
        raise DataError(f"it needs a waiver the record does not state: {unstated[0]}")
    return plan(spec, recipe, waivers).hash


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _joined(hashes: Sequence[str]) -> str:
    return hashes[0] if len(hashes) == 1 else _sha256("+".join(hashes))


# --------------------------------------------------------------------------- predictions


def _check_ids(result: Result, kept: Predictions, remarks: list[str]) -> list[str]:
    faults = []
    # a segmentation may be counted by scenes of many images
    grouped = kept.matrices is not None or kept.prompts is not None
    if (len(kept.ids) != result.sample.n_test and not grouped) or len(set(kept.ids)) != len(
        kept.ids
    ):
        faults.append(
            f"predictions of {len(set(kept.ids))} test samples; the record says "
            f"{result.sample.n_test}"
        )
    if not result.sample.test_sha256:
        remarks.append("the ids of the test split are not hashed in the record")
    elif subset_hash(kept.ids) != result.sample.test_sha256:
        faults.append("the ids of the predictions are not those of the test split")
    task = TASKS.get(result.task)
    if task is not None and kept.classes != task.classes:
        faults.append("the classes of the predictions are not those of the task, in its order")
    if kept.fit.get("kind") != result.kind or kept.fit.get("probe") != result.probe:
        faults.append(f"the predictions are those of {kept.fit.get('probe')}")
    return faults


def _check_interval(result: Result, kept: Predictions) -> list[str]:
    metric, stated = Metric(result.metric), result.interval
    found = kept.scored([metric]).interval(metric, stated.repeats, result.seed)
    same: Callable[[float, float], bool] = lambda a, b: math.isclose(  # noqa: E731
        a, b, rel_tol=0, abs_tol=_SAME_INTERVAL
    )
    if same(found.low, stated.low) and same(found.high, stated.high):
        return []
    return [
        f"the interval is {stated.low:.4f} to {stated.high:.4f}; the predictions give "
        f"{found.low:.4f} to {found.high:.4f}"
    ]


def _remark_origin(result: Result, remarks: list[str]) -> None:
    version = result.made.versions.get("eofm", "?")
    if version != eofm.__version__:
        remarks.append(f"made with eofm {version}; this is {eofm.__version__}")
    if result.made.git.endswith("-dirty"):
        remarks.append("made from a checkout with changes that are in no commit")
    if not result.sample.complete:
        remarks.append("of a subset of the data set: not comparable with published scores")
    if result.sample.copies:
        remarks.append(f"{result.sample.copies} test samples are copies of training samples")
