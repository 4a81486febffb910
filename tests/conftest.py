"""Fixtures shared by all tests."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from eofm.environment import wait_passively

gc.disable()  # what is imported is no garbage: it is looked at neither now nor in the tests

wait_passively()  # before torch is loaded

import matplotlib as mpl  # noqa: E402
import pytest  # noqa: E402
import shape_checker  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

mpl.use("Agg")

pytest_plugins = ["miniature_files"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell lets its jobs in the background ignore Ctrl-C, and so would what the tests start
    signal.signal(signal.SIGINT, signal.default_int_handler)

# `pytest -m "slow or hypothesis" --hypothesis-profile=thorough` tries three times as many examples
settings.register_profile("short", max_examples=30, deadline=None)
settings.register_profile("thorough", max_examples=100, deadline=None)
settings.load_profile("short")

if "PYTEST_XDIST_WORKER" in os.environ:
    # there is a process for each core: threads on top of them would wait for one another
    torch.set_num_threads(1)

REPOSITORY = Path(__file__).parent.parent


def pytest_collection_finish() -> None:
    """Collect garbage again, but only of what the tests make."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Let the linear algebra of NumPy and SciPy, which reads this when it is loaded, have one.

    What is compiled is kept, for the other workers, the processes that tests start and the next
    run: without that each of them compiles the tests and the package anew.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Check shapes at every call of a property test, whose examples differ, else at the first."""
    shape_checker.start_test(every_call=item.get_closest_marker("hypothesis") is not None)


@pytest.fixture(scope="session", autouse=True)
def nothing_waits_for_the_disk() -> Iterator[None]:
    """Let what is written stay in the memory of the system: it outlives every process.

    Only a power cut would tell the difference. A descriptor that is closed is an error as before.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        yield


def _real(variable: str, default: str) -> Path:
    """The folder that a variable names, seen from the repository wherever a test happens to be.

    Its path is absolute: tests start scripts in other folders.
    """
    return (REPOSITORY / os.environ.get(variable, default)).resolve()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real imagery, or a skip that says where it was looked for."""
    root = _real("EOFM_REAL_DATA", "../shared/data")
    if not (root / "README.md").is_file():
        pytest.skip(f"no real imagery at EOFM_REAL_DATA={root}")
    return root


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """A transformer pretrained on natural images, or a skip that says where it was looked for."""
    root = _real("EOFM_REAL_WEIGHTS", "../shared/weights")
    path = root / "natural_images_vits14.safetensors"
    if not path.is_file():
        pytest.skip(f"no real weights at EOFM_REAL_WEIGHTS={root}")
    return path


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded source of randomness; nothing draws from the global state."""
    return torch.Generator().manual_seed(0)
