"""What a packed store holds, for the terminal; what `eofm pack` does with a finished store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from eofm.store.config import StatsConfig, VerifyConfig
from eofm.store.describe.stats import make_statistics
from eofm.store.describe.verify import verify_store
from eofm.store.reader import Store


@dataclass(frozen=True)
class PackReport:
    """The outcome of `eofm pack`.

    Args:
        out: The store.
        images: How many images it was cut from.
        windows: How many rows it has.
        skipped: How many windows were left out for want of valid pixels.
        labelled: How many rows have labels.
        classes: Class name -> rows in which it is present; empty for an unlabelled store.
        already: Whether the store was complete before, and nothing was done.
        quarantined: Name -> problem, of the images that could not be read and were passed over.
        after: What was done with the finished store and what a user should know, in words.
    """

    out: Path
    images: int
    windows: int
    skipped: int
    labelled: int
    classes: Mapping[str, int]
    already: bool = False
    quarantined: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()

    @classmethod
    def of(cls, path: Path, *, already: bool) -> PackReport:
        """Return the report of a finished store."""
        store = Store(path)
        labels = store.labels(range(len(store)))
        counts = labels.multi_hot.sum(dim=0).int().tolist()
        return cls(
            out=path,
            images=store.card.sources,
            windows=len(store),
            skipped=store.card.skipped,
            labelled=int(labels.known.sum()),
            classes=dict(zip(store.classes, counts, strict=True)),
            already=already,
            quarantined=store.card.quarantined,
        )

    def then(self, *, verify: bool, stats: bool, workers: int = 1) -> PackReport:
        """Do what `--verify` and `--stats` ask for, and return the report with the outcome.

        The statistics are those of the training images where the data set has a split, else of all;
        their file says which.

        Args:
            verify: Read every image again and compare its crc32 with the index.
            stats: Count the statistics of every band and write them beside the index.
            workers: How many threads read.

        Raises:
            StoreError: If bytes are not those that were written.
        """
        said = []
        if verify:
            said.append(verify_store(VerifyConfig(str(self.out), max(4, workers))).describe())
        if stats:
            train = "train" in Store(self.out).table["split"].unique().to_pylist()
            where = ["split=train"] if train else []
            said.append(make_statistics(StatsConfig(str(self.out), where=where)).describe())
        return replace(self, after=tuple(said))

    def describe(self) -> str:
        """Return some lines for the terminal."""
        state = "was complete already; nothing was done" if self.already else "is complete"
        lines = [
            f"{self.out} {state}",
            f"  {self.images} images, {self.windows} windows"
            + (f", {self.skipped} left out for want of valid pixels" if self.skipped else ""),
        ]
        if not self.classes:
            lines.append("  unlabelled")
        else:
            lines.append(f"  {self.labelled} of {self.windows} labelled")
            width = max(map(len, self.classes))
            lines += [
                f"    {name:{width}}  {count:6d}  {count / max(self.labelled, 1):4.0%}"
                for name, count in self.classes.items()
            ]
        if self.quarantined:
            lines.append(f"  {len(self.quarantined)} could not be read, and were passed over:")
            lines += [f"    {name}: {why}" for name, why in list(self.quarantined.items())[:10]]
            lines += ["    ... (all are in spec.json)"] if len(self.quarantined) > 10 else []
        lines += [f"  {line}" for text in self.after for line in text.splitlines()]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.describe()
