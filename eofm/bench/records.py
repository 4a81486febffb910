"""Records: one score each, with its provenance; appended and never edited.

Every table is generated from them. In addition to the value, a record contains the versions of
libraries, the commit, and the cost of an embedding: the number of executed parameters. A network
often has unused parts (the tower of the other sensor, a head, a decoder), which published counts
include (CROMA: twice as many). Here a parameter counts if it is used by an operation between the
pixels and the vector, in whatever module it is. The text on what intervals resample is generated
from the sample of the record.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from eofm.bench.sources import FeatureSource, Identity
from eofm.contract.imagery import Imagery
from eofm.errors import DataError
from eofm.formats.foreign import foreign, opened, read_bounded, sealed
from eofm.formats.text import parse_json, split_lines
from eofm.io import awaited
from eofm.probes.bootstrap import FEW_GROUPS, FEWEST_GROUPS, TOO_NARROW, Interval, enough_groups

__all__ = [
    "Made",
    "Result",
    "Sample",
    "append_results",
    "device_name",
    "executed_parameters",
    "has_checksum",
    "over",
    "peak_memory_mb",
    "read_results",
    "record_lines",
    "records_file",
    "resampled",
    "resampled_notes",
]

if sys.platform != "win32":
    import resource


@dataclass(frozen=True)
class Sample:
    """The samples of a data set that were used.

    Args:
        dataset: Data set and revision.
        split: Description of the split.
        ids_sha256: Hash of the ids in train, val and test.
        data_sha256: Hash of ids and bytes of all images.
        n_train: Number of training samples.
        n_val: Number of validation samples.
        n_test: Number of test samples scored.
        complete: Whether these are all samples of the data set.
        copies: Number of test samples whose file equals one of train or val.
        labels: Description of the share of the training labels; empty for all.
        draw: Number of the draw of that share.
        train_sha256: Hash of the ids in train.
        val_sha256: Hash of the ids in val.
        test_sha256: Hash of the ids in test.
        groups: Number of groups of test samples, which intervals resample. 0: the record has no
            groups, as in eofm 0.1, and its interval resamples single samples.
        grouping: Name of the groups, in the plural.
        grouped_by: Source of the groups; or why they are unknown, and every sample is one.
        grouped: Whether they are known.
        groups_sha256: Hash of the group of every test sample; empty if every sample is a group.
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
    groups: int = 0
    grouping: str = ""
    grouped_by: str = ""
    grouped: bool = False
    groups_sha256: str = ""

    @property
    def units(self) -> int:
        """Number of groups of test samples, or of samples if the record has no groups."""
        return self.groups or self.n_test

    @property
    def unit_name(self) -> str:
        """Name of these units, in the plural."""
        return self.grouping or "test samples"

    @property
    def ungrouped(self) -> Sample:
        """The same images without groups."""
        return replace(self, groups=0, grouping="", grouped_by="", grouped=False, groups_sha256="")


@dataclass(frozen=True)
class Made:
    """Provenance of a record. None of this should change its value.

    Args:
        command: Command that repeats it.
        utc: Time of writing.
        versions: Versions of the libraries.
        git: Commit of eofm, if it ran from a checkout; `-dirty` if that had changes.
        device: Device of the networks.
        feature_seconds: Time of reading and embedding, for all models of the run together.
        probe_seconds: Time of this probe.
        peak_memory_mb: Peak memory of the process so far.
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
    """One score, with everything needed to judge and repeat it.

    Args:
        task: Name of the task.
        version: Version of the task.
        sample: Samples it was scored on.
        model: Model that was scored.
        probe: Id of the probe with all choices.
        strength: Chosen C of a linear probe.
        gradient_norm: Gradient norm of the final linear fit.
        metric: Id of the metric.
        value: Between 0 and 1.
        interval: Percentile bootstrap over groups of test samples. Tables show
            `shown_interval`.
        seed: Seed of the resampling and of untrained networks.
        flags: Warnings for the reader.
        made: Provenance.
        kind: Key of the probe in `eofm.bench.probes.KINDS`.
        rank: Effective rank of the training features.
        lead: Share of the first direction of their singular values (`eofm.probes.features`).
        alpha: Exponent of the decay of their eigenvalues; None for few features.
        predictions: File of the scores of every test sample, next to the records; empty if none.
        predictions_sha256: Hash of that file.
        of: Name of the original model, if this is one with a changed input; else empty.
        parameters: Number of parameters executed for an embedding; None if not counted.
        chosen: Description of what a probe other than a plain linear one has chosen on val.
        details: Settings and sources of a probe, by name.
        normalization: Input normalisation, as on the command line; empty for the recipe's own.
        train_counts: Number of training images of each class, in the order of the task; for a
            segmentation, of labelled pixels. Empty in records that were written without.
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
    lead: float | None = None
    alpha: float | None = None
    predictions: str = ""
    predictions_sha256: str = ""
    of: str = ""
    parameters: int | None = None
    chosen: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
    normalization: str = ""
    train_counts: tuple[int, ...] = ()

    def __repr__(self) -> str:
        """Return the score in one line; `to_line` has the full record."""
        shown, ends = self.shown_interval, "no interval"
        if shown is not None:
            ends = f"{100 * shown.low:.1f} – {100 * shown.high:.1f}"
        return (
            f"Result({self.task}, {self.model.name}, {self.probe}: {self.metric} "
            f"{100 * self.value:.1f} % ({ends}), {self.sample.n_test:,} test samples)"
        )

    @property
    def shown_interval(self) -> Interval | None:
        """The interval; None if there are too few groups for an interval."""
        return self.interval if enough_groups(self.sample.units) else None

    @property
    def key(self) -> str:
        """sha256 of everything that determines the value: what was scored, and how."""
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
        return json.dumps(sealed({"key": self.key, **asdict(self)}), ensure_ascii=False) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Result:
        """Parse the output of `to_line`.

        Raises:
            DataError: If it is not a record, its key or its checksum does not match its content, or
                its score is invalid.
        """
        with foreign(DataError, "this line is no result", where=None):
            data, whole = opened(parse_json(line, nan=True))
            key = data.pop("key")
            data["sample"] = _sample(data["sample"])
            data["model"] = Identity(**_with_tuples(data["model"], "plan", "waivers"))
            data["interval"] = Interval(**data["interval"])
            data["made"] = Made(**data["made"])
            counts = tuple(data.pop("train_counts", ()))
            result = cls(**_with_tuples(data, "flags"), train_counts=counts)
            if key != result.key:
                raise DataError(
                    "this record was edited: its key does not match its content",
                    found=key,
                    expected=result.key,
                )
            if whole is False:
                raise DataError(
                    "this record was edited or damaged: its checksum does not match its content",
                    found=f"{result.model.name}, {result.probe}, {result.metric}",
                )
            _check_score(result)
        return result


def _sample(data: Mapping[str, Any]) -> Sample:
    """Return the sample of a record. Some records after eofm 0.1 had two other fields."""
    return Sample(**{name: data[name] for name in data if name not in {"clusters", "cluster"}})


def _check_score(result: Result) -> None:
    """Check that score and interval are numbers from 0 to 1."""
    numbers = (result.value, result.interval.low, result.interval.high)
    if not all(type(one) in (int, float) and -_SAME <= one <= 1 + _SAME for one in numbers):
        raise DataError(
            "the score of this record is invalid",
            found="{}, interval {} to {}".format(*numbers),
            expected="numbers from 0 to 1",
        )


def has_checksum(line: str) -> bool:
    """Return whether a line of records has a checksum; those of eofm 0.1 have none."""
    return opened(parse_json(line, nan=True))[1] is not None


def _with_tuples(data: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {**data, **{name: tuple(data[name]) for name in names}}


_SAME: Final = 1e-9
_FILE_BYTES: Final = 2**28


# The file of records in a folder.
_IN_FOLDER: Final = "results.jsonl"


def records_file(name: str) -> Path:
    """Return the file of records for a name: for a folder, `results.jsonl` in it.

    A name without a suffix, or with a slash at its end, is a folder, whether or not it exists.
    An existing file of that name is used, however, since earlier versions wrote such files.

    Args:
        name: As `--out` or a file of records on the command line.
    """
    path = Path(name)
    plain = not path.suffix or name.endswith(("/", os.sep))
    folder = path.is_dir() or (plain and not path.is_file())
    return path / _IN_FOLDER if folder else path


def read_results(path: Path) -> list[Result]:
    """Return the records of a file; empty if there is no such file.

    Raises:
        DataError: If a line is incomplete or not a record.
    """
    if not path.is_file():
        return []
    results = []
    for number, line in record_lines(path):
        try:
            results.append(Result.from_line(line))
        except DataError as error:
            error.where = f"{path}, line {number}"
            error.remedy = "move that line away, or name another file with --out"
            raise
    return results


def record_lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines of a file of records with their numbers.

    Raises:
        DataError: If it cannot be read.
    """
    with foreign(DataError, "there is no file of records that can be read", where=path):
        lines = split_lines(read_bounded(path, _FILE_BYTES))
        return [(number, line.decode("utf-8")) for number, line in lines]


def append_results(path: Path, results: Sequence[Result]) -> int:
    """Append records that the file does not have; return their number.

    Either all or none are written. Other processes may append at the same time.

    Raises:
        DataError: If the file has one of them with another value (`conflicting duplicate`), is
            incomplete, or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with awaited(path.with_name(f".{path.name}.lock")):
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


def peak_memory_mb() -> float | None:
    """Return the peak resident memory of the process so far, if the system reports it."""
    if sys.platform == "win32":
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)  # bytes there, kB elsewhere


def device_name(device: torch.device) -> str:
    """Return the name of a device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} threads"


class _Watch(TorchFunctionMode):
    """Records every parameter that is an argument of an operation while a module computes.

    Outside of modules, parameters are accessed for other reasons, such as their device or a hash.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, int] = {}
        self._depth = 0

    @contextmanager
    def on(self) -> Iterator[None]:
        """Record while the context is open."""

        def enter(module: nn.Module, inputs: object) -> None:
            self._depth += 1

        def leave(module: nn.Module, inputs: object, outputs: object) -> None:
            self._depth -= 1

        before = register_module_forward_pre_hook(enter)
        after = register_module_forward_hook(leave, always_call=True)
        try:
            with self:
                yield
        finally:
            before.remove()
            after.remove()

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Iterable[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        if self._depth:
            self._note(args)
            self._note((kwargs or {}).values())
        return func(*args, **(kwargs or {}))

    def _note(self, values: Iterable[object]) -> None:
        for value in values:
            if isinstance(value, nn.Parameter):
                self.seen[id(value)] = value.numel()
            elif isinstance(value, list | tuple):
                self._note(value)


def executed_parameters(source: FeatureSource, imagery: Imagery) -> int:
    """Return the number of parameters executed when a model embeds an image; 0 without a network.

    Args:
        source: The model.
        imagery: One image is enough.
    """
    watch = _Watch()
    with watch.on():
        source.embed(imagery)
    return sum(watch.seen.values())


# -------------------------------------------------------------------------- what intervals resample


def resampled(sample: Sample) -> str:
    """Return what the intervals of a record resample, as a clause with its caveats.

    Args:
        sample: Sample of the record. If it has no groups (eofm 0.1), the text says so.
    """
    units = sample.units
    if not enough_groups(units):
        return _too_few(sample)
    if sample.grouped:
        found = (
            f"intervals resample {units:,} {sample.grouping} of {sample.n_test:,} test samples: "
            f"{sample.grouped_by}"
        )
    elif sample.groups:
        found = (
            f"intervals resample {units:,} {sample.grouping} one by one: {sample.grouped_by}. "
            "Those that resemble their neighbours make intervals too narrow"
        )
    else:
        found = (
            f"intervals resample {units:,} test samples one by one: the record was written without "
            "groups. To resample groups, run the benchmark again with another --out"
        )
    return f"{found}. **{units} are few**: {TOO_NARROW}" if units < FEW_GROUPS else found


def _too_few(sample: Sample) -> str:
    """Return a text: too few groups of test samples, no interval, and the remedy."""
    units = sample.units
    if sample.grouped and units == 1:
        found = (
            f"all test samples ({sample.n_test:,}) are of one group, where {sample.grouping} are "
            f"groups: {sample.grouped_by}"
        )
    elif sample.grouped:
        found = (
            f"the {sample.n_test:,} test samples are of {units} {sample.grouping}: "
            f"{sample.grouped_by}"
        )
    else:
        why = f": {sample.grouped_by}" if sample.groups else ""
        found = f"the test samples count one by one, and are {units}{why}"
    return (
        f"{found}. **With {'one' if units == 1 else units} there is no interval**, and no model is "
        f"told from another: score test images of {FEWEST_GROUPS} {sample.unit_name} or more"
    )


def over(sample: Sample, level: float) -> str:
    """Return a caption for an interval: `95 % interval over 12 products`, or that there is none.

    Args:
        sample: Sample of the record.
        level: Level of its interval.
    """
    what = f"{sample.groups:,} {sample.grouping}" if sample.groups else "test samples"
    if not enough_groups(sample.units):
        return f"no interval: {sample.units} {sample.unit_name} are too few"
    return f"{100 * level:g} % interval over {what}"


def resampled_notes(results: Iterable[Result]) -> list[str]:
    """Return what the intervals of records resample, by model if records differ in it.

    Args:
        results: Records of the same test samples.
    """
    models: dict[str, dict[str, None]] = {}
    for result in results:
        models.setdefault(resampled(result.sample), {})[result.model.name] = None
    if len(models) == 1:
        (words,) = models
        return [f"{words[0].upper()}{words[1:]}."]
    return [f"{', '.join(names)}: {words}." for words, names in models.items()]
