"""Processes that share a machine leave it to each other while they wait."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from eofm.environment import WAIT_SETTINGS, wait_passively


def policy_after(code: str, **settings: str) -> list[str]:
    """Return what a fresh process prints that runs some code, with only these settings."""
    inherited = {k: v for k, v in os.environ.items() if k not in WAIT_SETTINGS}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**inherited, **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[1:]


@pytest.mark.parametrize(
    ("settings", "expected"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")]
)
def test_every_verb_waits_passively_unless_told(settings: dict[str, str], expected: str) -> None:
    """The command line sets the policy before torch is loaded, and leaves the user's alone; a
    worker, started anew, has it in its environment before it loads anything.
    """
    child = "import os; print(os.environ['OMP_WAIT_POLICY'])"
    code = (
        "import os, subprocess, sys; from eofm.cli import main; main(['--version']); "
        "print('torch' in sys.modules, os.environ.get('OMP_WAIT_POLICY'), flush=True); "
        f"subprocess.run([sys.executable, '-c', {child!r}])"
    )

    assert [f"False {expected}", expected] == policy_after(code, **settings)


@pytest.mark.parametrize("name", WAIT_SETTINGS)
def test_any_choice_of_the_user_stands(name: str) -> None:
    """Each of the settings that say how threads wait keeps the policy from being set."""
    environ = {name: "1"}
    wait_passively(environ)

    assert {name: "1"} == environ


@pytest.mark.skipif(os.name != "posix", reason="Windows does not tell of an orphan")
def test_a_process_ends_with_the_one_that_started_it() -> None:
    """One whose starter dies, or had died before it looked, does not wait for ever."""
    child = (
        "import sys, time; from eofm.environment import end_with_starter; "
        "end_with_starter(int(sys.argv[1])); print('waits', flush=True); time.sleep(100)"
    )
    starter = (
        "import os, subprocess, sys, signal; "
        f"one = subprocess.Popen([sys.executable, '-c', {child!r}, str(os.getpid())], "
        "stdout=subprocess.PIPE); one.stdout.readline(); "
        f"subprocess.Popen([sys.executable, '-c', {child!r}, '-1']); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )

    # it returns when all have ended that could write
    done = subprocess.run(
        [sys.executable, "-c", starter], capture_output=True, check=False, timeout=60
    )

    assert -signal.SIGKILL == done.returncode
