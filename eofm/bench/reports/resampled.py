"""What the intervals of a record resample, in words: exactly what its sample says."""

from __future__ import annotations

from collections.abc import Iterable

from eofm.bench.records import Result, Sample
from eofm.probes.bootstrap import FEW_GROUPS


def resampled(sample: Sample) -> str:
    """Return what the intervals of a record resample, as a clause with its caveats.

    Args:
        sample: Of the record. One of eofm 0.1 says nothing of groups, and is called so.
    """
    units = sample.groups or sample.n_test
    if sample.grouped and units == 1:
        found = (
            f"all test samples ({sample.n_test:,}) are of one group, where {sample.grouping} are "
            f"groups: {sample.grouped_by}"
        )
    elif sample.grouped:
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
    return f"{found}. {_few(units)}" if units < FEW_GROUPS else found


def _few(units: int) -> str:
    if units == 1:
        return "**With one there is no interval**, and no model is told from another"
    return (
        f"**{units} are few**: below {FEW_GROUPS}, intervals are too narrow, and a difference that "
        "they show may be none"
    )


def over(sample: Sample) -> str:
    """Return behind which words an interval stands in a figure: `over 12 products`."""
    return f"over {sample.groups:,} {sample.grouping}" if sample.groups else "over test samples"


def resampled_notes(results: Iterable[Result]) -> list[str]:
    """Return what the intervals of records resample; which models' where records differ in it.

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
