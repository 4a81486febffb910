"""What the scripts that time a step have in common: options, conditions, and where rows go."""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import torch

DEVICE: Final = "cuda" if torch.cuda.is_available() else "cpu"

Row = TypeVar("Row", bound=Mapping[str, object])


def step_parser(about: str, architectures: Iterable[str]) -> argparse.ArgumentParser:
    """Return the options of such a script: network, batch, rounds, threads, file."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--architecture", default="vits14", choices=sorted(architectures))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="file for the table")
    return parser


def conditions(given: argparse.Namespace, bands: int) -> str:
    """Return on what the times were measured, in words."""
    device = torch.cuda.get_device_name() if DEVICE == "cuda" else platform.processor() or "CPU"
    return (
        f"{given.architecture} at {given.size} px, {bands} bands, {given.batch} scenes, "
        f"{given.threads} thread(s), {device}, torch {torch.__version__}"
    )


def command(script: str) -> str:
    """Return the command that was given, as Markdown."""
    return f"`{shlex.join(['python', f'benchmarks/speed/{script}', *sys.argv[1:]])}`"


def run(
    given: argparse.Namespace,
    measure: Callable[[argparse.Namespace], Sequence[Row]],
    table: Callable[[Sequence[Row], argparse.Namespace], str],
) -> None:
    """Measure, print the rows and the table, and write the table where a file is named."""
    torch.set_num_threads(given.threads)
    rows = measure(given)
    for row in rows:
        print(json.dumps(row))
    text = table(rows, given)
    print(text)
    if given.out:
        given.out.write_text(text, encoding="utf-8")
