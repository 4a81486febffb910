"""What Lightning iterates: batches from a feeder, which a resumed run continues."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from eofm.contract.imagery import Labels, NativeImagery
from eofm.loading.feeder import Feeder
from eofm.loading.pairs import PairFeeder
from eofm.loading.sampler import EpochSampler

# Of two sensors a batch holds the images of both, and the labels of the place.
Pixels = NativeImagery | tuple[NativeImagery, NativeImagery]
Batch = tuple[Pixels, Labels]


class Copied(Protocol):
    """Something that knows when a batch has been copied: a `torch.cuda.Event`."""

    def synchronize(self) -> None:
        """Wait until it has."""


class StoreLoader:
    """What Lightning iterates: batches from a feeder, which a resumed run continues.

    A batch may be used until the next one is asked for; then its memory is read into again.

    Attributes:
        sampler: Says which rows; Lightning tells it the epoch.
        waited: Seconds that the consumer has waited for batches.
        present: Rows of the batch that was given out last.

    Args:
        feeder: Reads.
        sampler: Chooses.
    """

    def __init__(self, feeder: Feeder | PairFeeder, sampler: EpochSampler) -> None:
        self.feeder = feeder
        self.sampler = sampler
        self.waited = 0.0
        self.present: NDArray[np.int64] = np.zeros(0, np.int64)
        self._epoch = self._step = 0
        self._resume: tuple[int, int] | None = None
        self._feed: Iterator[Batch] | None = None
        self._copied: Copied | None = None

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of the epoch that is set when the first one is asked for."""
        self.stop()
        self._epoch, self._step = self.sampler.epoch, 0
        if self._resume is not None and self._resume[0] == self._epoch:
            self._step = self._resume[1]
        self._resume = None
        if self._step == 0:
            # torch's DataLoader draws a seed for its workers here: a run has the same random
            # numbers, hence the same result, whatever feeds it
            torch.empty((), dtype=torch.int64).random_()
        rows, first = self.sampler.rows(self._epoch, self._step), self._step
        feed: Iterator[Batch] = self.feeder.feed(rows)
        self._feed = feed
        while True:
            began = time.monotonic()
            self._wait_for_copy()
            batch = next(feed, None)
            self.waited += time.monotonic() - began
            if batch is None:
                return
            self.present = rows[self._step - first]
            self._step += 1
            yield batch

    def copied_when(self, event: Copied) -> None:
        """Do not read into the memory of the present batch before this event."""
        self._copied = event

    def _wait_for_copy(self) -> None:
        if self._copied is not None:
            self._copied.synchronize()
            self._copied = None

    def stop(self) -> None:
        """End the epoch that is being read, if there is one."""
        self._wait_for_copy()
        feed, self._feed = self._feed, None
        if feed is not None:
            feed.close()  # type: ignore[attr-defined]  # a generator

    def close(self) -> None:
        """Stop, and close the files."""
        self.stop()
        self.feeder.close()

    def state_dict(self) -> dict[str, int]:
        """Return how far the consumer is: goes into Lightning's checkpoints."""
        return {"epoch": self._epoch, "step": self._step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume after the last batch that was consumed, once that epoch begins."""
        self._resume = (state["epoch"], state["step"])
