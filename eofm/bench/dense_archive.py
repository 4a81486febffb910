"""What the linear layer of a dense task says of every test image, kept beside the records.

A confusion matrix per image (or group of images) is all that scores, intervals and comparisons
need, at a thousandth of the size of the maps. A file is named by its request: the sha256 of all it
depends on, the code of the probe included. A probe that has been fitted is not fitted again.

Shapes: G groups of test images, K classes.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from eofm.bench import dense_metrics, dense_probe
from eofm.bench.cache import code_sha256, file_sha256
from eofm.bench.dense_metrics import SEGMENTATION
from eofm.bench.features import Identity
from eofm.bench.predictions import FOLDER, Predictions, load_predictions
from eofm.bench.results import Sample
from eofm.errors import DataError
from eofm.probes import linear as probe
from eofm.probes import logistic


@dataclass(frozen=True)
class Segmented:
    """What a linear layer says of the test images.

    Args:
        matrices: int64 (G, K, K), true classes in rows.
        groups: Of the images, G.
        classes: Names, K.
        probe: Id of the probe with all choices.
        strength: Chosen C.
        gradient_norm: Of the final fit.
        faults: What is to be said against the fit.
        rank: Effective rank of the training patches.
        seconds: Spent on the fit and on scoring; 0 if it was in the archive.
        feature_seconds: Spent on tokens, for all models of the run together.
        predictions: File in which this is kept, relative to the records; empty if none.
        predictions_sha256: Of that file.
    """

    matrices: Tensor
    groups: tuple[str, ...]
    classes: tuple[str, ...]
    probe: str
    strength: float
    gradient_norm: float
    faults: tuple[str, ...]
    rank: float
    seconds: float = 0.0
    feature_seconds: float = 0.0
    predictions: str = ""
    predictions_sha256: str = ""


def request_sha256(task: str, sample: Sample, model: Identity, patches: int) -> str:
    """Return the name of a file: the sha256 of all that it depends on.

    Args:
        task: Name and version of the task.
        sample: What is scored on what.
        model: What is scored; its name in tables has no say.
        patches: How many training patches were asked for.
    """
    code = code_sha256(*(str(m.__file__) for m in (dense_probe, dense_metrics, probe, logistic)))
    content = [
        *(task, sample.dataset, sample.split, sample.ids_sha256, sample.data_sha256),
        *(model.about if not model.weights_sha256 else "", model.weights_sha256),
        *(model.recipe_sha256, model.plan_sha256, *model.waivers, patches, code),
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def kept_or_made(path: Path, make: Callable[[], Segmented]) -> Segmented:
    """Return what is in a file; without one, or if it is not whole, make and keep it.

    Raises:
        DataError: If the file cannot be written.
    """
    if path.is_file():
        try:
            return _segmented(load_predictions(path), path)
        except DataError as error:
            print(f"kept predictions are not whole, made again: {error}", file=sys.stderr)  # noqa: T201
    made = make()
    _write(path, made)
    return replace(made, predictions=_name(path), predictions_sha256=file_sha256(path))


def _name(path: Path) -> str:
    return f"{FOLDER}/{path.name}"


def _segmented(kept: Predictions, path: Path) -> Segmented:
    fit, probe = kept.fit, kept.result()
    faults, rank = fit.get("faults"), fit["rank"]
    whole = kept.matrices is not None and isinstance(faults, list) and isinstance(rank, float)
    if not whole or probe.strength is None or probe.gradient_norm is None:
        raise DataError("these are no predictions of a segmentation", where=path)
    assert kept.matrices is not None  # noqa: S101 (so that the type checker knows)
    assert isinstance(faults, list)  # noqa: S101
    assert isinstance(rank, float)  # noqa: S101
    return Segmented(
        matrices=kept.matrices,
        groups=kept.ids,
        classes=kept.classes,
        probe=probe.probe,
        strength=probe.strength,
        gradient_norm=probe.gradient_norm,
        faults=tuple(faults),
        rank=rank,
        predictions=_name(path),
        predictions_sha256=file_sha256(path),
    )


def _write(path: Path, made: Segmented) -> None:
    fit = {
        "kind": SEGMENTATION,
        "probe": made.probe,
        "strength": made.strength,
        "on_edge": False,
        "gradient_norm": made.gradient_norm,
        "validation": [],
        "faults": list(made.faults),
        "rank": made.rank,
    }
    buffer = io.BytesIO()
    np.savez(
        buffer,
        allow_pickle=False,
        ids=np.array(list(made.groups)),
        classes=np.array(list(made.classes)),
        scores=made.matrices.sum(dim=1).double().numpy(),
        target=made.matrices.sum(dim=2).numpy(),
        matrices=made.matrices.numpy(),
        fit=np.array(json.dumps(fit)),
    )
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(buffer.getvalue())
        temporary.replace(path)
    except OSError as error:
        raise DataError(
            "predictions cannot be kept",
            found=error,
            where=path.parent,
            remedy="name another --out",
        ) from error
