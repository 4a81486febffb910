"""Exact search over int8 vectors as `eofm search` does it, beside plain numpy on the same codes.

Vectors are synthetic. In every round eofm scans all rows, then numpy does what a user would write:
decode by blocks of 100,000 rows, one product, one norm. Rounds alternate the two; medians are
printed and written as Markdown. Both must give the same scores and the same best ten rows.

    python benchmarks/speed/search.py [--rows 1000000] [--rounds 5] [--out benchmarks/results/...]

Version 0.1 has no search: there is nothing to compare it with.
"""

from __future__ import annotations

import os
import statistics
import time

import numpy as np
from timing import command, report, speed_parser

from eofm.geo.embeddings import Codes
from eofm.geo.search import best, scan_codes

BLOCK = 100_000
NONE = np.zeros(0, np.int64)


def plain(stored: np.ndarray, codes: Codes, direction: np.ndarray) -> np.ndarray:
    """Cosines by decoding blocks."""
    scores = np.empty(len(stored), np.float32)
    for first in range(0, len(stored), BLOCK):
        x = stored[first : first + BLOCK].astype(np.float32) * codes.scale + codes.offset
        scores[first : first + BLOCK] = x @ direction / np.linalg.norm(x, axis=1)
    return scores


def main() -> None:
    """Run the rounds and print the table."""
    parser = speed_parser(__doc__, 5)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dims", type=int, default=384)
    given = parser.parse_args()
    random = np.random.default_rng(0)
    stored = random.integers(-127, 128, (given.rows, given.dims), dtype=np.int8)
    scale = random.uniform(0.005, 0.02, given.dims).astype(np.float32)
    codes = Codes(scale, random.normal(0, 0.3, given.dims).astype(np.float32))
    query = codes.decode(stored[:1])[0]
    direction = (query / np.linalg.norm(query)).astype(np.float32)
    seconds: dict[str, list[float]] = {"eofm": [], "numpy by blocks": []}
    for _ in range(given.rounds):
        start = time.perf_counter()
        found = scan_codes(stored, codes, direction, cosine=True)
        top = best(found, 10, NONE)
        seconds["eofm"].append(time.perf_counter() - start)
        start = time.perf_counter()
        expected = plain(stored, codes, direction)
        order = np.argsort(-expected)[:10]
        seconds["numpy by blocks"].append(time.perf_counter() - start)
    if top.tolist() != order.tolist():
        raise SystemExit("the two do not find the same rows")
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    lines = [
        f"# Search: {given.rows} x {given.dims} int8 vectors, exact cosine and the best ten",
        "",
        f"{command()}, {cores} cores, load {load:.1f} at the end; median "
        f"of {given.rounds} interleaved rounds, lowest in brackets.",
        "",
        "| | seconds | million rows a second |",
        "|---|---:|---:|",
        *(
            f"| {name} | {statistics.median(times):.3f} ({min(times):.3f}) | "
            f"{given.rows / statistics.median(times) / 1e6:.2f} |"
            for name, times in seconds.items()
        ),
        "",
        f"Largest difference of two scores: {np.abs(found - expected).max():.1e}.",
    ]
    report("\n".join(lines) + "\n", given)


if __name__ == "__main__":
    main()
