"""What the timing scripts share: options, the clock, what a report says, and its file."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import torch

DEVICE: Final = "cuda" if torch.cuda.is_available() else "cpu"

Row = TypeVar("Row", bound=Mapping[str, object])


def now() -> float:
    """Return the time in seconds, when the device has caught up."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


# --------------------------------------------------------------------------------- options


def speed_parser(
    about: str | None, rounds: int, *, append: bool = False
) -> argparse.ArgumentParser:
    """Return the options that every script has: rounds, and the file of the report.

    Args:
        about: Docstring of the script.
        rounds: Default number of rounds in which the sides take turns.
        append: The report is appended to `--table`; else `--out` is written anew.
    """
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds)
    if append:
        parser.add_argument("--table", type=Path, help="append the report to this file")
    else:
        parser.add_argument("--out", type=Path, help="file for the report")
    return parser


def step_parser(about: str | None, architectures: Iterable[str]) -> argparse.ArgumentParser:
    """Return the options of a script that times a step: network, batch and threads as well."""
    parser = speed_parser(about, 5)
    parser.add_argument("--architecture", default="vits14", choices=sorted(architectures))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    return parser


# --------------------------------------------------------------------------------- the report


def conditions(given: argparse.Namespace, bands: int) -> str:
    """Return on what a step was timed, in words."""
    device = torch.cuda.get_device_name() if DEVICE == "cuda" else platform.processor() or "CPU"
    return (
        f"{given.architecture} at {given.size} px, {bands} bands, {given.batch} scenes, "
        f"{given.threads} thread(s), {device}, torch {torch.__version__}"
    )


def machine() -> str:
    """Return the machine and the version of torch, in words."""
    return f"{os.cpu_count()} x {platform.machine()}, {DEVICE}, torch {torch.__version__}"


def command() -> str:
    """Return the command that was given, as Markdown; without the file that is appended to."""
    words = sys.argv[1:]
    if "--table" in words:
        at = words.index("--table")
        words = words[:at] + words[at + 2 :]
    return f"`{shlex.join(['python', f'benchmarks/speed/{Path(sys.argv[0]).name}', *words])}`"


def report(text: str, given: argparse.Namespace) -> None:
    """Print a report, and write it to the file that was named.

    Args:
        text: In Markdown.
        given: Options of `speed_parser`.
    """
    print(text)
    if getattr(given, "table", None):
        with given.table.open("a", encoding="utf-8") as file:
            file.write(text + "\n")
    elif getattr(given, "out", None):
        given.out.write_text(text, encoding="utf-8")


def run(
    given: argparse.Namespace,
    measure: Callable[[argparse.Namespace], Sequence[Row]],
    table: Callable[[Sequence[Row], argparse.Namespace], str],
) -> None:
    """Time a step: measure, print the rows, and report their table."""
    torch.set_num_threads(given.threads)
    rows = measure(given)
    for row in rows:
        print(json.dumps(row))
    report(table(rows, given), given)
