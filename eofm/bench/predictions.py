"""Predictions of a probe for every test sample, stored next to the records.

They are used to compute scores again, to compare models on the same samples, to draw figures, and
to avoid fitting a probe twice. A file is named by its request: the sha256 of everything that the
predictions depend on, including the code of the probes.

Shapes: M test samples, K classes.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eofm.bench.features import code_sha256
from eofm.bench.probes import KINDS, NMTUNE, Scored, Splits, probe_of, resampled_metrics, run_probe
from eofm.bench.records import Result, Sample
from eofm.bench.segmentation import WIDTH, prompt_metrics, resampled_segmentation
from eofm.bench.sources import Identity
from eofm.datasets.images.chips import groups_sha256
from eofm.errors import DataError
from eofm.formats.arrays import read_npz
from eofm.formats.foreign import foreign, fresh_sha256, read_bounded
from eofm.formats.text import parse_json
from eofm.probes import features as probed
from eofm.probes import knn as nearest
from eofm.probes import linear as probe
from eofm.probes import logistic, nmtune
from eofm.probes.bootstrap import Resampled, group_numbers
from eofm.probes.features import ProbeResult, Scaling, Spectrum
from eofm.probes.metrics import Metric

__all__ = [
    "FOLDER",
    "Archive",
    "Group",
    "Predictions",
    "load_predictions",
    "predictions_of",
    "request_sha256",
    "write_predictions",
]

FOLDER: Final = "predictions"
_BYTES: Final = 2**31


@dataclass(frozen=True)
class Predictions:
    """Predictions for a test split.

    Args:
        ids: Ids of the samples, in row order.
        classes: Names of the classes, in column order.
        scores: float64, (M, K).
        probability: float64, (M, K), or None if the probe has none.
        target: (M,) class indices, or (M, K).
        fit: Other outputs of the probe: id, strength, ...
        matrices: int64, (M, K, K): confusion matrices of pixels. For a segmentation, whose scores
            are computed only from them; `scores` and `target` then count pixels.
        prompts: float32, (M, K, W): sums of the prompt probe, from which its scores are computed
            (`eofm.bench.segmentation`); `target` then counts pixels.
        groups: Name of the group of each sample; empty in files of eofm 0.1, which had none.
        countries: Country of each sample; empty if unknown.
    """

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    scores: Tensor
    probability: Tensor | None
    target: Tensor
    fit: dict[str, object]
    matrices: Tensor | None = None
    prompts: Tensor | None = None
    groups: tuple[str, ...] = ()
    countries: tuple[str, ...] = ()

    def at(self, rows: Sequence[int]) -> Predictions:
        """Return the predictions of some of the samples.

        Args:
            rows: Indices of the samples.
        """
        index = torch.tensor(rows)
        return replace(
            self,
            ids=tuple(self.ids[row] for row in rows),
            scores=self.scores[index],
            probability=None if self.probability is None else self.probability[index],
            target=self.target[index],
            matrices=None if self.matrices is None else self.matrices[index],
            prompts=None if self.prompts is None else self.prompts[index],
            groups=tuple(self.groups[row] for row in rows if self.groups),
            countries=tuple(self.countries[row] for row in rows if self.countries),
        )

    @property
    def numbers(self) -> Tensor | None:
        """Group number of each sample, int64 (M,), for resampling; None: no groups."""
        return _numbers(self.groups)

    @property
    def comparable(self) -> Tensor:
        """Scores that can be ranked over the samples, (M, K).

        For single-label tasks, logits of different samples are not comparable.
        """
        sure = None if self.target.ndim == 2 else self.probability
        return self.scores if sure is None else sure

    def result(self) -> ProbeResult:
        """Return the result of the probe."""
        strength, norm = self.fit["strength"], self.fit["gradient_norm"]
        tried, notes = self.fit["validation"], self.fit.get("notes")
        details = self.fit.get("details")
        return ProbeResult(
            probe=str(self.fit["probe"]),
            scores=self.scores,
            probability=self.probability,
            strength=strength if isinstance(strength, float) else None,
            on_edge=bool(self.fit["on_edge"]),
            gradient_norm=norm if isinstance(norm, float) else None,
            validation=tuple((c, v) for c, v in tried) if isinstance(tried, list) else (),
            chosen=str(self.fit.get("chosen", "")),
            notes=tuple(notes) if isinstance(notes, list) else (),
            details=details if isinstance(details, dict) else {},
        )

    def scored(self, metrics: Sequence[Metric]) -> Scored:
        """Return the value of `run_probe` for these metrics, with a time of zero."""
        return Scored(
            kind=str(self.fit["kind"]),
            probe=self.result(),
            metrics=self._resampled(metrics),
            samples=len(self.target),
            seconds=0.0,
            spectrum=_spectrum_in(self.fit),
            narrow=bool(self.fit.get("narrow")),
            matrices=self.matrices,
            prompts=self.prompts,
            groups=self.numbers,
        )

    def _resampled(self, metrics: Sequence[Metric]) -> dict[Metric, Resampled]:
        if self.prompts is not None:
            return prompt_metrics(self.prompts, metrics)
        if self.matrices is not None:
            return {metric: resampled_segmentation(self.matrices, metric) for metric in metrics}
        return resampled_metrics(self.result(), self.target, metrics)


def _numbers(groups: Sequence[str]) -> Tensor | None:
    return group_numbers(groups) if len(set(groups)) < len(groups) else None


def request_sha256(
    task: str,
    sample: Sample,
    model: Identity,
    choices: Sequence[object],
    code: Iterable[ModuleType],
) -> str:
    """Return the name of the predictions: the sha256 of everything they depend on.

    Args:
        task: Name and version of the task.
        sample: Images and split.
        model: Model; its name in tables is ignored.
        choices: Settings of the probe, its kind first.
        code: Modules that implement the probe.
    """
    files = (str(module.__file__) for module in code)
    content = [
        *(task, sample.dataset, sample.split, sample.ids_sha256, sample.data_sha256),
        *([sample.groups_sha256] if sample.groups_sha256 else []),
        *(model.about if not model.weights_sha256 else "", model.weights_sha256),
        *(model.recipe_sha256, model.plan_sha256, *model.waivers),
        *(*choices, code_sha256(*files)),
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def write_predictions(
    folder: Path,
    request: str,
    scored: Scored,
    target: Tensor,
    ids: Sequence[str],
    classes: Sequence[str],
    groups: Sequence[str] = (),
    countries: Sequence[str] = (),
) -> str:
    """Write the predictions of a request atomically; return the sha256 of the file.

    Args:
        folder: Output folder, created if needed.
        request: File name without suffix.
        scored: Predictions of the probe.
        target: (M,) or (M, K).
        ids: Ids of the test samples, M.
        classes: Names, K.
        groups: Name of the group of each test sample, M; empty if every sample is a group.
        countries: Country of each test sample, M; empty if unknown.

    Raises:
        DataError: If ids repeat or do not match the scores, or the folder cannot be written.
    """
    outcome = scored.probe
    if len(set(ids)) != len(outcome.scores) or len(ids) != len(outcome.scores):
        raise DataError(
            "the test split and its predictions do not match",
            found=f"{len(ids)} ids, {len(set(ids))} different",
            expected=f"{len(outcome.scores)}",
            where=scored.kind,
        )
    arrays = {
        "ids": np.array(list(ids)),
        "classes": np.array(list(classes)),
        "groups": np.array(list(groups or ids)),
        "scores": outcome.scores.numpy(),
        "target": target.numpy(),
        "fit": np.array(json.dumps(_fit_of(scored))),
    }
    if any(countries):
        arrays["countries"] = np.array(list(countries))
    more = {"matrices": scored.matrices, "prompts": scored.prompts}
    for name, tensor in {"probability": outcome.probability, **more}.items():
        if tensor is not None:
            arrays[name] = tensor.numpy()
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    path = folder / f"{request}.npz"
    temporary = folder / f".{request}.{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(buffer.getvalue())
        temporary.replace(path)
    except OSError as error:
        raise DataError(
            "predictions cannot be kept", found=error, where=folder, remedy="name another --out"
        ) from error
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def _fit_of(scored: Scored) -> dict[str, object]:
    """Return the other outputs of a probe for JSON."""
    outcome = scored.probe
    return {
        "kind": scored.kind,
        "probe": outcome.probe,
        "strength": outcome.strength,
        "on_edge": outcome.on_edge,
        "gradient_norm": outcome.gradient_norm,
        "validation": [list(pair) for pair in outcome.validation],
        **({"rank": None} if scored.spectrum is None else asdict(scored.spectrum)),
        "narrow": scored.narrow,
        "chosen": outcome.chosen,
        "notes": list(outcome.notes),
        "details": dict(outcome.details),
    }


def _spectrum_in(fit: Mapping[str, object]) -> Spectrum | None:
    """Return the spectrum stored with predictions; those of eofm 0.1 have only the rank."""
    rank, lead, alpha = (
        value if isinstance(value, float) else None
        for value in (fit["rank"], fit.get("lead"), fit.get("alpha"))
    )
    return None if rank is None else Spectrum(rank, lead, alpha)


def load_predictions(path: Path) -> Predictions:
    """Read predictions written by `write_predictions`.

    Raises:
        DataError: If there is no such file, or it is damaged.
    """
    with foreign(
        DataError,
        "there are no predictions here that can be read",
        where=path,
        remedy="run the benchmark again: it fits the probe again",
    ):
        data = read_npz(read_bounded(path, _BYTES))
        probability, matrices = data.get("probability"), data.get("matrices")
        prompts = data.get("prompts")
        found = Predictions(
            ids=tuple(map(str, data["ids"].tolist())),
            classes=tuple(map(str, data["classes"].tolist())),
            scores=torch.from_numpy(data["scores"]),
            probability=None if probability is None else torch.from_numpy(probability),
            target=torch.from_numpy(data["target"]),
            fit=parse_json(str(data["fit"])),
            matrices=None if matrices is None else torch.from_numpy(matrices),
            prompts=None if prompts is None else torch.from_numpy(prompts),
            groups=_words(data, "groups"),
            countries=_words(data, "countries"),
        )
        _check_shapes(found)
        found.result()
        return found


def _words(data: Mapping[str, NDArray[np.generic]], name: str) -> tuple[str, ...]:
    """Return an array of texts; files of eofm 0.1 lack groups and countries."""
    return tuple(map(str, data[name].tolist())) if name in data else ()


def _check_shapes(found: Predictions) -> None:
    """Check that scores, targets, ids and classes match in number."""
    samples, classes = len(found.ids), len(found.classes)
    shapes = {
        "scores": (found.scores, (samples, classes)),
        "probability": (found.probability, (samples, classes)),
        "matrices": (found.matrices, (samples, classes, classes)),
        "prompts": (found.prompts, (samples, classes, WIDTH)),
    }
    for name, (tensor, shape) in shapes.items():
        if tensor is not None and (tensor.shape != shape or tensor.is_complex()):
            raise ValueError(f"{name} {tuple(tensor.shape)} of {samples} ids, {classes} classes")
    for name, words in (("groups", found.groups), ("countries", found.countries)):
        if words and len(words) != samples:
            raise ValueError(f"{name} of {len(words)} samples, {samples} ids")
    target = found.target
    if target.shape not in {(samples,), (samples, classes)}:
        raise ValueError(f"target {tuple(target.shape)} of {samples} ids, {classes} classes")
    if target.ndim == 1 and ((target < 0) | (target >= classes)).any():
        raise ValueError(f"targets from {target.min()} to {target.max()} of {classes} classes")


@dataclass(frozen=True)
class Archive:
    """Stores the predictions of a run, and finds those of earlier runs.

    Args:
        records: The file of results; predictions are in a folder next to it.
        task: Name and version of the task.
        sample: Images and split.
        ids: Ids of the test samples, M.
        classes: Names, K.
        target: (M,) or (M, K); None for a segmentation, whose predictions count pixels of masks.
        metrics: Metrics of the task.
        groups: Name of the group of each test sample, M; empty if every sample is a group.
        countries: Country of each test sample, M; empty if unknown.
    """

    records: Path
    task: str
    sample: Sample
    ids: tuple[str, ...]
    classes: tuple[str, ...]
    target: Tensor | None
    metrics: tuple[Metric, ...]
    groups: tuple[str, ...] = ()
    countries: tuple[str, ...] = ()

    def score(
        self, model: Identity, kind: str, scaling: Scaling, k: int, splits: Callable[[], Splits]
    ) -> Scored:
        """Return the scores of a probe of features: from the archive, or fitted now and stored.

        Args:
            model: Model to score.
            kind: A key of `eofm.bench.probes.KINDS`, or a user's own function.
            scaling: Scaling applied to the features first.
            k: Number of neighbours.
            splits: Opens the features; not called if the probe is in the archive.

        Raises:
            DataError: If predictions cannot be stored.
            ConfigError: If a metric does not match the labels.
        """
        choices = (kind, scaling.value, k)
        code = [probed, probe, nearest, logistic]
        if kind == NMTUNE:
            code.append(nmtune)
        if kind not in KINDS:  # predictions of a user's own function change with its file
            code += [sys.modules[probe_of(kind).__module__]]
        request = request_sha256(self.task, self.sample, model, choices, code)
        return self.kept(request, lambda: run_probe(kind, splits(), scaling, k, self.metrics))

    def known(self, request: str) -> Predictions | None:
        """Return the predictions stored under a request; None if there are no complete ones.

        Args:
            request: sha256 of everything that the predictions depend on.
        """
        path = self._path(request)
        if not path.is_file():
            return None
        try:
            found = load_predictions(path)
        except DataError as error:
            print(f"kept predictions are not whole, fitted again: {error}", file=sys.stderr)  # noqa: T201
            return None
        same = found.ids == self.ids and found.classes == self.classes
        if self.target is None:
            dense = found.matrices is not None or found.prompts is not None
            return found if same and dense else None
        return found if same and torch.equal(found.target, self.target) else None

    def kept(self, request: str, fit: Callable[[], Scored]) -> Scored:
        """Return the stored predictions of a request, or fit and store them now.

        Args:
            request: sha256 of everything that the predictions depend on.
            fit: Fits the probe.

        Raises:
            DataError: If predictions cannot be stored.
        """
        path = self._path(request)
        known = self.known(request)
        if known is not None:
            scored, sha256 = known.scored(self.metrics), fresh_sha256(path)
        else:
            scored = fit()
            target = scored.target if self.target is None else self.target
            target = target if scored.matrices is None else _pixels(scored.matrices)
            assert target is not None  # noqa: S101 (whole images have labels)
            names = (self.ids, self.classes, self.groups, self.countries)
            sha256 = write_predictions(path.parent, request, scored, target, *names)
        return replace(
            scored,
            groups=_numbers(self.groups),
            predictions=f"{FOLDER}/{path.name}",
            predictions_sha256=sha256,
        )

    def _path(self, request: str) -> Path:
        return self.records.parent / FOLDER / f"{request}.npz"


def _pixels(matrices: Tensor) -> Tensor:
    """Return the labelled pixels of each class, (M, K), of confusions (M, K, K)."""
    return matrices.sum(dim=2)


@dataclass(frozen=True)
class Group:
    """Scores on the same images.

    Args:
        sample: The images.
        scored: (name of the candidate, kind of the probe) -> its score.
        train_counts: As in `Result`.
    """

    sample: Sample
    scored: Mapping[tuple[str, str], Scored]
    train_counts: tuple[int, ...]


_SAME: Final = 1e-9


def _beside(records: Path, name: str) -> Path:
    """Return a file in the folder of the records; a record may not name a file elsewhere."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise DataError(
            "the record names predictions outside of its folder",
            found=name[:200],
            expected=f"{FOLDER}/FILE.npz, beside the records",
            where=records,
        )
    return records.parent / path


def predictions_of(result: Result, records: Path) -> Predictions:
    """Return the predictions of a record, after checking that they give its value.

    Args:
        result: The record.
        records: File of the record; predictions are in a folder next to it.

    Raises:
        DataError: If there are none, or they do not belong to the record.
    """
    if not result.predictions:
        raise DataError(
            "this record was written without predictions",
            found=f"{result.model.name}, {result.probe}, {result.metric}",
            where=records,
            remedy="run the benchmark again with another --out",
        )
    path = _beside(records, result.predictions)
    found = load_predictions(path)
    if fresh_sha256(path) != result.predictions_sha256:
        raise DataError(
            "these predictions are not those of the record: the checksum differs",
            found=fresh_sha256(path),
            expected=result.predictions_sha256,
            where=path,
        )
    with foreign(DataError, "the predictions give no score", where=path):
        metric = Metric(result.metric)
        value = found.scored([metric]).value(metric)
    if abs(value - result.value) > _SAME:
        raise DataError(
            "the predictions give another score than the record",
            found=f"{metric} = {value:.6f}",
            expected=f"{result.value:.6f}",
            where=path,
        )
    return _grouped(found, result.sample, path)


def _grouped(found: Predictions, sample: Sample, path: Path) -> Predictions:
    """Return the predictions if their groups are those that the record's interval resampled."""
    if not sample.groups:
        return replace(found, groups=())
    groups = found.groups or found.ids  # if every sample is a group, a file may omit them
    if (len(set(groups)), groups_sha256(found.ids, groups)) != (
        sample.groups,
        sample.groups_sha256,
    ):
        raise DataError(
            "the groups of the predictions are not those of the record",
            found=f"{len(set(groups))} groups",
            expected=f"{sample.groups} {sample.grouping}",
            where=path,
            remedy="run the benchmark again with another --out",
        )
    return replace(found, groups=groups)
