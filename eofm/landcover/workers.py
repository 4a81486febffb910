"""Run jobs here, in other processes, or on a Dask cluster: the same results in the same order."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol

from eofm.errors import ConfigError, LabelError
from eofm.landcover.jobs import Job, run_job
from eofm.landcover.table import Batch
from eofm.orphans import end_with_parent


class _Future(Protocol):
    def result(self) -> Batch: ...


def run_jobs(jobs: Sequence[Job], workers: int = 1, dask: str | None = None) -> Iterator[Batch]:
    """Run jobs and yield their results in order.

    Args:
        jobs: What to do.
        workers: Processes on this machine; 1 runs them in this one.
        dask: Scheduler of a Dask cluster to run them on instead.

    Raises:
        ConfigError: If Dask is not installed, or its scheduler does not answer.
        LabelError: If a process was killed, or as `run_job`.
        RasterError: As `run_job`.
    """
    if dask is not None:
        yield from _on_dask(jobs, dask)
    elif workers > 1 and len(jobs) > 1:
        yield from _in_processes(jobs, workers)
    else:
        yield from map(run_job, jobs)


def _in_order(jobs: Sequence[Job], submit: Callable[[Job], _Future], ahead: int) -> Iterator[Batch]:
    """Keep so many jobs under way, so that neither jobs nor results pile up."""
    waiting: deque[_Future] = deque()
    for job in jobs:
        waiting.append(submit(job))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _in_processes(jobs: Sequence[Job], workers: int) -> Iterator[Batch]:
    # forked children would share GDAL's open files with us
    context = multiprocessing.get_context("spawn")
    count = min(workers, len(jobs))
    with ProcessPoolExecutor(count, context, end_with_parent) as pool:
        try:
            yield from _in_order(jobs, lambda job: pool.submit(run_job, job), 2 * count)
        except BrokenProcessPool as error:
            raise LabelError(
                "a worker process was killed",
                found="perhaps the machine is out of memory",
                remedy="run again with fewer --workers and --resume: finished batches stay",
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _on_dask(jobs: Sequence[Job], scheduler: str) -> Iterator[Batch]:
    try:
        from distributed import Client
    except ImportError as error:
        raise ConfigError(
            "Dask is not installed",
            found=error,
            remedy='pip install "eofm[dask]", or use --workers on this machine',
        ) from error
    try:
        client = Client(scheduler, timeout="10s", set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise ConfigError(
            "the Dask scheduler does not answer",
            found=str(error) or type(error).__name__,
            expected="an address such as tcp://host:8786",
            where=scheduler,
        ) from error
    with client:
        threads = sum(client.nthreads().values())  # type: ignore[no-untyped-call]
        yield from _in_order(
            jobs, lambda job: client.submit(run_job, job, pure=False), 2 * max(threads, 1)
        )
